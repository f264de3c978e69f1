//! What does not fit into memory, in order: a stream sorted with the help of files.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, partition};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, exec_datafusion_err, internal_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;

/// Rows of whole keys are handed on together from this many on.
const CHUNK_ROWS: usize = 1 << 16;

/// The rows of some batches and of a stream, ascending by some of their columns, nulls first. DataFusion's sort does the
/// work: within the memory pool, and with files when that is not enough.
pub(crate) fn sorted(
    schema: &SchemaRef,
    held: Vec<RecordBatch>,
    rest: SendableRecordBatchStream,
    columns: &[usize],
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let all = futures::stream::iter(held.into_iter().map(Ok)).chain(rest);
    let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), all));
    let once = Once { schema: Arc::clone(schema), stream: Mutex::new(Some(all)) };
    let input =
        StreamingTableExec::try_new(Arc::clone(schema), vec![Arc::new(once)], None, Vec::new(), false, None)?;
    let column = |place: &usize| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(*place).name(), *place));
        PhysicalSortExpr::new_default(column).asc().nulls_first()
    };
    let Some(order) = LexOrdering::new(columns.iter().map(column)) else {
        return input.execute(0, Arc::clone(context));
    };
    SortExec::new(order, Arc::new(input)).execute(0, Arc::clone(context))
}

/// A stream as a table that is read once.
struct Once {
    schema: SchemaRef,
    stream: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let taken = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| {
            let none = async { Err(internal_datafusion_err!("a stream is read twice")) };
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::once(none)))
        })
    }
}

/// Sorted rows in pieces that hold all rows of their keys.
pub(crate) struct Pieces {
    rows: SendableRecordBatchStream,
    keys: Vec<usize>,
    held: Vec<RecordBatch>,
    /// How many rows to gather before looking for whole keys.
    wanted: usize,
    reservation: MemoryReservation,
    ended: bool,
}

/// Rows of whole keys, and where each key's begin.
pub(crate) type Piece = (RecordBatch, Vec<usize>);

impl Pieces {
    /// `rows` are sorted by `keys` before all else.
    pub(crate) fn new(rows: SendableRecordBatchStream, keys: Vec<usize>, context: &Arc<TaskContext>) -> Self {
        let reservation = MemoryConsumer::new("rows of one key").register(context.memory_pool());
        Self { rows, keys, held: Vec::new(), wanted: CHUNK_ROWS, reservation, ended: false }
    }

    /// The next one; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>> {
        while !self.ended {
            let Some(batch) = self.rows.next().await.transpose()? else {
                self.ended = true;
                break;
            };
            if batch.num_rows() == 0 {
                continue;
            }
            // The rows, and once more as one batch.
            let grown = self.reservation.try_grow(2 * batch.get_array_memory_size());
            self.held.push(batch);
            let enough = self.held.iter().map(RecordBatch::num_rows).sum::<usize>() >= self.wanted;
            if (enough || grown.is_err())
                && let Some(piece) = self.cut()?
            {
                return Ok(Some(piece));
            }
            grown.map_err(|error| {
                error.context(
                    "the rows of one key do not fit into the memory of queries; give them more of it",
                )
            })?;
        }
        if self.held.is_empty() {
            return Ok(None);
        }
        let rows = concat_batches(&self.rows.schema(), &std::mem::take(&mut self.held))?;
        let starts = self.starts(&rows)?;
        Ok(Some((rows, starts)))
    }

    /// All keys but the last, which may go on.
    fn cut(&mut self) -> Result<Option<Piece>> {
        let rows = concat_batches(&self.rows.schema(), &self.held)?;
        let mut starts = self.starts(&rows)?;
        starts.pop();
        let last = *starts.last().ok_or_else(|| exec_datafusion_err!("a piece without rows"))?;
        let tail = rows.slice(last, rows.num_rows() - last);
        // A key that is longer than that is not put together again with each batch.
        self.wanted = CHUNK_ROWS.max(2 * tail.num_rows());
        self.reservation.resize(rows.get_array_memory_size());
        self.held = vec![tail];
        Ok((last > 0).then(|| (rows.slice(0, last), starts)))
    }

    fn starts(&self, rows: &RecordBatch) -> Result<Vec<usize>> {
        if self.keys.is_empty() {
            return Ok(vec![0, rows.num_rows()]);
        }
        let keys: Vec<_> = self.keys.iter().map(|key| Arc::clone(rows.column(*key))).collect();
        let ranges = partition(&keys)?.ranges();
        Ok(std::iter::once(0).chain(ranges.into_iter().map(|range| range.end)).collect())
    }
}
