//! Every kind of good and bad payload, and Nicolas Seriot's JSONTestSuite.

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use serde_json::json;

use super::*;
use crate::conformance::{message, test_data};

fn decoder(settings: Value) -> Box<dyn Decoder> {
    crate::decoders().build("json", settings).expect("settings")
}

fn decode(settings: Value, messages: &[Message]) -> (RecordBatch, Vec<(u32, String, String)>, Vec<u32>) {
    let (mut rejects, mut rows_of) = (Rejects::default(), Vec::new());
    let batch = decoder(settings).decode(messages, &mut rejects, &mut rows_of).expect("batch");
    assert_eq!(batch.num_rows(), rows_of.len());
    let rejects = rejects.0.into_iter().map(|r| (r.index, r.reason.to_string(), r.detail)).collect();
    (batch, rejects, rows_of)
}

#[test]
fn reads_a_vehicle_position_with_its_topic() {
    let topic = "/hfp/v1/journey/ongoing/bus/0017/00031/1090/2/Vuosaari (M)/07:29/1542104";
    let payload = r#"{"VP":{"veh":31,"tst":"2018-10-09T04:32:52Z","lat":60.2,"long":null,"tsi":1539059572,"a":{"b":[1.5,{}]}}}"#;
    let settings = json!({
        "root": "/VP",
        "columns": {
            "veh": "int64", "tst": "timestamp", "lat": "float64", "long": "float64",
            "seconds": {"path": "tsi", "type": "timestamp", "unit": "s"},
            "nested": {"path": "/a/b/0", "type": "float64", "required": true},
            "dotted": {"path": "a.b.1", "type": "json"},
        },
        "topic": {"mode": 5, "headsign": {"segment": 10}, "vehicle": {"segment": 7, "type": "int64"}, "last": -1, "beyond": 40},
        "origin": "topic",
    });
    let (batch, rejects, rows_of) = decode(settings, &[message(topic, payload)]);
    assert_eq!(rejects, []);
    assert_eq!(rows_of, [0]);
    let text = |name: &str| batch.column_by_name(name).expect(name).as_string::<i32>().value(0).to_owned();
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[..4], ["veh", "tst", "lat", "long"], "the order of the settings");
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 31);
    for time in [1, 4] {
        let column = batch.column(time).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(column.value(0), 1_539_059_572_000_000);
    }
    assert!(batch.column(3).is_null(0));
    assert_eq!(batch.column(5).as_primitive::<Float64Type>().value(0), 1.5);
    assert!(!schema.field(5).is_nullable());
    assert_eq!(text("dotted"), "{}");
    assert_eq!(
        (text("mode"), text("headsign"), text("last")),
        ("bus".into(), "Vuosaari (M)".into(), "1542104".into())
    );
    assert_eq!(batch.column_by_name("vehicle").expect("column").as_primitive::<Int64Type>().value(0), 31);
    assert!(batch.column_by_name("beyond").expect("column").is_null(0));
    assert_eq!(text("topic"), topic);
}

#[test]
fn each_bad_payload_is_a_reject_that_names_what_is_wrong() {
    let settings = json!({
        "columns": {
            "n": {"type": "int64", "required": true}, "x": "float64", "t": "timestamp", "b": "boolean", "s": "utf8",
        },
        "topic": {"device": {"segment": 1, "required": true}},
    });
    let good = ("a/d", r#"{"n":1}"#, "", "");
    let cases = [
        ("a/d", r#"{"n":"1"}"#, "wrong_type", "column 'n': int64 is expected, found the text '1'"),
        ("a/d", r#"{"n":1.5}"#, "wrong_type", "the number 1.5"),
        ("a/d", r#"{"n":18446744073709551615}"#, "out_of_range", "18446744073709551615"),
        ("a/d", r#"{"n":1e300}"#, "out_of_range", "column 'n'"),
        ("a/d", r#"{"n":null}"#, "missing_value", "column 'n'"),
        ("a/d", r#"{"x":1}"#, "missing_value", "column 'n'"),
        ("a/d", r#"{"n":1,"t":"noon"}"#, "wrong_type", "the text 'noon'"),
        ("a/d", r#"{"n":1,"t":5}"#, "wrong_type", "column 't'"),
        ("a/d", r#"{"n":1,"b":1}"#, "wrong_type", "column 'b'"),
        ("a/d", r#"{"n":1,"s":["x"]}"#, "wrong_type", "an array of 1"),
        ("a/d", r#"[{"n":1}]"#, "wrong_type", "an object is expected, found an array of 1"),
        ("a/d", "7", "wrong_type", "an object is expected"),
        ("a/d", "{\"n\":1,\n\"x\":}", "invalid_json", "at byte 12"),
        ("a/d", "", "invalid_json", "at byte 0"),
        ("a/d", r#"{"n":1"#, "invalid_json", "EOF"),
        ("a/d", r#"{"n":1e999}"#, "invalid_json", "out of range"),
        ("a", r#"{"n":1}"#, "topic_mismatch", "column 'device'"),
        ("a//x", r#"{"n":1}"#, "topic_mismatch", "column 'device'"),
    ];
    let mut messages: Vec<Message> = Vec::new();
    for (topic, payload, _, _) in cases {
        messages.push(message(good.0, good.1));
        messages.push(message(topic, payload));
    }
    messages.push(Message { payload: b"{\"n\":\"\xff\"}".as_slice().into(), ..message("a/d", "") });
    let (batch, rejects, rows_of) = decode(settings, &messages);
    assert_eq!(batch.num_rows(), cases.len(), "the rest goes on");
    assert_eq!(rows_of, (0..cases.len() as u32).map(|index| index * 2).collect::<Vec<_>>());
    for ((index, reason, detail), (number, (_, payload, expected, part))) in
        rejects.iter().zip(cases.iter().enumerate())
    {
        assert_eq!((*index as usize, reason.as_str()), (number * 2 + 1, *expected), "{payload}: {detail}");
        assert!(detail.contains(part), "{payload}: {detail}");
    }
    let last = rejects.last().expect("reject");
    assert_eq!((last.1.as_str(), last.2.as_str()), ("invalid_utf8", "not UTF-8 at byte 6"));
    assert_eq!(rejects.len(), cases.len() + 1);
}

#[test]
fn arrays_and_lines_give_many_rows_and_only_the_bad_ones_are_rejected() {
    let messages = [message("t", r#"{"d":[{"v":1},{"v":"x"},{"v":3}]}"#), message("t", r#"{"d":{}}"#)];
    let settings = json!({"root": "d", "each": true, "columns": {"v": "int64"}});
    let (batch, rejects, rows_of) = decode(settings, &messages);
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values().to_vec(), [1, 3]);
    assert_eq!(rows_of, [0, 0]);
    assert_eq!(rejects.len(), 2);
    assert!(rejects[0].2.starts_with("element 1: column 'v'"), "{}", rejects[0].2);

    let settings = json!({"lines": true, "columns": {"v": "int64"}});
    let (batch, rejects, _) = decode(settings, &[message("t", "{\"v\":1}\r\n\n{\"v\":\n{\"v\":4}\n")]);
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values().to_vec(), [1, 4]);
    assert!(rejects[0].2.starts_with("line 3: EOF"), "{}", rejects[0].2);

    let settings = json!({"each": true, "columns": {"lat": {"path": "/1", "type": "float64"}}});
    let (batch, _, _) = decode(settings, &[message("t", "[[24.9,60.1],[25.0,60.2]]")]);
    assert_eq!(batch.column(0).as_primitive::<Float64Type>().values().to_vec(), [60.1, 60.2]);

    let settings = json!({"columns": {"value": {"path": "", "type": "float64"}}});
    let (batch, _, _) = decode(settings, &[message("t", "21.5")]);
    assert_eq!(batch.column(0).as_primitive::<Float64Type>().value(0), 21.5);
}

#[test]
fn the_last_of_duplicate_keys_counts_and_depth_is_bounded() {
    let settings = json!({"columns": {"v": "int64"}});
    let deep = format!("{{\"v\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let (batch, rejects, _) = decode(
        settings,
        &[message("t", r#"{"v":"x","v":2}"#), message("t", &deep), message("t", "\u{feff}{\"v\":3}")],
    );
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values().to_vec(), [2, 3]);
    assert_eq!(rejects[0].1, "invalid_json");
    assert!(rejects[0].2.contains("recursion"), "{}", rejects[0].2);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for settings in [
        json!({}),
        json!({"columns": {"a": "int32"}}),
        json!({"columns": {"a": {"type": "int64", "patth": "x"}}}),
        json!({"columns": {"a": {"type": "int64", "unit": "s"}}}),
        json!({"columns": {"a": {"type": "int64", "path": "a..b"}}}),
        json!({"columns": {"a": "int64"}, "topic": {"a": 1}}),
        json!({"columns": {"a": "int64"}, "topic": {"b": "1"}}),
    ] {
        let error = crate::decoders().build("json", settings.clone()).err().expect("refused");
        assert!(matches!(error, Error::Config(_)), "{settings}: {error}");
    }
}

#[test]
fn accepts_and_rejects_as_the_json_test_suite_says() {
    let Some(folder) = test_data("conformance/json-testsuite/test_parsing") else { return };
    let settings = json!({"columns": {"document": {"path": "", "type": "json"}}});
    let mut counts = [0, 0, 0];
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("file");
        let (_, rejects, _) =
            decode(settings.clone(), &[Message { payload: bytes.into(), ..message("t", "") }]);
        match &name[..2] {
            "y_" => assert!(rejects.is_empty(), "{name} must be accepted: {rejects:?}"),
            "n_" => {
                assert_eq!(rejects.len(), 1, "{name} must be rejected");
                assert!(["invalid_json", "invalid_utf8"].contains(&rejects[0].1.as_str()), "{name}");
            }
            _ => {}
        }
        counts[["y_", "n_", "i_"].iter().position(|kind| name.starts_with(kind)).expect("kind")] += 1;
    }
    assert!(counts[0] >= 90 && counts[1] >= 180 && counts[2] >= 30, "{counts:?}");
}

#[test]
fn decodes_the_helsinki_capture_without_a_reject() {
    let path = std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../../pipelines/data/helsinki-vehicles.hfp.txt");
    let text = std::fs::read_to_string(path).expect("capture");
    let messages: Vec<Message> = text
        .lines()
        .map(|line| {
            let (head, payload) = line.split_once(" {").expect("payload");
            let (_, topic) = head.split_once(' ').expect("topic");
            message(topic, &format!("{{{payload}"))
        })
        .collect();
    let settings = json!({
        "root": "/VP",
        "columns": {
            "oper": "int64", "veh": {"type": "int64", "required": true}, "tst": {"type": "timestamp", "required": true},
            "lat": "float64", "long": "float64", "spd": "float64", "hdg": "float64", "acc": "float64",
            "dl": "float64", "odo": "float64", "desi": "utf8", "dir": "utf8", "start": "utf8", "oday": "utf8",
            "jrn": "int64", "line": "int64", "drst": "int64",
        },
        "topic": {"journey": 3, "temporal": 4, "mode": {"segment": 5, "required": true}},
        "origin": "topic",
    });
    let (batch, rejects, _) = decode(settings, &messages);
    assert_eq!((batch.num_rows(), rejects), (3000, vec![]));
    assert_eq!(batch.column_by_name("lat").expect("column").null_count(), 87, "null positions stay null");
    let modes: std::collections::BTreeSet<String> = batch
        .column_by_name("mode")
        .expect("column")
        .as_string::<i32>()
        .iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    assert_eq!(modes.iter().map(String::as_str).collect::<Vec<_>>(), ["bus", "train", "tram"]);
}
