//! The fold: what a state is, in every tense.

use std::collections::BTreeMap;

use proptest::prelude::*;
use twinlake_contracts::format_us;

use super::{City, Reading, ask};

/// Microseconds of a small time: seconds after the epoch.
fn second(second: i64) -> i64 {
    second * 1_000_000
}

fn reading(vehicle: &'static str, ts: i64, known: i64, sequence: i64, speed: f64) -> Reading {
    Reading {
        vehicle,
        ts: Some(second(ts)),
        known: Some(second(known)),
        sequence: Some(sequence),
        speed,
        mode: "bus",
        ..Reading::default()
    }
}

fn at(second: i64) -> String {
    format_us(self::second(second))
}

#[tokio::test]
async fn without_any_reading_a_twin_has_no_instances() {
    let city = City::new().await;
    assert!(city.ask("SELECT * FROM twin.vehicle").await.is_empty());
    assert_eq!(city.ask("SELECT count(*) FROM twin.road_segment_history").await, ["0"]);
}

#[tokio::test]
async fn of_equal_times_the_one_known_last_counts_then_the_one_later_in_the_log() {
    let city = City::new().await;
    city.drive(
        &[
            reading("a", 10, 11, 5, 1.0),
            reading("a", 10, 12, 4, 2.0),
            reading("a", 9, 99, 9, 3.0),
            reading("b", 10, 11, 7, 4.0),
            reading("b", 10, 11, 8, 5.0),
            reading("b", 10, 11, 6, 6.0),
        ],
        Some(1),
    )
    .await;
    // What says nothing about itself loses a tie; what has no key or no time has no place in a history.
    let nameless = Reading { vehicle: "", ..reading("a", 50, 50, 50, 7.0) };
    let timeless = Reading { ts: None, ..reading("a", 50, 50, 50, 8.0) };
    let unknown = Reading { known: None, sequence: None, ..reading("b", 10, 0, 0, 9.0) };
    city.drive(&[nameless, timeless, unknown], None).await;
    let states =
        city.ask("SELECT vehicle_id, speed_mps, origin, scenario FROM twin.vehicle ORDER BY 1").await;
    assert_eq!(states, ["a | 2.0 | observed |", "b | 5.0 | observed |"]);
    assert_eq!(city.ask("SELECT count(*) FROM twin.vehicle_history").await, ["7"]);
}

#[tokio::test]
async fn what_arrived_later_is_not_known_before() {
    let city = City::new().await;
    let silent = Reading { known: None, ..reading("b", 10, 0, 3, 9.0) };
    city.drive(&[reading("a", 10, 11, 1, 1.0), reading("a", 12, 40, 2, 2.0), silent], Some(1)).await;
    let session = city.session();
    let states = "SELECT vehicle_id, speed_mps FROM twin.vehicle ORDER BY 1";
    assert_eq!(ask(&session, states).await, ["a | 2.0", "b | 9.0"]);
    session.sql(&format!("SET twin.known_at = '{}'", at(39))).await.unwrap();
    assert_eq!(
        ask(&session, states).await,
        ["a | 1.0"],
        "late data, and data that does not say, are left out"
    );
    session.sql(&format!("SET twin.known_at = '{}'", at(40))).await.unwrap();
    assert_eq!(ask(&session, states).await, ["a | 2.0"]);
    session.sql("RESET twin.known_at").await.unwrap();
    session.sql(&format!("SET twin.as_of = '{}'", at(11))).await.unwrap();
    assert_eq!(ask(&session, states).await, ["a | 1.0", "b | 9.0"]);
    session.sql(&format!("SET twin.as_of = '{}'", at(9))).await.unwrap();
    assert!(ask(&session, states).await.is_empty());
}

#[tokio::test]
async fn two_tenses_meet_in_one_query() {
    let city = City::new().await;
    city.drive(&[reading("a", 10, 10, 1, 1.0), reading("a", 20, 20, 2, 4.0)], Some(1)).await;
    let sql = format!(
        "SELECT now.vehicle_id, now.speed_mps - past.speed_mps FROM twin.vehicle AS now \
         JOIN twin_at('vehicle', TIMESTAMP '{}') AS past ON now.vehicle_id = past.vehicle_id",
        at(15)
    );
    assert_eq!(city.ask(&sql).await, ["a | 3.0"]);
    let known = format!("SELECT count(*) FROM twin_at('vehicle_history', NULL, known_at => '{}')", at(15));
    assert_eq!(city.ask(&known).await, ["1"]);
    let by_key = city.twins.state_sql("vehicle", Some("a"), &twinlake_query::Tense::default()).unwrap();
    assert_eq!(city.ask(&format!("SELECT vehicle_id FROM ({by_key})")).await, ["a"]);
}

#[tokio::test]
async fn a_key_is_looked_for_before_the_fold_not_after() {
    let city = City::new().await;
    city.drive(&[reading("a", 10, 10, 1, 1.0), reading("b", 10, 10, 2, 2.0)], Some(1)).await;
    let plan = city.rows("EXPLAIN SELECT speed_mps FROM twin.vehicle WHERE vehicle_id = 'a'").await;
    let shown = arrow::util::pretty::pretty_format_batches(&plan).unwrap().to_string();
    let physical = shown.split("physical_plan").nth(1).unwrap();
    let fold = physical.find("WindowAggExec").unwrap_or_else(|| panic!("{physical}"));
    let filter = physical.rfind("vehicle_id@").unwrap_or_else(|| panic!("{physical}"));
    assert!(physical[fold..].contains("= a") && filter > fold, "{physical}");
    assert!(!shown.contains("nearest_on"), "a relation that nobody asked for is not computed: {shown}");
}

#[tokio::test]
async fn unmatched_vehicles_are_null_and_matched_ones_know_their_direction() {
    let city = City::new().await;
    city.build_town().await;
    let middle = super::LATITUDE;
    let vehicle = |vehicle, x: f64, mode, heading| Reading {
        position: Some((x, middle + 0.0001)),
        mode,
        heading: Some(heading),
        ..reading(vehicle, 10, 10, 1, 1.0)
    };
    let nowhere = Reading { position: None, ..reading("nowhere", 10, 10, 1, 1.0) };
    city.drive(
        &[
            vehicle("east", 24.903, "bus", 92.0),
            vehicle("west", 24.903, "tram", 268.0),
            vehicle("metro", 24.903, "metro", 92.0),
            vehicle("far", 25.5, "bus", 92.0),
            nowhere,
        ],
        Some(1),
    )
    .await;
    let sql = "SELECT vehicle_id, road_segment_id, round(road_distance_m) FROM twin.vehicle ORDER BY 1";
    assert_eq!(
        city.ask(sql).await,
        ["east | 1 | 11.0", "far |  |", "metro |  |", "nowhere |  |", "west | 2 | 11.0"]
    );
    let on = "SELECT v.vehicle_id, r.name FROM twin.vehicle v JOIN twin.road_segment r USING (road_segment_id) ORDER BY 1";
    assert_eq!(city.ask(on).await, ["east | Bridge", "west | Bridge"]);
    assert_eq!(city.ask("SELECT vehicle_id FROM twin.vehicle WHERE road_segment_id = 2").await, ["west"]);
}

#[tokio::test]
async fn names_that_do_not_exist_are_answered_with_the_nearest() {
    let city = City::new().await;
    let session = city.session();
    for (sql, hint) in [
        ("SELECT * FROM twin.vehicel", "did you mean 'vehicle'?"),
        ("SELECT * FROM twin_at('vehicel', NULL)", "did you mean 'vehicle'?"),
        ("SELECT * FROM twin_at('vehicle', NULL, scenario => 'close')", "did you mean 'closed'?"),
        ("SELECT * FROM twin_at('vehicle', 'noon')", "time stamp"),
        ("SELECT * FROM twin_at('vehicle', NULL, knwon_at => 'x')", "did you mean 'known_at'?"),
        ("SELECT * FROM simulate('trafic_assignment')", "did you mean 'traffic_assignment'?"),
        ("SELECT * FROM simulate('traffic_assignment', relative_gab => 1)", "did you mean 'relative_gap'?"),
        (
            "SELECT * FROM simulate('traffic_assignment', demand_trip_vph => 1)",
            "did you mean 'demand_trips_vph'?",
        ),
    ] {
        let shown = session.collect(sql).await.unwrap_err().to_string();
        assert!(shown.contains(hint), "{sql}: {shown}");
    }
    session.sql("SET twin.scenario = 'clozed'").await.unwrap();
    let shown = session.collect("SELECT * FROM twin.vehicle").await.unwrap_err().to_string();
    assert!(shown.contains("scenario 'clozed' not found, did you mean 'closed'?"), "{shown}");
}

#[tokio::test]
async fn metadata_is_data() {
    let city = City::new().await;
    let models =
        city.ask("SELECT name, key, kind, \"table\", operator FROM meta.twin_models ORDER BY 1").await;
    assert_eq!(models[0], "road_segment | road_segment_id | map | map.road_link | traffic_assignment");
    assert_eq!(models[1], "vehicle | vehicle_id | telemetry | traffic.vehicle_position |");
    let unit =
        "SELECT unit, range_high FROM meta.twin_properties WHERE model = 'vehicle' AND name = 'speed_mps'";
    assert_eq!(city.ask(unit).await, ["m/s | 60.0"]);
    let scenarios = "SELECT name, fork_at, override_count FROM meta.scenarios ORDER BY 1";
    assert_eq!(
        city.ask(scenarios).await,
        ["closed | 2018-10-09T04:33:00Z | 1", "unchanged | 2018-10-09T04:33:00Z | 0"]
    );
    let listed = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'twin' AND column_name = 'origin'";
    assert_eq!(city.ask(listed).await, ["8"]);
}

/// Latest known time first: what a person with a pencil does.
fn naive(readings: &[Reading], as_of: i64, known_at: Option<i64>) -> BTreeMap<&'static str, Reading> {
    let mut states: BTreeMap<&'static str, Reading> = BTreeMap::new();
    let rank = |r: &Reading| (r.ts, r.known, r.sequence, r.speed as i64);
    for r in readings {
        let visible = r.ts.is_some_and(|ts| ts <= second(as_of))
            && known_at.is_none_or(|known_at| r.known.is_some_and(|known| known <= second(known_at)));
        if !r.vehicle.is_empty() && visible && states.get(r.vehicle).is_none_or(|known| rank(known) < rank(r))
        {
            states.insert(r.vehicle, r.clone());
        }
    }
    states
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let vehicle = prop_oneof![Just("a"), Just("b"), Just("c"), Just("")];
    let time = || proptest::option::weighted(0.9, 0..6_i64);
    (vehicle, time(), time(), time(), 0..4_i64).prop_map(|(vehicle, ts, known, sequence, speed)| Reading {
        vehicle,
        ts: ts.map(second),
        known: known.map(second),
        sequence,
        speed: speed as f64,
        mode: "bus",
        ..Reading::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// The state at T is the replay of everything up to T, wherever the rows lie and however they are cut.
    #[test]
    fn a_state_is_the_replay_up_to_its_instant(
        readings in proptest::collection::vec(any_reading(), 1..40),
        cut in 0..40_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let city = City::new().await;
            let (committed, fresh) = readings.split_at(cut.min(readings.len()));
            city.drive(committed, Some(1)).await;
            city.drive(fresh, None).await;
            for as_of in [0, 2, 5] {
                for known_at in [None, Some(0), Some(3)] {
                    let expected: Vec<String> = naive(&readings, as_of, known_at)
                        .values()
                        .map(|r| {
                            let time = |us: Option<i64>| us.map(format_us).unwrap_or_default();
                            format!("{} | {} | {} | {:.1}", r.vehicle, time(r.ts), time(r.known), r.speed)
                        })
                        .collect();
                    let known = known_at.map_or(String::new(), |known| format!(", known_at => '{}'", at(known)));
                    let sql = format!(
                        "SELECT vehicle_id, valid_time, known_time, speed_mps FROM twin_at('vehicle', '{}'{known}) ORDER BY 1",
                        at(as_of)
                    );
                    assert_eq!(city.ask(&sql).await, expected, "{sql}");
                }
            }
        });
    }
}
