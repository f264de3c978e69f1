//! A session: what the broker keeps for one client identifier, connected or not.

use std::collections::{BTreeSet, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::PublishProperties;
use tokio::sync::Notify;
use twinlake_contracts::now_us;

use super::link::Link;
use super::wire::{Options, Wire};

/// A message on its way to subscribers; it keeps no receive buffer alive.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Message {
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) properties: Option<PublishProperties>,
    pub(crate) qos: QoS,
    /// When it expires, in microseconds since the epoch.
    pub(crate) expires_at_us: Option<i64>,
}

/// A message for one session.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Identifiers of the subscriptions that it is for.
    pub(crate) ids: Vec<NonZeroU32>,
    /// `group/filter` when it is for one member of a group.
    pub(crate) group: Option<Arc<str>>,
    /// Its number in the broker's state file; 0 when it is not kept there.
    pub(crate) number: u64,
}

/// The will of a connected client.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) publish: Publish,
    pub(crate) delay_s: u32,
}

/// Where a delivery is between broker and subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// PUBLISH was sent; PUBACK or PUBREC is awaited.
    Sent,
    /// PUBREL was sent; PUBCOMP is awaited.
    Released,
}

struct Flight {
    packet_id: NonZeroU16,
    stage: Stage,
    outgoing: Outgoing,
}

/// What the connected client can take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// How many unacknowledged messages.
    pub(crate) window: u16,
    /// The largest packet.
    pub(crate) max_packet_bytes: u32,
}

/// How much a session may hold back for its client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// The changing part of a session.
#[derive(Default)]
pub(crate) struct State {
    /// The connection that owns the session now.
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) subscriptions: Vec<(ByteString, Options)>,
    /// How long it outlives its connection; `u32::MAX` for ever.
    pub(crate) expiry_s: u32,
    /// When the last connection ended, in microseconds since the epoch.
    pub(crate) ended_at_us: i64,
    /// Packet identifiers of QoS 2 publishes that are recorded and not yet released by the client.
    pub(crate) recorded: BTreeSet<u16>,
    pub(crate) will: Option<Box<Will>>,
    /// Counts connections, so that a delayed will knows whether its client came back.
    pub(crate) connections: u32,
    /// Taken off the table: nothing is queued any more.
    pub(crate) gone: bool,
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    flights: VecDeque<Flight>,
    last_id: u16,
}

/// What became of a message that was given to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    /// QoS 0 for a client that is away, or a session that has ended.
    Unwanted,
    /// The bound of the queue is reached.
    Full,
}

/// One client's session.
pub(crate) struct Session {
    client: ByteString,
    state: Mutex<State>,
    /// Told when a connection has let go of the session.
    pub(crate) freed: Notify,
}

impl Session {
    pub(crate) fn new(client: ByteString, expiry_s: u32) -> Self {
        let state = State { expiry_s, ..State::default() };
        Self { client, state: Mutex::new(state), freed: Notify::new() }
    }

    #[cfg(test)]
    pub(crate) fn named(client: &str) -> Arc<Self> {
        Arc::new(Self::new(client.into(), 0))
    }

    /// The client identifier.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    pub(crate) fn client_text(&self) -> ByteString {
        self.client.clone()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connected(&self) -> bool {
        self.state().link.is_some()
    }

    /// Whether a connected client takes a message without a queue.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        state.link.is_some() && state.queue.len() < 16
    }

    /// Whether messages for it must survive the process.
    pub(crate) fn persistent(&self) -> bool {
        self.state().expiry_s > 0
    }

    /// Queues a message for the client and wakes its connection.
    pub(crate) fn push(&self, outgoing: Outgoing, limits: QueueLimits) -> Pushed {
        let mut state = self.state();
        if state.gone || (state.link.is_none() && outgoing.qos == QoS::AtMostOnce) {
            return Pushed::Unwanted;
        }
        let bytes = outgoing.message.payload.len();
        if state.queue.len() >= limits.messages || state.queued_bytes + bytes > limits.bytes {
            return Pushed::Full;
        }
        state.queued_bytes += bytes;
        state.queue.push_back(outgoing);
        if let Some(link) = &state.link {
            link.notify();
        }
        Pushed::Queued
    }

    /// Writes what the client's window has room for, until `out` holds `most` bytes. Returns the numbers of kept
    /// messages that will never be sent (expired, too large for the client).
    pub(crate) fn send(&self, wire: &mut Wire, peer: Peer, out: &mut BytesMut, most: usize) -> Vec<u64> {
        let mut state = self.state();
        let mut dropped = Vec::new();
        while out.len() < most {
            let Some(next) = state.queue.front() else { break };
            if next.qos > QoS::AtMostOnce && state.flights.len() >= usize::from(peer.window) {
                break;
            }
            let Some(outgoing) = state.queue.pop_front() else { break };
            state.queued_bytes = state.queued_bytes.saturating_sub(outgoing.message.payload.len());
            let packet_id = if outgoing.qos > QoS::AtMostOnce { state.free_id() } else { None };
            if !write(wire, peer, &outgoing, packet_id, false, out) {
                dropped.extend((outgoing.number > 0).then_some(outgoing.number));
            } else if let Some(packet_id) = packet_id {
                state.flights.push_back(Flight { packet_id, stage: Stage::Sent, outgoing });
            }
        }
        if state.queue.is_empty() {
            state.queue = VecDeque::new();
        }
        dropped
    }

    /// Sends again what was not acknowledged on the last connection.
    pub(crate) fn send_again(&self, wire: &mut Wire, peer: Peer, out: &mut BytesMut) {
        let state = self.state();
        for flight in &state.flights {
            match flight.stage {
                Stage::Sent => {
                    let id = Some(flight.packet_id);
                    write(wire, peer, &flight.outgoing, id, true, out);
                }
                Stage::Released => wire.release(flight.packet_id, true, out),
            }
        }
    }

    /// PUBACK, or PUBREC of a client that refuses: the delivery is over. Returns the number of a kept message.
    pub(crate) fn acknowledged(&self, packet_id: NonZeroU16) -> u64 {
        self.land(packet_id, Stage::Sent)
    }

    /// PUBREC: whether the delivery is known.
    pub(crate) fn received(&self, packet_id: NonZeroU16) -> bool {
        let mut state = self.state();
        let flight = state.flights.iter_mut().find(|flight| flight.packet_id == packet_id);
        flight.is_some_and(|flight| {
            flight.stage = Stage::Released;
            flight.outgoing.qos == QoS::ExactlyOnce
        })
    }

    /// PUBCOMP. Returns the number of a kept message.
    pub(crate) fn completed(&self, packet_id: NonZeroU16) -> u64 {
        self.land(packet_id, Stage::Released)
    }

    fn land(&self, packet_id: NonZeroU16, stage: Stage) -> u64 {
        let mut state = self.state();
        let found =
            state.flights.iter().position(|flight| flight.packet_id == packet_id && flight.stage == stage);
        let flight = found.and_then(|index| state.flights.remove(index));
        if state.flights.is_empty() {
            state.flights = VecDeque::new();
        }
        flight.map_or(0, |flight| flight.outgoing.number)
    }

    /// What was meant for a group and not acknowledged, for another member.
    pub(crate) fn leave_to_groups(&self) -> Vec<Outgoing> {
        let mut state = self.state();
        let queued: Vec<_> = state.queue.drain(..).collect();
        let unsent = state.flights.drain(..).filter(|flight| flight.stage == Stage::Sent);
        let mut left: Vec<_> = unsent.map(|flight| flight.outgoing).collect();
        left.extend(queued);
        state.queued_bytes = 0;
        left.retain(|outgoing| outgoing.group.is_some() && outgoing.qos > QoS::AtMostOnce);
        left
    }

    /// How many messages wait or are under way.
    #[cfg(test)]
    pub(crate) fn backlog(&self) -> usize {
        let state = self.state();
        state.queue.len() + state.flights.len()
    }
}

impl State {
    fn free_id(&mut self) -> Option<NonZeroU16> {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = NonZeroU16::new(self.last_id)?;
            // The window is far smaller than the number of identifiers, so one is free.
            if !self.flights.iter().any(|flight| flight.packet_id == id) {
                return Some(id);
            }
        }
    }
}

/// Writes a PUBLISH; `false` when it has expired or the client cannot take it.
fn write(
    wire: &mut Wire,
    peer: Peer,
    outgoing: &Outgoing,
    packet_id: Option<NonZeroU16>,
    dup: bool,
    out: &mut BytesMut,
) -> bool {
    let message = &outgoing.message;
    let mut properties = None;
    if wire.version_5() {
        let mut found = message.properties.clone().unwrap_or_default();
        if let Some(expires_at_us) = message.expires_at_us {
            let left_s = (expires_at_us - now_us()) / 1_000_000;
            match u32::try_from(left_s).ok().and_then(NonZeroU32::new) {
                Some(left_s) => found.message_expiry_interval = Some(left_s),
                None => return false,
            }
        }
        found.subscription_ids.clone_from(&outgoing.ids);
        properties = Some(found);
    } else if message.expires_at_us.is_some_and(|at_us| at_us <= now_us()) {
        return false;
    }
    let publish = Publish {
        dup,
        retain: outgoing.retain,
        qos: outgoing.qos,
        topic: message.topic.clone(),
        packet_id,
        payload: message.payload.clone(),
        properties,
    };
    let before = out.len();
    if wire.publish(publish, out).is_err() || out.len() - before > peer.max_packet_bytes as usize {
        out.truncate(before);
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { messages: 3, bytes: 100 };

    fn outgoing(qos: QoS, payload: &'static str) -> Outgoing {
        let message = Message {
            topic: "t".into(),
            payload: Bytes::from_static(payload.as_bytes()),
            properties: None,
            qos,
            expires_at_us: None,
        };
        Outgoing { message: Arc::new(message), qos, retain: false, ids: Vec::new(), group: None, number: 0 }
    }

    #[test]
    fn the_window_holds_back_and_the_bound_refuses() {
        let session = Session::named("a");
        assert_eq!(session.push(outgoing(QoS::AtMostOnce, "x"), LIMITS), Pushed::Unwanted, "away");
        for _ in 0..3 {
            assert_eq!(session.push(outgoing(QoS::AtLeastOnce, "x"), LIMITS), Pushed::Queued);
        }
        assert_eq!(session.push(outgoing(QoS::AtLeastOnce, "x"), LIMITS), Pushed::Full);
        let peer = Peer { window: 2, max_packet_bytes: 1000 };
        let (mut wire, mut out) = (Wire::new(false), BytesMut::new());
        session.send(&mut wire, peer, &mut out, 1000);
        assert_eq!(out.len(), 2 * (2 + 2 + 1 + 2 + 1));
        session.acknowledged(NonZeroU16::MIN);
        out.clear();
        session.send(&mut wire, peer, &mut out, 1000);
        assert_eq!((out.len(), session.backlog()), (8, 2));
        out.clear();
        session.send_again(&mut wire, peer, &mut out);
        assert_eq!((out.len(), out[0]), (16, 0x3A), "with the flag of a repeat");
    }

    #[test]
    fn too_large_for_the_client_is_left_out_alone() {
        let session = Session::named("a");
        session.push(outgoing(QoS::AtLeastOnce, "a long payload of many bytes"), LIMITS);
        session.push(outgoing(QoS::AtLeastOnce, "x"), LIMITS);
        let (mut wire, mut out) = (Wire::new(true), BytesMut::new());
        session.send(&mut wire, Peer { window: 9, max_packet_bytes: 20 }, &mut out, 1000);
        assert_eq!((out.len(), session.backlog()), (9, 1));
    }
}
