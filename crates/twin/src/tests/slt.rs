//! Runs `tests/sql/twins/*.slt` over a small town and a plant.

#[path = "../../../../tests/sql/runner.rs"]
mod runner;

use twinlake_query::SessionSettings;

use super::{City, FORK_US, Reading, models, plant, scenarios};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_files() {
    let all = |one: Vec<(String, String)>, other: Vec<(String, String)>| [one, other].concat();
    let city = City::with(all(models(), plant::models()), all(scenarios(), plant::scenarios())).await;
    city.build_town().await;
    city.build_plant().await;
    let vehicle = |vehicle, x: f64, seconds: i64, speed: f64| Reading {
        vehicle,
        ts: Some(FORK_US + seconds * 1_000_000),
        known: Some(FORK_US + (seconds + 2) * 1_000_000),
        sequence: Some(seconds),
        speed,
        position: Some((x, super::LATITUDE + 0.0001)),
        heading: Some(92.0),
        mode: "bus",
    };
    let readings =
        [vehicle("22/1", 24.903, -10, 5.0), vehicle("22/1", 24.904, 10, 7.0), vehicle("22/2", 25.5, 0, 3.0)];
    city.drive(&readings, Some(1)).await;
    for file in runner::golden_files("twins") {
        runner::run(&file, || city.engine.session(SessionSettings::default())).await;
    }
}
