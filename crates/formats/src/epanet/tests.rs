//! Networks that are read, units that are turned, and mistakes that are named.

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;

use super::*;

/// EPANET Example Network 1 (US EPA, MIT licence).
const NET_1: &str = include_str!("net1.inp");

fn floats(batch: &RecordBatch, name: &str) -> Vec<f64> {
    batch[name].as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)).collect()
}

fn words(batch: &RecordBatch, name: &str) -> Vec<String> {
    batch[name].as_string::<i32>().iter().map(|word| word.unwrap_or("-").to_owned()).collect()
}

fn option(tables: &BTreeMap<String, RecordBatch>, name: &str) -> Option<f64> {
    let options = &tables["options"];
    let row = words(options, "name").iter().position(|other| other == name)?;
    Some(floats(options, "number")[row])
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}

#[test]
fn reads_the_first_example() {
    let tables = read_network(NET_1, "net1.inp").unwrap();
    let rows = |role: &str| tables[role].num_rows();
    assert_eq!(
        ["junctions", "reservoirs", "tanks", "pipes", "pumps", "valves"].map(rows),
        [9, 1, 1, 12, 1, 0]
    );
    assert!(near(floats(&tables["junctions"], "elevation_m")[0], 710.0 * 0.3048));
    assert!(near(floats(&tables["reservoirs"], "head_m")[0], 800.0 * 0.3048));
    let tanks = &tables["tanks"];
    assert!(near(floats(tanks, "initial_level_m")[0], 120.0 * 0.3048));
    assert!(near(floats(tanks, "diameter_m")[0], 50.5 * 0.3048));
    let pipes = &tables["pipes"];
    assert_eq!(words(pipes, "link_id")[..2], ["10", "11"]);
    assert!(near(floats(pipes, "length_m")[0], 10530.0 * 0.3048));
    assert!(near(floats(pipes, "diameter_m")[0], 18.0 * 0.0254));
    assert_eq!(floats(pipes, "bulk_coefficient")[0], -0.5);
    assert!(near(floats(pipes, "wall_coefficient")[0], -0.3048));
    assert_eq!(words(&tables["pumps"], "curve_id"), ["1"]);
    let curves = &tables["curves"];
    assert!(
        near(floats(curves, "x")[0], 1500.0 / 448.831 * 0.028_317)
            && near(floats(curves, "y")[0], 250.0 * 0.3048)
    );
    // Junctions without demand have no row.
    assert_eq!(rows("demands"), 8);
    assert_eq!(option(&tables, "duration_s"), Some(86400.0));
    assert_eq!(option(&tables, "pattern_step_s"), Some(7200.0));
    assert_eq!(option(&tables, "quality_step_s"), Some(300.0));
    assert_eq!(words(&tables["controls"], "kind"), ["below", "above"]);
    assert!(near(floats(&tables["controls"], "level_m")[0], 110.0 * 0.3048));
    assert_eq!(floats(&tables["junctions"], "initial_quality")[0], 0.5);
    assert_eq!(floats(&tables["junctions"], "x")[0], 20.0);
}

#[test]
fn every_flow_unit_is_turned_to_cubic_metres_a_second() {
    // EPANET's factors are rounded: two parts in 10⁴ at most.
    let expected = [
        ("CFS", 0.028_316_8),
        ("GPM", 6.309_02e-5),
        ("MGD", 0.043_812_6),
        ("IMGD", 0.052_616_7),
        ("AFD", 0.014_276_4),
        ("LPS", 1e-3),
        ("LPM", 1.0 / 60_000.0),
        ("MLD", 1e3 / 86400.0),
        ("CMH", 1.0 / 3600.0),
        ("CMD", 1.0 / 86400.0),
        ("CMS", 1.0),
    ];
    for (unit, factor) in expected {
        let text = format!(
            "[OPTIONS]\nUNITS {unit}\n[JUNCTIONS]\nJ 100 1\n[RESERVOIRS]\nR 1\n[PIPES]\nP R J 1 1 1\n"
        );
        let tables = read_network(&text, "units.inp").unwrap();
        let found = floats(&tables["demands"], "demand_m3s")[0];
        assert!((found / factor - 1.0).abs() < 2e-4, "{unit}: {found}");
        let elevation = floats(&tables["junctions"], "elevation_m")[0];
        let metric = matches!(unit, "LPS" | "LPM" | "MLD" | "CMH" | "CMD" | "CMS");
        assert_eq!(elevation, if metric { 100.0 } else { 30.48 }, "{unit}");
    }
}

const SMALL: &str = "[JUNCTIONS]\nA 0 1 P1\nB 10 2\n[RESERVOIRS]\nR 100 P1\n[TANKS]\nT 50 1 0 10 20 0 V YES\n\
    [PIPES]\nP R A 100 12 100 0.5 CV\nQ A B 100 12 100 Closed\nS B T 100 12 100 0.2 Open\n\
    [PUMPS]\nU R B POWER 10 SPEED 0.8 PATTERN P1\n\
    [VALVES]\nW A B 12 PRV 50 0.1\nX A B 12 FCV 100\nY A B 12 GPV H\n\
    [DEMANDS]\nA 3 P1 ;first\nA 4\n[STATUS]\nU 1.2\nX Closed\n[PATTERNS]\nP1 1 2\nP1 3\n\
    [CURVES]\nV 0 0\nV 10 500\nH 0 0\nH 100 10\n[EMITTERS]\nB 5\n\
    [CONTROLS]\nLINK W 40 IF NODE B ABOVE 30\nLINK Q OPEN AT CLOCKTIME 6 PM\nLINK U 0.5 AT TIME 2:30 DISABLED\n\
    [RULES]\nRULE one\nIF TANK T LEVEL BELOW 5\nOR SYSTEM CLOCKTIME >= 8 PM\nTHEN PUMP U SETTING IS 1.1\n\
    ELSE PIPE Q STATUS = CLOSED\nPRIORITY 3\n\
    [QUALITY]\nA R 0.5\n[SOURCES]\nR MASS 12 P1\n[MIXING]\nT 2COMP 0.3\n\
    [REACTIONS]\nORDER WALL 0\nGLOBAL BULK -1\nWALL P -2\nTANK T -3\n\
    [ENERGY]\nGLOBAL PRICE 3\n[TAGS]\n[TIMES]\nDURATION 1 DAY\nSTART CLOCKTIME 6 AM\n[OPTIONS]\nPRESSURE PSI\n[END]\nafter the end\n";

#[test]
fn reads_every_section() {
    let tables = read_network(SMALL, "small.inp").unwrap();
    assert_eq!(words(&tables["pipes"], "status"), ["open", "closed", "open"]);
    let check: Vec<_> = tables["pipes"]["check_valve"].as_boolean().iter().flatten().collect();
    assert_eq!(check, [true, false, false]);
    assert_eq!(floats(&tables["pipes"], "minor_loss"), [0.5, 0.0, 0.2]);
    assert_eq!(floats(&tables["pumps"], "speed"), [1.2]);
    assert!(near(floats(&tables["pumps"], "power_kw")[0], 7.457));
    let psi = 0.3048 / 0.4333;
    let settings = floats(&tables["valves"], "setting");
    assert!(near(settings[0], 50.0 * psi) && near(settings[1], 100.0 / 448.831 * 0.028_317));
    assert_eq!(words(&tables["valves"], "status"), ["active", "closed", "open"]);
    assert_eq!(words(&tables["valves"], "curve_id"), ["-", "-", "H"]);
    let demands = &tables["demands"];
    assert_eq!(words(demands, "node_id"), ["A", "A", "B"]);
    assert_eq!(words(demands, "pattern_id"), ["P1", "-", "-"]);
    assert_eq!(floats(&tables["patterns"], "factor"), [1.0, 2.0, 3.0]);
    assert!(near(floats(&tables["junctions"], "emitter_m3s")[1], 5.0 / 448.831 * 0.028_317 / psi.sqrt()));
    let controls = &tables["controls"];
    assert_eq!(words(controls, "kind"), ["above", "clock_time", "time"]);
    assert_eq!(words(controls, "status"), ["-", "open", "open"]);
    assert!(
        near(floats(controls, "level_m")[0], 30.0 * psi) && near(floats(controls, "setting")[0], 40.0 * psi)
    );
    assert_eq!(floats(controls, "time_s")[1..], [64800.0, 9000.0]);
    assert_eq!(controls["enabled"].as_boolean().iter().flatten().collect::<Vec<_>>(), [true, true, false]);
    let premises = &tables["rule_premises"];
    assert_eq!(words(premises, "variable"), ["level", "clock_time"]);
    assert_eq!(words(premises, "relation"), ["<", ">="]);
    assert_eq!(words(premises, "conjunction"), ["and", "or"]);
    assert!(near(floats(premises, "value")[0], 5.0 * 0.3048) && near(floats(premises, "value")[1], 72000.0));
    let actions = &tables["rule_actions"];
    assert_eq!(words(actions, "branch"), ["then", "else"]);
    assert_eq!(words(actions, "status"), ["-", "closed"]);
    assert_eq!(floats(&tables["rules"], "priority"), [3.0]);
    // A range of ids takes all between, by letters.
    assert_eq!(floats(&tables["junctions"], "initial_quality"), [0.5, 0.5]);
    assert_eq!(floats(&tables["reservoirs"], "initial_quality"), [0.5]);
    assert_eq!(floats(&tables["tanks"], "initial_quality"), [0.0]);
    assert_eq!(
        (words(&tables["tanks"], "mixing")[0].as_str(), floats(&tables["tanks"], "mixing_fraction")[0]),
        ("two_compartments", 0.3)
    );
    assert_eq!(floats(&tables["tanks"], "bulk_coefficient"), [-3.0]);
    assert_eq!(words(&tables["sources"], "kind"), ["mass"]);
    // Zero order: per area, which is square feet here.
    assert!(near(floats(&tables["pipes"], "wall_coefficient")[0], -2.0 / 0.3048_f64.powi(2)));
    assert_eq!(option(&tables, "duration_s"), Some(86400.0));
    assert_eq!(option(&tables, "clock_start_s"), Some(21600.0));
    let curves = &tables["curves"];
    let volume = floats(curves, "y").into_iter().fold(0.0, f64::max);
    assert!(near(volume, 500.0 * 0.3048_f64.powi(3)));
}

#[test]
fn mistakes_name_file_line_and_section() {
    for (from, to, message) in [
        ("B 10 2\n", "B ten 2\n", "section [JUNCTIONS]: the elevation 'ten' is not a number"),
        ("B 10 2\n", "B 10 2\nA 1 1\n", "section [JUNCTIONS]: the node 'A' is there twice"),
        (
            "P R A 100 12 100 0.5 CV",
            "P R AA 100 12 100 0.5 CV",
            "section [PIPES]: the node 'AA' is not defined",
        ),
        ("P R A 100 12 100", "P R R 100 12 100", "section [PIPES]: a link must join two different nodes"),
        ("P R A 100 12 100", "P R A 0 12 100", "section [PIPES]: the length 0 must be above 0"),
        (
            "Q A B 100 12 100 Closed",
            "Q A B 100 12 100 Shut",
            "section [PIPES]: the minor loss 'Shut' is not a number",
        ),
        ("U R B POWER 10", "U R B POWR 10", "section [PUMPS]: none of HEAD, POWER"),
        ("12 PRV 50", "12 PRX 50", "section [VALVES]: the valve type 'PRX' is unknown"),
        ("W A B 12 PRV", "W A T 12 PRV", "section [VALVES]: a PRV cannot be joined to a tank"),
        ("A 3 P1 ;first", "A 3 P9", "section [DEMANDS]: the pattern 'P9' is not defined"),
        ("Y A B 12 GPV H", "Y A B 12 GPV G", "section [VALVES]: the curve 'G' is not defined"),
        ("H 100 10", "H 0 10", "section [CURVES]: the x of a curve must rise"),
        ("IF NODE B ABOVE 30", "IF NODE B OVER 30", "section [CONTROLS]: neither ABOVE nor BELOW"),
        ("LINK W 40 IF", "LINK P 40 IF", "section [CONTROLS]: a check valve cannot be controlled"),
        ("OR SYSTEM", "XOR SYSTEM", "section [RULES]: this clause is out of place"),
        ("THEN PUMP U", "IF PUMP U", "section [RULES]: this clause is out of place"),
        ("LEVEL BELOW 5", "LEVEL AROUND 5", "section [RULES]: the relation 'AROUND' is unknown"),
        ("T 50 1 0 10", "T 50 11 0 10", "section [TANKS]: the initial level is not between"),
        ("DURATION 1 DAY", "DURATION soon", "section [TIMES]: 'soon' is not a time"),
        ("PRESSURE PSI", "PRESSURE ATM", "section [OPTIONS]: the pressure unit is unknown"),
        ("PRESSURE PSI", "AKKURACY 1", "section [OPTIONS]: this option is unknown"),
        ("[ENERGY]", "[LEAKAGE]\nP 1\n[ENERGY]", "section [LEAKAGE]: the expansion of leaks is missing"),
        ("[ENERGY]", "[LEAKAGE]\nQQ 1 1\n[ENERGY]", "section [LEAKAGE]: the link 'QQ' is not defined"),
        ("[ENERGY]", "[LEAKAGE]\nP -1 1\n[ENERGY]", "section [LEAKAGE]: the leak area"),
        ("[ENERGY]", "[ENERGIE]x", "energy"),
        ("[TAGS]", "[TUGS]", "the section [TUGS] is unknown"),
        ("T 2COMP", "T HALF", "section [MIXING]: the mixing model is none of"),
        ("ORDER WALL 0", "ORDER WALL 2", "section [REACTIONS]: the order of a wall reaction is 0 or 1"),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let text = SMALL.replacen(from, to, 1);
        match read_network(&text, "small.inp") {
            // The letters of a heading count only as far as the format looks.
            Ok(_) => assert_eq!(message, "energy", "{to}"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(message), "{to}: {error}");
                assert!(error.contains("small.inp:"), "{error}");
            }
        }
    }
    let error = read_network("no network", "x.inp").unwrap_err().to_string();
    assert!(error.contains("data before the first section"), "{error}");
}

#[test]
fn a_text_cut_off_anywhere_does_not_panic() {
    let text = SMALL.replace("first", "première ☃");
    for (end, _) in text.char_indices() {
        let _ = read_network(&text[..end], "cut.inp");
    }
}
