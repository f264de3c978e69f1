//! A table's promises: every row once, committed once, as it was given, through conflicts, failures and crashes.

use std::path::Path as FilePath;
use std::time::Duration;

use arrow::array::{AsArray, BinaryArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use twinlake_contracts::{
    CRS84, Retry, TableSpec, TableStore, crs_of, geometry_field, is_geometry, timestamp_type,
};

use super::*;
use crate::{Lake, LakeOptions, RunRecord};

fn spec(schema: Vec<Field>) -> TableSpec {
    TableSpec {
        name: TableName::parse("test.readings").unwrap(),
        schema: Arc::new(Schema::new(schema)),
        description: "Readings of a test.".to_owned(),
    }
}

fn numbers_spec() -> TableSpec {
    spec(vec![Field::new("n", DataType::Int64, false)])
}

fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
}

async fn lake(folder: &FilePath) -> Arc<Lake> {
    Lake::open(folder.to_str().unwrap(), LakeOptions::default()).await.unwrap()
}

async fn query(table: &LakeTable, sql: &str) -> Vec<RecordBatch> {
    run(table.provider().await.unwrap(), sql).await
}

async fn run(provider: Arc<dyn TableProvider>, sql: &str) -> Vec<RecordBatch> {
    let context = SessionContext::new();
    context.register_table("t", provider).unwrap();
    context.sql(sql).await.unwrap().collect().await.unwrap()
}

fn number(batches: &[RecordBatch]) -> i64 {
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn count(table: &LakeTable) -> i64 {
    let counted = number(&query(table, "SELECT count(*) FROM t").await);
    let listed: usize = query(table, "SELECT n FROM t").await.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(counted, listed as i64);
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_queryable_at_once_and_a_commit_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    // A space and a letter outside ASCII: paths are not URLs.
    let at = folder.path().join("a lake ä");
    {
        let lake = lake(&at).await;
        let table = lake.open_lake_table(numbers_spec()).await.unwrap();
        assert_eq!(table.committed("p/sink").await.unwrap(), None);
        table.add_fresh("p/sink", numbers(0..10)).await.unwrap();
        assert_eq!(count(&table).await, 10);
        let version = table.commit("p/sink", 7, WriteMode::Append).await.unwrap();
        assert_eq!((version, count(&table).await), (1, 10));
        // The same sequence again, and an older one, change nothing.
        assert_eq!(table.commit("p/sink", 7, WriteMode::Append).await.unwrap(), 1);
        assert_eq!(table.commit("p/sink", 6, WriteMode::Append).await.unwrap(), 1);
        assert_eq!(table.committed("p/sink").await.unwrap(), Some(7));
        assert_eq!(table.committed("p/other").await.unwrap(), None);
        // Another writer has sequences of its own; rows of one are not committed by the other.
        table.add_fresh("p/other", numbers(10..13)).await.unwrap();
        table.add_fresh("p/sink", numbers(13..15)).await.unwrap();
        table.commit("p/other", 3, WriteMode::Append).await.unwrap();
        assert_eq!((table.stats().rows, table.stats().fresh_rows), (13, 2));
        // No rows: the sequence is committed all the same.
        table.commit("p/third", 9, WriteMode::Append).await.unwrap();
    }
    let lake = lake(&at).await;
    let table = lake.table(&TableName::parse("test.readings").unwrap()).expect("discovered");
    assert_eq!(count(&table).await, 13, "what was not committed is gone with the process");
    for (writer, sequence) in [("p/sink", 7), ("p/other", 3), ("p/third", 9)] {
        assert_eq!(table.committed(writer).await.unwrap(), Some(sequence));
    }
    assert_eq!(table.description(), "Readings of a test.");
    let stats = table.stats();
    assert_eq!((stats.version, stats.files, stats.rows, stats.fresh_rows), (3, 2, 13, 0));
    assert!(stats.bytes > 0 && stats.updated_at_us.is_some());
}

/// Readers count, list and sum while rows arrive and are committed: never one too few, never one too many.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_reader_sees_every_row_once_while_commits_run() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let table = lake.open_lake_table(numbers_spec()).await.unwrap();
    table.add_fresh("p/a", numbers(0..50)).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (table, done) = (Arc::clone(&table), Arc::clone(&done));
            tokio::spawn(async move {
                let mut reads = 0;
                while !done.load(Ordering::Acquire) {
                    let batches = query(&table, "SELECT count(*), count(DISTINCT n), max(n) FROM t").await;
                    let at = |column: usize| batches[0].column(column).as_primitive::<Int64Type>().value(0);
                    assert_eq!((at(0), at(1)), (at(2) + 1, at(2) + 1), "a row twice or missing");
                    assert_eq!(at(0) % 50, 0, "half a batch");
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for round in 1..=20 {
        table.commit("p/a", round, WriteMode::Append).await.unwrap();
        let from = round as i64 * 50;
        table.add_fresh("p/a", numbers(from..from + 50)).await.unwrap();
    }
    done.store(true, Ordering::Release);
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    assert!(reads > 5, "only {reads} reads");
    assert_eq!(count(&table).await, 1050);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replace_exchanges_all_rows_in_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    {
        let lake = lake(at).await;
        let table = lake.open_lake_table(numbers_spec()).await.unwrap();
        table.add_fresh("p/load", numbers(0..10)).await.unwrap();
        table.commit("p/load", 1, WriteMode::Replace).await.unwrap();
        assert_eq!(count(&table).await, 10);
        // The next load is not seen beside the rows that it replaces.
        table.add_fresh("p/load", numbers(0..4)).await.unwrap();
        assert_eq!(count(&table).await, 10);
        assert_eq!(table.commit("p/load", 2, WriteMode::Replace).await.unwrap(), 2);
        assert_eq!(count(&table).await, 4);
        assert_eq!(table.commit("p/load", 2, WriteMode::Replace).await.unwrap(), 2);
        let before = table.provider_at_version(1).await.unwrap();
        assert_eq!(number(&run(before, "SELECT count(*) FROM t").await), 10);
        assert!(table.provider_at_version(9).await.unwrap_err().to_string().contains("9 of table"));
    }
    let lake = lake(at).await;
    let table = lake.open_lake_table(numbers_spec()).await.unwrap();
    table.add_fresh("p/load", numbers(0..2)).await.unwrap();
    assert_eq!(count(&table).await, 4, "the table remembers that this writer replaces");
    table.commit("p/load", 3, WriteMode::Replace).await.unwrap();
    assert_eq!((count(&table).await, table.stats().files), (2, 1));
}

fn point(longitude: f64, latitude: f64) -> Vec<u8> {
    let mut wkb = vec![1, 1, 0, 0, 0];
    wkb.extend(longitude.to_le_bytes());
    wkb.extend(latitude.to_le_bytes());
    wkb
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn geometry_metadata_cells_and_time_stamps_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let fields = vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("ts", timestamp_type(), true),
        geometry_field("geom", CRS84, true),
        geometry_field("local", "EPSG:3879", true),
    ];
    let at = 1_539_059_573_123_457_i64;
    let rows = || {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a"), Some("Mäkelänkatu"), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![at, at + 1, at - 1]).with_timezone("UTC")),
            Arc::new(BinaryArray::from_iter([Some(point(24.94, 60.17)), Some(point(25.0, 60.2)), None])),
            Arc::new(BinaryArray::from_iter([Some(point(25_496_000.0, 6_672_000.0)), None, None])),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns).unwrap()
    };
    let check = async |table: &LakeTable| {
        let schema = table.schema();
        let geom = schema.field_with_name("geom").unwrap();
        assert!(is_geometry(geom), "{geom:?}");
        assert_eq!(crs_of(geom).as_deref(), Some(CRS84));
        assert_eq!(crs_of(schema.field_with_name("local").unwrap()).as_deref(), Some("EPSG:3879"));
        assert_eq!(geom, &geometry_field("geom", CRS84, true));
        assert_eq!(schema.field_with_name("_h3").unwrap().data_type(), &DataType::Int64);
        let batches = query(table, "SELECT * FROM t ORDER BY ts").await;
        assert_eq!(batches[0].schema().field_with_name("geom").unwrap().metadata(), geom.metadata());
        let plan_schema = table.provider().await.unwrap().schema();
        assert_eq!(plan_schema, schema);
        let cells = query(table, "SELECT count(*), count(_h3), count(geom) FROM t").await;
        let at_column = |column: usize| cells[0].column(column).as_primitive::<Int64Type>().value(0);
        assert_eq!((at_column(0), at_column(1), at_column(2)), (3, 2, 2));
        // Statistics keep microseconds: a filter at the edge finds the row.
        for (filter, expected) in [
            ("ts = '2018-10-09T04:32:53.123458Z'", 1),
            ("ts > '2018-10-09T04:32:53.123457Z'", 1),
            ("ts < '2018-10-09T04:32:53.123457Z'", 1),
            ("id = 'Mäkelänkatu'", 1),
            ("id IS NULL AND geom IS NULL", 1),
            ("_h3 > 0", 2),
        ] {
            let found = query(table, &format!("SELECT count(*) FROM t WHERE {filter}")).await;
            assert_eq!(number(&found), expected, "{filter}");
            let listed = query(table, &format!("SELECT ts, geom, id FROM t WHERE {filter} LIMIT 5")).await;
            let listed: usize = listed.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(listed as i64, expected, "{filter}");
        }
    };
    {
        let lake = lake(folder.path()).await;
        let table = lake.open_lake_table(spec(fields.clone())).await.unwrap();
        table.add_fresh("p/a", rows()).await.unwrap();
        check(&table).await;
        table.commit("p/a", 1, WriteMode::Append).await.unwrap();
        check(&table).await;
    }
    let lake = lake(folder.path()).await;
    let table = lake.open_lake_table(spec(fields.clone())).await.unwrap();
    check(&table).await;
    assert_eq!(table.version(), 1, "opening a table that fits changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_may_be_added_and_a_misfit_is_an_error_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let table = lake.open_lake_table(numbers_spec()).await.unwrap();
    table.add_fresh("p/a", numbers(0..3)).await.unwrap();
    table.commit("p/a", 1, WriteMode::Append).await.unwrap();
    table.add_fresh("p/a", numbers(3..5)).await.unwrap();
    let wider = vec![Field::new("n", DataType::Int64, true), Field::new("label", DataType::Utf8, true)];
    let same = lake.open_lake_table(spec(wider)).await.unwrap();
    assert!(Arc::ptr_eq(&table, &same));
    let found = query(&table, "SELECT count(*), count(label) FROM t").await;
    assert_eq!(number(&found), 5);
    table.commit("p/a", 2, WriteMode::Append).await.unwrap();
    assert_eq!(count(&table).await, 5);
    let misfit =
        spec(vec![Field::new("n", DataType::Utf8, true), Field::new("label", DataType::Int64, true)]);
    let error = lake.open_table(misfit).await.err().unwrap();
    for part in ["test.readings", "'n' is Int64 in the table and Utf8 here", "'label' is Utf8"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let text = Schema::new(vec![Field::new("n", DataType::Utf8, true)]);
    let rows = RecordBatch::try_new(Arc::new(text), vec![Arc::new(StringArray::from(vec!["x"]))]).unwrap();
    assert!(table.add_fresh("p/a", rows).await.unwrap_err().to_string().contains("'n' is Int64"));
    for (name, fields) in [("_log.x", numbers_spec().schema.fields().len()), ("a.b", 0)] {
        let schema = if fields == 0 { Arc::new(Schema::empty()) } else { numbers_spec().schema };
        let name = TableName::parse(name).unwrap();
        assert!(lake.open_table(TableSpec { name, schema, description: String::new() }).await.is_err());
    }
}

/// Two openings of one lake stand for two processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_other_processes_are_seen_and_conflicts_are_settled() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (lake(folder.path()).await, lake(folder.path()).await);
    let name = TableName::parse("test.readings").unwrap();
    let first = one.open_lake_table(numbers_spec()).await.unwrap();
    assert!(two.table(&name).is_none());
    two.refresh().await.unwrap();
    let second = two.table(&name).expect("discovered");
    first.add_fresh("a/s", numbers(0..10)).await.unwrap();
    first.commit("a/s", 1, WriteMode::Append).await.unwrap();
    assert_eq!(count(&second).await, 10);
    // Both write, neither looks: the later one is rebased.
    for round in 2..6 {
        first.add_fresh("a/s", numbers([1])).await.unwrap();
        second.add_fresh("b/s", numbers([2])).await.unwrap();
        let (a, b) = tokio::join!(
            first.commit("a/s", round, WriteMode::Append),
            second.commit("b/s", round, WriteMode::Append)
        );
        assert_ne!(a.unwrap(), b.unwrap());
    }
    assert_eq!((count(&first).await, count(&second).await), (18, 18));
    // The same writer and sequence in both: one of them lands.
    first.add_fresh("c/s", numbers(0..5)).await.unwrap();
    second.add_fresh("c/s", numbers(0..5)).await.unwrap();
    let (a, b) =
        tokio::join!(first.commit("c/s", 1, WriteMode::Append), second.commit("c/s", 1, WriteMode::Append));
    a.unwrap();
    b.unwrap();
    drop((first, second));
    let fresh = lake(folder.path()).await;
    assert_eq!(count(&fresh.table(&name).unwrap()).await, 23);
    // A column added elsewhere.
    let wider = vec![Field::new("n", DataType::Int64, true), Field::new("label", DataType::Utf8, true)];
    two.open_lake_table(spec(wider)).await.unwrap();
    let table = fresh.table(&name).unwrap();
    table.add_fresh("a/s", numbers([7])).await.unwrap();
    table.commit("a/s", 50, WriteMode::Append).await.unwrap();
    assert_eq!((count(&table).await, table.schema().fields().len()), (24, 2));
}

/// Gives up commits at random moments: whatever had reached storage, each row is there once in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_given_up_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let table = lake.open_lake_table(numbers_spec()).await.unwrap();
    let mut given_up = 0;
    for round in 1..=25_u64 {
        table.add_fresh("p/a", numbers([round as i64])).await.unwrap();
        let pause = Duration::from_micros(round * 1300 % 40_000);
        let commit = table.commit("p/a", round, WriteMode::Append);
        if tokio::time::timeout(pause, commit).await.is_err() {
            given_up += 1;
            assert_eq!(count(&table).await, round as i64, "while the fate of round {round} is open");
        }
        table.commit("p/a", round, WriteMode::Append).await.unwrap();
        assert_eq!(count(&table).await, round as i64, "after round {round}");
    }
    assert!(given_up > 0, "no commit was interrupted");
    assert_eq!(table.stats().rows, 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_that_fails_keeps_the_rows_and_the_next_commit_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let table = lake.open_lake_table(numbers_spec()).await.unwrap();
    table.add_fresh("p/a", numbers(0..5)).await.unwrap();
    let log = folder.path().join("test/readings/_delta_log");
    let away = folder.path().join("away");
    std::fs::rename(&log, &away).unwrap();
    // A file where the folder was: nothing can be written there.
    std::fs::write(&log, "").unwrap();
    let error = table.commit("p/a", 1, WriteMode::Append).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&away, &log).unwrap();
    assert_eq!(count(&table).await, 5);
    table.commit("p/a", 1, WriteMode::Append).await.unwrap();
    assert_eq!((count(&table).await, table.stats().rows), (5, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sequence_survives_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let options = LakeOptions { checkpoint_interval: 4, ..LakeOptions::default() };
    let at = folder.path().to_str().unwrap();
    {
        let lake = Lake::open(at, options.clone()).await.unwrap();
        let table = lake.open_lake_table(numbers_spec()).await.unwrap();
        table.commit("p/quiet", 5, WriteMode::Append).await.unwrap();
        for round in 1..=10 {
            table.add_fresh("p/a", numbers([round as i64])).await.unwrap();
            table.commit("p/a", round, WriteMode::Append).await.unwrap();
        }
    }
    let log = folder.path().join("test/readings/_delta_log");
    let names: Vec<String> =
        std::fs::read_dir(&log).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.contains("checkpoint")), "{names:?}");
    // Only the checkpoint and what came after it.
    for name in names
        .iter()
        .filter(|name| name.strip_suffix(".json").is_some_and(|version| version < "00000000000000000007"))
    {
        std::fs::remove_file(log.join(name)).unwrap();
    }
    let lake = Lake::open(at, options).await.unwrap();
    let table = lake.open_lake_table(numbers_spec()).await.unwrap();
    assert_eq!(table.committed("p/quiet").await.unwrap(), Some(5));
    assert_eq!(table.committed("p/a").await.unwrap(), Some(10));
    assert_eq!((count(&table).await, table.stats().rows), (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fresh_rows_are_bounded_and_a_commit_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let options = LakeOptions { fresh_limit_bytes: 10_000, ..LakeOptions::default() };
    let lake = Lake::open(folder.path().to_str().unwrap(), options).await.unwrap();
    let table = lake.open_lake_table(numbers_spec()).await.unwrap();
    table.add_fresh("p/a", numbers(0..5000)).await.unwrap();
    assert_eq!(table.fresh_bytes(), 40_000);
    let error = table.add_fresh("p/b", numbers([1])).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
    table.commit("p/a", 1, WriteMode::Append).await.unwrap();
    assert_eq!(table.fresh_bytes(), 0);
    table.add_fresh("p/b", numbers([1])).await.unwrap();
    assert_eq!(count(&table).await, 5001);
}

/// The order of a crash: state stored, some tables committed, others not. What recovery asks gives the way on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_between_state_and_commits_recovery_finds_its_place() {
    let folder = tempfile::tempdir().unwrap();
    {
        let lake = lake(folder.path()).await;
        let log = lake.open_log("p").await.unwrap();
        let messages = (1..=6).map(|ordinal| twinlake_contracts::Message {
            payload: bytes::Bytes::from(vec![ordinal as u8]),
            origin: "o".into(),
            position: twinlake_contracts::Position { ordinal, token: String::new() },
            received_at_us: 0,
        });
        log.append("s", messages.collect()).await.unwrap();
        let table = lake.open_table(numbers_spec()).await.unwrap();
        lake.put_state("p", 3, 0, b"three".to_vec()).await.unwrap();
        table.add_fresh("p/a", numbers(1..=3)).await.unwrap();
        table.add_fresh("p/b", numbers(1..=3)).await.unwrap();
        table.commit("p/a", 3, WriteMode::Append).await.unwrap();
        table.commit("p/b", 3, WriteMode::Append).await.unwrap();
        lake.put_state("p", 6, 3, b"six".to_vec()).await.unwrap();
        table.add_fresh("p/a", numbers(4..=6)).await.unwrap();
        table.add_fresh("p/b", numbers(4..=6)).await.unwrap();
        table.commit("p/a", 6, WriteMode::Append).await.unwrap();
        // The crash: `p/b` is not committed.
    }
    let lake = lake(folder.path()).await;
    let log = lake.open_log("p").await.unwrap();
    let table = lake.open_table(numbers_spec()).await.unwrap();
    let (a, b) = (table.committed("p/a").await.unwrap(), table.committed("p/b").await.unwrap());
    assert_eq!((a, b), (Some(6), Some(3)));
    assert_eq!(lake.state("p", 3).await.unwrap(), Some(b"three".to_vec()));
    assert_eq!(lake.state("p", 6).await.unwrap(), Some(b"six".to_vec()));
    assert_eq!(lake.state("p", 4).await.unwrap(), None);
    let again: Vec<i64> =
        log.read(3, 100).await.unwrap().iter().map(|logged| logged.sequence as i64).collect();
    assert_eq!(again, [4, 5, 6]);
    table.add_fresh("p/b", numbers(again)).await.unwrap();
    table.commit("p/b", 6, WriteMode::Append).await.unwrap();
    let table = lake.table(table.name()).unwrap();
    assert_eq!(count(&table).await, 12);
    lake.put_state("p", 9, 6, vec![]).await.unwrap();
    assert_eq!(lake.state("p", 3).await.unwrap(), None, "older states go");
    assert_eq!(lake.state("p", 6).await.unwrap(), Some(b"six".to_vec()));
    // A log that was lost does not give out sequences that are committed.
    drop(log);
    std::fs::remove_dir_all(folder.path().join("_log")).unwrap();
    assert_eq!(lake.open_log("p").await.unwrap().last_sequence(), 9);
    for wrong in ["", "../x", "a/b", "_a"] {
        assert!(lake.open_log(wrong).await.is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_runs_of_an_older_version_gets_the_new_columns() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let older: Vec<Field> =
        crate::runs_schema().fields().iter().take(16).map(|field| field.as_ref().clone()).collect();
    let name = TableName::parse("meta.runs").unwrap();
    let spec =
        TableSpec { name: name.clone(), schema: Arc::new(Schema::new(older)), description: String::new() };
    lake.open_lake_table(spec).await.unwrap();
    let run = RunRecord {
        run_id: "r".to_owned(),
        started_at_us: 1_000_000,
        finished_at_us: Some(3_500_000),
        who: Some("somebody".to_owned()),
        ..RunRecord::default()
    };
    lake.record_run(run).await.unwrap();
    let runs = lake.table(&name).unwrap();
    let found =
        query(&runs, "SELECT count(*) FROM t WHERE who = 'somebody' AND wall_s = 2.5 AND cpu_s IS NULL")
            .await;
    assert_eq!(number(&found), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_and_datasets_are_tables() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let record = |run_id: &str| RunRecord {
        run_id: run_id.to_owned(),
        kind: "simulation".to_owned(),
        status: "succeeded".to_owned(),
        seed: Some(1),
        started_at_us: 5,
        finished_at_us: Some(6),
        ..RunRecord::default()
    };
    lake.record_run(record("r1")).await.unwrap();
    lake.record_run(record("r2")).await.unwrap();
    let runs = lake.table(&TableName::parse("meta.runs").unwrap()).unwrap();
    let found =
        query(&runs, "SELECT count(*) FROM t WHERE finished_at > started_at AND scenario IS NULL").await;
    assert_eq!((number(&found), runs.stats().fresh_rows), (2, 0));
    let table = lake.open_lake_table(spec(vec![geometry_field("geom", CRS84, true)])).await.unwrap();
    let datasets = lake.datasets().await.unwrap();
    assert_eq!(datasets.schema(), crate::datasets_schema());
    let names: Vec<_> = datasets.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(names, ["meta.runs", "test.readings"]);
    assert_eq!(datasets.column(3).as_primitive::<Int64Type>().value(0), 2);
    let columns = datasets.column(2).as_string::<i32>().value(1);
    assert!(columns.contains(r#"{"name":"geom","type":"Binary","crs":"OGC:CRS84"}"#), "{columns}");
    drop(table);
    lake.close().await.unwrap();
}

/// Files hold boxes beside geometries, which queries and rows to be written anew do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_geometries_are_joined_and_keep_their_boxes() {
    let fields = vec![Field::new("id", DataType::Int64, true), geometry_field("geom", CRS84, true)];
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let table = lake.open_lake_table(spec(fields.clone())).await.unwrap();
    for number in 1..=5_i64 {
        let place = point(24.0 + number as f64, 60.0);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![number])),
            Arc::new(BinaryArray::from(vec![Some(place.as_slice())])),
        ];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns).unwrap();
        table.add_fresh("p/a", rows).await.unwrap();
        table.commit("p/a", number as u64, WriteMode::Append).await.unwrap();
    }
    let before = query(&table, "SELECT id, geom, _h3 FROM t ORDER BY id").await;
    let done = table.compact(CompactOptions::default()).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (5, 1));
    assert_eq!(query(&table, "SELECT id, geom, _h3 FROM t ORDER BY id").await, before);
    let mut data = std::fs::read_dir(folder.path().join("test/readings")).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|extension| extension == "parquet").then(|| std::fs::read(path).unwrap())
    });
    let all = |bytes: Vec<u8>| bytes.windows(10).any(|part| part == b"_geom_xmin");
    assert!(data.all(all));
}

/// Rows with equal keys keep their order, and the same rows in other batches give the same file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_clustered_and_does_not_depend_on_batches() {
    let fields = vec![Field::new("id", DataType::Int64, true), geometry_field("geom", CRS84, true)];
    let rows: Vec<(i64, Vec<u8>)> =
        (0..3000).map(|i| (i, point(24.0 + (i * 7 % 100) as f64 / 100.0, 60.1))).collect();
    let batch = |rows: &[(i64, Vec<u8>)]| {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.1.as_slice())).collect::<BinaryArray>()),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns).unwrap()
    };
    let mut files = Vec::new();
    for size in [3000, 17] {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(folder.path()).await;
        let table = lake.open_lake_table(spec(fields.clone())).await.unwrap();
        for part in rows.chunks(size) {
            table.add_fresh("p/a", batch(part)).await.unwrap();
        }
        table.commit("p/a", 1, WriteMode::Append).await.unwrap();
        let data = std::fs::read_dir(folder.path().join("test/readings")).unwrap().find_map(|entry| {
            let path = entry.unwrap().path();
            path.extension()
                .is_some_and(|extension| extension == "parquet")
                .then(|| std::fs::read(path).unwrap())
        });
        files.push(data.expect("a data file"));
        let ordered = query(&table, "SELECT _h3, id FROM t").await;
        let keys: Vec<(i64, i64)> = ordered
            .iter()
            .flat_map(|b| {
                let (cell, id) =
                    (b.column(0).as_primitive::<Int64Type>(), b.column(1).as_primitive::<Int64Type>());
                cell.values().iter().copied().zip(id.values().iter().copied()).collect::<Vec<_>>()
            })
            .collect();
        assert!(keys.is_sorted(), "not clustered");
    }
    assert!(files[0] == files[1], "the file depends on how the rows came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_table_does_not_close_the_lake() {
    let folder = tempfile::tempdir().unwrap();
    {
        let lake = lake(folder.path()).await;
        lake.open_lake_table(numbers_spec()).await.unwrap();
        let other = TableSpec { name: TableName::parse("test.other").unwrap(), ..numbers_spec() };
        lake.open_lake_table(other).await.unwrap();
    }
    let commit = folder.path().join("test/other/_delta_log/00000000000000000000.json");
    std::fs::write(commit, "{ not json").unwrap();
    std::fs::create_dir_all(folder.path().join("test/empty")).unwrap();
    let opened = std::panic::AssertUnwindSafe(lake(folder.path())).catch_unwind().await.unwrap();
    assert_eq!(opened.tables().len(), 1);
}

#[tokio::test]
async fn an_address_that_is_no_lake_is_a_clear_error() {
    let error = Lake::open("gopher://x/y", LakeOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("gopher"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(Lake::open(file.join("below").to_str().unwrap(), LakeOptions::default()).await.is_err());
    let url = url::Url::from_directory_path(folder.path().join("new folder")).unwrap();
    Lake::open(url.as_str(), LakeOptions::default()).await.unwrap();
    assert!(folder.path().join("new folder").is_dir());
}

/// A predicate that is always true shows what the boxes alone leave out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_prune_new_files_and_leave_those_that_are_older_alone() {
    use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
    use datafusion::scalar::ScalarValue;

    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let fields = vec![Field::new("n", DataType::Int64, true), geometry_field("geom", CRS84, true)];
    let rows = |from: i64, places: &[Option<f64>]| {
        let numbers = Int64Array::from_iter_values((from..).take(places.len()));
        let points: BinaryArray = places.iter().map(|place| place.map(|place| point(place, 60.0))).collect();
        let schema = Arc::new(Schema::new(fields.clone()));
        RecordBatch::try_new(schema, vec![Arc::new(numbers), Arc::new(points)]).unwrap()
    };
    // A table as it was before there were boxes.
    let name = TableName::parse("test.readings").unwrap();
    let log_store = lake.open_lake_table(spec(fields.clone())).await.unwrap().log_store.clone();
    std::fs::remove_dir_all(folder.path().join("test")).unwrap();
    let old = schema::stored_schema(&name, &Schema::new(fields.clone())).unwrap();
    let old: Vec<Field> = old.fields().iter().map(|field| field.as_ref().clone()).collect();
    let old = open::kernel_fields(&name, &old).unwrap();
    DeltaTable::new(log_store.clone()).create().with_columns(old).await.unwrap();
    let table = LakeTable::open(&name, log_store, 1 << 20).await.unwrap().unwrap();
    table.add_fresh("p/a", rows(0, &[Some(10.0), Some(24.0)])).await.unwrap();
    table.commit("p/a", 1, WriteMode::Append).await.unwrap();
    let visible = table.schema();
    table.fit(&spec(fields.clone())).await.unwrap();
    assert_eq!((table.schema(), table.stored_schema().fields().len()), (visible, 7));
    let version = table.version();
    table.fit(&spec(fields.clone())).await.unwrap();
    assert_eq!(table.version(), version, "columns are added once");
    table.add_fresh("p/a", rows(10, &[Some(10.0), Some(10.1), None])).await.unwrap();
    table.commit("p/a", 2, WriteMode::Append).await.unwrap();
    table.add_fresh("p/a", rows(20, &[Some(24.0), Some(24.1), None])).await.unwrap();
    table.commit("p/a", 3, WriteMode::Append).await.unwrap();
    table.add_fresh("p/a", rows(30, &[Some(10.0)])).await.unwrap();

    let provider = table.provider().await.unwrap();
    let context = SessionContext::new();
    context.register_table("t", provider).unwrap();
    let always = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))));
    let types = vec![DataType::Binary, DataType::Binary];
    context.register_udf(create_udf(
        "st_intersects",
        types,
        DataType::Boolean,
        Volatility::Immutable,
        Arc::new(always),
    ));
    let ask = async |sql: &str| context.sql(sql).await.unwrap().collect().await.unwrap();
    let hex = point(24.0, 60.0).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let near = format!("st_intersects(geom, X'{hex}')");
    let rows = ask(&format!("SELECT array_agg(n ORDER BY n) FROM t WHERE {near}")).await;
    let shown = arrow::util::display::array_value_to_string(rows[0].column(0), 0).unwrap();
    assert_eq!(shown, "[0, 1, 20, 30]");
    let plan = ask(&format!("EXPLAIN SELECT n FROM t WHERE {near}")).await;
    let plan = arrow::util::pretty::pretty_format_batches(&plan).unwrap().to_string();
    assert!(plan.contains("_geom_xmax"), "{plan}");
    assert_eq!(plan.matches(".zstd.parquet").count(), 2, "the old file and the near one: {plan}");
    // Queries do not see the boxes.
    assert_eq!(ask("SELECT * FROM t").await[0].num_columns(), 3);
}
