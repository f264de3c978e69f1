//! Validation and benchmark of the operator `power_flow`.
//!
//! `cargo xtask bench power_flow` runs it with `validate` (voltages against those of PYPOWER for the cases in `simulation/power`
//! of the folder that `TWINLAKE_TESTDATA` names) and with `speed`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod figures;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::matpower;
use twinlake_simulate::PowerFlow;

/// Timed; in all of them the peers find a solution from a flat start.
const TIMED: [&str; 5] = ["case14", "case118", "case300", "case1354pegase", "case_ACTIVSg2000"];

fn main() -> Result<()> {
    if figures::asked(|| figures::section("validation", validate), speed)? {
        return Ok(());
    }
    Err(Error::config("write 'validate' or 'speed FOLDER'"))
}

fn folder() -> Result<PathBuf> {
    let data = std::env::var("TWINLAKE_TESTDATA")
        .map_err(|_| Error::config("TWINLAKE_TESTDATA is not set: there is nothing to compare with"))?;
    Ok(Path::new(&data).join("simulation/power"))
}

fn case(name: &str) -> Result<BTreeMap<String, RecordBatch>> {
    let path = folder()?.join(format!("{name}.m"));
    matpower::read_case(&read(&path)?, &path.to_string_lossy())
}

fn speed(_folder: &Path) -> Result<()> {
    for name in TIMED {
        let tables = case(name)?;
        figures::measure(name, 5, || {
            let outcome = run(tables.clone(), &[("tolerance", json!(1e-8)), ("flat_start", json!(true))])?;
            Ok(format!(
                "{} iterations, with reading tables and building results",
                outcome.summary["iterations"]
            ))
        })?;
    }
    for name in ["case118", "case300", "case1354pegase"] {
        let tables = case(name)?;
        figures::measure(&format!("{name}, all outages"), 1, || {
            let outcome =
                run(tables.clone(), &[("tolerance", json!(1e-8)), ("contingencies", json!("branches"))])?;
            Ok(format!("{} outages", outcome.summary["contingencies"]))
        })?;
    }
    Ok(())
}

fn validate() -> Result<()> {
    let folder = folder()?;
    let summary: Value = serde_json::from_str(&read(&folder.join("reference/summary.json"))?)
        .map_err(|error| Error::config(format!("summary.json: {error}")))?;
    println!(
        "| case | buses | losses, ours (MW) | losses, PYPOWER (MW) | largest difference of voltage (p.u.) | of angle (degrees) | iterations |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
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

fn compare(folder: &Path, name: &str, expected: &Value) -> Result<()> {
    let outcome = run(case(name)?, &[])?;
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
        "| {name} | {} | {:.6} | {:.6} | {of_vm:.1e} | {of_va:.1e} | {} |",
        buses.num_rows(),
        outcome.summary["loss_mw"].as_f64().unwrap_or(f64::NAN),
        expected["losses_MW"].as_f64().unwrap_or(f64::NAN),
        outcome.summary["iterations"]
    );
    Ok(())
}
