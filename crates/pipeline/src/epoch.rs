//! Epochs: what makes the way from the log into many tables exactly-once.
//!
//! An epoch is the stretch of the log between two commits. Its commit does, in this order: (1) put the operators' state
//! and the list of writers that have rows in it, under the epoch's last sequence; (2) commit the rows of each of those
//! writers, each together with that sequence in one Delta transaction; (3) release the log. The next epoch is not
//! committed before all of this is done.
//!
//! So after a crash the highest sequence that any table holds is the end of the newest epoch that was begun to be
//! committed, and its state says who should have reached it. If all did, the run goes on after it. If not, the run goes
//! back to the end of the epoch before, whose state is kept until then, and processes the very same stretch again; tables
//! that have the epoch already do not get it twice. Operators are deterministic, so both runs give the same rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::try_join_all;
use tokio::sync::watch;
use twinlake_contracts::{
    Error, MessageLog, Result, TableName, TableSpec, TableStore, TableWriter, WriteMode,
};

use crate::codec::{Reader, Writer};
use crate::flow::Flow;
use crate::retry::{Pauses, retry};
use crate::stats::RunnerStats;

const VERSION: u64 = 1;

/// One writer of one table.
pub(crate) struct Target {
    pub table: Arc<dyn TableWriter>,
    /// `<pipeline>/<sink>`, `<pipeline>/raw.<source>` or `<pipeline>/rejects`.
    pub writer: String,
    /// Rows up to this sequence are in the table or among its fresh rows.
    done: u64,
    /// The last sequence that must be committed for nothing to be missing.
    required: u64,
    /// The sequence that is committed.
    committed: u64,
}

/// All writers of a pipeline and how far they are.
pub(crate) struct Epochs {
    pipeline: String,
    store: Arc<dyn TableStore>,
    log: Arc<dyn MessageLog>,
    pub targets: BTreeMap<String, Target>,
    /// The end of the last epoch that is completely committed.
    pub complete: u64,
    /// The state at `complete`.
    state: Vec<u8>,
    /// The newest table versions, by table.
    pub versions: BTreeMap<TableName, u64>,
    pauses: Pauses,
    stats: Arc<RunnerStats>,
    stop: watch::Receiver<bool>,
}

impl Epochs {
    /// Opens the tables (`key` → writer's name, table) and finds the place in the log after which to go on, and up to
    /// which to process again in one epoch.
    pub async fn open(
        pipeline: &str,
        store: &Arc<dyn TableStore>,
        log: &Arc<dyn MessageLog>,
        tables: Vec<(String, String, TableSpec)>,
        pauses: Pauses,
        stats: &Arc<RunnerStats>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Self, u64)> {
        let mut targets = BTreeMap::new();
        for (key, writer, spec) in tables {
            let table =
                retry("opening a table", pauses, stats, stop, || store.open_table(spec.clone())).await?;
            let committed = retry("opening a table", pauses, stats, stop, || table.committed(&writer))
                .await?
                .unwrap_or(0);
            targets.insert(key, Target { table, writer, done: committed, required: 0, committed });
        }
        let mut epochs = Self {
            pipeline: pipeline.to_owned(),
            store: Arc::clone(store),
            log: Arc::clone(log),
            targets,
            complete: 0,
            state: Vec::new(),
            versions: BTreeMap::new(),
            pauses,
            stats: Arc::clone(stats),
            stop: stop.clone(),
        };
        let newest = epochs.recover().await?;
        Ok((epochs, newest))
    }

    async fn load(&self, sequence: u64) -> Result<Option<Vec<u8>>> {
        retry("reading the pipeline's state", self.pauses, &self.stats, &self.stop, || {
            self.store.state(&self.pipeline, sequence)
        })
        .await
    }

    /// Sets `complete` and `state`; returns the end of the newest epoch that any table has.
    async fn recover(&mut self) -> Result<u64> {
        let newest = self.targets.values().map(|target| target.committed).max().unwrap_or(0);
        if newest == 0 {
            return Ok(0);
        }
        if self.log.last_sequence() < newest {
            return Err(Error::config(format!(
                "the log of the pipeline '{}' ends at message {}, but its tables hold rows up to message {newest}",
                self.pipeline,
                self.log.last_sequence()
            ))
            .with_help("the log was removed or belongs to another lake: restore it, or give the pipeline another name"));
        }
        let Some(state) = self.load(newest).await? else {
            return Err(Error::permanent(
                format!("lake state of '{}'", self.pipeline),
                format!("the state of sequence {newest} is missing, though it was stored before the rows"),
            ));
        };
        let head = Head::read(&mut Reader::new(&state))?;
        let behind = self.targets.iter().any(|(key, target)| {
            head.required.get(&identity(key, target)).is_some_and(|required| target.committed < *required)
        });
        if behind {
            self.complete = head.previous;
            self.state = if head.previous == 0 {
                Vec::new()
            } else {
                self.load(head.previous).await?.ok_or_else(|| {
                    Error::permanent(
                        format!("lake state of '{}'", self.pipeline),
                        format!("the state of sequence {} is missing", head.previous),
                    )
                })?
            };
        } else {
            self.complete = newest;
            self.state = state;
        }
        for (key, target) in &mut self.targets {
            let required = head.required.get(&identity(key, target)).copied().unwrap_or(0);
            target.required = required.min(target.committed);
        }
        Ok(newest)
    }

    /// Puts the operators back to where they were at `complete`.
    pub fn restore(&self, flow: &mut Flow) -> Result<()> {
        if self.state.is_empty() {
            return Ok(());
        }
        let mut input = Reader::new(&self.state);
        Head::read(&mut input)?;
        flow.restore(input.bytes()?)
    }

    /// Adds a target's rows of the stretch that ends at `upto`, unless it has them.
    pub async fn add(&mut self, key: &str, upto: u64, rows: RecordBatch) -> Result<bool> {
        let Some(target) = self.targets.get_mut(key) else {
            return Err(Error::internal(format!("'{key}' has no table")));
        };
        if target.done >= upto {
            return Ok(false);
        }
        retry("adding rows", self.pauses, &self.stats, &self.stop, || {
            target.table.add_fresh(&target.writer, rows.clone())
        })
        .await?;
        target.required = upto;
        Ok(true)
    }

    /// Everything up to `upto` has been handed to all targets.
    pub fn advance(&mut self, upto: u64) {
        for target in self.targets.values_mut() {
            target.done = target.done.max(upto);
        }
    }

    /// The nearest sequence above `position` up to which some target has its rows already: no window may cross it.
    pub fn cut(&self, position: u64) -> Option<u64> {
        self.targets.values().map(|target| target.done).filter(|done| *done > position).min()
    }

    /// Ends the epoch at `upto`, with the operators' state there.
    pub async fn commit(&mut self, upto: u64, operators: &[u8]) -> Result<()> {
        if upto <= self.complete {
            return Ok(());
        }
        for target in self.targets.values_mut().filter(|target| target.required > self.complete) {
            target.required = upto;
        }
        // A table that has the epoch already (from before a crash) counts as one that must have it.
        for target in self.targets.values_mut().filter(|target| target.committed >= upto) {
            target.required = upto;
        }
        let mut out = Writer::default();
        let required = self.targets.iter().map(|(key, target)| (identity(key, target), target.required));
        Head { previous: self.complete, required: required.collect() }.write(&mut out);
        out.bytes(operators);
        let state = out.finish();
        retry("storing the pipeline's state", self.pauses, &self.stats, &self.stop, || {
            self.store.put_state(&self.pipeline, upto, self.complete, state.clone())
        })
        .await?;
        let (pauses, stats, stop) = (self.pauses, &self.stats, &self.stop);
        let due = self.targets.values().filter(|t| t.required == upto && t.committed < upto);
        let versions = try_join_all(due.map(|target| async move {
            let version = retry("committing", pauses, stats, stop, || {
                target.table.commit(&target.writer, upto, WriteMode::Append)
            })
            .await?;
            Ok::<_, Error>((target.table.name().clone(), version))
        }))
        .await?;
        self.versions.extend(versions);
        for target in self.targets.values_mut().filter(|target| target.required == upto) {
            target.committed = target.committed.max(upto);
        }
        self.complete = upto;
        self.state = state;
        if let Err(error) = self.log.release(upto).await {
            // Nothing is lost: the log is only longer than it need be, and the next commit releases it too.
            self.stats.failed(&error);
            tracing::warn!(%error, "releasing the log failed");
            if error.retry() == twinlake_contracts::Retry::Never {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The last sequence up to which every table has what it must have, as a reader from outside can know it: the pipeline may
/// be running in another process. `committed` gives the sequence that a writer has committed in a table, by
/// [`identity`]; `None` for one that is not known any more, which counts as complete.
pub(crate) async fn settled<C, F>(pipeline: &str, store: &Arc<dyn TableStore>, committed: C) -> Result<u64>
where
    C: Fn(String) -> F,
    F: Future<Output = Result<Option<u64>>>,
{
    // Asked before the tables: what they have afterwards can only be more.
    let Some((newest, state)) = store.newest_state(pipeline).await? else { return Ok(0) };
    let head = Head::read(&mut Reader::new(&state))?;
    for (identity, required) in head.required {
        if committed(identity).await?.is_some_and(|committed| committed < required) {
            return Ok(head.previous);
        }
    }
    Ok(newest)
}

/// The name of a target in a stored state.
pub(crate) fn identity_of(key: &str, table: &TableName) -> String {
    format!("{key}@{table}")
}

/// Which table and writer an entry of the state speaks of: a sink that is sent to another table is another one.
fn identity(key: &str, target: &Target) -> String {
    identity_of(key, target.table.name())
}

/// The first part of a stored state.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// The end of the epoch before.
    previous: u64,
    /// The sequence that each writer must have committed.
    required: BTreeMap<String, u64>,
}

impl Head {
    fn write(&self, out: &mut Writer) {
        out.unsigned(VERSION);
        out.unsigned(self.previous);
        out.unsigned(self.required.len() as u64);
        for (name, sequence) in &self.required {
            out.bytes(name.as_bytes());
            out.unsigned(*sequence);
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        if input.unsigned()? != VERSION {
            return Err(Error::internal("the pipeline's state was written by another version"));
        }
        let previous = input.unsigned()?;
        let mut required = BTreeMap::new();
        for _ in 0..input.unsigned()? {
            let name = String::from_utf8_lossy(input.bytes()?).into_owned();
            required.insert(name, input.unsigned()?);
        }
        Ok(Self { previous, required })
    }
}
