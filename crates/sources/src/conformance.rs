//! What holds for every source.

use futures::StreamExt;
use schemars::SchemaGenerator;
use serde_json::{Value, json};
use twinlake_contracts::{Checkpoint, Error, Message, MessageStream};

/// Settings that build, by type.
fn example(type_name: &str) -> Value {
    match type_name {
        "mqtt" => json!({"url": "mqtt://localhost", "topics": ["#"]}),
        "mqtt_broker" => json!({"topics": ["#"]}),
        "files" => json!({"path": "capture.txt"}),
        other => panic!("add an example for '{other}'"),
    }
}

#[test]
fn every_source_has_a_documented_schema_and_refuses_unknown_keys() {
    let registry = crate::registry();
    let mut seen = 0;
    for doc in registry.docs() {
        seen += 1;
        let mut generator = SchemaGenerator::default();
        let schema = (doc.schema)(&mut generator).to_value();
        let properties = schema["properties"].as_object().expect("an object with properties");
        for (name, property) in properties {
            assert!(
                property["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{}.{name} has no description",
                doc.type_name
            );
        }
        assert_eq!(schema["additionalProperties"], json!(false), "{}", doc.type_name);
        assert!(schema["description"].is_string(), "{}", doc.type_name);

        let mut settings = example(doc.type_name);
        assert!(registry.build(doc.type_name, settings.clone()).is_ok(), "{}", doc.type_name);
        settings["topcis"] = json!([]);
        let error = registry.build(doc.type_name, settings).err().expect("unknown key");
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains("topcis"), "{error}");
    }
    assert_eq!(seen, 3);
}

#[test]
fn settings_that_cannot_work_are_refused_before_anything_connects() {
    let registry = crate::registry();
    for (type_name, settings) in [
        ("mqtt", json!({"url": "http://localhost", "topics": ["#"]})),
        ("mqtt", json!({"url": "localhost:1883", "topics": ["#"]})),
        ("mqtt", json!({"url": "mqtt://localhost", "topics": []})),
        ("mqtt", json!({"url": "mqtt://localhost", "topics": ["a#"]})),
        ("mqtt", json!({"url": "mqtt://localhost", "topics": ["#"], "qos": 2})),
        ("mqtt", json!({"url": "mqtt://localhost", "topics": ["#"], "ca": "a.pem"})),
        ("mqtt", json!({"url": "mqtts://localhost", "topics": ["#"], "key": "a.pem"})),
        ("mqtt", json!({"url": "mqtt://localhost", "topics": ["#"], "password": "x"})),
        ("mqtt", json!({"url": "mqtt://localhost", "topics": ["#"], "protocol": "4"})),
        ("mqtt_broker", json!({"topics": ["$share/a/b"]})),
        ("mqtt_broker", json!({"topics": ["#"], "qos": 3})),
        ("files", json!({"path": ""})),
        ("files", json!({"path": "a", "replay": {"speed": 1.0}})),
        ("files", json!({"path": "a", "split": "whole", "line": "time topic payload"})),
        ("files", json!({"path": "a", "line": "time topic payload", "replay": {"speed": -1.0}})),
    ] {
        let error = registry.build(type_name, settings.clone()).err().expect(type_name);
        assert!(matches!(error, Error::Config(_)), "{settings}: {error}");
    }
}

/// The next message, or a failure after ten seconds.
pub(crate) async fn next(stream: &mut MessageStream) -> Message {
    tokio::time::timeout(std::time::Duration::from_secs(10), stream.next())
        .await
        .expect("a message within ten seconds")
        .expect("the stream goes on")
        .expect("a message")
}

/// The checkpoint at a message.
pub(crate) fn at(message: &Message) -> Checkpoint {
    Checkpoint(Some(message.position.clone()))
}
