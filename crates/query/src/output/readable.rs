//! Columns as people read them: geometry as WKT, time stamps as RFC 3339, bytes as hexadecimal digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use twinlake_contracts::{Result, is_geometry};

/// The schema of [`readable`] batches.
pub fn readable_schema(schema: &SchemaRef) -> SchemaRef {
    retype(schema, readable_type)
}

/// The batch with geometry as WKT and bare time stamps as UTC. Damaged geometry says so in its place.
pub fn readable(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = readable_schema(&batch.schema());
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, column)| readable_column(field, column)).collect::<Result<_>>()?;
    rebuild(schema, columns, batch.num_rows())
}

/// The schema of [`flat`] batches.
pub(super) fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    retype(&readable_schema(schema), |field| match field.data_type() {
        nested if nested.is_nested() => DataType::Utf8,
        other => other.clone(),
    })
}

/// Readable, and lists, structs and maps as their text, since CSV has no such thing.
pub(super) fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let batch = readable(batch)?;
    let schema = flat_schema(&batch.schema());
    let columns = batch
        .columns()
        .iter()
        .map(|column| if column.data_type().is_nested() { as_text(column) } else { Ok(Arc::clone(column)) })
        .collect::<Result<_>>()?;
    rebuild(schema, columns, batch.num_rows())
}

fn rebuild(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

fn retype(schema: &SchemaRef, data_type: fn(&Field) -> DataType) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| Field::new(field.name(), data_type(field), true)).collect();
    Arc::new(Schema::new(fields))
}

fn readable_type(field: &Field) -> DataType {
    match field.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView if is_geometry(field) => {
            DataType::Utf8
        }
        DataType::Timestamp(unit, None) => DataType::Timestamp(*unit, Some("UTC".into())),
        other => other.clone(),
    }
}

fn readable_column(field: &Field, column: &ArrayRef) -> Result<ArrayRef> {
    match readable_type(field) {
        DataType::Utf8 if is_geometry(field) => {
            let bytes = arrow::compute::cast(column, &DataType::Binary)?;
            let wkt = bytes.as_binary::<i32>().iter().map(|bytes| {
                bytes
                    .map(|bytes| twinlake_spatial::to_wkt(bytes).unwrap_or_else(|error| format!("<{error}>")))
            });
            Ok(Arc::new(wkt.collect::<StringArray>()))
        }
        wanted if wanted != *column.data_type() => Ok(arrow::compute::cast(column, &wanted)?),
        _ => Ok(Arc::clone(column)),
    }
}

/// Each value's text; null stays null.
fn as_text(column: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let texts: StringArray =
        (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string())).collect();
    Ok(Arc::new(texts))
}
