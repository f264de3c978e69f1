//! What `type = "enrich"` promises: tables beside the stream.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::transforms::law::{Row, batch, cuts, mistake, row_wise, streams};

fn enrich(more: Json) -> Json {
    let mut settings = json!({ "type": "enrich", "on": { "id": "id" }, "columns": { "most": "limit" }, "table": {
        "query": "SELECT * FROM one", "columns": { "id": "utf8", "limit": "int64", "since": "timestamp" },
    } });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

fn rows() -> [Row; 4] {
    [
        (Some("b"), Some(5), None, None),
        (Some("a"), None, None, None),
        (None, Some(5), None, None),
        (Some("b"), Some(10), None, None),
    ]
}

/// Tables are read on threads of the runtime.
fn on_a_runtime<T>(work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = runtime.enter();
    work()
}

#[test]
fn a_row_gets_what_the_table_says_of_its_key() {
    let found = row_wise(&enrich(json!({})), &batch(&rows()), &[1]);
    assert_eq!(found.column("most"), [json!(2), json!(1), Json::Null, json!(2)]);
    let found = row_wise(&enrich(json!({ "missing": "reject" })), &batch(&rows()), &[1]);
    assert_eq!(found.reasons(), [(3, "no_match")]);
}

#[test]
fn as_of_takes_the_newest_that_was_valid() {
    let mut settings = enrich(json!({ "as_of": { "valid_from": "since" } }));
    settings["table"]["query"] = json!("SELECT * FROM fake");
    let found = row_wise(&settings, &batch(&rows()), &[1]);
    assert_eq!(found.column("most"), [json!(2), Json::Null, Json::Null, json!(3)], "a has no time");
}

#[test]
fn a_file_is_a_table_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    std::fs::write(&path, "b,7,1.5").unwrap();
    let table = |path: &std::path::Path| json!({ "table": { "path": path, "decoder": { "type": "fake" } }, "columns": { "limit": "value" } });
    on_a_runtime(|| {
        let found = row_wise(&enrich(table(&path)), &batch(&rows()), &[1]);
        assert_eq!(found.column("limit"), [json!(1.5), Json::Null, Json::Null, json!(1.5)]);
    });
}

#[test]
#[should_panic(expected = "the key b stands in the table more than once")]
fn without_as_of_a_key_stands_once() {
    let mut settings = enrich(json!({}));
    settings["table"]["query"] = json!("SELECT * FROM fake");
    row_wise(&settings, &batch(&rows()), &[]);
}

#[test]
fn mistakes_name_the_column_and_the_way_out() {
    for (settings, expected) in [
        (enrich(json!({ "on": {} })), "'on' names no column"),
        (enrich(json!({ "columns": {} })), "'columns' adds nothing"),
        (enrich(json!({ "on": { "idd": "id" } })), "did you mean 'id'?"),
        (enrich(json!({ "on": { "id": "idd" } })), "no column 'idd' in the table"),
        (enrich(json!({ "on": { "id": "limit" } })), "'id' has type Utf8, 'limit' of the table has Int64"),
        (enrich(json!({ "columns": { "value": "limit" } })), "there is a column 'value' already"),
        (enrich(json!({ "columns": { "most": "limt" } })), "did you mean 'limit'?"),
        (enrich(json!({ "as_of": { "valid_from": "limit" } })), "'limit' of the table has type Int64"),
        (enrich(json!({ "table": {} })), "either a file or a query"),
        (enrich(json!({ "table": { "path": "x" } })), "needs either a decoder or a reader"),
        (enrich(json!({ "table": { "path": "x", "decoder": {} } })), "has no 'type'"),
        (enrich(json!({ "table": { "path": "x", "decoder": { "type": "fak" } } })), "did you mean 'fake'?"),
        (enrich(json!({ "table": { "query": "SELECT 1" } })), "needs the key 'columns'"),
    ] {
        let found = mistake(&settings);
        assert!(found.contains(expected), "{found}\n(expected: {expected})");
    }
}

proptest! {
    #[test]
    fn cuts_and_restarts_change_nothing(rows in streams(), cuts in cuts(), reject: bool) {
        let settings = enrich(json!({ "missing": if reject { "reject" } else { "null" } }));
        row_wise(&settings, &batch(&rows), &cuts);
    }
}
