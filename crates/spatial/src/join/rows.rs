//! The rows of the build side, and columns gathered from both sides by row number.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, interleave, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::{JoinSide, Result};
use datafusion::physical_plan::joins::utils::ColumnIndex;

/// Batches of together less than this become one, from which gathering is quicker; 32-bit offsets end at 2 GiB.
const MOST_BYTES_IN_ONE: usize = 1 << 30;

/// Rows numbered from 0 over some batches.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// The number of the first row of each batch.
    starts: Vec<usize>,
    count: usize,
}

impl Rows {
    /// Numbers the rows. One batch is made of them when they are few and `may_copy`.
    pub(super) fn new(schema: SchemaRef, mut batches: Vec<RecordBatch>, may_copy: bool) -> Result<Self> {
        batches.retain(|batch| batch.num_rows() > 0);
        let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        if batches.len() > 1 && may_copy && bytes < MOST_BYTES_IN_ONE {
            batches = vec![concat_batches(&schema, &batches)?];
        }
        let mut count = 0;
        let mut starts = Vec::with_capacity(batches.len());
        for batch in &batches {
            starts.push(count);
            count += batch.num_rows();
        }
        Ok(Self { schema, batches, starts, count })
    }

    /// Rows of one batch.
    pub(super) fn of(batch: RecordBatch) -> Self {
        Self { schema: batch.schema(), count: batch.num_rows(), batches: vec![batch], starts: vec![0] }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The batch of a row and its place there.
    pub(super) fn place(&self, row: usize) -> (usize, usize) {
        if self.batches.len() == 1 {
            return (0, row);
        }
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        (batch, row - self.starts[batch])
    }

    /// Rows by number, as one batch.
    pub(super) fn chosen(&self, rows: &UInt32Array) -> Result<RecordBatch> {
        let columns = (0..self.schema.fields().len()).map(|column| self.gather(column, rows));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns.collect::<Result<_>>()?,
            &options,
        )?)
    }

    /// Values of a column by row; null for a row that is null.
    fn gather(&self, column: usize, rows: &UInt32Array) -> Result<ArrayRef> {
        let data_type = self.schema.field(column).data_type();
        match self.batches.as_slice() {
            [] => Ok(new_null_array(data_type, rows.len())),
            [one] => Ok(take(one.column(column), rows, None)?),
            many => {
                let null = new_null_array(data_type, 1);
                let mut arrays: Vec<&dyn Array> =
                    many.iter().map(|batch| batch.column(column).as_ref()).collect();
                arrays.push(&null);
                let places: Vec<(usize, usize)> = rows
                    .iter()
                    .map(|row| row.map_or((many.len(), 0), |row| self.place(row as usize)))
                    .collect();
                Ok(interleave(&arrays, &places)?)
            }
        }
    }
}

/// Rows of one side for an output batch.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub rows: &'a Rows,
    /// `None`: none of this side, all columns null.
    pub numbers: Option<&'a UInt32Array>,
}

/// A batch of `count` rows with columns from both sides, and one of the join's own: the mark of a mark join, or the
/// distance to the nearest.
pub(super) fn assemble(
    schema: &SchemaRef,
    columns: &[ColumnIndex],
    left: Chosen<'_>,
    right: Chosen<'_>,
    own: Option<&ArrayRef>,
    count: usize,
) -> Result<RecordBatch> {
    let arrays = columns
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            let side = match column.side {
                JoinSide::Left => left,
                JoinSide::Right => right,
                JoinSide::None => {
                    return Ok(
                        own.map_or_else(|| new_null_array(field.data_type(), count), |own| Arc::clone(own))
                    );
                }
            };
            match side.numbers {
                Some(numbers) => side.rows.gather(column.index, numbers),
                None => Ok(new_null_array(field.data_type(), count)),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn gathers_alike_from_one_batch_and_from_many() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let batch = |numbers: &[i64]| {
            RecordBatch::try_new(
                Arc::clone(&schema),
                vec![Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef],
            )
            .unwrap()
        };
        let batches = vec![batch(&[1, 2]), batch(&[]), batch(&[3]), batch(&[4, 5, 6])];
        let numbers = UInt32Array::from(vec![Some(5), None, Some(0), Some(2), Some(3)]);
        let expected = Int64Array::from(vec![Some(6), None, Some(1), Some(3), Some(4)]);
        for may_copy in [true, false] {
            let rows = Rows::new(Arc::clone(&schema), batches.clone(), may_copy).unwrap();
            assert_eq!(rows.len(), 6);
            assert_eq!(rows.gather(0, &numbers).unwrap().as_ref(), &expected as &dyn Array);
        }
    }
}
