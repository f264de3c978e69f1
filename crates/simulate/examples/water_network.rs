//! Validation and benchmark of the operator `water_network`.
//!
//! `TWINLAKE_TESTDATA=… cargo run --release -p twinlake-simulate --example water_network` compares the heads of the networks
//! in `simulation/water` with those of EPANET 2.3 and prints the table of `docs/operators/water_network.md`. With
//! `-- time FILE [REPEATS]` it reads and runs one .inp file again and again, and prints the median time of a run.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::epanet;
use twinlake_simulate::WaterNetwork;

/// A cubic foot a second in each of EPANET's flow units, in the order of their codes.
const PER_CFS: [f64; 11] =
    [1.0, 448.831, 0.64632, 0.5382, 1.9837, 28.317, 1699.0, 2.4466, 101.94, 2446.6, 0.028_317];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, file, rest @ ..] = arguments.as_slice()
        && word == "time"
    {
        let repeats = rest.first().and_then(|text| text.parse().ok()).unwrap_or(5);
        return time(Path::new(file), repeats);
    }
    let Ok(data) = std::env::var("TWINLAKE_TESTDATA") else {
        println!("TWINLAKE_TESTDATA is not set: there is nothing to compare with");
        return Ok(());
    };
    let folder = Path::new(&data).join("simulation/water");
    let mut names: Vec<String> = std::fs::read_dir(folder.join("reference"))
        .map_err(|error| Error::permanent(folder.display().to_string(), error))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    println!(
        "| network | heads compared | without head | node with the largest difference | ours | EPANET 2.3 | difference | unit | s |"
    );
    println!("|---|---:|---:|---|---:|---:|---:|---|---:|");
    for name in names {
        compare(&folder, &name)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|error| Error::permanent(path.display().to_string(), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn network(path: &Path) -> Result<BTreeMap<String, RecordBatch>> {
    epanet::read_network(&read(path)?, &path.to_string_lossy())
}

fn run(tables: BTreeMap<String, RecordBatch>, parameters: &Parameters) -> Result<Outcome> {
    WaterNetwork.run(&Snapshot { tables }, Horizon { from_us: 0, to_us: 0 }, 0, parameters, &|_, _| true)
}

fn time(file: &Path, repeats: usize) -> Result<()> {
    let tables = network(file)?;
    let parameters = std::env::var("SET")
        .ok()
        .and_then(|text| serde_json::from_str::<Parameters>(&text).ok())
        .unwrap_or_else(|| Parameters::from([("quality".to_owned(), json!("none"))]));
    let mut seconds = Vec::new();
    let mut summary = Value::Null;
    for _ in 0..repeats {
        let tables = tables.clone();
        let start = Instant::now();
        let outcome = run(tables, &parameters)?;
        seconds.push(start.elapsed().as_secs_f64());
        summary = Value::Object(outcome.summary);
    }
    seconds.sort_by(f64::total_cmp);
    println!("{:.6} {summary}", seconds[seconds.len() / 2]);
    Ok(())
}

fn compare(folder: &Path, name: &str) -> Result<()> {
    let reference: Value = serde_json::from_str(&read(&folder.join(format!("reference/{name}.json")))?)
        .map_err(|error| Error::config(format!("{name}.json: {error}")))?;
    let tables = network(&folder.join(format!("{name}.inp")))?;
    let parameters = Parameters::from([
        ("accuracy".to_owned(), reference["accuracy"].clone()),
        ("trials".to_owned(), json!(500)),
        ("quality".to_owned(), json!("none")),
    ]);
    let start = Instant::now();
    let outcome = run(tables, &parameters)?;
    let seconds = start.elapsed().as_secs_f64();
    let nodes = &outcome.tables["nodes"];
    let (times, ids) = (nodes["time_s"].as_primitive::<Int64Type>(), nodes["node_id"].as_string::<i32>());
    let heads = nodes["head_m"].as_primitive::<Float64Type>();
    let found: HashMap<(i64, &str), Option<f64>> = (0..nodes.num_rows())
        .map(|row| ((times.value(row), ids.value(row)), heads.is_valid(row).then(|| heads.value(row))))
        .collect();
    let units = reference["flowunits"].as_u64().unwrap_or(0) as usize;
    let metric = PER_CFS.len() > 5 && units >= 5;
    let metres = if metric { 1.0 } else { 0.3048 };
    let (mut compared, mut without, mut worst) = (0, 0, (f64::NEG_INFINITY, String::new(), 0.0, 0.0));
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| empty.clone());
    for (moment, time) in list(&reference["t"]).iter().enumerate() {
        let time = time.as_i64().unwrap_or(-1);
        for (node, id) in list(&reference["nodes"]).iter().enumerate() {
            let id = id.as_str().unwrap_or_default();
            let expected = reference["head"][moment][node].as_f64().unwrap_or(f64::NAN);
            let Some(Some(head)) = found.get(&(time, id)) else {
                without += 1;
                continue;
            };
            compared += 1;
            let head = head / metres;
            if (head - expected).abs() > worst.0 {
                worst = ((head - expected).abs(), format!("{id} at {time} s"), head, expected);
            }
        }
    }
    println!(
        "| {name} | {compared} | {without} | {} | {:.6} | {:.6} | {:.1e} | {} | {seconds:.3} |",
        worst.1,
        worst.2,
        worst.3,
        worst.0,
        if metric { "m" } else { "ft" }
    );
    Ok(())
}
