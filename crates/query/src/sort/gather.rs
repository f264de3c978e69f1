//! Rows of many batches as one batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewBuilder, GenericByteViewArray, RecordBatch, RecordBatchOptions,
    StringViewBuilder,
};
use arrow::compute::interleave;
use arrow::datatypes::{ByteViewType, DataType, SchemaRef};
use datafusion::common::Result;

use super::keys::Item;

/// A batch of the rows that the items name. Texts and bytes that are views into shared buffers are copied, so that the
/// result holds no more than it shows.
pub(super) fn gather(schema: &SchemaRef, batches: &[RecordBatch], items: &[Item]) -> Result<RecordBatch> {
    let places: Vec<(usize, usize)> =
        items.iter().map(|item| (item.batch as usize, item.row as usize)).collect();
    let columns = (0..schema.fields().len())
        .map(|column| -> Result<ArrayRef> {
            match schema.field(column).data_type() {
                DataType::BinaryView => {
                    let views: Vec<_> =
                        batches.iter().map(|batch| batch.column(column).as_binary_view()).collect();
                    let mut builder = BinaryViewBuilder::with_capacity(items.len())
                        .with_fixed_block_size(block(&views, &places));
                    values(&views, &places).for_each(|value| builder.append_option(value));
                    Ok(Arc::new(builder.finish()))
                }
                DataType::Utf8View => {
                    let views: Vec<_> =
                        batches.iter().map(|batch| batch.column(column).as_string_view()).collect();
                    let mut builder = StringViewBuilder::with_capacity(items.len())
                        .with_fixed_block_size(block(&views, &places));
                    values(&views, &places).for_each(|value| builder.append_option(value));
                    Ok(Arc::new(builder.finish()))
                }
                _ => {
                    let arrays: Vec<&dyn Array> =
                        batches.iter().map(|batch| batch.column(column).as_ref()).collect();
                    Ok(interleave(&arrays, &places)?)
                }
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(items.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn values<'a, T: ByteViewType + ?Sized>(
    views: &'a [&'a GenericByteViewArray<T>],
    places: &'a [(usize, usize)],
) -> impl Iterator<Item = Option<&'a T::Native>> {
    places.iter().map(|(batch, row)| views[*batch].is_valid(*row).then(|| views[*batch].value(*row)))
}

/// Room for all long values at once, within the bounds of a block.
fn block<T: ByteViewType + ?Sized>(views: &[&GenericByteViewArray<T>], places: &[(usize, usize)]) -> u32 {
    // The length is in the first four bytes of a view.
    let bytes: u64 = places.iter().map(|(batch, row)| u64::from(views[*batch].views()[*row] as u32)).sum();
    u32::try_from(bytes).map_or(1 << 30, |bytes| bytes.clamp(64, 1 << 30))
}
