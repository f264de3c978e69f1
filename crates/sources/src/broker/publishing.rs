//! The publishes of a client: from its packet through the sources to subscribers and the acknowledgement.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::DisconnectReasonCode;

use super::claims::{Offered, Refusal};
use super::connection::{Connection, End, Stalled};
use super::kept::Record;
use super::link::Receipt;
use super::window::{Pending, Stage};

const PROTOCOL: End = End::Closed(DisconnectReasonCode::ProtocolError, None);

impl Connection {
    /// A PUBLISH of the client.
    pub(super) fn publish(&mut self, mut publish: Box<Publish>) -> Result<(), End> {
        self.core.counters.messages.fetch_add(1, Ordering::Relaxed);
        self.resolve_alias(&mut publish)?;
        if publish.topic.is_empty() || publish.topic.contains(['+', '#', '\0']) {
            return Err(End::Closed(DisconnectReasonCode::TopicNameInvalid, None));
        }
        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
            let recorded = {
                let state = self.session.state();
                let full = state.recorded.len() + self.window.len() >= usize::from(u16::MAX);
                if full {
                    return Err(End::Closed(DisconnectReasonCode::ReceiveMaximumExceeded, None));
                }
                state.recorded.contains(&id.get())
            };
            if recorded {
                // A repeat of what is in the log: acknowledged again, not recorded again.
                self.wire.acknowledge(QoS::ExactlyOnce, id, false, &mut self.out);
                return Ok(());
            }
            let same = |pending: &Pending| {
                pending.publish.qos == QoS::ExactlyOnce && pending.publish.packet_id == Some(id)
            };
            if publish.dup && self.window.iter().any(same) {
                return Ok(());
            }
        }
        let allowed =
            self.permissions.as_ref().is_none_or(|permissions| permissions.may_publish(&publish.topic));
        if !allowed {
            return self.refuse(publish);
        }
        self.offer(publish);
        Ok(())
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), End> {
        let Some(alias) = publish.properties.as_mut().and_then(|properties| properties.topic_alias.take())
        else {
            return Ok(());
        };
        if alias.get() > super::handshake::ALIASES {
            return Err(End::Closed(DisconnectReasonCode::TopicAliasInvalid, None));
        }
        if publish.topic.is_empty() {
            publish.topic = self.aliases.get(&alias.get()).cloned().ok_or(PROTOCOL)?;
        } else {
            self.aliases.insert(alias.get(), super::wire::detached(&publish.topic));
        }
        Ok(())
    }

    fn refuse(&mut self, publish: Box<Publish>) -> Result<(), End> {
        self.core.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(client = %self.session.client(), topic = %publish.topic, "not allowed to publish");
        if publish.qos == QoS::AtMostOnce {
            return Ok(());
        }
        if !self.wire.version_5() {
            // Version 3 has no word for it but the end; an acknowledgement would be a lie.
            return Err(End::Closed(DisconnectReasonCode::NotAuthorized, None));
        }
        self.core.counters.waiting.fetch_add(1, Ordering::Relaxed);
        self.hold(publish, Stage::Refused, false);
        Ok(())
    }

    fn hold(&mut self, publish: Box<Publish>, stage: Stage, recorded: bool) {
        self.window.push(Pending { publish, stage, recorded });
    }

    /// Hands a publish to the sources that claim it.
    fn offer(&mut self, publish: Box<Publish>) {
        let waits = publish.qos > QoS::AtMostOnce;
        let sequence = self.window.next();
        // Counted before a source can see it.
        self.core.counters.waiting.fetch_add(u64::from(waits), Ordering::Relaxed);
        let receipt = |link: &Arc<_>| waits.then(|| Receipt::new(Arc::clone(link), sequence));
        match self.core.claims.offer(&publish, || receipt(&self.link)) {
            Offered::Taken(taken) if waits => self.hold(publish, Stage::Log(taken), taken > 0),
            Offered::Taken(taken) => {
                self.core.counters.recorded.fetch_add(u64::from(taken > 0), Ordering::Relaxed);
                self.core.route(&publish, Some(&self.session));
            }
            Offered::Waiting { taken, left } => {
                let (core, link) = (Arc::clone(&self.core), Arc::clone(&self.link));
                let (count, offered) = (left.len() as u32, (*publish).clone());
                let handed_over = Box::pin(async move {
                    let receipt = || waits.then(|| Receipt::new(Arc::clone(&link), sequence));
                    core.claims.wait(left, &offered, receipt).await
                });
                let unacknowledged = if waits {
                    self.hold(publish, Stage::Log(taken + count), true);
                    None
                } else {
                    Some(publish)
                };
                self.stalled = Some(Stalled { handed_over, left: count, unacknowledged });
            }
        }
    }

    /// Goes on with a hand-over that waits for room.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(stalled) = &mut self.stalled else { return Ok(()) };
        let Poll::Ready(outcome) = stalled.handed_over.as_mut().poll(cx) else { return Ok(()) };
        let Some(Stalled { left, unacknowledged, .. }) = self.stalled.take() else { return Ok(()) };
        if let Some(publish) = unacknowledged {
            let counters = &self.core.counters;
            let counter = if outcome.is_ok() { &counters.recorded } else { &counters.refused };
            counter.fetch_add(1, Ordering::Relaxed);
            self.core.route(&publish, Some(&self.session));
            return Ok(());
        }
        let last = self.window.next().saturating_sub(1);
        match outcome {
            Ok(taken) => {
                for _ in taken..left {
                    self.window.tell(last, true); // a claim that was forgotten meanwhile
                }
                self.hear();
                self.advance()
            }
            Err(refusal) => {
                self.window.tell(last, false);
                Err(self.not_durable(refusal))
            }
        }
    }

    fn not_durable(&self, refusal: Refusal) -> End {
        tracing::warn!(client = %self.session.client(), "a message was not acknowledged: {}", refusal.text());
        End::Closed(DisconnectReasonCode::ImplementationSpecificError, Some(refusal.text()))
    }

    /// Takes note of what sources have said.
    pub(super) fn hear(&mut self) {
        for (sequence, durable) in self.link.take_told() {
            self.window.tell(sequence, durable);
        }
    }

    /// Routes what is durable and acknowledges what is safe.
    pub(super) fn advance(&mut self) -> Result<(), End> {
        self.settle(true);
        if self.window.front().is_some_and(|pending| pending.stage == Stage::Failed) {
            return Err(self.not_durable(Refusal::NotDurable));
        }
        Ok(())
    }

    /// Routes what is durable, takes what is over out of the window and counts it.
    pub(super) fn settle(&mut self, acknowledge: bool) {
        if self.window.len() == 0 {
            return;
        }
        for pending in self.window.durable() {
            let mut number = 0;
            if let (QoS::ExactlyOnce, Some(id)) = (pending.publish.qos, pending.publish.packet_id) {
                let (packet_id, session) = (id.get(), &self.session);
                session.state().recorded.insert(packet_id);
                if session.persistent() {
                    number = self.core.keep(|| Record::Recorded { client: session.client_text(), packet_id });
                }
            }
            number = number.max(self.core.route(&pending.publish, Some(&self.session)));
            // Asked once here, so that the link is woken; below it is looked at.
            self.core.kept(number, &self.link);
            pending.stage = Stage::State(number);
        }
        while let Some(pending) = self.window.front() {
            match pending.stage {
                Stage::State(number) if self.core.is_kept(number) => {}
                Stage::Refused => {}
                Stage::Failed if !acknowledge => {}
                _ => break,
            }
            let Some(pending) = self.window.pop() else { break };
            let counters = &self.core.counters;
            counters.waiting.fetch_sub(1, Ordering::Relaxed);
            match pending.stage {
                Stage::Failed => drop(counters.refused.fetch_add(1, Ordering::Relaxed)),
                _ if pending.recorded => drop(counters.recorded.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
            if let (true, Some(id)) = (acknowledge, pending.publish.packet_id) {
                let refused = pending.stage == Stage::Refused;
                self.wire.acknowledge(pending.publish.qos, id, refused, &mut self.out);
            }
        }
    }

    /// PUBREL: the identifier is free again.
    pub(super) fn released(&mut self, id: NonZeroU16) {
        let known = self.session.state().recorded.remove(&id.get());
        if known && self.session.persistent() {
            let (client, packet_id) = (self.session.client_text(), id.get());
            self.core.keep(|| Record::Released { client, packet_id });
        }
        self.wire.complete(id, known, &mut self.out);
    }

    /// After the end: what was handed over is still routed when it is durable, without an acknowledgement. Ready when
    /// nothing waits any more, or the broker closes.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.link.waker.register(cx.waker());
        self.hear();
        self.settle(false);
        if self.window.len() == 0 {
            return Poll::Ready(());
        }
        if self.core.closing.load(Ordering::Acquire) {
            while self.window.pop().is_some() {
                self.core.counters.waiting.fetch_sub(1, Ordering::Relaxed);
                self.core.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// A hand-over that had not happened when the connection ended does not happen.
    pub(super) fn give_up_stalled(&mut self) {
        if let Some(stalled) = self.stalled.take()
            && stalled.unacknowledged.is_none()
            && self.window.pop_last().is_some()
        {
            self.core.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            self.core.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
