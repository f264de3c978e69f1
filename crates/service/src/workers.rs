//! The threads that compute answers, apart from those that serve connections: a query that keeps its thread busy for
//! seconds never keeps a health check, a timeout or another client waiting.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;
use twinlake_contracts::{Error, Result};

use crate::failure::Failure;

type Next = std::result::Result<Option<RecordBatch>, Failure>;

/// The threads: more than cores, so that the machine shares its time out between a query that does not look up from
/// its work and the short ones beside it.
pub(crate) struct Workers(Option<Runtime>);

impl Workers {
    pub(crate) fn start() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(8, |cores| 8.max(4 * cores.get()));
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name("query").enable_all().build();
        Ok(Self(Some(runtime.map_err(|error| Error::internal(format!("threads for queries: {error}")))?)))
    }

    /// Runs a query on these threads. `place` is given back when the query has really ended: one that was given up
    /// holds it until it next looks up from its work.
    pub(crate) async fn start_query(
        &self,
        frame: DataFrame,
        place: OwnedSemaphorePermit,
    ) -> std::result::Result<Rows, Failure> {
        let (head, schema) = oneshot::channel();
        let (sender, batches) = mpsc::channel(1);
        let work = async move {
            let _place = place;
            if let Err(failure) = compute(frame, head, &sender).await {
                let _ = sender.send(Err(failure)).await; // whoever asked may have gone
            }
        };
        let worker = self.0.as_ref().map(|runtime| Worker(runtime.spawn(work).abort_handle()));
        let mut batches = batches;
        match schema.await {
            Ok(schema) => Ok(Rows { schema, batches, _worker: worker }),
            Err(_) => Err(batches.recv().await.and_then(Next::err).unwrap_or_else(broken_off)),
        }
    }
}

/// Computes all rows; an `Ok(None)` after the last says that none is missing.
async fn compute(
    frame: DataFrame,
    head: oneshot::Sender<SchemaRef>,
    sender: &mpsc::Sender<Next>,
) -> std::result::Result<(), Failure> {
    let mut stream = frame.execute_stream().await?;
    let _ = head.send(stream.schema());
    while let Some(batch) = stream.next().await.transpose()? {
        if batch.num_rows() > 0 && sender.send(Ok(Some(batch))).await.is_err() {
            return Ok(());
        }
    }
    let _ = sender.send(Ok(None)).await;
    Ok(())
}

fn broken_off() -> Failure {
    Error::internal("the query was broken off").into()
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

/// Ends its query when dropped.
struct Worker(AbortHandle);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Rows that are being computed; at most one batch waits. Dropping it gives the query up.
pub(crate) struct Rows {
    schema: SchemaRef,
    batches: mpsc::Receiver<Next>,
    _worker: Option<Worker>,
}

impl Rows {
    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch with rows; `None` at the end.
    pub(crate) async fn next(&mut self) -> Next {
        self.batches.recv().await.unwrap_or_else(|| Err(broken_off()))
    }
}
