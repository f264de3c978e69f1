//! Benchmark of the operator `traffic_assignment`: how long it takes to reach a relative gap, and how far the objective
//! then is from the published optimum.
//!
//! `cargo run --release -p twinlake-simulate --example traffic_assignment [-- GAP]` solves a grid made here; with
//! `TWINLAKE_TESTDATA` set to the folder of test data it also solves the networks in `simulation/traffic_ue`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use serde_json::{Value, json};
use twinlake_contracts::{Error, Horizon, Operator, Parameters, Result, Snapshot};
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
    let gap = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(|_| Error::config(format!("'{text}' is not a relative gap")))?,
        None => 1e-6,
    };
    println!(
        "network            links  origins  iterations   relative gap  objective               error    seconds"
    );
    solve("grid 60 x 60", &grid(60, 12)?, Parameters::new(), gap, None)?;
    let Ok(data) = std::env::var("TWINLAKE_TESTDATA") else {
        println!("TWINLAKE_TESTDATA is not set: the networks with published optima are left out");
        return Ok(());
    };
    let folder = Path::new(&data).join("simulation/traffic_ue");
    let optima: Value = serde_json::from_str(&read(&folder.join("reference/objectives.json"))?)
        .map_err(|error| Error::config(format!("objectives.json: {error}")))?;
    for (name, stem, toll, distance) in NETWORKS {
        let net = folder.join(name).join(format!("{stem}_net.tntp"));
        let trips = folder.join(name).join(format!("{stem}_trips.tntp"));
        let mut tables = tntp::read_network(&read(&net)?, &net.to_string_lossy())?;
        tables.insert("demand".to_owned(), tntp::read_trips(&read(&trips)?, &trips.to_string_lossy())?);
        let weights = Parameters::from([
            ("toll_weight".to_owned(), json!(toll)),
            ("distance_weight".to_owned(), json!(distance)),
        ]);
        let optimum = optima["recomputed_from_flow_files"][name]["beckmann"].as_f64();
        solve(name, &Snapshot { tables }, weights, gap, optimum)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::permanent(path.display().to_string(), error))
}

fn solve(name: &str, city: &Snapshot, mut set: Parameters, gap: f64, optimum: Option<f64>) -> Result<()> {
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
        "{name:18} {:5} {:8} {:11} {:14.2e}  {:<18.6} {:>10} {seconds:10.3}",
        figure("links"),
        origins.len(),
        figure("iterations"),
        figure("relative_gap"),
        figure("objective"),
        optimum.map_or_else(String::new, |optimum| format!("{:.1e}", figure("objective") / optimum - 1.0)),
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
