//! From the log to the tables: the one place that decides, in the order of the log.
//!
//! What becomes of a body depends on the bodies before it in the log alone: which table it goes to, which columns are
//! made, which rows are refused. Tables are made and widened durably before any row that needed it is committed, and
//! never change the type of a column; so the same body read again after a crash meets the same decisions.
//!
//! A commit at sequence *s* does, in this order: (1) store the state under *s*: the sequence *p* up to which everything
//! was committed before, and the keys known there; (2) commit each table that has new rows, with *s*; (3) release the log
//! up to *p*. A table without new rows gets no commit, and keeps nothing in the log: after a restart the log is read from
//! *p* on, and each table is asked what it has committed; what it has is not added again. What is fresh is never needed
//! from before *p*. A clean stop stores *s* itself, and nothing is read again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use twinlake_contracts::{
    BodyDecoder, Error, LoggedMessage, MessageLog, Result, TableName, TableSpec, TableStore,
};

use super::DirectOptions;
use super::budget::{Budget, Held};
use super::envelope::Envelope;
use super::intake::decode;
use super::keys::{Keys, SharedKeys};
use super::patience::Patience;
use super::tables::Tables;
use super::window::Entry;
use crate::codec::{Reader, Writer};
use crate::window::rejects_schema;

const VERSION: u64 = 1;
/// Messages that are read from the log at a time.
const READ_MESSAGES: usize = 256;

pub(super) struct Worker {
    store: Arc<dyn TableStore>,
    log: Arc<dyn MessageLog>,
    pub(super) decoder: Arc<dyn BodyDecoder>,
    options: DirectOptions,
    pub(super) patience: Patience,
    pub(super) budget: Budget,
    pub(super) tables: Tables,
    pub(super) keys: SharedKeys,
    pub(super) rejects: TableName,
    /// The last message whose rows are added.
    pub(super) position: u64,
    /// The last message up to which everything is committed.
    complete: u64,
    /// What step (1) stores: `complete`, and the keys known there.
    saved: Vec<u8>,
    pub(super) uncommitted: Vec<Held>,
    pub(super) uncommitted_bytes: usize,
}

impl Worker {
    /// Opens the tables that are needed in any case and reads the state; what lies in the log is not yet applied.
    pub async fn open(
        store: Arc<dyn TableStore>,
        log: Arc<dyn MessageLog>,
        decoder: Arc<dyn BodyDecoder>,
        options: DirectOptions,
        patience: Patience,
        budget: Budget,
    ) -> Result<Self> {
        let mut tables =
            Tables::new(Arc::clone(&store), Arc::clone(&log), options.log_name(), patience.clone());
        let rejects = TableName { schema: "meta".to_owned(), table: "rejects".to_owned() };
        let description = "What could not become a row, with its payload and the reason".to_owned();
        let spec = TableSpec { name: rejects.clone(), schema: rejects_schema(), description };
        tables.open_as(spec, format!("{}/rejects", options.log_name())).await?;
        let name = options.log_name();
        let state = patience.retry("reading the state", || store.newest_state(&name)).await?;
        let (mut complete, mut keys) = (0, Keys::new(options.remembered_keys));
        if let Some((newest, bytes)) = state {
            (complete, keys) = read_state(&bytes, options.remembered_keys)?;
            if log.last_sequence() < newest {
                return Err(Error::config(format!(
                    "the log of direct ingest ends at message {}, but its tables may hold rows up to message {newest}",
                    log.last_sequence()
                ))
                .with_help("the log was removed or belongs to another lake: restore it"));
            }
        }
        let mut worker = Self {
            store,
            log,
            decoder,
            options,
            patience,
            budget,
            tables,
            keys: SharedKeys::new(keys),
            rejects,
            position: complete,
            complete,
            saved: Vec::new(),
            uncommitted: Vec::new(),
            uncommitted_bytes: 0,
        };
        worker.saved = worker.state();
        Ok(worker)
    }

    /// Applies what lies in the log: after a crash, what was not committed.
    pub async fn recover(&mut self) -> Result<()> {
        let upto = self.log.last_sequence();
        self.replay(upto).await
    }

    /// Applies the messages of the log up to one.
    async fn replay(&mut self, upto: u64) -> Result<()> {
        while self.position < upto {
            let limit = usize::try_from(upto - self.position).unwrap_or(usize::MAX).min(READ_MESSAGES);
            let read = || self.log.read(self.position, limit);
            let messages = self.patience.retry("reading the log", read).await?;
            let Some(first) = messages.first().map(|logged| logged.sequence) else {
                // A log that was lost starts anew behind the messages that are gone.
                tracing::warn!(
                    from = self.position + 1,
                    upto,
                    "messages are gone from the log of direct ingest"
                );
                self.position = upto;
                break;
            };
            if first > self.position + 1 {
                tracing::warn!(
                    from = self.position + 1,
                    first,
                    "messages are gone from the log of direct ingest"
                );
            }
            let decoder = &self.decoder;
            let entries: Vec<Entry> = futures::stream::iter(messages)
                .map(|logged| read_again(Arc::clone(decoder), logged))
                .buffered(self.options.decoders.max(1))
                .try_collect()
                .await?;
            self.apply(entries).await?;
            if self.uncommitted_bytes >= self.options.commit_bytes {
                self.commit().await?;
            }
        }
        Ok(())
    }

    /// Works until nobody brings bodies any more.
    pub async fn run(mut self, mut groups: mpsc::Receiver<Vec<Entry>>) -> Result<()> {
        let mut next_commit = Instant::now() + self.options.commit_interval;
        loop {
            let due = self.position > self.complete;
            let group = tokio::select! {
                group = groups.recv() => group,
                () = tokio::time::sleep_until(next_commit), if due => {
                    self.commit().await?;
                    next_commit = Instant::now() + self.options.commit_interval;
                    continue;
                }
            };
            let Some(mut entries) = group else { break };
            if !due {
                next_commit = Instant::now() + self.options.commit_interval;
            }
            while let Ok(more) = groups.try_recv() {
                entries.extend(more);
            }
            if let Some(first) = entries.first().map(|entry| entry.sequence)
                && first > self.position + 1
            {
                // An append that was told to have failed is in the log all the same.
                self.replay(first - 1).await?;
            }
            self.apply(entries).await?;
            if self.uncommitted_bytes >= self.options.commit_bytes || Instant::now() >= next_commit {
                self.commit().await?;
                next_commit = Instant::now() + self.options.commit_interval;
            }
        }
        self.commit().await?;
        self.store_state(self.complete).await?;
        self.release(self.complete).await;
        Ok(())
    }

    /// Commits everything up to the present position.
    async fn commit(&mut self) -> Result<()> {
        let (before, upto) = (self.complete, self.position);
        if upto <= before {
            return Ok(());
        }
        let start = Instant::now();
        self.store_state(upto).await?;
        let committed = self.tables.commit(upto).await?;
        self.complete = upto;
        self.saved = self.state();
        self.uncommitted.clear();
        self.uncommitted_bytes = 0;
        let stats = &self.patience.stats;
        stats.commit_us.store(start.elapsed().as_micros() as u64, Ordering::Relaxed);
        stats.commits.fetch_add(committed as u64, Ordering::Relaxed);
        stats.committed_sequence.store(upto, Ordering::Relaxed);
        self.release(before).await;
        Ok(())
    }

    /// Stores the state as of the last complete commit; no table commits a sequence above `sequence` before that.
    pub(super) async fn store_state(&self, sequence: u64) -> Result<()> {
        let name = self.options.log_name();
        let store = || self.store.put_state(&name, sequence, sequence, self.saved.clone());
        self.patience.retry("storing the state of direct ingest", store).await
    }

    async fn release(&self, upto: u64) {
        if let Err(error) = self.log.release(upto).await {
            // Nothing is lost: the log is only longer than it need be, and the next commit releases it too.
            self.patience.stats.failed(&error);
            tracing::warn!(%error, "releasing the log failed");
        }
    }

    fn state(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.unsigned(VERSION);
        out.unsigned(self.complete);
        self.keys.write(&mut out);
        out.finish()
    }
}

fn read_state(bytes: &[u8], limit: usize) -> Result<(u64, Keys)> {
    let mut input = Reader::new(bytes);
    if input.unsigned()? != VERSION {
        return Err(Error::internal("the state of direct ingest was written by another version"));
    }
    Ok((input.unsigned()?, Keys::read(limit, &mut input)?))
}

/// A body of the log as it was when it came in.
async fn read_again(decoder: Arc<dyn BodyDecoder>, logged: LoggedMessage) -> Result<Entry> {
    let message = logged.message;
    let envelope = match Envelope::of(&message) {
        Ok(envelope) => envelope,
        Err(error) => return Ok(Entry::unreadable(logged.sequence, message, error)),
    };
    let fingerprint = envelope.fingerprint(&message.payload);
    let (format, body, received_at_us) =
        (envelope.format.clone(), message.payload.clone(), message.received_at_us);
    let work = move || decode(decoder.as_ref(), &format, &body, received_at_us);
    let decoded = tokio::task::spawn_blocking(work).await.map_err(Error::internal)?;
    Ok(Entry { sequence: logged.sequence, message, envelope, fingerprint, decoded, reply: None, held: None })
}
