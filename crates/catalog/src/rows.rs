//! Results of queries as rows whose cells are asked for by name.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use twinlake_contracts::{Error, Result};

/// The rows of a result, one after the other.
pub(crate) struct Rows {
    batch: RecordBatch,
    next: usize,
}

/// One row of a result.
pub(crate) struct Row {
    batch: RecordBatch,
    at: usize,
}

impl Rows {
    pub(crate) fn new(batches: &[RecordBatch]) -> Result<Self> {
        let batch = match batches.first() {
            Some(first) => concat_batches(&first.schema(), batches)?,
            None => RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty())),
        };
        Ok(Self { batch, next: 0 })
    }

    /// The only row of a result.
    pub(crate) fn one(batches: &[RecordBatch]) -> Result<Row> {
        Self::new(batches)?.next().ok_or_else(|| Error::internal("a query that gives one row gave none"))
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let at = self.next;
        self.next += 1;
        (at < self.batch.num_rows()).then(|| Row { batch: self.batch.clone(), at })
    }
}

impl Row {
    fn cell(&self, name: &str, kind: &DataType) -> Option<ArrayRef> {
        let column = self.batch.column_by_name(name)?;
        let value = cast(&column.slice(self.at, 1), kind).ok()?;
        (!value.is_null(0)).then_some(value)
    }

    /// A text; `None` when it is null or there is no such column.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.cell(name, &DataType::Utf8).map(|value| value.as_string::<i32>().value(0).to_owned())
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.cell(name, &DataType::Int64).map(|value| value.as_primitive::<Int64Type>().value(0))
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.cell(name, &DataType::Float64).map(|value| value.as_primitive::<Float64Type>().value(0))
    }
}
