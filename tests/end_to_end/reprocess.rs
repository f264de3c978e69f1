//! Past messages run again by the built binary: beside a stream that goes on, killed in the middle, and over the demo.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::kill::{Publisher, pipeline, stored, stored_by_now};
use crate::support::{
    Numbers, Running, free_port, number, rows, succeed, twinlake, wait_for_port, wait_until,
};

const SENT: u64 = 6_000;

fn everything(folder: &Path) -> Vec<Value> {
    rows(folder, "SELECT * FROM test.reading ORDER BY _sequence")
}

#[test]
fn beside_a_running_stream_and_through_kills_each_row_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let source = format!("type = \"mqtt_broker\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"reading/#\"]");
    fs::write(folder.join("ledger.toml"), pipeline(&source)).unwrap();
    let mut stream = Running::start(folder, &["run", "--no-progress", "ledger.toml"]);
    wait_for_port(port, &mut stream);
    let (stop, acknowledged) = Publisher::start(port, SENT);
    wait_until("the first rows", || stored_by_now(folder).len() > 500);

    let arguments = ["reprocess", "ledger.toml", "--piece", "150", "--no-progress", "--json"];
    let mut chance = Numbers(4_711);
    for _ in 0..4 {
        let mut process = Running::start(folder, &arguments);
        std::thread::sleep(Duration::from_millis(500 + chance.below(900)));
        process.kill();
        stream.assert_alive();
    }
    let report: Value = serde_json::from_str(&succeed(folder, &arguments)).unwrap();
    let table = &report["tables"]["test.reading"];
    assert!(report["messages"].as_u64().unwrap() > 500, "{report}");
    assert_eq!(table["rows_gone"], table["rows_come"], "{report}");
    while (acknowledged.borrow().len() as u64) < SENT {
        let before = acknowledged.borrow().len();
        wait_until("another acknowledgement", || acknowledged.borrow().len() > before);
    }
    stop.send_replace(true);
    stream.interrupt();
    assert_eq!(stored(folder).len() as u64, SENT, "every acknowledged reading is stored");
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), SENT as i64, "none is there twice");

    // At rest: the same rows, again and again, and after the files are joined.
    let before = everything(folder);
    let again: Value = serde_json::from_str(&succeed(folder, &arguments)).unwrap();
    assert_eq!(again["tables"]["test.reading"]["rows_gone"].as_u64(), Some(SENT), "{again}");
    assert!(everything(folder) == before, "a reprocessing changed rows");
    let version = number(folder, "SELECT max(version) FROM test.\"reading@history\"");
    let files = number(folder, "SELECT files FROM meta.datasets WHERE name = 'test.reading'");
    succeed(folder, &["table", "compact", "test.reading"]);
    assert!(number(folder, "SELECT files FROM meta.datasets WHERE name = 'test.reading'") < files);
    assert!(everything(folder) == before, "a compaction changed rows");
    let runs = "SELECT count(*) FROM meta.runs WHERE kind = 'reprocess' AND status = 'succeeded' AND name = 'ledger'";
    // One of those that were killed may have been at its end.
    assert!(number(folder, runs) >= 2);

    // Back to how it was, and forward again.
    let early = number(folder, "SELECT count(*) FROM test.\"reading@2\"");
    assert!(early > 0 && early < SENT as i64);
    succeed(folder, &["table", "restore", "test.reading", "--version", "2"]);
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), early);
    succeed(folder, &["table", "restore", "test.reading", "--version", &version.to_string()]);
    assert!(everything(folder) == before);
    let history = succeed(folder, &["table", "history", "test.reading", "--limit", "4"]);
    let operations: Vec<&str> = history.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(operations[..2], ["RESTORE", "RESTORE"], "{history}");
    let wrong = twinlake(folder, &["table", "history", "test.readings"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("'test.reading'"));
}

#[test]
fn the_demo_run_again_gives_the_rows_of_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = || format!("127.0.0.1:{}", free_port());
    let (http, postgres, mqtt) = (address(), address(), address());
    let doors = ["--http", &http, "--postgres", &postgres, "--mqtt", &mqtt];
    let demo = [&["demo", "--once", "--speed", "0", "--no-progress"][..], &doors].concat();
    succeed(folder, &demo);
    let all = |table: &str| rows(folder, &format!("SELECT * FROM {table} ORDER BY _sequence"));
    let (positions, rejects) = (all("traffic.vehicle_position"), all("meta.rejects"));
    let file = "twinlake-data/demo/pipelines/helsinki-vehicles.toml";
    let dry = succeed(folder, &["reprocess", file, "--dry-run"]);
    assert!(dry.contains("3000 messages to run again") && dry.contains("nothing has changed"), "{dry}");
    for _ in 0..2 {
        let told = succeed(folder, &["reprocess", file, "--no-progress"]);
        assert!(told.contains("traffic.vehicle_position: 2842 rows went, 2842 came"), "{told}");
        assert!(all("traffic.vehicle_position") == positions, "positions changed");
        assert!(all("meta.rejects") == rejects, "rejects changed");
    }
}
