//! Packets of both protocol versions behind one face; the bytes are made and read by the codec crate.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::error::{DecodeError, EncodeError};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{DisconnectReasonCode, PublishAck2Reason, PublishAckReason, RetainHandling};
use rmqtt_codec::{MqttCodec, MqttPacket, v3, v5};
use tokio_util::codec::{Decoder, Encoder};

/// A filter that a client wants to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) filter: ByteString,
    pub(crate) options: Options,
}

/// The options of a subscription; those of version 3 are the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Options {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0: retained messages at every subscribe, 1: only when it is new, 2: never.
    pub(crate) retain_handling: u8,
    /// The subscription identifier.
    pub(crate) id: Option<NonZeroU32>,
}

/// What a client sent after its CONNECT.
#[derive(Debug)]
pub(crate) enum Incoming {
    Publish(Box<Publish>),
    /// PUBACK.
    Acknowledged(NonZeroU16),
    /// PUBREC, and whether the receiver refuses the message.
    Received(NonZeroU16, bool),
    /// PUBREL.
    Released(NonZeroU16),
    /// PUBCOMP.
    Completed(NonZeroU16),
    Subscribe(NonZeroU16, Vec<Wanted>),
    Unsubscribe(NonZeroU16, Vec<ByteString>),
    Ping,
    /// DISCONNECT: whether the will is to be published, and a changed session expiry.
    Disconnect {
        with_will: bool,
        expiry_s: Option<u32>,
    },
    /// A packet that a client must not send here.
    Misplaced,
}

/// The outcome of one filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granted {
    Qos(QoS),
    NotAuthorized,
    Invalid,
}

/// The codec of one connection.
#[derive(Debug)]
pub(crate) struct Wire(MqttCodec);

impl Wire {
    pub(crate) fn new(version_5: bool) -> Self {
        // The sizes are checked outside: see `frame`.
        Self(if version_5 { MqttCodec::V5(v5::Codec::new(0, 0)) } else { MqttCodec::V3(v3::Codec::new(0)) })
    }

    pub(crate) fn version_5(&self) -> bool {
        matches!(self.0, MqttCodec::V5(_))
    }

    /// Takes the first packet, which must be a CONNECT.
    pub(crate) fn connect(&mut self, bytes: &mut BytesMut) -> Result<Option<MqttPacket>, DecodeError> {
        Ok(self.0.decode(bytes)?.map(|(packet, _)| packet))
    }

    /// Takes one packet off the front of `bytes`, which must hold all of it.
    pub(crate) fn decode(&mut self, bytes: &mut BytesMut) -> Result<Incoming, DecodeError> {
        let (packet, _) = self.0.decode(bytes)?.ok_or(DecodeError::InvalidLength)?;
        Ok(match packet {
            MqttPacket::V3(packet) => from_v3(packet),
            MqttPacket::V5(packet) => from_v5(packet),
            MqttPacket::Version(_) => Incoming::Misplaced,
        })
    }

    fn encode(&mut self, packet: MqttPacket, out: &mut BytesMut) {
        if let Err(error) = self.0.encode(packet, out) {
            // Only what is too long for the protocol comes here, and lengths are checked when messages arrive.
            tracing::debug!(%error, "a packet cannot be encoded");
        }
    }

    pub(crate) fn connack_v3(
        &mut self,
        code: v3::ConnectAckReason,
        session_present: bool,
        out: &mut BytesMut,
    ) {
        let ack = v3::ConnectAck { return_code: code, session_present };
        self.encode(MqttPacket::V3(v3::Packet::ConnectAck(ack)), out);
    }

    pub(crate) fn connack_v5(&mut self, ack: v5::ConnectAck, out: &mut BytesMut) {
        self.encode(MqttPacket::V5(ack.into()), out);
    }

    /// PUBACK or PUBREC.
    pub(crate) fn acknowledge(&mut self, qos: QoS, packet_id: NonZeroU16, refused: bool, out: &mut BytesMut) {
        let first = qos == QoS::AtLeastOnce;
        let packet = if self.version_5() {
            let reason_code =
                if refused { PublishAckReason::NotAuthorized } else { PublishAckReason::Success };
            let ack = v5::PublishAck { packet_id, reason_code, ..Default::default() };
            MqttPacket::V5(if first { v5::Packet::PublishAck(ack) } else { v5::Packet::PublishReceived(ack) })
        } else if first {
            MqttPacket::V3(v3::Packet::PublishAck { packet_id })
        } else {
            MqttPacket::V3(v3::Packet::PublishReceived { packet_id })
        };
        self.encode(packet, out);
    }

    pub(crate) fn release(&mut self, packet_id: NonZeroU16, known: bool, out: &mut BytesMut) {
        let packet = if self.version_5() {
            MqttPacket::V5(v5::Packet::PublishRelease(ack2(packet_id, known)))
        } else {
            MqttPacket::V3(v3::Packet::PublishRelease { packet_id })
        };
        self.encode(packet, out);
    }

    pub(crate) fn complete(&mut self, packet_id: NonZeroU16, known: bool, out: &mut BytesMut) {
        let packet = if self.version_5() {
            MqttPacket::V5(v5::Packet::PublishComplete(ack2(packet_id, known)))
        } else {
            MqttPacket::V3(v3::Packet::PublishComplete { packet_id })
        };
        self.encode(packet, out);
    }

    pub(crate) fn suback(&mut self, packet_id: NonZeroU16, granted: &[Granted], out: &mut BytesMut) {
        let packet = if self.version_5() {
            let status = granted.iter().map(|granted| match granted {
                Granted::Qos(QoS::AtMostOnce) => v5::SubscribeAckReason::GrantedQos0,
                Granted::Qos(QoS::AtLeastOnce) => v5::SubscribeAckReason::GrantedQos1,
                Granted::Qos(QoS::ExactlyOnce) => v5::SubscribeAckReason::GrantedQos2,
                Granted::NotAuthorized => v5::SubscribeAckReason::NotAuthorized,
                Granted::Invalid => v5::SubscribeAckReason::TopicFilterInvalid,
            });
            let status = status.collect();
            let ack = v5::SubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status };
            MqttPacket::V5(ack.into())
        } else {
            let status = granted.iter().map(|granted| match granted {
                Granted::Qos(qos) => v3::SubscribeReturnCode::Success(*qos),
                _ => v3::SubscribeReturnCode::Failure,
            });
            MqttPacket::V3(v3::Packet::SubscribeAck { packet_id, status: status.collect() })
        };
        self.encode(packet, out);
    }

    pub(crate) fn unsuback(&mut self, packet_id: NonZeroU16, existed: &[bool], out: &mut BytesMut) {
        let packet = if self.version_5() {
            let status = existed.iter().map(|existed| {
                if *existed {
                    v5::UnsubscribeAckReason::Success
                } else {
                    v5::UnsubscribeAckReason::NoSubscriptionExisted
                }
            });
            let status = status.collect();
            let ack = v5::UnsubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status };
            MqttPacket::V5(ack.into())
        } else {
            MqttPacket::V3(v3::Packet::UnsubscribeAck { packet_id })
        };
        self.encode(packet, out);
    }

    pub(crate) fn ping_response(&mut self, out: &mut BytesMut) {
        let packet = if self.version_5() {
            MqttPacket::V5(v5::Packet::PingResponse)
        } else {
            MqttPacket::V3(v3::Packet::PingResponse)
        };
        self.encode(packet, out);
    }

    /// DISCONNECT, which only version 5 has from this side.
    pub(crate) fn disconnect(
        &mut self,
        reason: DisconnectReasonCode,
        text: Option<&str>,
        out: &mut BytesMut,
    ) {
        if self.version_5() {
            let mut packet = v5::Disconnect::new(reason);
            packet.reason_string = text.map(ByteString::from);
            self.encode(MqttPacket::V5(packet.into()), out);
        }
    }

    pub(crate) fn publish(&mut self, mut publish: Publish, out: &mut BytesMut) -> Result<(), EncodeError> {
        let packet = if self.version_5() {
            MqttPacket::V5(publish.into())
        } else {
            publish.properties = None;
            MqttPacket::V3(publish.into())
        };
        self.0.encode(packet, out)
    }
}

fn ack2(packet_id: NonZeroU16, known: bool) -> v5::PublishAck2 {
    let reason_code = if known { PublishAck2Reason::Success } else { PublishAck2Reason::PacketIdNotFound };
    v5::PublishAck2 { packet_id, reason_code, ..Default::default() }
}

fn from_v3(packet: v3::Packet) -> Incoming {
    match packet {
        v3::Packet::Publish(publish) => Incoming::Publish(publish),
        v3::Packet::PublishAck { packet_id } => Incoming::Acknowledged(packet_id),
        v3::Packet::PublishReceived { packet_id } => Incoming::Received(packet_id, false),
        v3::Packet::PublishRelease { packet_id } => Incoming::Released(packet_id),
        v3::Packet::PublishComplete { packet_id } => Incoming::Completed(packet_id),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let wanted = topic_filters.into_iter().map(|(filter, qos)| Wanted {
                filter,
                options: Options {
                    qos,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: 0,
                    id: None,
                },
            });
            Incoming::Subscribe(packet_id, wanted.collect())
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            Incoming::Unsubscribe(packet_id, topic_filters)
        }
        v3::Packet::PingRequest => Incoming::Ping,
        v3::Packet::Disconnect => Incoming::Disconnect { with_will: false, expiry_s: None },
        _ => Incoming::Misplaced,
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    match packet {
        v5::Packet::Publish(publish) => Incoming::Publish(publish),
        v5::Packet::PublishAck(ack) => Incoming::Acknowledged(ack.packet_id),
        v5::Packet::PublishReceived(ack) => {
            Incoming::Received(ack.packet_id, u8::from(ack.reason_code) >= 0x80)
        }
        v5::Packet::PublishRelease(ack) => Incoming::Released(ack.packet_id),
        v5::Packet::PublishComplete(ack) => Incoming::Completed(ack.packet_id),
        v5::Packet::Subscribe(subscribe) => {
            let id = subscribe.id;
            let wanted = subscribe.topic_filters.into_iter().map(|(filter, options)| Wanted {
                filter,
                options: Options {
                    qos: options.qos,
                    no_local: options.no_local,
                    retain_as_published: options.retain_as_published,
                    retain_handling: match options.retain_handling {
                        RetainHandling::AtSubscribe => 0,
                        RetainHandling::AtSubscribeNew => 1,
                        RetainHandling::NoAtSubscribe => 2,
                    },
                    id,
                },
            });
            Incoming::Subscribe(subscribe.packet_id, wanted.collect())
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            Incoming::Unsubscribe(unsubscribe.packet_id, unsubscribe.topic_filters)
        }
        v5::Packet::PingRequest => Incoming::Ping,
        v5::Packet::Disconnect(disconnect) => Incoming::Disconnect {
            with_will: disconnect.reason_code != DisconnectReasonCode::NormalDisconnection,
            expiry_s: disconnect.session_expiry_interval_secs,
        },
        _ => Incoming::Misplaced,
    }
}

/// How many bytes the packet at the front takes, header included; `None` when its header is not all there yet. An
/// error when the length field is broken or the packet is larger than `most`.
pub(crate) fn frame(bytes: &[u8], most: u32) -> Result<Option<usize>, DecodeError> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let all = 2 + index + length;
            if all > most as usize {
                return Err(DecodeError::MaxSizeExceeded { size: all as u32, max: most });
            }
            return Ok(Some(all));
        }
    }
    if bytes.len() >= 5 { Err(DecodeError::InvalidLength) } else { Ok(None) }
}

/// A copy that keeps no receive buffer alive.
pub(crate) fn detached(text: &ByteString) -> ByteString {
    ByteString::from(text.to_string())
}

/// A copy that keeps no receive buffer alive.
pub(crate) fn detached_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Whatever a client sends is a packet or an error, never a panic, and takes exactly its frame.
        #[test]
        fn any_bytes_can_be_decoded(
            first in prop_oneof![
                any::<u8>(),
                prop::sample::select(vec![0x10_u8, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xE0, 0xF0]),
            ],
            connect in any::<bool>(),
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                proptest::collection::vec(prop_oneof![0..=8_u8, Just(0x26), Just(0x0B), Just(0x23)], 0..60),
            ],
            version_5 in any::<bool>(),
        ) {
            let head: &[u8] = match (connect, version_5) {
                (false, _) => b"",
                (true, false) => b"\0\x04MQTT\x04",
                (true, true) => b"\0\x04MQTT\x05",
            };
            let mut bytes = BytesMut::from(&[first, (head.len() + body.len()) as u8][..]);
            bytes.extend_from_slice(head);
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(b"next");
            let mut wire = Wire::new(version_5);
            if wire.decode(&mut bytes).is_ok() {
                prop_assert_eq!(&bytes[..], b"next");
            }
        }
    }

    #[test]
    fn a_frame_is_measured_by_its_header() {
        assert_eq!(frame(&[], 100).unwrap(), None);
        assert_eq!(frame(&[0x30], 100).unwrap(), None);
        assert_eq!(frame(&[0x30, 0x80], 100).unwrap(), None);
        assert_eq!(frame(&[0xC0, 0], 100).unwrap(), Some(2));
        assert_eq!(frame(&[0x30, 0x80, 0x01], 200).unwrap(), Some(3 + 128));
        assert!(frame(&[0x30, 0x80, 0x01], 130).is_err());
        assert!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], u32::MAX).is_err());
    }
}
