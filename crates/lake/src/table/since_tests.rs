//! What is told since a version is what came, in files; and nothing when rows went.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use twinlake_contracts::{SEQUENCE, TableName, TableSpec, TableWriter as _, WriteMode};

use super::*;
use crate::{CompactOptions, Lake, LakeOptions};

fn rows(values: &[i64]) -> RecordBatch {
    let column = || Arc::new(Int64Array::from(values.to_vec()));
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![field("n"), field(SEQUENCE)]));
    RecordBatch::try_new(schema, vec![column(), column()]).unwrap()
}

async fn commit(table: &LakeTable, values: &[i64], upto: u64) {
    table.add_fresh("p/s", rows(values)).await.unwrap();
    table.commit("p/s", upto, WriteMode::Append).await.unwrap();
}

/// The numbers since a version, sorted; `None` when nothing can be told.
async fn since(table: &LakeTable, version: u64) -> Option<Vec<i64>> {
    let (upto, added) = table.since(version).await.unwrap()?;
    assert_eq!(upto, table.version());
    let mut numbers = Vec::new();
    for file in added.one_by_one() {
        for batch in table.read_added(&file).await.unwrap() {
            numbers.extend(batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec());
        }
    }
    numbers.sort_unstable();
    Some(numbers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_since_a_version_is_told_whole() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
    let name = TableName::parse("test.readings").unwrap();
    let spec = TableSpec { name, schema: rows(&[]).schema(), description: String::new() };
    let table = lake.open_lake_table(spec).await.unwrap();
    commit(&table, &[1, 2], 2).await;
    let known = table.version();
    assert_eq!(since(&table, known).await, Some(vec![]));
    commit(&table, &[3], 3).await;
    commit(&table, &[4, 5], 5).await;
    table.add_fresh("p/s", rows(&[6])).await.unwrap();
    assert_eq!(since(&table, known).await, Some(vec![3, 4, 5]), "committed rows, without those that wait");
    let (version, _) = table.committed_rows().await.unwrap();
    assert_eq!(version, table.version());
    // A compaction puts old and new rows into one file: all of it is told, and from its version on nothing.
    table.compact(CompactOptions::default()).await.unwrap();
    assert_eq!(since(&table, known).await, Some(vec![1, 2, 3, 4, 5]));
    let compacted = table.version();
    assert_eq!(since(&table, compacted).await, Some(vec![]));
    // Of rows that were known alone nothing is new.
    table.commit("p/s", 6, WriteMode::Append).await.unwrap();
    let six = table.version();
    table.compact(CompactOptions::default()).await.unwrap();
    assert_eq!(since(&table, six).await, Some(vec![]));
    assert_eq!(since(&table, table.version() + 1).await, None, "a version that is not there");
    table.restore(known).await.unwrap();
    assert_eq!(since(&table, six).await, None, "rows went");
}
