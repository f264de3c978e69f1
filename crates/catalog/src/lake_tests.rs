//! Definitions, rules, guard and lineage over a lake.

use std::sync::Arc;

use arrow::array::{Array, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use twinlake_contracts::{
    RowGuard as _, TableName, TableSpec, TableStore as _, WriteMode, now_us, timestamp_type,
};
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, SessionSettings};

use crate::{Catalog, Guard, Judged, LineageEdge, Origin, QualityResult};

const DEFINITION: &str = r#"
table = "plant.reading"
description = "Readings of the plant."
owner = "plant team"
tags = ["plant"]
keys = [["id", "ts"]]
[freshness]
column = "ts"
promise = "1h"
[columns.value]
unit = "°C"
personal = "home_location"
[[quality]]
rule = "not_null"
columns = ["id"]
severity = "reject"
[[quality]]
rule = "range"
column = "value"
min = 0
max = 100
severity = "reject"
[[quality]]
rule = "pattern"
column = "id"
pattern = "[a-z]+"
[[quality]]
rule = "unique"
columns = ["id", "ts"]
severity = "stop"
[[quality]]
rule = "referential"
columns = ["id"]
table = "plant.sensor"
[[quality]]
rule = "freshness"
[[quality]]
rule = "drift"
column = "value"
tolerance = 0.1
[[quality]]
rule = "sql"
name = "not hot"
query = "SELECT * FROM plant.reading WHERE value > 90"
"#;

struct Plant {
    _folder: tempfile::TempDir,
    engine: Arc<Engine>,
    catalog: Arc<Catalog>,
}

fn rows(readings: &[(Option<&str>, i64, f64)]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("ts", timestamp_type(), true),
        Field::new("value", DataType::Float64, true),
    ]);
    let times = TimestampMicrosecondArray::from_iter_values(readings.iter().map(|reading| reading.1))
        .with_timezone("UTC");
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(readings.iter().map(|reading| reading.0).collect::<StringArray>()),
            Arc::new(times),
            Arc::new(Float64Array::from_iter_values(readings.iter().map(|reading| reading.2))),
        ],
    )
    .unwrap()
}

async fn write(lake: &Arc<Lake>, name: &str, rows: RecordBatch, sequence: u64) {
    let spec = TableSpec {
        name: TableName::parse(name).unwrap(),
        schema: rows.schema(),
        description: String::new(),
    };
    let table = lake.open_table(spec).await.unwrap();
    table.add_fresh("test", rows).await.unwrap();
    table.commit("test", sequence, WriteMode::Append).await.unwrap();
}

async fn plant(readings: &[(Option<&str>, i64, f64)]) -> Plant {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
    write(&lake, "plant.reading", rows(readings), 1).await;
    write(&lake, "plant.sensor", rows(&[(Some("a"), 0, 0.0), (Some("b"), 0, 0.0)]), 1).await;
    let engine = Engine::new(lake);
    let catalog =
        Catalog::load(&engine, vec![("reading.toml".into(), DEFINITION.into())], Origin::Own).unwrap();
    Plant { _folder: folder, engine, catalog }
}

impl Plant {
    async fn check(&self) -> Vec<QualityResult> {
        let results = self.catalog.check(&[]).await.unwrap();
        let judged = Judged { run_id: "check", at_us: now_us(), by: "check", pipeline: None };
        self.catalog.record_quality(&results, &judged).await.unwrap();
        results
    }

    async fn text(&self, sql: &str) -> String {
        let session = self.engine.session(SessionSettings::default()).unwrap();
        let found = session.collect(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let mut lines = Vec::new();
        for batch in &found {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| {
                    if column.is_null(row) {
                        String::new()
                    } else {
                        arrow::util::display::array_value_to_string(column, row).unwrap()
                    }
                });
                lines.push(cells.collect::<Vec<_>>().join("|"));
            }
        }
        lines.join("\n")
    }
}

fn failing(results: &[QualityResult]) -> Vec<&str> {
    results.iter().filter(|result| !result.passed).map(|result| result.rule.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rule_holds_and_fails() {
    let now = now_us();
    let good = plant(&[(Some("a"), now, 20.0), (Some("b"), now, 22.0)]).await;
    let results = good.check().await;
    assert_eq!((results.len(), failing(&results)), (8, vec![]), "{results:?}");

    let old = now - 7_200_000_000;
    let bad = plant(&[
        (None, old, 95.0),
        (Some("c"), old, -1.0),
        (Some("A1"), old, 7.0),
        (Some("a"), old, 3.0),
        (Some("a"), old, 3.0),
    ])
    .await;
    let results = bad.check().await;
    let expected = [
        "not_null:id",
        "range:value",
        "pattern:id",
        "unique:id,ts",
        "referential:id",
        "freshness",
        "not hot",
    ];
    assert_eq!(failing(&results), expected, "{results:?}");
    let failed: Vec<i64> =
        results.iter().filter(|result| !result.passed).map(|result| result.rows_failed).collect();
    assert_eq!(failed, [1, 1, 1, 1, 2, 0, 1]);
    assert!(results.iter().any(QualityResult::stops));
    let sample = results[3].sample.as_deref().unwrap();
    assert!(sample.contains(r#""rows":2"#), "{sample}");
    assert_eq!(
        bad.text("SELECT count(*) FROM meta.quality WHERE NOT passed AND checked_by = 'check'").await,
        "7"
    );
    let error =
        bad.catalog.check(&[TableName::parse("plant.readin").unwrap()]).await.unwrap_err().to_string();
    assert!(error.contains("did you mean 'plant.reading'?"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_measured_against_results_that_held() {
    let now = now_us();
    let plant = plant(&[(Some("a"), now, 20.0)]).await;
    let drift = |results: &[QualityResult]| {
        let found = results.iter().find(|result| result.kind == "drift").unwrap().clone();
        (found.passed, found.value, found.threshold)
    };
    assert_eq!(drift(&plant.check().await), (true, Some(20.0), None));
    assert_eq!(drift(&plant.check().await), (true, Some(20.0), Some(20.0)));
    write(plant.engine.lake(), "plant.reading", rows(&[(Some("b"), now, 60.0)]), 2).await;
    assert_eq!(drift(&plant.check().await), (false, Some(40.0), Some(20.0)));
    // What did not hold is no measure for the next.
    assert_eq!(drift(&plant.check().await), (false, Some(40.0), Some(20.0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datasets_and_columns_say_what_the_definition_says() {
    let plant = plant(&[(Some("a"), now_us() - 60_000_000, 20.0)]).await;
    assert_eq!(
        plant.text("SELECT owner, tags, keys, freshness_promise_s, fresh, freshness_s BETWEEN 59 AND 90, description FROM meta.datasets WHERE name = 'plant.reading'").await,
        r#"plant team|["plant"]|[["id","ts"]]|3600|true|true|Readings of the plant."#
    );
    assert_eq!(
        plant.text("SELECT column_name, position, type, unit, \"key\", personal FROM meta.columns WHERE table_name = 'plant.reading' ORDER BY 2").await,
        "id|1|Utf8||true|\nts|2|Timestamp(µs, \"UTC\")||true|\nvalue|3|Float64|°C|false|home_location"
    );
    plant.catalog.record_definitions().await.unwrap();
    plant.catalog.record_definitions().await.unwrap();
    assert_eq!(
        plant.text("SELECT table_name, owner FROM meta.definitions").await,
        "plant.reading|plant team"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_rejects_counts_and_stops() {
    let plant = plant(&[(Some("a"), now_us(), 20.0)]).await;
    let name = TableName::parse("plant.reading").unwrap();
    let batch = rows(&[(Some("a"), 1, 5.0), (None, 2, 500.0), (Some("a"), 3, f64::NAN), (Some("A"), 4, 6.0)]);
    let spec = TableSpec { name: name.clone(), schema: batch.schema(), description: String::new() };
    let guard = Guard::new(&plant.catalog, Arc::clone(&plant.engine) as _, [&spec]).await.unwrap().unwrap();
    let whole = guard.judge(&name, &batch).await.unwrap().rejects;
    let told: Vec<(u32, &str)> = whole.0.iter().map(|reject| (reject.index, &*reject.reason)).collect();
    assert_eq!(told, [(1, "quality"), (2, "quality")]);
    assert!(whole.0[0].detail.contains("not_null:id"), "{}", whole.0[0].detail);
    // However the rows are cut, the same ones are refused.
    let mut cut = Vec::new();
    for row in 0..4 {
        let rejects = guard.judge(&name, &batch.slice(row, 1)).await.unwrap().rejects;
        cut.extend(rejects.0.into_iter().map(|reject| reject.index + row as u32));
    }
    assert_eq!(cut, [1, 2]);
    let results = guard.results();
    let count = |rule: &str| {
        let found = results.iter().find(|result| result.rule == rule).unwrap();
        (found.rows_checked, found.rows_failed)
    };
    assert_eq!((count("not_null:id"), count("range:value"), count("pattern:id")), ((8, 2), (8, 4), (8, 2)));
    // A table that is replaced is judged as a whole before the commit.
    let error = guard
        .judge_all(&[(name.clone(), vec![rows(&[(Some("a"), 1, 1.0), (Some("a"), 1, 2.0)])])])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("'unique:id,ts' stops the pipeline: 1 of 2 rows"), "{error}");
    assert!(
        guard.judge_all(&[(name, vec![rows(&[(Some("a"), 1, 1.0), (Some("a"), 2, 2.0)])])]).await.is_ok()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_does_not_fit_is_a_mistake_unless_it_was_shipped() {
    let other = Schema::new(vec![Field::new("id", DataType::Utf8, true)]);
    let name = TableName::parse("plant.reading").unwrap();
    let spec = TableSpec { name, schema: Arc::new(other), description: String::new() };
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default());
    let engine = Engine::new(lake.await.unwrap());
    for (origin, refused) in [(Origin::Own, true), (Origin::Shipped, false)] {
        let files = vec![("reading.toml".into(), DEFINITION.into())];
        let catalog = Catalog::load(&engine, files, origin).unwrap();
        let guard = Guard::new(&catalog, Arc::clone(&engine) as _, [&spec]).await;
        assert_eq!(guard.is_err(), refused, "{guard:?}");
        assert!(refused || guard.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lineage_is_recorded_when_it_changes() {
    let plant = plant(&[(Some("a"), 1, 1.0)]).await;
    let edge = |input: &str| LineageEdge {
        pipeline: "p".into(),
        step: "s".into(),
        kind: "sql".into(),
        input: input.into(),
        output: "t.b".into(),
        input_column: Some("x".into()),
        output_column: Some("y".into()),
        dependency: Some("direct".into()),
        expression: None,
    };
    for _ in 0..2 {
        plant.catalog.record_lineage(&[edge("t.a"), edge("t.c")]).await.unwrap();
    }
    assert_eq!(plant.text("SELECT count(*) FROM meta.lineage").await, "2");
    plant.catalog.record_lineage(&[edge("t.a")]).await.unwrap();
    assert_eq!(plant.text("SELECT count(*) FROM meta.lineage").await, "3");
    let now = plant.catalog.lineage().await.unwrap();
    assert_eq!(now.iter().map(|edge| edge.input.as_str()).collect::<Vec<_>>(), ["t.a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lineage_of_an_older_version_is_read_and_grown() {
    let plant = plant(&[(Some("a"), 1, 1.0)]).await;
    let fields = twinlake_query::lineage_schema().fields().iter().take(6).cloned().collect::<Vec<_>>();
    let texts = |value: &str| Arc::new(StringArray::from(vec![value])) as _;
    let time = TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC");
    let columns =
        vec![texts("old"), texts("s"), texts("sql"), texts("t.a"), texts("t.b"), Arc::new(time) as _];
    let older = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    plant.engine.lake().append_meta("meta.lineage", "", older).await.unwrap();
    assert_eq!(plant.catalog.lineage().await.unwrap()[0].pipeline, "old");
    let edge = LineageEdge {
        pipeline: "new".into(),
        input_column: Some("x".into()),
        ..plant.catalog.lineage().await.unwrap()[0].clone()
    };
    plant.catalog.record_lineage(&[edge]).await.unwrap();
    assert_eq!(plant.text("SELECT pipeline, input_column FROM meta.lineage ORDER BY 1").await, "new|x\nold|");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_profiled_through_a_session() {
    let plant = plant(&[(Some("a"), 1, 1.0), (Some("b"), 2, 2.0), (None, 3, 3.0)]).await;
    let session = plant.engine.session(SessionSettings::default()).unwrap();
    let found = crate::profile(&session, "plant.reading", "plant.reading", Some(2), None).await.unwrap();
    assert_eq!((found.rows, found.complete), (2, false));
    let found = crate::profile(&session, "plant.reading", "plant.reading", None, None).await.unwrap();
    assert_eq!((found.rows, found.complete, found.columns[0].nulls), (3, true, 1));
}
