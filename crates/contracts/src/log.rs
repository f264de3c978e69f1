//! The durable log between a source and everything that may fail after it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Checkpoint, Message, Result};

/// A message with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedMessage {
    /// Counts the log's messages from 1 without gaps and never goes back, across restarts and releases.
    pub sequence: u64,
    /// The name of the source in its pipeline.
    pub source: Arc<str>,
    /// The message.
    pub message: Message,
}

/// The log of one pipeline. One process at a time holds it.
///
/// Promise: when [`MessageLog::append`] returns, the messages are on stable storage (fsync), in order, and every
/// later [`MessageLog::read`], in this process or the next, gives them back byte for byte until they are released.
/// A torn tail is cut on open, never served.
#[async_trait]
pub trait MessageLog: Send + Sync {
    /// Appends durably; returns the sequence of the last message appended. Concurrent callers share one fsync.
    async fn append(&self, source: &str, messages: Vec<Message>) -> Result<u64>;

    /// Reads up to `limit` messages with sequence greater than `after`.
    async fn read(&self, after: u64, limit: usize) -> Result<Vec<LoggedMessage>>;

    /// The last sequence ever appended; 0 for a new log.
    fn last_sequence(&self) -> u64;

    /// The position of the last message ever appended from `source`, also after its segment was released.
    fn checkpoint(&self, source: &str) -> Checkpoint;

    /// Everything up to `upto` is in the lake: its segments may go.
    async fn release(&self, upto: u64) -> Result<()>;
}
