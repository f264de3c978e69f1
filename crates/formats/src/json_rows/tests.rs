use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use twinlake_contracts::is_geometry;

use super::*;

fn decoded(body: &str) -> DecodedBody {
    decode(&TableName::parse("a.b").unwrap(), &Bytes::from(body.to_owned())).unwrap()
}

fn refused(body: &DecodedBody) -> Vec<(u64, &str)> {
    body.refused.iter().map(|part| (part.place, part.reason.as_ref())).collect()
}

#[test]
fn arrays_objects_and_lines_give_the_same_rows() {
    let expected = decoded(r#"[{"a":1,"b":{"c":"x"}}]"#).tables.remove(0).rows;
    for body in [
        "{\"a\":1,\"b\":{\"c\":\"x\"}}",
        "\u{feff}{\"a\":1,\"b\":{\"c\":\"x\"}}\r\n\n",
        "{\n\"a\":1,\n\"b\":{\"c\":\"x\"}\n}",
    ] {
        assert_eq!(decoded(body).tables[0].rows, expected, "{body}");
    }
    let schema = expected.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["a", "b_c"]);
    assert!(decoded("[]").tables.is_empty());
    assert!(decoded("").tables.is_empty());
}

#[test]
fn types_come_from_values() {
    let body = decoded(
        r#"[{"n":1,"f":1,"t":true,"l":[1,2],"x":null,"place":{"type":"Point","coordinates":[1,2]}},
            {"n":9007199254740993,"f":2.5}, {"f":3,"late":"y"}]"#,
    );
    let rows = &body.tables[0].rows;
    assert_eq!(rows["n"].as_primitive::<Int64Type>().value(1), 9_007_199_254_740_993);
    assert_eq!(rows["f"].as_primitive::<Float64Type>().values(), &[1.0, 2.5, 3.0]);
    assert_eq!(rows["l"].as_string::<i32>().value(0), "[1,2]");
    assert_eq!(rows["late"].null_count(), 2);
    assert!(rows.column_by_name("x").is_none(), "nothing but null is no column");
    let schema = rows.schema();
    assert!(is_geometry(schema.field_with_name("place").unwrap()));
    let mixed = decoded("{\"v\":9007199254740993}\n{\"v\":0.5}\n{\"v\":\"x\"}");
    assert_eq!(mixed.tables.len(), 3, "no value loses a digit");
}

#[test]
fn ts_is_a_time() {
    let body = decoded(
        r#"[{"ts":"2018-10-09T04:32:53Z"},{"ts":1539059573},{"ts":1539059573000},{"ts":1539059573000000},
            {"ts":1539059573000000000},{"ts":1539059573.5},{"ts":"soon"},{"ts":true}]"#,
    );
    let second = 1_539_059_573_000_000;
    let times = body.tables[0].rows["ts"].as_primitive::<TimestampMicrosecondType>().values().to_vec();
    assert_eq!(times, [second, second, second, second, second, second + 500_000]);
    assert_eq!(refused(&body), [(7, "wrong_type"), (8, "wrong_type")]);
}

#[test]
fn a_row_at_fault_stops_no_other() {
    let body = decoded(
        "{\"a\":1}\n{\"a\":\n7\n{\"a_b\":1,\"a\":{\"b\":2}}\n{}\n{\"u\":18446744073709551615}\n{\"a\":2}",
    );
    let expected = [
        (2, "invalid_json"),
        (3, "wrong_type"),
        (4, "duplicate_column"),
        (5, "empty_row"),
        (6, "out_of_range"),
    ];
    assert_eq!(refused(&body), expected);
    assert_eq!(body.tables[0].places, [1, 7]);
    assert_eq!(refused(&decoded("[1,{\"a\":1}]")), [(1, "wrong_type")]);
}

#[test]
fn a_body_that_is_no_json_is_refused_as_a_whole() {
    for body in ["[{\"a\":1},", "[{\"a\":1}] x", "not json", "[{\"a\":1e999}]"] {
        let error = decode(&TableName::parse("a.b").unwrap(), &Bytes::from(body)).unwrap_err();
        assert!(error.to_string().starts_with("invalid_json"), "{body}: {error}");
    }
}
