//! Cases that are read, statements that are run, and mistakes that are named.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};

use super::*;

/// A case with a conversion at its end, as distribution networks have them.
const CONVERTED: &str = "function mpc = small\n\
%% a comment with 'a quote\n\
mpc.version = '2';\n\
mpc.baseMVA = 10;\n\
mpc.bus = [ %% kW here\n\
\t1\t3\t0\t0\t0\t0\t1\t1\t0\t12.66\t1\t1\t1;\n\
\t2\t1\t100\t60\t0\t-0.5\t1\t1\t-1e1\t12.66\t1\t1.1\t0.9 % no semicolon\n\
];\n\
mpc.gen = [\n\
\t1, 0, 0, Inf, -Inf, 1, 100, 1, 10, 0, ...\n\
\t0 0;\n\
];\n\
mpc.branch = [ 1 2 0.0922 0.0470 0 0 0 0 0 0 1 -360 360; 1 2 1 1 0 5 0 0 0.98 -30 0 -360 360 ];\n\
mpc.gencost = [\n2 0 0 3 0 20 0;\n];\n\
mpc.bus_name = {\n\t'Slack  ';\n\t'Load 100% of the time';\n};\n\
\n\
[PQ, PV, REF, NONE, BUS_I, BUS_TYPE, PD, QD, GS, BS, BUS_AREA, VM, ...\n    VA, BASE_KV] = idx_bus;\n\
[F_BUS, T_BUS, BR_R, BR_X] = idx_brch;\n\
Vbase = mpc.bus(1, BASE_KV) * 1e3;      %% in Volts\n\
Sbase = mpc.baseMVA * 1e6;              %% in VA\n\
mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (Vbase^2 / Sbase);\n\
mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;\n";

fn floats(batch: &RecordBatch, name: &str) -> Vec<f64> {
    batch[name].as_primitive::<Float64Type>().values().to_vec()
}

#[test]
fn conversions_at_the_end_are_applied() {
    let tables = read_case(CONVERTED, "small.m").unwrap();
    assert_eq!(floats(&tables["system"], "base_mva"), [10.0]);
    let (buses, branches) = (&tables["buses"], &tables["branches"]);
    assert_eq!(floats(buses, "demand_mw"), [0.0, 0.1]);
    assert_eq!(floats(buses, "demand_mvar"), [0.0, 0.06]);
    assert_eq!(floats(buses, "va_deg"), [0.0, -10.0]);
    let ohm = 12_660.0_f64.powi(2) / 10e6;
    assert!((floats(branches, "r_pu")[0] - 0.0922 / ohm).abs() < 1e-15);
    assert!((floats(branches, "x_pu")[0] - 0.0470 / ohm).abs() < 1e-15);
    assert_eq!(floats(branches, "tap_ratio"), [1.0, 0.98]);
    let rating = branches["rating_mva"].as_primitive::<Float64Type>();
    assert!(rating.is_null(0) && rating.value(1) == 5.0);
    assert_eq!(branches["in_service"].as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
    let names: Vec<_> = buses["name"].as_string::<i32>().iter().flatten().collect();
    assert_eq!(names, ["Slack", "Load 100% of the time"]);
    let kinds: Vec<_> = buses["kind"].as_string::<i32>().iter().flatten().collect();
    assert_eq!(kinds, ["slack", "pq"]);
    let generators = &tables["generators"];
    assert_eq!(generators["bus_id"].as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(floats(generators, "q_max_mvar"), [f64::INFINITY]);
    assert_eq!(floats(generators, "q_min_mvar"), [f64::NEG_INFINITY]);
}

#[test]
fn a_statement_that_is_not_understood_is_named_with_its_line() {
    let last = CONVERTED.lines().count() + 1;
    for (statement, word) in [
        ("mpc.bus(:, PD) = scale(mpc.bus(:, PD));", "'scale' is not known"),
        ("mpc = loadcase('other');", "'loadcase' is not known"),
        ("for i = 1:3", "this statement cannot be read"),
        ("mpc.bus(mpc.bus(:, PD) > 0, PD) = 1;", "is expected here"),
        ("mpc.bus(:, 99) = 1;", "there is no column 99"),
        ("mpc.branch = mpc.branch * mpc.branch;", "is not among what"),
        ("mpc.bus(:, PD) = [1 2 3];", "does not fit"),
    ] {
        let error = read_case(&format!("{CONVERTED}{statement}\n"), "small.m").unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(error.contains(&format!("small.m:{last}:")), "{error}");
    }
}

#[test]
fn mistakes_in_the_matrices_are_named() {
    let said = |from: &str, to: &str| {
        assert!(CONVERTED.contains(from), "{from}");
        read_case(&CONVERTED.replace(from, to), "small.m").unwrap_err().to_string()
    };
    let error = said("\t2\t1\t100", "\t2\t7\t100");
    assert!(error.contains("row 2 of mpc.bus: bus type 7") && error.contains("small.m:7:"), "{error}");
    let error = said("\t2\t1\t100", "\t2\t1\tabc");
    assert!(error.contains("'abc' is not a number") && error.contains("small.m:7:"), "{error}");
    let error = said("0.9 % no", "0.9 3 % no");
    assert!(error.contains("this row has 14 numbers, the rows above 13"), "{error}");
    let error = said("mpc.version = '2';", "mpc.version = '1';");
    assert!(error.contains("mpc.version = '2'"), "{error}");
    let error = said("mpc.baseMVA = 10;", "");
    assert!(error.contains("'mpc.baseMVA' is not known"), "{error}");
    let error = said("function mpc = small", "function [baseMVA, bus] = small");
    assert!(error.contains("format version 1"), "{error}");
    let error = read_case("hello", "x.m").unwrap_err().to_string();
    assert!(error.contains("not a MATPOWER case"), "{error}");
    // One matrix is missing.
    let error = said("mpc.gen = [", "mpc.gens = [");
    assert!(error.contains("no matrix mpc.gen"), "{error}");
}

#[test]
fn a_text_cut_off_anywhere_is_an_error_and_no_panic() {
    let text = CONVERTED.replace("a comment", "a kommentär ☃");
    for (end, _) in text.char_indices() {
        let _ = read_case(&text[..end], "cut.m");
    }
    assert!(read_case(&text[..text.len() / 2], "cut.m").is_err());
}
