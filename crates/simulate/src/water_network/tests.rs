//! The operator on networks small enough to check by hand, on EPANET's first example, and on bad input.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::epanet;

use super::WaterNetwork;

pub(super) type Tables = BTreeMap<String, RecordBatch>;

/// EPANET Example Network 1 (US EPA, MIT licence).
const NET_1: &str = include_str!("../../../formats/src/epanet/net1.inp");

pub(super) fn run(tables: Tables, set: &[(&str, Value)]) -> Result<Outcome> {
    let parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let city = Snapshot { tables };
    WaterNetwork.run(&city, Horizon { from_us: 0, to_us: 0 }, 0, &parameters, &|_, _| true)
}

fn tables(text: &str) -> Tables {
    epanet::read_network(text, "test.inp").unwrap_or_else(|error| panic!("{error}"))
}

/// A network in litres a second and metres, balanced to the last digits.
fn solve(sections: &str) -> Outcome {
    let text = format!("[OPTIONS]\nUNITS LPS\nACCURACY 0.00001\nUNBALANCED CONTINUE 0\n{sections}\n[END]\n");
    run(tables(&text), &[("accuracy", 1e-7.into())]).unwrap_or_else(|error| panic!("{error}"))
}

/// The value of an element at a time, NaN for none.
fn at(outcome: &Outcome, table: &str, id: &str, column: &str, time: i64) -> f64 {
    let batch = &outcome.tables[table];
    let ids = batch[if table == "nodes" { "node_id" } else { "link_id" }].as_string::<i32>();
    let times = batch["time_s"].as_primitive::<Int64Type>();
    let values = batch[column].as_primitive::<Float64Type>();
    let row = (0..batch.num_rows())
        .find(|&row| ids.value(row) == id && times.value(row) == time)
        .unwrap_or_else(|| panic!("no {id} at {time} s"));
    if values.is_valid(row) { values.value(row) } else { f64::NAN }
}

fn pressure(outcome: &Outcome, id: &str) -> f64 {
    at(outcome, "nodes", id, "pressure_m", 0)
}

fn flow(outcome: &Outcome, id: &str) -> f64 {
    at(outcome, "links", id, "flow_m3s", 0)
}

fn status(outcome: &Outcome, id: &str) -> String {
    let links = &outcome.tables["links"];
    let row = links["link_id"].as_string::<i32>().iter().position(|link| link == Some(id)).unwrap();
    links["status"].as_string::<i32>().value(row).to_owned()
}

/// Kind and element of each warning.
fn warned(outcome: &Outcome) -> Vec<(String, String)> {
    let warnings = &outcome.tables["warnings"];
    let (kinds, ids) = (warnings["kind"].as_string::<i32>(), warnings["element_id"].as_string::<i32>());
    (0..warnings.num_rows()).map(|row| (kinds.value(row).to_owned(), ids.value(row).to_owned())).collect()
}

#[test]
fn one_pipe_loses_what_each_formula_says() {
    let pipe = |formula: &str, roughness: f64, flow: f64| {
        let outcome = solve(&format!(
            "HEADLOSS {formula}\n[JUNCTIONS]\nJ 0 {flow}\n[RESERVOIRS]\nR 100\n[PIPES]\nP R J 1000 200 {roughness}"
        ));
        100.0 - pressure(&outcome, "J")
    };
    // Hazen-Williams in SI: 10.67 L Q^1.852 / (C^1.852 d^4.871); Manning: 10.29 n² L Q² / d^(16/3). Both have rounded
    // constants in either system of units.
    let q: f64 = 0.03;
    let expected = 10.67 * 1000.0 * q.powf(1.852) / 120.0_f64.powf(1.852) / 0.2_f64.powf(4.871);
    assert!((pipe("H-W", 120.0, 30.0) / expected - 1.0).abs() < 5e-3);
    let expected = 10.29 * 0.012_f64.powi(2) * 1000.0 * q * q / 0.2_f64.powf(16.0 / 3.0);
    assert!((pipe("C-M", 0.012, 30.0) / expected - 1.0).abs() < 1e-2);
    // Darcy-Weisbach: f L v² / (2 g d) with Colebrook's f for 0.1 mm, and Poiseuille for laminar flow.
    let (viscosity, area) = (1.1e-5 * 0.3048 * 0.3048, PI * 0.01);
    let v = q / area;
    let mut f: f64 = 0.02;
    for _ in 0..50 {
        f = (-2.0 * (1e-4 / 0.2 / 3.7 + 2.51 / (v * 0.2 / viscosity * f.sqrt())).log10()).powi(-2);
    }
    let expected = f * 1000.0 / 0.2 * v * v / 2.0 / 9.81;
    assert!((pipe("D-W", 0.1, 30.0) / expected - 1.0).abs() < 1e-2);
    let expected = 128.0 * viscosity * 1000.0 * 1e-4 / (PI * 9.81 * 0.2_f64.powi(4));
    assert!((pipe("D-W", 0.1, 0.1) / expected - 1.0).abs() < 2e-3);
}

/// Networks and options are kept from run to run: what they were read from decides, to the last value.
#[test]
fn a_network_that_was_kept_is_that_of_the_tables() {
    let net = |of: &str, by: &str| tables(&NET_1.replace(of, by));
    let none: &[(&str, Value)] = &[];
    let cases = [
        (net("", ""), none),
        // Demands, the length of a pipe, a formula; then parameters, of which the second changes the reading of the network.
        (net("\t150 ", "\t151 "), none),
        (net("\t10530 ", "\t10531 "), none),
        (net("H-W", "D-W"), none),
        (net("", ""), &[("demand_multiplier", json!(1.1))]),
        (net("", ""), &[("quality", json!("age"))]),
    ];
    let all = || -> Vec<Outcome> {
        let run = |(tables, set): &(Tables, &[(&str, Value)])| run(tables.clone(), set).unwrap();
        cases.iter().map(run).collect()
    };
    let (first, again) = (all(), all());
    for (at, one) in first.iter().enumerate() {
        assert!(one.tables == again[at].tables && one.summary == again[at].summary, "case {at}");
        for (other, another) in first.iter().enumerate().skip(at + 1) {
            assert!(one.tables != another.tables, "cases {at} and {other}");
        }
        // Right after another run on the same tables, and after one on others.
        let (tables, set) = &cases[at];
        for _ in 0..2 {
            assert!(run(tables.clone(), set).unwrap().tables == one.tables, "case {at}");
        }
    }
}

#[test]
fn flows_balance_at_every_junction_of_the_first_example() {
    let outcome = run(tables(NET_1), &[("accuracy", 1e-7.into())]).unwrap();
    let city = tables(NET_1);
    let mut balance: BTreeMap<(String, i64), f64> = BTreeMap::new();
    for (role, _) in [("pipes", 0), ("pumps", 0)] {
        let (ids, from, to) = (&city[role]["link_id"], &city[role]["from_node"], &city[role]["to_node"]);
        for row in 0..city[role].num_rows() {
            for time in (0..=86400).step_by(3600) {
                let flow = at(&outcome, "links", ids.as_string::<i32>().value(row), "flow_m3s", time);
                *balance.entry((from.as_string::<i32>().value(row).to_owned(), time)).or_default() -= flow;
                *balance.entry((to.as_string::<i32>().value(row).to_owned(), time)).or_default() += flow;
            }
        }
    }
    assert_eq!(balance.len(), 11 * 25);
    for ((node, time), into) in balance {
        let demand = at(&outcome, "nodes", &node, "demand_m3s", time);
        assert!((into - demand).abs() < 1e-7, "{node} at {time} s: {into} of {demand}");
    }
}

/// Head (feet), chlorine (mg/L) and age (hours) at noon by EPANET 2.3.5 with an accuracy of 1e-7.
const NET_1_AT_12_H: [(&str, f64, f64, f64); 4] = [
    ("10", 1_018.993_327, 1.0, 1.0),
    ("22", 987.443_313, 0.567_908_054, 4.972_393_339),
    ("32", 983.832_833, 0.328_972_527, 6.812_122_291),
    ("2", 988.571_908, 0.753_274_148, 12.542_096_688),
];

#[test]
fn the_first_example_is_as_in_epanet() {
    let accurate = ("accuracy", Value::from(1e-7));
    let chlorine = run(tables(NET_1), std::slice::from_ref(&accurate)).unwrap();
    let age = run(tables(NET_1), &[accurate, ("quality", "age".into())]).unwrap();
    for (node, head, of_chlorine, of_age) in NET_1_AT_12_H {
        let time = 43200;
        assert!((at(&chlorine, "nodes", node, "head_m", time) / 0.3048 - head).abs() < 1e-5, "{node}");
        assert!((at(&chlorine, "nodes", node, "quality", time) - of_chlorine).abs() < 1e-5, "{node}");
        assert!((at(&age, "nodes", node, "quality", time) - of_age).abs() < 1e-5, "{node}");
    }
    for outcome in [&chlorine, &age] {
        assert!((outcome.summary["quality_mass_balance"].as_f64().unwrap() - 1.0).abs() < 1e-5);
        assert_eq!(outcome.summary["converged"], Value::Bool(true));
    }
    // The same input gives the same bytes, whatever thread it runs on.
    let again =
        std::thread::spawn(|| run(tables(NET_1), &[("accuracy", 1e-7.into())]).unwrap()).join().unwrap();
    assert_eq!(again.tables, chlorine.tables);
}

const TWO_ENDS: &str = "[JUNCTIONS]\nA 0 0\nB 0 20\n[RESERVOIRS]\nR 60\n[PIPES]\nP1 R A 100 300 120\n";

#[test]
fn valves_keep_what_they_are_set_to() {
    let valve = |kind: &str, setting: &str, extra: &str| {
        solve(&format!("{TWO_ENDS}[VALVES]\nV A B 300 {kind} {setting} 0\n{extra}"))
    };
    let outcome = valve("PRV", "25", "");
    assert!((pressure(&outcome, "B") - 25.0).abs() < 1e-6);
    assert_eq!(status(&outcome, "V"), "active");
    assert_eq!(status(&valve("PRV", "80", ""), "V"), "open");
    let outcome = valve("PBV", "10", "");
    assert!((pressure(&outcome, "A") - pressure(&outcome, "B") - 10.0).abs() < 1e-5);
    // k v² / 2g, with EPANET's rounded constant.
    let outcome = valve("TCV", "50", "");
    let v = 0.02 / (PI * 0.0225);
    let loss = pressure(&outcome, "A") - pressure(&outcome, "B");
    assert!((loss / (50.0 * v * v / 2.0 / 9.81) - 1.0).abs() < 2e-3, "{loss}");
    let outcome = valve("GPV", "C", "[CURVES]\nC 0 0\nC 10 2\nC 30 8\n");
    assert!((pressure(&outcome, "A") - pressure(&outcome, "B") - 5.0).abs() < 1e-6);
    // A flow control valve between two reservoirs, below and above what would flow without it.
    let between = |setting: f64| {
        solve(&format!(
            "[JUNCTIONS]\nA 0 0\nB 0 0\n[RESERVOIRS]\nR 60\nS 50\n[PIPES]\nP1 R A 100 200 120\nP2 B S 100 200 120\n\
             [VALVES]\nV A B 200 FCV {setting} 0\n"
        ))
    };
    assert!((flow(&between(15.0), "V") - 0.015).abs() < 1e-7);
    let free = between(1000.0);
    assert!(flow(&free, "V") > 0.05 && flow(&free, "V") < 1.0);
    assert_eq!(warned(&free), [("valve_cannot_supply_flow".to_owned(), "V".to_owned())]);
    // A pressure sustaining valve lets only so much go that 45 m are left before it.
    let outcome = solve(
        "[JUNCTIONS]\nA 0 0\nB 0 0\n[RESERVOIRS]\nR 60\nS 20\n[PIPES]\nP1 R A 1000 200 120\nP2 B S 10 200 120\n\
         [VALVES]\nV A B 200 PSV 45 0\n",
    );
    assert!((pressure(&outcome, "A") - 45.0).abs() < 1e-6);
    assert!(flow(&outcome, "V") > 0.0);
}

#[test]
fn a_check_valve_lets_nothing_back() {
    let outcome = solve(
        "[JUNCTIONS]\nA 0 1\n[RESERVOIRS]\nR 60\nS 50\n[PIPES]\nP1 R A 100 200 120\nP2 S A 100 200 120 0 CV\n",
    );
    assert_eq!((flow(&outcome, "P2"), status(&outcome, "P2").as_str()), (0.0, "closed"));
    // What is closed has a resistance of 1e8, which lets a trace through.
    assert!((flow(&outcome, "P1") - 0.001).abs() < 1e-7);
}

#[test]
fn pumps_lift_by_their_curves_and_speeds() {
    let pump = |how: &str, curve: &str, demand: f64| {
        let text = format!(
            "[JUNCTIONS]\nJ 0 {demand}\n[RESERVOIRS]\nR 10\n[PIPES]\nP R J 1 10 1\n[STATUS]\nP CLOSED\n[PUMPS]\nU R J {how}\n[CURVES]\n{curve}"
        );
        pressure(&solve(&text), "J") - 10.0
    };
    // One point: h = 4/3 h1 − 1/3 h1 (q/q1)².
    let one = |q: f64| 40.0 * (1.33334 - 0.33334 * (q / 50.0_f64).powi(2));
    assert!((pump("HEAD C", "C 50 40", 30.0) - one(30.0)).abs() < 1e-3);
    // The affinity laws: head goes with the square of speed, flow with speed.
    assert!((pump("HEAD C SPEED 0.9", "C 50 40", 30.0) - 0.81 * one(30.0 / 0.9)).abs() < 1e-3);
    // Three points, at one of them.
    let lifted = pump("HEAD C", "C 0 60\nC 40 45\nC 80 20", 40.0);
    assert!((lifted - 45.0).abs() < 1e-4, "{lifted}");
    // Lines between points.
    assert!((pump("HEAD C", "C 10 60\nC 40 45\nC 80 20\nC 90 5", 60.0) - 32.5).abs() < 1e-4);
    // 10 kW into 20 L/s: P = ρ g q h.
    assert!((pump("POWER 10", "", 20.0) / (10e3 / (998.0 * 9.81 * 0.02)) - 1.0).abs() < 5e-3);
}

#[test]
fn a_pump_that_cannot_lift_is_named() {
    let outcome = solve(
        "[JUNCTIONS]\nJ 0 5\n[RESERVOIRS]\nR 10\nS 100\n[PIPES]\nP S J 100 200 100\n[PUMPS]\nU R J HEAD C\n[CURVES]\nC 50 40",
    );
    assert_eq!((flow(&outcome, "U"), status(&outcome, "U").as_str()), (0.0, "cannot_lift"));
    assert_eq!(warned(&outcome), [("pump_cannot_lift".to_owned(), "U".to_owned())]);
}

#[test]
fn a_tank_fills_closes_and_is_controlled() {
    // 10 L/s more come than go: a tank of 10 m × 10 m² (3.5682 m diameter) rises 3.6 m an hour.
    let network = |extra: &str| {
        solve(&format!(
            "[JUNCTIONS]\nA 0 -10\nB 0 0\n[RESERVOIRS]\nR 60\n[TANKS]\nT 50 1 0 10 3.568248 0\n\
             [PIPES]\nP A T 10 300 120\nQ R B 10 300 120\nX B A 10 300 120 0 CLOSED\n[TIMES]\nDURATION 6\nREPORT TIMESTEP 1:00\n{extra}"
        ))
    };
    let outcome = network("");
    let level = |outcome: &Outcome, hour: i64| at(outcome, "nodes", "T", "pressure_m", 3600 * hour);
    assert!((level(&outcome, 1) - 4.6).abs() < 1e-4, "{}", level(&outcome, 1));
    assert!((level(&outcome, 2) - 8.2).abs() < 1e-4);
    // Full after 2.5 h.
    assert!((level(&outcome, 3) - 10.0).abs() < 1e-9 && (level(&outcome, 6) - 10.0).abs() < 1e-9);
    // A control closes its pipe at 6 m: the inflow has no way then.
    let outcome = network("[CONTROLS]\nLINK P CLOSED IF NODE T ABOVE 6\n");
    assert!(
        (level(&outcome, 1) - 4.6).abs() < 1e-4 && (level(&outcome, 3) - 6.0).abs() < 2e-3,
        "{}",
        level(&outcome, 3)
    );
    // By time, and by a rule, which looks every sixth minute.
    let outcome = network("[CONTROLS]\nLINK P CLOSED AT TIME 1:30\n");
    assert!((level(&outcome, 4) - 6.4).abs() < 1e-3, "{}", level(&outcome, 4));
    let outcome = network(
        "[RULES]\nRULE 1\nIF TANK T LEVEL ABOVE 6\nAND SYSTEM TIME < 5\nTHEN PIPE P STATUS IS CLOSED\n",
    );
    assert!((level(&outcome, 3) - 6.04).abs() < 1e-3, "{}", level(&outcome, 3));
    let named = warned(&outcome);
    assert!(named.contains(&("disconnected".to_owned(), "A".to_owned())), "{named:?}");
    assert!(at(&outcome, "nodes", "A", "head_m", 3 * 3600).is_nan());
}

#[test]
fn pressure_driven_demand_follows_its_law() {
    let text = "[OPTIONS]\nUNITS LPS\nDEMAND MODEL PDA\nREQUIRED PRESSURE 20\nMINIMUM PRESSURE 2\nPRESSURE EXPONENT 0.5\n\
                [JUNCTIONS]\nJ 0 30\n[RESERVOIRS]\nR 15\n[PIPES]\nP R J 1000 200 120\n";
    let outcome = run(tables(text), &[("accuracy", 1e-9.into())]).unwrap();
    let (p, q) = (pressure(&outcome, "J"), at(&outcome, "nodes", "J", "demand_m3s", 0));
    assert!((q - 0.03 * ((p - 2.0) / 18.0).sqrt()).abs() < 1e-8 && q < 0.03 && q > 0.01, "{q} at {p}");
    // Demand-driven, the same network has a pressure below that of the air, which is named.
    let outcome =
        run(tables(&text.replace("R 15", "R 1")), &[("demand_model", "demand_driven".into())]).unwrap();
    assert_eq!(warned(&outcome), [("negative_pressure".to_owned(), "J".to_owned())]);
    assert!(pressure(&outcome, "J") < 0.0);
}

#[test]
fn an_emitter_gives_by_its_pressure() {
    let outcome =
        solve("[JUNCTIONS]\nJ 0 0\n[RESERVOIRS]\nR 30\n[PIPES]\nP R J 100 200 120\n[EMITTERS]\nJ 2\n");
    let expected = 0.002 * pressure(&outcome, "J").sqrt();
    assert!((at(&outcome, "nodes", "J", "demand_m3s", 0) - expected).abs() < 1e-9);
}

#[test]
fn water_ages_decays_and_mixes_on_its_way() {
    // 1000 m of 0.3 m at 10 L/s: 70.69 m³, two hours less 132 s.
    let network = "[JUNCTIONS]\nA 0 0\nJ 0 10\n[RESERVOIRS]\nR 60\n[PIPES]\nP R A 1000 300 120\nQ A J 1 300 120\n\
                   [TIMES]\nDURATION 8\nQUALITY TIMESTEP 0:01\n[QUALITY]\nR 1.5\n";
    let travel = PI * 0.0225 * 1000.0 / 0.01;
    let outcome = run(
        tables(&format!("[OPTIONS]\nUNITS LPS\nQUALITY AGE\nTOLERANCE 0.001\n{network}")),
        &[("accuracy", 1e-7.into())],
    )
    .unwrap();
    // A reservoir's water is new as long as none is said to be old: R has 1.5 h.
    let age = at(&outcome, "nodes", "A", "quality", 8 * 3600);
    assert!((age - 1.5 - travel / 3600.0).abs() < 0.03, "{age}");
    let decay = format!(
        "[OPTIONS]\nUNITS LPS\nQUALITY CHLORINE mg/L\nTOLERANCE 0.0001\n{network}[REACTIONS]\nGLOBAL BULK -2.4\n"
    );
    let outcome = run(tables(&decay), &[("accuracy", 1e-7.into())]).unwrap();
    let left = at(&outcome, "nodes", "A", "quality", 8 * 3600);
    assert!((left - 1.5 * (-2.4 * travel / 86400.0).exp()).abs() < 2e-3, "{left}");
    // Two sources meet half and half.
    let outcome = solve(
        "QUALITY TRACE R\n[JUNCTIONS]\nA 0 10\n[RESERVOIRS]\nR 60\nS 60\n[PIPES]\nP R A 100 300 120\nQ S A 100 300 120\n\
         [TIMES]\nDURATION 5\n",
    );
    assert!((at(&outcome, "nodes", "A", "quality", 5 * 3600) - 50.0).abs() < 1e-6);
}

#[test]
fn every_mixing_model_keeps_the_mass() {
    for model in ["MIXED", "2COMP 0.4", "FIFO", "LIFO"] {
        let text = format!(
            "[OPTIONS]\nUNITS LPS\nQUALITY CHLORINE mg/L\n[JUNCTIONS]\nA 0 0\nB 0 20 1\n[RESERVOIRS]\nR 60\n\
             [TANKS]\nT 50 5 1 9 12 0\n[PIPES]\nP R A 800 200 120\nQ A T 200 200 120\nS A B 100 200 120\n\
             [PATTERNS]\n1 0 0 2 2\n[QUALITY]\nR 1\n[MIXING]\nT {model}\n[TIMES]\nDURATION 12\nQUALITY TIMESTEP 0:05\n"
        );
        let outcome = run(tables(&text), &[("accuracy", 1e-7.into())]).unwrap();
        let balance = outcome.summary["quality_mass_balance"].as_f64().unwrap();
        assert!((balance - 1.0).abs() < 1e-3, "{model}: {balance}");
        let tank = at(&outcome, "nodes", "T", "quality", 12 * 3600);
        // Of first in first out, the oldest water leaves: what was there at the start.
        assert!(tank < 1.0 + 1e-9 && (tank > 0.01 || model == "FIFO"), "{model}: {tank}");
    }
}

#[test]
fn bad_input_is_named() {
    let said = |text: &str, set: &[(&str, Value)]| run(tables(text), set).unwrap_err().to_string();
    let error = said("[JUNCTIONS]\nA 0 1\nB 0 1\n[PIPES]\nP A B 100 200 120\n", &[]);
    assert!(error.contains("neither a tank nor a reservoir"), "{error}");
    let whole = "[JUNCTIONS]\nA 0 1\n[RESERVOIRS]\nR 50\n[PIPES]\nP R A 100 200 120\n";
    let error = said(&whole.replace("A 0 1\n", "A 0 1\nLONELY 0 1\n"), &[]);
    assert!(error.contains("'LONELY' is joined to no link"), "{error}");
    let error = said(whole, &[("quality", "trace".into()), ("trace_node", "X".into())]);
    assert!(error.contains("trace_node names the node 'X'"), "{error}");
    let error = said(whole, &[("accuracy", "fast".into())]);
    assert!(error.contains("accuracy"), "{error}");
    let error = said(whole, &[("acuracy", 0.1.into())]);
    assert!(error.contains("did you mean 'accuracy'"), "{error}");
    let pump = "[PUMPS]\nU R A HEAD C\n[CURVES]\nC 0 10\nC 10 20\nC 20 5\n";
    let error = said(&format!("{whole}{pump}"), &[]);
    assert!(error.contains("'U'") && error.contains("head must fall"), "{error}");
    // Tables by hand, not from a file.
    let mut city = tables(whole);
    city.insert("pipes".to_owned(), city["pipes"].slice(0, 0));
    assert!(run(city, &[]).unwrap_err().to_string().contains("'A' is joined to no link"));
}

#[test]
fn a_step_that_does_not_balance_is_flagged() {
    let outcome = run(tables(NET_1), &[("trials", 1.into()), ("accuracy", 1e-9.into())]).unwrap();
    assert_eq!(outcome.summary["converged"], Value::Bool(false));
    let kinds = outcome.tables["warnings"]["kind"].as_string::<i32>();
    assert!(kinds.iter().any(|kind| kind == Some("unbalanced")));
    // A file that says STOP stops there.
    let stops = NET_1.replace("Continue 10", "Stop");
    let outcome = run(tables(&stops), &[("trials", 1.into()), ("accuracy", 1e-9.into())]).unwrap();
    assert_eq!(outcome.summary["stopped_at_s"], serde_json::json!(0));
    assert_eq!(outcome.tables["nodes"].num_rows(), 11);
}

#[test]
fn the_horizon_sets_duration_and_time_stamps() {
    let from_us = 1_700_000_000_000_000;
    let horizon = Horizon { from_us, to_us: from_us + 7_200_000_000 };
    let city = Snapshot { tables: tables(NET_1) };
    let outcome = WaterNetwork.run(&city, horizon, 0, &Parameters::new(), &|_, _| true).unwrap();
    let nodes = &outcome.tables["nodes"];
    assert_eq!(nodes.num_rows(), 3 * 11);
    let stamps = nodes["ts"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(stamps.value(nodes.num_rows() - 1), horizon.to_us);
    let stopped = WaterNetwork.run(&city, horizon, 0, &Parameters::new(), &|_, _| false);
    assert!(stopped.unwrap_err().to_string().contains("stopped on request"));
}

/// Heads (in feet) and leaks (in gallons a minute) of EPANET 2.3.5 (owa-epanet) for Net1 with the section below, at accuracy 1e-7.
#[test]
fn leaks_along_pipes_are_those_of_epanet() {
    let leaking = "[LEAKAGE]\n 12 20 0\n 21 5 4\n 113 0 6\n 110 30 0\n[OPTIONS]";
    let text = NET_1.replacen("[OPTIONS]", leaking, 1);
    assert_ne!(text, NET_1);
    let set = [("accuracy", 1e-7.into()), ("trials", 500.into()), ("quality", "none".into())];
    let outcome = run(tables(&text), &set).unwrap();
    assert_eq!(outcome.summary["converged"], true);
    for (node, at_start, at_noon) in [
        ("10", 989.571_449_5, 839.126_731_4),
        ("11", 968.434_808_3, 798.103_418_8),
        ("13", 809.401_108_1, 745.039_255_4),
        ("21", 835.893_770_9, 755.562_330_2),
        ("22", 834.602_769_2, 751.267_881_7),
        ("32", 830.667_902_1, 748.642_933_8),
        ("2", 970.0, 949.998_106_8),
    ] {
        for (time, expected) in [(0, at_start), (43_200, at_noon)] {
            let head = at(&outcome, "nodes", node, "head_m", time) / 0.3048;
            assert!((head - expected).abs() < 1e-3, "node {node} at {time} s: {head} is not {expected}");
        }
    }
    let gallons = 448.831 / 0.028_317;
    let leak = |pipe: &str| at(&outcome, "links", pipe, "leak_m3s", 0) * gallons;
    let expected =
        [("12", 332.446_546_8), ("21", 2_493.186_072), ("110", 22.849_609_7), ("113", 2_690.112_928)];
    for (pipe, expected) in expected {
        assert!(
            (leak(pipe) - expected).abs() < 1e-5 * expected,
            "pipe {pipe}: {} is not {expected}",
            leak(pipe)
        );
    }
    // What leaks leaves beside the demand: 1100 gallons a minute at the start.
    let outflow: f64 = ["11", "12", "13", "21", "22", "23", "31", "32"]
        .iter()
        .map(|node| at(&outcome, "nodes", node, "demand_m3s", 0) * gallons)
        .sum();
    let leaks: f64 = expected.iter().map(|(pipe, _)| leak(pipe)).sum();
    assert!((outflow - leaks - 1100.0).abs() < 0.1, "{outflow} is not {leaks} + 1100");
}
