//! The embedded MQTT broker (v3.1, v3.1.1, v5), on rmqtt.
//!
//! Promise: a publish with QoS 1 or 2 on a topic that a source has claimed is acknowledged (PUBACK, PUBREC) only
//! after the source said that the message is on stable storage. When that cannot happen (the log failed, the source
//! went away, the broker closes) the connection is closed *without* an acknowledgement, so that the device keeps the
//! message and sends it again. Publishes of QoS 0 are handed over too, without a wait for durability. Afterwards the
//! message is routed to ordinary MQTT subscribers, so nobody downstream sees what was not recorded.
//!
//! One connection, one publish at a time: rmqtt's session loop finishes a packet before it reads the next
//! (`SessionState::run_loop` awaits `process_mqtt_message`, which awaits the hook that waits here). So a device has at
//! most one message between the broker and the log, whatever its own window, its throughput is one message per log
//! write, and its messages are recorded in the order in which it sent them. Different connections are different tasks
//! and wait side by side: with N devices, N messages share one write of the log. A device that must send faster than
//! the log writes opens more connections (or sends batches). While a connection waits, nothing else on it is read,
//! PINGREQ included; a device whose keep-alive is shorter than a stall of the disk reconnects and sends again.
//!
//! Sessions and retained messages live in memory: after a restart of the process subscribers subscribe again. QoS 2
//! from a device is exactly-once while its connection lasts; a device that reconnects in between sends again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use rmqtt::types::{FromType, Message, Publish, PublishAclResult, Reason};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use twinlake_contracts::{Error, Result};

use crate::broker_claims::{Attachment, Claims, Offer};
use crate::broker_retained::Retained;
use crate::received_at::RECEIVED_AT_PROPERTY;
use crate::topic_filter::TopicFilter;

/// Certificate files of a broker that listens with TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerTls {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
    /// Certificates of the authorities that may sign device certificates, PEM; when given, a device must show one.
    pub client_authority: Option<PathBuf>,
}

/// How a broker is started.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// The address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Certificate files; plain TCP without them.
    pub tls: Option<BrokerTls>,
    /// Sets of topic filters that sources will record. Named here, publishers on them wait for their source instead of
    /// being acknowledged for a message that nobody records. The broker takes no connection before these are set.
    pub claims: Vec<Vec<String>>,
    /// The largest packet that is taken, in bytes.
    pub max_packet_bytes: u32,
    /// How long a publish on a claimed topic waits for a source to attach before its connection is closed.
    pub patience: Duration,
}

impl BrokerSettings {
    /// Plain TCP on `listen` with the defaults: packets to 1 MiB, 30 s of patience.
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            tls: None,
            claims: Vec::new(),
            max_packet_bytes: 1024 * 1024,
            patience: Duration::from_secs(30),
        }
    }
}

/// What a broker has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BrokerStats {
    /// Connections open now.
    pub connections: u64,
    /// Publishes that arrived.
    pub messages: u64,
    /// Publishes that sources took (and, for QoS 1 and 2, made durable).
    pub recorded: u64,
    /// Publishes that were not acknowledged because they could not be recorded.
    pub refused: u64,
    /// Publishes that wait for durability now.
    pub waiting: u64,
}

/// An embedded broker. Dropping the last handle closes it.
pub struct Broker {
    address: SocketAddr,
    context: ServerContext,
    claims: Arc<Claims>,
    messages: Arc<AtomicU64>,
    accept: JoinHandle<()>,
}

/// The brokers of this process by the address they listen on.
static BROKERS: LazyLock<tokio::sync::Mutex<HashMap<SocketAddr, Weak<Broker>>>> =
    LazyLock::new(Default::default);

impl Broker {
    /// Starts a broker, or gives the one that this process already has on that address (its TLS and limits stay as
    /// they are; the claims are added).
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
                    broker.claims.claim(filters);
                }
                return Ok(broker);
            }
        }
        let broker = Arc::new(Self::listen(wanted, &settings, claims).await?);
        brokers.insert(broker.address, Arc::downgrade(&broker));
        Ok(broker)
    }

    async fn listen(
        wanted: SocketAddr,
        settings: &BrokerSettings,
        filters: Vec<Vec<TopicFilter>>,
    ) -> Result<Self> {
        let claims = Arc::new(Claims::new(settings.patience));
        for filters in filters {
            claims.claim(filters);
        }
        let messages = Arc::new(AtomicU64::new(0));

        // No refusal of connections by CPU load: a loaded machine slows devices down, it does not turn them away.
        let context = ServerContext::new().busy_check_enable(false).build().await;
        *context.extends.retain_mut().await = Box::new(Retained::default());
        let register = context.extends.hook_mgr().register();
        let gate = Gate { claims: Arc::clone(&claims), messages: Arc::clone(&messages) };
        register.add(Type::MessagePublishCheckAcl, Box::new(gate.clone())).await;
        register.add(Type::MessagePublish, Box::new(gate)).await;
        // Never stopped again: rmqtt holds the hook table's lock while a hook waits.
        register.start().await;

        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut builder = Builder::new()
            .name("twinlake")
            .laddr(wanted)
            .reuseaddr(Some(true))
            .nodelay(true)
            .backlog(1024)
            .max_packet_size(settings.max_packet_bytes)
            .max_inflight(NonZeroU16::new(1024).unwrap_or(NonZeroU16::MIN))
            .max_mqueue_len(100_000)
            .allow_anonymous(true);
        if let Some(tls) = &settings.tls {
            builder = builder
                .tls_cert(Some(path(&tls.certificate)))
                .tls_key(Some(path(&tls.key)))
                .tls_cross_certificate(tls.client_authority.is_some())
                .tls_client_ca_certs(tls.client_authority.as_ref().map(path));
        }
        let listener = builder.bind().map_err(|error| {
            Error::config(format!("the MQTT broker cannot listen on {wanted}: {error}"))
                .with_help("another program may listen there; choose another address")
        })?;
        let address =
            listener.local_addr().map_err(|error| Error::internal(format!("local address: {error}")))?;
        let listener = if settings.tls.is_some() {
            listener.tls().map_err(|error| {
                Error::config(format!("the MQTT broker's TLS files cannot be used: {error:#}"))
                    .with_help("'certificate' and 'key' are PEM files that belong together")
            })?
        } else {
            listener.tcp().map_err(Error::internal)?
        };
        let server = MqttServer::new(context.clone()).listener_by_id(listener, 1).build();
        let accept = tokio::spawn(async move {
            if let Err(error) = server.run().await {
                tracing::error!(%error, "the MQTT broker stopped accepting connections");
            }
        });
        tracing::info!(%address, "MQTT broker listens");
        Ok(Self { address, context, claims, messages, accept })
    }

    /// The address it listens on, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Counters, for metrics.
    pub fn stats(&self) -> BrokerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BrokerStats {
            connections: u64::try_from(self.context.connections.count()).unwrap_or(0),
            messages: read(&self.messages),
            recorded: read(&self.claims.taken),
            refused: read(&self.claims.refused),
            waiting: read(&self.claims.waiting),
        }
    }

    /// Gives up a claim that no source is attached to: messages on these topics are acknowledged and routed without
    /// being recorded. For a pipeline that was removed for good.
    pub fn forget(&self, topics: &[String]) -> Result<()> {
        self.claims.forget(&TopicFilter::parse_all(topics)?);
        Ok(())
    }

    pub(crate) fn attach(&self, filters: Vec<TopicFilter>, minimum_qos: u8, capacity: usize) -> Attachment {
        self.claims.attach(filters, minimum_qos, capacity)
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
            let open = self.context.connections.count() > 0 || self.context.handshakings.count() > 0;
            if !open && self.accept.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            // Again, for a connection that was being made when the others were closed.
            self.close_sessions();
        }
        tracing::info!(address = %self.address, "MQTT broker closed");
    }

    fn close(&self) {
        self.accept.abort();
        self.claims.close();
        self.close_sessions();
    }

    fn close_sessions(&self) {
        if let Ok(shared) = self.context.extends.shared.try_read() {
            for entry in shared.iter() {
                if let Some(session) = entry.tx() {
                    // A session that is gone already needs no word.
                    let _ = session.unbounded_send(Message::Closed(Reason::ConnectRemoteClose));
                }
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.close();
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

/// The two hooks: publishes of devices pass `MessagePublishCheckAcl`, the only hook that can refuse without an
/// acknowledgement; last wills never pass it, so they are taken at `MessagePublish`.
#[derive(Clone)]
struct Gate {
    claims: Arc<Claims>,
    messages: Arc<AtomicU64>,
}

impl Gate {
    async fn offer(&self, publish: &Publish, waits: bool) -> Result<(), crate::broker_claims::Refusal> {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let received_at = publish.properties.as_ref().and_then(|properties| {
            properties.user_properties.iter().find(|(name, _)| name == RECEIVED_AT_PROPERTY)
        });
        let qos = publish.qos.value();
        self.claims
            .offer(Offer {
                topic: &publish.topic,
                payload: &publish.payload,
                received_at: received_at.map(|(_, value)| value.as_ref()),
                qos,
                waits: waits && qos > 0,
            })
            .await
    }
}

#[async_trait]
impl Handler for Gate {
    async fn hook(&self, parameter: &Parameter, result: Option<HookResult>) -> ReturnType {
        match parameter {
            Parameter::MessagePublishCheckAcl(session, publish) => match self.offer(publish, true).await {
                Err(refusal) if publish.qos.value() > 0 => {
                    tracing::warn!(client = %session.id.client_id, topic = %publish.topic,
                        "a message was not acknowledged: {}", refusal.text());
                    let refused = PublishAclResult::rejected(true, Some(refusal.text().into()));
                    (false, Some(HookResult::PublishAclResult(refused)))
                }
                _ => (true, result),
            },
            Parameter::MessagePublish(_, from, publish) if matches!(from.typ(), FromType::LastWill) => {
                // Nobody is there any more to be refused; the counter shows a will that was not recorded.
                let _ = self.offer(publish, false).await;
                (true, result)
            }
            _ => (true, result),
        }
    }
}
