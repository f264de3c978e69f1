//! Columns of a record batch by name, in the type wanted.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use twinlake_contracts::{Error, Result, suggest};

/// A column by name, cast to `wanted`; an error names the table and the columns that are there.
pub(crate) fn column(batch: &RecordBatch, table: &str, name: &str, wanted: &DataType) -> Result<ArrayRef> {
    let found = batch.column_by_name(name).ok_or_else(|| {
        let schema = batch.schema();
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let failed = Error::config(format!("{table} has no column '{name}'"));
        match suggest(name, known.iter().copied()) {
            Some(near) => failed.with_help(format!("did you mean '{near}'?")),
            None => failed.with_help(format!("given: {}", known.join(", "))),
        }
    })?;
    if found.data_type() == wanted {
        return Ok(found.clone());
    }
    cast(found, wanted).map_err(|error| {
        Error::config(format!("{table}: column '{name}' is {}, not {wanted}: {error}", found.data_type()))
    })
}

pub(crate) fn integers(batch: &RecordBatch, table: &str, name: &str) -> Result<Int64Array> {
    Ok(column(batch, table, name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

pub(crate) fn numbers(batch: &RecordBatch, table: &str, name: &str) -> Result<Float64Array> {
    Ok(column(batch, table, name, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

pub(crate) fn bytes(batch: &RecordBatch, table: &str, name: &str) -> Result<BinaryArray> {
    Ok(column(batch, table, name, &DataType::Binary)?.as_binary::<i32>().clone())
}

/// The values of a column that may hold no null; an error names the first row that does.
pub(crate) fn no_null<T: Array>(array: T, table: &str, name: &str) -> Result<T> {
    match (0..array.len()).find(|row| array.is_null(*row)) {
        None => Ok(array),
        Some(row) => Err(Error::data("missing_value", format!("{table}: '{name}' is null in row {row}"))),
    }
}
