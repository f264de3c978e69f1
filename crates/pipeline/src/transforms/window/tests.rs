//! What windows promise.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::transforms::law::{Outcome, Row, batch, cuts, mistake, outcome, readings, streams};

fn window(more: Json) -> Json {
    let mut settings = json!({ "type": "window", "key": ["id"], "aggregates": {
        "rows": { "function": "count" },
        "mean": { "function": "mean", "column": "value" },
        "last": { "function": "last", "column": "value" },
    } });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// Start and end in seconds, rows, mean.
fn shown(outcome: &Outcome) -> Vec<(i64, i64, i64, Option<f64>)> {
    let seconds = |cell: &Json| twinlake_contracts::parse_us(cell.as_str().unwrap()).unwrap() / 1_000_000;
    let rows = outcome.rows.iter().map(|(row, _)| {
        let (start, end) = (seconds(&row["window_start"]), seconds(&row["window_end"]));
        (start, end, row["rows"].as_i64().unwrap(), row["mean"].as_f64())
    });
    rows.collect()
}

#[test]
fn tumbling_windows_close_when_the_watermark_has_reached_their_end() {
    let settings = window(json!({ "kind": "tumbling", "size": "10s", "allowed_lateness": "5s" }));
    let rows =
        readings(&[(0, 1.0), (9, 3.0), (10, 5.0), (8, 8.0), (15, 7.0), (9, 9.0), (14, 6.0), (40, 0.0)]);
    let found = outcome(&settings, &rows, &[3]);
    let expected = [(0, 10, 3, Some(4.0)), (10, 20, 3, Some(6.0)), (40, 50, 1, Some(0.0))];
    assert_eq!(shown(&found), expected, "the row at 9 s came when the watermark was at 10 s");
    assert_eq!(found.reasons(), [(6, "late")]);
    assert_eq!(found.rejects[0].2, "1970-01-01T00:00:09Z belongs to a window closed by 1970-01-01T00:00:10Z");
    let made_by: Vec<_> = found.rows.iter().map(|(_, sequence)| *sequence).collect();
    assert_eq!(made_by, [Some(5), Some(8), None], "the message that moved the watermark; none at the end");
}

#[test]
fn each_row_belongs_to_several_hopping_windows() {
    let settings = window(json!({ "kind": "hopping", "size": "10s", "hop": "5s", "offset": "1s" }));
    let rows = readings(&[(1, 1.0), (7, 3.0), (30, 5.0)]);
    let expected = [
        (-4, 6, 1, Some(1.0)),
        (1, 11, 2, Some(2.0)),
        (6, 16, 1, Some(3.0)),
        (21, 31, 1, Some(5.0)),
        (26, 36, 1, Some(5.0)),
    ];
    assert_eq!(shown(&outcome(&settings, &rows, &[1])), expected);
}

#[test]
fn sessions_grow_join_and_end() {
    let settings = window(json!({ "kind": "session", "gap": "10s", "allowed_lateness": "15s" }));
    let rows =
        readings(&[(0, 1.0), (9, 2.0), (19, 4.0), (38, 5.0), (28, 3.0), (29, 3.0), (5, 9.0), (99, 0.0)]);
    // 0 and 9 are one session; 19 is ten seconds after 9 and begins another; 28 and 29 join it with 38.
    let expected = [(0, 19, 2, Some(1.5)), (19, 48, 4, Some(3.75)), (99, 109, 1, Some(0.0))];
    let found = outcome(&settings, &rows, &[1, 2]);
    assert_eq!(shown(&found), expected);
    assert_eq!(found.reasons(), [(7, "late")]);
}

#[test]
fn nulls_and_nan_are_passed_over_and_things_are_apart() {
    let rows: [Row; 6] = [
        (Some("b"), Some(1), Some(2.0), None),
        (Some("a"), Some(2), None, None),
        (None, Some(3), Some(f64::NAN), None),
        (Some("a"), Some(4), Some(4.0), None),
        (Some("a"), None, Some(4.0), None),
        (Some("b"), Some(1), Some(3.0), None),
    ];
    let settings = window(json!({ "kind": "tumbling", "size": "10s", "aggregates": {
        "rows": { "function": "count" }, "mean": { "function": "mean", "column": "value" },
        "values": { "function": "count", "column": "value" }, "low": { "function": "min", "column": "value" },
        "last": { "function": "last", "column": "value" }, "first": { "function": "first", "column": "ts" },
        "spread": { "function": "stddev", "column": "value" },
        "p50": { "function": "percentile", "column": "value", "percent": 50 },
    } }));
    let found = outcome(&settings, &batch(&rows), &[2]);
    assert_eq!(found.reasons(), [(5, "missing_value")]);
    let column = |name: &str| found.column(name);
    assert_eq!(column("id"), [Json::Null, json!("a"), json!("b")]);
    assert_eq!(column("rows"), [1, 2, 2].map(Json::from));
    assert_eq!(column("values"), [0, 1, 2].map(Json::from));
    assert_eq!(column("mean"), [Json::Null, json!(4.0), json!(2.5)]);
    assert_eq!(column("low"), [Json::Null, json!(4.0), json!(2.0)]);
    assert_eq!(
        column("last"),
        [Json::Null, json!(4.0), json!(3.0)],
        "of the same instant the one that came last"
    );
    assert_eq!(column("first")[1], json!("1970-01-01T00:00:02Z"));
    assert_eq!(column("p50"), [Json::Null, json!(4.0), json!(2.5)]);
    assert_eq!(column("spread")[1], Json::Null);
}

#[test]
fn mistakes_name_the_key_and_the_way_out() {
    for (settings, expected) in [
        (window(json!({ "kind": "tumbling" })), "needs the key 'size'"),
        (window(json!({ "kind": "tumbling", "size": "0s" })), "'size' must be above 0"),
        (window(json!({ "kind": "tumbling", "size": "1m", "hop": "1m" })), "'hop' does not belong"),
        (window(json!({ "kind": "hopping", "size": "1m", "hop": "2m" })), "'hop' is longer than 'size'"),
        (window(json!({ "kind": "hopping", "size": "1d", "hop": "1s" })), "more than 1000 windows"),
        (window(json!({ "kind": "session", "size": "1m" })), "'size' does not belong"),
        (window(json!({ "kind": "session", "gap": "1m", "aggregates": {} })), "'aggregates' is empty"),
        (
            window(
                json!({ "kind": "session", "gap": "1m", "aggregates": { "m": { "function": "mean", "column": "valu" } } }),
            ),
            "did you mean 'value'?",
        ),
        (
            window(
                json!({ "kind": "session", "gap": "1m", "aggregates": { "m": { "function": "mean", "column": "id" } } }),
            ),
            "'id' has type Utf8: only numbers",
        ),
        (
            window(json!({ "kind": "session", "gap": "1m", "aggregates": { "m": { "function": "mean" } } })),
            "'m' has no 'column'",
        ),
        (
            window(
                json!({ "kind": "session", "gap": "1m", "aggregates": { "id": { "function": "count" } } }),
            ),
            "two columns 'id'",
        ),
        (
            window(
                json!({ "kind": "session", "gap": "1m", "aggregates": { "p": { "function": "percentile", "column": "value" } } }),
            ),
            "has no 'percent' from 0 to 100",
        ),
    ] {
        let found = mistake(&settings);
        assert!(found.contains(expected), "{found}\n(expected: {expected})");
    }
}

proptest! {
    #[test]
    fn cuts_and_restarts_change_nothing(
        rows in streams(), cuts in cuts(), seconds in 1..15u32, hops in 1..4u32, kind in 0..3usize,
        lateness in 0..20u32, most in prop_oneof![Just(3usize), Just(1_000)],
    ) {
        let shape = match kind {
            0 => json!({ "kind": "tumbling", "size": format!("{seconds}s"), "offset": "3s" }),
            1 => json!({ "kind": "hopping", "size": format!("{}s", seconds * hops), "hop": format!("{seconds}s") }),
            _ => json!({ "kind": "session", "gap": format!("{seconds}s") }),
        };
        let mut settings = window(shape);
        settings["allowed_lateness"] = json!(format!("{lateness}s"));
        settings["max_open_windows"] = json!(most);
        for function in ["sum", "min", "max", "first", "stddev"] {
            settings["aggregates"][function] = json!({ "function": function, "column": "other" });
        }
        settings["aggregates"]["p"] = json!({ "function": "percentile", "column": "value", "percent": 90 });
        let found = outcome(&settings, &batch(&rows), &cuts);
        let counted: i64 = found.column("rows").iter().filter_map(Json::as_i64).sum();
        let taken = rows.len() - found.rejects.len();
        if kind == 1 {
            prop_assert!(counted >= taken as i64 && counted <= taken as i64 * i64::from(hops));
        } else {
            prop_assert_eq!(counted, taken as i64, "each row in one window");
        }
    }
}
