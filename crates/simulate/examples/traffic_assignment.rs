//! Validation and benchmark of the operator `traffic_assignment` on the networks in `simulation/traffic_ue` of the folder that
//! `TWINLAKE_TESTDATA` names.
//!
//! `cargo xtask bench traffic_assignment` runs it with `validate` (objective and link flows against the best solutions known)
//! and with `speed`. With a relative gap as its argument it solves a grid made here, too, and needs no data for that.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod figures;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::tntp;
use twinlake_simulate::TrafficAssignment;

/// Folder, file stem, toll weight, distance weight.
const NETWORKS: [(&str, &str, f64, f64); 5] = [
    ("SiouxFalls", "SiouxFalls", 0.0, 0.0),
    ("Anaheim", "Anaheim", 0.0, 0.0),
    ("Barcelona", "Barcelona", 0.0, 0.0),
    ("Winnipeg", "Winnipeg", 0.0, 0.0),
    ("Chicago-Sketch", "ChicagoSketch", 0.02, 0.04),
];

fn main() -> Result<()> {
    if figures::asked(|| figures::section("validation", validate), speed)? {
        return Ok(());
    }
    let gap = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(|_| Error::config(format!("'{text}' is not a relative gap")))?,
        None => 1e-6,
    };
    println!("network            links  origins  iterations   relative gap  objective            seconds");
    solve("grid 60 x 60", &grid(60, 12)?, Parameters::new(), gap)?;
    if std::env::var_os("TWINLAKE_TESTDATA").is_none() {
        println!("TWINLAKE_TESTDATA is not set: the networks with published optima are left out");
        return Ok(());
    }
    for network in NETWORKS {
        solve(network.0, &city(network)?, weights(network), gap)?;
    }
    Ok(())
}

fn folder() -> Result<PathBuf> {
    let data = std::env::var("TWINLAKE_TESTDATA")
        .map_err(|_| Error::config("TWINLAKE_TESTDATA is not set: there is nothing to compare with"))?;
    Ok(Path::new(&data).join("simulation/traffic_ue"))
}

fn city((name, stem, ..): (&str, &str, f64, f64)) -> Result<Snapshot> {
    let folder = folder()?.join(name);
    let net = folder.join(format!("{stem}_net.tntp"));
    let trips = folder.join(format!("{stem}_trips.tntp"));
    let mut tables = tntp::read_network(&read(&net)?, &net.to_string_lossy())?;
    tables.insert("demand".to_owned(), tntp::read_trips(&read(&trips)?, &trips.to_string_lossy())?);
    Ok(Snapshot { tables })
}

fn weights((_, _, toll, distance): (&str, &str, f64, f64)) -> Parameters {
    Parameters::from([
        ("toll_weight".to_owned(), json!(toll)),
        ("distance_weight".to_owned(), json!(distance)),
    ])
}

fn run(city: &Snapshot, set: &Parameters) -> Result<Outcome> {
    TrafficAssignment.run(city, Horizon { from_us: 0, to_us: 0 }, 0, set, &|_, _| true)
}

/// Each network to a relative gap of 1e-10, against the published objective and the flows of the best solution known.
fn validate() -> Result<()> {
    let optima: Value = serde_json::from_str(&read(&folder()?.join("reference/objectives.json"))?)
        .map_err(|error| Error::config(format!("objectives.json: {error}")))?;
    println!(
        "| network | links | trips | iterations | relative gap | objective, ours | objective, reference | relative difference | \
         links compared | largest difference of flow (veh/h) | of cost, relative |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for network in NETWORKS {
        let (name, stem, ..) = network;
        let city = city(network)?;
        let mut set = weights(network);
        set.insert("relative_gap".to_owned(), json!(1e-10));
        let outcome = run(&city, &set)?;
        let figure = |name: &str| outcome.summary[name].as_f64().unwrap_or(f64::NAN);
        let optimum = optima["recomputed_from_flow_files"][name]["beckmann"].as_f64().unwrap_or(f64::NAN);
        let (compared, flow, cost) =
            against_best(&city, &outcome, &folder()?.join(name).join(format!("{stem}_flow.tntp")))?;
        println!(
            "| {name} | {} | {:.0} | {} | {:.1e} | {:.6} | {optimum:.6} | {:.1e} | {compared} | {flow:.1e} | {cost:.1e} |",
            figure("links"),
            figure("demand_assigned"),
            figure("iterations"),
            figure("relative_gap"),
            figure("objective"),
            figure("objective") / optimum - 1.0,
        );
    }
    Ok(())
}

/// How many links could be compared, and the largest differences of flow and cost. Left out are parallel links, which the
/// file does not tell apart, and for flows links whose cost does not rise with the flow: their flow is not unique.
fn against_best(city: &Snapshot, outcome: &Outcome, best: &Path) -> Result<(usize, f64, f64)> {
    let links = &outcome.tables["links"];
    let whole = |column: &str| links[column].as_primitive::<Int64Type>().values().to_vec();
    let number =
        |table: &RecordBatch, column: &str| table[column].as_primitive::<Float64Type>().values().to_vec();
    let ends: Vec<(i64, i64)> = whole("from_node").into_iter().zip(whole("to_node")).collect();
    let mut parallel: HashMap<(i64, i64), usize> = HashMap::new();
    for end in &ends {
        *parallel.entry(*end).or_default() += 1;
    }
    let mut known = HashMap::new();
    for line in read(best)?.lines().skip(1) {
        let cells: Vec<f64> = line.split_whitespace().filter_map(|cell| cell.parse().ok()).collect();
        if let [from, to, volume, cost] = cells[..] {
            known.insert((from as i64, to as i64), (volume, cost));
        }
    }
    let given = &city.tables["links"];
    let rising = ["b", "power", "free_flow_time_s"].map(|column| number(given, column));
    let (flow, cost) = (number(links, "flow_vph"), number(links, "cost_s"));
    let (mut compared, mut of_flow, mut of_cost) = (0, 0.0_f64, 0.0_f64);
    for (row, end) in ends.iter().enumerate() {
        let Some(&(volume, best_cost)) = known.get(end).filter(|_| parallel[end] == 1) else { continue };
        of_cost = of_cost.max((cost[row] - best_cost).abs() / best_cost.max(1.0));
        if rising.iter().all(|column| column[row] > 0.0) {
            compared += 1;
            of_flow = of_flow.max((flow[row] - volume).abs());
        }
    }
    Ok((compared, of_flow, of_cost))
}

fn speed(_folder: &Path) -> Result<()> {
    for network in NETWORKS {
        let city = city(network)?;
        let mut set = weights(network);
        set.insert("relative_gap".to_owned(), json!(1e-4));
        figures::measure(network.0, 3, || {
            let outcome = run(&city, &set)?;
            let gap = outcome.summary["relative_gap"].as_f64().unwrap_or(f64::NAN);
            Ok(format!("gap {gap:.1e} after {} iterations", outcome.summary["iterations"]))
        })?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::permanent(path.display().to_string(), error))
}

fn solve(name: &str, city: &Snapshot, mut set: Parameters, gap: f64) -> Result<()> {
    set.insert("relative_gap".to_owned(), json!(gap));
    let start = Instant::now();
    let verbose = std::env::var_os("VERBOSE").is_some();
    let progress = |fraction: f64, word: &str| {
        if verbose {
            println!("{:8.3} s {:5.1} %  {word}", start.elapsed().as_secs_f64(), fraction * 100.0);
        }
        true
    };
    let outcome = TrafficAssignment.run(city, Horizon { from_us: 0, to_us: 0 }, 0, &set, &progress)?;
    let seconds = start.elapsed().as_secs_f64();
    let figure = |name: &str| outcome.summary[name].as_f64().unwrap_or(f64::NAN);
    let origins: BTreeSet<i64> =
        city.tables["demand"]["origin"].as_primitive::<Int64Type>().values().iter().copied().collect();
    println!(
        "{name:18} {:5} {:8} {:11} {:14.2e}  {:<18.6} {seconds:9.3}",
        figure("links"),
        origins.len(),
        figure("iterations"),
        figure("relative_gap"),
        figure("objective"),
    );
    Ok(())
}

/// A grid of two-way streets with capacities that vary from street to street, and trips between every `step`-th
/// crossing in both directions.
fn grid(side: i64, step: i64) -> Result<Snapshot> {
    let (mut from, mut to, mut time, mut capacity) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut street = |one: i64, other: i64, kind: i64| {
        for (tail, head) in [(one, other), (other, one)] {
            from.push(tail);
            to.push(head);
            time.push(30.0 + 5.0 * ((tail * 7 + kind * 3) % 4) as f64);
            capacity.push(if kind % 6 == 0 { 3600.0 } else { 900.0 });
        }
    };
    for row in 0..side {
        for column in 0..side {
            let node = row * side + column;
            if column + 1 < side {
                street(node, node + 1, row);
            }
            if row + 1 < side {
                street(node, node + side, column);
            }
        }
    }
    let zones: Vec<i64> = (0..side)
        .step_by(step as usize)
        .flat_map(|row| (0..side).step_by(step as usize).map(move |column| row * side + column))
        .collect();
    let pairs: Vec<(i64, i64)> = zones
        .iter()
        .flat_map(|&one| zones.iter().map(move |&other| (one, other)))
        .filter(|(a, b)| a != b)
        .collect();
    let rows = from.len();
    let float = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let integer = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let links = RecordBatch::try_from_iter([
        ("link_id", integer((0..rows as i64).collect())),
        ("from_node", integer(from)),
        ("to_node", integer(to)),
        ("capacity_vph", float(capacity)),
        ("length_m", float(vec![400.0; rows])),
        ("free_flow_time_s", float(time)),
    ])?;
    let demand = RecordBatch::try_from_iter([
        ("origin", integer(pairs.iter().map(|pair| pair.0).collect())),
        ("destination", integer(pairs.iter().map(|pair| pair.1).collect())),
        ("flow_vph", float(pairs.iter().map(|(a, b)| 20.0 + ((a + b) % 5) as f64 * 10.0).collect())),
    ])?;
    Ok(Snapshot { tables: BTreeMap::from([("links".to_owned(), links), ("demand".to_owned(), demand)]) })
}
