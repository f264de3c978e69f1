//! The way of events to their address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use twinlake_contracts::{Error, Result};
use url::Url;

/// How many events may wait.
const QUEUE: usize = 256;
/// How often an event is tried.
const ATTEMPTS: u32 = 5;
/// The pause after the first attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the program waits for what is still in the queue.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Where the OpenLineage API takes events when the address says no path.
const ENDPOINT: &str = "/api/v1/lineage";

/// What became of events so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Taken by the other side.
    pub sent: u64,
    /// Lost: the queue was full, the other side refused or stayed away.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// Posts events. Never waits and never fails when an event is handed in.
#[derive(Debug)]
pub struct EventSender {
    queue: Mutex<Option<mpsc::Sender<Json>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    direct: mpsc::WeakSender<Json>,
    counters: Arc<Counters>,
    waiting: Arc<AtomicU64>,
}

impl EventSender {
    /// Starts the task that posts to `url`. `api_key` is sent as a bearer token.
    pub fn start(url: &str, api_key: Option<String>) -> Result<Arc<Self>> {
        let wrong = |why: String| {
            Error::config(format!("'{url}' is no address for OpenLineage events: {why}"))
                .with_help("for example http://127.0.0.1:5000 or https://host/api/v1/lineage")
        };
        let mut address = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(address.scheme(), "http" | "https") {
            return Err(wrong("it is neither http nor https".to_owned()));
        }
        if address.path() == "/" {
            address.set_path(ENDPOINT);
        }
        let client =
            reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|error| wrong(error.to_string()))?;
        let (queue, mut events) = mpsc::channel::<Json>(QUEUE);
        let counters = Arc::new(Counters::default());
        let waiting = Arc::new(AtomicU64::new(0));
        let (counted, left) = (Arc::clone(&counters), Arc::clone(&waiting));
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match post(&client, &address, api_key.as_deref(), &event).await {
                    Ok(()) => drop(counted.sent.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        let dropped = counted.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                        tracing::warn!(url = %address, dropped, "an OpenLineage event was dropped: {error}");
                    }
                }
                left.fetch_sub(1, Ordering::Relaxed);
            }
        });
        let direct = queue.downgrade();
        Ok(Arc::new(Self {
            queue: Mutex::new(Some(queue)),
            task: Mutex::new(Some(task)),
            direct,
            counters,
            waiting,
        }))
    }

    /// Hands an event in; a full queue drops it.
    pub fn send(&self, event: Json) {
        let taken = self.direct.upgrade().is_some_and(|queue| {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let taken = queue.try_send(event).is_ok();
            if !taken {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            taken
        });
        if !taken {
            let dropped = self.counters.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(dropped, "an OpenLineage event was dropped: too many wait for the other side");
        }
    }

    /// What became of events so far.
    pub fn counts(&self) -> SenderCounts {
        SenderCounts {
            sent: self.counters.sent.load(Ordering::Relaxed),
            dropped: self.counters.dropped.load(Ordering::Relaxed),
        }
    }

    /// Takes no more events and waits, five seconds at most, until those in the queue are gone; what is left then is
    /// dropped, counted and logged.
    pub async fn close(&self) {
        self.queue.lock().await.take();
        let Some(task) = self.task.lock().await.take() else { return };
        let stop = task.abort_handle();
        if tokio::time::timeout(LAST_WAIT, task).await.is_err() {
            stop.abort();
            let left = self.waiting.load(Ordering::Relaxed);
            let dropped = self.counters.dropped.fetch_add(left, Ordering::Relaxed) + left;
            tracing::warn!(
                dropped,
                "{left} OpenLineage events were dropped: the other side did not take them in time"
            );
        }
    }
}

/// Posts one event; tries again what may pass.
async fn post(
    client: &reqwest::Client,
    url: &Url,
    api_key: Option<&str>,
    event: &Json,
) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    let mut last = String::new();
    for attempt in 1..=ATTEMPTS {
        let mut request = client.post(url.clone()).json(event);
        if let Some(key) = api_key {
            request = request.bearer_auth(key);
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status();
                last = format!("the answer was {status}");
                if status.is_client_error() && status != 429 && status != 408 {
                    return Err(last); // the same event will be refused again
                }
            }
            Err(error) => last = error.to_string(),
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
    Err(last)
}
