//! Both sides on disk, cut by space, for a build side that does not fit into memory.
//!
//! Each row is written to the file of every cell that its box meets; cell by cell the two files are joined in memory
//! (partition-based spatial merge, Patel & DeWitt 1996). A pair that meets in several cells belongs to the first of
//! them, so nothing comes out twice (after the reference point of Dittrich & Seeger 2000, for boxes of any reach). A
//! cell whose build side still does not fit is joined in several passes over its other file.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{JoinSide, Result};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, SpillFile};
use datafusion::physical_plan::SpillManager;

use super::build::{indexed_bounds, query};
use super::condition::Condition;
use super::grid::Grid;
use super::keys::{Key, Keys};
use crate::prepared::bounds::Bounds;

/// What is gathered for one cell before it is written.
const MOST_BYTES_GATHERED: usize = 1 << 20;

/// The boxes that stand for a row in the index or ask for it, on the sphere a turn away too.
pub(super) fn boxes(condition: &Condition, side: JoinSide, key: &Key) -> Vec<Bounds<2>> {
    let Some(bounds) = key.extent.bounds() else { return Vec::new() };
    if side == JoinSide::Left {
        return indexed_bounds(condition, key, &bounds).into_iter().collect();
    }
    let asked = query(condition, key, &bounds);
    if !condition.predicate.test.on_sphere() {
        return vec![asked];
    }
    [-360.0, 0.0, 360.0]
        .into_iter()
        .map(|turn| Bounds {
            min: [asked.min[0] + turn, asked.min[1]],
            max: [asked.max[0] + turn, asked.max[1]],
        })
        .collect()
}

/// The cells of a row in ascending order; none when it can meet nothing.
pub(super) fn cells(grid: &Grid, condition: &Condition, side: JoinSide, key: &Key) -> Vec<u32> {
    let mut cells = Vec::new();
    for bounds in boxes(condition, side, key) {
        grid.add_cells(&bounds, &mut cells);
    }
    cells.sort_unstable();
    cells.dedup();
    cells
}

/// One side, cut by cell. Two columns follow those of the side: the row's number, and whether the cell is the row's
/// first, so that each row can be told once.
pub(super) struct Side {
    pub manager: SpillManager,
    pub files: Vec<Vec<Arc<dyn SpillFile>>>,
    pub rows: u64,
}

/// The fields of a side and the two that follow.
pub(super) fn numbered(schema: &Schema) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new("__row", DataType::UInt64, false)));
    fields.push(Arc::new(Field::new("__first", DataType::Boolean, false)));
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Cuts a side as it comes.
pub(super) struct Cutter {
    condition: Arc<Condition>,
    grid: Arc<Grid>,
    side: JoinSide,
    /// Whether rows that can meet nothing are kept too, in the first cell.
    keep_all: bool,
    schema: SchemaRef,
    into: Side,
    gathered: Vec<(Vec<RecordBatch>, usize)>,
    reservation: MemoryReservation,
}

impl Cutter {
    pub(super) fn new(
        condition: Arc<Condition>,
        grid: Arc<Grid>,
        side: JoinSide,
        keep_all: bool,
        manager: SpillManager,
        reservation: MemoryReservation,
    ) -> Self {
        let count = grid.cells();
        Self {
            condition,
            grid,
            side,
            keep_all,
            schema: Arc::clone(manager.schema()),
            into: Side { manager, files: vec![Vec::new(); count], rows: 0 },
            gathered: (0..count).map(|_| (Vec::new(), 0)).collect(),
            reservation,
        }
    }

    /// Cuts a batch.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let keys = Keys::evaluate(&self.condition, self.side, batch)?;
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.gathered.len()];
        let mut first: Vec<Vec<bool>> = vec![Vec::new(); self.gathered.len()];
        for row in 0..batch.num_rows() {
            let mut own = match keys.get(row)? {
                Some(key) => cells(&self.grid, &self.condition, self.side, &key),
                None => Vec::new(),
            };
            if own.is_empty() && self.keep_all {
                own.push(0);
            }
            for (place, cell) in own.iter().enumerate() {
                members[*cell as usize].push(row as u32);
                first[*cell as usize].push(place == 0);
            }
        }
        for (cell, (rows, first)) in members.into_iter().zip(first).enumerate() {
            if rows.is_empty() {
                continue;
            }
            let numbers: UInt64Array = rows.iter().map(|row| self.into.rows + u64::from(*row)).collect();
            let part = take_record_batch(batch, &UInt32Array::from(rows))?;
            let mut columns = part.columns().to_vec();
            columns.push(Arc::new(numbers) as ArrayRef);
            columns.push(Arc::new(BooleanArray::from(first)));
            let part = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            let bytes = part.get_array_memory_size();
            if self.reservation.try_grow(bytes).is_err() {
                for cell in 0..self.gathered.len() {
                    self.write(cell)?;
                }
                // What does not fit even then is written at once.
                self.gathered[cell] = (vec![part], 0);
                self.write(cell)?;
                continue;
            }
            let gathered = &mut self.gathered[cell];
            gathered.0.push(part);
            gathered.1 += bytes;
            if gathered.1 >= MOST_BYTES_GATHERED {
                self.write(cell)?;
            }
        }
        self.into.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn write(&mut self, cell: usize) -> Result<()> {
        let (batches, bytes) = std::mem::take(&mut self.gathered[cell]);
        if batches.is_empty() {
            return Ok(());
        }
        let whole = arrow::compute::concat_batches(&self.schema, &batches)?;
        let file = self.into.manager.spill_record_batch_and_finish(&[whole], "a cell of a spatial join")?;
        self.into.files[cell].extend(file);
        self.reservation.shrink(bytes);
        Ok(())
    }

    /// Writes what is still gathered.
    pub(super) fn finish(mut self) -> Result<Side> {
        for cell in 0..self.gathered.len() {
            self.write(cell)?;
        }
        Ok(self.into)
    }
}

impl Side {
    /// The rows of a cell, file after file.
    pub(super) fn read(&self, cell: usize, file: usize) -> Result<Option<SendableRecordBatchStream>> {
        let Some(file) = self.files[cell].get(file) else { return Ok(None) };
        self.manager.read_spill_as_stream(Arc::clone(file), None).map(Some)
    }
}

/// The numbers of the rows of a batch, and whether each is here for the first time.
pub(super) fn numbers(batch: &RecordBatch) -> Option<(&UInt64Array, &BooleanArray)> {
    let columns = batch.num_columns();
    let numbers = batch.column(columns.checked_sub(2)?).as_any().downcast_ref()?;
    Some((numbers, batch.column(columns - 1).as_any().downcast_ref()?))
}
