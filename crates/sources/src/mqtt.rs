//! Source `mqtt`: subscribes to a broker somewhere else.
//!
//! Promise (QoS 1): the acknowledgement of a message (PUBACK) is sent in [`Source::acknowledge`], after the message is
//! on stable storage, and never earlier. What was delivered and not acknowledged is delivered again by the broker after
//! a lost connection or a restart, with a new ordinal: at least once. Telling repeats from new readings is the
//! pipeline's work (`clean` with `dedup`), which knows the reading's key.
//!
//! The broker keeps messages for an absent client only in a session, and a session belongs to a client identifier. So
//! with `client_id` the session is persistent (v5: for `session_expiry_s`) and nothing that is published while
//! Twinlake is away is lost; without it a name is made up for this run and the session ends with it.
//!
//! Backpressure: an MQTT v5 broker stops after `inflight` unacknowledged messages; a v3.1.1 broker stops after the
//! number that it is configured with. Messages of QoS 0 have no window: when the pipeline is slower than they come, the
//! connection is not read, and what then happens to them is the broker's choice.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use twinlake_contracts::{
    Checkpoint, Component, Error, Message, MessageStream, Position, Result, Source, now_us,
};

use crate::mqtt_link::{Event, Link, LinkSettings, Receipt, Sender, TlsFiles};
use crate::received_at::ReceivedAt;
use crate::topic_filter::TopicFilter;

/// The MQTT version to speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Protocol {
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

/// Subscribes to an MQTT broker and acknowledges each message after it is on stable storage.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttSettings {
    /// The broker: `mqtt://host[:1883]`, or `mqtts://host[:8883]` with TLS.
    pub url: String,
    /// The topic filters to subscribe to; `+` stands for one level, a last `#` for the rest, `$share/<group>/<filter>`
    /// for a subscription shared by several clients.
    pub topics: Vec<String>,
    /// The quality of service to subscribe with: 1 (at least once) or 0 (at most once).
    #[serde(default = "default_qos")]
    #[schemars(range(max = 1))]
    pub qos: u8,
    /// The MQTT version: "5" or "3.1.1".
    #[serde(default)]
    pub protocol: Protocol,
    /// The client identifier. With it the broker keeps the session, and the messages, while Twinlake is away; two
    /// clients of one broker must not share it. Without it a name is made up and the session ends with the run.
    pub client_id: Option<String>,
    /// How long the broker shall keep the session after the connection is lost, in seconds (MQTT v5).
    #[serde(default = "default_expiry")]
    pub session_expiry_s: u32,
    /// The user name.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The authority that signed the broker's certificate, PEM; the roots of the system without it.
    pub ca: Option<PathBuf>,
    /// This client's certificate chain, PEM; together with `key`.
    pub certificate: Option<PathBuf>,
    /// This client's private key, PEM; together with `certificate`.
    pub key: Option<PathBuf>,
    /// The keep-alive in seconds.
    #[serde(default = "default_keep_alive")]
    #[schemars(range(min = 5))]
    pub keep_alive_s: u16,
    /// How many messages may be on their way to the log before the broker stops (MQTT v5 receive maximum).
    #[serde(default = "default_inflight")]
    #[schemars(range(min = 1))]
    pub inflight: u16,
    /// The largest packet that is taken, in bytes.
    #[serde(default = "default_packet")]
    #[schemars(range(min = 256))]
    pub max_packet_bytes: u32,
    /// Where the receipt time comes from.
    #[serde(default)]
    pub received_at: ReceivedAt,
}

fn default_qos() -> u8 {
    1
}

fn default_expiry() -> u32 {
    24 * 60 * 60
}

fn default_keep_alive() -> u16 {
    30
}

fn default_inflight() -> u16 {
    1000
}

fn default_packet() -> u32 {
    1024 * 1024
}

impl MqttSettings {
    fn link(&self) -> Result<LinkSettings> {
        let wrong = |why: &str| {
            Err(Error::config(format!("'url' is '{}': {why}", self.url))
                .with_help("write mqtt://host:1883, or mqtts://host:8883 for TLS"))
        };
        let Ok(url) = url::Url::parse(&self.url) else { return wrong("it is not a URL") };
        let secure = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return wrong("the scheme is neither mqtt nor mqtts"),
        };
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return wrong("it names no host");
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || !url.username().is_empty() {
            return wrong(
                "it holds more than scheme, host and port; user and password are settings of their own",
            );
        }
        if self.qos > 1 {
            return Err(Error::config(format!("'qos' is {}", self.qos)).with_help(
                "subscribe with 1 (at least once) or 0; exactly-once comes from deduplication in the pipeline",
            ));
        }
        if self.keep_alive_s < 5 || self.inflight == 0 || self.max_packet_bytes < 256 {
            return Err(Error::config(
                "'keep_alive_s' is at least 5, 'inflight' 1 and 'max_packet_bytes' 256",
            ));
        }
        if self.client_id.as_ref().is_some_and(|id| id.is_empty() || id.starts_with(' ')) {
            return Err(Error::config("'client_id' is empty or starts with a space"));
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err(Error::config("'certificate' and 'key' belong together; one of them is missing"));
        }
        if !secure && (self.ca.is_some() || self.certificate.is_some()) {
            return Err(Error::config("certificate files are given, but the URL is not mqtts")
                .with_help("write mqtts:// to connect with TLS"));
        }
        if self.password.is_some() && self.username.is_none() {
            return Err(Error::config("'password' is given without 'username'"));
        }
        let persistent = self.client_id.is_some();
        let made_up = || format!("twinlake-{:x}-{:x}", std::process::id(), now_us());
        Ok(LinkSettings {
            version_5: self.protocol == Protocol::V5,
            host: host.to_owned(),
            port: url.port().unwrap_or(if secure { 8883 } else { 1883 }),
            tls: secure.then(|| TlsFiles {
                authority: self.ca.clone(),
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            }),
            client_id: self.client_id.clone().unwrap_or_else(made_up),
            persistent,
            // A made-up session survives a lost connection, not the run.
            session_expiry_s: if persistent { self.session_expiry_s } else { self.session_expiry_s.min(300) },
            credentials: self.username.clone().map(|name| (name, self.password.clone().unwrap_or_default())),
            keep_alive_s: self.keep_alive_s,
            inflight: self.inflight,
            max_packet_bytes: self.max_packet_bytes,
        })
    }
}

impl Component for MqttSettings {
    const TYPE: &'static str = "mqtt";
    type Product = dyn Source;

    fn build(self) -> Result<Box<dyn Source>> {
        let filters = TopicFilter::parse_all(&self.topics)?;
        let link = self.link()?;
        Ok(Box::new(MqttSource { settings: self, filters, link, open: None }))
    }
}

/// What waits for its acknowledgement on the present connection, with its ordinal. Cleared when the connection is
/// lost: a receipt of an earlier connection must never be answered on a later one.
#[derive(Default)]
struct Receipts {
    queue: VecDeque<(u64, Receipt)>,
}

fn lock(receipts: &Mutex<Receipts>) -> MutexGuard<'_, Receipts> {
    receipts.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Open {
    sender: Sender,
    receipts: Arc<Mutex<Receipts>>,
    /// Dropping it ends the connection: what is queued is sent, then DISCONNECT.
    _stop: watch::Sender<()>,
}

struct MqttSource {
    settings: MqttSettings,
    filters: Vec<TopicFilter>,
    link: LinkSettings,
    open: Option<Open>,
}

#[async_trait]
impl Source for MqttSource {
    async fn open(&mut self, resume: &Checkpoint) -> Result<MessageStream> {
        let (sender, link) = Link::new(&self.link)?;
        let receipts = Arc::new(Mutex::new(Receipts::default()));
        let (out, mut messages) = mpsc::channel(usize::from(self.settings.inflight));
        let (stop, stopped) = watch::channel(());
        let session = Session {
            broker: format!("MQTT broker {}", self.settings.url),
            topics: self.settings.topics.clone(),
            qos: self.settings.qos,
            filters: self.filters.clone(),
            received_at: self.settings.received_at,
            sender: sender.clone(),
            receipts: Arc::clone(&receipts),
            out,
            ordinal: resume.ordinal(),
        };
        tokio::spawn(session.run(link, stopped));
        self.open = Some(Open { sender, receipts, _stop: stop });
        Ok(Box::pin(async_stream::stream! {
            while let Some(message) = messages.recv().await {
                yield message;
            }
        }))
    }

    async fn acknowledge(&mut self, upto: &Checkpoint) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        // The lock is held while sending, so that a reconnection cannot come between.
        let mut receipts = lock(&open.receipts);
        while receipts.queue.front().is_some_and(|(ordinal, _)| *ordinal <= upto.ordinal()) {
            if let Some((_, receipt)) = receipts.queue.pop_front() {
                open.sender.acknowledge(&receipt)?;
            }
        }
        Ok(())
    }

    fn bounded(&self) -> bool {
        false
    }
}

/// The task that owns the connection.
struct Session {
    broker: String,
    topics: Vec<String>,
    qos: u8,
    filters: Vec<TopicFilter>,
    received_at: ReceivedAt,
    sender: Sender,
    receipts: Arc<Mutex<Receipts>>,
    out: mpsc::Sender<Result<Message>>,
    ordinal: u64,
}

/// The first and the longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

impl Session {
    async fn run(mut self, mut link: Link, mut stopped: watch::Receiver<()>) {
        let mut pause = PAUSES.0;
        let mut subscribed = false;
        let mut outage = false;
        loop {
            let event = tokio::select! {
                event = link.next() => event,
                _ = stopped.changed() => return self.leave(link).await,
            };
            match event {
                Ok(Event::Connected { session_present }) => {
                    tracing::info!(broker = %self.broker, session_present, "connected");
                    (pause, outage) = (PAUSES.0, false);
                    if !(subscribed && session_present) {
                        if let Err(error) = self.sender.subscribe(&self.topics, self.qos) {
                            let _ = self.out.send(Err(error)).await;
                            return;
                        }
                        subscribed = true;
                    }
                }
                Ok(Event::Arrived(arrival)) => {
                    let delivered = tokio::select! {
                        delivered = self.deliver(*arrival) => delivered,
                        _ = stopped.changed() => false,
                    };
                    if !delivered {
                        return self.leave(link).await;
                    }
                }
                Ok(Event::SubscriptionRefused(why)) => {
                    let text = format!("it refuses the subscription to {}: {why}", self.topics.join(", "));
                    let _ = self.out.send(Err(Error::permanent(self.broker.clone(), text))).await;
                    return;
                }
                Ok(Event::Disconnecting | Event::Other) => {}
                Err(error) => {
                    {
                        let mut receipts = lock(&self.receipts);
                        receipts.queue.clear();
                        link.clean();
                    }
                    // After a connection that worked, a refusal may be the broker's own trouble and may pass.
                    if error.permanent && !subscribed {
                        let _ = self.out.send(Err(Error::permanent(self.broker.clone(), error.text))).await;
                        return;
                    }
                    if !outage {
                        tracing::warn!(broker = %self.broker, error = %error.text, "not connected; trying again");
                        outage = true;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = stopped.changed() => return,
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Hands an arrival to the stream; `false` when nobody listens any more.
    async fn deliver(&mut self, arrival: crate::mqtt_link::Arrival) -> bool {
        if !self.filters.iter().any(|filter| filter.matches(&arrival.topic)) {
            // From a subscription that the session still has but the settings no longer name.
            tracing::debug!(topic = %arrival.topic, "not among the topics; acknowledged and left out");
            if let Some(receipt) = &arrival.receipt {
                return self.sender.acknowledge(receipt).is_ok();
            }
            return true;
        }
        self.ordinal += 1;
        if let Some(receipt) = arrival.receipt {
            lock(&self.receipts).queue.push_back((self.ordinal, receipt));
        }
        let message = Message {
            payload: arrival.payload,
            origin: arrival.topic.into(),
            position: Position { ordinal: self.ordinal, token: String::new() },
            received_at_us: self.received_at.resolve(arrival.received_at.as_deref()),
        };
        self.out.send(Ok(message)).await.is_ok()
    }

    /// Sends what is queued (acknowledgements come before DISCONNECT in the queue), then leaves.
    async fn leave(self, mut link: Link) {
        self.sender.disconnect();
        let farewell = async {
            while let Ok(event) = link.next().await {
                if matches!(event, Event::Disconnecting) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), farewell).await;
    }
}

#[cfg(test)]
mod tests;
