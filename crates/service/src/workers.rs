//! The threads that compute answers, apart from those that serve connections: a query that keeps its thread busy for
//! seconds never keeps a health check, a timeout or another client waiting.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use twinlake_contracts::{Error, Result};

use crate::failure::Failure;

/// The threads: one for each core.
pub(crate) struct Workers(Option<Runtime>);

impl Workers {
    pub(crate) fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("query").enable_all().build();
        Ok(Self(Some(runtime.map_err(|error| Error::internal(format!("threads for queries: {error}")))?)))
    }

    /// Reads the stream on these threads. `place` is given back when the query has really ended: a query that was
    /// given up holds it until it next looks up from its work.
    pub(crate) fn read(&self, mut stream: SendableRecordBatchStream, place: OwnedSemaphorePermit) -> Rows {
        let schema = stream.schema();
        let (sender, receiver) = mpsc::channel(1);
        let work = async move {
            let _place = place;
            while let Some(next) = stream.next().await {
                let failed = next.is_err();
                let full = next.as_ref().is_ok_and(|batch| batch.num_rows() > 0);
                if (full || failed) && sender.send(next.map(Some).map_err(Failure::from)).await.is_err() {
                    return;
                }
                if failed {
                    return;
                }
            }
            let _ = sender.send(Ok(None)).await; // whoever asked may have gone
        };
        let worker = self.0.as_ref().map(|runtime| runtime.spawn(work).abort_handle());
        Rows { schema, receiver, worker }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // A runtime may not wait for its threads inside of another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Rows that are being computed; at most one batch waits. Dropping it gives the query up.
pub(crate) struct Rows {
    schema: SchemaRef,
    receiver: mpsc::Receiver<std::result::Result<Option<RecordBatch>, Failure>>,
    worker: Option<AbortHandle>,
}

impl Rows {
    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch with rows; `None` at the end.
    pub(crate) async fn next(&mut self) -> std::result::Result<Option<RecordBatch>, Failure> {
        let broken = || Failure::from(Error::internal("the query was broken off"));
        self.receiver.recv().await.unwrap_or_else(|| Err(broken()))
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.abort();
        }
    }
}
