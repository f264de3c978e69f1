//! Columns of keys as dense numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Numbers different keys 0, 1, 2 … in the order in which they are met; null is a key like any other.
pub(crate) enum Keys {
    /// Without a column all rows are of the key 0.
    One,
    /// One column of small whole numbers, as identifiers often are.
    Small(SmallKeys),
    Any(Box<dyn GroupValues>),
}

impl Keys {
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        match types {
            [] => Ok(Self::One),
            // A cast to Int64 keeps the others.
            [kind] if kind.is_integer() && *kind != DataType::UInt64 => Ok(Self::Small(SmallKeys::new(kind))),
            _ => Self::any(types),
        }
    }

    fn any(types: &[DataType]) -> Result<Self> {
        let field = |(at, kind): (usize, &DataType)| Field::new(at.to_string(), kind.clone(), true);
        let schema = Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>());
        Ok(Self::Any(new_group_values(Arc::new(schema), &GroupOrdering::None)?))
    }

    /// Puts the number of each row's key into `numbers`.
    pub(crate) fn number(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        numbers: &mut Vec<usize>,
    ) -> Result<()> {
        numbers.clear();
        match self {
            Self::One => numbers.resize(rows, 0),
            Self::Any(values) => values.intern(columns, numbers)?,
            Self::Small(keys) => {
                if !keys.number(&columns[0], numbers)? {
                    // The keys that there are, in their order, have the same numbers there.
                    let (kind, known) = (keys.kind.clone(), keys.column()?);
                    *self = Self::any(&[kind])?;
                    self.number(&[known], 0, numbers)?;
                    return self.number(columns, rows, numbers);
                }
            }
        }
        Ok(())
    }

    /// How many different keys were met.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Small(keys) => keys.keys.len(),
            Self::Any(values) => values.len(),
        }
    }

    /// Bytes held, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::One => 0,
            Self::Small(keys) => 4 * keys.table.capacity() + 16 * keys.keys.capacity(),
            Self::Any(values) => values.size(),
        }
    }

    /// The columns of all keys, in the order of their numbers.
    pub(crate) fn columns(self) -> Result<Vec<ArrayRef>> {
        match self {
            Self::One => Ok(Vec::new()),
            Self::Small(keys) => Ok(vec![keys.column()?]),
            Self::Any(mut values) => values.emit(EmitTo::All),
        }
    }
}

/// A table may always have this many places, however few keys there are, and some for each key.
const FREE_PLACES: usize = 1 << 16;
const PLACES_A_KEY: usize = 16;
/// Marks a number that is not a key.
const NO_KEY: u32 = u32::MAX;

/// Whole numbers from zero on, not much larger than there are of them: a table instead of a hash.
pub(crate) struct SmallKeys {
    kind: DataType,
    table: Vec<u32>,
    null: u32,
    keys: Vec<Option<i64>>,
}

impl SmallKeys {
    fn new(kind: &DataType) -> Self {
        Self { kind: kind.clone(), table: Vec::new(), null: NO_KEY, keys: Vec::new() }
    }

    /// Whether all could be numbered.
    fn number(&mut self, column: &ArrayRef, numbers: &mut Vec<usize>) -> Result<bool> {
        let column = arrow::compute::cast(column, &DataType::Int64)?;
        let column = column.as_primitive::<Int64Type>();
        let (Some(least), Some(most)) = (min(column), max(column)) else {
            numbers.extend((0..column.len()).map(|_| self.number_null()));
            return Ok(true);
        };
        let places = (most as usize).saturating_add(1);
        if least < 0 || places > FREE_PLACES + PLACES_A_KEY * (self.keys.len() + column.len()) {
            return Ok(false);
        }
        if self.table.len() < places {
            self.table.resize(places, NO_KEY);
        }
        if column.null_count() == 0 {
            numbers.extend(
                column.values().iter().map(|value| number_in(&mut self.table, &mut self.keys, *value)),
            );
        } else {
            numbers.extend(column.iter().map(|value| match value {
                Some(value) => number_in(&mut self.table, &mut self.keys, value),
                None => self.number_null(),
            }));
        }
        Ok(true)
    }

    fn number_null(&mut self) -> usize {
        if self.null == NO_KEY {
            self.null = self.keys.len() as u32;
            self.keys.push(None);
        }
        self.null as usize
    }

    fn column(&self) -> Result<ArrayRef> {
        let keys: Int64Array = self.keys.iter().copied().collect();
        Ok(arrow::compute::cast(&keys, &self.kind)?)
    }
}

fn number_in(table: &mut [u32], keys: &mut Vec<Option<i64>>, value: i64) -> usize {
    let number = &mut table[value as usize];
    if *number == NO_KEY {
        *number = keys.len() as u32;
        keys.push(Some(value));
    }
    *number as usize
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

#[cfg(test)]
mod tests {
    use arrow::array::{Int16Array, Int64Array as Longs};

    use super::*;

    #[test]
    fn small_numbers_keep_their_numbers_when_a_large_one_comes() {
        let mut keys = Keys::new(&[DataType::Int64]).unwrap();
        let mut numbers = Vec::new();
        let mut number = |keys: &mut Keys, values: Vec<Option<i64>>| {
            let column: ArrayRef = Arc::new(Longs::from(values));
            keys.number(&[Arc::clone(&column)], column.len(), &mut numbers).unwrap();
            numbers.clone()
        };
        assert_eq!(number(&mut keys, vec![Some(7), None, Some(0), Some(7)]), [0, 1, 2, 0]);
        assert_eq!(number(&mut keys, vec![None, None]), [1, 1]);
        assert!(matches!(keys, Keys::Small(_)));
        assert_eq!(number(&mut keys, vec![Some(0), Some(i64::MAX), None, Some(-1)]), [2, 3, 1, 4]);
        assert!(matches!(keys, Keys::Any(_)));
        assert_eq!(number(&mut keys, vec![Some(7), Some(-1)]), [0, 4]);
        let columns = keys.columns().unwrap();
        let expected = Longs::from(vec![Some(7), None, Some(0), Some(i64::MAX), Some(-1)]);
        assert_eq!(*columns[0].as_primitive::<Int64Type>(), expected);
    }

    #[test]
    fn the_keys_have_their_type() {
        let mut keys = Keys::new(&[DataType::Int16]).unwrap();
        let column: ArrayRef = Arc::new(Int16Array::from(vec![3, 1, 3]));
        keys.number(&[column], 3, &mut Vec::new()).unwrap();
        let expected: ArrayRef = Arc::new(Int16Array::from(vec![3, 1]));
        assert_eq!(keys.columns().unwrap(), [expected]);
    }
}
