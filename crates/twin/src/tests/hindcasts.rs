//! Hindcasts: what would have been said, held against what was observed afterwards.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};

use super::{City, FORK_US};

const PAST: &str = r#"
name = "past"
description = "What would have been said of the hour after the fork."
horizon_s = 3600
[fork]
at = "2018-10-09T04:33:00Z"
[[runs]]
operator = "traffic_assignment"
"#;

const VARIED: &str = r"
[ensemble]
members = 3
seed = 1
[ensemble.sample.traffic_assignment]
demand_trips_vph = { choice = { values = [4000.0, 5000.0, 8000.0] } }
";

/// Counts of the hour after the fork: segment, how much more or less than was said, how late.
async fn count(city: &City, said: &[f64], counts: &[(i64, f64, i64)]) {
    let seconds = |at: i64| FORK_US + at * 1_000_000;
    let rows = RecordBatch::try_from_iter([
        ("road_segment_id", Arc::new(counts.iter().map(|count| count.0).collect::<Int64Array>()) as ArrayRef),
        (
            "flow",
            Arc::new(
                counts.iter().map(|count| said[count.0 as usize - 1] + count.1).collect::<Float64Array>(),
            ) as _,
        ),
        (
            "ts",
            Arc::new(
                counts
                    .iter()
                    .map(|count| Some(seconds(count.2)))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ) as _,
        ),
    ]);
    city.write("traffic.flow_count", "test/counts", rows.unwrap(), Some(1)).await;
}

async fn numbers(city: &City, sql: &str) -> Vec<f64> {
    let rows = city.ask(sql).await;
    rows.iter()
        .flat_map(|row| row.split(" | ").map(|cell| cell.parse().unwrap_or(f64::NAN)).collect::<Vec<_>>())
        .collect()
}

const COUNTS: &str = "SELECT road_segment_id, ts, flow AS observed FROM traffic.flow_count";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_is_scored_against_counts() {
    let city = City::new().await;
    city.build_town().await;
    city.twins.create_scenario(None, PAST).await.unwrap();
    city.twins.run_scenario("past").await.unwrap();
    let said = numbers(
        &city,
        "SELECT flow_vph FROM twin_at('road_segment', NULL, scenario => 'past') ORDER BY road_segment_id",
    )
    .await;
    assert_eq!(said.len(), 8);
    // Off by 30, -40 and 0 within the hour; before the fork, after the hour and of no segment nothing counts, or has no pair.
    let counts = [(1, 30.0, 600), (2, -40.0, 3600), (3, 0.0, 1), (4, 500.0, -60), (5, 700.0, 3601)];
    count(&city, &said, &counts).await;
    let call = |what: &str| {
        format!("{what}('past', 'road_segment', 'flow_vph', '{COUNTS} UNION ALL SELECT 99, NULL, 5.0')")
    };
    let scores =
        numbers(&city, &format!("SELECT observations, pairs, rmse, mae, bias FROM {}", call("hindcast")))
            .await;
    let wanted = [3.0, 3.0, (2500.0_f64 / 3.0).sqrt(), 70.0 / 3.0, 10.0 / 3.0];
    assert!(scores.iter().zip(wanted).all(|(score, wanted)| (score - wanted).abs() < 1e-9), "{scores:?}");
    // The same from the pairs, with the aggregates of any join.
    let joined = format!(
        "SELECT rmse(predicted, observed), avg(geh(predicted, observed)) FROM {}",
        call("hindcast_pairs")
    );
    let joined = numbers(&city, &joined).await;
    let told = numbers(&city, &format!("SELECT rmse, geh FROM {}", call("hindcast"))).await;
    assert_eq!(joined, told);
    let geh = |difference: f64, segment: usize| {
        let (m, c) = (said[segment - 1], said[segment - 1] + difference);
        (2.0 * (m - c) * (m - c) / (m + c)).sqrt()
    };
    assert!((told[1] - (geh(30.0, 1) + geh(-40.0, 2)) / 3.0).abs() < 1e-9, "{told:?}");
    let rest = city
        .ask(&format!(
            "SELECT scenario, model, predicted, fork_at, until, members, crps FROM {}",
            call("hindcast")
        ))
        .await;
    assert_eq!(rest, ["past | road_segment | flow_vph | 2018-10-09T04:33:00Z | 2018-10-09T05:33:00Z |  |"]);
    // At an instant, with a horizon of the question: the city as it was says the same, for another hour.
    let instant = format!(
        "SELECT observations, mae FROM hindcast('2018-10-09T04:33:00Z', 'road_segment', 'flow_vph', '{COUNTS}', horizon_s => 601)"
    );
    let scores = numbers(&city, &instant).await;
    assert!((scores[0] - 2.0).abs() < 1e-9 && (scores[1] - 15.0).abs() < 1e-9, "{scores:?}");
    // Explaining does not run; asking again computes nothing.
    city.rows(&format!("EXPLAIN SELECT * FROM {}", call("hindcast"))).await;
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_is_scored_by_its_members() {
    let city = City::new().await;
    city.build_town().await;
    city.twins.create_scenario(None, &format!("{PAST}{VARIED}")).await.unwrap();
    let zeros = [0.0; 8];
    count(&city, &zeros, &[(1, 900.0, 60), (2, 400.0, 60), (7, 100.0, 60)]).await;
    let call = |what: &str| format!("{what}('past', 'road_segment', 'flow_vph', '{COUNTS}')");
    let told = numbers(&city, &format!("SELECT members, crps, crps_fair FROM {}", call("hindcast"))).await;
    assert!((told[0] - 3.0).abs() < f64::EPSILON);
    // By hand, from the members as SQL shows them.
    let mut by_hand = (0.0, 0.0);
    for (segment, observed) in [(1, 900.0), (2, 400.0), (7, 100.0)] {
        let sql = format!(
            "SELECT flow_vph FROM scenario_ensemble('past', 'road_segment') WHERE road_segment_id = {segment}"
        );
        let members = numbers(&city, &sql).await;
        assert_eq!(members.len(), 3);
        let error = members.iter().map(|member| (member - observed).abs()).sum::<f64>() / 3.0;
        let spread: f64 = members.iter().flat_map(|a| members.iter().map(move |b| (a - b).abs())).sum();
        by_hand = (by_hand.0 + (error - spread / 18.0) / 3.0, by_hand.1 + (error - spread / 12.0) / 3.0);
    }
    assert!((told[1] - by_hand.0).abs() < 1e-9 && (told[2] - by_hand.1).abs() < 1e-9, "{told:?} {by_hand:?}");
    assert_eq!(
        city.ask(&format!("SELECT count(*), min(cardinality(members)) FROM {}", call("hindcast_pairs")))
            .await,
        ["3 | 3"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_scored_says_why() {
    let city = City::new().await;
    city.build_town().await;
    city.twins.create_scenario(None, PAST).await.unwrap();
    city.twins
        .create_scenario(None, "name = \"forkless\"\n[[runs]]\noperator = \"traffic_assignment\"\n")
        .await
        .unwrap();
    for (call, shown) in [
        ("'pst', 'road_segment', 'flow_vph', 'SELECT 1'", "did you mean 'past'?"),
        ("'forkless', 'road_segment', 'flow_vph', 'SELECT 1'", "has no fork"),
        ("'past', 'road_segment', 'flow', 'SELECT 1'", "simulated column 'flow' not found"),
        ("'past', 'road_segment', 'flow_vph', 'capacity_vph'", "is a map"),
        ("'past', 'road_segment', 'flow_vph', 'capacity'", "property 'capacity' not found"),
        ("'past', 'road_segment', 'flow_vph', 'SELECT 1 AS road_segment_id'", "no column 'observed'"),
        ("'past', 'road_segment'", "hindcast needs a scenario or an instant"),
        ("'past', 'road_segment', 'flow_vph', 'SELECT 1', horizon_s => -5", "must be greater than 0"),
    ] {
        let error =
            city.session().collect(&format!("SELECT * FROM hindcast({call})")).await.unwrap_err().to_string();
        assert!(error.contains(shown), "{call}: {error}");
    }
}
