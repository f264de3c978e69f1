//! A process that begins with the kept state and what came since then shows what a fold of the whole table shows.

use std::path::PathBuf;

use super::plant::{MachineReading, reading, reading_rows};
use twinlake_lake::CompactOptions;

use super::*;
use crate::PresentBegun;

const ALL: &str = "SELECT * FROM twin.machine ORDER BY machine_id";

/// Another process on the same folder: its fresh rows are its own, and this one's are gone.
async fn next_process(city: &City) -> (Arc<Lake>, Arc<Engine>, Arc<Twins>) {
    next_process_with(city, plant::models()).await
}

async fn next_process_with(
    city: &City,
    models: Vec<(String, String)>,
) -> (Arc<Lake>, Arc<Engine>, Arc<Twins>) {
    let lake = Lake::open(city.folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
    let engine = Engine::new(lake.clone());
    let twins = Twins::load(&engine, models, plant::scenarios()).unwrap();
    (lake, engine, twins)
}

/// The state of the next process, asserted to be what a fold of the whole table is, and from what it began.
async fn begun_by_next(city: &City) -> PresentBegun {
    let (_lake, engine, twins) = next_process(city).await;
    let (_other_lake, plain, _others) = next_process(city).await;
    twins.keep_present().unwrap();
    let session = engine.session(SessionSettings::default()).unwrap();
    let whole = ask(&plain.session(SessionSettings::default()).unwrap(), ALL).await;
    assert_eq!(ask(&session, ALL).await, whole);
    assert!(!whole.is_empty());
    twins.present_begun().into_iter().find(|begun| begun.model == "machine").unwrap()
}

async fn tell(city: &City, readings: &[MachineReading], commit: Option<u64>) {
    city.write("plant.reading", "plant/readings", reading_rows(readings), commit).await;
}

/// Two hundred readings of five machines, the state of which is kept.
async fn kept() -> City {
    let city = City::plant().await;
    let readings: Vec<MachineReading> =
        (0..200).map(|at| reading(at % 5, at, "running", 40.0 + (at % 7) as f64)).collect();
    tell(&city, &readings, Some(1)).await;
    city.twins.keep_present().unwrap();
    city.ask(ALL).await;
    city.twins.keep_states().await;
    city
}

fn files(city: &City, ending: &str) -> Vec<PathBuf> {
    let folder = city.lake.keep_directory().join("twins");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|own| own == ending));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_came_since_is_folded_late_ended_and_returned_among_it() {
    let city = kept().await;
    let begun = begun_by_next(&city).await;
    assert_eq!((begun.kept_instances, begun.rows), (5, 0));
    let readings = [
        reading(1, 50, "running", 99.0),
        MachineReading { known_s: 900, ..reading(2, 197, "stopped", 12.0) },
        reading(3, 300, "removed", 10.0),
        reading(4, 300, "removed", 10.0),
        reading(4, 301, "running", 11.0),
        reading(7, 302, "running", 12.0),
    ];
    tell(&city, &readings, Some(2)).await;
    // Of the same time: what became known last counts, and is known after the next start too.
    tell(&city, &[MachineReading { known_s: 901, ..reading(2, 197, "stopped", 13.0) }], Some(3)).await;
    // These were not committed when the process was killed.
    tell(&city, &[reading(1, 400, "running", 50.0)], None).await;
    let begun = begun_by_next(&city).await;
    assert_eq!((begun.kept_instances, begun.rows), (5, 7));
    city.twins.keep_states().await;
    let begun = begun_by_next(&city).await;
    assert_eq!((begun.kept_instances, begun.rows), (6, 0), "rolled forward, without what was not committed");
    assert_eq!((files(&city, "arrow").len(), files(&city, "json").len()), (1, 1), "the old state is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_wait_for_their_commit_are_in_the_present_and_not_in_what_is_kept() {
    let city = kept().await;
    tell(&city, &[reading(1, 400, "running", 50.0)], None).await;
    city.twins.keep_states().await;
    let engine = Engine::new(city.lake.clone());
    let again = Twins::load(&engine, plant::models(), plant::scenarios()).unwrap();
    again.keep_present().unwrap();
    let sql = "SELECT temperature_c FROM twin.machine WHERE machine_id = 1";
    assert_eq!(ask(&engine.session(SessionSettings::default()).unwrap(), sql).await, ["50.0"]);
    let begun = again.present_begun().into_iter().find(|begun| begun.model == "machine").unwrap();
    assert_eq!((begun.kept_instances, begun.rows), (5, 1));
    assert_eq!(begun_by_next(&city).await.rows, 0, "another process does not see it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_moves_rows_and_what_went_is_gone() {
    let city = kept().await;
    let name = TableName::parse("plant.reading").unwrap();
    let table = city.lake.table(&name).unwrap();
    // A compaction of known rows alone is nothing new …
    tell(&city, &[reading(1, 210, "running", 41.0)], Some(2)).await;
    city.twins.keep_states().await;
    table.compact(CompactOptions::default()).await.unwrap();
    let begun = begun_by_next(&city).await;
    assert_eq!((begun.kept_instances, begun.rows), (5, 0));
    // … with new rows among them the whole file is read again, and a row twice is a row once.
    let kept_version = table.version();
    tell(&city, &[reading(2, 220, "running", 42.0)], Some(3)).await;
    tell(&city, &[reading(3, 220, "running", 43.0)], Some(4)).await;
    table.compact(CompactOptions::default()).await.unwrap();
    let begun = begun_by_next(&city).await;
    assert!(begun.kept_instances == 5 && (2..=203).contains(&begun.rows), "{begun:?}");
    city.twins.keep_states().await;
    // Rows go: the state is folded anew.
    table.restore(kept_version).await.unwrap();
    let begun = begun_by_next(&city).await;
    assert_eq!((begun.kept_instances, begun.rows), (0, 201));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_torn_or_of_another_model_is_left_aside() {
    let city = kept().await;
    let whole = (0, 200);
    let state = files(&city, "arrow").remove(0);
    let manifest = files(&city, "json").remove(0);
    let (good_state, good_manifest) = (std::fs::read(&state).unwrap(), std::fs::read(&manifest).unwrap());
    for cut in [0, 1, 7, good_state.len() / 2, good_state.len() - 1] {
        std::fs::write(&state, &good_state[..cut]).unwrap();
        let begun = begun_by_next(&city).await;
        assert_eq!((begun.kept_instances, begun.rows), whole, "state cut at {cut}");
    }
    let mut flipped = good_state.clone();
    flipped[good_state.len() / 3] ^= 1;
    std::fs::write(&state, &flipped).unwrap();
    assert_eq!(begun_by_next(&city).await.kept_instances, 0);
    std::fs::write(&state, &good_state).unwrap();
    for cut in [0, 1, good_manifest.len() - 1] {
        std::fs::write(&manifest, &good_manifest[..cut]).unwrap();
        let begun = begun_by_next(&city).await;
        assert_eq!((begun.kept_instances, begun.rows), whole, "manifest cut at {cut}");
    }
    std::fs::write(&manifest, &good_manifest).unwrap();
    assert_eq!(begun_by_next(&city).await.kept_instances, 5);

    // Another version of the model.
    let models: Vec<(String, String)> = plant::models()
        .into_iter()
        .map(|(file, text)| (file, text.replace("key = \"machine_id\"", "version = 2\nkey = \"machine_id\"")))
        .collect();
    let (_lake, engine, twins) = next_process_with(&city, models).await;
    twins.keep_present().unwrap();
    let session = engine.session(SessionSettings::default()).unwrap();
    assert_eq!(ask(&session, "SELECT count(*) FROM twin.machine").await, ["5"]);
    let begun = twins.present_begun().into_iter().find(|begun| begun.model == "machine").unwrap();
    assert_eq!((begun.kept_instances, begun.rows), whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_with_places_is_found_again_by_every_process() {
    let city = City::new().await;
    let at = |vehicle, seconds: i64, x: f64| Reading {
        vehicle,
        ts: Some(FORK_US + seconds * 1_000_000),
        known: Some(FORK_US + seconds * 1_000_000),
        sequence: Some(seconds),
        position: Some((x, LATITUDE)),
        mode: "bus",
        ..Reading::default()
    };
    city.drive(&[at("a", 0, 24.9), at("b", 1, 24.95), at("a", 2, 24.91)], Some(1)).await;
    city.twins.keep_present().unwrap();
    city.ask("SELECT * FROM twin.vehicle").await;
    city.twins.keep_states().await;
    for _ in 0..6 {
        let lake = Lake::open(city.folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
        let engine = Engine::new(lake.clone());
        let twins = Twins::load(&engine, models(), scenarios()).unwrap();
        twins.keep_present().unwrap();
        let session = engine.session(SessionSettings::default()).unwrap();
        let near =
            "SELECT vehicle_id FROM twin.vehicle WHERE st_dwithin_sphere(geom, st_point(24.91, 60.17), 100)";
        assert_eq!(ask(&session, near).await, ["a"]);
        let begun = twins.present_begun();
        assert_eq!((begun[0].kept_instances, begun[0].rows), (2, 0), "{begun:?}");
    }
}
