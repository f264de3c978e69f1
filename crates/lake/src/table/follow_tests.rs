//! What a follower has put together is what a query sees, whatever happens to the table.

use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::prelude::SessionContext;
use twinlake_contracts::{SEQUENCE, TableSpec};

use super::*;
use crate::{CompactOptions, Evolution, Following, Lake, LakeOptions, TableChange};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new(SEQUENCE, DataType::Int64, true),
    ]))
}

fn rows(values: &[i64]) -> RecordBatch {
    let column = || Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_new(schema(), vec![column(), column()]).unwrap()
}

async fn open(folder: &std::path::Path) -> (Arc<Lake>, Arc<LakeTable>) {
    let lake = Lake::open(folder.to_str().unwrap(), LakeOptions::default()).await.unwrap();
    let name = TableName::parse("test.readings").unwrap();
    let spec = TableSpec { name, schema: schema(), description: String::new() };
    let table = lake.open_lake_table(spec).await.unwrap();
    (lake, table)
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

async fn queried(provider: Arc<dyn TableProvider>) -> Vec<i64> {
    let context = SessionContext::new();
    context.register_table("t", provider).unwrap();
    let batches = context.sql("SELECT n FROM t ORDER BY n").await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(numbers).collect()
}

/// How often each number is there, as a follower knows.
struct Known {
    following: Following,
    rows: BTreeMap<i64, u32>,
    begun: u32,
}

impl Known {
    async fn new(table: &LakeTable) -> Self {
        let following = table.follow().await.unwrap();
        let mut rows = BTreeMap::new();
        for n in queried(Arc::clone(&following.snapshot)).await {
            *rows.entry(n).or_default() += 1;
        }
        Self { following, rows, begun: 1 }
    }

    async fn catch_up(&mut self, table: &LakeTable) -> Vec<i64> {
        table.look().await.unwrap();
        while let Some(change) = self.following.next() {
            let batches = match change {
                TableChange::Rows(rows) => vec![rows],
                TableChange::Files(added) => table.read_added(&added).await.unwrap(),
                TableChange::Anew => {
                    *self = Self { begun: self.begun + 1, ..Self::new(table).await };
                    continue;
                }
            };
            for n in batches.iter().flat_map(numbers) {
                *self.rows.entry(n).or_default() += 1;
            }
        }
        self.rows.iter().flat_map(|(n, count)| std::iter::repeat_n(*n, *count as usize)).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_knows_what_a_query_sees() {
    let folder = tempfile::tempdir().unwrap();
    let (_lake, table) = open(folder.path()).await;
    let (_other_lake, other) = open(folder.path()).await;
    table.add_fresh("p/s", rows(&[1, 2])).await.unwrap();
    table.commit("p/s", 2, WriteMode::Append).await.unwrap();
    table.add_fresh("p/s", rows(&[3])).await.unwrap();
    let mut known = Known::new(&table).await;
    macro_rules! same {
        ($begun:expr) => {
            let expected = queried(table.provider().await.unwrap()).await;
            assert_eq!(known.catch_up(&table).await, expected);
            assert_eq!(known.begun, $begun, "how often it began anew");
        };
    }
    same!(1);
    // Fresh, committed, fresh again: each row once.
    table.add_fresh("p/s", rows(&[4])).await.unwrap();
    same!(1);
    table.commit("p/s", 4, WriteMode::Append).await.unwrap();
    table.add_fresh("p/s", rows(&[5])).await.unwrap();
    table.add_fresh("q/s", rows(&[50])).await.unwrap();
    same!(1);
    // Another process.
    other.add_fresh("o/s", rows(&[100, 101])).await.unwrap();
    same!(1);
    other.commit("o/s", 101, WriteMode::Append).await.unwrap();
    same!(1);
    // Its version is noticed within a commit of ours.
    other.add_fresh("o/s", rows(&[102])).await.unwrap();
    other.commit("o/s", 102, WriteMode::Append).await.unwrap();
    table.commit("p/s", 5, WriteMode::Append).await.unwrap();
    table.commit("q/s", 50, WriteMode::Append).await.unwrap();
    same!(1);
    // Rows that move are not told.
    assert!(table.compact(CompactOptions::default()).await.unwrap().commits > 0);
    same!(1);
    // Rows that go, columns that change, rows that take the place of all.
    let gone: Sequences = [4].into_iter().collect();
    let come = table.stage("p/s", rows(&[40])).await.unwrap();
    table.revise(Revision { writer: "p/s", gone: &gone, come: &come, key: "k" }).await.unwrap();
    same!(2);
    let widen = vec![(SEQUENCE.to_owned(), DataType::Decimal128(20, 0))];
    table.evolve(&Evolution { widen, ..Evolution::default() }).await.unwrap();
    same!(3);
    table.add_fresh("files/s", rows(&[7, 8])).await.unwrap();
    table.commit("files/s", 1000, WriteMode::Replace).await.unwrap();
    same!(4);
    table.add_fresh("files/s", rows(&[9])).await.unwrap();
    same!(4);
    table.commit("files/s", 1001, WriteMode::Replace).await.unwrap();
    same!(5);
    assert_eq!(queried(table.provider().await.unwrap()).await, [9]);
}
