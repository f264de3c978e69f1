//! Validation and benchmark of the operator `water_network`.
//!
//! `cargo xtask bench water_network` runs it with `validate` (heads of the networks in `simulation/water` of the folder that
//! `TWINLAKE_TESTDATA` names against those of EPANET 2.3) and with `speed FOLDER`, which also writes water quality to the folder, for
//! the peer's script to compare with EPANET's.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod figures;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::epanet;
use twinlake_simulate::WaterNetwork;

/// A cubic foot a second in each of EPANET's flow units, in the order of their codes.
const PER_CFS: [f64; 11] =
    [1.0, 448.831, 0.64632, 0.5382, 1.9837, 28.317, 1699.0, 2.4466, 101.94, 2446.6, 0.028_317];

/// Network, what is carried, the parameter `trace_node`; compared at all nodes and report times.
const QUALITY: [(&str, &str, &str); 7] = [
    ("Net1", "chemical", ""),
    ("Net2", "chemical", ""),
    ("Net1", "age", ""),
    ("Net3", "age", ""),
    ("Anytown", "age", ""),
    ("Net3", "trace", "Lake"),
    ("Net3", "trace", "River"),
];

fn main() -> Result<()> {
    if figures::asked(|| figures::section("validation", validate), speed)? {
        return Ok(());
    }
    Err(Error::config("write 'validate' or 'speed FOLDER'"))
}

fn folder() -> Result<PathBuf> {
    let data = std::env::var("TWINLAKE_TESTDATA")
        .map_err(|_| Error::config("TWINLAKE_TESTDATA is not set: there is nothing to compare with"))?;
    Ok(Path::new(&data).join("simulation/water"))
}

/// The networks that have reference heads.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(folder.join("reference"))
        .map_err(|error| Error::permanent(folder.display().to_string(), error))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn validate() -> Result<()> {
    let folder = folder()?;
    println!(
        "| network | heads compared | without head | node with the largest difference | ours | EPANET 2.3 | difference | unit |"
    );
    println!("|---|---:|---:|---|---:|---:|---:|---|");
    for name in names(&folder)? {
        compare(&folder, &name)?;
    }
    Ok(())
}

fn speed(into: &Path) -> Result<()> {
    let folder = folder()?;
    let hydraulics = ("quality".to_owned(), json!("none"));
    for name in names(&folder)? {
        let tables = network(&folder.join(format!("{name}.inp")))?;
        let set = Parameters::from([hydraulics.clone()]);
        figures::measure(&name, 3, || {
            let outcome = run(tables.clone(), &set)?;
            Ok(format!(
                "{} rows in the result",
                outcome.tables["nodes"].num_rows() + outcome.tables["links"].num_rows()
            ))
        })?;
    }
    for name in names(&folder)? {
        let path = folder.join(format!("{name}.inp"));
        let set = Parameters::from([hydraulics.clone()]);
        figures::measure(&format!("{name}, from the file"), 3, || {
            run(network(&path)?, &set).map(|_| String::new())
        })?;
    }
    for (name, quality, trace) in QUALITY {
        let mut set = Parameters::from([
            ("accuracy".to_owned(), json!(1e-7)),
            ("trials".to_owned(), json!(500)),
            ("quality".to_owned(), json!(quality)),
        ]);
        if !trace.is_empty() {
            set.insert("trace_node".to_owned(), json!(trace));
        }
        let outcome = run(network(&folder.join(format!("{name}.inp")))?, &set)?;
        let nodes = &outcome.tables["nodes"];
        let (times, ids) = (nodes["time_s"].as_primitive::<Int64Type>(), nodes["node_id"].as_string::<i32>());
        let values = nodes["quality"].as_primitive::<Float64Type>();
        let mut text = format!("# {}\n", outcome.summary["quality_mass_balance"]);
        for row in 0..nodes.num_rows() {
            let _ = writeln!(text, "{},{},{}", times.value(row), ids.value(row), values.value(row));
        }
        let path = into.join(format!("{name}-{quality}-{trace}.csv"));
        std::fs::write(&path, text).map_err(|error| Error::permanent(path.display().to_string(), error))?;
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

fn compare(folder: &Path, name: &str) -> Result<()> {
    let reference: Value = serde_json::from_str(&read(&folder.join(format!("reference/{name}.json")))?)
        .map_err(|error| Error::config(format!("{name}.json: {error}")))?;
    let tables = network(&folder.join(format!("{name}.inp")))?;
    let parameters = Parameters::from([
        ("accuracy".to_owned(), reference["accuracy"].clone()),
        ("trials".to_owned(), json!(500)),
        ("quality".to_owned(), json!("none")),
    ]);
    let outcome = run(tables, &parameters)?;
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
        "| {name} | {compared} | {without} | {} | {:.6} | {:.6} | {:.1e} | {} |",
        worst.1,
        worst.2,
        worst.3,
        worst.0,
        if metric { "m" } else { "ft" }
    );
    Ok(())
}
