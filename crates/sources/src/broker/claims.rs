//! Which source records which topics, and the hand-over of a publish to it.
//!
//! A *claim* is a set of topic filters whose messages a source makes durable. While a source is attached to the claim,
//! a publish goes to it through a bounded channel with a [`Receipt`], which the source confirms when the message is on
//! stable storage. A claim outlives its source: between one source and the next (a pipeline that restarts, a service
//! that is still starting) publishers wait, and are refused after the patience of the settings; they are never told
//! "received" for a message that nobody records.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use rmqtt_codec::types::Publish;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::link::Receipt;
use crate::received_at::RECEIVED_AT_PROPERTY;
use crate::topic_filter::TopicFilter;

/// A publish on its way to a source.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    /// The value of the user property `received_at`.
    pub(crate) received_at: Option<String>,
    /// Confirmed when the message is durable; dropped when it will not be. `None` when nobody waits (QoS 0, wills).
    pub(crate) receipt: Option<Receipt>,
}

impl Delivery {
    pub(crate) fn new(publish: &Publish) -> Self {
        let received_at = publish.properties.as_ref().and_then(|properties| {
            let mut found =
                properties.user_properties.iter().filter(|(name, _)| name == RECEIVED_AT_PROPERTY);
            found.next().map(|(_, value)| value.to_string())
        });
        let topic: &str = &publish.topic;
        Self { topic: topic.into(), payload: publish.payload.clone(), received_at, receipt: None }
    }
}

/// Why a publish must not be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The claim has no source, and none came in time.
    NoSource,
    /// The source took the message and went away before it was durable.
    NotDurable,
    /// The broker is closing.
    Closing,
}

impl Refusal {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NoSource => "no source is attached to record this topic",
            Self::NotDurable => "the message could not be made durable",
            Self::Closing => "the broker is closing",
        }
    }
}

/// How an offer went.
#[derive(Debug)]
pub(crate) enum Offered {
    /// So many sources have taken the message; 0 when no claim takes it.
    Taken(u32),
    /// So many sources have taken it; the claims of `left` have no room or no source at the moment.
    Waiting { taken: u32, left: Vec<u64> },
}

struct Claim {
    id: u64,
    filters: Vec<TopicFilter>,
    minimum_qos: u8,
    sender: Option<mpsc::Sender<Delivery>>,
}

impl Claim {
    fn takes(&self, topic: &str, qos: u8) -> bool {
        qos >= self.minimum_qos && self.filters.iter().any(|filter| filter.matches(topic))
    }
}

/// All claims of one broker.
pub(crate) struct Claims {
    table: RwLock<Vec<Claim>>,
    next_id: AtomicU64,
    /// Changes with each attachment, so that waiting publishers look again.
    changed: watch::Sender<u64>,
    closing: watch::Sender<bool>,
    /// How long a publish waits for a source to attach.
    patience: Duration,
}

impl Claims {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            table: RwLock::new(Vec::new()),
            next_id: AtomicU64::new(1),
            changed: watch::Sender::new(0),
            closing: watch::Sender::new(false),
            patience,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Claim>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Claim>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims topics before a source attaches; a claim for the same filters that has no source counts as this one.
    pub(crate) fn claim(&self, filters: Vec<TopicFilter>) {
        let mut table = self.write();
        if !table.iter().any(|claim| claim.filters == filters) {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            table.push(Claim { id, filters, minimum_qos: 0, sender: None });
        }
    }

    /// Gives up the claims for these filters that have no source: their messages are only routed from now on.
    pub(crate) fn forget(&self, filters: &[TopicFilter]) {
        self.write().retain(|claim| claim.sender.is_some() || claim.filters != filters);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Attaches a source; it takes over a claim for the same filters that has no source, or makes its own.
    pub(crate) fn attach(
        self: &Arc<Self>,
        filters: Vec<TopicFilter>,
        minimum_qos: u8,
        capacity: usize,
    ) -> Attachment {
        let (sender, deliveries) = mpsc::channel(capacity.max(1));
        let id = {
            let mut table = self.write();
            let orphan = table.iter_mut().find(|claim| claim.sender.is_none() && claim.filters == filters);
            if let Some(claim) = orphan {
                claim.sender = Some(sender);
                claim.minimum_qos = minimum_qos;
                claim.id
            } else {
                let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                table.push(Claim { id, filters, minimum_qos, sender: Some(sender) });
                id
            }
        };
        if *self.closing.borrow()
            && let Some(claim) = self.write().iter_mut().find(|claim| claim.id == id)
        {
            claim.sender = None;
        }
        self.changed.send_modify(|version| *version += 1);
        Attachment { claims: Arc::clone(self), id, deliveries }
    }

    /// Whoever waits is refused from now on, and attached sources see the end of their stream.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
        for claim in self.write().iter_mut() {
            claim.sender = None;
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Hands a publish to every source whose claim takes it, as far as that goes without waiting. `receipt` makes the
    /// receipt for each source, or `None` when nobody waits for the message to be durable.
    pub(crate) fn offer(&self, publish: &Publish, receipt: impl Fn() -> Option<Receipt>) -> Offered {
        let (topic, qos) = (&publish.topic, publish.qos.value());
        let table = self.read();
        let mut taken = 0;
        let mut left = Vec::new();
        for claim in table.iter().filter(|claim| claim.takes(topic, qos)) {
            let permit = claim.sender.as_ref().and_then(|sender| sender.try_reserve().ok());
            match permit {
                Some(permit) => {
                    permit.send(Delivery { receipt: receipt(), ..Delivery::new(publish) });
                    taken += 1;
                }
                None => left.push(claim.id),
            }
        }
        if left.is_empty() { Offered::Taken(taken) } else { Offered::Waiting { taken, left } }
    }

    /// Hands a publish to the claims that had no room, and waits for room or for a source. Returns how many took it.
    pub(crate) async fn wait(
        &self,
        left: Vec<u64>,
        publish: &Publish,
        receipt: impl Fn() -> Option<Receipt>,
    ) -> Result<u32, Refusal> {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            biased;
            outcome = self.hand_over(&left, publish, receipt) => outcome,
            _ = closing.wait_for(|closing| *closing) => Err(Refusal::Closing),
        }
    }

    async fn hand_over(
        &self,
        left: &[u64],
        publish: &Publish,
        receipt: impl Fn() -> Option<Receipt>,
    ) -> Result<u32, Refusal> {
        let mut taken = 0;
        for id in left {
            let deadline = Instant::now() + self.patience;
            let mut changed = self.changed.subscribe();
            loop {
                changed.mark_unchanged();
                let sender = match self.read().iter().find(|claim| claim.id == *id) {
                    Some(claim) => claim.sender.clone(),
                    None => break, // forgotten meanwhile
                };
                if let Some(sender) = sender {
                    if let Ok(permit) = sender.reserve().await {
                        permit.send(Delivery { receipt: receipt(), ..Delivery::new(publish) });
                        taken += 1;
                        break;
                    }
                    self.detach_closed(*id);
                }
                if *self.closing.borrow() {
                    return Err(Refusal::Closing);
                }
                match tokio::time::timeout_at(deadline, changed.changed()).await {
                    Ok(Ok(())) => {}
                    _ => return Err(Refusal::NoSource),
                }
            }
        }
        Ok(taken)
    }

    fn detach_closed(&self, id: u64) {
        if let Some(claim) = self.write().iter_mut().find(|claim| claim.id == id)
            && claim.sender.as_ref().is_some_and(mpsc::Sender::is_closed)
        {
            claim.sender = None;
        }
    }
}

/// A source's end of its claim. Dropping it leaves the claim without a source.
pub(crate) struct Attachment {
    claims: Arc<Claims>,
    id: u64,
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Close first, so that no delivery slips in after the claim is marked free.
        self.deliveries.close();
        self.claims.detach_closed(self.id);
        self.claims.changed.send_modify(|version| *version += 1);
    }
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::types::QoS;

    use super::super::link::Link;
    use super::*;

    fn filters(text: &str) -> Vec<TopicFilter> {
        vec![TopicFilter::parse(text).expect("filter")]
    }

    fn publish(topic: &'static str) -> Publish {
        Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: None,
            payload: Bytes::from_static(b"x"),
            properties: None,
        }
    }

    #[tokio::test]
    async fn a_claim_without_a_source_makes_publishers_wait_then_refuses() {
        let claims = Arc::new(Claims::new(Duration::from_millis(400)));
        claims.claim(filters("a/#"));
        assert!(matches!(claims.offer(&publish("b"), || None), Offered::Taken(0)), "only routed");
        let Offered::Waiting { taken: 0, left } = claims.offer(&publish("a/1"), || None) else {
            panic!("it must wait")
        };
        assert_eq!(claims.wait(left.clone(), &publish("a/1"), || None).await, Err(Refusal::NoSource));
        let late = {
            let claims = Arc::clone(&claims);
            tokio::spawn(async move { claims.wait(left, &publish("a/1"), || None).await })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut source = claims.attach(filters("a/#"), 0, 4);
        assert!(source.deliveries.recv().await.is_some());
        assert_eq!(late.await.expect("task"), Ok(1));
    }

    #[tokio::test]
    async fn a_full_channel_makes_publishers_wait_and_a_closing_broker_refuses_them() {
        let claims = Arc::new(Claims::new(Duration::from_secs(30)));
        let mut source = claims.attach(filters("#"), 0, 1);
        assert!(matches!(claims.offer(&publish("a"), || None), Offered::Taken(1)));
        let Offered::Waiting { left, .. } = claims.offer(&publish("a"), || None) else { panic!("full") };
        let pending = {
            let claims = Arc::clone(&claims);
            tokio::spawn(async move { claims.wait(left, &publish("a"), || None).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        claims.close();
        assert_eq!(pending.await.expect("task"), Err(Refusal::Closing));
        assert!(source.deliveries.recv().await.is_some());
        assert!(source.deliveries.recv().await.is_none(), "the stream ends");
    }

    #[test]
    fn a_receipt_tells_the_truth_either_way() {
        let link = Arc::new(Link::new(0, 0));
        Receipt::new(Arc::clone(&link), 1).confirm();
        drop(Receipt::new(Arc::clone(&link), 2));
        assert_eq!(link.take_told(), [(1, true), (2, false)]);
        assert!(link.take_told().is_empty());
    }
}
