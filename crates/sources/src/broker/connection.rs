//! One client's connection: a state machine that holds no buffer while nothing happens.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::{DisconnectReasonCode, ToReasonCode};
use tokio_util::io::poll_read_buf;

use super::claims::Refusal;
use super::core::Core;
use super::limiter::Limiter;
use super::link::Link;
use super::rules::Permissions;
use super::session::{Peer, Session};
use super::stream::Stream;
use super::window::Window;
use super::wire::{Incoming, Wire, frame};

/// How much is read at once, and how much may wait to be written before the client is read again.
const ROOM_BYTES: usize = 64 * 1024;

/// A block with less room than this is left.
const SMALL_READ_BYTES: usize = 8 * 1024;

thread_local! {
    /// Where this thread reads into; what is read on is taken out of it without a copy.
    static ROOM: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client took its leave.
    Left { with_will: bool },
    /// The bytes ended.
    Lost,
    /// The broker ends it, and says why to a version 5 client.
    Closed(DisconnectReasonCode, Option<&'static str>),
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self::Closed(error.to_reason_code(), None)
    }
}

/// A hand-over to a source that has no room.
pub(super) struct Stalled {
    pub(super) handed_over: Pin<Box<dyn Future<Output = Result<u32, Refusal>> + Send>>,
    /// How many sources it waits for.
    pub(super) left: u32,
    /// The publish, when it has no place in the window (QoS 0).
    pub(super) unacknowledged: Option<Box<Publish>>,
}

pub(crate) struct Connection {
    pub(super) stream: Stream,
    pub(super) wire: Wire,
    pub(super) core: Arc<Core>,
    pub(super) session: Arc<Session>,
    pub(super) link: Arc<Link>,
    /// `None` when nothing is forbidden.
    pub(super) permissions: Option<Box<Permissions>>,
    pub(super) peer: Peer,
    /// What was read and not understood or not admitted yet.
    pub(super) input: BytesMut,
    pub(super) out: BytesMut,
    pub(super) window: Window,
    pub(super) stalled: Option<Stalled>,
    pub(super) limiter: Option<Box<Limiter>>,
    pub(super) aliases: HashMap<u16, ByteString>,
}

impl Connection {
    /// Runs until the connection is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.poll_end(cx) {
            Poll::Ready(Err(end)) => Poll::Ready(end),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.link.waker.register(cx.waker());
        loop {
            if let Some(reason) = self.link.ending() {
                return Poll::Ready(Err(End::Closed(reason, None)));
            }
            self.hear();
            self.advance()?;
            self.poll_stalled(cx)?;
            if self.link.outgoing.swap(false, Ordering::AcqRel) {
                self.fill();
            }
            if !self.out.is_empty() || self.stream.unsent() {
                match self.stream.poll_send(cx, &mut self.out) {
                    Poll::Ready(Ok(())) => {
                        // There may be more than went into the buffer.
                        if self.link.outgoing.load(Ordering::Acquire) {
                            continue;
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Lost)),
                    Poll::Pending => {}
                }
            }
            if let Some(limiter) = &mut self.limiter {
                let _ = limiter.poll(cx);
            }
            let held = self.held();
            if held != self.link.held.load(Ordering::Relaxed) {
                self.link.held.store(held, Ordering::Relaxed);
                self.link.heard_s.store(self.core.now_s.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            if !self.may_read() {
                return Poll::Pending;
            }
            ready!(self.poll_input(cx))?;
        }
    }

    /// Whether the broker itself holds the client up.
    fn held(&self) -> bool {
        self.stalled.is_some()
            || self.window.len() >= usize::from(self.core.limits.inflight)
            || self.limiter.as_ref().is_some_and(|limiter| limiter.paused())
    }

    /// Whether the next packet may be taken in. A client that does not read its own packets is not read either.
    fn may_read(&self) -> bool {
        !self.held() && self.out.len() < ROOM_BYTES
    }

    /// Writes messages of the session to the buffer.
    fn fill(&mut self) {
        let dropped = self.session.send(&mut self.wire, self.peer, &mut self.out, ROOM_BYTES);
        for number in dropped {
            self.core.done(&self.session, number);
        }
        if self.out.len() >= ROOM_BYTES {
            self.link.outgoing.store(true, Ordering::Release);
        }
    }

    /// Takes in packets that were read before, or reads. Ready when something was taken in.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.input.is_empty() {
            return ROOM.with_borrow_mut(|room| {
                room.clear();
                // A message keeps the block alive that it was read into, so a block is used up before the next one.
                if room.capacity() < SMALL_READ_BYTES {
                    room.reserve(ROOM_BYTES);
                }
                ready!(self.poll_bytes(cx, room))?;
                self.take_in(room)?;
                if !room.is_empty() {
                    self.input = BytesMut::from(&room[..]);
                }
                Poll::Ready(Ok(()))
            });
        }
        let mut bytes = std::mem::take(&mut self.input);
        let before = bytes.len();
        let taken = self.take_in(&mut bytes);
        let outcome = if taken.is_err() || bytes.len() < before {
            Poll::Ready(taken)
        } else {
            let wanted = frame(&bytes, self.core.max_packet_bytes)?.unwrap_or(0);
            // A large packet is given room as it comes, not as it announces itself.
            bytes.reserve(wanted.saturating_sub(bytes.len()).clamp(512, ROOM_BYTES));
            match self.poll_bytes(cx, &mut bytes) {
                Poll::Ready(Ok(())) => Poll::Ready(self.take_in(&mut bytes)),
                other => other,
            }
        };
        self.input = if bytes.is_empty() { BytesMut::new() } else { bytes };
        outcome
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut BytesMut) -> Poll<Result<(), End>> {
        match ready!(poll_read_buf(Pin::new(&mut self.stream), cx, bytes)) {
            Ok(0) | Err(_) => Poll::Ready(Err(End::Lost)),
            Ok(_) => {
                self.link.heard_s.store(self.core.now_s.load(Ordering::Relaxed), Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Takes whole packets off the front, as long as nothing holds up the next.
    fn take_in(&mut self, bytes: &mut BytesMut) -> Result<(), End> {
        while self.may_read() {
            match frame(bytes, self.core.max_packet_bytes)? {
                Some(length) if bytes.len() >= length => {
                    let packet = self.wire.decode(bytes)?;
                    self.take(packet, length)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: Incoming, length: usize) -> Result<(), End> {
        match packet {
            Incoming::Publish(publish) => {
                if let Some(limiter) = &mut self.limiter {
                    limiter.take(length);
                }
                return self.publish(publish);
            }
            Incoming::Acknowledged(id) | Incoming::Received(id, true) => {
                let number = self.session.acknowledged(id);
                self.delivered(number);
            }
            Incoming::Received(id, false) => {
                let known = self.session.received(id);
                self.wire.release(id, known, &mut self.out);
            }
            Incoming::Completed(id) => {
                let number = self.session.completed(id);
                self.delivered(number);
            }
            Incoming::Released(id) => self.released(id),
            Incoming::Subscribe(id, wanted) => self.subscribe(id, &wanted),
            Incoming::Unsubscribe(id, filters) => self.unsubscribe(id, &filters),
            Incoming::Ping => self.wire.ping_response(&mut self.out),
            Incoming::Disconnect { with_will, expiry_s } => {
                if let Some(expiry_s) = expiry_s {
                    self.core.change_expiry(&self.session, expiry_s);
                }
                return Err(End::Left { with_will });
            }
            Incoming::Misplaced => return Err(End::Closed(DisconnectReasonCode::ProtocolError, None)),
        }
        Ok(())
    }

    /// Closes the socket; the rest of the connection stays.
    pub(super) fn shut(&mut self) {
        self.stream = Stream::Shut;
        (self.input, self.out) = (BytesMut::new(), BytesMut::new());
    }

    /// A delivery is over: there is room for another.
    fn delivered(&mut self, number: u64) {
        self.core.done(&self.session, number);
        self.link.outgoing.store(true, Ordering::Release);
    }
}
