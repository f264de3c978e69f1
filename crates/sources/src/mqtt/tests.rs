//! The `mqtt` source against the embedded broker: real TCP, real packets.

use std::sync::Arc;

use futures::StreamExt;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::QoS;
use serde_json::{Value, json};

use super::*;
use crate::broker::{Broker, BrokerSettings};
use crate::conformance::{at, next};

async fn broker() -> Arc<Broker> {
    Broker::start(BrokerSettings::new("127.0.0.1:0")).await.expect("broker")
}

fn source(broker: &Broker, more: Value) -> Box<dyn Source> {
    let mut settings = json!({"url": format!("mqtt://{}", broker.local_addr()), "topics": ["/a/#"]});
    for (key, value) in more.as_object().expect("object") {
        settings[key] = value.clone();
    }
    crate::registry().build("mqtt", settings).expect("settings")
}

/// Publishes texts with QoS 1 from a client of its own and returns when all are acknowledged.
async fn publish(broker: &Broker, topic: &str, texts: &[&str]) {
    let address = broker.local_addr();
    let options =
        v5::MqttOptions::new(format!("publisher-{}", now_us()), address.ip().to_string(), address.port());
    let (client, mut events) = v5::AsyncClient::new(options, 100);
    for text in texts {
        client.publish(topic, QoS::AtLeastOnce, false, (*text).to_owned()).await.expect("queued");
    }
    let mut left = texts.len();
    while left > 0 {
        let event = events.poll().await.expect("connection");
        if matches!(event, v5::Event::Incoming(v5::mqttbytes::v5::Packet::PubAck(_))) {
            left -= 1;
        }
    }
}

/// Waits until the broker has this many connections.
async fn connections(broker: &Broker, wanted: u64) {
    for _ in 0..1000 {
        if broker.stats().connections == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} connections, not {wanted}", broker.stats().connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_deliver_again_what_was_not_acknowledged() {
    for protocol in ["5", "3.1.1"] {
        let broker = broker().await;
        let settings = json!({"protocol": protocol, "client_id": "city"});
        let mut first = source(&broker, settings.clone());
        let mut stream = first.open(&Checkpoint::default()).await.expect("open");
        subscribed(&broker, &mut stream).await;
        publish(&broker, "/a/Malmi as./ä", &["1", "2", "3"]).await;
        let mut messages = Vec::new();
        for _ in 0..3 {
            messages.push(next(&mut stream).await);
        }
        assert_eq!(&*messages[0].origin, "/a/Malmi as./ä");
        let texts: Vec<_> = messages.iter().map(|m| m.payload.clone()).collect();
        assert_eq!(texts, ["1", "2", "3"]);
        first.acknowledge(&at(&messages[0])).await.expect("acknowledge");
        drop(stream);
        drop(first);
        connections(&broker, 0).await;
        publish(&broker, "/a/x", &["4"]).await;

        let mut second = source(&broker, settings);
        let mut stream = second.open(&at(&messages[0])).await.expect("open");
        let mut again = Vec::new();
        for _ in 0..3 {
            again.push(next(&mut stream).await);
        }
        let mut texts: Vec<_> = again.iter().map(|m| m.payload.clone()).collect();
        texts.sort();
        assert_eq!(texts, ["2", "3", "4"], "{protocol}: what was not acknowledged, and what came meanwhile");
        let first_ordinal = messages[0].position.ordinal;
        let ordinals: Vec<_> = again.iter().map(|m| m.position.ordinal - first_ordinal).collect();
        assert_eq!(ordinals, [1, 2, 3], "ordinals go on");
        second.acknowledge(&at(&again[2])).await.expect("acknowledge");
        broker.shutdown().await;
    }
}

/// Waits until the subscription works: publishes a probe until it arrives, then takes all probes.
async fn subscribed(broker: &Broker, stream: &mut MessageStream) {
    connections(broker, 1).await;
    loop {
        publish(broker, "/a/probe", &["probe"]).await;
        let probe = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
        if probe.is_ok() {
            break;
        }
    }
    while tokio::time::timeout(Duration::from_millis(200), stream.next()).await.is_ok() {}
    connections(broker, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_and_comes_back_is_subscribed_to_again() {
    // An address of its own, so that no other test takes the port meanwhile.
    let broker = Broker::start(BrokerSettings::new("127.0.0.3:0")).await.expect("broker");
    let address = broker.local_addr();
    let mut source = source(&broker, json!({}));
    let mut stream = source.open(&Checkpoint::default()).await.expect("open");
    subscribed(&broker, &mut stream).await;
    broker.shutdown().await;
    drop(broker);
    let back = Broker::start(BrokerSettings::new(address.to_string())).await.expect("broker");
    subscribed(&back, &mut stream).await;
    publish(&back, "/a/b", &["after"]).await;
    assert_eq!(next(&mut stream).await.payload, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_property_sets_the_receipt_time() {
    let broker = broker().await;
    let mut source = source(&broker, json!({"received_at": "property"}));
    let mut stream = source.open(&Checkpoint::default()).await.expect("open");
    subscribed(&broker, &mut stream).await;
    let capture = crate::replay::parse_capture("2018-10-09T04:32:52.549043+0000 /a/b c {}").expect("capture");
    let address = broker.local_addr();
    let settings = crate::PublishSettings::new("127.0.0.1", address.port());
    let report = crate::publish_capture(capture, &settings, |_| {}).await.expect("published");
    assert_eq!(report.acknowledged, 1);
    let message = next(&mut stream).await;
    assert_eq!((message.received_at_us, &*message.origin), (1_539_059_572_549_043, "/a/b c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn inflight_stops_the_broker_and_nothing_is_dropped() {
    let broker = broker().await;
    let mut source = source(&broker, json!({"client_id": "slow", "inflight": 5}));
    let mut stream = source.open(&Checkpoint::default()).await.expect("open");
    subscribed(&broker, &mut stream).await;
    // The probes are acknowledged with the first message.
    let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut seen = Vec::new();
    source
        .acknowledge(&Checkpoint(Some(Position { ordinal: u64::MAX, token: String::new() })))
        .await
        .expect("ack");
    publish(&broker, "/a/n", &all).await;
    while seen.len() < 50 {
        let mut window = Vec::new();
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(300), stream.next()).await {
            window.push(message.expect("message"));
        }
        assert!(!window.is_empty() && window.len() <= 5, "a window of {}", window.len());
        source.acknowledge(&at(window.last().expect("last"))).await.expect("acknowledge");
        seen.extend(window.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()));
    }
    assert_eq!(seen, texts);
}

#[tokio::test]
async fn missing_certificates_are_configuration_errors() {
    let settings = json!({"url": "mqtts://127.0.0.1", "topics": ["#"], "ca": "/nowhere/ca.pem"});
    let mut source = crate::registry().build("mqtt", settings).expect("settings");
    let error = source.open(&Checkpoint::default()).await.err().expect("error");
    assert!(matches!(error, Error::Config(_)) && error.to_string().contains("/nowhere/ca.pem"), "{error}");
}
