//! What holds for every decoder and reader.

use std::path::PathBuf;

use schemars::SchemaGenerator;
use serde_json::{Value, json};
use twinlake_contracts::{ComponentDoc, Error, Message, Position, Rejects, Result};

/// A message with this topic and payload.
pub(crate) fn message(topic: &str, payload: &str) -> Message {
    Message {
        payload: payload.as_bytes().to_vec().into(),
        origin: topic.into(),
        position: Position { ordinal: 1, token: String::new() },
        received_at_us: 0,
    }
}

/// A folder of the public test data, when the variable `TWINLAKE_TESTDATA` says where they are.
pub(crate) fn test_data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TWINLAKE_TESTDATA")?;
    let path = PathBuf::from(root).join(folder);
    assert!(path.is_dir(), "TWINLAKE_TESTDATA is set, but {} is not there", path.display());
    Some(path)
}

/// Settings that build, by type.
fn example(type_name: &str) -> Value {
    match type_name {
        "json" => json!({"columns": {"v": "int64"}, "origin": "topic"}),
        "csv" => json!({"columns": {"v": "int64"}}),
        "osm_pbf" => json!({"layer": "road_links"}),
        "epanet" => json!({"table": "pipes"}),
        "matpower" => json!({"table": "buses"}),
        "tntp" => json!({"table": "links"}),
        "production_line" => json!({"table": "machines"}),
        other => panic!("add an example for '{other}'"),
    }
}

fn check<'a, P: ?Sized>(
    docs: impl Iterator<Item = &'a ComponentDoc>,
    build: impl Fn(&str, Value) -> Result<Box<P>>,
) -> usize {
    let mut seen = 0;
    for doc in docs {
        seen += 1;
        let schema = (doc.schema)(&mut SchemaGenerator::default()).to_value();
        assert!(schema["description"].is_string(), "{}", doc.type_name);
        assert_eq!(schema["additionalProperties"], json!(false), "{}", doc.type_name);
        for (name, property) in schema["properties"].as_object().expect("properties") {
            let described = property["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{}.{name} has no description", doc.type_name);
        }
        let mut settings = example(doc.type_name);
        assert!(build(doc.type_name, settings.clone()).is_ok(), "{}", doc.type_name);
        settings["colums"] = json!({});
        let error = build(doc.type_name, settings).err().expect("unknown key");
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains("colums"), "{error}");
    }
    seen
}

#[test]
fn every_component_has_a_documented_schema_and_refuses_unknown_keys() {
    let decoders = crate::decoders();
    assert_eq!(check(decoders.docs(), |name, settings| decoders.build(name, settings)), 2);
    let readers = crate::readers();
    assert_eq!(check(readers.docs(), |name, settings| readers.build(name, settings)), 6);
}

#[test]
fn every_decoder_gives_the_same_for_the_same_and_loses_no_message() {
    let payloads = ["v\n1\n2\n", "{\"v\":1}", "", "\u{0}", "v", "{\"v\":\"x\"}", "v\nx\n", "[[[["];
    let window: Vec<Message> = payloads.iter().map(|payload| message("a/b", payload)).collect();
    let decoders = crate::decoders();
    for doc in decoders.docs() {
        let decoder = decoders.build(doc.type_name, example(doc.type_name)).expect("settings");
        let decode = |window: &[Message]| {
            let (mut rejects, mut rows_of) = (Rejects::default(), Vec::new());
            let batch = decoder.decode(window, &mut rejects, &mut rows_of).expect("batch");
            assert_eq!(batch.schema(), decoder.schema());
            assert_eq!(batch.num_rows(), rows_of.len());
            (batch, rejects, rows_of)
        };
        let all = decode(&window);
        assert_eq!(all, decode(&window), "{}", doc.type_name);
        let empty = decode(&[]);
        assert_eq!((empty.0.num_rows(), empty.1.0.len()), (0, 0));
        // However the messages are cut into windows.
        let mut rows = 0;
        let mut rejects = 0;
        for one in &window {
            let (batch, rejected, _) = decode(std::slice::from_ref(one));
            rows += batch.num_rows();
            rejects += rejected.0.len();
        }
        assert_eq!((rows, rejects), (all.0.num_rows(), all.1.0.len()), "{}", doc.type_name);
    }
}
