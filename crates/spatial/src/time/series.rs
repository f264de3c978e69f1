//! Aggregates over the readings of a group in the order of their times.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use twinlake_contracts::timestamp_type;

use super::aggregate::passes;

/// Computes the result of a group from its readings: times in microseconds, ascending, and a value for each. There is
/// at least one reading; those of one time are in ascending order of their values.
pub(crate) type Fold = fn(&[(i64, f64)]) -> Option<f64>;

/// The types of `value` and `ts`.
pub(crate) fn accept(given: &[DataType]) -> Option<Vec<DataType>> {
    let [value, time] = given else { return None };
    let number = value.is_numeric() || value.is_null();
    let is_time =
        matches!(time, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null);
    (number && is_time).then(|| vec![DataType::Float64, timestamp_type()])
}

pub(crate) fn number(_fields: &[FieldRef]) -> Field {
    Field::new("value", DataType::Float64, true)
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

/// The columns of the state: times and values of all readings of a group.
pub(crate) fn state(_result: &Field) -> Vec<DataType> {
    vec![DataType::List(item(DataType::Int64)), DataType::List(item(DataType::Float64))]
}

/// Collects every reading (24 bytes each) and folds a group's when it is complete: readings may come in any order.
pub(crate) struct Series {
    groups: Vec<u32>,
    readings: Vec<(i64, f64)>,
    total: usize,
    fold: Fold,
}

impl Series {
    pub(crate) fn new(fold: Fold) -> Self {
        Self { groups: Vec::new(), readings: Vec::new(), total: 0, fold }
    }

    /// The readings of the groups that go, sorted by group, and where each group's begin.
    fn take(&mut self, emit: EmitTo) -> (Vec<usize>, Vec<(i64, f64)>) {
        let going = match emit {
            EmitTo::All => self.total,
            EmitTo::First(count) => count,
        };
        let mut starts = vec![0_usize; going + 1];
        for &group in self.groups.iter().filter(|group| (**group as usize) < going) {
            starts[group as usize + 1] += 1;
        }
        for group in 0..going {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut sorted = vec![(0, 0.0); starts[going]];
        let mut kept = 0;
        for row in 0..self.groups.len() {
            let group = self.groups[row] as usize;
            if group < going {
                sorted[next[group]] = self.readings[row];
                next[group] += 1;
            } else {
                self.groups[kept] = (group - going) as u32;
                self.readings[kept] = self.readings[row];
                kept += 1;
            }
        }
        self.groups.truncate(kept);
        self.readings.truncate(kept);
        self.total -= going;
        if kept == 0 {
            self.groups = Vec::new();
            self.readings = Vec::new();
        }
        (starts, sorted)
    }
}

impl GroupsAccumulator for Series {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.total = total;
        let times = datafusion::common::cast::as_timestamp_microsecond_array(&values[1])?;
        let values = values[0].as_primitive::<Float64Type>();
        for (row, &group) in groups.iter().enumerate() {
            if values.is_valid(row) && times.is_valid(row) && passes(filter, row) {
                self.groups.push(group as u32);
                self.readings.push((times.value(row), values.value(row)));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (starts, mut readings) = self.take(emit);
        let results: Float64Array = starts
            .windows(2)
            .map(|ends| {
                let own = &mut readings[ends[0]..ends[1]];
                let later = |a: &(i64, f64), b: &(i64, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
                if !own.is_sorted_by(|a, b| later(a, b).is_le()) {
                    own.sort_unstable_by(later);
                }
                if own.is_empty() { None } else { (self.fold)(own) }
            })
            .collect();
        Ok(Arc::new(results))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (starts, readings) = self.take(emit);
        let lengths = starts.windows(2).map(|ends| ends[1] - ends[0]);
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
        let times = Int64Array::from_iter_values(readings.iter().map(|(time, _)| *time));
        let values = Float64Array::from_iter_values(readings.iter().map(|(_, value)| *value));
        Ok(vec![
            Arc::new(ListArray::try_new(item(DataType::Int64), offsets.clone(), Arc::new(times), None)?),
            Arc::new(ListArray::try_new(item(DataType::Float64), offsets, Arc::new(values), None)?),
        ])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.total = total;
        let (times, values) = (values[0].as_list::<i32>(), values[1].as_list::<i32>());
        for (row, &group) in groups.iter().enumerate() {
            if times.is_null(row) || values.is_null(row) {
                continue;
            }
            let (times, values) = (times.value(row), values.value(row));
            let (times, values) = (times.as_primitive::<Int64Type>(), values.as_primitive::<Float64Type>());
            self.groups.extend(std::iter::repeat_n(group as u32, times.len()));
            self.readings.extend(times.values().iter().copied().zip(values.values().iter().copied()));
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Self::new(self.fold);
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<u32>() + self.readings.capacity() * size_of::<(i64, f64)>()
    }
}
