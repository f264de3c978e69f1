//! A table function that does something: when rows are asked for, never when a query is planned or explained, and once an execution.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::{BoxFuture, FutureExt, Shared};
use futures::{StreamExt, TryStreamExt};
use twinlake_contracts::Error;

use crate::view::through;

type Outcome = std::result::Result<RecordBatch, Error>;
/// What is being done, for all who wait for it.
type Done = Shared<BoxFuture<'static, Outcome>>;
type Work = Box<dyn Fn() -> BoxFuture<'static, Outcome> + Send + Sync>;

/// Something that is done, and what it says of itself.
pub(crate) struct Effect {
    schema: SchemaRef,
    work: Work,
    /// The execution that it was last done for. A query that names it twice (a common table expression, a self-join) executes it
    /// twice in one task, and sees what was done once; a prepared statement that is executed again does it again.
    last: Mutex<Option<(Weak<TaskContext>, Done)>>,
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effect").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Effect {
    /// A table of what `work` says when it is done.
    pub(crate) fn table<F>(
        schema: SchemaRef,
        work: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Arc<dyn TableProvider>>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let work: Work = Box::new(move || work().boxed());
        let effect = Self { schema: schema.clone(), work, last: Mutex::default() };
        Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(effect)])?))
    }
}

impl PartitionStream for Effect {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match last.as_ref() {
            Some((task, done)) if std::ptr::eq(task.as_ptr(), Arc::as_ptr(&context)) => done.clone(),
            _ => {
                let done = (self.work)().shared();
                // The weak reference keeps the address from being another task's.
                *last = Some((Arc::downgrade(&context), done.clone()));
                done
            }
        };
        let rows = futures::stream::once(done).map_err(through).boxed();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}
