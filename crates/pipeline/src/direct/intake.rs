//! Where bodies come in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use twinlake_contracts::{
    BodyDecoder, BodyFormat, Clock, DecodedBody, Delivery, Error, Intake, IntakeError, Receipt, Result,
    TableStore, now_us,
};

use super::LOG;
use super::append::Appender;
use super::budget::Budget;
use super::envelope::Envelope;
use super::keys::SharedKeys;
use super::names::is_reserved_schema;
use super::patience::Patience;
use super::window::{Answer, Entry};
use super::worker::Worker;
use crate::retry::Pauses;
use crate::stats::RunnerStats;

/// Bodies up to this size are decoded where they are: handing them to another thread would cost more.
const INLINE_BYTES: usize = 16 << 10;
/// What a body takes of the memory beside its own bytes.
const OVERHEAD_BYTES: usize = 4 << 10;
/// A body is there up to four times: as it came, in the log's buffer, decoded, in the shape of its table.
const COPIES: usize = 4;

/// How direct ingest works.
#[derive(Debug, Clone)]
pub struct DirectOptions {
    /// The name of this process among several that take rows into the same lake: each has a log of its own.
    pub node: Option<String>,
    /// How long rows wait for their commit.
    pub commit_interval: Duration,
    /// The most memory that bodies on their way and uncommitted rows take.
    pub memory_bytes: usize,
    /// So many bytes of uncommitted rows are committed before the interval is over.
    pub commit_bytes: usize,
    /// The largest body.
    pub largest_body_bytes: usize,
    /// The most payload bytes that one fsync makes durable, beyond the first body.
    pub group_bytes: usize,
    /// How many deliveries are remembered by their keys: a repetition among the last so many deliveries with a key lands
    /// nothing, an older one lands again.
    pub remembered_keys: usize,
    /// How many bodies are decoded at a time.
    pub decoders: usize,
    /// How long an append to the log is tried again before its callers hear of the failure.
    pub append_within: Duration,
    /// How long a caller waits for its answer.
    pub answer_within: Duration,
    /// The first pause before a failed outside call is tried again.
    pub first_pause: Duration,
    /// The longest.
    pub longest_pause: Duration,
}

impl Default for DirectOptions {
    fn default() -> Self {
        let pauses = Pauses::default();
        Self {
            node: None,
            commit_interval: Duration::from_secs(1),
            memory_bytes: 512 << 20,
            commit_bytes: 128 << 20,
            largest_body_bytes: 32 << 20,
            group_bytes: 8 << 20,
            remembered_keys: 10_000,
            decoders: std::thread::available_parallelism().map_or(2, usize::from),
            append_within: Duration::from_secs(5),
            answer_within: Duration::from_secs(30),
            first_pause: pauses.first,
            longest_pause: pauses.longest,
        }
    }
}

impl DirectOptions {
    /// The name of the log, of the states, and the first part of the writers' names: `direct`, or `direct.<node>`.
    pub(super) fn log_name(&self) -> String {
        self.node.as_ref().map_or_else(|| LOG.to_owned(), |node| format!("{LOG}.{node}"))
    }
}

/// Takes bodies into a lake. Share it with `Arc`; it works until [`DirectIngest::stop`].
pub struct DirectIngest {
    options: DirectOptions,
    decoder: Arc<dyn BodyDecoder>,
    clock: Option<Arc<dyn Clock>>,
    budget: Budget,
    keys: SharedKeys,
    decoding: Semaphore,
    waiting: Mutex<Option<mpsc::UnboundedSender<Entry>>>,
    stats: Arc<RunnerStats>,
    stop: watch::Sender<bool>,
    worker: tokio::sync::Mutex<Option<JoinHandle<Result<()>>>>,
    failure: Arc<Mutex<Option<Error>>>,
    busy: AtomicU64,
}

/// What these locks guard is exchanged in single statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirectIngest {
    /// Opens the log `direct` and applies what lies in it from before a crash; then bodies are taken. `clock` gives the
    /// time at which bodies are received, the system's without one.
    pub async fn open(
        store: Arc<dyn TableStore>,
        decoder: Arc<dyn BodyDecoder>,
        clock: Option<Arc<dyn Clock>>,
        options: DirectOptions,
    ) -> Result<Arc<Self>> {
        let stats = Arc::new(RunnerStats::default());
        let (stop, stopped) = watch::channel(false);
        let pauses = Pauses { first: options.first_pause, longest: options.longest_pause };
        let patience = Patience { pauses, stats: Arc::clone(&stats), stop: stopped };
        let budget = Budget::new(options.memory_bytes);
        let name = options.log_name();
        let log = patience.retry("opening the log", || store.open_log(&name)).await?;
        let mut worker = Worker::open(
            store,
            Arc::clone(&log),
            Arc::clone(&decoder),
            options.clone(),
            patience.clone(),
            budget.clone(),
        )
        .await?;
        worker.recover().await?;
        let keys = worker.keys.clone();
        stats.last_sequence.store(log.last_sequence(), Ordering::Relaxed);
        let (waiting, bodies) = mpsc::unbounded_channel();
        let (groups, appended) = mpsc::channel(4);
        let appender = Appender {
            log,
            patience,
            group_bytes: options.group_bytes,
            append_within: options.append_within,
        };
        tokio::spawn(appender.run(bodies, groups));
        let failure: Arc<Mutex<Option<Error>>> = Arc::default();
        let told = Arc::clone(&failure);
        let worker = tokio::spawn(async move {
            let result = worker.run(appended).await;
            if let Err(error) = &result {
                tracing::error!(%error, "direct ingest has failed; what was taken in lies in its log");
                *lock(&told) = Some(error.clone());
            }
            result
        });
        Ok(Arc::new(Self {
            decoding: Semaphore::new(options.decoders.max(1)),
            options,
            decoder,
            clock,
            budget,
            keys,
            waiting: Mutex::new(Some(waiting)),
            stats,
            stop,
            worker: tokio::sync::Mutex::new(Some(worker)),
            failure,
            busy: AtomicU64::new(0),
        }))
    }

    /// The counters: messages are bodies, rows and rejects as in a pipeline.
    pub fn stats(&self) -> Arc<RunnerStats> {
        Arc::clone(&self.stats)
    }

    /// Bytes held now, of [`DirectOptions::memory_bytes`].
    pub fn held_bytes(&self) -> usize {
        self.budget.held()
    }

    /// How many bodies were sent away because there was no room for them.
    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Takes no more bodies, lands and commits those that were taken, and gives the log free. On an error what is not
    /// committed lies in the log.
    pub async fn stop(&self) -> Result<()> {
        drop(lock(&self.waiting).take());
        self.stop.send_replace(true);
        match self.worker.lock().await.take() {
            None => Ok(()),
            Some(worker) => worker.await.map_err(Error::internal)?,
        }
    }

    fn check(&self, delivery: &Delivery) -> Result<(), IntakeError> {
        if let BodyFormat::JsonRows { table } | BodyFormat::ArrowStream { table } = &delivery.format
            && is_reserved_schema(&table.schema)
        {
            let message = format!("tables of '{}' are made by Twinlake itself", table.schema);
            return Err(IntakeError::refused("reserved_table", message));
        }
        if delivery.key.as_ref().is_some_and(|key| key.len() > Delivery::KEY_BYTES) {
            let message = format!("a key has at most {} bytes", Delivery::KEY_BYTES);
            return Err(IntakeError::refused("invalid_key", message));
        }
        let most = self
            .options
            .largest_body_bytes
            .min(self.options.memory_bytes.saturating_sub(OVERHEAD_BYTES) / COPIES);
        if delivery.body.len() > most {
            let bytes = delivery.body.len();
            let message = format!("the body has {bytes} bytes, at most {most} are taken at a time");
            return Err(IntakeError::refused("too_large", message));
        }
        Ok(())
    }

    async fn decoded(&self, format: &BodyFormat, body: &Bytes, received_at_us: i64) -> Result<DecodedBody> {
        if body.len() <= INLINE_BYTES {
            return decode(self.decoder.as_ref(), format, body, received_at_us);
        }
        let _turn = self.decoding.acquire().await.map_err(Error::internal)?;
        let (decoder, format, body) = (Arc::clone(&self.decoder), format.clone(), body.clone());
        let work = move || decode(decoder.as_ref(), &format, &body, received_at_us);
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }

    fn failed(&self) -> IntakeError {
        let stopped = || Error::transient("direct ingest", "is stopping");
        IntakeError::Failed(lock(&self.failure).clone().unwrap_or_else(stopped))
    }

    async fn answer(&self, reply: oneshot::Receiver<Answer>) -> Answer {
        match tokio::time::timeout(self.options.answer_within, reply).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.failed()),
            Err(_) => {
                let message = "the body is not visible yet; it may land later";
                Err(IntakeError::Failed(Error::transient("direct ingest", message)))
            }
        }
    }
}

/// Decodes a body; a defect of the decoder is an error about this body.
pub(super) fn decode(
    decoder: &dyn BodyDecoder,
    format: &BodyFormat,
    body: &Bytes,
    received_at_us: i64,
) -> Result<DecodedBody> {
    catch_unwind(AssertUnwindSafe(|| decoder.decode(format, body, received_at_us)))
        .unwrap_or_else(|_| Err(Error::data("decoder_error", "the decoder panicked")))
}

#[async_trait]
impl Intake for DirectIngest {
    async fn take(&self, delivery: Delivery) -> Result<Receipt, IntakeError> {
        self.check(&delivery)?;
        let waiting = lock(&self.waiting).clone().ok_or_else(|| self.failed())?;
        let bytes = delivery.body.len().saturating_mul(COPIES).saturating_add(OVERHEAD_BYTES);
        let Some(held) = self.budget.try_hold(bytes) else {
            self.busy.fetch_add(1, Ordering::Relaxed);
            let retry_after = self.options.commit_interval.max(Duration::from_secs(1));
            return Err(IntakeError::Busy { retry_after });
        };
        let envelope = Envelope { format: delivery.format, key: delivery.key };
        let fingerprint = envelope.fingerprint(&delivery.body);
        if let Some(known) = envelope.key.as_ref().and_then(|key| self.keys.get(key)) {
            return known.answer(fingerprint);
        }
        let received_at_us = self.clock.as_ref().map_or_else(now_us, |clock| clock.now_us());
        let decoded = self.decoded(&envelope.format, &delivery.body, received_at_us).await;
        let decoded = decoded.map_err(|error| match error {
            Error::Data { reason, message } => IntakeError::Refused { reason, message },
            other => IntakeError::Failed(other),
        })?;
        if decoded.tables.is_empty() && decoded.refused.is_empty() {
            return Ok(Receipt::default());
        }
        let message = envelope.message(delivery.body, received_at_us).map_err(IntakeError::Failed)?;
        let (reply, answer) = oneshot::channel();
        let entry = Entry {
            sequence: 0,
            message,
            envelope,
            fingerprint,
            decoded: Ok(decoded),
            reply: Some(reply),
            held: Some(held),
        };
        waiting.send(entry).map_err(|_| self.failed())?;
        drop(waiting);
        self.answer(answer).await
    }
}
