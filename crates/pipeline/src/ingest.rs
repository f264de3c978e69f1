//! One source's way into the log: stream → durable → acknowledged, in this order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use twinlake_contracts::{Checkpoint, Error, Message, MessageLog, MessageStream, Result, Retry, Source};

use crate::model::{SourceKind, SourceNode};
use crate::plan::Plan;
use crate::retry::{Pauses, retry, told};
use crate::stats::RunnerStats;

/// The most messages and payload bytes that are appended with one fsync.
const BATCH_MESSAGES: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

/// What the task of a source needs.
pub(crate) struct Ingest {
    pub plan: Arc<Plan>,
    pub name: String,
    pub log: Arc<dyn MessageLog>,
    pub stats: Arc<RunnerStats>,
    pub stop: watch::Receiver<bool>,
    /// Told the log's last sequence after each append.
    pub appended: Arc<watch::Sender<u64>>,
    /// Tells the sequence up to which everything is committed.
    pub committed: watch::Receiver<u64>,
    pub pauses: Pauses,
}

/// Why reading a stream ended.
enum Ended {
    /// The input is exhausted, or the run was told to stop.
    Done,
    /// The source could not go on by itself.
    Failed(Error),
}

impl Ingest {
    /// Reads the source until it is exhausted or the run is told to stop. Failures that may pass are tried again from
    /// the last durable message.
    pub async fn run(self) -> Result<()> {
        let mut pause = self.pauses.first;
        loop {
            let before = self.log.checkpoint(&self.name).ordinal();
            let error = match self.read().await {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::Failed(error)) | Err(error) => error,
            };
            if error.retry() == Retry::Never || *self.stop.borrow() {
                return Err(error);
            }
            self.stats.failed(&error);
            if self.log.checkpoint(&self.name).ordinal() > before {
                pause = self.pauses.first; // it worked for a while: begin with a short pause
            }
            tracing::warn!(source = self.name, %error, pause_ms = pause.as_millis(), "the source failed; opening it again");
            let mut stop = self.stop.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stop) => return Ok(()),
            }
            pause = (pause * 2).min(self.pauses.longest);
        }
    }

    async fn read(&self) -> Result<Ended> {
        let mut source = self.build()?;
        let bounded = source.bounded();
        let resume = self.log.checkpoint(&self.name);
        let mut stop = self.stop.clone();
        let mut stream = tokio::select! {
            stream = source.open(&resume) => stream?,
            () = told(&mut stop) => return Ok(Ended::Done),
        };
        if resume.0.is_some() {
            // The last run may have ended between the fsync and the acknowledgement.
            self.acknowledge(source.as_mut(), &resume).await?;
        }
        loop {
            tokio::select! {
                () = self.room() => {}
                () = told(&mut stop) => return Ok(Ended::Done),
            }
            let (messages, end) = tokio::select! {
                biased;
                () = told(&mut stop) => return Ok(Ended::Done),
                next = batch(&mut stream) => next,
            };
            if let Some(last) = messages.last().map(|message| message.position.clone()) {
                self.append(messages).await?;
                self.acknowledge(source.as_mut(), &Checkpoint(Some(last))).await?;
            }
            match end {
                None => {}
                Some(Ok(())) if bounded => return Ok(Ended::Done),
                Some(Ok(())) => {
                    return Ok(Ended::Failed(Error::transient(self.name.clone(), "the stream ended")));
                }
                Some(Err(error)) => return Ok(Ended::Failed(error)),
            }
        }
    }

    fn build(&self) -> Result<Box<dyn Source>> {
        match self.plan.pipeline.sources.get(&self.name) {
            Some(SourceNode { kind: SourceKind::Messages { type_name, settings, .. }, .. }) => {
                self.plan.pipeline.components.sources.build(type_name, settings.clone())
            }
            _ => Err(Error::internal(format!("'{}' is not a source of messages", self.name))),
        }
    }

    /// Waits until the log has room for more uncommitted messages: a slow lake slows the source down.
    async fn room(&self) {
        let most = self.plan.pipeline.settings.max_backlog_messages;
        let mut committed = self.committed.clone();
        let enough = |committed: &u64| self.log.last_sequence().saturating_sub(*committed) < most;
        if committed.wait_for(enough).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn append(&self, messages: Vec<Message>) -> Result<()> {
        let count = messages.len() as u64;
        let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
        let last = retry("appending to the log", self.pauses, &self.stats, &self.stop, || {
            self.log.append(&self.name, messages.clone())
        })
        .await?;
        self.stats.messages.fetch_add(count, Ordering::Relaxed);
        self.stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.stats.last_sequence.fetch_max(last, Ordering::Relaxed);
        self.appended.send_modify(|sequence| *sequence = last.max(*sequence));
        Ok(())
    }

    async fn acknowledge(&self, source: &mut dyn Source, upto: &Checkpoint) -> Result<()> {
        match source.acknowledge(upto).await {
            Err(error) if error.retry() == Retry::Backoff => {
                // The next acknowledgement names these messages too; the outside may send them again.
                self.stats.failed(&error);
                tracing::warn!(source = self.name, %error, "acknowledging failed");
                Ok(())
            }
            other => other,
        }
    }
}

/// The messages that are there: waits for the first, takes what else is ready. The second part tells how the stream
/// ended, if it did.
async fn batch(stream: &mut MessageStream) -> (Vec<Message>, Option<Result<()>>) {
    let mut messages = Vec::new();
    let mut bytes = 0;
    let mut next = Some(stream.next().await);
    while let Some(item) = next {
        match item {
            Some(Ok(message)) => {
                bytes += message.payload.len();
                messages.push(message);
            }
            Some(Err(error)) => return (messages, Some(Err(error))),
            None => return (messages, Some(Ok(()))),
        }
        if messages.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES {
            break;
        }
        next = stream.next().now_or_never();
    }
    (messages, None)
}
