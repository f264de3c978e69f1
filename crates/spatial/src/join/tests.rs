//! The operator against nested loops: the same rows, whatever the join, the geometry and the batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use twinlake_contracts::{CRS84, geometry_field, timestamp_type};

use super::testing::{Random, geometry, geometry_of};
use crate::encode;

/// `id`, `geom`, `reach`, `weight`, `ts`, `until`; nulls in all but `id`.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        geometry_field("geom", CRS84, true),
        Field::new("reach", DataType::Float64, true),
        Field::new("weight", DataType::Int64, true),
        Field::new("ts", timestamp_type(), true),
        Field::new("until", timestamp_type(), true),
    ]))
}

fn rows(random: &mut Random, count: usize, points: bool, first_id: i64) -> RecordBatch {
    let null = |random: &mut Random| random.next() < 0.05;
    let geom: BinaryArray = (0..count)
        .map(|_| {
            let shape = if points { geometry_of(random, 0) } else { geometry(random) };
            (!null(random)).then(|| encode(&shape))
        })
        .collect();
    let reach: Float64Array =
        (0..count).map(|_| (!null(random)).then(|| random.below(5) as f64 - 0.5)).collect();
    let weight: Int64Array = (0..count).map(|_| (!null(random)).then(|| random.below(10) as i64)).collect();
    let at = |random: &mut Random| 1_700_000_000_000_000 + 1_000_000 * random.below(60) as i64;
    let ts: Vec<Option<i64>> = (0..count).map(|_| (!null(random)).then(|| at(random))).collect();
    let until: Vec<Option<i64>> =
        ts.iter().map(|ts| ts.map(|ts| ts + 1_000_000 * random.below(20) as i64)).collect();
    let utc = |values: Vec<Option<i64>>| TimestampMicrosecondArray::from(values).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new((first_id..first_id + count as i64).collect::<Int64Array>()),
        Arc::new(geom),
        Arc::new(reach),
        Arc::new(weight),
        Arc::new(utc(ts)),
        Arc::new(utc(until)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// A table in several partitions of several batches.
fn table(random: &mut Random, counts: &[&[usize]], points: bool) -> Arc<MemTable> {
    let mut next = 0;
    let partitions = counts
        .iter()
        .map(|counts| {
            counts
                .iter()
                .map(|count| {
                    next += *count as i64;
                    rows(random, *count, points, next - *count as i64)
                })
                .collect()
        })
        .collect();
    Arc::new(MemTable::try_new(schema(), partitions).unwrap())
}

struct Setting {
    rule: bool,
    batch_size: usize,
    partitions: usize,
    memory: Option<usize>,
}

fn session(tables: &[(&str, &Arc<MemTable>)], setting: &Setting) -> SessionContext {
    let config =
        SessionConfig::new().with_batch_size(setting.batch_size).with_target_partitions(setting.partitions);
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(memory) = setting.memory {
        runtime = runtime.with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)));
    }
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime.build_arc().unwrap())
        .with_default_features();
    if setting.rule {
        state = state.with_physical_optimizer_rules(super::physical_optimizer_rules());
        state = state.with_analyzer_rule(Arc::new(super::LateralNearest));
    }
    let context = SessionContext::new_with_state(state.build());
    crate::register(&context).unwrap();
    for (name, table) in tables {
        context.register_table(*name, Arc::clone(table) as _).unwrap();
    }
    context
}

async fn ask(context: &SessionContext, sql: &str) -> Vec<String> {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut lines = lines(&batches);
    lines.sort();
    lines
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("-");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| arrow::util::display::ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(cells.join("|"));
        }
    }
    lines
}

async fn plan(context: &SessionContext, sql: &str) -> String {
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

/// What the operator gives against what nested loops give, for small and large batches and several partitions.
async fn same(tables: &[(&str, &Arc<MemTable>)], sql: &str) {
    let off = session(tables, &Setting { rule: false, batch_size: 8192, partitions: 1, memory: None });
    let expected = ask(&off, sql).await;
    assert!(!plan(&off, sql).await.contains("SpatialJoinExec"));
    for (batch_size, partitions) in [(8192, 1), (3, 4), (64, 3)] {
        let on = session(tables, &Setting { rule: true, batch_size, partitions, memory: None });
        let planned = plan(&on, sql).await;
        assert!(planned.contains("SpatialJoinExec"), "{sql}\n{planned}");
        assert_eq!(ask(&on, sql).await, expected, "{sql}\n{planned}");
    }
}

const CONDITIONS: &[&str] = &[
    "st_intersects(a.geom, b.geom)",
    "st_intersects(b.geom, a.geom) AND a.weight < b.weight",
    "st_contains(a.geom, b.geom)",
    "st_within(a.geom, b.geom)",
    "st_covers(a.geom, b.geom) AND a.id <> b.id",
    "st_coveredby(a.geom, b.geom)",
    "st_touches(a.geom, b.geom)",
    "st_overlaps(a.geom, b.geom) AND a.id > b.id",
    "st_crosses(b.geom, a.geom)",
    "st_equals(a.geom, b.geom)",
    "st_dfullywithin(a.geom, b.geom, 3)",
    "st_dwithin(a.geom, b.geom, 1)",
    "st_dwithin(a.geom, b.geom, a.reach)",
    "st_dwithin(b.geom, a.geom, b.reach)",
    "st_dwithin(a.geom, b.geom, b.reach + 0.5) AND st_intersects(a.geom, b.geom)",
    "st_distance(a.geom, b.geom) < 1",
    "st_distance(a.geom, b.geom) <= 1 AND a.weight + b.weight > 9",
    "2 > st_distance(b.geom, a.geom)",
    "st_dwithin_sphere(a.geom, b.geom, 120000)",
    "st_dwithin_sphere(a.geom, b.geom, a.reach * 100000)",
    "st_distancesphere(a.geom, b.geom) < 120000",
    "st_distancespheroid(a.geom, b.geom) < 120000",
];

/// Both ways round, so that points meet polygons on either side.
async fn joins_agree(seed: u64, points: bool) {
    let mut random = Random::new(seed);
    let a = table(&mut random, &[&[20, 1], &[0, 13], &[9]], false);
    let b = table(&mut random, &[&[15, 15], &[14]], points);
    let tables = [("a", &a), ("b", &b)];
    for (number, on) in CONDITIONS.iter().enumerate() {
        // Every condition with every join would take minutes: each is met by half of the kinds of joins.
        let joins = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
        for join in joins.iter().skip(number % 2).step_by(2) {
            same(&tables, &format!("SELECT a.id, b.id, b.weight FROM a {join} b ON {on}")).await;
        }
        let exists = ["EXISTS", "NOT EXISTS"][number % 2];
        same(&tables, &format!("SELECT a.* FROM a WHERE {exists} (SELECT 1 FROM b WHERE {on})")).await;
        let exists = ["NOT EXISTS", "EXISTS"][number % 2];
        same(&tables, &format!("SELECT b.id FROM b WHERE {exists} (SELECT 1 FROM a WHERE {on})")).await;
    }
    let on = "st_intersects(a.geom, b.geom)";
    for sql in [
        format!("SELECT count(*) FROM a, b WHERE {on}"),
        format!("SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE {on}) OR a.weight > 7"),
        format!("SELECT b.id FROM b WHERE NOT EXISTS (SELECT 1 FROM a WHERE {on}) OR b.weight > 5"),
        format!("SELECT a.id, c.id FROM a JOIN b ON {on} LEFT JOIN b AS c ON st_dwithin(b.geom, c.geom, 1)"),
        format!("SELECT a.id + b.id AS both, b.geom FROM a LEFT JOIN b ON {on} AND a.ts < b.ts"),
    ] {
        same(&tables, &sql).await;
    }
}

#[tokio::test]
async fn every_join_agrees_with_nested_loops() {
    joins_agree(1, false).await;
}

#[tokio::test]
async fn every_join_agrees_with_nested_loops_for_points() {
    joins_agree(2, true).await;
}

#[tokio::test]
async fn every_type_meets_every_type_as_in_nested_loops() {
    let mut random = Random::new(31);
    for _ in 0..3 {
        let a = table(&mut random, &[&[70], &[50]], false);
        let b = table(&mut random, &[&[100]], false);
        for on in
            ["st_intersects(a.geom, b.geom)", "st_within(a.geom, b.geom)", "st_dwithin(a.geom, b.geom, 1.5)"]
        {
            same(&[("a", &a), ("b", &b)], &format!("SELECT a.id, b.id FROM a FULL JOIN b ON {on}")).await;
        }
    }
}

#[tokio::test]
async fn space_and_time_together() {
    let mut random = Random::new(41);
    let a = table(&mut random, &[&[60], &[40]], false);
    let b = table(&mut random, &[&[60], &[30]], true);
    let tables = [("a", &a), ("b", &b)];
    let near = "st_dwithin(a.geom, b.geom, 1)";
    for window in [
        "a.ts BETWEEN b.ts - INTERVAL '3 seconds' AND b.ts + INTERVAL '3 seconds'",
        "b.ts >= a.ts - INTERVAL '5 seconds' AND b.ts <= a.ts",
        "a.ts > b.ts - INTERVAL '2 seconds' AND a.ts < b.ts + INTERVAL '2 seconds' AND a.weight < 7",
        "a.ts <= b.until AND a.until >= b.ts",
        "a.weight BETWEEN b.weight - 1 AND b.weight + 1",
        "abs(a.reach - b.reach) <= 1.0",
        "a.reach - b.reach <= 1.0 AND b.reach - a.reach < 1.0",
    ] {
        let on = format!("{near} AND {window}");
        let context = session(&tables, &Setting { rule: true, batch_size: 100, partitions: 2, memory: None });
        let sql = format!("SELECT a.id, b.id FROM a JOIN b ON {on}");
        let planned = plan(&context, &sql).await;
        assert!(planned.contains(", window="), "{window}\n{planned}");
        for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
            same(&tables, &format!("SELECT a.id, b.id FROM a {join} b ON {on}")).await;
        }
    }
}

#[tokio::test]
async fn explain_tells_the_operator_its_condition_and_what_it_did() {
    let mut random = Random::new(51);
    let a = table(&mut random, &[&[50]], false);
    let b = table(&mut random, &[&[500]], true);
    let context = session(
        &[("a", &a), ("b", &b)],
        &Setting { rule: true, batch_size: 100, partitions: 2, memory: None },
    );
    let sql = "SELECT b.id FROM b JOIN a ON st_within(b.geom, a.geom) AND a.weight <> b.weight";
    let planned = plan(&context, sql).await;
    let line = planned.lines().find(|line| line.contains("SpatialJoinExec")).unwrap();
    assert!(line.contains("join_type=Inner, on=st_within(geom@"), "{planned}");
    assert!(line.contains("index=left"), "{planned}");
    assert!(line.contains("filter=weight@"), "{planned}");
    // The smaller side is indexed.
    let analyzed =
        lines(&context.sql(&format!("EXPLAIN ANALYZE {sql}")).await.unwrap().collect().await.unwrap())
            .join("\n");
    for part in ["build_rows=50", "probe_rows=500", "candidates=", "matches=", "index_time=", "join_time="] {
        assert!(analyzed.contains(part), "{part}\n{analyzed}");
    }
}

#[tokio::test]
async fn the_nearest_are_those_of_a_window() {
    let mut random = Random::new(61);
    let a = table(&mut random, &[&[30], &[25, 3]], true);
    let b = table(&mut random, &[&[40], &[20]], false);
    let tables = [("a", &a), ("b", &b)];
    for (knn, distance) in [("st_knn", "st_distance"), ("st_knn_sphere", "st_distancesphere")] {
        for count in [1, 4, 100] {
            // Equal distances are in no set order, so distances are compared.
            let all = format!("SELECT a.id, {distance}(a.geom, b.geom) AS d FROM a, b");
            let expected = format!(
                "SELECT id, d FROM (SELECT id, d, row_number() OVER (PARTITION BY id ORDER BY d) AS n \
                 FROM ({all}) AS t WHERE d IS NOT NULL) AS u WHERE n <= {count}"
            );
            let off =
                session(&tables, &Setting { rule: false, batch_size: 8192, partitions: 1, memory: None });
            let expected = ask(&off, &expected).await;
            for (from, batch_size) in [
                (format!("a JOIN b ON {knn}(a.geom, b.geom, {count})"), 8192),
                (format!("b JOIN a ON {knn}(a.geom, b.geom, {count})"), 7),
                (format!("a LEFT JOIN b ON {knn}(a.geom, b.geom, {count})"), 7),
            ] {
                let on = session(&tables, &Setting { rule: true, batch_size, partitions: 3, memory: None });
                let sql = format!(
                    "SELECT a.id, {distance}(a.geom, b.geom) AS d FROM {from} WHERE b.id IS NOT NULL"
                );
                assert_eq!(ask(&on, &sql).await, expected, "{sql}");
            }
        }
    }
    let on = session(&tables, &Setting { rule: true, batch_size: 100, partitions: 2, memory: None });
    // All rows of a come out of a left join, also those without a place.
    let count = ask(&on, "SELECT count(DISTINCT a.id) FROM a LEFT JOIN b ON st_knn(a.geom, b.geom, 2)").await;
    assert_eq!(count, ["58"]);
    // A condition on b narrows what is searched, one on both what was found.
    let narrowed = "SELECT count(*) FROM a JOIN b ON st_knn(a.geom, b.geom, 2) AND b.weight < 5 WHERE a.geom IS NOT NULL";
    let places = ask(&on, "SELECT 2 * count(a.geom) FROM a").await;
    assert_eq!(ask(&on, narrowed).await, places);
    let checked = "SELECT count(*) FROM a JOIN b ON st_knn(a.geom, b.geom, 2) AND a.weight < b.weight";
    assert!(ask(&on, checked).await[0].parse::<i64>().unwrap() < places[0].parse().unwrap());
}

#[tokio::test]
async fn a_build_side_beyond_memory_goes_to_disk_and_gives_the_same() {
    let mut random = Random::new(81);
    let a = table(&mut random, &[&[60, 60], &[40, 17]], false);
    let b = table(&mut random, &[&[50, 40], &[60]], false);
    let tables = [("a", &a), ("b", &b)];
    let conditions = [
        "st_intersects(a.geom, b.geom) AND a.weight < b.weight",
        "st_dwithin_sphere(a.geom, b.geom, a.reach * 100000)",
        "st_dwithin(a.geom, b.geom, 1) AND a.ts <= b.until AND a.until >= b.ts",
    ];
    let questions = [
        "SELECT a.id, b.id, a.geom FROM a JOIN b ON",
        "SELECT a.id, b.id FROM a FULL JOIN b ON",
        "SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE",
        "SELECT a.id FROM a WHERE a.weight > 7 OR EXISTS (SELECT 1 FROM b WHERE",
        "SELECT b.id FROM b WHERE NOT EXISTS (SELECT 1 FROM a WHERE",
    ];
    for (number, question) in questions.into_iter().enumerate() {
        let end = if question.contains("EXISTS") { ")" } else { "" };
        let sql = format!("{question} {}{end}", conditions[number % conditions.len()]);
        let off = session(&tables, &Setting { rule: false, batch_size: 8192, partitions: 1, memory: None });
        let expected = ask(&off, &sql).await;
        let setting = Setting { rule: true, batch_size: 64, partitions: 3, memory: Some(40_000) };
        let on = session(&tables, &setting);
        assert_eq!(ask(&on, &sql).await, expected, "{sql}");
        let analyzed = on.sql(&format!("EXPLAIN ANALYZE {sql}")).await.unwrap().collect().await.unwrap();
        let analyzed = lines(&analyzed).join("\n");
        let line = analyzed.lines().find(|line| line.contains("SpatialJoinExec")).unwrap();
        assert!(!line.contains("spill_count=0"), "{line}");
    }
}

#[tokio::test]
async fn a_searched_side_beyond_memory_goes_to_disk_and_gives_the_same() {
    let mut random = Random::new(82);
    let a = table(&mut random, &[&[60, 60], &[40, 17]], true);
    let b = table(&mut random, &[&[90, 40, 70], &[160]], true);
    let tables = [("a", &a), ("b", &b)];
    let questions = [
        "SELECT a.id, st_distance(a.geom, b.geom) FROM a JOIN b ON st_knn(a.geom, b.geom, 3)",
        "SELECT a.id, st_distancesphere(a.geom, b.geom) FROM a LEFT JOIN b ON st_knn_sphere(a.geom, b.geom, 1)",
        "SELECT a.id, st_distance(a.geom, b.geom) FROM a JOIN b ON st_knn(a.geom, b.geom, 9)",
        "SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE st_knn(a.geom, b.geom, 2))",
        "SELECT a.id, st_distance(a.geom, b.geom) FROM b FULL JOIN a ON st_knn(a.geom, b.geom, 1) WHERE a.id > 0",
        "SELECT DISTINCT b.id FROM b FULL JOIN a ON st_knn(a.geom, b.geom, 1)",
        "SELECT a.id, t.d FROM a CROSS JOIN LATERAL (SELECT st_distance(a.geom, b.geom) AS d FROM b \
         ORDER BY st_distance(a.geom, b.geom) LIMIT 5) AS t",
    ];
    for sql in questions {
        let whole = session(&tables, &Setting { rule: true, batch_size: 8192, partitions: 1, memory: None });
        let expected = ask(&whole, sql).await;
        assert!(expected.len() > 20, "{sql}: {}", expected.len());
        let setting = Setting { rule: true, batch_size: 64, partitions: 3, memory: Some(40_000) };
        let on = session(&tables, &setting);
        assert_eq!(ask(&on, sql).await, expected, "{sql}");
    }
    let on = session(&tables, &Setting { rule: true, batch_size: 64, partitions: 1, memory: Some(40_000) });
    let sql = format!("EXPLAIN ANALYZE {}", questions[0]);
    let analyzed = on.sql(&sql).await.unwrap().collect().await.unwrap();
    let analyzed = lines(&analyzed).join("\n");
    let line = analyzed.lines().find(|line| line.contains("SpatialJoinExec")).unwrap();
    assert!(!line.contains("spill_count=0"), "{line}");
}
