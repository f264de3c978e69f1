//! Columns of keys as dense numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Numbers different keys 0, 1, 2 … in the order in which they are met; null is a key like any other.
pub(crate) struct Keys {
    /// `None` when there is no column: all rows are of the key 0.
    values: Option<Box<dyn GroupValues>>,
}

impl Keys {
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        if types.is_empty() {
            return Ok(Self { values: None });
        }
        let field = |(at, kind): (usize, &DataType)| Field::new(at.to_string(), kind.clone(), true);
        let schema = Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>());
        Ok(Self { values: Some(new_group_values(Arc::new(schema), &GroupOrdering::None)?) })
    }

    /// Puts the number of each row's key into `numbers`.
    pub(crate) fn number(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        numbers: &mut Vec<usize>,
    ) -> Result<()> {
        numbers.clear();
        if let Some(values) = &mut self.values {
            return values.intern(columns, numbers);
        }
        numbers.resize(rows, 0);
        Ok(())
    }

    /// How many different keys were met.
    pub(crate) fn len(&self) -> usize {
        self.values.as_ref().map_or(1, |values| values.len())
    }

    pub(crate) fn size(&self) -> usize {
        self.values.as_ref().map_or(0, |values| values.size())
    }

    /// The columns of all keys, in the order of their numbers.
    pub(crate) fn columns(self) -> Result<Vec<ArrayRef>> {
        self.values.map_or_else(|| Ok(Vec::new()), |mut values| values.emit(EmitTo::All))
    }
}

/// Rows where no column is null.
pub(crate) fn all_valid(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns
        .iter()
        .fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref()))
}

/// Row numbers sorted by key, and where each key's begin. Keeps the order of rows within a key; rows of a number that
/// is not below `keys` are left out.
pub(crate) fn by_key(numbers: &[u32], keys: usize) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0_usize; keys + 1];
    for &number in numbers.iter().filter(|number| (**number as usize) < keys) {
        starts[number as usize + 1] += 1;
    }
    for key in 0..keys {
        starts[key + 1] += starts[key];
    }
    let mut next = starts.clone();
    let mut rows = vec![0_u32; starts[keys]];
    for (row, &number) in numbers.iter().enumerate() {
        if let Some(next) = next.get_mut(number as usize).filter(|_| (number as usize) < keys) {
            rows[*next] = row as u32;
            *next += 1;
        }
    }
    (starts, rows)
}
