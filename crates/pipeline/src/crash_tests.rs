//! The law of the runner: whatever happens between two steps, every message ends in the lake exactly once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::watch;
use twinlake_contracts::{Result, SqlEngine};

use crate::fakes::{Durable, FakeEngine, FakeStore, Faults, components, engine};
use crate::plan::{Plan, validate};
use crate::runner::{RunReport, Runner};

/// Two sources, a filter, a dedup with state, three sinks.
fn text(micro_batch: usize) -> String {
    format!(
        r#"
name = "law"
[settings]
commit_interval_ms = 2
micro_batch_messages = {micro_batch}
max_uncommitted_rows = 12
[sources.a]
type = "fake"
url = "fake://a"
count = 41
payloads = ["v1,#,1", "v1,7,2", "v2,#,", "bad", "v2,7,3", "v3,#,-1", "v3,7,666", "none", "two", "v4,#,500", "die"]
decoder = {{ type = "fake" }}
[sources.b]
type = "fake"
url = "fake://b"
count = 17
payloads = ["w#,1,1", "w,7,2"]
decoder = {{ type = "fake" }}
[transforms.positive]
type = "sql"
inputs = ["a"]
query = "SELECT * FROM input WHERE value > 0"
[transforms.clean]
type = "clean"
inputs = ["positive"]
key = ["id"]
require = ["value"]
range = {{ value = [0, 100] }}
dedup = {{ by = ["id", "ts"] }}
[transforms.clean_b]
type = "clean"
inputs = ["b"]
dedup = {{ by = ["id", "ts"] }}
[sinks.values]
type = "lake"
inputs = ["clean"]
table = "law.value"
[sinks.both]
type = "lake"
inputs = ["clean", "clean_b"]
table = "law.both"
"#
    )
}

/// Steps that hold rows back: what they let go must land once, with the time at which its message became known.
fn holding(micro_batch: usize) -> String {
    let head = text(micro_batch);
    let head = head.split("[transforms.positive]").next().unwrap_or_default();
    format!(
        r#"{head}
[transforms.centred]
type = "clean"
inputs = ["a"]
key = ["id"]
spike = {{ value = {{ window = 2, centred = true, min_values = 2 }} }}
[transforms.ordered]
type = "late"
inputs = ["centred"]
allowed_lateness = "3s"
order = true
[transforms.positive]
type = "sql"
inputs = ["ordered"]
query = "SELECT * FROM input WHERE value > 0"
[transforms.centred_b]
type = "clean"
inputs = ["b"]
spike = {{ value = {{ window = 3, centred = true, action = "flag" }} }}
dedup = {{ by = ["id", "ts"] }}
[transforms.counts]
type = "window"
inputs = ["centred_b"]
kind = "tumbling"
size = "4s"
allowed_lateness = "1m"
aggregates = {{ rows = {{ function = "count" }}, mean = {{ function = "mean", column = "value" }} }}
[sinks.values]
type = "lake"
inputs = ["positive"]
table = "law.value"
[sinks.both]
type = "lake"
inputs = ["centred_b"]
table = "law.both"
[sinks.counts]
type = "lake"
inputs = ["counts"]
table = "law.count"
"#
    )
}

async fn plan(text: &str) -> Plan {
    let (plan, found) = validate(text, None, &components(), &engine()).await;
    plan.unwrap_or_else(|| panic!("{found}"))
}

async fn run(
    text: &str,
    durable: &Arc<Mutex<Durable>>,
    faults: Arc<Faults>,
    engine: Arc<dyn SqlEngine>,
) -> Result<RunReport> {
    let store = FakeStore::new(durable, faults);
    let runner = Runner::new(plan(text).await, Arc::new(store), engine)
        .with_pauses(Duration::from_micros(10), Duration::from_micros(50));
    let (_stop, stopped) = watch::channel(false);
    runner.run(stopped).await
}

/// What must not depend on crashes: the rows without their log sequence, which depends on how the sources interleave.
fn content(durable: &Mutex<Durable>) -> BTreeMap<String, Vec<String>> {
    let durable = durable.lock().unwrap();
    let tables = durable.tables.iter().map(|(name, rows)| {
        let mut rows: Vec<String> = rows
            .iter()
            .map(|row| {
                let mut row: serde_json::Value = serde_json::from_str(row).unwrap();
                row.as_object_mut().unwrap().shift_remove("_sequence");
                row.to_string()
            })
            .collect();
        rows.sort();
        (name.clone(), rows)
    });
    tables.collect()
}

fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains("a defect of the decoder") {
            eprintln!("{text}");
        }
    }));
}

async fn undisturbed() -> BTreeMap<String, Vec<String>> {
    undisturbed_run(&text(7)).await
}

async fn undisturbed_run(text: &str) -> BTreeMap<String, Vec<String>> {
    let durable = Arc::default();
    run(text, &durable, Faults::none(), engine()).await.unwrap();
    content(&durable)
}

#[tokio::test]
async fn every_message_ends_in_a_row_or_a_reject() {
    quiet();
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let report = run(&text(7), &durable, Faults::none(), engine()).await.unwrap();
    let content = content(&durable);
    assert_eq!(content["raw.a"].len() + content["raw.b"].len(), 58);
    assert_eq!(report.stats.messages, 58);
    assert_eq!(report.stats.processed, 58);
    assert_eq!(report.rejects(), content["meta.rejects"].len() as u64);
    let by_reason = |reason: &str| report.stats.rejects.get(reason).copied().unwrap_or(0);
    // Of 41 messages of `a`, each payload came 4 times (the first eight) or 3 times; `v1,7`, `v2,7` come once as a row.
    let expected = [
        ("invalid", 4),
        ("missing_value", 4),
        ("filtered", 4),
        ("sql_error", 4),
        ("no_rows", 4),
        ("out_of_range", 3),
        ("decoder_error", 3),
    ];
    for (reason, count) in expected {
        assert_eq!(by_reason(reason), count, "{reason}: {:?}", report.stats.rejects);
    }
    assert_eq!(by_reason("duplicate"), 3 + 3 + 7, "v1, v2 and w at second 7");
    // 41 messages of which three gave two rows each.
    assert_eq!(content["law.value"].len() as u64 + report.rejects() - 7, 41 + 3);
    assert_eq!(content["law.both"].len(), content["law.value"].len() + 17 - 7);
    let payloads = content["meta.rejects"].iter().filter(|row| row.contains(r#""payload":"bad""#)).count();
    assert_eq!(payloads, 4, "rejects carry the payload");
}

#[tokio::test]
async fn messages_held_back_end_once_and_keep_their_payload_and_time() {
    quiet();
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let report = run(&holding(1), &durable, Faults::none(), engine()).await.unwrap();
    assert_eq!(
        (report.stats.messages, report.stats.processed),
        (58, 58),
        "the end of input is nobody's message"
    );
    let content = content(&durable);
    assert_eq!(content["raw.a"].len() + content["raw.b"].len(), 58);
    let rejects = &content["meta.rejects"];
    let of =
        |reason: &str| rejects.iter().filter(|row| row.contains(&format!(r#""reason":"{reason}""#))).count();
    assert_eq!(of("filtered"), 3, "-1 is held back, let go, and then filtered: {rejects:#?}");
    assert_eq!(of("duplicate"), 7);
    assert!(of("late") > 0);
    let counts = &content["law.count"];
    assert!(counts.len() == 2 && counts.iter().all(|row| row.contains("_ingested_at")), "{counts:#?}");
    assert!(rejects.iter().all(|row| row.contains("payload")), "{rejects:#?}");
    let landed = content["law.value"].iter().chain(&content["law.both"]);
    assert!(landed.clone().all(|row| row.contains("_ingested_at")));
    assert_eq!(
        content["law.value"].len() + content["law.both"].len() + rejects.len(),
        58 + 3,
        "three gave two rows"
    );
}

#[tokio::test]
async fn a_crash_between_any_two_steps_changes_nothing() {
    quiet();
    dies_at_every_step(text).await;
}

#[tokio::test]
async fn a_crash_while_rows_are_held_back_changes_nothing() {
    quiet();
    dies_at_every_step(holding).await;
}

async fn dies_at_every_step(text: fn(usize) -> String) {
    let expected = undisturbed_run(&text(7)).await;
    for takes_effect in [false, true] {
        for dies_after in 0.. {
            let durable = Arc::default();
            let faults = Faults::new(dies_after, takes_effect, 0);
            let first = run(&text(7), &durable, Arc::clone(&faults), engine()).await;
            // Another cut into batches after the restart must not matter.
            let second = run(&text(5), &durable, Faults::none(), engine()).await;
            second.unwrap_or_else(|error| panic!("after step {dies_after}: {error}"));
            assert_eq!(content(&durable), expected, "killed at step {dies_after}, effect: {takes_effect}");
            if first.is_ok() && faults.steps.load(Ordering::SeqCst) <= dies_after {
                assert!(dies_after > 60, "{dies_after} steps are too few for a test");
                break;
            }
        }
    }
}

#[tokio::test]
async fn failures_that_pass_are_waited_out() {
    quiet();
    let expected = undisturbed().await;
    for (store, sql) in [(2, 0), (3, 0), (0, 23), (0, 31), (5, 29)] {
        let durable = Arc::default();
        let engine = Arc::new(FakeEngine { stumbles_every: sql, runs: 0.into() });
        let report = run(&text(7), &durable, Faults::new(-1, false, store), engine).await.unwrap();
        assert!(report.stats.errors > 0);
        assert_eq!(content(&durable), expected, "store stumbles every {store}, engine every {sql}");
        assert_eq!(report.rejects(), content(&durable)["meta.rejects"].len() as u64, "counted once");
    }
}

#[tokio::test]
async fn stopping_commits_what_was_taken() {
    quiet();
    let text = text(7).replace("count = 17", "count = 17\nbounded = false");
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let store = FakeStore::new(&durable, Faults::none());
    let runner = Runner::new(plan(&text).await, Arc::new(store), engine());
    let stats = runner.stats();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(runner.run(stopped));
    while stats.snapshot().messages < 58 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!task.is_finished(), "an endless source keeps the run going");
    stop.send_replace(true);
    let report = task.await.unwrap().unwrap();
    assert!(report.stopped);
    assert_eq!(report.stats.committed_sequence, 58);
    assert_eq!(content(&durable), undisturbed().await);
}

#[tokio::test]
async fn a_new_sink_starts_at_the_present_and_disturbs_nobody() {
    quiet();
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let short = text(7).replace("count = 41", "count = 20").replace("count = 17", "count = 9");
    run(&short, &durable, Faults::none(), engine()).await.unwrap();
    let more = text(5) + "[sinks.late]\ntype = \"lake\"\ninputs = [\"clean\"]\ntable = \"law.late\"\n";
    run(&more, &durable, Faults::none(), engine()).await.unwrap();
    let mut content = content(&durable);
    let late = content.remove("law.late").unwrap();
    let all = &content["law.value"];
    assert!(!late.is_empty() && late.len() < all.len() && late.iter().all(|row| all.contains(row)));
    assert_eq!(content, undisturbed().await);
}

#[tokio::test]
async fn a_lost_log_is_told() {
    quiet();
    let durable: Arc<Mutex<Durable>> = Arc::default();
    run(&text(7), &durable, Faults::none(), engine()).await.unwrap();
    durable.lock().unwrap().log.clear();
    let error = run(&text(7), &durable, Faults::none(), engine()).await.unwrap_err();
    assert!(
        error.to_string().contains("ends at message 0, but its tables hold rows up to message 58"),
        "{error}"
    );
}

const MAP: &str = r#"
name = "map"
[sources.numbers]
path = "some/file"
reader = { type = "fake", rows = 5 }
known_at = "2018-10-09T00:00:00Z"
[sources.others]
path = "some/file"
reader = { type = "fake", rows = 3 }
[transforms.all]
type = "sql"
inputs = ["others"]
query = "SELECT * FROM input GROUP BY number"
[sinks.number]
type = "lake"
inputs = ["numbers"]
table = "map.number"
[sinks.other]
type = "lake"
inputs = ["all"]
table = "map.other"
"#;

#[tokio::test]
async fn a_file_replaces_the_rows_of_its_table() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    for _ in 0..2 {
        let report = run(MAP, &durable, Faults::none(), engine()).await.unwrap();
        assert_eq!(report.stats.rows, BTreeMap::from([("number".to_owned(), 5), ("other".to_owned(), 3)]));
        let content = content(&durable);
        assert_eq!(content["map.number"].len(), 5);
        assert_eq!(content["map.other"].len(), 3);
        assert_eq!(content["map.number"][0], r#"{"number":0,"_ingested_at":"2018-10-09T00:00:00Z"}"#);
    }
}

#[tokio::test]
async fn a_damaged_file_leaves_its_table_and_the_others_go_on() {
    let durable: Arc<Mutex<Durable>> = Arc::default();
    run(MAP, &durable, Faults::none(), engine()).await.unwrap();
    let broken = MAP.replacen("some/file", "some/broken", 1).replace("rows = 3", "rows = 4");
    let error = run(&broken, &durable, Faults::none(), engine()).await.unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
    let content = content(&durable);
    assert_eq!((content["map.number"].len(), content["map.other"].len()), (5, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn many_crashes_in_a_row_change_nothing(deaths in proptest::collection::vec((0..120i64, any::<bool>(), 1..12usize), 1..6)) {
        quiet();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let expected = undisturbed().await;
            let durable = Arc::default();
            for (dies_after, takes_effect, micro_batch) in &deaths {
                let _ = run(&text(*micro_batch), &durable, Faults::new(*dies_after, *takes_effect, 0), engine()).await;
            }
            run(&text(6), &durable, Faults::none(), engine()).await.unwrap();
            assert_eq!(content(&durable), expected);
        });
    }

    #[test]
    fn the_cut_into_batches_changes_nothing(micro_batch in 1..60usize) {
        quiet();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for text in [text, holding] {
                let durable = Arc::default();
                run(&text(micro_batch), &durable, Faults::none(), engine()).await.unwrap();
                assert_eq!(content(&durable), undisturbed_run(&text(7)).await);
            }
        });
    }
}

#[tokio::test]
async fn paths_are_beside_the_file() {
    let text = text(7).replace("url = \"fake://a\"", "url = \"fake://a\"\npassword_file = \"secret\"");
    let (plan, found) = validate(&text, Some(Path::new("folder/law.toml")), &components(), &engine()).await;
    assert!(plan.is_some(), "{found}");
}
