//! What other tasks may do to a connection: confirm its publishes, wake it, end it.

use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::task::AtomicWaker;
use rmqtt_codec::v5::DisconnectReasonCode;

/// The part of a connection that others hold.
pub(crate) struct Link {
    pub(crate) waker: AtomicWaker,
    /// Sequences of publishes that a source has made durable, and those that none will.
    told: Mutex<Vec<(u64, bool)>>,
    has_told: AtomicBool,
    /// Whether the session has something to send.
    pub(crate) outgoing: AtomicBool,
    /// A DISCONNECT reason; 0 while the connection may go on.
    end: AtomicU8,
    /// The broker's clock in seconds when the client was last heard.
    pub(crate) heard_s: AtomicU32,
    /// Whether the connection waits for us and is not read: silence then says nothing about the client.
    pub(crate) held: AtomicBool,
    /// After how many seconds of silence the client counts as gone; 0 for never.
    pub(crate) patience_s: u32,
}

impl Link {
    pub(crate) fn new(keep_alive_s: u16, now_s: u32) -> Self {
        let keep_alive_s = u32::from(keep_alive_s);
        Self {
            waker: AtomicWaker::new(),
            told: Mutex::new(Vec::new()),
            has_told: AtomicBool::new(false),
            outgoing: AtomicBool::new(false),
            end: AtomicU8::new(0),
            heard_s: AtomicU32::new(now_s),
            held: AtomicBool::new(false),
            patience_s: keep_alive_s + keep_alive_s.div_ceil(2),
        }
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn end(&self, reason: DisconnectReasonCode) {
        let _ = self.end.compare_exchange(0, u8::from(reason).max(1), Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// Why the connection must end, if it must.
    pub(crate) fn ending(&self) -> Option<DisconnectReasonCode> {
        let code = NonZeroU8::new(self.end.load(Ordering::Acquire))?;
        Some(DisconnectReasonCode::try_from(code.get()).unwrap_or(DisconnectReasonCode::UnspecifiedError))
    }

    /// The session has something to send.
    pub(crate) fn notify(&self) {
        self.outgoing.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn tell(&self, sequence: u64, durable: bool) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push((sequence, durable));
        self.has_told.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// What sources have said since the last call.
    pub(crate) fn take_told(&self) -> Vec<(u64, bool)> {
        if !self.has_told.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Given to a source with a publish: it confirms that the message is on stable storage. Dropped without that, the
/// publisher's connection ends without an acknowledgement.
#[derive(Debug)]
pub(crate) struct Receipt {
    link: Option<Arc<Link>>,
    sequence: u64,
}

impl Receipt {
    pub(crate) fn new(link: Arc<Link>, sequence: u64) -> Self {
        Self { link: Some(link), sequence }
    }

    /// The message is on stable storage.
    pub(crate) fn confirm(mut self) {
        if let Some(link) = self.link.take() {
            link.tell(self.sequence, true);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.tell(self.sequence, false);
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("ending", &self.ending()).finish_non_exhaustive()
    }
}
