//! Operators on files: the same rows in SQL and in a pipeline, and only for sessions that may read files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tokio::sync::watch;
use twinlake_contracts::{Component, Location, Registry, SqlEngine, TableStore};
use twinlake_pipeline::{Components, Pipeline, Plan, RunReport, Runner};
use twinlake_query::SessionSettings;

use super::{City, ask};
use crate::SimulateSettings;

/// A file of the checkout that the tests run in.
pub(super) fn shipped(path: &str) -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").join(path)
}

fn components() -> Arc<Components> {
    let readers = twinlake_formats::readers().with::<SimulateSettings>();
    Arc::new(Components::new(Registry::new("source"), twinlake_formats::decoders(), readers))
}

impl City {
    /// Runs a pipeline of files on the lake.
    pub(super) async fn load(&self, text: &str, file: &Path) -> twinlake_contracts::Result<RunReport> {
        let (pipeline, found) = Pipeline::parse_with(text, Some(file), &components(), &|_| None);
        let pipeline = pipeline.unwrap_or_else(|| panic!("{:?}", found.errors));
        let engine: Arc<dyn SqlEngine> = self.engine.clone();
        let (plan, found) = Plan::check(pipeline, &engine).await;
        let plan = plan.unwrap_or_else(|| panic!("{:?}", found.errors));
        let store: Arc<dyn TableStore> = self.lake.clone();
        let (_stop, stopped) = watch::channel(false);
        Runner::new(plan, store, engine).run(stopped).await
    }

    /// What the command line may.
    async fn ask_here(&self, sql: &str) -> Vec<String> {
        ask(&self.engine.session(SessionSettings { local_files: true }).unwrap(), sql).await
    }

    async fn refused_here(&self, sql: &str) -> String {
        let session = self.engine.session(SessionSettings { local_files: true }).unwrap();
        session.collect(sql).await.expect_err(sql).to_string()
    }
}

fn quoted(path: &Path) -> String {
    path.display().to_string().replace('\'', "''")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_runs_on_files_from_sql() {
    let city = City::new().await;
    let (water, power) = (
        quoted(&shipped("pipelines/data/district-water.inp")),
        quoted(&shipped("pipelines/data/district-power.m")),
    );
    let line = quoted(&shipped("schemas/lines/car-painting.toml"));
    let sql = format!(
        "SELECT kind, count(*), round(min(pressure_m), 1) FROM simulate('water_network', network => '{water}') GROUP BY 1 ORDER BY 1"
    );
    assert_eq!(city.ask_here(&sql).await, ["junction | 14 | 34.8", "reservoir | 1 | 0.0"]);
    let sql = format!(
        "SELECT link_id, round(flow_m3s, 4) FROM simulate('water_network', network => '{water}', table => 'links', demand_multiplier => 2) \
         WHERE link_id = 'P1'"
    );
    assert_eq!(city.ask_here(&sql).await, ["P1 | 0.17"]);
    let sql = format!(
        "SELECT branch_id, islanded_buses, demand_lost_mw FROM simulate('power_flow', network => '{power}', table => 'contingencies', \
         contingencies => 'branches') WHERE branch_id = 6"
    );
    assert_eq!(city.ask_here(&sql).await, ["6 | 14 | 1.6"]);
    let sql = format!(
        "SELECT count(*) FROM simulate('production_line', network => '{line}', seed => 3, replications => 2, duration_s => 86400, \
         sensitivity => false) WHERE oee > 0"
    );
    assert_ne!(city.ask_here(&sql).await, ["0"]);
    // Roads and trips are two files; what they give is what the tables of the same numbers give.
    let folder = tempfile::TempDir::new().unwrap();
    let (net, trips) = (folder.path().join("two_net.tntp"), folder.path().join("two_trips.tntp"));
    std::fs::write(
        &net,
        "<NUMBER OF NODES> 2\n<NUMBER OF LINKS> 2\n<FIRST THRU NODE> 1\n<END OF METADATA>\n\
         1 2 100 1 10 0 1 1 0 1 ;\n1 2 100 1 10 0.5 1 1 0 1 ;\n",
    )
    .unwrap();
    std::fs::write(
        &trips,
        "<NUMBER OF ZONES> 2\n<TOTAL OD FLOW> 50\n<END OF METADATA>\nOrigin 1\n 2 : 50.0;\n",
    )
    .unwrap();
    let (net, trips) = (quoted(&net), quoted(&trips));
    let sql = format!(
        "SELECT link_id, round(flow_vph, 3) FROM simulate('traffic_assignment', network => '{net}', demand => '{trips}') ORDER BY 1"
    );
    assert_eq!(city.ask_here(&sql).await, ["1 | 50.0", "2 | 0.0"]);
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["0"], "a run on files lands nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_call_on_files_is_said() {
    let city = City::new().await;
    let water = quoted(&shipped("pipelines/data/district-water.inp"));
    let call = |rest: &str| format!("SELECT * FROM simulate('water_network', network => '{water}'{rest})");
    // A door to the network opens no file, whatever the function.
    for sql in [
        call(""),
        "SELECT * FROM simulate('route', network => '/etc/hostname', inputs => 'trips=/etc/passwd')".into(),
    ] {
        let shown = city.session().collect(&sql).await.unwrap_err().to_string();
        assert!(shown.contains("cannot be read here"), "{shown}");
    }
    for (rest, shown) in [
        (", table => 'node'", "did you mean 'nodes'?"),
        (", durations_s => 1", "did you mean 'duration_s'?"),
        (", scenario => 'closed'", "leave out 'network' or 'scenario'"),
        (", inputs => 'demands'", "is not role=file"),
        (", demand => 'x.tntp'", "takes its demand from the network"),
        (", trials => 1, accuracy => 0.00001", "did not converge"),
        (", quality => 'wine'", "quality"),
    ] {
        let told = city.refused_here(&call(rest)).await;
        assert!(told.contains(shown), "{rest}: {told}");
    }
    let told = city.refused_here("SELECT * FROM simulate('water_network', demand => 'x')").await;
    assert!(told.contains("'demand' needs network"), "{told}");
    let told = city.refused_here("SELECT * FROM simulate('power_flow', network => 'nowhere.m')").await;
    assert!(told.contains("cannot read nowhere.m"), "{told}");
    // What did not converge has warnings all the same.
    let sql = call(", trials => 1, accuracy => 0.00001, table => 'warnings'").replace('*', "kind");
    assert_eq!(city.ask_here(&sql).await, ["unbalanced"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_a_stage_of_a_pipeline() {
    let city = City::new().await;
    let pipeline = |parameters: &str| {
        format!(
            r#"
name = "pressures"
description = "Pressures of a network"

[sources.nodes]
path = "data/district-water.inp"
reader = {{ type = "simulate", operator = "water_network", table = "nodes", parameters = {{ {parameters} }} }}

[transforms.low]
type = "sql"
inputs = ["nodes"]
query = "SELECT node_id, pressure_m FROM input WHERE kind = 'junction' ORDER BY pressure_m LIMIT 3"

[sinks.low]
type = "lake"
inputs = ["low"]
table = "water.lowest_pressure"
mode = "replace"
"#
        )
    };
    let file = shipped("pipelines/pressures.toml");
    city.load(&pipeline("demand_multiplier = 1.5"), &file).await.unwrap();
    let lowest = city.ask("SELECT node_id, pressure_m FROM water.lowest_pressure ORDER BY pressure_m").await;
    let water = quoted(&shipped("pipelines/data/district-water.inp"));
    let sql = format!(
        "SELECT node_id, pressure_m FROM simulate('water_network', network => '{water}', demand_multiplier => 1.5) \
         WHERE kind = 'junction' ORDER BY pressure_m LIMIT 3"
    );
    assert_eq!(lowest, city.ask_here(&sql).await);
    assert!(lowest[0].starts_with("J6 | "), "{lowest:?}");
    // A run that fails leaves the table as it was.
    let failed = city.load(&pipeline("trials = 1, accuracy = 1e-9"), &file).await.unwrap_err().to_string();
    assert!(failed.contains("did not converge"), "{failed}");
    assert_eq!(
        city.ask("SELECT node_id, pressure_m FROM water.lowest_pressure ORDER BY pressure_m").await,
        lowest
    );
    for (operator, table, shown) in [
        ("water_networks", "nodes", "did you mean 'water_network'?"),
        ("water_network", "node", "did you mean 'nodes'?"),
    ] {
        let settings = SimulateSettings {
            operator: operator.into(),
            table: Some(table.into()),
            demand_file: None,
            inputs: Vec::new(),
            parameters: twinlake_contracts::Parameters::new(),
            seed: 0,
        };
        let told = settings.build().err().expect(operator).to_string();
        assert!(told.contains(shown), "{told}");
    }
}

/// Every column that an operator describes has the type that it gives.
#[test]
fn descriptions_are_what_operators_give() {
    for (operator, file) in [
        ("water_network", "pipelines/data/district-water.inp"),
        ("power_flow", "pipelines/data/district-power.m"),
        ("production_line", "schemas/lines/car-painting.toml"),
    ] {
        let spec = twinlake_simulate::registry().get(operator).unwrap().describe();
        for shape in &spec.outputs {
            let mut parameters = twinlake_contracts::Parameters::new();
            if operator == "production_line" {
                parameters.insert("replications".into(), 2.into());
                parameters.insert("duration_s".into(), 86_400.into());
            }
            let files = crate::FieldFiles { network: shipped(file), ..crate::FieldFiles::default() };
            let operators = twinlake_simulate::registry();
            let outcome = files.run(&operators, operator, 0, &parameters, &|_, _| true).unwrap();
            let given: &RecordBatch = &outcome.tables[shape.role];
            let promised = crate::output_schema(shape).unwrap();
            let shown = |schema: &arrow::datatypes::Schema| -> Vec<String> {
                schema
                    .fields()
                    .iter()
                    .map(|field| format!("{} {}", field.name(), field.data_type()))
                    .collect()
            };
            assert_eq!(shown(&promised), shown(&given.schema()), "{operator} {}", shape.role);
        }
    }
    let reader = SimulateSettings {
        operator: "power_flow".into(),
        table: Some("branches".into()),
        demand_file: None,
        inputs: Vec::new(),
        parameters: twinlake_contracts::Parameters::new(),
        seed: 0,
    };
    let reader = reader.build().unwrap();
    let rows: Vec<RecordBatch> = reader
        .read(&Location(shipped("pipelines/data/district-power.m")))
        .unwrap()
        .collect::<twinlake_contracts::Result<_>>()
        .unwrap();
    assert_eq!((rows[0].num_rows(), rows[0].schema()), (8, reader.schema()));
}
