//! Steps of events, posted to the addresses that their rules name.
//!
//! Each address has a queue and a task of its own, so that one that is down holds up no other; its steps arrive in order. A post
//! that fails in a way that may pass (no connection, 408, 429, 5xx) is tried again with pauses that double; what is refused
//! for good, or still fails at the end, is dropped, as is a step that finds the queue full: counted in `/metrics` and logged.
//! Nothing waits for a webhook: not the rules, not the table `meta.events`, which has every step. A step that was on its way
//! when the process ended is not posted by the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use twinlake_contracts::{Error, Result};
use twinlake_twin::{EventStep, Events};
use url::Url;

use crate::{Metrics, Reading};

/// How steps are posted.
#[derive(Debug, Clone, Copy)]
pub struct WebhookSettings {
    /// How many steps may wait for one address.
    pub queue: usize,
    /// How often a step is tried.
    pub attempts: u32,
    /// The pause after the first attempt; it doubles.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
}

impl Default for WebhookSettings {
    /// 1,000 steps; eight attempts over some two minutes.
    fn default() -> Self {
        Self {
            queue: 1_000,
            attempts: 8,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(1),
            timeout: Duration::from_secs(10),
        }
    }
}

/// What became of steps at one address.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
}

/// How long the end of the process waits for what is on its way.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The addresses of all rules. Ends when dropped.
#[derive(Debug)]
pub struct Webhooks {
    counts: BTreeMap<String, Arc<Counts>>,
    _tasks: JoinSet<()>,
}

/// One address.
struct Target {
    queue: mpsc::Sender<Arc<EventStep>>,
    counts: Arc<Counts>,
}

impl Webhooks {
    /// Posts the steps of the watched rules from now on, those from the beginning of the watch on among them. `None` when no rule
    /// names an address. An address that is none is an error that names the rule.
    pub fn start(events: &Arc<Events>, settings: WebhookSettings) -> Result<Option<Self>> {
        let mut of_rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut targets: BTreeMap<String, Target> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let client = reqwest::Client::builder().timeout(settings.timeout).build();
        let client = client.map_err(|error| Error::internal(format!("no HTTP client: {error}")))?;
        for rule in events.rules().filter(|rule| !rule.webhooks.is_empty()) {
            for address in &rule.webhooks {
                if targets.contains_key(address) {
                    continue;
                }
                let url = Url::parse(address).map_err(|error| {
                    let message =
                        format!("rule '{}': '{address}' is no address of a webhook: {error}", rule.name);
                    Error::config(message).with_help("http://host/path or https://host/path")
                })?;
                let (queue, steps) = mpsc::channel(settings.queue.max(1));
                let counts = Arc::new(Counts::default());
                tasks.spawn(post_all(client.clone(), url, steps, Arc::clone(&counts), settings));
                targets.insert(address.clone(), Target { queue, counts });
            }
            of_rules.insert(rule.name.clone(), rule.webhooks.clone());
        }
        if targets.is_empty() {
            return Ok(None);
        }
        let counts =
            targets.iter().map(|(address, target)| (address.clone(), Arc::clone(&target.counts))).collect();
        let mut told = events.listen_from_start();
        tasks.spawn(async move {
            loop {
                match told.recv().await {
                    Ok(step) => {
                        let step = Arc::new(step);
                        for address in of_rules.get(&step.rule).into_iter().flatten() {
                            if let Some(target) = targets.get(address) {
                                target.hand_over(address, &step);
                            }
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        // Of whom they were is not known any more: each address may have missed as many.
                        for (address, target) in &targets {
                            target.drop_steps(address, missed, "they came too fast");
                        }
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Ok(Some(Self { counts, _tasks: tasks }))
    }

    /// Waits, five seconds at most, until nothing is on its way; what is then left is dropped and logged.
    pub async fn close(self) {
        let waiting =
            || -> u64 { self.counts.values().map(|counts| counts.waiting.load(Ordering::Relaxed)).sum() };
        let end = tokio::time::Instant::now() + LAST_WAIT;
        while waiting() > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = waiting();
        if left > 0 {
            tracing::warn!(left, "steps of events were not taken by webhooks in time; meta.events has them");
        }
    }

    /// Shows what became of steps in `/metrics`, by address.
    pub fn measure(&self, metrics: &Metrics) {
        type Read = fn(&Counts) -> &AtomicU64;
        let gauges: [(&str, &str, Read); 4] = [
            ("webhook_sent", "Steps of events that webhooks took", |counts| &counts.sent),
            ("webhook_retries", "Posts to webhooks that were tried again", |counts| &counts.retried),
            ("webhook_dropped", "Steps of events that no webhook got", |counts| &counts.dropped),
            ("webhook_waiting", "Steps of events on their way to webhooks", |counts| &counts.waiting),
        ];
        for (name, help, read) in gauges {
            let counts = self.counts.clone();
            metrics.report(name, help, move || {
                let all = counts.iter().map(|(address, counts)| -> Reading {
                    // Secrets are often in the query of such an address.
                    let shown = address.split(['?', '#']).next().unwrap_or_default().to_owned();
                    (vec![("address".to_owned(), shown)], read(counts).load(Ordering::Relaxed) as f64)
                });
                all.collect()
            });
        }
    }
}

impl Target {
    fn hand_over(&self, address: &str, step: &Arc<EventStep>) {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(Arc::clone(step)).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.drop_steps(address, 1, "too many wait");
        }
    }

    fn drop_steps(&self, address: &str, count: u64, why: &str) {
        let dropped = self.counts.dropped.fetch_add(count, Ordering::Relaxed) + count;
        let host = Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned));
        tracing::warn!(host, dropped, "a webhook did not get {count} steps of events: {why}");
    }
}

async fn post_all(
    client: reqwest::Client,
    url: Url,
    mut steps: mpsc::Receiver<Arc<EventStep>>,
    counts: Arc<Counts>,
    settings: WebhookSettings,
) {
    while let Some(step) = steps.recv().await {
        match post(&client, &url, &step, &counts, settings).await {
            Ok(()) => drop(counts.sent.fetch_add(1, Ordering::Relaxed)),
            Err(why) => {
                let dropped = counts.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                let host = url.host_str().unwrap_or_default();
                tracing::warn!(host, dropped, event = step.event_id, "a webhook did not take a step: {why}");
            }
        }
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Posts one step; tries again what may pass. Whoever gets a step twice knows it by its key.
async fn post(
    client: &reqwest::Client,
    url: &Url,
    step: &EventStep,
    counts: &Counts,
    settings: WebhookSettings,
) -> std::result::Result<(), String> {
    let key = format!("{}-{}-{}", step.event_id, step.change, step.recorded_at);
    let mut pause = settings.first_pause;
    let mut last = String::new();
    for attempt in 1..=settings.attempts.max(1) {
        if attempt > 1 {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(settings.longest_pause);
            counts.retried.fetch_add(1, Ordering::Relaxed);
        }
        match client.post(url.clone()).header("Idempotency-Key", &key).json(step).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status();
                last = format!("the answer was {status}");
                if !status.is_server_error() && status != 429 && status != 408 {
                    return Err(last); // the same step will be refused again
                }
            }
            // Without the address: it may hold a secret.
            Err(error) => last = error.without_url().to_string(),
        }
    }
    Err(last)
}
