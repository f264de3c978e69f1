//! Simulations that see what others found, on the shipped networks, models and scenarios.

use std::fs;

use serde_json::json;

use super::City;
use super::files::shipped;
use crate::{Run, SimulationRequest};

/// The texts of a shipped folder.
fn folder(path: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(shipped(path)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|file| file.extension().is_some_and(|it| it == "toml")).collect();
    files.sort();
    files.iter().map(|file| (file.display().to_string(), fs::read_to_string(file).unwrap())).collect()
}

impl City {
    /// The shipped models and scenarios over the shipped maps and networks.
    pub(super) async fn shipped() -> Self {
        let city = Self::with(folder("schemas/twins"), folder("scenarios")).await;
        for name in ["helsinki-map", "helsinki-networks", "factory-map"] {
            let file = shipped(&format!("pipelines/{name}.toml"));
            city.load(&fs::read_to_string(&file).unwrap(), &file).await.unwrap();
        }
        city
    }

    /// Runs what the scenario says, in its order.
    async fn run_scenario(&self, name: &str) -> Vec<Run> {
        let execution = self.twins.run_scenario(name).await.unwrap();
        let mut runs = Vec::new();
        for run in &execution.runs {
            runs.push(self.twins.simulations().status(&run.run_id).await.unwrap());
        }
        runs
    }

    async fn run(&self, operator: &str, scenario: Option<&str>, set: &[(&str, serde_json::Value)]) -> Run {
        let parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let request = SimulationRequest {
            operator: operator.to_owned(),
            scenario: scenario.map(str::to_owned),
            parameters,
            ..SimulationRequest::default()
        };
        let simulations = self.twins.simulations();
        let run = simulations.submit(request).await.unwrap();
        simulations.wait(&run).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_adds_columns_to_every_model_that_shares_it() {
    let city = City::shipped().await;
    let run = city.run("power_flow", None, &[]).await;
    assert_eq!((run.rows, run.table.as_str()), (8, "simulation.power_bus"));
    assert_eq!(run.summary["unsupplied_buses"], json!([]));
    for table in ["power.bus", "power.branch", "power.generator", "power.system"] {
        assert!(run.inputs.contains_key(table), "{table}: {:?}", run.inputs);
    }
    let sql = "SELECT bus_id, name, round(voltage_pu, 4), state, origin FROM twin.power_bus WHERE bus_id IN (1, 14) ORDER BY 1";
    assert_eq!(
        city.ask(sql).await,
        ["1 | Substation | 1.02 | supplied | simulated", "14 | Siltasaari | 1.0147 | supplied | simulated"]
    );
    let sql = "SELECT count(*), count(loading_percent), round(sum(loss_mw), 3) FROM twin.power_branch";
    assert_eq!(city.ask(sql).await, ["8 | 7 | 0.063"]);
    // The other output of the same run, by its name.
    let sql = "SELECT branch_id, round(flow_mw, 3) FROM simulate('power_flow', table => 'branches') WHERE branch_id = 6";
    assert_eq!(city.ask(sql).await, ["6 | 1.603"]);
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["1"]);
    let outputs = city.ask("SELECT outputs FROM meta.runs").await;
    assert!(outputs[0].contains("simulation.power_bus") && outputs[0].contains("simulation.power_branch"));
    let other = city.session().collect("SELECT * FROM simulate('power_flow', table => 'generators')").await;
    let told = other.unwrap_err().to_string();
    assert!(
        told.contains("no twin model keeps the table 'generators'") && told.contains("branches"),
        "{told}"
    );
    // A model of the twins is found by the runs of its process and of the next.
    let engine = twinlake_query::Engine::new(city.lake.clone());
    let twins = crate::Twins::load(&engine, folder("schemas/twins"), folder("scenarios")).unwrap();
    let simulations = twins.simulations();
    let request = SimulationRequest { operator: "power_flow".into(), ..Default::default() };
    let again = simulations.submit(request).await.unwrap();
    let again = simulations.wait(&again).await.unwrap();
    assert!(again.reused && again.table == "simulation.power_bus", "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_outage_stops_a_line_and_its_oee_falls() {
    let city = City::shipped().await;
    let as_is = [city.run("power_flow", None, &[]).await, city.run("production_line", None, &[]).await];
    let then = city.run_scenario("power-outage").await;
    assert_eq!(as_is[0].summary["unsupplied_buses"], json!([]));
    assert_eq!(then[0].summary["unsupplied_buses"], json!([14]), "the island is named");
    for run in [&as_is[1], &then[1]] {
        assert_eq!(run.operator, "production_line");
        assert!(run.inputs.contains_key("simulation.power_bus"), "{:?}", run.inputs);
    }
    let sql = "SELECT branch_id FROM twin_at('power_branch', NULL, scenario => 'power-outage') WHERE flow_mw IS NULL ORDER BY 1";
    assert_eq!(city.ask(sql).await, ["6", "8"], "the other model of the run shows it, too");
    let sql = "SELECT bus_id, state, voltage_pu IS NULL FROM twin_at('power_bus', NULL, scenario => 'power-outage') WHERE state <> 'supplied'";
    assert_eq!(city.ask(sql).await, ["14 | unsupplied | true"]);
    // The question of the scenario's file, in one query.
    let sql = "SELECT b.cell_id, b.parts_per_h, s.parts_per_h AS parts_per_h_then, b.oee, s.oee AS oee_then, s.down_share AS down_then \
               FROM twin_at('cell', NULL) AS b JOIN twin_at('cell', NULL, scenario => 'power-outage') AS s USING (cell_id) ORDER BY 1";
    let answer = city.ask(sql).await;
    println!("{answer:#?}");
    let cells =
        |row: &str| -> Vec<f64> { row.split(" | ").skip(1).map(|cell| cell.parse().unwrap()).collect() };
    assert_eq!(answer.len(), 3);
    for row in &answer {
        let figures = cells(row);
        assert!(figures[0] > 10.0 && figures[2] > 0.3, "it works as it is: {row}");
        if row.starts_with("bracket-milling") {
            assert!((figures[1], figures[3]) == (figures[0], figures[2]), "the other site has power: {row}");
        } else {
            assert!((figures[1], figures[3], figures[4]) == (0.0, 0.0, 1.0), "this one stands: {row}");
        }
    }
    let diff = "SELECT id, property, change < 0 FROM scenario_diff('observed', 'power-outage', 'cell') \
                WHERE property IN ('oee', 'parts_per_h') ORDER BY 1, 2";
    assert_eq!(
        city.ask(diff).await,
        [
            "finishing | oee | true",
            "finishing | parts_per_h | true",
            "roughing | oee | true",
            "roughing | parts_per_h | true"
        ]
    );
}

/// Run as a whole, a scenario says the same as its runs one by one; a model that shares the runs of another shows the same run.
#[tokio::test(flavor = "multi_thread")]
async fn a_coupled_scenario_is_run_as_a_whole() {
    let city = City::shipped().await;
    let asked = [
        "SELECT bus_id, voltage_pu, state FROM twin_at('power_bus', NULL, scenario => 'power-outage') ORDER BY 1",
        "SELECT branch_id, flow_mw FROM twin_at('power_branch', NULL, scenario => 'power-outage') ORDER BY 1",
        "SELECT cell_id, oee, down_share FROM twin_at('cell', NULL, scenario => 'power-outage') ORDER BY 1",
    ];
    city.run("power_flow", Some("power-outage"), &[]).await;
    city.run("production_line", Some("power-outage"), &[]).await;
    let mut one_by_one = Vec::new();
    for sql in asked {
        one_by_one.push(city.ask(sql).await);
    }
    let execution = city.twins.run_scenario("power-outage").await.unwrap();
    let runs: Vec<_> = execution.runs.iter().map(|run| (run.model.as_str(), run.reused)).collect();
    assert_eq!(runs, [("power_bus", true), ("cell", true)], "equal runs are answered from their tables");
    // Something else is tried in it, and does not show.
    city.rows("SELECT * FROM simulate('power_flow', scenario => 'power-outage', tolerance => 0.1)").await;
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["3"]);
    for (sql, expected) in asked.iter().zip(one_by_one) {
        assert_eq!(city.ask(sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_main_lowers_pressure_and_closes_a_street() {
    let city = City::shipped().await;
    city.run("water_network", None, &[]).await;
    city.run("traffic_assignment", None, &[]).await;
    for run in city.run_scenario("water-main-burst").await {
        assert_eq!(run.summary["converged"], json!(true));
        let traffic = run.operator == "traffic_assignment";
        assert_eq!(run.inputs.contains_key("simulation.water_pipe"), traffic, "{:?}", run.inputs);
    }
    // The question of the scenario's file, in one query.
    let sql = "SELECT b.name, round(sum(b.flow_vph * b.length_m) / sum(b.length_m)) AS flow_vph, \
               round(sum(s.flow_vph * b.length_m) / sum(b.length_m)) AS flow_vph_then, \
               (SELECT round(min(pressure_m), 1) FROM twin_at('water_junction', NULL, scenario => 'water-main-burst')) AS least_pressure_m \
               FROM twin_at('road_segment', NULL) AS b \
               JOIN twin_at('road_segment', NULL, scenario => 'water-main-burst') AS s USING (road_segment_id) \
               WHERE b.name IS NOT NULL GROUP BY 1 ORDER BY abs(sum((s.flow_vph - b.flow_vph) * b.length_m)) DESC LIMIT 8";
    let answer = city.ask(sql).await;
    println!("{answer:#?}");
    let kaivokatu =
        answer.iter().find(|row| row.starts_with("Kaivokatu | ")).expect("Kaivokatu is among them");
    let cells: Vec<f64> = kaivokatu.split(" | ").skip(1).map(|cell| cell.parse().unwrap()).collect();
    assert!(cells[1] < cells[0] / 2.0, "traffic leaves the street: {kaivokatu}");
    assert!(cells[2] < 15.0, "and the pressure falls: {kaivokatu}");
    // Closed are the segments within 15 m of the pipe, and only those.
    let sql = "SELECT (s.travel_time_s IS NULL) = (st_distancesphere(s.geom, p.geom) <= 15) AS as_told, s.travel_time_s IS NULL AS closed, count(*) \
               FROM twin_at('road_segment', NULL, scenario => 'water-main-burst') AS s, \
               (SELECT geom FROM twin.water_pipe WHERE link_id = 'P6') AS p GROUP BY 1, 2 ORDER BY 2";
    let closed = city.ask(sql).await;
    assert_eq!(closed.len(), 2, "{closed:?}");
    assert!(closed.iter().all(|row| row.starts_with("true")), "{closed:?}");
    // A leak that lets out little closes nothing.
    let small = fs::read_to_string(shipped("scenarios/water-main-burst.toml")).unwrap();
    let small = small
        .replace("\"water-main-burst\"", "\"drip\"")
        .replace("leak_area_m2 = 0.01", "leak_area_m2 = 0.0001");
    city.twins.add_scenario("drip.toml", &small).unwrap();
    city.run_scenario("drip").await;
    let sql =
        "SELECT count(*) FROM twin_at('road_segment', NULL, scenario => 'drip') WHERE travel_time_s IS NULL";
    assert_eq!(city.ask(sql).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn negative_pressures_and_cut_off_junctions_are_named() {
    let city = City::shipped().await;
    let scenario = |name: &str, set: &str| {
        format!("name = \"{name}\"\ndescription = \"d\"\n[[overrides]]\ntwin = \"water_pipe\"\n{set}\n")
    };
    city.twins
        .add_scenario(
            "f.toml",
            &scenario("flood", "where = \"link_id = 'P6'\"\nset = { leak_area_m2 = 0.1 }"),
        )
        .unwrap();
    let run = city.run("water_network", Some("flood"), &[]).await;
    let named = run.summary["negative_pressure_nodes"].as_array().unwrap().clone();
    assert!(!named.is_empty(), "{:?}", run.summary);
    let below = city
        .ask("SELECT node_id FROM twin_at('water_junction', NULL, scenario => 'flood') WHERE pressure_m < 0 ORDER BY 1")
        .await;
    let mut named: Vec<String> = named.iter().map(|node| node.as_str().unwrap().to_owned()).collect();
    named.sort();
    assert_eq!(named, below);
    // P3 is the only way from the reservoir to all but two junctions.
    city.twins
        .add_scenario("c.toml", &scenario("cut", "where = \"link_id = 'P3'\"\nset = { status = \"closed\" }"))
        .unwrap();
    let run = city.run("water_network", Some("cut"), &[]).await;
    assert_eq!(run.summary["nodes_disconnected"], json!(12));
    assert!(run.summary["disconnected_nodes"].as_array().unwrap().contains(&json!("J6")));
    let heads = "SELECT count(head_m), count(*) FROM twin_at('water_junction', NULL, scenario => 'cut')";
    assert_eq!(city.ask(heads).await, ["2 | 14"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_that_cannot_be_are_refused_with_their_place() {
    let models = folder("schemas/twins");
    for (model, from, to, shown) in [
        ("power_bus", "output = \"buses\"", "output = \"busses\"", "did you mean 'buses'?"),
        ("power_bus", "column = \"vm_pu\"", "column = \"vm\"", "has no column 'vm'"),
        ("power_bus", "generators = \"SELECT", "generator = \"SELECT", "did you mean 'generators'?"),
        ("power_branch", "with = \"power_bus\"", "with = \"power_buss\"", "did you mean 'power_bus'?"),
        (
            "power_branch",
            "with = \"power_bus\"",
            "with = \"water_pipe\"",
            "does not say what power_flow takes",
        ),
        ("power_branch", "with = \"power_bus\"\n", "", "takes nothing"),
        ("water_junction", "duration_s = 0", "durations_s = 0", "did you mean 'duration_s'?"),
    ] {
        let file = format!("{model}.toml");
        let changed: Vec<(String, String)> = models
            .iter()
            .map(|(name, text)| {
                let ours = name.ends_with(&file);
                assert!(!ours || text.contains(from), "{file} no longer holds {from}");
                (name.clone(), if ours { text.replacen(from, to, 1) } else { text.clone() })
            })
            .collect();
        let folder = tempfile::TempDir::new().unwrap();
        let lake =
            twinlake_lake::Lake::open(folder.path().to_str().unwrap(), twinlake_lake::LakeOptions::default());
        let engine = twinlake_query::Engine::new(lake.await.unwrap());
        let told = crate::Twins::load(&engine, changed, Vec::new()).unwrap_err().to_string();
        assert!(told.contains(shown) && told.contains(&file), "{to}: {told}");
    }
    // More than one moment is more than one state.
    let city = City::shipped().await;
    let request = SimulationRequest {
        operator: "water_network".into(),
        parameters: [("duration_s".to_owned(), json!(3600))].into(),
        ..Default::default()
    };
    let run = city.twins.simulations().submit(request).await.unwrap();
    let told = city.twins.simulations().wait(&run).await.unwrap_err().to_string();
    assert!(told.contains("more than one row of node_id") && told.contains("duration_s = 0"), "{told}");
    assert_eq!(
        city.ask("SELECT count(pressure_m) FROM twin.water_junction").await,
        ["0"],
        "nothing of it landed"
    );
}
