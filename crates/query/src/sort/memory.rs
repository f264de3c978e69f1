//! How much memory batches hold together: a buffer that several share counts once.

use std::collections::HashSet;

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::buffer::NullBuffer;

/// The buffers met so far, by their addresses. They must be held as long as this, or an address may come again.
#[derive(Debug, Default)]
pub(super) struct Buffers(HashSet<usize>);

impl Buffers {
    /// The bytes that a batch adds to those before it.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> usize {
        batch.columns().iter().map(|column| self.of(&column.to_data())).sum()
    }

    fn of(&mut self, data: &ArrayData) -> usize {
        let own = data.buffers().iter().chain(data.nulls().map(NullBuffer::buffer));
        let mut bytes = 0;
        for buffer in own {
            // The allocation that a slice is part of.
            if self.0.insert(buffer.data_ptr().as_ptr() as usize) {
                bytes += buffer.capacity();
            }
        }
        bytes + data.child_data().iter().map(|child| self.of(child)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    #[test]
    fn slices_of_one_buffer_count_once() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let mut buffers = Buffers::default();
        let whole = buffers.add(&batch.slice(0, 10));
        assert!(whole >= 8_000);
        assert_eq!(buffers.add(&batch.slice(500, 10)), 0);
    }
}
