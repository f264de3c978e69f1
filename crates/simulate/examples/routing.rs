//! Benchmark of the operators `route` and `accessibility` on a grid of streets made here.
//!
//! `cargo xtask bench routing` runs it with `speed FOLDER`: a million pairs on a grid of 200 x 200 crossings with some streets
//! missing and some one-way, and the amount within 600 s of every crossing. The folder gets `nodes.csv`, `links.csv`,
//! `shops.csv` and `pairs.csv` with our costs for the peer. With `validate` it sets ways against Dijkstra's on the networks in
//! `simulation/traffic_ue` of the folder that `TWINLAKE_TESTDATA` names.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod figures;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::json;
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::tntp;
use twinlake_simulate::{Accessibility, Route};

const PAIRS: usize = 1_000_000;
const SIDE: i64 = 200;
/// Pairs of each network that are compared with Dijkstra's.
const COMPARED: u64 = 2000;
/// Folder and file stem; Chicago's zones may not be passed.
const NETWORKS: [(&str, &str); 5] = [
    ("SiouxFalls", "SiouxFalls"),
    ("Anaheim", "Anaheim"),
    ("Barcelona", "Barcelona"),
    ("Winnipeg", "Winnipeg"),
    ("Chicago-Sketch", "ChicagoSketch"),
];

fn main() -> Result<()> {
    if figures::asked(|| figures::section("validation", validate), speed)? {
        return Ok(());
    }
    Err(Error::config("write 'validate' or 'speed FOLDER'"))
}

fn speed(folder: &Path) -> Result<()> {
    let mut dice = Dice(42);
    let nodes = nodes(SIDE)?;
    let count = nodes.num_rows() as u64;
    let links = links(SIDE, &mut dice)?;
    let draw = |dice: &mut Dice| integers((0..PAIRS).map(|_| dice.below(count) as i64).collect());
    let demand = RecordBatch::try_from_iter([("origin", draw(&mut dice)), ("destination", draw(&mut dice))])?;
    let shops = integers((0..count / 100).map(|_| dice.below(count) as i64).collect());
    let shops = RecordBatch::try_from_iter([("node_id", shops)])?;
    let mut city = Snapshot {
        tables: BTreeMap::from([
            ("nodes".to_owned(), nodes),
            ("links".to_owned(), links),
            ("demand".to_owned(), demand),
            ("opportunities".to_owned(), shops),
        ]),
    };
    write(folder, &city, &run(&Route, &city, &[])?)?;
    // Another weight each time: the order of contraction stays, as in an ensemble of scenarios; all else is done anew.
    let mut weights = ["length_m", "free_flow_time_s"].into_iter().cycle();
    figures::measure("a million pairs, grid of 200 x 200", 3, || {
        let outcome = run(&Route, &city, &[("weight", json!(weights.next()))])?;
        Ok(format!("with new weights; {} arcs with shortcuts", outcome.summary["arcs_with_shortcuts"]))
    })?;
    city.tables.remove("demand");
    figures::measure("amount within 600 s of each of 40,000 nodes", 1, || {
        run(&Accessibility, &city, &[("limits", json!([600]))]).map(|_| String::new())
    })
}

/// Costs of pairs against Dijkstra (1959) on the rounded weights: they are whole numbers, so they must be equal.
fn validate() -> Result<()> {
    let data = std::env::var("TWINLAKE_TESTDATA")
        .map_err(|_| Error::config("TWINLAKE_TESTDATA is not set: there is nothing to compare with"))?;
    println!(
        "| network | pairs | sum of costs, ours | by Dijkstra | largest difference | without a way, ours | by Dijkstra |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (name, stem) in NETWORKS {
        let path = Path::new(&data).join("simulation/traffic_ue").join(name).join(format!("{stem}_net.tntp"));
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::permanent(path.display().to_string(), error))?;
        let mut tables = tntp::read_network(&text, &path.to_string_lossy())?;
        let whole =
            |table: &str, column: &str| tables[table][column].as_primitive::<Int64Type>().values().to_vec();
        let graph = Graph {
            from: whole("links", "from_node"),
            to: whole("links", "to_node"),
            // As the operator rounds them: thousandths of the unit.
            weight: tables["links"]["free_flow_time_s"]
                .as_primitive::<Float64Type>()
                .values()
                .iter()
                .map(|time| (time * 1000.0).round() as u64)
                .collect(),
            through: whole("nodes", "node_id")
                .into_iter()
                .zip(tables["nodes"]["through"].as_boolean().iter().map(|through| through.unwrap_or(true)))
                .collect(),
        };
        let ids: Vec<i64> = graph.through.keys().copied().collect();
        let mut dice = Dice(7);
        let mut pick =
            || (0..COMPARED).map(|_| ids[dice.below(ids.len() as u64) as usize]).collect::<Vec<_>>();
        let (origins, destinations) = (pick(), pick());
        tables.insert(
            "demand".to_owned(),
            RecordBatch::try_from_iter([
                ("origin", integers(origins.clone())),
                ("destination", integers(destinations.clone())),
            ])?,
        );
        let outcome = run(&Route, &Snapshot { tables }, &[])?;
        let ours: Vec<Option<f64>> =
            outcome.tables["routes"]["cost"].as_primitive::<Float64Type>().iter().collect();
        let exact: Vec<Option<f64>> = origins
            .iter()
            .zip(&destinations)
            .map(|(from, to)| graph.dijkstra(*from).get(to).map(|cost| *cost as f64 / 1000.0))
            .collect();
        let apart = ours.iter().zip(&exact).fold(0.0_f64, |most, (ours, exact)| {
            most.max(ours.zip(*exact).map_or(0.0, |(ours, exact)| (ours - exact).abs()))
        });
        let sum = |costs: &[Option<f64>]| costs.iter().flatten().sum::<f64>();
        let none = |costs: &[Option<f64>]| costs.iter().filter(|cost| cost.is_none()).count();
        println!(
            "| {name} | {COMPARED} | {:.3} | {:.3} | {apart:.1e} | {} | {} |",
            sum(&ours),
            sum(&exact),
            none(&ours),
            none(&exact)
        );
    }
    Ok(())
}

/// A road graph for Dijkstra's search, which shares nothing with the operator.
struct Graph {
    from: Vec<i64>,
    to: Vec<i64>,
    weight: Vec<u64>,
    through: BTreeMap<i64, bool>,
}

impl Graph {
    fn dijkstra(&self, origin: i64) -> BTreeMap<i64, u64> {
        let mut out: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        self.from.iter().enumerate().for_each(|(link, from)| out.entry(*from).or_default().push(link));
        let mut costs = BTreeMap::new();
        let mut heap = BinaryHeap::from([Reverse((0, origin))]);
        while let Some(Reverse((cost, node))) = heap.pop() {
            if costs.contains_key(&node) {
                continue;
            }
            costs.insert(node, cost);
            if node == origin || self.through[&node] {
                for &link in out.get(&node).into_iter().flatten() {
                    heap.push(Reverse((cost + self.weight[link], self.to[link])));
                }
            }
        }
        costs
    }
}

fn run(operator: &dyn Operator, city: &Snapshot, set: &[(&str, serde_json::Value)]) -> Result<Outcome> {
    let set: Parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    operator.run(city, Horizon { from_us: 0, to_us: 0 }, 0, &set, &|_, _| true)
}

/// A small generator, so that the grid is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

fn integers(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn numbers(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn nodes(side: i64) -> Result<RecordBatch> {
    let all = || (0..side * side).map(move |node| (node % side, node / side));
    Ok(RecordBatch::try_from_iter([
        ("node_id", integers((0..side * side).collect())),
        ("longitude", numbers(all().map(|(x, _)| 24.0 + 0.002 * x as f64).collect())),
        ("latitude", numbers(all().map(|(_, y)| 60.0 + 0.001 * y as f64).collect())),
    ])?)
}

/// Every tenth street is a fast one; one in eight pieces is missing, one in six of the others one-way.
fn links(side: i64, dice: &mut Dice) -> Result<RecordBatch> {
    let (mut from, mut to, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    for y in 0..side {
        for x in 0..side {
            let node = y * side + x;
            for (next, fits, fast) in
                [(node + 1, x + 1 < side, y % 10 == 0), (node + side, y + 1 < side, x % 10 == 0)]
            {
                if !fits || (!fast && dice.below(8) == 0) {
                    continue;
                }
                let time = (if fast { 5.0 } else { 12.0 }) + dice.below(8000) as f64 / 1000.0;
                let ways: &[(i64, i64)] =
                    if dice.below(6) == 0 { &[(node, next)] } else { &[(node, next), (next, node)] };
                for (tail, head) in ways {
                    from.push(*tail);
                    to.push(*head);
                    seconds.push(time);
                }
            }
        }
    }
    Ok(RecordBatch::try_from_iter([
        ("link_id", integers((0..from.len() as i64).collect())),
        ("from_node", integers(from)),
        ("to_node", integers(to)),
        ("length_m", numbers(seconds.iter().map(|time| 110.0 + time).collect())),
        ("free_flow_time_s", numbers(seconds)),
    ])?)
}

fn write(folder: &Path, city: &Snapshot, outcome: &Outcome) -> Result<()> {
    let save = |name: &str, table: &RecordBatch, columns: &[&str]| -> Result<()> {
        let mut text = columns.join(",");
        text.push('\n');
        let columns: Vec<Vec<Option<f64>>> = columns
            .iter()
            .map(|column| {
                let numbers = arrow::compute::cast(&table[*column], &arrow::datatypes::DataType::Float64)?;
                Ok(numbers.as_primitive::<Float64Type>().iter().collect())
            })
            .collect::<Result<_>>()?;
        for row in 0..table.num_rows() {
            let cells: Vec<String> = columns
                .iter()
                .map(|column| column[row].map_or(String::new(), |value| value.to_string()))
                .collect();
            let _ = writeln!(text, "{}", cells.join(","));
        }
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| Error::permanent(path.display().to_string(), error))
    };
    save("nodes.csv", &city.tables["nodes"], &["node_id", "longitude", "latitude"])?;
    save("links.csv", &city.tables["links"], &["from_node", "to_node", "free_flow_time_s"])?;
    save("shops.csv", &city.tables["opportunities"], &["node_id"])?;
    save("pairs.csv", &outcome.tables["routes"], &["origin", "destination", "cost"])
}
