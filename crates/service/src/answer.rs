//! A query on its way: admitted, started, and read batch by batch within its time.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::Failure;
use crate::workers::{Rows, Workers};

/// How long a query waits for its turn when all places are taken.
const LONGEST_QUEUE: Duration = Duration::from_secs(5);

/// Admits so many queries at a time, over all doors, and says how long one may be silent.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    workers: Arc<Workers>,
    patience: Duration,
    queue: Duration,
}

/// The time of one query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    /// The longest time without a row.
    patience: Duration,
    /// The end, whatever comes, if the client asked for one.
    deadline: Option<(Instant, Duration)>,
}

impl Time {
    /// Waits for `work` as long as the query's time allows.
    pub(crate) async fn limit<T>(self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let left = self.deadline.map(|(end, _)| end.saturating_duration_since(Instant::now()));
        let (limit, named) = match (left, self.deadline) {
            (Some(left), Some((_, named))) if left < self.patience => (left, named),
            _ => (self.patience, self.patience),
        };
        tokio::time::timeout(limit, work).await.map_err(|_| Failure::TimedOut(named))
    }
}

impl Gate {
    /// A gate with `places` places; a query that gives no row for `patience` ends.
    pub(crate) fn new(places: usize, patience: Duration) -> twinlake_contracts::Result<Self> {
        let places = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { places, workers: Arc::new(Workers::start()?), patience, queue: LONGEST_QUEUE })
    }

    /// The time of a query that starts now. `total` is the client's own limit on all of it.
    pub(crate) fn time(&self, total: Option<Duration>) -> Time {
        let deadline = total.and_then(|total| Some((Instant::now().checked_add(total)?, total)));
        Time { patience: self.patience, deadline }
    }

    async fn enter(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = tokio::time::timeout(self.queue, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(Failure::Busy)
    }

    /// Waits for a place, starts the work, and waits for its first rows, so that nearly all errors are known before
    /// the answer's head is sent. The place is held until the answer is dropped.
    pub(crate) async fn answer(
        &self,
        time: Time,
        work: impl Future<Output = Result<DataFrame, Failure>>,
    ) -> Result<Answer, Failure> {
        let place = self.enter().await?;
        let frame = time.limit(work).await??;
        let rows = time.limit(self.workers.start_query(frame, place)).await??;
        let mut answer = Answer { schema: Arc::clone(rows.schema()), first: None, rest: Some(rows), time };
        answer.first = answer.pull().await?;
        Ok(answer)
    }
}

/// Rows that are coming, computed on the query threads. Few batches wait in memory. Dropping it cancels the query.
pub(crate) struct Answer {
    schema: SchemaRef,
    first: Option<RecordBatch>,
    rest: Option<Rows>,
    time: Time,
}

impl Answer {
    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch with rows; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        match self.first.take() {
            Some(batch) => Ok(Some(batch)),
            None => self.pull().await,
        }
    }

    async fn pull(&mut self) -> Result<Option<RecordBatch>, Failure> {
        let Some(rows) = &mut self.rest else { return Ok(None) };
        let next = self.time.limit(rows.next()).await.and_then(|next| next);
        if !matches!(next, Ok(Some(_))) {
            self.rest = None;
        }
        next
    }

    /// All rows, for answers that are known to be small.
    pub(crate) async fn collect(mut self) -> Result<Vec<RecordBatch>, Failure> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::error::DataFusionError;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn one(context: &SessionContext, sql: &str) -> Result<DataFrame, Failure> {
        context.sql(sql).await.map_err(Failure::from)
    }

    #[tokio::test]
    async fn a_full_gate_answers_busy_and_frees_its_place_when_dropped() {
        let gate = Gate { queue: Duration::from_millis(50), ..Gate::new(1, Duration::from_mins(1)).unwrap() };
        let context = SessionContext::new();
        let many = "SELECT value FROM generate_series(1, 1000000)";
        let held = gate.answer(gate.time(None), one(&context, many)).await.unwrap();
        let refused = gate.answer(gate.time(None), one(&context, "SELECT 1")).await;
        assert!(matches!(refused, Err(Failure::Busy)));
        drop(held);
        let answer = gate.answer(gate.time(None), one(&context, "SELECT 1")).await.unwrap();
        assert_eq!(answer.collect().await.unwrap()[0].num_rows(), 1);
    }

    #[tokio::test]
    async fn silence_ends_a_query_and_the_clients_limit_comes_first() {
        let gate = Gate::new(1, Duration::from_millis(20)).unwrap();
        let forever = || std::future::pending::<Result<DataFrame, Failure>>();
        let failed = gate.answer(gate.time(None), forever()).await;
        assert!(matches!(failed, Err(Failure::TimedOut(limit)) if limit == Duration::from_millis(20)));
        let failed = gate.answer(gate.time(Some(Duration::from_millis(1))), forever()).await;
        assert!(matches!(failed, Err(Failure::TimedOut(limit)) if limit == Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn the_first_error_comes_before_the_head() {
        let gate = Gate::new(1, Duration::from_mins(1)).unwrap();
        let context = SessionContext::new();
        let failed = gate.answer(gate.time(None), one(&context, "SELECT nothing")).await;
        assert!(
            matches!(failed, Err(Failure::Engine(error)) if matches!(error.find_root(), DataFusionError::SchemaError(..)))
        );
    }
}
