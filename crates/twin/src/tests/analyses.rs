//! Operators that are asked: over the shipped map, in scenarios, with inputs of the call and of models; nothing is kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use twinlake_query::SessionSettings;

use super::files::shipped;
use super::{City, ask, models, scenarios};
use crate::Twins;

/// Costs in thousandths of a second, as Dijkstra (1959) finds them over `(from, to, seconds)`.
fn dijkstra(links: &[(i64, i64, f64)], origin: i64) -> BTreeMap<i64, u64> {
    let mut out: BTreeMap<i64, Vec<(i64, u64)>> = BTreeMap::new();
    for (from, to, seconds) in links {
        out.entry(*from).or_default().push((*to, (seconds * 1000.0).round() as u64));
    }
    let mut costs = BTreeMap::new();
    let mut queue = BinaryHeap::from([Reverse((0, origin))]);
    while let Some(Reverse((cost, node))) = queue.pop() {
        if costs.contains_key(&node) {
            continue;
        }
        costs.insert(node, cost);
        for (to, more) in out.get(&node).into_iter().flatten() {
            queue.push(Reverse((cost + more, *to)));
        }
    }
    costs
}

const ORIGINS: &str = "SELECT node_id FROM map.road_node ORDER BY node_id LIMIT 3";

impl City {
    /// The links that may be used in a scenario (`''`: none), with the time that is said of them there.
    async fn open_links(&self, scenario: &str) -> Vec<(i64, i64, f64)> {
        let rows = self
            .ask(&format!(
                "SELECT from_node, to_node, coalesce(travel_time_s, free_flow_time_s) \
                 FROM twin_at('road_segment', NULL, scenario => '{scenario}') WHERE NOT closed"
            ))
            .await;
        let number = |cell: &str| cell.parse::<f64>().unwrap();
        rows.iter()
            .map(|row| {
                let cells: Vec<&str> = row.split(" | ").collect();
                (cells[0].parse().unwrap(), cells[1].parse().unwrap(), number(cells[2]))
            })
            .collect()
    }

    /// Cost by origin and destination, of all pairs from three nodes; what has no way is left out.
    async fn routes(&self, scenario: &str) -> BTreeMap<(i64, i64), u64> {
        let pairs = format!(
            "SELECT o.node_id AS origin, d.node_id AS destination FROM ({ORIGINS}) AS o CROSS JOIN map.road_node AS d"
        );
        let rows = self
            .ask(&format!(
                "SELECT origin, destination, CAST(round(cost * 1000) AS BIGINT) \
                 FROM simulate('route', scenario => '{scenario}', demand => '{pairs}') WHERE cost IS NOT NULL"
            ))
            .await;
        let parsed = rows.iter().map(|row| {
            let cells: Vec<i64> = row.split(" | ").map(|cell| cell.parse().unwrap()).collect();
            ((cells[0], cells[1]), cells[2] as u64)
        });
        parsed.collect()
    }

    async fn dijkstras(&self, scenario: &str) -> BTreeMap<(i64, i64), u64> {
        let links = self.open_links(scenario).await;
        let mut all = BTreeMap::new();
        for origin in self.ask(ORIGINS).await {
            let origin: i64 = origin.parse().unwrap();
            all.extend(dijkstra(&links, origin).into_iter().map(|(to, cost)| ((origin, to), cost)));
        }
        all
    }

    async fn refused(&self, sql: &str) -> String {
        self.session().collect(sql).await.expect_err(sql).to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ways_over_the_map_are_those_of_dijkstra_in_every_scenario() {
    let city = City::shipped().await;
    let free = city.routes("").await;
    assert!(free.len() > 1000, "{}", free.len());
    assert_eq!(free, city.dijkstras("").await);
    // A closed street makes no way shorter, and some longer.
    let closed = city.routes("kaivokatu-closed").await;
    assert_eq!(closed, city.dijkstras("kaivokatu-closed").await);
    let longer = |than: &BTreeMap<_, u64>, then: &BTreeMap<_, u64>| {
        let each = then.iter().filter_map(|(pair, cost)| Some((*than.get(pair)?, *cost)));
        let (shorter, longer): (Vec<_>, Vec<_>) = each.filter(|(a, b)| a != b).partition(|(a, b)| b < a);
        assert!(shorter.is_empty(), "{shorter:?}");
        longer.len()
    };
    assert!(longer(&free, &closed) > 0);
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs WHERE kind = 'simulation'").await, ["0"]);
    // Where a scenario has been simulated, the times are those of its traffic.
    city.rows("SELECT * FROM simulate('traffic_assignment', scenario => 'kaivokatu-closed')").await;
    let congested = city.routes("kaivokatu-closed").await;
    assert_eq!(congested, city.dijkstras("kaivokatu-closed").await);
    assert!(
        longer(&closed, &congested) > closed.len() / 2,
        "{} of {}",
        longer(&closed, &congested),
        closed.len()
    );
    assert_eq!(city.routes("").await, free, "the city as it is has not been simulated");
    // The same costs by the other operators.
    let sql = format!(
        "SELECT origin, node_id, CAST(round(cost * 1000) AS BIGINT) FROM simulate('isochrone', scenario => 'kaivokatu-closed', \
         origins => '{ORIGINS}', limits => 100000)"
    );
    let reached = city.ask(&sql).await.into_iter().map(|row| {
        let cells: Vec<i64> = row.split(" | ").map(|cell| cell.parse().unwrap()).collect();
        ((cells[0], cells[1]), cells[2] as u64)
    });
    assert_eq!(reached.collect::<BTreeMap<_, _>>(), congested);
    let sql = format!(
        "SELECT a.node_id, a.count FROM simulate('accessibility', scenario => 'kaivokatu-closed', origins => '{ORIGINS}', \
         opportunities => 'SELECT node_id FROM map.road_node', limits => 300) AS a ORDER BY 1"
    );
    let mut within: BTreeMap<i64, u64> = BTreeMap::new();
    for ((origin, _), cost) in &congested {
        *within.entry(*origin).or_default() += u64::from(*cost <= 300_000);
    }
    let within: Vec<String> = within.iter().map(|(origin, count)| format!("{origin} | {count}")).collect();
    assert_eq!(city.ask(&sql).await, within);
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs WHERE kind = 'simulation'").await, ["1"]);
}

/// The questions of docs/simulation.md, as they stand there, and their answers.
#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_says_what_is_answered() {
    let text = std::fs::read_to_string(shipped("docs/simulation.md")).unwrap();
    let text =
        text.split("<!-- analyses -->").nth(1).unwrap().split("<!-- end of analyses -->").next().unwrap();
    let blocks: Vec<&str> =
        text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let told = |heading: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
        let rows = lines.take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').replace("NULL", "").trim().to_owned()).collect()
    };
    let city = City::shipped().await;
    let (before, route) = blocks[0].split_once("scenario => 'kaivokatu-closed');\n").unwrap();
    for sql in format!("{before}scenario => 'kaivokatu-closed')").split("; ") {
        city.rows(sql).await;
    }
    let as_it_is = |sql: &str| sql.replace("scenario => 'kaivokatu-closed', ", "");
    let statement = |block: &str| block.trim().trim_end_matches(';').to_owned();
    let route = statement(route);
    assert_eq!(city.ask(&route).await, told("| seconds |"));
    assert!(text.contains("it takes 107.2 s"));
    assert_eq!(city.ask(&as_it_is(&route)).await, ["107.2"]);
    let way = city.ask(&statement(blocks[1])).await;
    assert_eq!(way.iter().map(|row| row.trim()).collect::<Vec<_>>(), told("| name |"));
    let within = statement(blocks[2]);
    assert_eq!(city.ask(&within).await, told("| band |"));
    let as_is = city.ask(&as_it_is(&within)).await;
    assert!(text.contains("57, 249, 477 and 92"));
    assert_eq!(as_is, ["60.0 | 57", "120.0 | 249", "180.0 | 477", "240.0 | 92"]);
}

/// Water on a street closes it for ways, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_street_is_no_way() {
    let city = City::shipped().await;
    let before = city.routes("water-main-burst").await;
    city.rows("SELECT * FROM simulate('water_network', scenario => 'water-main-burst')").await;
    let flooded = city.routes("water-main-burst").await;
    assert!(flooded.iter().all(|(pair, cost)| before.get(pair).is_some_and(|before| before <= cost)));
    assert_ne!(before, flooded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_operator_is_asked_with_other_inputs() {
    let city = City::shipped().await;
    let supplied = |rest: &str| {
        format!(
            "SELECT bus_id, round(vm_pu, 6) FROM simulate('power_flow', table => 'buses'{rest}) WHERE vm_pu IS NOT NULL ORDER BY 1"
        )
    };
    let inputs = ", model => '', buses => 'SELECT * FROM power.bus', branches => 'SELECT * FROM power.branch', \
                  generators => 'SELECT * FROM power.generator', system => 'SELECT * FROM power.system'";
    let whole = city.ask(&supplied(inputs)).await;
    assert_eq!(whole.len(), 8);
    // One input of the call, the others of the model; in the scenario the model's are those of the outage.
    let cut = "branches => 'SELECT * FROM twin.power_branch WHERE branch_id <> 6'";
    let seven = city.ask(&supplied(&format!(", {cut}"))).await;
    assert!(seven.len() < whole.len(), "{seven:?}");
    let outage = city
        .ask(&supplied(", scenario => 'power-outage', generators => 'SELECT * FROM power.generator'"))
        .await;
    assert_eq!(outage, seven, "the scenario takes out the same cable");
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs WHERE kind = 'simulation'").await, ["0"]);
    assert_eq!(
        city.ask("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'simulation'").await,
        ["0"]
    );
    // Without an input of the call it runs and lands as ever, and says the same.
    let landed = "SELECT bus_id, round(voltage_pu, 6) FROM simulate('power_flow') ORDER BY 1";
    assert_eq!(city.ask(landed).await, whole);
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs WHERE kind = 'simulation'").await, ["1"]);
    // The demand that a model makes stays, or is given.
    let total = "SELECT sum(f.flow_vph * r.length_m) > 1e6 FROM simulate('traffic_assignment', ";
    let sql = format!(
        "{} demand_trips_vph => 5000) AS f JOIN twin.road_segment AS r ON r.road_segment_id = f.link_id",
        total.to_owned() + "nodes => NULL,"
    );
    assert_eq!(city.ask(&sql).await, ["true"]);
    let pair = "SELECT from_node AS origin, to_node AS destination, 100.0 AS flow_vph FROM twin.road_segment ORDER BY road_segment_id LIMIT 1";
    let sql = format!("SELECT max(flow_vph) FROM simulate('traffic_assignment', demand => '{pair}')");
    assert_eq!(city.ask(&sql).await, ["100.0"]);
    let told = city
        .refused(&format!(
            "SELECT * FROM simulate('traffic_assignment', demand => '{pair}', demand_trips_vph => 1)"
        ))
        .await;
    assert!(told.contains("no argument 'demand_trips_vph'"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_for_an_input_what_it_may_read_itself() {
    let city = City::new().await;
    city.build_town().await;
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("pairs.csv");
    std::fs::write(&file, "origin,destination\n1,4\n2,1\n").unwrap();
    let sql = format!(
        "SELECT origin, destination, cost FROM simulate('route', demand => 'SELECT * FROM ''{}''')",
        file.display()
    );
    let told = city.refused(&sql).await;
    assert!(told.contains("cannot be read here"), "{told}");
    // It is told before anything is read.
    let planned = city.session().sql(&sql).await.unwrap().create_physical_plan().await;
    let told = planned.unwrap_err().to_string();
    assert!(told.contains("the input 'demand' of route") && told.contains("cannot be read here"), "{told}");
    let here = city.engine.session(SessionSettings { local_files: true }).unwrap();
    assert_eq!(ask(&here, &sql).await, ["1 | 4 | 70.0", "2 | 1 | 30.0"]);
}

/// A second model with the simulation and the analyses of the first, under other names.
fn twice() -> Vec<(String, String)> {
    let mut all = models();
    let (_, road) = all.iter().find(|(file, _)| file == "road_segment.toml").unwrap();
    let street = road
        .replace("name = \"road_segment\"", "name = \"street\"")
        .replace("simulation.link_flow", "simulation.street_flow");
    all.push(("street.toml".into(), street));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_models_one_is_named() {
    let city = City::with(twice(), scenarios()).await;
    city.build_town().await;
    let told = city.refused("SELECT * FROM simulate('traffic_assignment')").await;
    assert!(
        told.contains("several twin models have a simulation of traffic_assignment: road_segment, street")
            && told.contains("model => 'road_segment'"),
        "{told}"
    );
    let told = city.refused("SELECT * FROM simulate('isochrone', origins => 'SELECT 1 AS node_id')").await;
    assert!(told.contains("several twin models say what isochrone takes: road_segment, street"), "{told}");
    let told = city
        .refused("SELECT * FROM simulate('isochrone', origins => 'SELECT 1 AS node_id', model => 'stret')")
        .await;
    assert!(told.contains("did you mean 'street'?"), "{told}");
    let runs = "name = \"runs\"\ndescription = \"d\"\n[[runs]]\noperator = \"traffic_assignment\"\n";
    let told = city.twins.add_scenario("runs.toml", runs).unwrap_err().to_string();
    assert!(told.contains("several twin models") && told.contains("runs.toml:4"), "{told}");
    city.twins.add_scenario("runs.toml", &format!("{runs}twin = \"street\"\n")).unwrap();
    // Each keeps its own rows, though they take the same.
    for (model, table) in [("road_segment", "link_flow"), ("street", "street_flow")] {
        let sql = format!("SELECT count(*) FROM simulate('traffic_assignment', model => '{model}')");
        assert_eq!(city.ask(&sql).await, ["8"]);
        assert_eq!(city.ask(&format!("SELECT count(*) FROM simulation.{table}")).await, ["8"]);
    }
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["2"]);
    let request = crate::SimulationRequest {
        operator: "traffic_assignment".into(),
        model: Some("street".into()),
        ..Default::default()
    };
    let engine = twinlake_query::Engine::new(city.lake.clone());
    let other = Twins::load(&engine, twice(), scenarios()).unwrap();
    let run = other.simulations().submit(request).await.unwrap();
    let run = other.simulations().wait(&run).await.unwrap();
    assert!(run.reused && run.table == "simulation.street_flow", "{run:?}");
    let rows = other.simulations().result(&run.run_id).await.unwrap();
    assert_eq!(rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_analyses_are_checked_when_it_is_loaded() {
    let road = include_str!("../../../../schemas/twins/road_segment.toml");
    let at = road.find("[[analyses]]").unwrap();
    // What is wrong, what is said of it, and the line that it is said of.
    let cases = [
        ("\"isochrone\"", "\"isocrone\"", "did you mean 'isochrone'?", "operators ="),
        ("\"isochrone\"", "\"route\"", "says twice what route takes", "operators ="),
        ("\"isochrone\"", "\"power_flow\"", "power_flow takes no table 'links'", "links ="),
        ("weight =", "wieght =", "did you mean 'weight'?", "parameters ="),
        ("nodes = \"SELECT", "node = \"SELECT", "did you mean 'nodes'?", "node ="),
        ("nodes = \"SELECT", "nodes = \"SELEKT", "the input 'nodes' of route", "nodes ="),
        ("nodes = \"SELECT", "nodes = \"DELETE FROM a; SELECT", "must be one statement", "nodes ="),
        (
            "operators = [\"route\", \"isochrone\", \"accessibility\"]",
            "operators = []",
            "names no operators",
            "operators =",
        ),
    ];
    for (from, to, shown, place) in cases {
        assert!(road[at..].contains(from), "{from}");
        let text = format!("{}{}", &road[..at], road[at..].replacen(from, to, 1));
        let all = models().into_iter().map(|(file, known)| {
            let text = if file == "road_segment.toml" { text.clone() } else { known };
            (file, text)
        });
        let folder = tempfile::TempDir::new().unwrap();
        let lake =
            twinlake_lake::Lake::open(folder.path().to_str().unwrap(), twinlake_lake::LakeOptions::default());
        let engine = twinlake_query::Engine::new(lake.await.unwrap());
        let told = Twins::load(&engine, all.collect(), Vec::new()).unwrap_err().to_string();
        let line = text[..at + text[at..].find(place).unwrap() + place.len()].lines().count();
        assert!(told.contains(shown) && told.contains(&format!("road_segment.toml:{line}:")), "{to}: {told}");
    }
}

#[test]
fn a_change_of_an_analysis_is_told() {
    let road = include_str!("../../../../schemas/twins/road_segment.toml");
    let model = |text: &str| crate::TwinModel::parse("road_segment.toml", text).unwrap();
    let told = |old: &str, new: &str| -> Vec<String> {
        let found = crate::model_changes(&model(old), &model(new));
        found.iter().map(|change| format!("{} {} {:?}", change.what, change.how, change.weight)).collect()
    };
    let without = &road[..road.find("[[analyses]]").unwrap()];
    let other = road.replace("weight = \"travel_time_s\"", "weight = \"length_m\"");
    assert_ne!(other, road);
    let each = |how: &str| ["route", "isochrone", "accessibility"].map(|it| format!("analysis {it} {how}"));
    assert_eq!(told(without, road), each("is new Compatible"));
    assert_eq!(told(road, &other), each("is another one Meaning"));
    assert_eq!(told(road, without), each("is gone Meaning"));
    let stored = serde_json::to_string(&model(road)).unwrap();
    let read: crate::TwinModel = serde_json::from_str(&stored).unwrap();
    assert!(crate::model_changes(&model(road), &read).is_empty());
}

/// No input of an operator has the name of one of its parameters, or of an argument that means something else.
#[test]
fn the_arguments_of_simulate_mean_one_thing() {
    for operator in twinlake_simulate::registry().iter() {
        let spec = operator.describe();
        for shape in &spec.inputs {
            let taken = crate::functions::OWN.contains(&shape.role)
                || ["network", "inputs"].contains(&shape.role)
                || spec.parameters.iter().any(|parameter| parameter.name == shape.role);
            assert!(!taken, "{}: {}", spec.name, shape.role);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_asks_itself_is_refused() {
    let mut models = models();
    let road = models.iter_mut().find(|(file, _)| file.contains("road_segment")).unwrap();
    road.1.truncate(road.1.find("[[analyses]]").unwrap());
    road.1.push_str(
        r#"
[[analyses]]
operators = ["isochrone"]
[analyses.inputs]
links = "SELECT * FROM simulate('isochrone', origins => 'SELECT 1 AS node_id')"
"#,
    );
    let city = City::with(models, scenarios()).await;
    city.build_town().await;
    let told = city.refused("SELECT * FROM simulate('isochrone', origins => 'SELECT 1 AS node_id')").await;
    assert!(told.contains("isochrone is asked by 8 operators, one through the other"), "{told}");

    // So is one whose runs are kept.
    let mut models = super::models();
    let road = models.iter_mut().find(|(file, _)| file.contains("road_segment")).unwrap();
    let from = "FROM twin.road_segment AS r LEFT JOIN flooded";
    assert!(road.1.contains(from));
    let itself = "FROM (SELECT run_id FROM simulate('traffic_assignment') LIMIT 1) AS runs, twin.road_segment AS r LEFT JOIN flooded";
    road.1 = road.1.replacen(from, itself, 1);
    let city = City::with(models, scenarios()).await;
    city.build_town().await;
    let told = city.refused("SELECT * FROM simulate('traffic_assignment')").await;
    assert!(told.contains("traffic_assignment is asked by 8 operators, one through the other"), "{told}");
}
