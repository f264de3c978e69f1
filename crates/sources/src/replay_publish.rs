//! Publishes a capture through MQTT with its own topics and pace, as the devices did.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::Notify;
use tokio::time::Instant;
use twinlake_contracts::{Error, Result, format_us};

use crate::received_at::RECEIVED_AT_PROPERTY;
use crate::replay::CapturedMessage;

/// How a capture is published.
#[derive(Debug, Clone)]
pub struct PublishSettings {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// How many connections to spread the topics over, as many devices would.
    pub connections: usize,
    /// How many seconds of the capture pass in one second; 0 publishes as fast as the broker takes it.
    pub speed: f64,
    /// Whether each message carries its capture time as the user property `received_at`.
    pub stamp: bool,
    /// Which segments of a topic name the device (from the first, counted from 0, up to but without the second): its
    /// messages take one connection and keep their order. `None`: the whole topic.
    pub device_segments: Option<(usize, usize)>,
}

impl PublishSettings {
    /// At the capture's own pace, over 64 connections, with stamps.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, connections: 64, speed: 1.0, stamp: true, device_segments: None }
    }
}

/// What was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishReport {
    /// Messages that the broker acknowledged; all of the capture.
    pub acknowledged: u64,
    /// How long it took.
    pub elapsed: Duration,
}

#[derive(Default)]
struct Tally {
    acknowledged: AtomicU64,
    done: AtomicBool,
    failed: std::sync::Mutex<Option<Error>>,
    changed: Notify,
}

impl Tally {
    fn fail(&self, error: Error) {
        self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
        self.changed.notify_one();
    }

    fn failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Publishes `messages` with QoS 1 (MQTT v5) and returns when all are acknowledged. Messages of one device keep
/// their order. A lost connection is made again and its open messages are sent again; a broker that stays away for 30 s is
/// an error. `progress` is told how many are acknowledged, from time to time.
pub async fn publish_capture(
    messages: Vec<CapturedMessage>,
    settings: &PublishSettings,
    progress: impl Fn(u64) + Send,
) -> Result<PublishReport> {
    if !(settings.speed >= 0.0 && settings.speed.is_finite()) {
        return Err(Error::config(format!("the speed {} is not a number from 0 up", settings.speed)));
    }
    let start = Instant::now();
    let total = messages.len() as u64;
    let tally = Arc::new(Tally::default());
    let connections = settings.connections.clamp(1, messages.len().max(1));
    let mut clients = Vec::with_capacity(connections);
    let mut tasks = tokio::task::JoinSet::new();
    let run = twinlake_contracts::now_us();
    for number in 0..connections {
        let id = format!("replay-{run:x}-{number}");
        let mut options = MqttOptions::new(id, settings.host.clone(), settings.port);
        options
            .set_keep_alive(Duration::from_mins(1))
            .set_clean_start(false)
            .set_session_expiry_interval(Some(120))
            .set_max_packet_size(Some(16 * 1024 * 1024))
            // Its default reserves room for 65,535 messages on every connection.
            .set_outgoing_inflight_upper_limit(64);
        // Room for all, so that one slow connection does not hold up the pace of the others.
        let (client, events) = AsyncClient::new(options, messages.len() + 16);
        clients.push(client);
        tasks.spawn(drive(events, Arc::clone(&tally)));
    }

    let first_us = messages.first().map_or(0, |message| message.time_us);
    let feed = async {
        for message in messages {
            if settings.speed > 0.0 {
                let after_us = (message.time_us - first_us).max(0) as f64 / settings.speed;
                tokio::time::sleep_until(start + Duration::from_secs_f64(after_us / 1e6)).await;
            }
            let mut hasher = DefaultHasher::new();
            match settings.device_segments {
                Some((first, end)) => {
                    for segment in message.topic.split('/').take(end).skip(first) {
                        segment.hash(&mut hasher);
                    }
                }
                None => message.topic.hash(&mut hasher),
            }
            let client = &clients[(hasher.finish() % connections as u64) as usize];
            let mut properties = PublishProperties::default();
            if settings.stamp {
                let stamp = (RECEIVED_AT_PROPERTY.to_owned(), format_us(message.time_us));
                properties.user_properties.push(stamp);
            }
            client
                .publish_with_properties(message.topic, QoS::AtLeastOnce, false, message.payload, properties)
                .await
                .map_err(|error| Error::internal(format!("cannot queue a publish: {error}")))?;
        }
        Ok::<(), Error>(())
    };
    let finish = async {
        loop {
            let acknowledged = tally.acknowledged.load(Ordering::Acquire);
            progress(acknowledged);
            if let Some(error) = tally.failure() {
                return Err(error);
            }
            if acknowledged >= total {
                return Ok(());
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), tally.changed.notified()).await;
        }
    };
    tokio::try_join!(feed, finish)?;

    tally.done.store(true, Ordering::Release);
    for client in &clients {
        let _ = client.try_disconnect();
    }
    let leave = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), leave).await;
    Ok(PublishReport { acknowledged: total, elapsed: start.elapsed() })
}

async fn drive(mut events: EventLoop, tally: Arc<Tally>) {
    let (host, port) = events.options.broker_address();
    let mut lost: Option<Instant> = None;
    loop {
        match events.poll().await {
            Ok(event) => {
                lost = None;
                if let Event::Incoming(Packet::PubAck(_)) = event {
                    tally.acknowledged.fetch_add(1, Ordering::AcqRel);
                    tally.changed.notify_one();
                }
            }
            Err(_) if tally.done.load(Ordering::Acquire) => return,
            Err(error) => {
                let since = *lost.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_secs(30) {
                    tally.fail(Error::transient(format!("MQTT broker {host}:{port}"), error));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
