//! What `type = "geofence"` promises: fences.

use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use twinlake_contracts::{CRS84, geometry_field};

use crate::transforms::law::{Row, batch, build, cuts, outcome, row_wise, streams};
use crate::wkt;

/// Rows with positions: `value` east, `other` north; no position where one is null.
fn positions(rows: &[Row]) -> RecordBatch {
    let rows_of = batch(rows);
    let geometries: BinaryArray = rows
        .iter()
        .map(|(_, _, x, y)| {
            let (x, y) = ((*x)?, (*y)?);
            Some([vec![1, 1, 0, 0, 0], x.to_le_bytes().to_vec(), y.to_le_bytes().to_vec()].concat())
        })
        .collect();
    let fields = rows_of
        .schema()
        .fields()
        .iter()
        .cloned()
        .chain([Arc::new(geometry_field("geom", CRS84, true))])
        .collect::<Vec<_>>();
    let columns = rows_of.columns().iter().cloned().chain([Arc::new(geometries) as _]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn geofence(give: &str) -> Json {
    json!({ "type": "geofence", "key": ["id"], "give": give, "fences": {
        "west": "POLYGON ((0 0, 2 0, 2 2, 0 2, 0 0))", "east": "POLYGON ((1 0, 3 0, 3 2, 1 2, 1 0))",
    } })
}

fn way(points: &[(i64, f64)]) -> RecordBatch {
    let rows: Vec<Row> = points.iter().map(|(at, x)| (Some("a"), Some(*at), Some(*x), Some(1.0))).collect();
    positions(&rows)
}

#[test]
fn the_first_fence_names_the_row() {
    let rows = positions(&[
        (Some("a"), Some(0), Some(0.5), Some(1.0)),
        (Some("a"), Some(1), Some(1.5), Some(1.0)),
        (Some("a"), Some(2), Some(9.0), Some(1.0)),
        (Some("a"), Some(3), None, None),
        (Some("a"), Some(4), Some(f64::NAN), Some(1.0)),
    ]);
    let found = row_wise(&geofence("all"), &rows, &[2]);
    assert_eq!(found.column("fence"), [json!("west"), json!("west"), Json::Null, Json::Null]);
    assert_eq!(found.reasons(), [(5, "invalid_geometry")]);
}

#[test]
fn rows_inside_or_outside() {
    let rows = way(&[(0, 0.5), (1, 2.5), (2, 3.5)]);
    let inside = row_wise(&geofence("inside"), &rows, &[1]);
    assert_eq!(inside.reasons(), [(3, "outside_fence")]);
    let outside = row_wise(&geofence("outside"), &rows, &[1]);
    assert_eq!(outside.reasons(), [(1, "inside_fence"), (2, "inside_fence")]);
}

#[test]
fn entering_and_leaving_are_events() {
    let rows = way(&[(0, -1.0), (1, 0.5), (2, 1.5), (3, 1.6), (1, -1.0), (4, 2.5), (5, 3.5), (6, 0.0)]);
    let found = outcome(&geofence("events"), &rows, &[3]);
    let events: Vec<(u64, String)> = found
        .rows
        .iter()
        .map(|(row, sequence)| {
            (
                sequence.unwrap(),
                format!("{} {}", row["event"].as_str().unwrap(), row["fence"].as_str().unwrap()),
            )
        })
        .collect();
    let expected =
        [(2, "enter west"), (3, "enter east"), (6, "leave west"), (7, "leave east"), (8, "enter west")];
    assert_eq!(events, expected.map(|(row, text)| (row, text.to_owned())));
    assert_eq!(found.reasons(), [(5, "late")]);
}

#[test]
fn fences_come_from_a_table_too() {
    let settings = json!({ "type": "geofence", "table": { "name": "id", "geometry": "area", "table": {
        "query": "SELECT * FROM fake", "columns": { "id": "utf8", "area": "utf8" },
    } } });
    let found = row_wise(&settings, &way(&[(0, 2.5), (1, 0.5)]), &[1]);
    assert_eq!(found.column("fence"), ["b", "a"].map(Json::from));
}

#[test]
fn mistakes_name_the_key_and_the_way_out() {
    let schema = way(&[]).schema();
    let with = |key: &str, value: Json| {
        let mut settings = geofence("all");
        settings[key] = value;
        build(&settings, &schema).err().map_or_else(String::new, |error| error.to_string())
    };
    for (found, expected) in [
        (with("fences", json!({})), "either 'fences' or a 'table'"),
        (with("fences", json!({ "depot": "POINT (1 1)" })), "the fence 'depot' is not a closed polygon"),
        (with("fences", json!({ "depot": "POLYGON (1 1)" })), "the fence 'depot' is not well-known text"),
        (with("geometry", json!("geo")), "no column 'geo'"),
        (with("geometry", json!("value")), "'value' has type Float64, not a geometry"),
        (with("column", json!("id")), "there is a column 'id' already"),
        (with("key", json!(["idd"])), "did you mean 'id'?"),
        (with("give", json!("both")), "unknown variant `both`"),
    ] {
        assert!(found.contains(expected), "{found}\n(expected: {expected})");
    }
    let mut settings = geofence("events");
    settings["key"] = json!([]);
    let found = build(&settings, &schema).err().map_or_else(String::new, |error| error.to_string());
    assert!(found.contains("needs the key 'key'"), "{found}");
}

#[test]
fn what_is_no_geometry_is_refused() {
    let schema = Arc::new(Schema::new(vec![Field::new("geom", DataType::Binary, true)]));
    let good = wkt::from_text("POINT (1 1)").unwrap();
    let column = BinaryArray::from_opt_vec(vec![Some(b"?"), Some(&good), None]);
    let rows = RecordBatch::try_new(schema, vec![Arc::new(column)]).unwrap();
    let settings = json!({ "type": "geofence", "fences": { "a": "POLYGON ((0 0, 2 0, 2 2, 0 0))" } });
    assert_eq!(row_wise(&settings, &rows, &[1]).reasons(), [(1, "invalid_geometry")]);
}

proptest! {
    #[test]
    fn cuts_and_restarts_change_nothing(
        rows in streams(), cuts in cuts(), give in prop_oneof![Just("all"), Just("inside"), Just("outside"), Just("events")], max_keys in 1..4usize,
    ) {
        let mut settings = geofence(give);
        settings["max_keys"] = json!(max_keys);
        let rows = positions(&rows);
        if give == "events" {
            outcome(&settings, &rows, &cuts);
        } else {
            row_wise(&settings, &rows, &cuts);
        }
    }
}
