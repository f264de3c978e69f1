//! Runs `tests/sql/*.slt` against a lake.

#[path = "../../../tests/sql/runner.rs"]
mod runner;

use std::sync::Arc;

use twinlake_contracts::WriteMode;

use crate::testing::{engine, vehicle_table, vehicles};
use crate::{Engine, SessionSettings};

/// Three vehicles committed and one fresh: every file starts from these rows.
async fn town() -> (tempfile::TempDir, Arc<Engine>) {
    let (folder, engine) = engine().await;
    let table = vehicle_table(engine.lake()).await;
    table.add_fresh("test/sink", vehicles(&["22/1", "22/2", "22/3"])).await.unwrap();
    table.commit("test/sink", 3, WriteMode::Append).await.unwrap();
    table.add_fresh("test/sink", vehicles(&["22/4"])).await.unwrap();
    (folder, engine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_files() {
    for file in runner::golden_files("") {
        let (_folder, engine) = town().await;
        runner::run(&file, || engine.session(SessionSettings { local_files: true })).await;
    }
}
