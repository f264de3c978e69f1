//! The embedded MQTT broker (v3.1, v3.1.1, v5): its own session layer on the packets of `rmqtt-codec`.
//!
//! Promise: a publish with QoS 1 or 2 on a topic that a source has claimed is acknowledged (PUBACK, PUBREC) only
//! after the source said that the message is on stable storage. When that cannot happen (the log failed, the source
//! went away, the broker closes) the connection is closed *without* an acknowledgement, so that the device keeps the
//! message and sends it again. Publishes of QoS 0 are handed over too, without a wait for durability. Afterwards the
//! message is routed to ordinary MQTT subscribers, so nobody downstream sees what was not recorded.
//!
//! Many publishes of one connection may be on their way to the log at once, up to `inflight` of the limits (the receive
//! maximum that v5 clients are told). They are recorded, routed and acknowledged in the order in which the client sent
//! them. Publishes of all connections share the log's writes.
//!
//! Overload pushes back: a client is not read while its window is full, while the source that it publishes to has no
//! room, while it is over its rate limit, or while it does not read itself; TCP tells it so. Nothing is dropped, except
//! for a subscriber that is away or too slow and has reached `queued_messages` or `queued_bytes`: what comes on top is
//! dropped for that subscriber and counted. A slow subscriber must not slow down the recording.
//!
//! QoS 2 from a device is recorded once while the process lives, also when the device reconnects to its session in
//! between. The packet identifier is kept in the state folder before PUBREC is sent, so what was answered with PUBREC
//! is recognised after a restart too. Between the write of the log and that of the state the process may die: a device
//! that repeats such a publish has it recorded twice, never lost; `clean` with `dedup` removes it.
//!
//! With a state folder, sessions, subscriptions, queued messages and retained messages survive a restart, and PUBACK
//! also waits until what a publish changed among them is on stable storage. What a subscriber had been sent and not
//! acknowledged is sent again under a new packet identifier. Without a folder all of it is in memory.
//!
//! The wills of clients that are connected when the process ends are not published. Extended authentication (AUTH) is
//! refused, `$SYS` topics are not published; the counters are in the service's metrics.
//!
//! Several processes may share an address (`reuse_port`): the system gives each connection to one of them. Sessions,
//! subscriptions and retained messages belong to one process; devices that only publish do not notice.

mod admission;
mod claims;
mod connection;
mod core;
mod gate;
mod handshake;
mod kept;
mod limiter;
mod link;
mod listener;
mod publishing;
mod retained;
mod rules;
mod session;
mod settings;
mod state_file;
mod stream;
mod subscribing;
mod subscriptions;
mod tls;
mod token;
mod users;
mod window;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use twinlake_contracts::{Error, Result};

pub(crate) use self::claims::Attachment;
use self::claims::Claims;
use self::core::Core;
use self::gate::Gate;
pub(crate) use self::link::Receipt;
pub use self::rules::AccessRule;
pub use self::settings::{BrokerLimits, BrokerOptions, BrokerSettings, BrokerTls};
use self::state_file::StateFile;
pub use self::token::{TokenAlgorithm, TokenSettings};
pub use self::users::hash_password;
use crate::topic_filter::TopicFilter;

#[cfg(test)]
mod tests;

/// What a broker has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BrokerStats {
    /// Connections open now.
    pub connections: u64,
    /// Publishes that arrived.
    pub messages: u64,
    /// Publishes that sources took (and, for QoS 1 and 2, made durable).
    pub recorded: u64,
    /// Publishes that were not acknowledged because they could not be recorded, or were not allowed.
    pub refused: u64,
    /// Publishes that wait for durability now.
    pub waiting: u64,
    /// Messages that a subscriber did not get because its queue was full, or that were not retained for want of room.
    pub dropped: u64,
}

/// An embedded broker. Dropping the last handle closes it.
pub struct Broker {
    address: SocketAddr,
    core: Arc<Core>,
    open: Arc<AtomicUsize>,
    accept: JoinHandle<()>,
    sweep: JoinHandle<()>,
}

/// The brokers of this process by the address they listen on.
static BROKERS: LazyLock<tokio::sync::Mutex<HashMap<SocketAddr, Weak<Broker>>>> =
    LazyLock::new(Default::default);

impl Broker {
    /// Starts a broker, or gives the one that this process already has on that address (its options and limits stay
    /// as they are; the claims are added).
    pub async fn start(settings: BrokerSettings) -> Result<Arc<Self>> {
        let claims =
            settings.claims.iter().map(|texts| TopicFilter::parse_all(texts)).collect::<Result<Vec<_>>>()?;
        let wanted = resolve(&settings.listen).await?;
        let mut brokers = BROKERS.lock().await;
        brokers.retain(|_, broker| broker.strong_count() > 0);
        if wanted.port() != 0 {
            let shared = brokers
                .iter()
                .find(|(address, _)| {
                    address.port() == wanted.port()
                        && (address.ip() == wanted.ip() || address.ip().is_unspecified())
                })
                .and_then(|(_, broker)| broker.upgrade());
            if let Some(broker) = shared.filter(|broker| !broker.accept.is_finished()) {
                for filters in claims {
                    broker.core.claims.claim(filters);
                }
                return Ok(broker);
            }
        }
        let broker = Arc::new(Self::listen(wanted, &settings, claims)?);
        brokers.insert(broker.address, Arc::downgrade(&broker));
        Ok(broker)
    }

    fn listen(wanted: SocketAddr, settings: &BrokerSettings, filters: Vec<Vec<TopicFilter>>) -> Result<Self> {
        let claims = Arc::new(Claims::new(settings.patience));
        for filters in filters {
            claims.claim(filters);
        }
        let options = &settings.options;
        let tls = settings.tls.as_ref().or(options.tls.as_ref());
        let certificates = tls.is_some_and(|tls| tls.client_authority.is_some());
        let gate = Gate::open(options, certificates, wanted.ip().is_loopback())?;
        let acceptor = tls.map(tls::acceptor).transpose()?;
        let listener = listener::bind(wanted, options.reuse_port)?;
        let state = options.state.as_deref().map(StateFile::open).transpose()?;
        let address =
            listener.local_addr().map_err(|error| Error::internal(format!("local address: {error}")))?;
        let limits = options.limits.clone();
        let core = Arc::new(Core::new(claims, limits, gate, settings.max_packet_bytes, state));
        let open = Arc::new(AtomicUsize::new(0));
        let accept = tokio::spawn(listener::accept(listener, acceptor, Arc::clone(&core), Arc::clone(&open)));
        let sweep = tokio::spawn(sweep(Arc::clone(&core)));
        tracing::info!(%address, "MQTT broker listens");
        Ok(Self { address, core, open, accept, sweep })
    }

    /// The address it listens on, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Counters, for metrics.
    pub fn stats(&self) -> BrokerStats {
        let counters = &self.core.counters;
        BrokerStats {
            connections: counters.connections.load(Ordering::Relaxed) as u64,
            messages: counters.messages.load(Ordering::Relaxed),
            recorded: counters.recorded.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            waiting: counters.waiting.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
        }
    }

    /// Gives up a claim that no source is attached to: messages on these topics are acknowledged and routed without
    /// being recorded. For a pipeline that was removed for good.
    pub fn forget(&self, topics: &[String]) -> Result<()> {
        self.core.claims.forget(&TopicFilter::parse_all(topics)?);
        Ok(())
    }

    pub(crate) fn attach(&self, filters: Vec<TopicFilter>, minimum_qos: u8, capacity: usize) -> Attachment {
        self.core.claims.attach(filters, minimum_qos, capacity)
    }

    /// Stops: no new connection, waiting publishes are refused without an acknowledgement, attached sources see the
    /// end of their stream, connections are closed. Returns when they are, or after 5 s.
    pub async fn shutdown(&self) {
        self.close();
        let mut brokers = BROKERS.lock().await;
        if brokers.get(&self.address).is_some_and(|broker| std::ptr::eq(broker.as_ptr(), self)) {
            brokers.remove(&self.address);
        }
        drop(brokers);
        for _ in 0..500 {
            if self.open.load(Ordering::Acquire) == 0 && self.accept.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            // Again, for a connection that was being made when the others were closed.
            self.core.end_connections();
        }
        self.core.close_state();
        tracing::info!(address = %self.address, "MQTT broker closed");
    }

    fn close(&self) {
        self.core.closing.store(true, Ordering::Release);
        self.accept.abort();
        self.sweep.abort();
        self.core.claims.close();
        self.core.end_connections();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.close();
    }
}

/// Lets time pass for the broker.
async fn sweep(core: Arc<Core>) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.sweep(start.elapsed().as_secs() as u32);
    }
}

async fn resolve(listen: &str) -> Result<SocketAddr> {
    let wrong = |why: String| {
        Error::config(format!("the MQTT broker cannot listen on '{listen}': {why}"))
            .with_help("write host:port, for example 127.0.0.1:1883")
    };
    let mut found = tokio::net::lookup_host(listen).await.map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
}
