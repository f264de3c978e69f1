//! What `type = "resample"` promises: readings on a grid.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::transforms::law::{Outcome, Row, batch, cuts, mistake, outcome, readings, streams};

fn resample(method: &str) -> Json {
    json!({ "type": "resample", "key": ["id"], "interval": "10s", "max_gap": "30s", "method": method })
}

fn shown(outcome: &Outcome) -> Vec<(i64, Option<f64>)> {
    let seconds = |cell: &Json| twinlake_contracts::parse_us(cell.as_str().unwrap()).unwrap() / 1_000_000;
    outcome.rows.iter().map(|(row, _)| (seconds(&row["ts"]), row["value"].as_f64())).collect()
}

#[test]
fn the_grid_between_readings() {
    let rows =
        readings(&[(5, 5.0), (25, 25.0), (40, 10.0), (71, 1.0), (80, 2.0), (80, 3.0), (79, 9.0), (90, 4.0)]);
    let linear = outcome(&resample("linear"), &rows, &[3]);
    let expected = [(10, 10.0), (20, 20.0), (30, 20.0), (40, 10.0), (80, 2.0), (90, 4.0)];
    assert_eq!(shown(&linear), expected.map(|(at, value)| (at, Some(value))), "40 to 71 is too long a gap");
    assert_eq!(linear.reasons(), [(7, "late")]);
    let made_by: Vec<_> = linear.rows.iter().filter_map(|(_, sequence)| *sequence).collect();
    assert_eq!(made_by, [2, 2, 3, 3, 5, 8]);
    let previous = shown(&outcome(&resample("previous"), &rows, &[3]));
    let expected = [(10, 5.0), (20, 5.0), (30, 25.0), (40, 10.0), (80, 2.0), (90, 4.0)];
    assert_eq!(previous, expected.map(|(at, value)| (at, Some(value))));
    let none = shown(&outcome(&resample("none"), &rows, &[3]));
    assert_eq!(none[0], (10, None));
    assert_eq!(none[3..], [(40, Some(10.0)), (80, Some(2.0)), (90, Some(4.0))]);
}

#[test]
fn a_value_at_one_end_only_is_null_in_between() {
    let rows: [Row; 3] = [
        (Some("a"), Some(0), Some(1.0), Some(f64::MAX)),
        (Some("a"), Some(20), None, Some(-f64::MAX)),
        (Some("a"), None, None, None),
    ];
    let found = outcome(&resample("linear"), &batch(&rows), &[1]);
    assert_eq!(shown(&found), [(0, Some(1.0)), (10, None), (20, None)]);
    assert_eq!(found.column("other")[1], json!(0.0), "no overflow");
    assert_eq!(found.reasons(), [(3, "missing_value")]);
}

#[test]
fn mistakes() {
    let with = |key: &str, value: Json| {
        let mut settings = resample("linear");
        settings[key] = value;
        mistake(&settings)
    };
    for (found, expected) in [
        (with("interval", json!("0s")), "'interval' must be above 0"),
        (with("max_gap", json!("100d")), "'max_gap' is more than 100000 times 'interval'"),
        (with("columns", json!(["valu"])), "did you mean 'value'?"),
        (with("columns", json!(["id"])), "only numbers"),
        (with("key", json!(["ts"])), "'ts' is both key and time"),
        (with("method", json!("cubic")), "unknown variant `cubic`"),
        (
            mistake(&json!({ "type": "resample", "interval": "1s", "method": "none" })),
            "missing field `max_gap`",
        ),
    ] {
        assert!(found.contains(expected), "{found}");
    }
}

proptest! {
    #[test]
    fn cuts_and_restarts_change_nothing(
        rows in streams(), cuts in cuts(), seconds in 1..8u32, gap in 0..40u32,
        method in prop_oneof![Just("linear"), Just("previous"), Just("none")], max_keys in 1..4usize,
    ) {
        let mut settings = resample(method);
        settings["interval"] = json!(format!("{seconds}s"));
        settings["max_gap"] = json!(format!("{gap}s"));
        settings["offset"] = json!("3s");
        settings["max_keys"] = json!(max_keys);
        let found = outcome(&settings, &batch(&rows), &cuts);
        for at in found.column("ts").iter().filter_map(|at| twinlake_contracts::parse_us(at.as_str()?)) {
            prop_assert_eq!((at / 1_000_000 - 3).rem_euclid(i64::from(seconds)), 0);
        }
    }
}
