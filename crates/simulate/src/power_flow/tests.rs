//! The operator on networks small enough to check by hand, on the IEEE 14-bus system, and on bad input.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::Value;
use twinlake_contracts::{Horizon, Operator, Outcome, Result, Snapshot};
use twinlake_formats::matpower;

use super::PowerFlow;

/// The IEEE 14-bus system (American Electric Power, 1962; University of Washington archive), public.
const IEEE_14: &str = include_str!("ieee14.m");
/// Its solution, published with the case to 3 digits of voltage and 2 of angle.
const IEEE_14_SOLUTION: [(f64, f64); 14] = [
    (1.060, 0.0),
    (1.045, -4.98),
    (1.010, -12.72),
    (1.019, -10.33),
    (1.020, -8.78),
    (1.070, -14.22),
    (1.062, -13.37),
    (1.090, -13.36),
    (1.056, -14.94),
    (1.051, -15.10),
    (1.057, -14.79),
    (1.055, -15.07),
    (1.050, -15.16),
    (1.036, -16.04),
];

pub(super) type Tables = BTreeMap<String, RecordBatch>;

pub(super) fn run(tables: Tables, set: &[(&str, Value)]) -> Result<Outcome> {
    let parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let city = Snapshot { tables };
    PowerFlow.run(&city, Horizon { from_us: 0, to_us: 0 }, 0, &parameters, &|_, _| true)
}

/// A number column, nulls as NaN.
pub(super) fn column(batch: &RecordBatch, name: &str) -> Vec<f64> {
    batch[name].as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)).collect()
}

/// The branches with one of them out of service.
pub(super) fn with_branch_out(branches: &RecordBatch, id: i64) -> RecordBatch {
    let ids = branches["branch_id"].as_primitive::<Int64Type>();
    let on = branches["in_service"].as_boolean();
    let on: BooleanArray =
        ids.values().iter().zip(on).map(|(other, on)| Some(on == Some(true) && *other != id)).collect();
    replaced(branches, "in_service", Arc::new(on))
}

fn replaced(batch: &RecordBatch, name: &str, with: ArrayRef) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let column = if field.name() == name { with.clone() } else { column.clone() };
        (field.name().as_str(), column, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// At every bus with regulating generators: the set point and a power within the limits, or a limit and a voltage on
/// the side that explains it.
pub(super) fn check_complementarity(city: &Tables, outcome: &Outcome, case: &str) {
    let (given, solved) = (&city["generators"], &outcome.tables["generators"]);
    let at = given["bus_id"].as_primitive::<Int64Type>().values().to_vec();
    let (most, least) = (column(given, "q_max_mvar"), column(given, "q_min_mvar"));
    let (setpoint, q) = (column(given, "vm_setpoint_pu"), column(solved, "q_mvar"));
    let buses = &outcome.tables["buses"];
    let ids = buses["bus_id"].as_primitive::<Int64Type>().values().to_vec();
    let (vm, limit, kind) =
        (column(buses, "vm_pu"), buses["q_limit"].as_string::<i32>(), buses["kind"].as_string::<i32>());
    let mut checked = 0;
    for row in 0..ids.len() {
        let here: Vec<usize> = (0..at.len()).filter(|&g| at[g] == ids[row] && q[g].is_finite()).collect();
        let Some(&last) = here.last() else { continue };
        let total = |of: &[f64]| here.iter().map(|&g| of[g]).sum::<f64>();
        let margin = 1e-4;
        let message = format!("{case}: bus {}", ids[row]);
        match (kind.value(row), limit.is_valid(row).then(|| limit.value(row))) {
            ("pv", None) => {
                assert!((vm[row] - setpoint[last]).abs() < 1e-12, "{message}");
                assert!(
                    total(&q) <= total(&most) + margin && total(&q) >= total(&least) - margin,
                    "{message}"
                );
            }
            ("pq", Some("max")) => {
                assert!(
                    (total(&q) - total(&most)).abs() < margin && vm[row] <= setpoint[last] + 1e-6,
                    "{message}"
                );
            }
            ("pq", Some("min")) => {
                assert!(
                    (total(&q) - total(&least)).abs() < margin && vm[row] >= setpoint[last] - 1e-6,
                    "{message}"
                );
            }
            _ => continue,
        }
        checked += 1;
    }
    assert!(checked > 0, "{case}");
}

fn ieee_14() -> Tables {
    matpower::read_case(IEEE_14, "ieee14.m").unwrap()
}

/// A case from its rows of buses, generators and branches.
fn case(bus: &str, generator: &str, branch: &str) -> Tables {
    let text = format!(
        "function mpc = small\nmpc.version = '2';\nmpc.baseMVA = 100;\nmpc.bus = [\n{bus}\n];\nmpc.gen = [\n{generator}\n];\n\
         mpc.branch = [\n{branch}\n];\n"
    );
    matpower::read_case(&text, "small.m").unwrap()
}

const TWO_BUSES: &str = "1 3 0 0 0 0 1 1 0 110 1 1.1 0.9; 2 1 50 20 0 0 1 1 0 110 1 1.1 0.9;";
const ONE_GENERATOR: &str = "1 0 0 100 -100 1 100 1 200 0;";

#[test]
fn two_buses_have_the_closed_solution() {
    // P + jQ over a pure reactance X from 1 p.u.: V² = (1 − 2QX + sqrt((1 − 2QX)² − 4X²(P² + Q²))) / 2.
    let (active, reactive, reactance) = (0.5_f64, 0.2_f64, 0.4_f64);
    let outcome = run(case(TWO_BUSES, ONE_GENERATOR, "1 2 0 0.4 0 30 0 0 0 0 1 -360 360;"), &[]).unwrap();
    let buses = &outcome.tables["buses"];
    let half = 1.0 - 2.0 * reactive * reactance;
    let root = (half * half - 4.0 * reactance * reactance * (active * active + reactive * reactive)).sqrt();
    let voltage = f64::midpoint(half, root).sqrt();
    assert!((column(buses, "vm_pu")[1] - voltage).abs() < 1e-12);
    let angle = -(active * reactance / voltage).asin().to_degrees();
    assert!((column(buses, "va_deg")[1] - angle).abs() < 1e-10);
    let branches = &outcome.tables["branches"];
    assert!((column(branches, "p_from_mw")[0] - 50.0).abs() < 1e-8);
    assert!((column(branches, "q_to_mvar")[0] + 20.0).abs() < 1e-8);
    let loading = column(branches, "loading_percent")[0];
    let from = column(branches, "q_from_mvar")[0].hypot(50.0);
    assert!((loading - from / 30.0 * 100.0).abs() < 1e-6);
    assert!((column(&outcome.tables["generators"], "p_mw")[0] - 50.0).abs() < 1e-8);
}

#[test]
fn the_ieee_14_bus_system_has_its_published_solution() {
    let outcome = run(ieee_14(), &[]).unwrap();
    let buses = &outcome.tables["buses"];
    let (vm, va) = (column(buses, "vm_pu"), column(buses, "va_deg"));
    for (row, (expected_vm, expected_va)) in IEEE_14_SOLUTION.into_iter().enumerate() {
        // The published voltages are those of 1962's programs: bus 4 is 1.0177 by every program since.
        assert!((vm[row] - expected_vm).abs() < 2e-3, "bus {}", row + 1);
        assert!((va[row] - expected_va).abs() < 0.03, "bus {}", row + 1);
    }
    assert!((outcome.summary["loss_mw"].as_f64().unwrap() - 13.393_272).abs() < 1e-6);
    // The same from a flat start.
    let flat = run(ieee_14(), &[("flat_start", true.into())]).unwrap();
    for (one, other) in vm.iter().zip(column(&flat.tables["buses"], "vm_pu")) {
        assert!((one - other).abs() < 1e-10);
    }
}

#[test]
fn dc_is_the_ac_flow_without_losses() {
    let outcome = run(ieee_14(), &[("method", "dc".into())]).unwrap();
    let branches = &outcome.tables["branches"];
    let (from, to) = (column(branches, "p_from_mw"), column(branches, "p_to_mw"));
    assert!(from.iter().zip(&to).all(|(from, to)| (from + to).abs() < 1e-9));
    // By hand: all flows out of bus 8 are 0, and the slack gives what the others do not.
    assert!(from[13].abs() < 1e-9);
    assert!((column(&outcome.tables["generators"], "p_mw")[0] - (259.0 - 40.0)).abs() < 1e-6);
    let va = column(&outcome.tables["buses"], "va_deg");
    assert!((va[1] + 5.012).abs() < 1e-2, "{}", va[1]);
    assert!(column(&outcome.tables["buses"], "vm_pu").iter().all(|vm| vm.is_nan()));
}

#[test]
fn a_generator_at_its_limit_gives_up_its_voltage() {
    let city = ieee_14();
    let free = run(city.clone(), &[]).unwrap();
    assert!(free.tables["generators"]["q_beyond_limits"].as_boolean().value(0));
    // Bus 3 delivers about 25 Mvar; with no more than 10 its voltage falls, and bus 2 next to it is drawn to its limit.
    let generators = &city["generators"];
    let mut most = column(generators, "q_max_mvar");
    most[2] = 10.0;
    let mut tight = city.clone();
    let most: ArrayRef = Arc::new(arrow::array::Float64Array::from(most));
    tight.insert("generators".to_owned(), replaced(generators, "q_max_mvar", most));
    let limited = run(tight.clone(), &[("enforce_q_limits", true.into())]).unwrap();
    assert_eq!(limited.summary["q_limited_buses"], serde_json::json!([2, 3]));
    let vm = column(&limited.tables["buses"], "vm_pu");
    assert!(vm[2] < 1.01 && vm[2] > 0.95, "{}", vm[2]);
    assert!((column(&limited.tables["generators"], "q_mvar")[2] - 10.0).abs() < 1e-8);
    check_complementarity(&tight, &limited, "ieee 14");
}

#[test]
fn outages_name_the_buses_that_lose_supply() {
    let outcome = run(ieee_14(), &[("contingencies", "branches".into())]).unwrap();
    let outages = &outcome.tables["contingencies"];
    assert_eq!(outages.num_rows(), 20);
    let islanded = outages["islanded_buses"].as_string::<i32>();
    let named: Vec<(usize, &str)> =
        (0..20).filter(|&row| islanded.is_valid(row)).map(|row| (row + 1, islanded.value(row))).collect();
    // Branch 14 (7-8) is the only one that anything hangs from.
    assert_eq!(named, [(14, "8")]);
    assert_eq!(outcome.summary["contingencies_not_converged"], serde_json::json!(0));
    let alone = run(
        BTreeMap::from([("branches".to_owned(), with_branch_out(&ieee_14()["branches"], 14))])
            .into_iter()
            .chain(ieee_14().into_iter().filter(|(role, _)| role != "branches"))
            .collect(),
        &[],
    )
    .unwrap();
    assert_eq!(alone.summary["unsupplied_buses"], serde_json::json!([8]));
    let buses = &alone.tables["buses"];
    assert_eq!(buses["state"].as_string::<i32>().value(7), "unsupplied");
    assert!(column(buses, "vm_pu")[7].is_nan() && column(buses, "p_mw")[7].is_nan());
    assert!((column(outages, "loss_mw")[13] - alone.summary["loss_mw"].as_f64().unwrap()).abs() < 1e-8);
}

#[test]
fn the_same_on_any_number_of_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(ieee_14(), &[("contingencies", "branches".into())]).unwrap())
    };
    let (one, four) = (on(1), on(4));
    assert_eq!(one.tables, four.tables);
    assert_eq!(one.summary, four.summary);
}

#[test]
fn bad_input_is_named() {
    let said = |tables: Tables, set: &[(&str, Value)]| run(tables, set).unwrap_err().to_string();
    let branch = "1 2 0 0.4 0 0 0 0 0 0 1 -360 360;";
    // More than the line can carry: half of 1 / X.
    let heavy = TWO_BUSES.replace("50 20", "150 0");
    let error = said(case(&heavy, ONE_GENERATOR, branch), &[]);
    assert!(error.contains("does not converge") && error.contains("bus 2"), "{error}");
    let error = said(case(TWO_BUSES, ONE_GENERATOR, &branch.replace("0.4", "0")), &[]);
    assert!(error.contains("branch 1 (row 1 of 'branches') has no impedance"), "{error}");
    let error = said(case(TWO_BUSES, ONE_GENERATOR, &branch.replace("1 2", "1 7")), &[]);
    assert!(error.contains("names bus 7"), "{error}");
    let error = said(case(&TWO_BUSES.replace("1 3 0", "1 2 0"), ONE_GENERATOR, branch), &[]);
    assert!(error.contains("no bus is of the kind 'slack'"), "{error}");
    let error = said(case(&TWO_BUSES.replace("2 1 50", "1 1 50"), ONE_GENERATOR, branch), &[]);
    assert!(error.contains("bus 1 (row 2 of 'buses') is there twice"), "{error}");
    let error = said(ieee_14(), &[("tolerance", 0.into())]);
    assert!(error.contains("tolerance = 0"), "{error}");
    let error = said(ieee_14(), &[("method", "ac".into())]);
    assert!(error.contains("newton, dc"), "{error}");
    let mut missing = ieee_14();
    missing.remove("branches");
    assert!(said(missing, &[]).contains("needs a table 'branches'"));
}

#[test]
fn a_singular_network_names_its_bus() {
    // Two branches that cancel each other: nothing holds bus 2.
    let branches = "1 2 0 0.4 0 0 0 0 0 0 1 -360 360;\n1 2 0 -0.4 0 0 0 0 0 0 1 -360 360;";
    let error = run(case(TWO_BUSES, ONE_GENERATOR, branches), &[]).unwrap_err().to_string();
    assert!(error.contains("singular at bus 2"), "{error}");
}

#[test]
fn a_run_that_is_told_to_stop_stops() {
    let city = Snapshot { tables: ieee_14() };
    let stopped = PowerFlow.run(
        &city,
        Horizon { from_us: 0, to_us: 0 },
        0,
        &twinlake_contracts::Parameters::new(),
        &|_, _| false,
    );
    assert!(stopped.unwrap_err().to_string().contains("stopped on request"));
}
