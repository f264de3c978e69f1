//! The broker and its source with real clients over TCP.

use std::time::Duration;

use futures::StreamExt;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::conformance::{at, next};

async fn broker() -> Arc<Broker> {
    Broker::start(BrokerSettings::new("127.0.0.1:0")).await.expect("broker")
}

async fn open(broker: &Broker, topics: Value) -> (Box<dyn Source>, MessageStream) {
    let settings = json!({"listen": broker.local_addr().to_string(), "topics": topics});
    let mut source = crate::registry().build("mqtt_broker", settings).expect("settings");
    let stream = source.open(&Checkpoint::default()).await.expect("open");
    (source, stream)
}

/// A device: its client, and the packets that it receives (`None` when the connection ended).
struct Device {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Option<Packet>>,
    task: tokio::task::JoinHandle<()>,
}

impl Device {
    fn new(broker: &Broker, name: &str) -> Self {
        let mut options =
            MqttOptions::new(name, broker.local_addr().ip().to_string(), broker.local_addr().port());
        options.set_keep_alive(Duration::from_secs(30));
        let (client, events) = AsyncClient::new(options, 100);
        let (out, packets) = mpsc::unbounded_channel();
        Self { client, packets, task: tokio::spawn(forward(events, out)) }
    }

    async fn publish(&self, topic: &str, qos: QoS, text: &str) {
        self.client.publish(topic, qos, false, text.to_owned()).await.expect("queued");
    }

    /// The next packet but CONNACK and PINGRESP, if one comes within `millis`.
    async fn packet(&mut self, millis: u64) -> Option<Option<Packet>> {
        let wait = async {
            loop {
                match self.packets.recv().await.expect("the task runs") {
                    Some(Packet::ConnAck(_) | Packet::PingResp(_)) => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(millis), wait).await.ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut events: EventLoop, out: mpsc::UnboundedSender<Option<Packet>>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(packet)) => drop(out.send(Some(packet))),
            Ok(Event::Outgoing(_)) => {}
            Err(_) => {
                drop(out.send(None));
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_comes_after_durability_and_not_before() {
    let broker = broker().await;
    let (mut source, mut stream) = open(&broker, json!(["/hfp/v1/#"])).await;
    let mut device = Device::new(&broker, "tram");
    let topic = "/hfp/v1/journey/Malmi as./Hämeentie ä";
    device.publish(topic, QoS::AtLeastOnce, "one").await;
    let message = next(&mut stream).await;
    assert_eq!((&*message.origin, &message.payload[..]), (topic, &b"one"[..]));
    assert_eq!(message.position.ordinal, 1);
    assert_eq!(device.packet(300).await, None, "no PUBACK before the message is durable");
    assert_eq!(broker.stats().waiting, 1);
    source.acknowledge(&at(&message)).await.expect("acknowledge");
    assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubAck(_)))));
    let stats = broker.stats();
    assert_eq!((stats.messages, stats.recorded, stats.refused, stats.waiting), (1, 1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_quality_of_service_is_recorded_and_routed_on() {
    let broker = broker().await;
    let (mut source, mut stream) = open(&broker, json!(["a/+"])).await;
    let mut listener = Device::new(&broker, "listener");
    listener.client.subscribe("#", QoS::AtMostOnce).await.expect("queued");
    assert!(matches!(listener.packet(5000).await, Some(Some(Packet::SubAck(_)))));
    let mut device = Device::new(&broker, "device");

    device.publish("a/0", QoS::AtMostOnce, "q0").await;
    let message = next(&mut stream).await;
    assert_eq!(message.payload, "q0");
    assert!(matches!(listener.packet(5000).await, Some(Some(Packet::Publish(p))) if p.payload == "q0"));

    device.publish("a/1", QoS::AtLeastOnce, "q1").await;
    let message = next(&mut stream).await;
    assert_eq!(listener.packet(200).await, None, "nobody sees what is not durable");
    source.acknowledge(&at(&message)).await.expect("acknowledge");
    assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubAck(_)))));
    assert!(matches!(listener.packet(5000).await, Some(Some(Packet::Publish(p))) if p.payload == "q1"));

    device.publish("a/2", QoS::ExactlyOnce, "q2").await;
    let message = next(&mut stream).await;
    assert_eq!(device.packet(200).await, None, "no PUBREC before the message is durable");
    source.acknowledge(&at(&message)).await.expect("acknowledge");
    assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubRec(_)))));
    assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubComp(_)))));

    device.publish("b/1", QoS::AtLeastOnce, "other").await;
    assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubAck(_)))), "unclaimed: routed at once");
    let rest = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
    assert!(rest.is_err(), "only the claimed topics");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_share_a_broker_and_a_message_of_both_waits_for_both() {
    let broker = broker().await;
    let (mut one, mut stream_one) = open(&broker, json!(["a/#"])).await;
    let (mut two, mut stream_two) = open(&broker, json!(["a/b", "c"])).await;
    let mut device = Device::new(&broker, "device");
    device.publish("a/b", QoS::AtLeastOnce, "both").await;
    let (first, second) = (next(&mut stream_one).await, next(&mut stream_two).await);
    one.acknowledge(&at(&first)).await.expect("acknowledge");
    assert_eq!(device.packet(200).await, None, "the other is not durable yet");
    two.acknowledge(&at(&second)).await.expect("acknowledge");
    assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubAck(_)))));
    device.publish("c", QoS::AtLeastOnce, "two").await;
    assert_eq!(next(&mut stream_two).await.payload, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_devices_wait_at_once() {
    let broker = broker().await;
    let (mut source, mut stream) = open(&broker, json!(["#"])).await;
    let mut devices: Vec<Device> =
        (0..100).map(|number| Device::new(&broker, &format!("device-{number}"))).collect();
    for device in &devices {
        device.publish("a", QoS::AtLeastOnce, "x").await;
    }
    let mut last = next(&mut stream).await;
    for _ in 1..devices.len() {
        last = next(&mut stream).await;
    }
    assert_eq!(last.position.ordinal, 100, "all are in before any is acknowledged");
    assert_eq!(broker.stats().waiting, 100);
    source.acknowledge(&at(&last)).await.expect("acknowledge");
    for device in &mut devices {
        assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubAck(_)))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_take_is_not_acknowledged() {
    let broker = broker().await;
    let (source, mut stream) = open(&broker, json!(["#"])).await;
    let mut device = Device::new(&broker, "device");
    device.publish("a", QoS::AtLeastOnce, "lost?").await;
    let message = next(&mut stream).await;
    assert_eq!(message.payload, "lost?");
    drop(stream);
    drop(source); // the log failed: the runner gives up
    let ending = device.packet(5000).await.expect("an end");
    assert!(!matches!(ending, Some(Packet::PubAck(_))), "{ending:?}");
    assert_eq!(broker.stats().refused, 1);

    // The claim stays: a device that sends again waits for the next source instead of losing its message.
    let mut again = Device::new(&broker, "device");
    again.publish("a", QoS::AtLeastOnce, "again").await;
    assert_eq!(again.packet(300).await, None);
    let (mut source, mut stream) = open(&broker, json!(["#"])).await;
    let message = next(&mut stream).await;
    assert_eq!(message.payload, "again");
    source.acknowledge(&at(&message)).await.expect("acknowledge");
    assert!(matches!(again.packet(5000).await, Some(Some(Packet::PubAck(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_streams_and_connections_without_acknowledging() {
    // An address of its own, so that no other test takes the port when it is free again.
    let broker = Broker::start(BrokerSettings::new("127.0.0.2:0")).await.expect("broker");
    let address = broker.local_addr();
    let (_source, mut stream) = open(&broker, json!(["#"])).await;
    let mut device = Device::new(&broker, "device");
    let idle = Device::new(&broker, "idle");
    device.publish("a", QoS::AtLeastOnce, "pending").await;
    next(&mut stream).await;
    broker.shutdown().await;
    assert!(stream.next().await.is_none());
    let ending = device.packet(5000).await.expect("an end");
    assert!(!matches!(ending, Some(Packet::PubAck(_))), "{ending:?}");
    assert_eq!(broker.stats().connections, 0);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
    drop((broker, idle));
    assert!(
        Broker::start(BrokerSettings::new(address.to_string())).await.is_ok(),
        "the address is free again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_and_last_wills_work() {
    let broker = broker().await;
    let (mut source, mut stream) = open(&broker, json!(["will"])).await;
    let mut device = Device::new(&broker, "device");
    device.client.publish("kept", QoS::AtLeastOnce, true, "value").await.expect("queued");
    assert!(matches!(device.packet(5000).await, Some(Some(Packet::PubAck(_)))));
    let mut late = Device::new(&broker, "late");
    late.client.subscribe("kept", QoS::AtMostOnce).await.expect("queued");
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.extend(late.packet(5000).await.flatten());
    }
    assert!(seen.iter().any(|p| matches!(p, Packet::Publish(p) if p.payload == "value")), "{seen:?}");

    let mut options = MqttOptions::new("dying", "127.0.0.1", broker.local_addr().port());
    options.set_last_will(rumqttc::v5::mqttbytes::v5::LastWill::new(
        "will",
        "gone",
        QoS::AtLeastOnce,
        false,
        None,
    ));
    let (_client, mut events) = AsyncClient::new(options, 10);
    events.poll().await.expect("connected");
    drop(events);
    let message = next(&mut stream).await;
    assert_eq!(message.payload, "gone");
    source.acknowledge(&at(&message)).await.expect("acknowledge");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_a_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let address = taken.local_addr().expect("address").to_string();
    let error = Broker::start(BrokerSettings::new(address)).await.err().expect("error");
    assert!(matches!(error, Error::Config(_)), "{error}");
    assert!(Broker::start(BrokerSettings::new("nonsense")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helsinki_capture_keeps_its_pace_through_a_log_that_takes_its_time() {
    let broker = broker().await;
    let settings = json!({
        "listen": broker.local_addr().to_string(), "topics": ["/hfp/v1/#"], "received_at": "property",
    });
    let mut source = crate::registry().build("mqtt_broker", settings).expect("settings");
    let mut stream = source.open(&Checkpoint::default()).await.expect("open");
    let path = std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../../pipelines/data/helsinki-vehicles.hfp.txt");
    let capture = crate::replay::read_capture(&path).expect("capture");
    let mut expected: Vec<(String, Vec<u8>, i64)> =
        capture.iter().map(|m| (m.topic.clone(), m.payload.clone(), m.time_us)).collect();
    let port = broker.local_addr().port();
    let publisher = tokio::spawn(async move {
        let settings = crate::PublishSettings::new("127.0.0.1", port);
        crate::publish_capture(capture, &settings, |_| {}).await
    });
    let mut found = Vec::new();
    while found.len() < expected.len() {
        let mut last = next(&mut stream).await;
        found.push((last.origin.to_string(), last.payload.to_vec(), last.received_at_us));
        // What has come by now is one write, and a write takes 5 ms.
        while let Ok(Some(message)) = tokio::time::timeout(Duration::ZERO, stream.next()).await {
            last = message.expect("message");
            found.push((last.origin.to_string(), last.payload.to_vec(), last.received_at_us));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        source.acknowledge(&at(&last)).await.expect("acknowledge");
    }
    let report = publisher.await.expect("task").expect("published");
    assert_eq!(report.acknowledged, 3000);
    // The capture is two seconds long; the rest is room for a busy machine.
    assert!(report.elapsed.as_secs_f64() < 60.0, "{:?}", report.elapsed);
    println!("3000 messages in {:?}", report.elapsed);
    expected.sort();
    found.sort();
    assert!(expected == found, "every message with its topic, its bytes and its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinals_go_on_after_the_checkpoint() {
    let broker = broker().await;
    let settings = json!({"listen": broker.local_addr().to_string(), "topics": ["#"], "qos": 1});
    let mut source = crate::registry().build("mqtt_broker", settings).expect("settings");
    let resume = Checkpoint(Some(Position { ordinal: 41, token: String::new() }));
    let mut stream = source.open(&resume).await.expect("open");
    let device = Device::new(&broker, "device");
    device.publish("a", QoS::AtMostOnce, "below the quality that is recorded").await;
    device.publish("a", QoS::AtLeastOnce, "recorded").await;
    let message = next(&mut stream).await;
    assert_eq!((message.position.ordinal, &message.payload[..]), (42, &b"recorded"[..]));
}
