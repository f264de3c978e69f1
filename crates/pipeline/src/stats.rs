//! What a running pipeline has done so far, readable at any time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use twinlake_contracts::{Error, now_us};

/// Counters of a run.
#[derive(Debug, Default)]
pub struct RunnerStats {
    /// Messages that are safe in the log and acknowledged to their source.
    pub messages: AtomicU64,
    /// Bytes of their payloads.
    pub bytes: AtomicU64,
    /// Messages taken from the log and turned into rows and rejects.
    pub processed: AtomicU64,
    /// The sequence up to which everything is committed into the lake.
    pub committed_sequence: AtomicU64,
    /// The last sequence of the log.
    pub last_sequence: AtomicU64,
    /// Commits done.
    pub commits: AtomicU64,
    /// Outside failures met and tried again.
    pub errors: AtomicU64,
    /// Microseconds that the last commit took.
    pub commit_us: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<String, u64>,
    rejects: BTreeMap<String, u64>,
    last_error: Option<(i64, String)>,
}

/// The counters at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatsSnapshot {
    /// Messages that are safe in the log and acknowledged to their source.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Messages turned into rows and rejects.
    pub processed: u64,
    /// Rows by sink, visible to queries.
    pub rows: BTreeMap<String, u64>,
    /// Rejects by reason.
    pub rejects: BTreeMap<String, u64>,
    /// The sequence up to which everything is committed into the lake.
    pub committed_sequence: u64,
    /// The last sequence of the log.
    pub last_sequence: u64,
    /// Commits done.
    pub commits: u64,
    /// Outside failures met and tried again.
    pub errors: u64,
    /// The last of them: when (microseconds since the epoch) and what.
    pub last_error: Option<(i64, String)>,
}

impl RunnerStats {
    /// All counters now.
    pub fn snapshot(&self) -> StatsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let inner = self.inner();
        StatsSnapshot {
            messages: read(&self.messages),
            bytes: read(&self.bytes),
            processed: read(&self.processed),
            rows: inner.rows.clone(),
            rejects: inner.rejects.clone(),
            committed_sequence: read(&self.committed_sequence),
            last_sequence: read(&self.last_sequence),
            commits: read(&self.commits),
            errors: read(&self.errors),
            last_error: inner.last_error.clone(),
        }
    }

    pub(crate) fn add_rows(&self, sink: &str, rows: usize) {
        *self.inner().rows.entry(sink.to_owned()).or_default() += rows as u64;
    }

    pub(crate) fn add_reject(&self, reason: &str) {
        *self.inner().rejects.entry(reason.to_owned()).or_default() += 1;
    }

    pub(crate) fn failed(&self, error: &Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.inner().last_error = Some((now_us(), error.to_string()));
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
