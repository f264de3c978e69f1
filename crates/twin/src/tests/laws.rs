//! Laws of the three tenses, held against chance.

use std::collections::BTreeMap;

use proptest::prelude::*;
use twinlake_contracts::format_us;
use twinlake_query::SessionSettings;

use super::plant::{MachineReading, YEAR_US, reading, reading_rows};
use super::{City, FORK_US, Reading, ask};

fn run<F: Future<Output = ()>>(work: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work);
}

const ALL: &str =
    "SELECT vehicle_id, valid_time, known_time, speed_mps, mode, origin FROM twin.vehicle ORDER BY 1";

fn any_reading() -> impl Strategy<Value = Reading> {
    let vehicle = prop_oneof![Just("a"), Just("b"), Just("c")];
    (vehicle, 0..6_i64, 0..6_i64, proptest::option::of(0..6_i64), 0..4_i64).prop_map(
        |(vehicle, ts, known, sequence, speed)| Reading {
            vehicle,
            ts: Some(FORK_US + (ts - 3) * 1_000_000),
            known: Some(FORK_US + (known - 3) * 1_000_000),
            sequence,
            speed: speed as f64,
            mode: "bus",
            ..Reading::default()
        },
    )
}

/// A machine's readings, some of them its last.
fn any_machine() -> impl Strategy<Value = MachineReading> {
    let state = prop_oneof![3 => Just("running"), 1 => Just("stopped"), 2 => Just("removed")];
    (1..4_i64, 0..12_i64, 0..14_i64, state, 0..5_i64).prop_map(
        |(machine, at_s, known_s, state, temperature)| MachineReading {
            machine,
            at_s,
            known_s,
            state,
            temperature_c: temperature as f64,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// As it was known at K is what a lake says that never got the rows which arrived after K.
    #[test]
    fn known_at_leaves_out_exactly_what_arrived_later(readings in proptest::collection::vec(any_reading(), 1..30)) {
        run(async {
            let city = City::new().await;
            city.drive(&readings, Some(1)).await;
            for known in [FORK_US - 4_000_000, FORK_US - 1, FORK_US, FORK_US + 1_000_000] {
                let early: Vec<Reading> =
                    readings.iter().filter(|r| r.known.is_some_and(|at| at <= known)).cloned().collect();
                let other = City::new().await;
                if !early.is_empty() {
                    other.drive(&early, Some(1)).await;
                }
                let session = city.session();
                session.sql(&format!("SET twin.known_at = '{}'", format_us(known))).await.unwrap();
                assert_eq!(ask(&session, ALL).await, other.ask(ALL).await, "known at {}", format_us(known));
            }
        });
    }

    /// The present in memory and the fold of the lake agree, however the stream is cut into batches and commits.
    #[test]
    fn the_fold_is_the_same_however_the_stream_is_cut(
        readings in proptest::collection::vec(any_reading(), 1..40),
        cuts in proptest::collection::vec((1..9_usize, any::<bool>()), 1..12),
        kept_from in 0..6_usize,
    ) {
        run(async {
            let whole = City::new().await;
            whole.drive(&readings, Some(1)).await;
            let city = City::new().await;
            let (mut rest, mut upto) = (readings.as_slice(), 0);
            for (piece, (rows, commit)) in cuts.iter().cycle().take_while({
                let mut left = readings.len();
                move |(rows, _)| {
                    let more = left > 0;
                    left = left.saturating_sub(*rows);
                    more
                }
            }).enumerate() {
                let (now, later) = rest.split_at((*rows).min(rest.len()));
                rest = later;
                upto += u64::from(*commit);
                city.drive(now, commit.then_some(upto)).await;
                if piece >= kept_from {
                    city.twins.keep_present().unwrap();
                    city.ask(ALL).await;
                }
            }
            assert!(rest.is_empty());
            let expected = whole.ask(ALL).await;
            assert_eq!(city.ask(ALL).await, expected);
            let (engine, _twins) = city.reopened();
            assert_eq!(ask(&engine.session(SessionSettings::default()).unwrap(), ALL).await, expected);
        });
    }

    /// A fork that changes nothing is the city, in every tense and both ways of reading it; it differs in nothing from
    /// it, and no scenario from itself.
    #[test]
    fn a_fork_without_change_is_identical(
        readings in proptest::collection::vec(any_reading(), 1..30),
        speed in 0..4_i64,
        kept in any::<bool>(),
    ) {
        run(async {
            let city = City::new().await;
            city.drive(&readings, Some(1)).await;
            if kept {
                city.twins.keep_present().unwrap();
            }
            let text = "name = \"same\"\ndescription = \"A condition that never holds.\"\n[[overrides]]\ntwin = \"vehicle\"\n\
                        where = \"speed_mps > 100\"\nset = { speed_mps = 1.0 }\n";
            city.twins.add_scenario("same.toml", text).unwrap();
            let other = format!(
                "name = \"other\"\ndescription = \"Some are faster.\"\n[[overrides]]\ntwin = \"vehicle\"\n\
                 where = \"speed_mps > {speed}\"\ncompute = {{ speed_mps = \"speed_mps * 2\" }}\n"
            );
            city.twins.add_scenario("other.toml", &other).unwrap();
            for at in ["NULL".to_owned(), format!("'{}'", format_us(FORK_US)), format!("'{}'", format_us(FORK_US - 2_000_000))] {
                let sql = |scenario: &str| format!("SELECT * FROM twin_at('vehicle', {at}{scenario}) ORDER BY vehicle_id");
                let base = city.rows(&sql("")).await;
                assert_eq!(city.rows(&sql(", scenario => 'same'")).await, base);
                let empty = |a: &str, b: &str| format!("SELECT count(*) FROM scenario_diff('{a}', '{b}', at => {at})");
                for (a, b) in [("observed", "same"), ("same", "same"), ("other", "other"), ("closed", "closed")] {
                    assert_eq!(city.ask(&empty(a, b)).await, ["0"], "{a} {b} {at}");
                }
                let changed = format!(
                    "SELECT count(*) FROM twin_at('vehicle', {at}) WHERE speed_mps > {speed} AND speed_mps <> 0"
                );
                assert_eq!(city.ask(&empty("observed", "other")).await, city.ask(&changed).await);
            }
        });
    }

    /// What ends an instance takes it out of every tense from then on; a later reading brings it back. In memory, from the lake and
    /// with a pencil.
    #[test]
    fn instances_end_and_come_back(readings in proptest::collection::vec(any_machine(), 1..40)) {
        run(async {
            let city = City::plant().await;
            city.write("plant.reading", "plant/readings", reading_rows(&readings), Some(1)).await;
            let now = "SELECT machine_id, state, temperature_c FROM twin.machine ORDER BY 1";
            let from_the_lake = city.ask(now).await;
            city.twins.keep_present().unwrap();
            assert_eq!(city.ask(now).await, from_the_lake);
            for until in [0, 5, 20] {
                let mut last: BTreeMap<i64, (i64, i64, usize)> = BTreeMap::new();
                for (place, one) in readings.iter().enumerate().filter(|(_, one)| one.at_s <= until) {
                    let rank = (one.at_s, one.known_s, place);
                    last.entry(one.machine).and_modify(|known| *known = rank.max(*known)).or_insert(rank);
                }
                let expected: Vec<String> = last
                    .values()
                    .map(|rank| readings[rank.2])
                    .filter(|one| one.state != "removed")
                    .map(|one| format!("{} | {} | {:.1}", one.machine, one.state, one.temperature_c))
                    .collect();
                let at = format_us(YEAR_US + until * 1_000_000);
                let sql = format!("SELECT machine_id, state, temperature_c FROM twin_at('machine', '{at}') ORDER BY 1");
                assert_eq!(city.ask(&sql).await, expected, "{at}");
            }
            let rows = city.ask("SELECT count(*) FROM twin.machine_history").await;
            assert_eq!(rows, [readings.len().to_string()], "a history shows all readings");
        });
    }

    /// At every instant of an interval the piece that holds then is the state at that instant.
    #[test]
    fn between_is_the_state_at_each_of_its_instants(readings in proptest::collection::vec(any_machine(), 1..40)) {
        run(async {
            let city = City::plant().await;
            city.write("plant.reading", "plant/readings", reading_rows(&readings), Some(1)).await;
            let time = |second: i64| format_us(YEAR_US + second * 1_000_000);
            let between = format!("twin_between('machine', '{}', '{}')", time(2), time(9));
            for second in [2, 5, 8] {
                let columns = "machine_id, state, temperature_c, valid_time, known_time";
                let held = format!(
                    "SELECT {columns} FROM {between} WHERE held_from <= TIMESTAMP '{0}' AND TIMESTAMP '{0}' < held_until ORDER BY 1",
                    time(second)
                );
                let at = format!("SELECT {columns} FROM twin_at('machine', '{}') ORDER BY 1", time(second));
                assert_eq!(city.ask(&held).await, city.ask(&at).await, "second {second}");
            }
            let odd = format!("SELECT count(*) FROM {between} WHERE NOT held_from < held_until OR held_from < TIMESTAMP '{}' OR held_until > TIMESTAMP '{}'", time(2), time(9));
            assert_eq!(city.ask(&odd).await, ["0"]);
        });
    }
}

/// An instant is an instant, whatever clock it is written with: offsets, leap days, the hour that comes twice, times before
/// 1970, and the last microsecond before another reading.
#[tokio::test]
async fn clocks_and_time_zones() {
    let city = City::new().await;
    let at = |us: i64, speed: f64| Reading {
        vehicle: "a",
        ts: Some(us),
        known: Some(us),
        speed,
        mode: "bus",
        ..Reading::default()
    };
    // 1969-12-31T23:59:59.999999Z, 2024-02-29T23:30:00Z, and both hours of 2018-10-28T03:30 in Helsinki.
    let instants = [-1, 1_709_249_400_000_000, 1_540_686_600_000_000, 1_540_690_200_000_000];
    let readings: Vec<Reading> =
        instants.iter().zip(1..).map(|(us, speed)| at(*us, f64::from(speed))).collect();
    city.drive(&readings, Some(1)).await;
    for (written, speed) in [
        ("1969-12-31T23:59:59.999998Z", None),
        ("1969-12-31T23:59:59.999999Z", Some("1.0")),
        ("1970-01-01T02:59:59.999999+03:00", Some("1.0")),
        ("2018-10-28T03:30:00+03:00", Some("3.0")),
        ("2018-10-28T03:29:59.999999+02:00", Some("3.0")),
        ("2018-10-28T03:30:00+02:00", Some("4.0")),
        ("2024-02-29T23:29:59.999999Z", Some("4.0")),
        ("2024-03-01T01:30:00+02:00", Some("2.0")),
        ("9999-12-31T23:59:59Z", Some("2.0")),
    ] {
        let session = city.session();
        session.sql(&format!("SET twin.as_of = '{written}'")).await.unwrap();
        let expected: Vec<String> = speed.into_iter().map(str::to_owned).collect();
        assert_eq!(ask(&session, "SELECT speed_mps FROM twin.vehicle").await, expected, "as_of {written}");
        session.sql("RESET twin.as_of").await.unwrap();
        session.sql(&format!("SET twin.known_at = '{written}'")).await.unwrap();
        assert_eq!(ask(&session, "SELECT speed_mps FROM twin.vehicle").await, expected, "known_at {written}");
        let sql = format!("SELECT speed_mps FROM twin_at('vehicle', '{written}')");
        assert_eq!(city.ask(&sql).await, expected, "twin_at {written}");
    }
    // A clock that is ahead makes readings of the future: they are the newest, and an instant before them does not see them.
    city.drive(&[at(4_102_444_800_000_000, 9.0)], Some(2)).await;
    assert_eq!(city.ask("SELECT speed_mps FROM twin.vehicle").await, ["9.0"]);
    assert_eq!(city.ask("SELECT speed_mps FROM twin_at('vehicle', '2030-01-01')").await, ["2.0"]);
}

#[tokio::test]
async fn what_is_removed_twice_and_comes_back_is_one_instance() {
    let city = City::plant().await;
    let steps = [
        (vec![reading(1, 0, "running", 1.0)], vec!["1 | 1.0"]),
        (vec![reading(1, 1, "removed", 1.0)], vec![]),
        (vec![reading(1, 2, "removed", 1.0), reading(2, 2, "running", 7.0)], vec!["2 | 7.0"]),
        (vec![reading(1, 3, "stopped", 2.0)], vec!["1 | 2.0", "2 | 7.0"]),
        // Late: it was removed once more in between, which changes nothing now.
        (vec![reading(1, 2, "removed", 9.0)], vec!["1 | 2.0", "2 | 7.0"]),
    ];
    for (step, (readings, expected)) in steps.into_iter().enumerate() {
        let writer = format!("plant/{step}");
        city.write("plant.reading", &writer, reading_rows(&readings), Some(1)).await;
        city.twins.keep_present().unwrap();
        let now = "SELECT machine_id, temperature_c FROM twin.machine ORDER BY 1";
        assert_eq!(city.ask(now).await, expected, "step {step}");
        let by_key = "SELECT count(*) FROM twin.machine WHERE machine_id = 1";
        let count = expected.iter().filter(|row| row.starts_with('1')).count();
        assert_eq!(city.ask(by_key).await, [count.to_string()], "step {step}");
    }
}
