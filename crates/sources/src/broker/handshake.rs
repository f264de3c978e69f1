//! From an accepted socket to a running connection: TLS, CONNECT, credentials, session, CONNACK.

use std::collections::HashMap;
use std::io;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::MqttPacket;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::PublishProperties;
use rmqtt_codec::version::{ProtocolVersion, VersionCodec};
use rmqtt_codec::{v3, v5};
use tokio::io::AsyncReadExt;
use tokio_util::codec::Decoder;

use super::connection::Connection;
use super::core::Core;
use super::gate::Credentials;
use super::limiter::Limiter;
use super::link::Link;
use super::session::{Peer, Will};
use super::stream::Stream;
use super::window::Window;
use super::wire::{Wire, detached, detached_bytes, frame};

/// The highest topic alias that a client may use.
pub(super) const ALIASES: u16 = 32;

/// The largest CONNECT: nobody is known yet.
const CONNECT_BYTES: u32 = 64 * 1024;

/// How many messages without an acknowledgement a client is sent that does not say what it can take.
const DEFAULT_WINDOW: u16 = 128;

/// How many at most.
const LARGEST_WINDOW: u16 = 4096;

/// A CONNECT of either version.
struct Connect {
    client: ByteString,
    clean_start: bool,
    expiry_s: u32,
    keep_alive_s: u16,
    peer: Peer,
    will: Option<Box<Will>>,
    username: Option<ByteString>,
    password: Option<Bytes>,
    /// Asks for an authentication method, of which there is none.
    method: bool,
}

/// Why a client is not let in.
#[derive(Clone, Copy)]
struct Refusal(v3::ConnectAckReason, v5::ConnectAckReason);

const BAD_CREDENTIALS: Refusal =
    Refusal(v3::ConnectAckReason::BadUserNameOrPassword, v5::ConnectAckReason::BadUserNameOrPassword);
const NOT_AUTHORIZED: Refusal =
    Refusal(v3::ConnectAckReason::NotAuthorized, v5::ConnectAckReason::NotAuthorized);
const UNAVAILABLE: Refusal =
    Refusal(v3::ConnectAckReason::ServiceUnavailable, v5::ConnectAckReason::ServerBusy);
const BAD_METHOD: Refusal =
    Refusal(v3::ConnectAckReason::NotAuthorized, v5::ConnectAckReason::BadAuthenticationMethod);
const BAD_WILL: Refusal =
    Refusal(v3::ConnectAckReason::NotAuthorized, v5::ConnectAckReason::TopicNameInvalid);

/// Lets a client in. `None` when it was refused or went away; it has been told then.
pub(crate) async fn handshake(
    mut stream: Stream,
    core: Arc<Core>,
    certificate_name: Option<String>,
) -> Option<Connection> {
    let (mut wire, connect, input) = match read_connect(&mut stream, &core).await {
        Ok(found) => found?,
        Err(_) => return None,
    };
    let version_5 = wire.version_5();
    let mut out = BytesMut::new();
    let credentials = Credentials {
        client: connect.client.clone(),
        username: connect.username.clone(),
        password: connect.password.clone(),
        certificate_name,
    };
    let refusal = if connect.method {
        Some(BAD_METHOD)
    } else if connect.will.as_ref().is_some_and(|will| will.publish.topic.contains(['+', '#', '\0'])) {
        Some(BAD_WILL)
    } else {
        None
    };
    let admitted = match refusal {
        Some(refusal) => Err(refusal),
        None => match core.gate.admit(&credentials).await {
            Some(identity) => Ok(identity),
            None if credentials.password.is_some() => Err(BAD_CREDENTIALS),
            None => Err(NOT_AUTHORIZED),
        },
    };
    let admitted = admitted.and_then(|identity| {
        let will = connect.will.as_ref();
        let will_allowed = will.is_none_or(|will| identity.permissions.may_publish(&will.publish.topic));
        if will_allowed { Ok(identity) } else { Err(NOT_AUTHORIZED) }
    });
    let identity = match admitted {
        Ok(identity) => identity,
        Err(refusal) => {
            tracing::info!(client = %credentials.client, "a client was refused");
            refuse(&mut stream, &mut wire, refusal).await;
            return None;
        }
    };
    let assigned = connect.client.is_empty();
    let client = if assigned { core.new_client() } else { detached(&connect.client) };
    let link = Arc::new(Link::new(connect.keep_alive_s, core.now_s.load(Ordering::Relaxed)));
    let expiry_s = connect.expiry_s.min(core.limits.session_expiry_s);
    let found = core.admit(&client, connect.clean_start, expiry_s, connect.will, &link).await;
    let Some((session, session_present)) = found else {
        refuse(&mut stream, &mut wire, UNAVAILABLE).await;
        return None;
    };
    if version_5 {
        wire.connack_v5(
            v5::ConnectAck {
                session_present,
                session_expiry_interval_secs: (expiry_s != connect.expiry_s).then_some(expiry_s),
                receive_max: NonZeroU16::new(core.limits.inflight).unwrap_or(NonZeroU16::MIN),
                max_packet_size: Some(core.max_packet_bytes),
                assigned_client_id: assigned.then(|| client.clone()),
                topic_alias_max: ALIASES,
                ..v5::ConnectAck::default()
            },
            &mut out,
        );
    } else {
        wire.connack_v3(v3::ConnectAckReason::ConnectionAccepted, session_present, &mut out);
    }
    session.send_again(&mut wire, connect.peer, &mut out);
    link.notify();
    let limits = &core.limits;
    let limiter = Limiter::new(limits.messages_per_second, limits.bytes_per_second);
    let permissions = identity.permissions;
    Some(Connection {
        stream,
        wire,
        session,
        link,
        permissions: (!permissions.unlimited()).then(|| Box::new(permissions)),
        peer: connect.peer,
        input,
        out,
        window: Window::default(),
        stalled: None,
        limiter,
        aliases: HashMap::new(),
        core,
    })
}

async fn refuse(stream: &mut Stream, wire: &mut Wire, refusal: Refusal) {
    let mut out = BytesMut::new();
    if wire.version_5() {
        wire.connack_v5(v5::ConnectAck { reason_code: refusal.1, ..v5::ConnectAck::default() }, &mut out);
    } else {
        wire.connack_v3(refusal.0, false, &mut out);
    }
    send(stream, &mut out).await;
}

/// Writes as far as that goes within a second.
pub(super) async fn send(stream: &mut Stream, out: &mut BytesMut) {
    let sent = std::future::poll_fn(|cx| stream.poll_send(cx, out));
    // Whoever does not take it has gone.
    let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
}

/// Reads the CONNECT. `Ok(None)`: it was no CONNECT that can be answered otherwise than here.
async fn read_connect(stream: &mut Stream, core: &Core) -> io::Result<Option<(Wire, Connect, BytesMut)>> {
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        match frame(&bytes, CONNECT_BYTES.min(core.max_packet_bytes)) {
            Ok(Some(length)) if bytes.len() >= length => break,
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    let mut wire = match VersionCodec.decode(&mut bytes) {
        Ok(Some(version)) => Wire::new(version == ProtocolVersion::MQTT5),
        Err(DecodeError::InvalidProtocol) => {
            let refusal = Refusal(
                v3::ConnectAckReason::UnacceptableProtocolVersion,
                v5::ConnectAckReason::UnsupportedProtocolVersion,
            );
            refuse(stream, &mut Wire::new(false), refusal).await;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    let connect = match wire.connect(&mut bytes) {
        Ok(Some(MqttPacket::V3(v3::Packet::Connect(connect)))) => from_v3(*connect),
        Ok(Some(MqttPacket::V5(v5::Packet::Connect(connect)))) => from_v5(*connect),
        Err(DecodeError::InvalidClientId) => {
            let refusal = Refusal(
                v3::ConnectAckReason::IdentifierRejected,
                v5::ConnectAckReason::ClientIdentifierNotValid,
            );
            refuse(stream, &mut wire, refusal).await;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    // What was sent after the CONNECT, in a buffer of its own size.
    let input = if bytes.is_empty() { BytesMut::new() } else { BytesMut::from(&bytes[..]) };
    Ok(Some((wire, connect, input)))
}

fn from_v3(connect: v3::Connect) -> Connect {
    Connect {
        client: connect.client_id,
        clean_start: connect.clean_session,
        expiry_s: if connect.clean_session { 0 } else { u32::MAX },
        keep_alive_s: connect.keep_alive,
        peer: Peer { window: DEFAULT_WINDOW, max_packet_bytes: u32::MAX },
        will: connect.last_will.map(|will| {
            let publish = Publish {
                dup: false,
                retain: will.retain,
                qos: will.qos,
                topic: detached(&will.topic),
                packet_id: None,
                payload: detached_bytes(&will.message),
                properties: None,
            };
            Box::new(Will { publish, delay_s: 0 })
        }),
        username: connect.username,
        password: connect.password,
        method: false,
    }
}

fn from_v5(connect: v5::Connect) -> Connect {
    let window = connect.receive_max.map_or(DEFAULT_WINDOW, |most| most.get().min(LARGEST_WINDOW));
    Connect {
        client: connect.client_id,
        clean_start: connect.clean_start,
        expiry_s: connect.session_expiry_interval_secs,
        keep_alive_s: connect.keep_alive,
        peer: Peer { window, max_packet_bytes: connect.max_packet_size.map_or(u32::MAX, NonZeroU32::get) },
        will: connect.last_will.map(|will| {
            let detach = |(name, value): &(ByteString, ByteString)| (detached(name), detached(value));
            let properties = PublishProperties {
                topic_alias: None,
                correlation_data: will.correlation_data.as_ref().map(detached_bytes),
                message_expiry_interval: will.message_expiry_interval,
                content_type: will.content_type.as_ref().map(detached),
                user_properties: will.user_properties.iter().map(detach).collect(),
                is_utf8_payload: will.is_utf8_payload.unwrap_or(false),
                response_topic: will.response_topic.as_ref().map(detached),
                subscription_ids: Vec::new(),
            };
            let publish = Publish {
                dup: false,
                retain: will.retain,
                qos: will.qos,
                topic: detached(&will.topic),
                packet_id: None,
                payload: detached_bytes(&will.message),
                properties: Some(properties),
            };
            Box::new(Will { publish, delay_s: will.will_delay_interval_sec.unwrap_or(0) })
        }),
        username: connect.username,
        password: connect.password,
        method: connect.auth_method.is_some(),
    }
}
