//! What `type = "late"` promises: rows that come late or out of order.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::transforms::law::{Outcome, batch, cuts, mistake, readings, row_wise, streams};

fn order_of(outcome: &Outcome) -> Vec<u64> {
    outcome.rows.iter().filter_map(|(_, sequence)| *sequence).collect()
}

#[test]
fn a_row_before_the_watermark_is_late() {
    let settings = json!({ "type": "late", "allowed_lateness": "10s" });
    let rows = readings(&[(100, 1.0), (90, 2.0), (89, 3.0), (101, 4.0), (90, 5.0), (91, 6.0)]);
    let outcome = row_wise(&settings, &rows, &[2]);
    assert_eq!(outcome.reasons(), [(3, "late"), (5, "late")]);
    let detail = "1970-01-01T00:01:29Z lies before the watermark 1970-01-01T00:01:30Z";
    assert_eq!(outcome.rejects[0].2, detail);
    let flagged =
        json!({ "type": "late", "allowed_lateness": "10s", "action": "flag", "column": "too_late" });
    let expected = [false, false, true, false, true, false].map(Json::from);
    assert_eq!(row_wise(&flagged, &rows, &[2]).column("too_late"), expected);
}

#[test]
fn rows_are_put_in_order() {
    let settings = json!({ "type": "late", "allowed_lateness": "10s", "order": true });
    let rows = readings(&[(100, 1.0), (95, 2.0), (99, 3.0), (95, 4.0), (110, 5.0), (99, 6.0), (100, 7.0)]);
    let outcome = row_wise(&settings, &rows, &[1, 1, 1]);
    assert_eq!(order_of(&outcome), [2, 4, 3, 1, 7, 5]);
    assert_eq!(outcome.reasons(), [(6, "late")]);
    let bounded = json!({ "type": "late", "allowed_lateness": "10s", "order": true, "max_held_rows": 2 });
    let outcome = row_wise(&bounded, &rows, &[1, 1, 1]);
    assert_eq!(
        order_of(&outcome),
        [2, 4, 3, 1, 7, 5],
        "95 goes on when the third row comes; so does the next 95"
    );
}

#[test]
fn each_thing_has_its_own_watermark_when_asked() {
    let rows = batch(&[
        (Some("a"), Some(9_999), None, None),
        (Some("b"), Some(1), None, None),
        (None, Some(2), None, None),
        (Some("b"), None, None, None),
    ]);
    let whole = json!({ "type": "late", "allowed_lateness": "0s" });
    let expected = [(2, "late"), (3, "late"), (4, "missing_value")];
    assert_eq!(row_wise(&whole, &rows, &[1]).reasons(), expected);
    let keyed = json!({ "type": "late", "allowed_lateness": "0s", "key": ["id"] });
    assert_eq!(row_wise(&keyed, &rows, &[1]).reasons(), [(4, "missing_value")]);
}

#[test]
fn mistakes() {
    for (settings, expected) in [
        (json!({ "type": "late" }), "missing field `allowed_lateness`"),
        (json!({ "type": "late", "allowed_lateness": "1m", "time": "tss" }), "no column 'tss'"),
        (json!({ "type": "late", "allowed_lateness": "1m", "key": ["idd"] }), "did you mean 'id'?"),
        (json!({ "type": "late", "allowed_lateness": "1m", "max_keys": 0 }), "'max_keys' must be above 0"),
        (
            json!({ "type": "late", "allowed_lateness": "1m", "action": "flag", "column": "value" }),
            "there is a column 'value' already",
        ),
    ] {
        let found = mistake(&settings);
        assert!(found.contains(expected), "{found}");
    }
}

proptest! {
    #[test]
    fn cuts_and_restarts_change_nothing(
        rows in streams(), cuts in cuts(), seconds in 0..12u32, order: bool, keyed: bool, flag: bool, most in 1..5usize,
    ) {
        let settings = json!({
            "type": "late", "allowed_lateness": format!("{seconds}s"), "order": order, "max_keys": 2,
            "key": if keyed { vec!["id"] } else { vec![] }, "max_held_rows": most,
            "action": if flag { "flag" } else { "reject" },
        });
        let outcome = row_wise(&settings, &batch(&rows), &cuts);
        if order && !keyed && !flag {
            let times: Vec<String> = outcome.column("ts").iter().map(|ts| ts.as_str().unwrap().to_owned()).collect();
            prop_assert!(times.is_sorted(), "{:?}", times);
        }
    }
}
