//! Which source records which topics, and the hand-over of a publish to it.
//!
//! A *claim* is a set of topic filters whose messages a source makes durable. While a source is attached to the claim,
//! a publish goes to it through a bounded channel, and the publisher waits until the source says that the message is
//! on stable storage. A claim outlives its source: between one source and the next (a pipeline that restarts, a
//! service that is still starting) publishers wait, and are refused after [`Claims::patience`]; they are never told
//! "received" for a message that nobody records.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::topic_filter::TopicFilter;

/// A publish on its way to a source.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    /// The value of the user property `received_at`.
    pub(crate) received_at: Option<String>,
    /// Told when the message is durable; dropped untold when it will not be. `None` when nobody waits (QoS 0).
    pub(crate) durable: Option<oneshot::Sender<()>>,
}

/// A publish as the hook sees it.
pub(crate) struct Offer<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a Bytes,
    pub(crate) received_at: Option<&'a str>,
    pub(crate) qos: u8,
    /// Whether the publisher waits for an acknowledgement.
    pub(crate) waits: bool,
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

struct Claim {
    id: u64,
    filters: Vec<TopicFilter>,
    minimum_qos: u8,
    sender: Option<mpsc::Sender<Delivery>>,
}

impl Claim {
    fn takes(&self, offer: &Offer<'_>) -> bool {
        offer.qos >= self.minimum_qos && self.filters.iter().any(|filter| filter.matches(offer.topic))
    }
}

/// All claims of one broker.
pub(crate) struct Claims {
    table: Mutex<Vec<Claim>>,
    next_id: AtomicU64,
    /// Changes with each attachment, so that waiting publishers look again.
    changed: watch::Sender<u64>,
    closing: watch::Sender<bool>,
    /// How long a publish waits for a source to attach.
    patience: Duration,
    pub(crate) taken: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) waiting: AtomicU64,
}

impl Claims {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            table: Mutex::new(Vec::new()),
            next_id: AtomicU64::new(1),
            changed: watch::Sender::new(0),
            closing: watch::Sender::new(false),
            patience,
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }

    fn table(&self) -> MutexGuard<'_, Vec<Claim>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims topics before a source attaches; a claim for the same filters that has no source counts as this one.
    pub(crate) fn claim(&self, filters: Vec<TopicFilter>) {
        let mut table = self.table();
        if !table.iter().any(|claim| claim.filters == filters) {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            table.push(Claim { id, filters, minimum_qos: 0, sender: None });
        }
    }

    /// Gives up the claims for these filters that have no source: their messages are only routed from now on.
    pub(crate) fn forget(&self, filters: &[TopicFilter]) {
        self.table().retain(|claim| claim.sender.is_some() || claim.filters != filters);
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
            let mut table = self.table();
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
        if *self.closing.borrow() {
            self.detach(id);
        }
        self.changed.send_modify(|version| *version += 1);
        Attachment { claims: Arc::clone(self), id, deliveries }
    }

    fn detach(&self, id: u64) {
        if let Some(claim) = self.table().iter_mut().find(|claim| claim.id == id) {
            claim.sender = None;
        }
    }

    /// Whoever waits is refused from now on, and attached sources see the end of their stream.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
        for claim in self.table().iter_mut() {
            claim.sender = None;
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Hands a publish to every source whose claim takes it. When this returns `Ok` and the publisher waits, every
    /// such source has said that the message is durable.
    pub(crate) async fn offer(&self, offer: Offer<'_>) -> Result<(), Refusal> {
        let ids: Vec<u64> =
            self.table().iter().filter(|claim| claim.takes(&offer)).map(|claim| claim.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut closing = self.closing.subscribe();
        let outcome = tokio::select! {
            biased;
            outcome = self.hand_over(&ids, &offer) => outcome,
            _ = closing.wait_for(|closing| *closing) => Err(Refusal::Closing),
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let counter = if outcome.is_ok() { &self.taken } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    async fn hand_over(&self, ids: &[u64], offer: &Offer<'_>) -> Result<(), Refusal> {
        let topic: Arc<str> = offer.topic.into();
        let mut durables = Vec::new();
        for id in ids {
            let (told, durable) = oneshot::channel();
            let mut delivery = Delivery {
                topic: Arc::clone(&topic),
                payload: offer.payload.clone(),
                received_at: offer.received_at.map(str::to_owned),
                durable: offer.waits.then_some(told),
            };
            let deadline = Instant::now() + self.patience;
            let mut changed = self.changed.subscribe();
            loop {
                changed.mark_unchanged();
                let sender = match self.table().iter().find(|claim| claim.id == *id) {
                    Some(claim) => claim.sender.clone(),
                    None => break, // forgotten meanwhile
                };
                if let Some(sender) = sender {
                    match sender.send(delivery).await {
                        Ok(()) => {
                            if offer.waits {
                                durables.push(durable);
                            }
                            break;
                        }
                        Err(mpsc::error::SendError(back)) => {
                            delivery = back;
                            self.detach_closed(*id);
                        }
                    }
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
        for durable in durables {
            durable.await.map_err(|_| Refusal::NotDurable)?;
        }
        Ok(())
    }

    fn detach_closed(&self, id: u64) {
        if let Some(claim) = self.table().iter_mut().find(|claim| claim.id == id)
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
    use super::*;

    fn filters(text: &str) -> Vec<TopicFilter> {
        vec![TopicFilter::parse(text).expect("filter")]
    }

    fn offer<'a>(topic: &'a str, payload: &'a Bytes) -> Offer<'a> {
        Offer { topic, payload, received_at: None, qos: 1, waits: true }
    }

    #[tokio::test]
    async fn a_claim_without_a_source_makes_publishers_wait_then_refuses() {
        let claims = Arc::new(Claims::new(Duration::from_millis(400)));
        claims.claim(filters("a/#"));
        let payload = Bytes::from_static(b"x");
        assert_eq!(claims.offer(offer("b", &payload)).await, Ok(()), "unclaimed topics are only routed");
        assert_eq!(claims.offer(offer("a/1", &payload)).await, Err(Refusal::NoSource));
        let late = {
            let claims = Arc::clone(&claims);
            tokio::spawn(async move { claims.offer(offer("a/1", &Bytes::from_static(b"x"))).await })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut source = claims.attach(filters("a/#"), 0, 4);
        let delivery = source.deliveries.recv().await.expect("delivery");
        assert!(!late.is_finished(), "not durable yet");
        delivery.durable.expect("waits").send(()).expect("told");
        assert_eq!(late.await.expect("task"), Ok(()));
    }

    #[tokio::test]
    async fn a_source_that_goes_away_or_a_closing_broker_refuses() {
        let claims = Arc::new(Claims::new(Duration::from_secs(30)));
        let mut source = claims.attach(filters("#"), 0, 4);
        let pending = {
            let claims = Arc::clone(&claims);
            tokio::spawn(async move { claims.offer(offer("a", &Bytes::new())).await })
        };
        drop(source.deliveries.recv().await);
        assert_eq!(pending.await.expect("task"), Err(Refusal::NotDurable));
        let pending = {
            let claims = Arc::clone(&claims);
            tokio::spawn(async move { claims.offer(offer("a", &Bytes::new())).await })
        };
        let held = source.deliveries.recv().await;
        claims.close();
        assert_eq!(pending.await.expect("task"), Err(Refusal::Closing));
        assert!(source.deliveries.recv().await.is_none(), "the stream ends");
        drop(held);
    }
}
