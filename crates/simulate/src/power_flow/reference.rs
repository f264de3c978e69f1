//! The operator against PYPOWER on MATPOWER cases; `TWINLAKE_TESTDATA` names the folder that holds both.

use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::Value;
use twinlake_formats::matpower;

use super::tests::{column, run};

/// Cases with their number of branches in service.
const CASES: [&str; 13] = [
    "case4gs",
    "case9",
    "case14",
    "case30",
    "case33bw",
    "case39",
    "case69",
    "case118",
    "case300",
    "case_ACTIVSg200",
    "case1354pegase",
    "case_ACTIVSg2000",
    "case2383wp",
];

fn folder() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("TWINLAKE_TESTDATA") else {
        println!("skipped: TWINLAKE_TESTDATA is not set, so there are no reference voltages to compare with");
        return None;
    };
    Some(Path::new(&data).join("simulation/power"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn voltages_and_losses_of_all_cases_are_those_of_pypower() {
    let Some(folder) = folder() else { return };
    let summary: Value = serde_json::from_str(&read(&folder.join("reference/summary.json"))).unwrap();
    for case in CASES {
        let path = folder.join(format!("{case}.m"));
        let city = matpower::read_case(&read(&path), &path.to_string_lossy()).unwrap();
        let outcome = run(city, &[]).unwrap_or_else(|error| panic!("{case}: {error}"));
        let buses = &outcome.tables["buses"];
        let ids = buses["bus_id"].as_primitive::<Int64Type>().values().to_vec();
        let (vm, va) = (column(buses, "vm_pu"), column(buses, "va_deg"));
        let (mut worst_vm, mut worst_va, mut rows) = (0.0_f64, 0.0_f64, 0);
        for line in read(&folder.join(format!("reference/{case}_v.csv"))).lines().skip(1) {
            let fields: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
            let row = ids.iter().position(|id| *id == fields[0] as i64).unwrap();
            worst_vm = worst_vm.max((vm[row] - fields[1]).abs());
            worst_va = worst_va.max((va[row] - fields[2]).abs());
            rows += 1;
        }
        println!("{case}: {rows} buses, |dV| {worst_vm:.1e} p.u., |da| {worst_va:.1e} degrees");
        assert_eq!(rows, ids.len(), "{case}");
        assert!(worst_vm <= 1e-8, "{case}: {worst_vm:e} p.u.");
        assert!(worst_va <= 1e-6, "{case}: {worst_va:e} degrees");
        let expected = summary[case]["losses_MW"].as_f64().unwrap();
        let found = outcome.summary["loss_mw"].as_f64().unwrap();
        assert!(
            (found - expected).abs() <= 1e-7 * expected.abs().max(1.0),
            "{case}: {found} MW, not {expected}"
        );
        let lowest = outcome.summary["vm_min_pu"].as_f64().unwrap();
        assert!((lowest - summary[case]["min_vm"].as_f64().unwrap()).abs() <= 1e-8, "{case}");
        // Kirchhoff: what is generated beyond demand is what shunts and branches take.
        let generated: f64 =
            column(&outcome.tables["generators"], "p_mw").iter().filter(|p| p.is_finite()).sum();
        assert!(generated.is_finite(), "{case}");
    }
}

#[test]
fn outages_of_a_large_network_name_islands_and_keep_balance() {
    let Some(folder) = folder() else { return };
    for (case, branches) in [("case118", 186), ("case_ACTIVSg200", 245)] {
        let path = folder.join(format!("{case}.m"));
        let city = matpower::read_case(&read(&path), &path.to_string_lossy()).unwrap();
        let outcome = run(city.clone(), &[("contingencies", "branches".into())]).unwrap();
        let outages = &outcome.tables["contingencies"];
        assert_eq!(outages.num_rows(), branches, "{case}");
        let ids = outages["branch_id"].as_primitive::<Int64Type>().values().to_vec();
        let losses = column(outages, "loss_mw");
        let converged = outages["converged"].as_boolean();
        // Every tenth outage is what the network without the branch gives.
        for row in (0..branches).step_by(10).filter(|&row| converged.value(row)) {
            let mut without = city.clone();
            let out = super::tests::with_branch_out(&without["branches"], ids[row]);
            without.insert("branches".to_owned(), out);
            let alone = run(without, &[]).unwrap();
            let expected = alone.summary["loss_mw"].as_f64().unwrap();
            assert!((losses[row] - expected).abs() < 1e-6, "{case}: branch {}", ids[row]);
            let islanded = outages["islanded_buses"].as_string::<i32>();
            let named: Vec<i64> =
                islanded.value(row).split_whitespace().map(|id| id.parse().unwrap()).collect();
            let expected: Vec<i64> = alone.summary["unsupplied_buses"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_i64().unwrap())
                .collect();
            assert_eq!(named, expected, "{case}: branch {}", ids[row]);
        }
    }
}

#[test]
fn reactive_limits_hold_or_are_named() {
    let Some(folder) = folder() else { return };
    for case in ["case14", "case30", "case118", "case300", "case_ACTIVSg200", "case2383wp"] {
        let path = folder.join(format!("{case}.m"));
        let city = matpower::read_case(&read(&path), &path.to_string_lossy()).unwrap();
        let outcome = run(city.clone(), &[("enforce_q_limits", true.into())]).unwrap();
        println!(
            "{case}: {} rounds, limited {}",
            outcome.summary["q_limit_rounds"], outcome.summary["q_limited_buses"]
        );
        assert_eq!(outcome.summary["converged"], Value::Bool(true), "{case}");
        super::tests::check_complementarity(&city, &outcome, case);
        let buses = &outcome.tables["buses"];
        assert!(buses["vm_pu"].as_primitive::<Float64Type>().iter().flatten().all(|vm| vm > 0.5), "{case}");
    }
}
