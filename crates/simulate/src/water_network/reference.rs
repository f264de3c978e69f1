//! The operator against EPANET 2.3 on networks of every kind; `TWINLAKE_TESTDATA` names the folder that holds both.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::Value;
use twinlake_formats::epanet;

use super::tests::run;

const NETWORKS: [&str; 18] = [
    "Anytown",
    "BWSN_Network_1",
    "Balerma",
    "Hanoi",
    "KL",
    "L-TOWN",
    "MICROPOLIS_v1",
    "Net1",
    "Net2",
    "Net3",
    "Richmond_skeleton",
    "RuralNetwork",
    "ZJ",
    "foss_poly_1",
    "ky10",
    "ky2",
    "ky3",
    "ky4",
];

/// A cubic foot a second in each of EPANET's flow units, in the order of their codes.
const PER_CFS: [f64; 11] =
    [1.0, 448.831, 0.64632, 0.5382, 1.9837, 28.317, 1699.0, 2.4466, 101.94, 2446.6, 0.028_317];

fn folder() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("TWINLAKE_TESTDATA") else {
        println!("skipped: TWINLAKE_TESTDATA is not set, so there are no reference heads to compare with");
        return None;
    };
    Some(Path::new(&data).join("simulation/water"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Rows by time and id.
fn values(batch: &RecordBatch, id: &str, value: &str) -> HashMap<(i64, String), Option<f64>> {
    let times = batch["time_s"].as_primitive::<Int64Type>();
    let ids = batch[id].as_string::<i32>();
    let values = batch[value].as_primitive::<Float64Type>();
    (0..batch.num_rows())
        .map(|row| {
            let value = values.is_valid(row).then(|| values.value(row));
            ((times.value(row), ids.value(row).to_owned()), value)
        })
        .collect()
}

#[test]
fn heads_of_all_networks_are_those_of_epanet() {
    let Some(folder) = folder() else { return };
    let mut failures = Vec::new();
    for name in NETWORKS {
        let path = folder.join(format!("{name}.inp"));
        let reference: Value =
            serde_json::from_str(&read(&folder.join(format!("reference/{name}.json")))).unwrap();
        let text = std::fs::read(&path).unwrap();
        let city = epanet::read_network(&String::from_utf8_lossy(&text), &path.to_string_lossy())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let set =
            [("accuracy", reference["accuracy"].clone()), ("quality", "none".into()), ("trials", 500.into())];
        let outcome = match run(city, &set) {
            Ok(outcome) => outcome,
            Err(error) => {
                println!("{name}: {error}");
                failures.push(name);
                continue;
            }
        };
        let units = reference["flowunits"].as_u64().unwrap() as usize;
        let metres = if units >= 5 { 1.0 } else { 0.3048 };
        let flow_unit = 0.028_317 / PER_CFS[units];
        let heads = values(&outcome.tables["nodes"], "node_id", "head_m");
        let flows = values(&outcome.tables["links"], "link_id", "flow_m3s");
        let (mut worst, mut at, mut cut_off, mut compared, mut worst_flow) =
            (0.0_f64, String::new(), 0, 0, 0.0_f64);
        for (moment, time) in reference["t"].as_array().unwrap().iter().enumerate() {
            let time = time.as_i64().unwrap();
            for (node, id) in reference["nodes"].as_array().unwrap().iter().enumerate() {
                let id = id.as_str().unwrap();
                let expected = reference["head"][moment][node].as_f64().unwrap();
                let Some(found) = heads.get(&(time, id.to_owned())) else {
                    panic!("{name}: no head of {id} at {time} s");
                };
                // What no open way joins to a tank has no head here.
                let Some(found) = found else {
                    cut_off += 1;
                    continue;
                };
                compared += 1;
                let error = (found / metres - expected).abs();
                if error > worst {
                    (worst, at) = (error, format!("{id} at {time} s"));
                }
            }
            for (link, id) in reference["links"].as_array().unwrap().iter().enumerate() {
                let expected = reference["flow"][moment][link].as_f64().unwrap();
                let found = flows[&(time, id.as_str().unwrap().to_owned())].unwrap() / flow_unit;
                worst_flow = worst_flow.max((found - expected).abs() / expected.abs().max(1.0));
            }
        }
        println!(
            "{name}: {compared} heads, {cut_off} cut off, |dH| {worst:.1e} at {at}; flows {worst_flow:.1e}; {}",
            serde_json::to_string(&outcome.summary).unwrap()
        );
        if worst > 1e-3 {
            failures.push(name);
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}
