//! Rows exchanged and files joined: what a query sees is what a list in memory says, also while others write.

use std::collections::BTreeSet;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::prelude::SessionContext;
use twinlake_contracts::{SEQUENCE, TableSpec};

use std::time::Duration;

use super::*;
use crate::{CompactOptions, Lake, LakeOptions};

const NAME: &str = "test.readings";

/// Rows `(n, sequence)`; a row without a message has no sequence.
fn rows(values: &[(i64, Option<i64>)]) -> RecordBatch {
    let columns: [arrow::array::ArrayRef; 2] = [
        Arc::new(values.iter().map(|(n, _)| *n).collect::<Int64Array>()),
        Arc::new(values.iter().map(|(_, sequence)| *sequence).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema(), columns.to_vec()).unwrap()
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new(SEQUENCE, DataType::Int64, true),
    ]))
}

async fn open(folder: &std::path::Path) -> (Arc<Lake>, Arc<LakeTable>) {
    let lake = Lake::open(folder.to_str().unwrap(), LakeOptions::default()).await.unwrap();
    let name = TableName::parse(NAME).unwrap();
    let spec = TableSpec { name, schema: schema(), description: String::new() };
    let table = lake.open_lake_table(spec).await.unwrap();
    (lake, table)
}

async fn seen(table: &LakeTable) -> Vec<i64> {
    let context = SessionContext::new();
    context.register_table("t", table.provider().await.unwrap()).unwrap();
    let batches = context.sql("SELECT n FROM t ORDER BY n").await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

async fn append(table: &LakeTable, writer: &str, upto: u64, values: &[(i64, Option<i64>)]) {
    table.add_fresh(writer, rows(values)).await.unwrap();
    table.commit(writer, upto, WriteMode::Append).await.unwrap();
}

fn sequences(values: impl IntoIterator<Item = u64>) -> Sequences {
    values.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_one_writer_and_of_certain_messages_are_exchanged_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_lake, table) = open(folder.path()).await;
    append(&table, "p/s", 4, &[(1, Some(1)), (2, Some(2)), (3, Some(3)), (4, Some(4))]).await;
    append(&table, "p/s", 6, &[(5, Some(5)), (6, Some(6)), (60, None)]).await;
    append(&table, "p/s", 8, &[(7, Some(7)), (8, Some(8))]).await;
    append(&table, "q/s", 9, &[(100, Some(5)), (101, Some(7))]).await;
    table.add_fresh("p/s", rows(&[(9, Some(9))])).await.unwrap();

    let gone = sequences([3, 5, 6, 7, 8]);
    let affected = table.affected("p/s", &gone).await.unwrap();
    assert_eq!((affected.files, affected.rows_gone), (3, 9), "by statistics, so at most");
    let come = table.stage("p/s", rows(&[(30, Some(3)), (31, Some(3)), (50, Some(5))])).await.unwrap();
    assert_eq!(seen(&table).await, [1, 2, 3, 4, 5, 6, 7, 8, 9, 60, 100, 101], "staged is not there");
    let revision = |key| Revision { writer: "p/s", gone: &gone, come: &come, key };
    let revised = table.revise(revision("first")).await.unwrap();
    assert_eq!((revised.rows_gone, revised.rows_come, revised.files), (5, 3, 3));
    let after = [1, 2, 4, 9, 30, 31, 50, 60, 100, 101];
    assert_eq!(seen(&table).await, after, "the row of no message, the fresh row and the other writer's stay");
    let again = table.revise(revision("first")).await.unwrap();
    assert_eq!((again.version, again.rows_gone, again.rows_come), (revised.version, 0, 0));
    assert_eq!(seen(&table).await, after);
    table.commit("p/s", 9, WriteMode::Append).await.unwrap();
    assert_eq!(seen(&table).await, after);
    // Only what goes, and what is not there.
    let nothing = Revision { writer: "p/s", gone: &sequences([1]), come: &[], key: "second" };
    assert_eq!(table.revise(nothing).await.unwrap().rows_gone, 1);
    let nobody = Revision { writer: "nobody", gone: &gone, come: &[], key: "third" };
    assert_eq!(table.revise(nobody).await.unwrap().files, 0);
    assert_eq!(seen(&table).await, after[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_become_one_a_writer_and_the_rows_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (_lake, table) = open(folder.path()).await;
    for round in 1..=12_i64 {
        append(&table, "p/s", round as u64, &[(round, Some(round))]).await;
        append(&table, "q/s", round as u64, &[(100 + round, Some(round))]).await;
    }
    let before = seen(&table).await;
    let left = table.compact(CompactOptions { leave_files: 12, ..CompactOptions::default() }).await.unwrap();
    assert_eq!((left.commits, table.stats().files), (0, 24));
    let done = table.compact(CompactOptions::default()).await.unwrap();
    assert_eq!((done.commits, done.files_before, done.files_after, table.stats().files), (2, 24, 2, 2));
    assert_eq!((seen(&table).await, table.stats().rows), (before, 24));
    assert_eq!(table.committed("p/s").await.unwrap(), Some(12), "sequences stay");
    // The joined file still knows its writer.
    let gone = sequences([1, 2]);
    let revised = table.revise(Revision { writer: "q/s", gone: &gone, come: &[], key: "k" }).await.unwrap();
    assert_eq!((revised.rows_gone, seen(&table).await.len()), (2, 22));
}

/// A stream appends, a second process compacts, and a third exchanges rows, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_lost_or_doubled_while_all_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_lake, stream) = open(folder.path()).await;
    append(&stream, "p/s", 1, &[(1, Some(1))]).await;
    let compactor = {
        let (lake, table) = open(folder.path()).await;
        tokio::spawn(async move {
            let mut commits = 0;
            while commits < 4 {
                commits += table.compact(CompactOptions::default()).await.unwrap().commits;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop(lake);
            commits
        })
    };
    let reviser = {
        let (lake, table) = open(folder.path()).await;
        tokio::spawn(async move {
            let mut exchanged = BTreeSet::new();
            for round in 0..9_u64 {
                let reached = table.committed("p/s").await.unwrap().unwrap();
                // Each message loses its row n and gets the row -n, some of them several times.
                let gone: Sequences = (1..=reached).filter(|sequence| sequence % 3 == round % 3).collect();
                let new: Vec<(i64, Option<i64>)> = (1..=reached)
                    .filter(|sequence| gone.contains(*sequence))
                    .map(|sequence| (-(sequence as i64), Some(sequence as i64)))
                    .collect();
                let come = table.stage("p/s", rows(&new)).await.unwrap();
                let key = format!("round {round}");
                table.revise(Revision { writer: "p/s", gone: &gone, come: &come, key: &key }).await.unwrap();
                exchanged.extend(new.iter().map(|(n, _)| -n));
            }
            drop(lake);
            exchanged
        })
    };
    let mut last = 1;
    while last < 60 || !compactor.is_finished() || !reviser.is_finished() {
        last += 1;
        append(&stream, "p/s", last as u64, &[(last, Some(last))]).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    compactor.await.unwrap();
    let exchanged = reviser.await.unwrap();
    assert!(!exchanged.is_empty());
    let mut expected: Vec<i64> = (1..=last).map(|n| if exchanged.contains(&n) { -n } else { n }).collect();
    expected.sort_unstable();
    assert_eq!(seen(&stream).await, expected);
}

fn timed(values: &[(i64, Option<i64>)]) -> RecordBatch {
    let columns: [arrow::array::ArrayRef; 2] = [
        Arc::new(values.iter().map(|(n, _)| *n).collect::<Int64Array>()),
        Arc::new(
            values
                .iter()
                .map(|(_, us)| *us)
                .collect::<arrow::array::TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
    ];
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("ts", twinlake_contracts::timestamp_type(), true),
    ]);
    RecordBatch::try_new(Arc::new(schema), columns.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_rows_go_to_the_microsecond_and_come_back_until_a_vacuum() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
    let name = TableName::parse(NAME).unwrap();
    let spec = TableSpec { name, schema: timed(&[]).schema(), description: String::new() };
    let table = lake.open_lake_table(spec).await.unwrap();
    // One file lies before the limit, one on both sides of it, one behind it.
    let limit = 1_539_059_573_000_500;
    for (round, values) in [
        vec![(1, Some(limit - 5_000_000)), (2, Some(limit - 4_000_000))],
        vec![(3, Some(limit - 1)), (4, Some(limit)), (5, None), (6, Some(limit + 1))],
        vec![(7, Some(limit + 9))],
    ]
    .into_iter()
    .enumerate()
    {
        table.add_fresh("p/s", timed(&values)).await.unwrap();
        table.commit("p/s", round as u64 + 1, WriteMode::Append).await.unwrap();
    }
    let expired = table.expire("ts", limit).await.unwrap();
    assert_eq!((expired.files, expired.rows), (2, 3));
    assert_eq!(seen(&table).await, [4, 5, 6, 7]);
    assert_eq!(table.expire("ts", limit).await.unwrap().rows, 0);
    let error = table.expire("n", limit).await.unwrap_err().to_string();
    assert!(error.contains("'n'") && error.contains("ts"), "{error}");

    let history = table.history(None).await.unwrap();
    let operations: Vec<&str> = history.iter().map(|record| record.operation.as_str()).collect();
    assert_eq!(operations, ["DELETE", "WRITE", "WRITE", "WRITE", "CREATE TABLE"]);
    assert_eq!((history[0].version, history[1].writer.as_deref()), (4, Some("p/s")));
    assert_eq!(table.version_at(twinlake_contracts::now_us()).await.unwrap(), 4);
    assert!(table.version_at(0).await.unwrap_err().to_string().contains("1970"));

    assert_eq!(table.restore(3).await.unwrap(), 5);
    assert_eq!(seen(&table).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(table.restore(4).await.unwrap(), 6);
    assert_eq!(table.committed("p/s").await.unwrap(), Some(3));
    assert!(table.restore(99).await.unwrap_err().to_string().contains("99"));

    // Nothing is old enough; then everything, but for a version that somebody needs.
    let week = Duration::from_hours(24 * 7);
    assert_eq!(table.vacuum(week, &[], false).await.unwrap().files, 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(table.vacuum(Duration::ZERO, &[3], false).await.unwrap().files, 0);
    assert_eq!(table.vacuum(Duration::ZERO, &[], true).await.unwrap().files, 2);
    assert_eq!(table.vacuum(Duration::ZERO, &[], false).await.unwrap().files, 2);
    assert_eq!(seen(&table).await, [4, 5, 6, 7]);
    let gone = table.restore(3).await.unwrap_err().to_string();
    assert!(gone.contains("vacuum") && gone.contains("reprocess"), "{gone}");
}
