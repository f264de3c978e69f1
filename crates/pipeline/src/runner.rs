//! A pipeline at work.
//!
//! Promise: every message that a source was told to be durable ends in the lake exactly once, as rows or as rejects,
//! through any crash and restart at any moment. Each message goes from its source into the log (fsync), is
//! acknowledged, and is then processed *from the log*: decoded, transformed, added to the fresh rows of its tables
//! (queryable at once), and committed with its epoch ([`crate::epoch`]). An outside failure that may pass (a full
//! disk, an object store that is away) is waited out: sources go on into the log until it has no more room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use twinlake_contracts::{
    Clock, Error, LoggedMessage, MessageLog, Result, Retry, SqlEngine, TableName, TableStore, now_us,
};

use crate::epoch::Epochs;
use crate::files::Files;
use crate::flow::Flow;
use crate::ingest::Ingest;
use crate::plan::Plan;
use crate::retry::{Pauses, retry, told};
use crate::stats::{RunnerStats, StatsSnapshot};
use crate::targets::{REJECTS, raw_key, sink_key};
use crate::window::{END_OF_INPUT, Processed, end_of_input, process};

/// Runs one pipeline.
pub struct Runner {
    plan: Arc<Plan>,
    store: Arc<dyn TableStore>,
    engine: Arc<dyn SqlEngine>,
    stats: Arc<RunnerStats>,
    clock: Option<Arc<dyn Clock>>,
    pauses: Pauses,
}

/// What a run did.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// The pipeline's name.
    pub pipeline: String,
    /// The counters at the end.
    #[serde(flatten)]
    pub stats: StatsSnapshot,
    /// The newest version that the run made of each table.
    pub versions: BTreeMap<String, u64>,
    /// When it began: microseconds since the epoch, UTC.
    pub started_us: i64,
    /// When it ended.
    pub finished_us: i64,
    /// Whether it was told to stop (and did not come to the end of its inputs).
    pub stopped: bool,
}

impl RunReport {
    /// All rows that landed.
    pub fn rows(&self) -> u64 {
        self.stats.rows.values().sum()
    }

    /// All rejects.
    pub fn rejects(&self) -> u64 {
        self.stats.rejects.values().sum()
    }
}

impl Runner {
    /// Prepares a run; nothing is opened yet.
    pub fn new(plan: Plan, store: Arc<dyn TableStore>, engine: Arc<dyn SqlEngine>) -> Self {
        let stats = Arc::new(RunnerStats::default());
        Self { plan: Arc::new(plan), store, engine, stats, clock: None, pauses: Pauses::default() }
    }

    /// Takes the time that files become known from this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets the first and the longest pause before a failed outside call is tried again (100 ms, 30 s).
    #[must_use]
    pub fn with_pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.pauses = Pauses { first, longest };
        self
    }

    /// The counters, readable while the pipeline runs.
    pub fn stats(&self) -> Arc<RunnerStats> {
        Arc::clone(&self.stats)
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Runs until every source is exhausted, or until `stop` becomes true: then the sources are closed, what lies in
    /// the log is processed, and a last commit is made. Files are read first. On an error nothing is lost: the next run
    /// goes on from the log.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<RunReport> {
        let now = || self.clock.as_ref().map_or_else(now_us, |clock| clock.now_us());
        let started_us = now();
        let mut versions = BTreeMap::new();
        let mut failure = None;
        let sources = &self.plan.pipeline.sources;
        if sources.values().any(|source| !source.gives_messages()) {
            let files = Files {
                plan: &self.plan,
                store: &self.store,
                engine: &self.engine,
                stats: &self.stats,
                stop: &stop,
                pauses: self.pauses,
                now_us: started_us,
            };
            let (written, first_failure) = files.run().await?;
            versions.extend(written);
            failure = first_failure;
        }
        if sources.values().any(super::model::SourceNode::gives_messages) {
            versions.extend(self.run_messages(&stop).await?);
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let stopped = *stop.borrow();
        Ok(RunReport {
            pipeline: self.plan.pipeline.name.clone(),
            stats: self.stats.snapshot(),
            versions: versions.into_iter().map(|(name, version)| (name.to_string(), version)).collect(),
            started_us,
            finished_us: now(),
            stopped,
        })
    }

    async fn run_messages(&self, stop: &watch::Receiver<bool>) -> Result<BTreeMap<TableName, u64>> {
        let name = &self.plan.pipeline.name;
        let log =
            retry("opening the log", self.pauses, &self.stats, stop, || self.store.open_log(name)).await?;
        let (halt, halted) = watch::channel(*stop.borrow());
        let (epochs, newest) = Epochs::open(
            name,
            &self.store,
            &log,
            self.plan.message_tables(),
            self.pauses,
            &self.stats,
            &halted,
        )
        .await?;
        let mut flow = Flow::new(&self.plan, &self.engine).await?;
        epochs.restore(&mut flow)?;
        let (committed, committed_receiver) = watch::channel(epochs.complete);
        let (appended, appended_receiver) = watch::channel(log.last_sequence());
        let appended = Arc::new(appended);
        self.stats.committed_sequence.store(epochs.complete, Ordering::Relaxed);
        self.stats.last_sequence.store(log.last_sequence(), Ordering::Relaxed);
        let mut ingests = JoinSet::new();
        for (source, node) in &self.plan.pipeline.sources {
            if node.gives_messages() {
                let ingest = Ingest {
                    plan: Arc::clone(&self.plan),
                    name: source.clone(),
                    log: Arc::clone(&log),
                    stats: Arc::clone(&self.stats),
                    stop: halted.clone(),
                    appended: Arc::clone(&appended),
                    committed: committed_receiver.clone(),
                    pauses: self.pauses,
                };
                ingests.spawn(ingest.run());
            }
        }
        let mut work = Work {
            runner: self,
            log,
            position: epochs.complete,
            boundary: newest,
            counted: epochs.complete,
            uncommitted_rows: 0,
            next_commit: Instant::now() + self.interval(),
            epochs,
            flow,
            committed,
            halted,
            pause: self.pauses.first,
        };
        let failure = work.run(&mut ingests, &halt, appended_receiver, stop.clone()).await;
        ingests.shutdown().await; // after an error: nobody holds the log when this returns
        match failure? {
            Some(error) => Err(error),
            None => Ok(work.epochs.versions),
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.plan.pipeline.settings.commit_interval_ms)
    }
}

/// The loop from the log to the lake.
struct Work<'a> {
    runner: &'a Runner,
    log: Arc<dyn MessageLog>,
    epochs: Epochs,
    flow: Flow,
    /// The last sequence that was processed.
    position: u64,
    /// A sequence that ends a window and an epoch: up to it messages are processed for the second time.
    boundary: u64,
    /// The last sequence that is in the counters.
    counted: u64,
    uncommitted_rows: usize,
    next_commit: Instant,
    committed: watch::Sender<u64>,
    halted: watch::Receiver<bool>,
    pause: Duration,
}

impl Work<'_> {
    /// Works until the sources have ended and the log is empty. Returns the failure of a source, if one failed.
    async fn run(
        &mut self,
        ingests: &mut JoinSet<Result<()>>,
        halt: &watch::Sender<bool>,
        mut appended: watch::Receiver<u64>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Option<Error>> {
        let mut failure = None;
        let mut told_the_end = false;
        loop {
            while let Some(ended) = ingests.try_join_next() {
                let ended =
                    ended.unwrap_or_else(|error| Err(Error::internal(format!("a source's task: {error}"))));
                if let Err(error) = ended {
                    tracing::error!(%error, "a source failed for good");
                    self.runner.stats.failed(&error);
                    failure.get_or_insert(error);
                    halt.send_replace(true);
                }
            }
            if *stop.borrow() {
                halt.send_replace(true);
            }
            appended.borrow_and_update();
            let sources_ended = ingests.is_empty();
            let window = self.read().await?;
            let idle = window.is_empty();
            if !idle {
                self.window(window).await?;
            }
            let replayed = self.position == self.boundary && self.epochs.complete < self.boundary;
            let full = self.uncommitted_rows >= self.runner.plan.pipeline.settings.max_uncommitted_rows;
            let last = idle && sources_ended;
            if last && !told_the_end && !*halt.borrow() && self.flow.holds_rows() {
                // Every input has ended by itself: what is held back goes on. The end is a message of the log, so that a
                // run after a crash comes to the same end at the same place.
                told_the_end = true;
                self.end_of_input().await?;
                continue;
            }
            if replayed || full || last || Instant::now() >= self.next_commit {
                self.commit().await?;
            }
            if last {
                return Ok(failure);
            }
            if idle {
                let commit_due = self.position > self.epochs.complete;
                tokio::select! {
                    _ = appended.changed() => {}
                    () = tokio::time::sleep_until(self.next_commit), if commit_due => {}
                    Some(ended) = ingests.join_next(), if !sources_ended => {
                        if let Err(error) = ended.unwrap_or_else(|error| Err(Error::internal(format!("a source's task: {error}")))) {
                            tracing::error!(%error, "a source failed for good");
                            self.runner.stats.failed(&error);
                            failure.get_or_insert(error);
                            halt.send_replace(true);
                        }
                    }
                    () = told(&mut stop), if !*halt.borrow() => {
                        halt.send_replace(true);
                    }
                }
            }
        }
    }

    async fn end_of_input(&mut self) -> Result<()> {
        let (pauses, stats) = (self.runner.pauses, &self.runner.stats);
        let ordinal = self.log.checkpoint(END_OF_INPUT).ordinal() + 1;
        let message = end_of_input(ordinal, self.flow.held.newest_received_us());
        let last = retry("appending to the log", pauses, stats, &self.halted, || {
            self.log.append(END_OF_INPUT, vec![message.clone()])
        })
        .await?;
        stats.last_sequence.fetch_max(last, Ordering::Relaxed);
        Ok(())
    }

    /// The next messages; a window never crosses the boundary, and ends with an end of input.
    async fn read(&mut self) -> Result<Vec<LoggedMessage>> {
        let most = self.runner.plan.pipeline.settings.micro_batch_messages;
        let ahead = self.boundary.saturating_sub(self.position);
        let cuts = [self.epochs.cut(self.position), Some(self.boundary).filter(|end| *end > self.position)];
        let cut = cuts.into_iter().flatten().min().map_or(most, |end| (end - self.position) as usize);
        let limit = most.min(cut);
        let (pauses, stats) = (self.runner.pauses, &self.runner.stats);
        let mut window =
            retry("reading the log", pauses, stats, &self.halted, || self.log.read(self.position, limit))
                .await?;
        if let Some(end) = window.iter().position(|logged| &*logged.source == END_OF_INPUT) {
            window.truncate(end + 1);
        }
        let expected = self.position + 1;
        match window.first() {
            Some(first) if first.sequence != expected && self.position > 0 => Err(Error::internal(format!(
                "the log gave message {} where {expected} was due",
                first.sequence
            ))),
            None if ahead > 0 => Err(Error::internal(format!(
                "the log does not hold the messages {expected} to {} any more",
                self.boundary
            ))),
            _ => Ok(window),
        }
    }

    async fn window(&mut self, window: Vec<LoggedMessage>) -> Result<()> {
        let Some(last) = window.last().map(|logged| logged.sequence) else { return Ok(()) };
        let new = |logged: &&LoggedMessage| logged.sequence > self.counted && &*logged.source != END_OF_INPUT;
        let count = window.iter().filter(new).count();
        let processed = match process(&self.runner.plan, &mut self.flow, window).await {
            Ok(processed) => processed,
            Err(error) if error.retry() == Retry::Backoff => return self.again(error).await,
            Err(error) => return Err(error),
        };
        self.pause = self.runner.pauses.first;
        let stats = &self.runner.stats;
        if last > self.counted {
            for refused in &processed.refused {
                stats.add_reject(&refused.reason);
            }
            stats.processed.fetch_add(count as u64, Ordering::Relaxed);
            self.counted = last;
        }
        self.add(processed, last).await
    }

    async fn add(&mut self, processed: Processed, last: u64) -> Result<()> {
        let sinks = processed.sinks.into_iter().map(|(sink, rows)| (sink_key(&sink), Some(sink), rows));
        let raw = processed.raw.into_iter().map(|(source, rows)| (raw_key(&source), None, rows));
        let rejects = processed.rejects.map(|rows| (REJECTS.to_owned(), None, rows));
        for (key, sink, rows) in sinks.chain(raw).chain(rejects) {
            if !self.epochs.targets.contains_key(&key) {
                continue; // messages of a source that the file no longer has
            }
            let count = rows.num_rows();
            if count > 0 && self.epochs.add(&key, last, rows).await? {
                self.uncommitted_rows += count;
                if let Some(sink) = sink {
                    self.runner.stats.add_rows(&sink, count);
                }
            }
        }
        self.epochs.advance(last);
        self.position = last;
        Ok(())
    }

    /// A transform met an outside failure in the middle of a window: its state is put back to the last epoch's end, and
    /// the stretch since then is processed again; tables that have its rows do not get them twice.
    async fn again(&mut self, error: Error) -> Result<()> {
        self.runner.stats.failed(&error);
        if *self.halted.borrow() {
            return Err(error);
        }
        tracing::warn!(%error, pause_ms = self.pause.as_millis(), "a transform failed; going back to the last commit");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.runner.pauses.longest);
        self.flow = Flow::new(&self.runner.plan, &self.runner.engine).await?;
        self.epochs.restore(&mut self.flow)?;
        self.boundary = self.boundary.max(self.position);
        self.position = self.epochs.complete;
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        self.next_commit = Instant::now() + self.runner.interval();
        // In the middle of a stretch that is processed again there is no state to go back to.
        if self.position <= self.epochs.complete || self.position < self.boundary {
            return Ok(());
        }
        let start = Instant::now();
        let operators = self.flow.state()?;
        self.epochs.commit(self.position, &operators).await?;
        let stats = &self.runner.stats;
        stats.commit_us.store(start.elapsed().as_micros() as u64, Ordering::Relaxed);
        stats.commits.fetch_add(1, Ordering::Relaxed);
        stats.committed_sequence.store(self.position, Ordering::Relaxed);
        self.committed.send_replace(self.position);
        self.uncommitted_rows = 0;
        self.next_commit = Instant::now() + self.runner.interval();
        Ok(())
    }
}
