//! A commit: a writer's fresh rows and the log sequence that they stand for, in one Delta transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use twinlake_contracts::{Error, Result, WriteMode};

use super::{InDoubt, LakeTable, WriteSide, files};
use crate::error;

/// How often a commit is tried against other processes that write the same table.
const ATTEMPTS: u32 = 12;
/// The key in a commit's information that names its writer.
pub(super) const WRITER_KEY: &str = "twinlakeWriter";

/// Says that a commit runs, for as long as it lives.
pub(super) struct Committing<'a>(&'a AtomicBool);

impl<'a> Committing<'a> {
    pub(super) fn start(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Release);
        Self(flag)
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The writer whose replacing commit is the newest of the table: its next rows will replace again.
pub(super) async fn replacers(table: &DeltaTable) -> HashSet<String> {
    let newest = table.history(Some(1)).try_next().await;
    let Ok(Some(info)) = newest else { return HashSet::new() };
    let overwrites = info
        .operation_parameters
        .as_ref()
        .and_then(|parameters| parameters.get("mode"))
        .and_then(|mode| mode.as_str())
        .is_some_and(|mode| mode == "Overwrite");
    let writer = info.info.get(WRITER_KEY).and_then(|writer| writer.as_str()).map(str::to_owned);
    writer.filter(|_| overwrites).into_iter().collect()
}

/// Whether an error says for certain that nothing was committed and that another writer was first.
pub(super) fn lost_the_race(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_)
                    | TransactionError::VersionAlreadyExists(_)
                    | TransactionError::MaxCommitAttempts(_)
            }
    )
}

impl LakeTable {
    /// Commits a writer's fresh rows. With a sequence the commit is idempotent; without one (rows that stand for no
    /// log) it is not. Gives the version that holds the rows.
    ///
    /// A caller that gives up does not stop it: what has been handed to the storage may land later than any look for it,
    /// and then its rows would be there twice, as fresh ones and as committed ones.
    pub(crate) async fn commit_rows(
        &self,
        writer: &str,
        sequence: Option<u64>,
        mode: WriteMode,
    ) -> Result<u64> {
        let table = self.itself.upgrade().ok_or_else(|| Error::internal("the table has been closed"))?;
        let writer = writer.to_owned();
        let commit = tokio::spawn(async move { table.commit_to_its_end(&writer, sequence, mode).await });
        commit.await.map_err(Error::internal)?
    }

    async fn commit_to_its_end(&self, writer: &str, sequence: Option<u64>, mode: WriteMode) -> Result<u64> {
        let mut side = self.write_side.lock().await;
        let side = &mut *side;
        let _committing = Committing::start(&self.committing);
        if side.in_doubt.is_some() {
            self.settle(side).await?;
        }
        if let Some(version) = self.already_committed(side, writer, sequence).await? {
            return Ok(version);
        }
        let count = self.readable().fresh.get(writer).map_or(0, |fresh| fresh.batches.len());
        let (mut schema, mut adds) = self.write_fresh(side, writer, count).await?;
        for attempt in 1..=ATTEMPTS {
            if self.stored_schema() != schema {
                // Another process has changed the columns: the files are of no use.
                self.delete_unused(&adds).await;
                (schema, adds) = self.write_fresh(side, writer, count).await?;
            }
            // Noted before the attempt: when it fails, the next look settles whether it reached storage.
            side.in_doubt = Some(InDoubt {
                writer: writer.to_owned(),
                sequence,
                paths: adds.iter().map(|add| add.path.clone()).collect(),
                batches: count,
            });
            let error = match self.try_commit(side, writer, sequence, mode, &adds).await {
                Ok(version) => {
                    self.note_written(writer, &adds);
                    let own = if mode == WriteMode::Append { adds.as_slice() } else { &[] };
                    self.finish(side, writer, sequence, mode, count, own).await?;
                    return Ok(version);
                }
                Err(error) => error,
            };
            if !lost_the_race(&error) {
                // It may have reached storage all the same; the rows stay fresh until that is known.
                return Err(error::delta(&self.system, &error));
            }
            tracing::debug!(table = %self.name, writer, attempt, %error, "another writer was first");
            side.in_doubt = None;
            self.settle(side).await?;
            if let Some(version) = self.already_committed(side, writer, sequence).await? {
                self.delete_unused(&adds).await;
                return Ok(version);
            }
            tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 5)).await;
        }
        self.delete_unused(&adds).await;
        Err(Error::transient(
            self.system.clone(),
            format!("other writers were first {ATTEMPTS} times; the rows stay fresh"),
        ))
    }

    /// Files with the oldest `count` batches of a writer, and the columns that they have.
    async fn write_fresh(
        &self,
        side: &WriteSide,
        writer: &str,
        count: usize,
    ) -> Result<(SchemaRef, Vec<Add>)> {
        let (batches, schema) = {
            let readable = self.readable();
            let fresh = readable.fresh.get(writer).map(|fresh| fresh.batches.as_slice()).unwrap_or_default();
            (fresh.iter().take(count).cloned().collect(), readable.committed.schema())
        };
        let state = side.table.snapshot().map_err(|error| error::delta(&self.system, &error))?;
        let store = self.log_store.object_store(None);
        let written = files::write(store, state, Arc::clone(&schema), batches, writer).await;
        Ok((schema, written.map_err(|error| error::delta(&self.system, &error))?))
    }

    /// The present version, if the writer has committed this sequence or a later one.
    async fn already_committed(
        &self,
        side: &mut WriteSide,
        writer: &str,
        sequence: Option<u64>,
    ) -> Result<Option<u64>> {
        let Some(sequence) = sequence else { return Ok(None) };
        let committed = self.committed_by(side, writer).await?;
        Ok(committed.filter(|committed| *committed >= sequence).and(side.table.version()))
    }

    /// One attempt: on success the write side holds the new state.
    async fn try_commit(
        &self,
        side: &mut WriteSide,
        writer: &str,
        sequence: Option<u64>,
        mode: WriteMode,
        adds: &[Add],
    ) -> Result<u64, DeltaTableError> {
        let state = side.table.snapshot()?;
        let mut actions: Vec<Action> = adds.iter().cloned().map(Action::Add).collect();
        let save_mode = match mode {
            WriteMode::Append => SaveMode::Append,
            WriteMode::Replace => {
                actions.extend(state.log_data().iter().map(|file| Action::Remove(file.remove_action(true))));
                SaveMode::Overwrite
            }
        };
        let mut properties = CommitProperties::default()
            .with_metadata([(WRITER_KEY.to_owned(), writer.into())])
            // Old versions stay: a simulation's inputs are versions.
            .with_cleanup_expired_logs(Some(false));
        if mode == WriteMode::Replace {
            // What it takes away must be what is there: a newer version is looked at before the next attempt.
            properties = properties.with_max_retries(0);
        }
        if let Some(sequence) = sequence {
            let version = i64::try_from(sequence)
                .map_err(|_| DeltaTableError::Generic(format!("sequence {sequence} is too large")))?;
            properties = properties.with_application_transaction(Transaction::new(writer, version));
        }
        let operation = DeltaOperation::Write { mode: save_mode, partition_by: None, predicate: None };
        let commit = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(state), self.log_store.clone(), operation)
            .await?;
        side.table.state = Some(commit.snapshot());
        Ok(commit.version())
    }

    async fn finish(
        &self,
        side: &mut WriteSide,
        writer: &str,
        sequence: Option<u64>,
        mode: WriteMode,
        batches: usize,
        own: &[Add],
    ) -> Result<()> {
        let own: HashSet<String> = own.iter().map(|add| add.path.clone()).collect();
        if mode == WriteMode::Replace {
            self.readable_mut().tell_anew();
        }
        self.publish(side, Some((writer.to_owned(), batches)), &own, false).await?;
        if sequence.is_some() {
            side.committed.insert(writer.to_owned(), sequence);
        }
        let mut readable = self.readable_mut();
        match mode {
            WriteMode::Replace => readable.replacers.insert(writer.to_owned()),
            WriteMode::Append => readable.replacers.remove(writer),
        };
        Ok(())
    }

    /// Files that no commit names take space and nothing else; what cannot be deleted stays for a vacuum.
    pub(super) async fn delete_unused(&self, adds: &[Add]) {
        let store = self.log_store.object_store(None);
        for add in adds {
            if let Err(error) = store.delete(&Path::from(add.path.as_str())).await {
                tracing::debug!(table = %self.name, file = add.path, %error, "an unused file stays");
            }
        }
    }
}
