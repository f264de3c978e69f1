//! The broker's promises, packet by packet.

use std::num::NonZeroU16;
use std::path::Path;

use bytes::BytesMut;
use futures::StreamExt;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::{MqttCodec, MqttPacket, v3, v5};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder};
use twinlake_contracts::{Checkpoint, MessageStream, Position, Source};

use super::*;
use crate::conformance::next;

/// A client that sends exactly what it is told.
struct Raw {
    stream: TcpStream,
    codec: MqttCodec,
    bytes: BytesMut,
}

impl Raw {
    async fn open(broker: &Broker, version_5: bool) -> Self {
        let stream = TcpStream::connect(broker.local_addr()).await.expect("connection");
        let codec =
            if version_5 { MqttCodec::V5(v5::Codec::new(0, 0)) } else { MqttCodec::V3(v3::Codec::new(0)) };
        Self { stream, codec, bytes: BytesMut::new() }
    }

    /// Connects with version 3.1.1; says whether there was a session.
    async fn connect(broker: &Broker, client: &str, clean_session: bool, keep_alive: u16) -> (Self, bool) {
        let mut raw = Self::open(broker, false).await;
        let connect = v3::Connect {
            client_id: client.to_owned().into(),
            clean_session,
            keep_alive,
            ..v3::Connect::default()
        };
        raw.send(connect.into()).await;
        let Some(v3::Packet::ConnectAck(ack)) = raw.next().await else { panic!("no CONNACK") };
        assert_eq!(ack.return_code, v3::ConnectAckReason::ConnectionAccepted);
        (raw, ack.session_present)
    }

    async fn send(&mut self, packet: v3::Packet) {
        let mut out = BytesMut::new();
        self.codec.encode(MqttPacket::V3(packet), &mut out).expect("packet");
        self.stream.write_all(&out).await.expect("sent");
    }

    async fn publish(&mut self, qos: QoS, id: u16, dup: bool, text: &str) {
        self.send(publish(qos, id, dup, text).into()).await;
    }

    /// The next packet; `None` when the connection has ended.
    async fn next_any(&mut self) -> Option<MqttPacket> {
        loop {
            if let Some((packet, _)) = self.codec.decode(&mut self.bytes).expect("packet") {
                return Some(packet);
            }
            let read = self.stream.read_buf(&mut self.bytes);
            let count = tokio::time::timeout(Duration::from_secs(20), read).await.expect("in time");
            if count.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn next(&mut self) -> Option<v3::Packet> {
        match self.next_any().await? {
            MqttPacket::V3(packet) => Some(packet),
            other => panic!("{other:?}"),
        }
    }

    async fn silent(&mut self) {
        let packet = tokio::time::timeout(Duration::from_millis(200), self.next()).await;
        assert!(packet.is_err(), "{packet:?}");
    }
}

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not zero")
}

fn publish(qos: QoS, number: u16, dup: bool, text: &str) -> Publish {
    Publish {
        dup,
        retain: false,
        qos,
        topic: "t/x".into(),
        packet_id: NonZeroU16::new(number),
        payload: text.to_owned().into(),
        properties: None,
    }
}

async fn broker(options: BrokerOptions) -> Arc<Broker> {
    let settings = BrokerSettings { options, ..BrokerSettings::new("127.0.0.1:0") };
    Broker::start(settings).await.expect("broker")
}

async fn source(broker: &Broker) -> (Box<dyn Source>, MessageStream) {
    let settings = json!({"listen": broker.local_addr().to_string(), "topics": ["t/#"]});
    let mut source = crate::registry().build("mqtt_broker", settings).expect("settings");
    let stream = source.open(&Checkpoint::default()).await.expect("open");
    (source, stream)
}

async fn acknowledge(source: &mut Box<dyn Source>, ordinal: u64) {
    let upto = Checkpoint(Some(Position { ordinal, token: String::new() }));
    source.acknowledge(&upto).await.expect("acknowledge");
}

async fn nothing(stream: &mut MessageStream) {
    assert!(tokio::time::timeout(Duration::from_millis(200), stream.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_publishes_of_one_connection_are_on_their_way_and_each_is_acknowledged_in_turn() {
    let broker = broker(BrokerOptions::default()).await;
    let (mut source, mut stream) = source(&broker).await;
    let (mut device, _) = Raw::connect(&broker, "device", true, 0).await;
    for number in 1..=100 {
        device.publish(QoS::AtLeastOnce, number, false, &number.to_string()).await;
    }
    for number in 1..=100 {
        assert_eq!(next(&mut stream).await.payload, number.to_string());
    }
    device.silent().await;
    acknowledge(&mut source, 40).await;
    for number in 1..=40 {
        assert_eq!(device.next().await, Some(v3::Packet::PublishAck { packet_id: id(number) }));
    }
    device.silent().await;
    // The log fails: what it holds was acknowledged, nothing else is, and the device is told by the end.
    drop(stream);
    drop(source);
    assert_eq!(device.next().await, None);
    let counted = async {
        while broker.stats().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("counted");
    assert_eq!((broker.stats().recorded, broker.stats().refused), (40, 60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_is_not_read_until_there_is_room() {
    let limits = BrokerLimits { inflight: 10, ..BrokerLimits::default() };
    let broker = broker(BrokerOptions { limits, ..BrokerOptions::default() }).await;
    let (mut source, mut stream) = source(&broker).await;
    let (mut device, _) = Raw::connect(&broker, "device", true, 1).await;
    for number in 1..=25 {
        device.publish(QoS::AtLeastOnce, number, false, "x").await;
    }
    for upto in [10, 20, 25] {
        let from = upto - if upto == 25 { 5 } else { 10 };
        for _ in from..upto {
            next(&mut stream).await;
        }
        nothing(&mut stream).await;
        if upto == 10 {
            // Longer than the keep-alive allows: the broker holds the device up, so it does not count as silent.
            tokio::time::sleep(Duration::from_millis(3500)).await;
        }
        acknowledge(&mut source, upto).await;
        for _ in from..upto {
            assert!(matches!(device.next().await, Some(v3::Packet::PublishAck { .. })));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_is_recorded_once_over_reconnections() {
    let broker = broker(BrokerOptions::default()).await;
    let (mut source, mut stream) = source(&broker).await;
    let (mut device, _) = Raw::connect(&broker, "device", false, 0).await;
    device.publish(QoS::ExactlyOnce, 1, false, "one").await;
    assert_eq!(next(&mut stream).await.payload, "one");
    device.publish(QoS::ExactlyOnce, 1, true, "one").await;
    nothing(&mut stream).await;
    acknowledge(&mut source, 1).await;
    assert_eq!(device.next().await, Some(v3::Packet::PublishReceived { packet_id: id(1) }));
    // It did not see the PUBREC, and sends again; another one is on its way when the connection dies.
    device.publish(QoS::ExactlyOnce, 2, false, "two").await;
    assert_eq!(next(&mut stream).await.payload, "two");
    drop(device);
    let connecting = {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move { Raw::connect(&broker, "device", false, 0).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!connecting.is_finished(), "whether the second one is recorded is not known yet");
    acknowledge(&mut source, 2).await;
    let (mut device, present) = connecting.await.expect("task");
    assert!(present);
    for number in [1, 2] {
        device.publish(QoS::ExactlyOnce, number, true, "again").await;
        assert_eq!(device.next().await, Some(v3::Packet::PublishReceived { packet_id: id(number) }));
        device.send(v3::Packet::PublishRelease { packet_id: id(number) }).await;
        assert_eq!(device.next().await, Some(v3::Packet::PublishComplete { packet_id: id(number) }));
    }
    nothing(&mut stream).await;
    device.publish(QoS::ExactlyOnce, 1, false, "the number is free again").await;
    assert_eq!(next(&mut stream).await.payload, "the number is free again");
}

fn copied(from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::copy(from.join("sessions.log"), folder.path().join("sessions.log")).expect("copy");
    folder
}

fn kept_in(folder: &Path) -> BrokerOptions {
    BrokerOptions { state: Some(folder.to_owned()), ..BrokerOptions::default() }
}

/// What lies on the disk when an acknowledgement is seen is what a process finds that comes after a crash.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_on_the_disk() {
    let folder = tempfile::tempdir().expect("folder");
    let one = broker(kept_in(folder.path())).await;
    let (mut log, mut stream) = source(&one).await;
    let (mut listener, _) = Raw::connect(&one, "listener", false, 0).await;
    let topic_filters = vec![("t/#".into(), QoS::AtLeastOnce)];
    listener.send(v3::Packet::Subscribe { packet_id: id(1), topic_filters }).await;
    assert!(matches!(listener.next().await, Some(v3::Packet::SubscribeAck { .. })));
    drop(listener);
    let (mut device, _) = Raw::connect(&one, "device", false, 0).await;
    device.publish(QoS::ExactlyOnce, 7, false, "kept").await;
    acknowledge(&mut log, next(&mut stream).await.position.ordinal).await;
    assert_eq!(device.next().await, Some(v3::Packet::PublishReceived { packet_id: id(7) }));

    let after_crash = copied(folder.path());
    let two = broker(kept_in(after_crash.path())).await;
    let (_log, mut stream) = source(&two).await;
    let (mut device, present) = Raw::connect(&two, "device", false, 0).await;
    assert!(present);
    device.publish(QoS::ExactlyOnce, 7, true, "kept").await;
    assert_eq!(device.next().await, Some(v3::Packet::PublishReceived { packet_id: id(7) }));
    nothing(&mut stream).await;
    let (mut listener, present) = Raw::connect(&two, "listener", false, 0).await;
    assert!(present);
    assert!(matches!(listener.next().await, Some(v3::Packet::Publish(found)) if found.payload == "kept"));
    assert!(
        Broker::start(BrokerSettings {
            options: kept_in(after_crash.path()),
            ..BrokerSettings::new("127.0.0.1:0")
        })
        .await
        .is_err(),
        "a folder has one broker"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_member_leaves_behind_goes_to_another() {
    let broker = broker(BrokerOptions::default()).await;
    let mut members = Vec::new();
    for name in ["one", "two"] {
        let (mut member, _) = Raw::connect(&broker, name, true, 0).await;
        let topic_filters = vec![("$share/g/work/+".into(), QoS::AtLeastOnce)];
        member.send(v3::Packet::Subscribe { packet_id: id(1), topic_filters }).await;
        assert!(matches!(member.next().await, Some(v3::Packet::SubscribeAck { .. })));
        members.push(member);
    }
    let (mut publisher, _) = Raw::connect(&broker, "publisher", true, 0).await;
    for number in 1..=10 {
        let publish = Publish {
            topic: "work/x".into(),
            ..publish(QoS::AtLeastOnce, number, false, &number.to_string())
        };
        publisher.send(publish.into()).await;
        assert!(matches!(publisher.next().await, Some(v3::Packet::PublishAck { .. })));
    }
    let mut two = members.pop().expect("two");
    drop(members);
    let mut found = Vec::new();
    while found.len() < 10 {
        let Some(v3::Packet::Publish(publish)) = two.next().await else { panic!("it ended") };
        found.push(String::from_utf8_lossy(&publish.payload).parse::<u32>().expect("number"));
    }
    found.sort_unstable();
    assert_eq!(found, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection_and_broken_packets_end_theirs_alone() {
    let broker = broker(BrokerOptions::default()).await;
    let (mut steady, _) = Raw::connect(&broker, "steady", true, 0).await;
    let (mut silent, _) = Raw::connect(&broker, "silent", true, 1).await;
    for bytes in
        [&b"\x10\x00"[..], b"\x30\xff\xff\xff\xff\xff", b"\x00\x00", b"\x36\x05\0\x01abc", b"\x34\x03\0\x01#"]
    {
        let (mut broken, _) = Raw::connect(&broker, "broken", true, 0).await;
        broken.stream.write_all(bytes).await.expect("sent");
        assert_eq!(broken.next().await, None, "{bytes:?}");
    }
    let mut stranger = TcpStream::connect(broker.local_addr()).await.expect("connection");
    stranger.write_all(b"\x10\x0d\0\x04MQTT\x09\x02\0\0\0\x01a").await.expect("sent");
    let mut answer = Vec::new();
    stranger.read_to_end(&mut answer).await.expect("answer");
    assert_eq!(answer, [0x20, 2, 0, 1], "an unknown version is told so");
    assert_eq!(silent.next().await, None);
    steady.send(v3::Packet::PingRequest).await;
    assert_eq!(steady.next().await, Some(v3::Packet::PingResponse));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_packet_comes_together_from_small_pieces() {
    let broker = broker(BrokerOptions::default()).await;
    let (mut source, mut stream) = source(&broker).await;
    let (mut device, _) = Raw::connect(&broker, "device", true, 0).await;
    let text = "0123456789".repeat(50_000);
    let mut bytes = BytesMut::new();
    for number in [1, 2] {
        let packet = publish(QoS::AtLeastOnce, number, false, &text);
        device.codec.encode(MqttPacket::V3(packet.into()), &mut bytes).expect("packet");
    }
    for piece in bytes.chunks(3333) {
        device.stream.write_all(piece).await.expect("sent");
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        assert!(next(&mut stream).await.payload == text);
    }
    acknowledge(&mut source, 2).await;
    assert_eq!(device.next().await, Some(v3::Packet::PublishAck { packet_id: id(1) }));
    assert_eq!(device.next().await, Some(v3::Packet::PublishAck { packet_id: id(2) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_is_told_the_reason() {
    let broker = broker(BrokerOptions::default()).await;
    let connect = async |client: &str| {
        let mut raw = Raw::open(&broker, true).await;
        let bytes =
            [&[0x10, 13 + client.len() as u8, 0, 4][..], b"MQTT\x05\x02\0\0\0\0", &[client.len() as u8]];
        raw.stream.write_all(&bytes.concat()).await.expect("sent");
        raw.stream.write_all(client.as_bytes()).await.expect("sent");
        let Some(MqttPacket::V5(v5::Packet::ConnectAck(ack))) = raw.next_any().await else {
            panic!("no CONNACK")
        };
        (raw, ack)
    };
    let (mut first, ack) = connect("same").await;
    assert_eq!((ack.reason_code, ack.receive_max.get()), (v5::ConnectAckReason::Success, 1024));
    let (mut second, _) = connect("same").await;
    let reason = |packet| match packet {
        Some(MqttPacket::V5(v5::Packet::Disconnect(disconnect))) => disconnect.reason_code,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(first.next_any().await), v5::DisconnectReasonCode::SessionTakenOver);
    second.stream.write_all(b"\x30\x05\0\x03a/#\0").await.expect("sent");
    let found = reason(second.next_any().await);
    assert!(found != v5::DisconnectReasonCode::NormalDisconnection, "{found:?}");
    let (_, ack) = connect("").await;
    assert!(ack.assigned_client_id.is_some_and(|client| !client.is_empty()));
    broker.shutdown().await;
}
