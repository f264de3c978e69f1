//! The present in memory is the fold of the lake, whatever comes, in whatever order.

use std::collections::BTreeSet;

use super::*;

const QUERIES: [&str; 7] = [
    "SELECT * FROM twin.vehicle ORDER BY vehicle_id",
    "SELECT count(*), min(valid_time), max(known_time), sum(speed_mps) FROM twin.vehicle",
    "SELECT vehicle_id, speed_mps, st_astext(geom), valid_time, known_time, origin FROM twin.vehicle WHERE vehicle_id = 'v3'",
    "SELECT vehicle_id, speed_mps FROM twin.vehicle WHERE vehicle_id IN ('v1', 'v4', 'none') ORDER BY 1",
    "SELECT vehicle_id FROM twin.vehicle WHERE st_intersects(geom, st_makeenvelope(24.90, 60.10, 24.95, 60.17)) ORDER BY 1",
    "SELECT vehicle_id FROM twin.vehicle WHERE st_dwithin_sphere(geom, st_point(24.93, 60.15), 2000) AND speed_mps > 10 ORDER BY 1",
    "SELECT mode, count(*) FROM twin.vehicle WHERE vehicle_id <> 'v2' GROUP BY mode ORDER BY 1",
];

/// A small generator: SplitMix64 (Steele, Lea, Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Readings by chance: few vehicles, times and values, so that ties of every kind come up.
fn readings(numbers: &mut Numbers, count: u64) -> Vec<Reading> {
    let names = ["v1", "v2", "v3", "v4", "v5", "v6", "v7"];
    let modes = ["bus", "tram", "metro"];
    let maybe = |numbers: &mut Numbers, value: i64| (numbers.below(8) > 0).then_some(value);
    (0..count)
        .map(|_| {
            let second = FORK_US + numbers.below(5) as i64 * 1_000_000;
            let known = FORK_US + numbers.below(3) as i64 * 1_000_000;
            let sequence = numbers.below(4) as i64;
            let at = (24.88 + numbers.below(100) as f64 / 1000.0, 60.08 + numbers.below(100) as f64 / 1000.0);
            Reading {
                vehicle: names[numbers.below(7) as usize],
                ts: maybe(numbers, second),
                known: maybe(numbers, known),
                sequence: maybe(numbers, sequence),
                speed: numbers.below(30) as f64,
                position: (numbers.below(6) > 0).then_some(at),
                heading: None,
                mode: modes[numbers.below(3) as usize],
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_memory_is_what_a_fold_of_the_lake_gives() {
    for seed in 0..4 {
        let city = City::new().await;
        let mut numbers = Numbers(seed);
        city.drive(&readings(&mut numbers, 20), Some(1)).await;
        city.drive(&readings(&mut numbers, 5), None).await;
        city.twins.keep_present().unwrap();
        let (plain, _twins) = city.reopened();
        let plain = plain.session(SessionSettings::default()).unwrap();
        let mut upto = 1;
        for round in 0..12 {
            let count = 1 + numbers.below(30);
            let commit = (numbers.below(2) == 0).then(|| {
                upto += 1;
                upto
            });
            city.drive(&readings(&mut numbers, count), commit).await;
            for sql in QUERIES {
                assert_eq!(city.ask(sql).await, ask(&plain, sql).await, "seed {seed}, round {round}: {sql}");
            }
        }
        let explained =
            city.ask("EXPLAIN SELECT * FROM twin.vehicle WHERE vehicle_id = 'v3'").await.join("\n");
        assert!(!explained.contains("WindowAggExec") && !explained.contains("DeltaScan"), "{explained}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_tenses_are_read_from_the_lake_beside_it() {
    let city = City::new().await;
    let mut numbers = Numbers(11);
    city.drive(&readings(&mut numbers, 200), Some(1)).await;
    city.twins.keep_present().unwrap();
    let (plain, _twins) = city.reopened();
    let plain = plain.session(SessionSettings::default()).unwrap();
    for sql in [
        "SELECT * FROM twin_at('vehicle', TIMESTAMP '2018-10-09T04:33:02Z') ORDER BY vehicle_id",
        "SELECT * FROM twin_at('vehicle', NULL, known_at => TIMESTAMP '2018-10-09T04:33:01Z') ORDER BY vehicle_id",
        "SELECT * FROM twin_at('vehicle', NULL, scenario => 'closed') ORDER BY vehicle_id",
        "SELECT count(*), sum(speed_mps) FROM twin.vehicle_history",
    ] {
        assert_eq!(city.ask(sql).await, ask(&plain, sql).await, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readings_leave_no_more_in_memory_than_is_shown_some_times_over() {
    let city = City::new().await;
    let mut numbers = Numbers(5);
    city.drive(&readings(&mut numbers, 10), Some(1)).await;
    city.twins.keep_present().unwrap();
    let mut seen = BTreeSet::new();
    for round in 0..300 {
        let batch = readings(&mut numbers, 200);
        seen.extend(batch.iter().filter(|reading| reading.ts.is_some()).map(|reading| reading.vehicle));
        city.drive(&batch, (round % 50 == 0).then_some(round + 2)).await;
        if round % 20 == 0 {
            city.ask("SELECT * FROM twin.vehicle").await;
        }
    }
    let model = city.twins.model("vehicle").unwrap();
    let live = city.twins.live(&model).unwrap();
    assert_eq!(live.len().await.unwrap(), seen.len());
    assert!(live.rows_held().await.unwrap() < 40_000, "{} rows are held", live.rows_held().await.unwrap());
}
