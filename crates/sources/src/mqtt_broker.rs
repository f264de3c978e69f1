//! Source `mqtt_broker`: devices publish straight to Twinlake's embedded broker; see [`Broker`] for what it promises.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Checkpoint, Component, Error, Message, MessageStream, Position, Result, Source};

use crate::broker::{Broker, BrokerOptions, BrokerSettings, BrokerTls, Receipt};
use crate::received_at::ReceivedAt;
use crate::topic_filter::TopicFilter;

/// Records what devices publish to the embedded MQTT broker (v3.1, v3.1.1, v5).
///
/// A publish with QoS 1 or 2 is acknowledged to the device after it is on stable storage. All sources of a process
/// that name the same `listen` share one broker; other programs may subscribe to it as to any broker.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttBrokerSettings {
    /// The address that devices connect to, `host:port`.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// The topic filters to record; `+` stands for one level, a last `#` for the rest.
    pub topics: Vec<String>,
    /// The lowest quality of service that is recorded; publishes below it are only routed.
    #[serde(default)]
    #[schemars(range(max = 2))]
    pub qos: u8,
    /// Where the receipt time comes from.
    #[serde(default)]
    pub received_at: ReceivedAt,
    /// How many messages may wait between the broker and the log; further publishers wait before it.
    #[serde(default = "default_buffer")]
    #[schemars(range(min = 1))]
    pub buffer: usize,
    /// The largest packet that is taken, in bytes (decided by the first source or service that starts the broker).
    #[serde(default = "default_packet")]
    #[schemars(range(min = 256))]
    pub max_packet_bytes: u32,
    /// Certificate files; the broker listens with TLS when given (decided by whoever starts it first).
    pub tls: Option<BrokerTls>,
    /// A TOML file with the broker's users, access rules, limits and state folder (decided by whoever starts it first).
    pub options: Option<PathBuf>,
}

fn default_listen() -> String {
    "127.0.0.1:1883".to_owned()
}

fn default_buffer() -> usize {
    4096
}

fn default_packet() -> u32 {
    1024 * 1024
}

impl Component for MqttBrokerSettings {
    const TYPE: &'static str = "mqtt_broker";
    type Product = dyn Source;

    fn build(self) -> Result<Box<dyn Source>> {
        let filters = TopicFilter::parse_all(&self.topics)?;
        if let Some(shared) = self.topics.iter().find(|topic| topic.starts_with("$share/")) {
            return Err(Error::config(format!("'{shared}' is a shared subscription"))
                .with_help("the embedded broker hands every message to its source; name the filter alone"));
        }
        if self.qos > 2 {
            return Err(Error::config(format!("'qos' is {}, but there are 0, 1 and 2", self.qos)));
        }
        Ok(Box::new(MqttBrokerSource { settings: self, filters, broker: None, unsaid: Arc::default() }))
    }
}

/// Publishers that wait for durability, in the order of their ordinals.
#[derive(Default)]
struct Unsaid {
    closed: bool,
    queue: VecDeque<(u64, Receipt)>,
}

fn lock(unsaid: &Mutex<Unsaid>) -> MutexGuard<'_, Unsaid> {
    unsaid.lock().unwrap_or_else(PoisonError::into_inner)
}

struct MqttBrokerSource {
    settings: MqttBrokerSettings,
    filters: Vec<TopicFilter>,
    broker: Option<Arc<Broker>>,
    unsaid: Arc<Mutex<Unsaid>>,
}

#[async_trait]
impl Source for MqttBrokerSource {
    async fn open(&mut self, resume: &Checkpoint) -> Result<MessageStream> {
        let options = self.settings.options.as_deref().map(BrokerOptions::read).transpose()?;
        let broker = Broker::start(BrokerSettings {
            options: options.unwrap_or_default(),
            tls: self.settings.tls.clone(),
            claims: vec![self.settings.topics.clone()],
            max_packet_bytes: self.settings.max_packet_bytes,
            ..BrokerSettings::new(self.settings.listen.clone())
        })
        .await?;
        let mut attachment = broker.attach(self.filters.clone(), self.settings.qos, self.settings.buffer);
        self.broker = Some(broker);
        self.unsaid = Arc::default();
        let unsaid = Arc::clone(&self.unsaid);
        let received_at = self.settings.received_at;
        let mut ordinal = resume.ordinal();
        Ok(Box::pin(async_stream::stream! {
            while let Some(delivery) = attachment.deliveries.recv().await {
                ordinal += 1;
                if let Some(receipt) = delivery.receipt {
                    let mut unsaid = lock(&unsaid);
                    if !unsaid.closed {
                        unsaid.queue.push_back((ordinal, receipt));
                    }
                }
                yield Ok(Message {
                    payload: delivery.payload,
                    origin: delivery.topic,
                    position: Position { ordinal, token: String::new() },
                    received_at_us: received_at.resolve(delivery.received_at.as_deref()),
                });
            }
        }))
    }

    async fn acknowledge(&mut self, upto: &Checkpoint) -> Result<()> {
        let mut unsaid = lock(&self.unsaid);
        while unsaid.queue.front().is_some_and(|(ordinal, _)| *ordinal <= upto.ordinal()) {
            if let Some((_, receipt)) = unsaid.queue.pop_front() {
                receipt.confirm();
            }
        }
        Ok(())
    }

    fn bounded(&self) -> bool {
        false
    }
}

impl Drop for MqttBrokerSource {
    fn drop(&mut self) {
        // Whoever was not told by now must not be told: the connection is closed without an acknowledgement.
        let mut unsaid = lock(&self.unsaid);
        unsaid.closed = true;
        unsaid.queue.clear();
    }
}

#[cfg(test)]
mod tests;
