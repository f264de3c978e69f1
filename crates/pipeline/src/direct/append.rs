//! Into the log: bodies that wait at the same time share one append and one fsync.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use twinlake_contracts::{Error, IntakeError, Message, MessageLog, Result, Retry};

use super::LOG;
use super::patience::Patience;
use super::window::Entry;

/// The most bodies that one append takes.
const GROUP_MESSAGES: usize = 4_096;

pub(super) struct Appender {
    pub log: Arc<dyn MessageLog>,
    pub patience: Patience,
    /// The most payload bytes that one append takes, beyond the first body.
    pub group_bytes: usize,
    /// How long a failing append is tried again before its callers hear of it.
    pub append_within: Duration,
}

impl Appender {
    /// Appends until nobody brings bodies any more. What is in the log goes to the worker, in the order of the log.
    pub async fn run(self, mut waiting: mpsc::UnboundedReceiver<Entry>, groups: mpsc::Sender<Vec<Entry>>) {
        let mut ordinal = self.log.checkpoint(LOG).ordinal();
        while let Some(first) = waiting.recv().await {
            let mut bytes = first.message.payload.len();
            let mut group = vec![first];
            while bytes < self.group_bytes
                && group.len() < GROUP_MESSAGES
                && let Ok(next) = waiting.try_recv()
            {
                bytes += next.message.payload.len();
                group.push(next);
            }
            for entry in &mut group {
                ordinal += 1;
                entry.message.position.ordinal = ordinal;
            }
            let messages = group.iter().map(|entry| entry.message.clone()).collect();
            match self.append(messages).await {
                Ok(last) => {
                    let stats = &self.patience.stats;
                    stats.messages.fetch_add(group.len() as u64, Ordering::Relaxed);
                    stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    stats.last_sequence.fetch_max(last, Ordering::Relaxed);
                    let first = (last + 1).saturating_sub(group.len() as u64);
                    for (sequence, entry) in (first..).zip(&mut group) {
                        entry.sequence = sequence;
                    }
                    if groups.send(group).await.is_err() {
                        return; // the worker has failed; its callers hear that, and the next start goes on from the log
                    }
                }
                Err(error) => {
                    for entry in group {
                        if let Some(reply) = entry.reply {
                            let _ = reply.send(Err(IntakeError::Failed(error.clone())));
                        }
                    }
                }
            }
        }
    }

    /// Appends, for a while in spite of failures.
    async fn append(&self, messages: Vec<Message>) -> Result<u64> {
        let deadline = Instant::now() + self.append_within;
        let mut pause = self.patience.pauses.first;
        loop {
            let error: Error = match self.log.append(LOG, messages.clone()).await {
                Ok(last) => return Ok(last),
                Err(error) => error,
            };
            self.patience.stats.failed(&error);
            let stopping = *self.patience.stop.borrow();
            if error.retry() == Retry::Never || stopping || Instant::now() + pause > deadline {
                tracing::warn!(%error, bodies = messages.len(), "bodies could not be made durable");
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.patience.pauses.longest);
        }
    }
}
