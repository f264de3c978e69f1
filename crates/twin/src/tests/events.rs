//! Events: raised, acknowledged, cleared, found again by the next process.

use std::sync::Arc;
use std::time::Duration;

use super::plant::{MachineReading, reading, reading_rows};
use super::{City, ask, plant};
use crate::events::Events;

const HOT: &str = r#"
name = "hot"
description = "The spindle is too hot."
twin = "machine"
severity = "critical"
raise_when = "temperature_c > 80"
clear_when = "temperature_c < 75"
"#;

const LOST: &str = r#"
name = "lost"
description = "A machine says nothing."
twin = "machine"
silent_for_s = 0.4
"#;

fn rules(texts: &[&str]) -> Vec<(String, String)> {
    texts.iter().map(|text| ("rule.toml".to_owned(), (*text).to_owned())).collect()
}

async fn tell(city: &City, readings: &[MachineReading]) {
    city.write("plant.reading", "plant/readings", reading_rows(readings), None).await;
}

/// The next steps, as they are told.
async fn next(told: &mut tokio::sync::broadcast::Receiver<crate::EventStep>, count: usize) -> Vec<String> {
    let mut steps = Vec::new();
    for _ in 0..count {
        let step = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.expect("a step").unwrap();
        steps.push(format!("{} {} {}", step.rule, step.id, step.change));
    }
    steps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_threshold_is_raised_acknowledged_and_cleared() {
    let city = City::plant().await;
    tell(&city, &[reading(1, 0, "running", 90.0), reading(2, 0, "running", 20.0)]).await;
    let events = city.twins.watch(rules(&[HOT]), "test").await.unwrap();
    let mut told = events.listen();
    // What is so already is found, whether it was told before anybody listened or not.
    let mut open = events.open().await;
    while open.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        open = events.open().await;
    }
    assert_eq!(
        (open[0].rule.as_str(), open[0].id.as_str(), open[0].severity.as_str()),
        ("hot", "1", "critical")
    );
    assert_eq!(open[0].at, "2026-01-01T00:00:00Z");
    while told.try_recv().is_ok() {}
    tell(&city, &[reading(1, 1, "running", 78.0), reading(2, 1, "running", 81.0)]).await;
    assert_eq!(next(&mut told, 1).await, ["hot 2 raised"]);
    let event = events.open().await.into_iter().find(|event| event.id == "1").unwrap();
    let step =
        events.acknowledge(&event.event_id, Some("Aino".into()), Some("on my way".into())).await.unwrap();
    assert_eq!((step.change.as_str(), step.event_id.as_str()), ("acknowledged", event.event_id.as_str()));
    let error = events.acknowledge("nothing", None, None).await.unwrap_err().to_string();
    assert!(error.contains("open event 'nothing' not found"), "{error}");
    // Below the gap; and the other is removed, which ends its event too.
    tell(&city, &[reading(1, 2, "running", 70.0), reading(2, 2, "removed", 99.0)]).await;
    let mut steps = next(&mut told, 3).await;
    steps.sort();
    assert_eq!(steps, ["hot 1 acknowledged", "hot 1 cleared", "hot 2 cleared"]);
    assert!(events.open().await.is_empty());
    let sql = "SELECT id, change, who, note FROM meta.events ORDER BY id, recorded_at, change DESC";
    assert_eq!(
        city.ask(sql).await,
        [
            "1 | raised |  |",
            "1 | acknowledged | Aino | on my way",
            "1 | cleared |  |",
            "2 | raised |  |",
            "2 | cleared |  |"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_raised_and_a_reading_ends_it() {
    let city = City::plant().await;
    let events = city.twins.watch(rules(&[LOST]), "test").await.unwrap();
    let mut told = events.listen();
    tell(&city, &[reading(1, 0, "running", 20.0)]).await;
    assert_eq!(next(&mut told, 1).await, ["lost 1 raised"]);
    tell(&city, &[reading(1, 1, "running", 20.0)]).await;
    assert_eq!(next(&mut told, 1).await, ["lost 1 cleared"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_process_knows_what_is_open_and_raises_it_no_more() {
    let city = City::plant().await;
    tell(&city, &[reading(1, 0, "running", 90.0), reading(3, 0, "running", 91.0)]).await;
    let events = city.twins.watch(rules(&[HOT]), "test").await.unwrap();
    while events.open().await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut before: Vec<String> = events.open().await.into_iter().map(|event| event.event_id).collect();
    before.sort();
    let engine = twinlake_query::Engine::new(city.lake.clone());
    let twins = crate::Twins::load(&engine, plant::models(), plant::scenarios()).unwrap();
    let again: Arc<Events> = twins.watch(rules(&[HOT]), "other").await.unwrap();
    let mut after: Vec<String> = again.open().await.into_iter().map(|event| event.event_id).collect();
    after.sort();
    assert_eq!(after, before);
    let mut told = again.listen();
    tell(&city, &[reading(1, 5, "running", 95.0), reading(3, 5, "running", 10.0)]).await;
    assert_eq!(next(&mut told, 1).await, ["hot 3 cleared"]);
    let session = engine.session(twinlake_query::SessionSettings::default()).unwrap();
    let raised = "SELECT count(*) FROM meta.events WHERE change = 'raised'";
    assert_eq!(ask(&session, raised).await, ["2"]);
}

#[tokio::test]
async fn rules_that_cannot_hold_are_refused_with_their_place() {
    let city = City::plant().await;
    for (from, to, shown) in [
        ("twin = \"machine\"", "twin = \"machin\"", "did you mean 'machine'?"),
        ("twin = \"machine\"", "twin = \"pipe\"", "watches a map"),
        ("temperature_c > 80", "temperatur_c > 80", "temperatur_c"),
        ("temperature_c > 80", "temperature_c + 80", "is no condition"),
    ] {
        assert!(HOT.contains(from), "{from}");
        let error =
            city.twins.watch(rules(&[&HOT.replacen(from, to, 1)]), "x").await.unwrap_err().to_string();
        assert!(error.contains(shown), "{to}: {error}");
    }
    let error = city.twins.watch(rules(&[HOT, HOT]), "x").await.unwrap_err().to_string();
    assert!(error.contains("another rule 'hot'"), "{error}");
}
