//! What the operators promise, one by one and all together.

use futures::executor::block_on;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use twinlake_contracts::{Batch, Rejects, parse_us};

use crate::transforms::law::{Outcome, batch, build, cuts, mistake, readings, row_wise, schema, streams};

fn values(outcome: &Outcome) -> Vec<Option<f64>> {
    outcome.column("value").iter().map(Json::as_f64).collect()
}

#[test]
fn a_value_that_changes_too_fast_is_refused_until_time_allows_it() {
    let settings =
        json!({ "type": "clean", "key": ["id"], "rate_of_change": { "value": { "max_per_second": 1.0 } } });
    let rows =
        readings(&[(0, 0.0), (2, 2.0), (3, 9.0), (4, 9.0), (9, 9.0), (9, 9.0), (9, 8.0), (5, 8.0), (1, 8.0)]);
    let outcome = row_wise(&settings, &rows, &[4]);
    let expected = [(3, "rate_of_change"), (4, "rate_of_change"), (7, "rate_of_change")];
    // At 9 s the seven since 2 s are allowed; another value at the same instant never; 8 at 5 s is near enough to 9.
    assert_eq!(outcome.reasons(), expected);
    assert_eq!(outcome.rejects[0].2, "value = 9 after 2 at 1970-01-01T00:00:02Z: more than 1 a second");
}

#[test]
fn a_value_that_stays_too_long_is_stuck() {
    let settings = |more: Json| {
        let mut own = json!({ "longer_than": "10s" });
        own.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "type": "clean", "key": ["id"], "stuck": { "value": own } })
    };
    let rows =
        readings(&[(0, 5.0), (10, 5.0), (11, 5.0), (12, 5.1), (13, 5.0), (23, 5.0), (24, 5.0), (3, 5.0)]);
    assert_eq!(row_wise(&settings(json!({})), &rows, &[3]).reasons(), [(3, "stuck"), (7, "stuck")]);
    let tolerant = row_wise(&settings(json!({ "tolerance": 0.2 })), &rows, &[3]);
    assert_eq!(tolerant.reasons().iter().map(|(row, _)| *row).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    assert_eq!(row_wise(&settings(json!({ "except": [5] })), &rows, &[3]).reasons(), []);
    let flagged = row_wise(&settings(json!({ "action": "flag" })), &rows, &[3]);
    assert_eq!(flagged.column("quality")[2], json!("stuck:value"));
    assert_eq!(flagged.column("quality")[3], Json::Null);
}

#[test]
fn a_spike_among_the_values_before_it() {
    let own = json!({ "window": 4, "min_deviation": 0.5 });
    let settings = json!({ "type": "clean", "key": ["id"], "spike": { "value": own } });
    let stream = [1.0, 1.2, 0.9, 1.1, 9.0, 1.0, f64::NAN, 1.1, 9.0, 9.1, 9.2, 9.0, 9.1];
    let rows: Vec<(i64, f64)> = (0..).zip(stream).collect();
    let outcome = row_wise(&settings, &readings(&rows), &[5, 1]);
    // The first value of the step to 9 is a spike; then half of the window, with the spike before, is at the new level.
    assert_eq!(outcome.reasons(), [(5, "spike"), (7, "not_finite"), (9, "spike")]);
}

#[test]
fn a_spike_among_the_values_around_it() {
    let own =
        json!({ "window": 2, "min_deviation": 0.5, "min_values": 3, "centred": true, "action": "null" });
    let settings = json!({ "type": "clean", "key": ["id"], "spike": { "value": own } });
    let rows: Vec<(i64, f64)> = (0..).zip([1.0, 1.1, 9.0, 1.0, 1.1, 9.0, 9.1, 9.0, 9.2]).collect();
    let outcome = row_wise(&settings, &readings(&rows), &[4]);
    let kept = values(&outcome);
    assert_eq!(kept[2], None, "the spike is blanked");
    assert_eq!(&kept[5..], [Some(9.0), Some(9.1), Some(9.0), Some(9.2)], "a step is no spike");
    assert_eq!(outcome.rows.iter().map(|(_, s)| s.unwrap()).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
}

#[test]
fn only_changes_beyond_the_dead_band_pass() {
    let settings = json!({ "type": "clean", "key": ["id"], "dead_band": {
        "value": { "absolute": 1.0, "max_silence": "60s" },
    } });
    let rows = readings(&[
        (0, 5.0),
        (1, 5.9),
        (2, 6.0),
        (3, 6.1),
        (4, 5.2),
        (5, f64::NAN),
        (6, f64::NAN),
        (7, 5.0),
        (67, 5.1),
    ]);
    let outcome = row_wise(&settings, &rows, &[2]);
    let rows: Vec<u64> = outcome.reasons().iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, [2, 3, 5, 7], "the band is inclusive; to lose the value is a change; 60 s are too long");
    let percent = json!({ "type": "clean", "dead_band": { "value": { "percent": 10, "action": "null" } } });
    let rows = readings(&[(0, 100.0), (1, 109.0), (2, 111.0), (3, 99.0)]);
    assert_eq!(values(&row_wise(&percent, &rows, &[])), [Some(100.0), None, Some(111.0), Some(99.0)]);
}

#[test]
fn a_row_passes_when_one_of_its_columns_leaves_the_band() {
    let settings = json!({ "type": "clean", "key": ["id"], "dead_band": {
        "value": { "absolute": 1 }, "other": { "absolute": 1 },
    } });
    let rows = batch(&[
        (Some("a"), Some(0), Some(0.0), Some(0.0)),
        (Some("a"), Some(1), Some(0.5), Some(0.5)),
        (Some("a"), Some(2), Some(0.5), Some(2.0)),
        (Some("a"), Some(3), Some(1.2), Some(2.0)),
        (None, Some(3), Some(1.2), Some(2.0)),
        (Some("b"), Some(3), Some(1.2), Some(2.0)),
    ]);
    let outcome = row_wise(&settings, &rows, &[1]);
    assert_eq!(outcome.reasons(), [(2, "dead_band"), (4, "dead_band")], "0.5 passed with row 3");
}

#[test]
fn readings_on_a_line_are_left_out() {
    let settings = |more: Json| {
        let mut own = json!({ "column": "value", "deviation": 0.5 });
        own.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "type": "clean", "key": ["id"], "swinging_door": own })
    };
    let rows = readings(&[
        (0, 0.0),
        (1, 1.0),
        (2, 2.4),
        (3, 3.0),
        (4, 1.0),
        (5, -1.0),
        (4, 7.0),
        (6, f64::NAN),
        (7, 5.0),
    ]);
    let outcome = row_wise(&settings(json!({})), &rows, &[2]);
    assert_eq!(outcome.reasons(), [(2, "swinging_door"), (3, "swinging_door"), (5, "swinging_door")]);
    assert_eq!(values(&outcome).iter().flatten().copied().collect::<Vec<_>>(), [0.0, 3.0, 7.0, -1.0, 5.0]);
    let steady = readings(&[(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0)]);
    let outcome = row_wise(&settings(json!({ "max_silence": "2s" })), &steady, &[2]);
    assert_eq!(outcome.reasons(), [(2, "swinging_door"), (4, "swinging_door")]);
}

#[test]
fn a_changed_operator_starts_anew_unless_it_holds_rows() {
    let first = json!({ "type": "clean", "key": ["id"], "spike": { "value": { "window": 3 } }, "stuck": { "value": { "longer_than": "1h" } } });
    let changed = json!({ "type": "clean", "key": ["id"], "spike": { "other": { "window": 3 } }, "dead_band": { "value": { "absolute": 1 } } });
    let holding =
        json!({ "type": "clean", "key": ["id"], "spike": { "value": { "window": 3, "centred": true } } });
    let state = |settings: &Json| {
        let mut transform = build(settings, &schema()).unwrap();
        let rows = readings(&[(0, 1.0), (1, 1.0)]);
        block_on(transform.process(0, Batch { rows, sequences: None }, &mut Rejects::default())).unwrap();
        transform.state().unwrap()
    };
    let restore = |settings: &Json, state: &[u8]| build(settings, &schema()).unwrap().restore(state);
    restore(&changed, &state(&first)).unwrap();
    restore(&first, &state(&changed)).unwrap();
    let error = restore(&first, &state(&holding)).unwrap_err().to_string();
    assert!(error.contains("'spike_centred' was changed while it held rows back"), "{error}");
    assert!(restore(&first, b"\x02nonsense").is_err());
}

#[test]
fn units_change_values_types_and_names() {
    let settings = json!({ "type": "clean", "key": ["id"],
        "unit": { "value": { "from": "degF", "to": "degC", "rename": "value_c" }, "other": { "from": "km/h", "to": "m/s" } },
        "range": { "value_c": [-40, 60] },
        "range_action": "flag",
    });
    let rows =
        batch(&[(Some("a"), Some(0), Some(212.0), Some(36.0)), (Some("a"), Some(1), None, Some(f64::NAN))]);
    let outcome = row_wise(&settings, &rows, &[1]);
    assert_eq!(outcome.column("value_c"), [json!(100.0), Json::Null]);
    assert_eq!(outcome.column("other")[0], json!(10.0));
    assert_eq!(outcome.column("quality"), [json!("out_of_range:value_c"), Json::Null]);
}

#[test]
fn several_flags_stand_side_by_side() {
    let settings = json!({ "type": "clean", "key": ["id"], "range": { "value": [0, 5] }, "range_action": "flag",
        "rate_of_change": { "value": { "max_per_second": 1, "action": "flag" } },
    });
    let outcome = row_wise(&settings, &readings(&[(0, 1.0), (1, 9.0)]), &[]);
    assert_eq!(outcome.column("quality"), [Json::Null, json!("out_of_range:value,rate_of_change:value")]);
}

#[test]
fn mistakes_name_the_column_and_the_way_out() {
    let clean =
        |key: &str, column: &str, own: Json| mistake(&json!({ "type": "clean", key: { column: own } }));
    for (found, expected) in [
        (clean("spike", "valu", json!({ "window": 5 })), "did you mean 'value'?"),
        (clean("spike", "id", json!({ "window": 5 })), "only numbers have spikes"),
        (clean("spike", "value", json!({ "window": 1 })), "'window' of 'value' is not a number from 2"),
        (clean("spike", "value", json!({ "window": 5, "n_sigma": 0 })), "'n_sigma' of 'value'"),
        (clean("spike", "value", json!({ "window": 5, "min_values": 6 })), "'min_values' of 'value'"),
        (clean("spike", "value", json!({ "window": 5, "action": "drop" })), "unknown variant `drop`"),
        (clean("rate_of_change", "value", json!({ "max_per_second": -1 })), "is not a number above 0"),
        (clean("stuck", "value", json!({ "longer_than": "10" })), "is not a length of time"),
        (clean("stuck", "value", json!({ "longer_than": "1h", "tolerance": -1 })), "'tolerance' of 'value'"),
        (clean("dead_band", "value", json!({})), "has no width"),
        (clean("dead_band", "value", json!({ "percent": -1 })), "'percent' of 'value'"),
        (clean("unit", "value", json!({ "from": "kmh", "to": "m/s" })), "did you mean 'km/h'?"),
        (
            clean("unit", "value", json!({ "from": "km/h", "to": "kg" })),
            "'km/h' is a unit of speed, 'kg' one of mass",
        ),
        (
            clean("unit", "value", json!({ "from": "km/h", "to": "m/s", "rename": true })),
            "does not end in _kmh",
        ),
        (
            clean("unit", "value", json!({ "from": "m", "to": "km", "rename": "other" })),
            "two columns 'other'",
        ),
        (
            mistake(&json!({ "type": "clean", "swinging_door": { "column": "value", "deviation": 0 } })),
            "'deviation' of the swinging door is not a number above 0",
        ),
        (
            mistake(&json!({ "type": "clean", "swinging_door": { "column": "valu", "deviation": 1 } })),
            "did you mean 'value'?",
        ),
        (mistake(&json!({ "type": "clean" })), "cleans nothing"),
        (mistake(&json!({ "type": "clean", "key": ["i"], "range": { "value": [0, 1] } })), "no column 'i'"),
        (
            mistake(
                &json!({ "type": "clean", "time": "value", "stuck": { "value": { "longer_than": "1h" } } }),
            ),
            "'value' has type Float64, not a time stamp",
        ),
        (
            mistake(
                &json!({ "type": "clean", "quality": "other", "range": { "value": [0, 1] }, "range_action": "flag" }),
            ),
            "'other' has type Float64: flags are text",
        ),
    ] {
        assert!(found.contains(expected), "{found}\n(expected: {expected})");
    }
}

fn settings() -> impl Strategy<Value = Json> {
    let action = || prop_oneof![Just("reject"), Just("null"), Just("flag")];
    let operators = (
        proptest::option::of((2..6usize, 1.0..4.0, any::<bool>(), action()).prop_map(|(window, n_sigma, centred, action)| {
            let own = json!({ "window": window, "n_sigma": n_sigma, "min_values": 2, "centred": centred, "action": action });
            json!({ "value": own, "other": { "window": 3, "centred": !centred } })
        })),
        proptest::option::of((0.1..5.0, action()).prop_map(|(rate, action)| {
            json!({ "value": { "max_per_second": rate, "action": action } })
        })),
        proptest::option::of((1..20u32, 0.0..1.5, action()).prop_map(|(seconds, tolerance, action)| {
            json!({ "value": { "longer_than": format!("{seconds}s"), "tolerance": tolerance, "action": action } })
        })),
        proptest::option::of((0.0..3.0, action(), action()).prop_map(|(absolute, first, second)| {
            json!({ "value": { "absolute": absolute, "max_silence": "20s", "action": first }, "other": { "percent": 20, "action": second } })
        })),
        (1..4usize, any::<bool>(), action(), proptest::option::of(0.1..3.0)),
    );
    operators.prop_map(|(spike, rate, stuck, band, (max_keys, dedup, range_action, door))| {
        let mut own = json!({ "type": "clean", "key": ["id"], "max_keys": max_keys, "range": { "other": [-90, 90] }, "range_action": range_action });
        for (key, value) in [("spike", spike), ("rate_of_change", rate), ("stuck", stuck), ("dead_band", band)] {
            if let Some(value) = value {
                own[key] = value;
            }
        }
        if let Some(deviation) = door {
            own["swinging_door"] = json!({ "column": "value", "deviation": deviation, "max_silence": "15s" });
        }
        if dedup {
            own["dedup"] = json!({ "by": ["id", "ts"], "within": "5s" });
        }
        own
    })
}

proptest! {
    #[test]
    fn cuts_and_restarts_change_nothing(settings in settings(), rows in streams(), cuts in cuts()) {
        row_wise(&settings, &batch(&rows), &cuts);
    }

    #[test]
    fn what_the_swinging_door_leaves_out_lies_near_the_line(
        values in proptest::collection::vec(-10.0..10.0, 2..60), deviation in 0.1..8.0, step in 1..4i64,
    ) {
        let rows: Vec<(i64, f64)> = (0..).step_by(step as usize).zip(values).collect();
        let settings = json!({ "type": "clean", "swinging_door": { "column": "value", "deviation": deviation } });
        let outcome = row_wise(&settings, &readings(&rows), &[]);
        let passed: Vec<(i64, f64)> = outcome
            .rows
            .iter()
            .map(|(row, _)| (parse_us(row["ts"].as_str().unwrap()).unwrap() / 1_000_000, row["value"].as_f64().unwrap()))
            .collect();
        for (time, value) in rows {
            let after = passed.partition_point(|(at, _)| *at < time);
            let ((t1, v1), (t0, v0)) = (passed[after], passed[after.saturating_sub(1)]);
            let line = if t1 == t0 { v1 } else { v0 + (v1 - v0) * (time - t0) as f64 / (t1 - t0) as f64 };
            prop_assert!((line - value).abs() <= deviation + 1e-9, "{} s: {} and {}", time, line, value);
        }
    }
}
