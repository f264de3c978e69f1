//! A fork costs its overrides: counted, not timed.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{BooleanArray, Float64Array, Int64Array, RecordBatch};
use datafusion::physical_plan::{ExecutionPlan, collect};

use super::City;
use super::plant::{reading, reading_rows};
use crate::scenario::{Override, Scenario};

const HOT: &str = r#"
name = "hot"
description = "Two machines run hot, one of them stopped."
[[overrides]]
twin = "machine"
rows = [
    { machine_id = 1, temperature_c = 99.5 },
    { machine_id = 3, temperature_c = 98, state = "running" },
    { machine_id = 77, temperature_c = 1.0 },
]
"#;

#[tokio::test]
async fn single_instances_are_set_by_key() {
    let city = City::plant().await;
    city.build_plant().await;
    city.twins.add_scenario("hot.toml", HOT).unwrap();
    let sql = "SELECT machine_id, temperature_c, state, origin, scenario FROM twin_at('machine', NULL, scenario => 'hot') ORDER BY 1";
    let expected = ["1 | 99.5 | running | simulated | hot", "3 | 98.0 | running | simulated | hot"];
    assert_eq!(city.ask(sql).await, expected);
    city.twins.keep_present().unwrap();
    assert_eq!(city.ask(sql).await, expected, "the present in memory is overridden as well");
    let diff = "SELECT id, property, a, b, change FROM scenario_diff('', 'hot') ORDER BY 1, 2";
    assert_eq!(
        city.ask(diff).await,
        [
            "1 | temperature_c | 48.0 | 99.5 | 51.5",
            "3 | state | stopped | running |",
            "3 | temperature_c | 20.0 | 98.0 | 78.0"
        ]
    );
    let told = "SELECT overrides FROM meta.scenarios WHERE name = 'hot'";
    assert!(city.ask(told).await[0].contains("\"row_count\":3"), "{:?}", city.ask(told).await);
}

#[tokio::test]
async fn rows_that_cannot_be_are_refused_with_their_place() {
    let city = City::plant().await;
    for (from, to, shown) in [
        ("temperature_c = 99.5", "temperatur_c = 99.5", "did you mean 'temperature_c'?"),
        ("temperature_c = 99.5", "temperature_c = \"hot\"", "\"hot\" is not a float64 for 'temperature_c'"),
        ("machine_id = 1,", "", "has no 'machine_id'"),
        ("machine_id = 77", "machine_id = 1", "1 is overridden twice"),
        ("rows = [", "where = \"state = 'x'\"\nrows = [", "both rows and a condition"),
    ] {
        assert!(HOT.contains(from), "{from}");
        let error = city.twins.add_scenario("hot.toml", &HOT.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("hot.toml:"), "{to}: {error}");
    }
}

/// Files and bytes of a folder.
fn stored(folder: &Path) -> (usize, u64) {
    let mut all = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let own = if meta.is_dir() { stored(&entry.path()) } else { (1, meta.len()) };
        all = (all.0 + own.0, all.1 + own.1);
    }
    all
}

/// The most rows that a step of a plan gave.
fn most_rows(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or_default();
    plan.children().into_iter().map(most_rows).fold(own, usize::max)
}

/// What a fork stores, holds and reads for one instance is the same, whether the table has 500 rows or 20,000.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_costs_its_overrides_whatever_the_size_of_the_table() {
    let mut costs = Vec::new();
    for rows in [500, 20_000_i64] {
        let city = City::plant().await;
        let readings: Vec<_> =
            (0..rows).map(|machine| reading(machine, machine % 50, "running", 20.0)).collect();
        city.write("plant.reading", "plant/readings", reading_rows(&readings), Some(1)).await;
        city.twins.keep_present().unwrap();
        assert_eq!(city.ask("SELECT count(*) FROM twin.machine").await, [rows.to_string()]);
        let before = stored(city.folder.path());
        let model = city.twins.model("machine").unwrap();
        let live = city.twins.live(&model).unwrap();
        let held = live.rows_held().await.unwrap();
        let overrides = RecordBatch::try_from_iter([
            ("machine_id", Arc::new(Int64Array::from_iter_values((0..400).map(|n| n * (rows / 400)))) as _),
            ("temperature_c", Arc::new(Float64Array::from(vec![90.0; 400])) as _),
        ]);
        let change = Override::of_rows(&model, &overrides.unwrap()).unwrap();
        let bytes = change.bytes();
        let scenario = Scenario::of_overrides("many", "Many machines run hot.", vec![change]);
        city.twins.put_scenario(scenario).unwrap();
        assert_eq!(stored(city.folder.path()), before, "a fork writes nothing");
        let session = city.session();
        session.sql("SET twin.scenario = 'many'").await.unwrap();
        let key = rows / 400 * 399;
        let frame = session
            .sql(&format!("SELECT machine_id, temperature_c FROM twin.machine WHERE machine_id = {key}"))
            .await
            .unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let found = collect(plan.clone(), session.task_context()).await.unwrap();
        let found: Vec<String> = found
            .iter()
            .flat_map(|batch| {
                let column = batch.column(1).as_any().downcast_ref::<Float64Array>().unwrap();
                column.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(found, ["Some(90.0)"]);
        assert_eq!(live.rows_held().await.unwrap(), held, "the base is not copied");
        let hot = "SELECT count(*) FROM twin.machine WHERE temperature_c = 90";
        assert_eq!(super::ask(&session, hot).await, ["400"]);
        costs.push((bytes, most_rows(&plan)));
    }
    assert_eq!(costs[0], costs[1], "bytes held and rows read for one instance");
    assert_eq!(costs[0].1, 1);
    assert!(costs[0].0 < 400 * 200, "{} bytes for 400 overrides", costs[0].0);
}

#[tokio::test]
async fn rows_in_arrow_are_held_against_the_model() {
    let city = City::plant().await;
    let model = city.twins.model("machine").unwrap();
    let keys = || ("machine_id", Arc::new(Int64Array::from(vec![1, 2])) as _);
    for (rows, shown) in [
        (RecordBatch::try_from_iter([keys()]), "set nothing"),
        (
            RecordBatch::try_from_iter([
                keys(),
                ("stat", Arc::new(BooleanArray::from(vec![true, false])) as _),
            ]),
            "did you mean 'state'?",
        ),
        (
            RecordBatch::try_from_iter([("temperature_c", Arc::new(Float64Array::from(vec![1.0])) as _)]),
            "have no 'machine_id'",
        ),
    ] {
        let error = Override::of_rows(&model, &rows.unwrap()).unwrap_err().to_string();
        assert!(error.contains(shown), "{error}");
    }
}
