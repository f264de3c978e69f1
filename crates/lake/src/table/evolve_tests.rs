//! Columns renamed and widened while writers of this and of another process go on.

use arrow::array::{ArrayRef, Float32Array, Int32Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use twinlake_contracts::{SEQUENCE, TableSpec};

use super::*;
use crate::{Evolution, Lake, LakeOptions};

const NAME: &str = "test.readings";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int32, true),
        Field::new("speed", DataType::Float32, true),
        Field::new(SEQUENCE, DataType::Int64, true),
    ]))
}

fn rows(values: &[i32]) -> RecordBatch {
    let columns: [ArrayRef; 3] = [
        Arc::new(Int32Array::from(values.to_vec())),
        Arc::new(values.iter().map(|n| *n as f32 / 2.0).collect::<Float32Array>()),
        Arc::new(values.iter().map(|n| i64::from(*n)).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema(), columns.to_vec()).unwrap()
}

async fn open(folder: &std::path::Path) -> (Arc<Lake>, Arc<LakeTable>) {
    let lake = Lake::open(folder.to_str().unwrap(), LakeOptions::default()).await.unwrap();
    let spec =
        TableSpec { name: TableName::parse(NAME).unwrap(), schema: schema(), description: String::new() };
    let table = lake.open_lake_table(spec).await.unwrap();
    (lake, table)
}

/// What a query gives, a line a row.
async fn seen(provider: Arc<dyn TableProvider>, sql: &str) -> Vec<String> {
    let context = SessionContext::new();
    context.register_table("t", provider).unwrap();
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    let line = |batch: &RecordBatch, row| {
        let value = |column: &ArrayRef| arrow::util::display::array_value_to_string(column, row).unwrap();
        batch.columns().iter().map(value).collect::<Vec<_>>().join(" ")
    };
    batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(|row| line(batch, row)).collect::<Vec<_>>())
        .collect()
}

fn evolution() -> Evolution {
    Evolution {
        rename: vec![("speed".to_owned(), "speed_mps".to_owned())],
        widen: vec![("n".to_owned(), DataType::Int64), ("speed_mps".to_owned(), DataType::Float64)],
        forget: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_go_on_under_old_names_and_old_versions_keep_their_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (_lake, table) = open(folder.path()).await;
    // What another process would be: it knows the table as it was.
    let (_other_lake, other) = open(folder.path()).await;
    table.add_fresh("p/s", rows(&[1, 2])).await.unwrap();
    let before = table.commit("p/s", 2, WriteMode::Append).await.unwrap();
    table.add_fresh("p/s", rows(&[3])).await.unwrap();
    other.add_fresh("q/s", rows(&[4])).await.unwrap();
    let staged = table.stage("p/s", rows(&[20])).await.unwrap();

    let evolved = table.evolve(&evolution()).await.unwrap();
    assert_eq!((evolved.files, evolved.rows), (1, 2));
    let all = "SELECT n, speed_mps FROM t ORDER BY n";
    assert_eq!(seen(table.provider().await.unwrap(), all).await, ["1 0.5", "2 1.0", "3 1.5"]);
    let types: Vec<String> =
        table.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "Float64", "Int64"]);

    // The row that waited, one under the old name, and the one of the other process all land.
    table.commit("p/s", 3, WriteMode::Append).await.unwrap();
    table.add_fresh("p/s", rows(&[5])).await.unwrap();
    table.commit("p/s", 5, WriteMode::Append).await.unwrap();
    other.commit("q/s", 4, WriteMode::Append).await.unwrap();
    let five = ["1 0.5", "2 1.0", "3 1.5", "4 2.0", "5 2.5"];
    assert_eq!(seen(table.provider().await.unwrap(), all).await, five);
    assert_eq!(seen(other.provider().await.unwrap(), all).await, five);
    let past = table.provider_at_version(before).await.unwrap();
    assert_eq!(seen(past, "SELECT n, speed FROM t ORDER BY n").await, ["1 0.5", "2 1.0"]);

    // A writer that opens it with the old name finds it fitting, and no column comes back.
    let (_third_lake, third) = open(folder.path()).await;
    assert_eq!(third.schema().fields().len(), 3);
    assert_eq!(table.evolve(&Evolution::default()).await.unwrap().files, 0);

    let gone: Sequences = [2].into_iter().collect();
    let revision = Revision { writer: "p/s", gone: &gone, come: &staged, key: "k" };
    let error = table.revise(revision).await.unwrap_err().to_string();
    assert!(error.contains("have changed since its new rows were computed"), "{error}");
    assert_eq!(seen(table.provider().await.unwrap(), all).await, five);

    // Compaction moves the rows with their columns; going back brings the old columns back.
    table.compact(CompactOptions::default()).await.unwrap();
    assert_eq!(seen(table.provider().await.unwrap(), all).await, five);
    table.restore(before).await.unwrap();
    let old = "SELECT n, speed FROM t ORDER BY n";
    assert_eq!(seen(table.provider().await.unwrap(), old).await, ["1 0.5", "2 1.0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_let_go_of_can_be_a_new_column() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, table) = open(folder.path()).await;
    table.add_fresh("p/s", rows(&[1])).await.unwrap();
    table.commit("p/s", 1, WriteMode::Append).await.unwrap();
    table.evolve(&evolution()).await.unwrap();
    let forget = Evolution { forget: vec!["speed".to_owned()], ..Evolution::default() };
    assert_eq!(table.evolve(&forget).await.unwrap().files, 0, "no file is touched");
    let spec =
        TableSpec { name: TableName::parse(NAME).unwrap(), schema: schema(), description: String::new() };
    lake.open_lake_table(spec).await.unwrap();
    assert_eq!(
        seen(table.provider().await.unwrap(), "SELECT speed, speed_mps FROM t").await,
        [" 0.5"],
        "a new column, empty so far"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_break_a_constraint_stay_out_and_it_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (_lake, table) = open(folder.path()).await;
    table.add_fresh("p/s", rows(&[1, 2])).await.unwrap();
    let error = table.add_constraint("small", "n < 2").await.unwrap_err().to_string();
    assert!(error.contains("rows break it") && error.contains("small"), "fresh rows count: {error}");
    table.commit("p/s", 2, WriteMode::Append).await.unwrap();
    let error = table.add_constraint("small", "n < 2").await.unwrap_err().to_string();
    assert!(error.contains("rows break it"), "committed rows count: {error}");
    for (name, expression, part) in
        [("odd name", "n > 0", "not a word"), ("c", "n + 1", "not true or false"), ("c", "m > 0", "m")]
    {
        let error = table.add_constraint(name, expression).await.unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    table.add_constraint("small", "n<10 AND speed >= 0").await.unwrap();
    let version = table.version();
    table.add_constraint("small", "n < 10 AND speed>=0").await.unwrap();
    assert_eq!(table.version(), version, "the same once more");

    let (_lake, again) = open(folder.path()).await;
    for table in [&table, &again] {
        assert_eq!(table.constraints().keys().collect::<Vec<_>>(), ["small"]);
        let rejects = table.violations(&rows(&[3, 10, -4])).await.unwrap();
        let refused: Vec<u32> = rejects.0.iter().map(|reject| reject.index).collect();
        assert_eq!(refused, [1, 2]);
        let error = table.add_fresh("p/s", rows(&[3, 10])).await.unwrap_err().to_string();
        assert!(error.contains("'small'") && error.contains("1 of 2 rows"), "{error}");
        assert!(table.stage("p/s", rows(&[10])).await.is_err());
    }
    table.add_fresh("p/s", rows(&[3])).await.unwrap();
    table.commit("p/s", 3, WriteMode::Append).await.unwrap();
    let all = "SELECT n FROM t ORDER BY n";
    assert_eq!(seen(again.provider().await.unwrap(), all).await, ["1", "2", "3"]);
    let error = table.drop_constraint("smal").await.unwrap_err().to_string();
    assert!(error.contains("did you mean 'small'?"), "{error}");
    table.drop_constraint("small").await.unwrap();
    assert!(table.violations(&rows(&[10])).await.unwrap().0.is_empty());
}
