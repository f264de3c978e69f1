//! Validation and benchmark of the operator `power_flow`.
//!
//! `TWINLAKE_TESTDATA=… cargo run --release -p twinlake-simulate --example power_flow` compares voltages with those of
//! PYPOWER for the cases in `simulation/power` and prints the table of `docs/operators/power_flow.md`. With
//! `-- time FILE [REPEATS]` it runs one case again and again, from a flat start as its peers do, and prints the median
//! time of a run, and of all branch outages.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::matpower;
use twinlake_simulate::PowerFlow;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, file, rest @ ..] = arguments.as_slice()
        && word == "time"
    {
        let repeats = rest.first().and_then(|text| text.parse().ok()).unwrap_or(20);
        return time(Path::new(file), repeats);
    }
    let Ok(data) = std::env::var("TWINLAKE_TESTDATA") else {
        println!("TWINLAKE_TESTDATA is not set: there is nothing to compare with");
        return Ok(());
    };
    let folder = Path::new(&data).join("simulation/power");
    let summary: Value = serde_json::from_str(&read(&folder.join("reference/summary.json"))?)
        .map_err(|error| Error::config(format!("summary.json: {error}")))?;
    println!(
        "| case | buses | losses, ours (MW) | losses, PYPOWER (MW) | largest difference of voltage (p.u.) | of angle (degrees) | iterations | ms |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let mut names: Vec<&String> = summary.as_object().map(|cases| cases.keys().collect()).unwrap_or_default();
    names.sort_by_key(|name| summary[name.as_str()]["buses"].as_u64());
    for name in names {
        compare(&folder, name, &summary[name.as_str()])?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::permanent(path.display().to_string(), error))
}

fn run(tables: BTreeMap<String, RecordBatch>, set: &[(&str, Value)]) -> Result<Outcome> {
    let parameters: Parameters =
        set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    PowerFlow.run(&Snapshot { tables }, Horizon { from_us: 0, to_us: 0 }, 0, &parameters, &|_, _| true)
}

fn median(repeats: usize, mut work: impl FnMut() -> Result<Value>) -> Result<(f64, Value)> {
    let mut seconds = Vec::new();
    let mut last = Value::Null;
    for _ in 0..repeats.max(1) {
        let start = Instant::now();
        last = work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds[seconds.len() / 2], last))
}

fn time(file: &Path, repeats: usize) -> Result<()> {
    let tables = matpower::read_case(&read(file)?, &file.to_string_lossy())?;
    let one = |set: &[(&str, Value)]| Ok(run(tables.clone(), set)?.summary["iterations"].clone());
    let (flat, iterations) =
        median(repeats, || one(&[("tolerance", json!(1e-8)), ("flat_start", json!(true))]))?;
    let (warm, warm_iterations) = median(repeats, || one(&[("tolerance", json!(1e-8))]))?;
    let outages = median(1, || {
        let outcome =
            run(tables.clone(), &[("tolerance", json!(1e-8)), ("contingencies", json!("branches"))])?;
        Ok(outcome.summary["contingencies"].clone())
    })?;
    println!(
        "{:.6} s flat ({iterations} iterations), {:.6} s from the case ({warm_iterations}), {:.3} s for {} outages",
        flat, warm, outages.0, outages.1
    );
    Ok(())
}

fn compare(folder: &Path, name: &str, expected: &Value) -> Result<()> {
    let path = folder.join(format!("{name}.m"));
    let tables = matpower::read_case(&read(&path)?, &path.to_string_lossy())?;
    let start = Instant::now();
    let outcome = run(tables, &[])?;
    let seconds = start.elapsed().as_secs_f64();
    let buses = &outcome.tables["buses"];
    let column = |name: &str| buses[name].as_primitive::<Float64Type>();
    let (vm, va) = (column("vm_pu"), column("va_deg"));
    let rows: HashMap<i64, usize> = buses["bus_id"]
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .enumerate()
        .map(|(row, id)| (*id, row))
        .collect();
    let (mut of_vm, mut of_va) = (0.0_f64, 0.0_f64);
    for line in read(&folder.join(format!("reference/{name}_v.csv")))?.lines().skip(1) {
        let fields: Vec<f64> = line.split(',').filter_map(|field| field.parse().ok()).collect();
        if let [id, expected_vm, expected_va] = fields.as_slice()
            && let Some(&row) = rows.get(&(*id as i64))
        {
            of_vm = of_vm.max((vm.value(row) - expected_vm).abs());
            of_va = of_va.max((va.value(row) - expected_va).abs());
        }
    }
    println!(
        "| {name} | {} | {:.6} | {:.6} | {of_vm:.1e} | {of_va:.1e} | {} | {:.2} |",
        buses.num_rows(),
        outcome.summary["loss_mw"].as_f64().unwrap_or(f64::NAN),
        expected["losses_MW"].as_f64().unwrap_or(f64::NAN),
        outcome.summary["iterations"],
        seconds * 1e3
    );
    Ok(())
}
