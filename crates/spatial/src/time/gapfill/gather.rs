//! The input of filling gaps, by key and time: in memory, or with files when it does not fit.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::{Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::BaselineMetrics;
use futures::StreamExt;
use twinlake_contracts::timestamp_type;

use super::exec::Shape;
use crate::time::buckets::table::{Spec, Table};
use crate::time::keys::{Keys, by_key};
use crate::time::sorted::{Piece, Pieces, sorted};

/// Whole series, some after the other.
pub(super) enum Gathered {
    /// All of them.
    Memory(Option<Piece>),
    /// From a sort.
    Sorted { pieces: Box<Pieces>, states: Option<Arc<Spec>> },
}

impl Gathered {
    pub(super) async fn next(&mut self) -> Result<Option<Piece>> {
        match self {
            Self::Memory(piece) => Ok(piece.take()),
            Self::Sorted { pieces, states } => {
                let Some((rows, starts)) = pieces.next().await? else { return Ok(None) };
                let Some(spec) = states else { return Ok(Some((rows, starts))) };
                let mut table = Table::new(spec)?;
                table.add(&rows)?;
                table.finish().map(Some)
            }
        }
    }
}

/// What reads an input.
pub(super) struct Gathering<'a> {
    pub(super) shape: &'a Shape,
    pub(super) context: &'a Arc<TaskContext>,
    pub(super) reservation: &'a MemoryReservation,
    pub(super) metrics: &'a BaselineMetrics,
}

impl Gathering<'_> {
    /// Rows that are aggregated already.
    pub(super) async fn rows(self, mut input: SendableRecordBatchStream) -> Result<Gathered> {
        let (shape, schema) = (self.shape, input.schema());
        let types: Vec<_> = shape.keys.iter().map(|key| schema.field(*key).data_type().clone()).collect();
        let mut keys = Keys::new(&types)?;
        let (mut owners, mut numbers, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(batch) = input.next().await.transpose()? {
            let compute = self.metrics.elapsed_compute().clone();
            let _time = compute.timer();
            let columns: Vec<_> = shape.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
            keys.number(&columns, batch.num_rows(), &mut numbers)?;
            owners.extend(numbers.iter().map(|number| *number as u32));
            // The rows, twice more as one batch, and what sorts them.
            let wanted = 3 * batch.get_array_memory_size() + batch.num_rows() * 24;
            batches.push(batch);
            if self.reservation.try_grow(wanted).is_err() {
                drop((keys, owners, numbers));
                return self.sorted(batches, input, None);
            }
        }
        let compute = self.metrics.elapsed_compute().clone();
        let _time = compute.timer();
        if owners.len() >= u32::MAX as usize {
            return exec_err!("time_bucket_gapfill: more than {} rows in one partition", u32::MAX);
        }
        let rows = concat_batches(&schema, &batches)?;
        drop(batches);
        let (starts, mut order) = by_key(&owners, keys.len());
        let times = cast(rows.column(shape.time), &timestamp_type())?;
        let times: Vec<Option<i64>> = times.as_primitive::<TimestampMicrosecondType>().iter().collect();
        for ends in starts.windows(2) {
            let own = &mut order[ends[0]..ends[1]];
            if !own.is_sorted_by_key(|row| times[*row as usize]) {
                own.sort_by_key(|row| times[*row as usize]);
            }
        }
        Ok(Gathered::Memory(Some((take_record_batch(&rows, &UInt32Array::from(order))?, starts))))
    }

    /// States of aggregates that are still to be merged.
    pub(super) async fn states(
        self,
        mut input: SendableRecordBatchStream,
        spec: &Arc<Spec>,
    ) -> Result<Gathered> {
        let mut table = Table::new(spec)?;
        while let Some(batch) = input.next().await.transpose()? {
            let compute = self.metrics.elapsed_compute().clone();
            let _time = compute.timer();
            table.add(&batch)?;
            // The states, and the results twice: as they are and in order.
            if self.reservation.try_resize(2 * table.size()).is_err() {
                let held = table.take_states(&input.schema())?;
                drop(table);
                return self.sorted(vec![held], input, Some(Arc::clone(spec)));
            }
        }
        let compute = self.metrics.elapsed_compute().clone();
        let _time = compute.timer();
        Ok(Gathered::Memory(Some(table.finish()?)))
    }

    fn sorted(
        self,
        held: Vec<RecordBatch>,
        rest: SendableRecordBatchStream,
        states: Option<Arc<Spec>>,
    ) -> Result<Gathered> {
        self.reservation.free();
        let keys = self.shape.keys.clone();
        let by: Vec<usize> = keys.iter().copied().chain([self.shape.time]).collect();
        let rows = sorted(&rest.schema(), held, rest, &by, self.context)?;
        Ok(Gathered::Sorted { pieces: Box::new(Pieces::new(rows, keys, self.context)), states })
    }
}
