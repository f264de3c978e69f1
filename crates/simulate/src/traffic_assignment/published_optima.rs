//! The operator against the best solutions known of the networks of Transportation Networks for Research. Their files
//! are for tests only: `TWINLAKE_TESTDATA` names the folder that holds them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use serde_json::{Value, json};
use twinlake_formats::tntp;

use super::tests::{column, figure, run};
use super::*;

/// The folder of the networks; `None`, said aloud, when no test data is named.
pub(super) fn folder() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("TWINLAKE_TESTDATA") else {
        println!("skipped: TWINLAKE_TESTDATA is not set, so there is no published optimum to compare with");
        return None;
    };
    Some(Path::new(&data).join("simulation/traffic_ue"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn city(folder: &Path, name: &str, stem: &str) -> Snapshot {
    let net = folder.join(name).join(format!("{stem}_net.tntp"));
    let trips = folder.join(name).join(format!("{stem}_trips.tntp"));
    let mut tables = tntp::read_network(&read(&net), &net.to_string_lossy()).unwrap();
    tables.insert("demand".to_owned(), tntp::read_trips(&read(&trips), &trips.to_string_lossy()).unwrap());
    Snapshot { tables }
}

fn relative_error(found: f64, expected: f64) -> f64 {
    (found / expected - 1.0).abs()
}

/// Solves one network with the defaults and to 1e-10, and compares both with the published optimum, the total travel
/// time and the flow on every link whose cost depends on it (the others need not be unique).
fn reproduces(name: &str, stem: &str, weights: [f64; 2], published: f64, counts: [usize; 3]) {
    let Some(folder) = folder() else { return };
    let city = city(&folder, name, stem);
    let rows = |role: &str| city.tables[role].num_rows();
    assert_eq!([rows("links"), rows("nodes")], counts[..2], "{name}");
    let weights = [("toll_weight", json!(weights[0])), ("distance_weight", json!(weights[1]))];
    let usual = run(&city, &weights).unwrap();
    let error = relative_error(figure(&usual, "objective"), published);
    assert!(error <= 1e-6, "{name}: {error:e} from {published} with the defaults");

    let exact = run(&city, &[weights.as_slice(), &[("relative_gap", json!(1e-10))]].concat()).unwrap();
    assert_eq!(exact.summary["converged"], json!(true), "{name}");
    let error = relative_error(figure(&exact, "objective"), published);
    assert!(error <= 1e-12, "{name}: {error:e} from {published}");
    assert!(figure(&exact, "conservation_residual") <= 1e-12, "{name}");
    assert_eq!(figure(&exact, "demand_unassigned"), 0.0, "{name}");

    let reference: Value = serde_json::from_str(&read(&folder.join("reference/objectives.json"))).unwrap();
    let reference = &reference["recomputed_from_flow_files"][name];
    let time = reference["tstt"].as_f64().or(reference["tstt_time_only"].as_f64()).unwrap();
    assert!(relative_error(figure(&exact, "total_system_travel_time"), time) <= 1e-7, "{name}");
    let cost = reference["gen_cost"].as_f64().unwrap_or(time);
    assert!(relative_error(figure(&exact, "total_generalized_cost"), cost) <= 1e-7, "{name}");
    assert!(relative_error(reference["beckmann"].as_f64().unwrap(), published) <= 1e-12, "{name}");

    let (flow, cost) = (column(&exact, "flow_vph"), column(&exact, "cost_s"));
    let best = read(&folder.join(name).join(format!("{stem}_flow.tntp")));
    let mut best_of: HashMap<(i64, i64), (f64, f64, usize)> = HashMap::new();
    for line in best.lines().skip(1) {
        let cells: Vec<f64> = line.split_whitespace().filter_map(|cell| cell.parse().ok()).collect();
        if let [from, to, volume, cost] = cells[..] {
            let known = best_of.entry((from as i64, to as i64)).or_insert((volume, cost, 0));
            known.2 += 1;
        }
    }
    let ends = |column: &str| exact.tables["links"][column].as_primitive::<Int64Type>().values().to_vec();
    let mut compared = 0;
    for (row, end) in ends("from_node").into_iter().zip(ends("to_node")).enumerate() {
        let (volume, best_cost, links) = best_of[&end];
        if links == 1 {
            assert!(
                (cost[row] - best_cost).abs() <= 1e-6 * best_cost.max(1.0),
                "{name} {end:?}: {} {best_cost}",
                cost[row]
            );
            if ["b", "power", "free_flow_time_s"].iter().all(|name| figure_at(&city, name, row) > 0.0) {
                assert!((flow[row] - volume).abs() <= 0.05, "{name} {end:?}: {} {volume}", flow[row]);
                compared += 1;
            }
        }
    }
    assert!(compared >= counts[2], "{name}: {compared} links compared");
}

fn figure_at(city: &Snapshot, column: &str, row: usize) -> f64 {
    city.tables["links"][column].as_primitive::<arrow::datatypes::Float64Type>().value(row)
}

#[test]
fn sioux_falls() {
    reproduces("SiouxFalls", "SiouxFalls", [0.0, 0.0], 4_231_335.287_107_44, [76, 24, 76]);
}

#[test]
fn anaheim() {
    reproduces("Anaheim", "Anaheim", [0.0, 0.0], 1_286_032.171_096_032, [914, 416, 900]);
}

#[test]
fn barcelona() {
    reproduces("Barcelona", "Barcelona", [0.0, 0.0], 1_265_654.922_031_76, [2522, 1020, 100]);
}

#[test]
fn winnipeg() {
    reproduces("Winnipeg", "Winnipeg", [0.0, 0.0], 827_911.494_629_963, [2836, 1052, 100]);
}

#[test]
fn chicago_sketch_with_its_toll_and_distance_weights() {
    reproduces("Chicago-Sketch", "ChicagoSketch", [0.02, 0.04], 17_313_018.738_747_7, [2950, 933, 2000]);
}

#[test]
fn chicago_sketch_without_weights_has_centroids_joined_at_no_cost() {
    let Some(folder) = folder() else { return };
    let outcome = run(&city(&folder, "Chicago-Sketch", "ChicagoSketch"), &[]).unwrap();
    assert_eq!(outcome.summary["converged"], json!(true));
    assert!(figure(&outcome, "conservation_residual") <= 1e-12);
    assert!(figure(&outcome, "demand_intrazonal") > 0.0);
    let trips = figure(&outcome, "demand_assigned") + figure(&outcome, "demand_intrazonal");
    assert!(relative_error(trips, 1_260_907.440_000_530_3) <= 1e-12);
}

#[test]
fn braess_of_the_collection() {
    let Some(folder) = folder() else { return };
    let city = city(&folder, "Braess-Example", "Braess");
    let outcome = run(&city, &[("relative_gap", json!(1e-12))]).unwrap();
    assert!(relative_error(figure(&outcome, "objective"), 386.000_000_08) <= 1e-12);
    assert!(relative_error(figure(&outcome, "total_system_travel_time"), 552.0) <= 1e-6);
}
