//! Sequences and anomalies over real readings, and rules that remember over a restart.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::plant::{MachineReading, reading, reading_rows};
use super::{City, ask, plant};
use crate::Twins;
use crate::events::Events;

const OVERHEATED: &str = r#"
name = "overheated"
description = "It runs hot, then stops, within ten seconds."
twin = "machine"
severity = "critical"
steps = [{ when = "state = 'running' AND temperature_c > 80" }, { when = "state = 'stopped'" }]
within_s = 10
"#;

const UNUSUAL: &str = r#"
name = "unusual"
description = "The spindle is far from its usual temperature."
twin = "machine"
anomaly = { property = "temperature_c", window = 8, min_samples = 4, threshold = 3.5, min_deviation = 1 }
"#;

const LASTING: &str = r#"
name = "lasting"
description = "Warm for a while."
twin = "machine"
raise_when = "temperature_c > 50"
for_s = 6
"#;

/// Says when all readings before its own have been judged: readings of a table are judged in order.
const MARK: &str = r#"
name = "mark"
description = "A mark among the readings."
twin = "machine"
raise_when = "state = 'mark'"
"#;

fn rules() -> Vec<(String, String)> {
    [OVERHEATED, UNUSUAL, LASTING, MARK].iter().map(|text| ("rule.toml".into(), (*text).to_owned())).collect()
}

async fn tell(city: &City, readings: &[MachineReading]) {
    city.write("plant.reading", "plant/readings", reading_rows(readings), None).await;
}

/// Waits until the mark of that machine has been judged.
async fn judged(events: &Events, mark: i64) {
    let mark = mark.to_string();
    for _ in 0..1000 {
        if events.open().await.iter().any(|event| event.rule == "mark" && event.id == mark) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the mark {mark} was not judged");
}

/// Waits until the process watches: what is told from then on is judged as it comes, and not as the past.
async fn watching(city: &City, events: &Events, by: i64) {
    tell(city, &[MachineReading { known_s: 0, ..mark(by, 0) }]).await;
    judged(events, by).await;
}

const STEPS: &str = "SELECT rule, id, change, at, event_id FROM meta.events WHERE rule <> 'mark' ORDER BY rule, id, at, change DESC";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_and_an_anomaly_have_exactly_these_steps() {
    let city = City::plant().await;
    let events = city.twins.watch(rules(), "test").await.unwrap();
    watching(&city, &events, 99).await;
    let mut readings = Vec::new();
    for (second, temperature) in [(0, 40.0), (1, 41.0), (2, 42.0), (3, 41.0), (4, 90.0), (5, f64::NAN)] {
        readings.push(reading(1, second, "running", temperature));
    }
    readings.push(reading(1, 9, "stopped", 41.0));
    // Another instance: hot, and stopped too late.
    readings.extend([reading(2, 0, "running", 90.0), reading(2, 11, "stopped", 20.0)]);
    // Late: older than what has been judged.
    readings.push(reading(2, 5, "stopped", 20.0));
    readings.push(reading(1, 12, "running", 40.0));
    readings.push(reading(100, 0, "mark", 0.0));
    tell(&city, &readings).await;
    judged(&events, 100).await;
    let steps: Vec<String> = city
        .ask("SELECT rule, id, change, at FROM meta.events WHERE rule <> 'mark' ORDER BY rule, id, at")
        .await;
    assert_eq!(
        steps,
        [
            "overheated | 1 | raised | 2026-01-01T00:00:09Z",
            "overheated | 1 | cleared | 2026-01-01T00:00:12Z",
            "unusual | 1 | raised | 2026-01-01T00:00:04Z",
            "unusual | 1 | cleared | 2026-01-01T00:00:09Z",
        ]
    );
}

/// Readings by chance, in the order in which they come: late ones among them, and ends.
fn by_chance(seed: u64, count: i64) -> Vec<MachineReading> {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |bound: u64| {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        (bits >> 20) % bound
    };
    let readings = (0..count).map(|at| {
        let late = if below(8) == 0 { below(12) as i64 } else { 0 };
        let state = ["running", "running", "running", "stopped", "removed"][below(5) as usize];
        let temperature = if below(6) == 0 { 95.0 } else { 40.0 + below(15) as f64 };
        MachineReading { known_s: at, ..reading(1 + below(3) as i64, at - late, state, temperature) }
    });
    readings.collect()
}

fn mark(machine: i64, at_s: i64) -> MachineReading {
    MachineReading { known_s: at_s, ..reading(machine, at_s, "mark", 0.0) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_begins_in_the_middle_goes_on_as_if_it_had_watched_all_along() {
    for seed in 1..4 {
        let readings = by_chance(seed, 160);
        let (before, after) = readings.split_at(70);
        let whole = City::plant().await;
        let events = whole.twins.watch(rules(), "test").await.unwrap();
        watching(&whole, &events, 99).await;
        for part in [before, &[mark(100, 70)], after, &[mark(101, 160)]] {
            tell(&whole, part).await;
        }
        judged(&events, 101).await;
        let wanted = whole.ask(STEPS).await;
        assert!(wanted.len() > 10, "{wanted:?}");

        let city = City::plant().await;
        let events = city.twins.watch(rules(), "first").await.unwrap();
        watching(&city, &events, 99).await;
        tell(&city, before).await;
        tell(&city, &[mark(100, 70)]).await;
        judged(&events, 100).await;
        // The process ends.
        *city.twins.events.write().unwrap_or_else(PoisonError::into_inner) = None;
        drop(events);
        let engine = twinlake_query::Engine::new(city.lake.clone());
        let twins = Twins::load(&engine, plant::models(), plant::scenarios()).unwrap();
        let events: Arc<Events> = twins.watch(rules(), "second").await.unwrap();
        watching(&city, &events, 102).await;
        tell(&city, after).await;
        tell(&city, &[mark(101, 160)]).await;
        judged(&events, 101).await;
        let session = engine.session(twinlake_query::SessionSettings::default()).unwrap();
        let found = ask(&session, STEPS).await;
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "each once");
        assert_eq!(found, wanted, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_nobody_watched_is_found_where_it_still_holds() {
    let city = City::plant().await;
    tell(&city, &[reading(1, 0, "running", 90.0), reading(1, 5, "stopped", 40.0)]).await;
    tell(
        &city,
        &[reading(2, 0, "running", 90.0), reading(2, 5, "stopped", 40.0), reading(2, 6, "running", 40.0)],
    )
    .await;
    tell(&city, &[reading(3, 0, "running", 90.0), mark(100, 7)]).await;
    let events = city.twins.watch(rules(), "test").await.unwrap();
    judged(&events, 100).await;
    // The third goes on where the past ended.
    tell(&city, &[reading(3, 8, "stopped", 40.0), mark(101, 9)]).await;
    judged(&events, 101).await;
    let sql = "SELECT id, change, at FROM meta.events WHERE rule = 'overheated' ORDER BY id, at";
    assert_eq!(
        city.ask(sql).await,
        ["1 | raised | 2026-01-01T00:00:05Z", "3 | raised | 2026-01-01T00:00:08Z"]
    );
}

#[tokio::test]
async fn rules_over_what_is_not_there_are_refused_with_their_place() {
    let city = City::plant().await;
    for (rule, from, to, shown) in [
        (OVERHEATED, "state = 'stopped'", "stat = 'stopped'", "stat"),
        (OVERHEATED, "state = 'stopped'", "temperature_c", "is no condition"),
        (
            UNUSUAL,
            "property = \"temperature_c\"",
            "property = \"temperature\"",
            "did you mean 'temperature_c'?",
        ),
        (UNUSUAL, "property = \"temperature_c\"", "property = \"state\"", "no number"),
    ] {
        assert!(rule.contains(from), "{from}");
        let rules = vec![("rule.toml".to_owned(), rule.replacen(from, to, 1))];
        let error = city.twins.watch(rules, "x").await.unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("rule.toml"), "{to}: {error}");
    }
}
