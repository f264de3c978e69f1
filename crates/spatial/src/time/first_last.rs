//! `first` and `last`: the value at the earliest and at the latest time.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::downcast_primitive;
use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, AsArray, BinaryArray, BooleanArray, Int64Array, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::aggregate::{Aggregate, Groups, passes};
use super::order::{order_type, ordinals};

pub(crate) static FIRST: Aggregate = Aggregate {
    name: "first",
    summary: "The value at the earliest time; rows where the value or the time is null do not count. Of several values at that time the smallest, so that the answer does not depend on the order of the rows",
    syntax: "first(value any, ts timestamp or number)",
    accept,
    result,
    state,
    make: |arguments| make(&arguments.result, false),
};

pub(crate) static LAST: Aggregate = Aggregate {
    name: "last",
    summary: "The value at the latest time; rows where the value or the time is null do not count. Of several values at that time the greatest, so that the answer does not depend on the order of the rows",
    syntax: "last(value any, ts timestamp or number)",
    accept,
    result,
    state,
    make: |arguments| make(&arguments.result, true),
};

fn accept(given: &[DataType]) -> Option<Vec<DataType>> {
    let [value, time] = given else { return None };
    Some(vec![value.clone(), order_type(time)?])
}

/// The value's own field: a geometry stays one.
fn result(fields: &[FieldRef]) -> Field {
    fields.first().map_or_else(|| Field::new("value", DataType::Null, true), |field| field.as_ref().clone())
}

fn state(result: &Field) -> Vec<DataType> {
    vec![result.data_type().clone(), DataType::Int64]
}

fn make(result: &Field, last: bool) -> Result<Groups> {
    macro_rules! native {
        ($kind:ty) => {
            return Ok(Box::new(Extremes {
                last,
                orders: Vec::new(),
                seen: Vec::new(),
                values: Natives::<$kind> {
                    data_type: result.data_type().clone(),
                    values: Vec::new(),
                    kind: PhantomData,
                },
            }))
        };
    }
    let data_type = result.data_type().clone();
    downcast_primitive! {
        data_type => (native),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let values = Bytes { data_type: result.data_type().clone(), values: Vec::new(), held: 0 };
            Ok(Box::new(Extremes { last, orders: Vec::new(), seen: Vec::new(), values }))
        }
        _ => {
            let values = Scalars { data_type: result.data_type().clone(), values: Vec::new() };
            Ok(Box::new(Extremes { last, orders: Vec::new(), seen: Vec::new(), values }))
        }
    }
}

/// One value for each group.
trait Store: Send + Sync + 'static {
    /// A column, looked into once a batch.
    type Column<'a>;

    fn look_into<'a>(&self, column: &'a ArrayRef) -> Result<Self::Column<'a>>;
    fn grow(&mut self, groups: usize);
    fn put(&mut self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<()>;
    /// How a row compares with what the group holds.
    fn compare(&self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<Ordering>;
    fn emit(&mut self, emit: EmitTo, nulls: NullBuffer) -> Result<ArrayRef>;
    fn size(&self) -> usize;
}

struct Natives<T: ArrowPrimitiveType> {
    data_type: DataType,
    values: Vec<T::Native>,
    kind: PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> Store for Natives<T> {
    type Column<'a> = &'a PrimitiveArray<T>;

    fn look_into<'a>(&self, column: &'a ArrayRef) -> Result<Self::Column<'a>> {
        Ok(column.as_primitive::<T>())
    }

    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, T::default_value());
    }

    fn put(&mut self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<()> {
        self.values[group] = column.value(row);
        Ok(())
    }

    fn compare(&self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<Ordering> {
        Ok(column.value(row).compare(self.values[group]))
    }

    fn emit(&mut self, emit: EmitTo, nulls: NullBuffer) -> Result<ArrayRef> {
        let values = emit.take_needed(&mut self.values);
        let array = PrimitiveArray::<T>::try_new(values.into(), Some(nulls))?;
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>()
    }
}

/// Text and binary of every layout, WKB among them.
struct Bytes {
    data_type: DataType,
    values: Vec<Vec<u8>>,
    held: usize,
}

enum BytesColumn<'a> {
    Plain(&'a BinaryArray),
    View(&'a arrow::array::BinaryViewArray),
    Owned(BinaryArray),
}

impl BytesColumn<'_> {
    fn value(&self, row: usize) -> &[u8] {
        match self {
            Self::Plain(array) => array.value(row),
            Self::View(array) => array.value(row),
            Self::Owned(array) => array.value(row),
        }
    }
}

impl Store for Bytes {
    type Column<'a> = BytesColumn<'a>;

    fn look_into<'a>(&self, column: &'a ArrayRef) -> Result<Self::Column<'a>> {
        Ok(match column.data_type() {
            DataType::Binary => BytesColumn::Plain(column.as_binary()),
            DataType::BinaryView => BytesColumn::View(column.as_binary_view()),
            _ => {
                let binary = arrow::compute::cast(column, &DataType::Binary)?;
                BytesColumn::Owned(binary.as_binary().clone())
            }
        })
    }

    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, Vec::new());
    }

    fn put(&mut self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<()> {
        let held = &mut self.values[group];
        let before = held.capacity();
        held.clear();
        held.extend_from_slice(column.value(row));
        self.held += held.capacity() - before;
        Ok(())
    }

    fn compare(&self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<Ordering> {
        Ok(column.value(row).cmp(&self.values[group]))
    }

    fn emit(&mut self, emit: EmitTo, nulls: NullBuffer) -> Result<ArrayRef> {
        let values = emit.take_needed(&mut self.values);
        self.held = self.held.saturating_sub(values.iter().map(Vec::capacity).sum());
        let rows = values.iter().enumerate().map(|(row, bytes)| nulls.is_valid(row).then_some(bytes));
        let binary: BinaryArray = rows.collect();
        Ok(arrow::compute::cast(&binary, &self.data_type)?)
    }

    fn size(&self) -> usize {
        self.held + self.values.capacity() * size_of::<Vec<u8>>()
    }
}

/// Everything else: truth values, lists, structures.
struct Scalars {
    data_type: DataType,
    values: Vec<ScalarValue>,
}

impl Store for Scalars {
    type Column<'a> = &'a ArrayRef;

    fn look_into<'a>(&self, column: &'a ArrayRef) -> Result<Self::Column<'a>> {
        Ok(column)
    }

    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, ScalarValue::Null);
    }

    fn put(&mut self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<()> {
        self.values[group] = ScalarValue::try_from_array(column, row)?;
        Ok(())
    }

    fn compare(&self, group: usize, column: &Self::Column<'_>, row: usize) -> Result<Ordering> {
        let given = ScalarValue::try_from_array(column, row)?;
        Ok(given.partial_cmp(&self.values[group]).unwrap_or(Ordering::Equal))
    }

    fn emit(&mut self, emit: EmitTo, nulls: NullBuffer) -> Result<ArrayRef> {
        let null = ScalarValue::try_from(&self.data_type)?;
        let values = emit.take_needed(&mut self.values).into_iter().enumerate();
        let values: Vec<ScalarValue> =
            values.map(|(row, value)| if nulls.is_valid(row) { value } else { null.clone() }).collect();
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.data_type));
        }
        ScalarValue::iter_to_array(values)
    }

    fn size(&self) -> usize {
        ScalarValue::size_of_vec(&self.values)
    }
}

/// For each group the best time so far and its value.
struct Extremes<S> {
    last: bool,
    orders: Vec<i64>,
    seen: Vec<bool>,
    values: S,
}

impl<S: Store> Extremes<S> {
    fn offer(
        &mut self,
        column: &ArrayRef,
        orders: &Int64Array,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.orders.resize(total, 0);
        self.seen.resize(total, false);
        self.values.grow(total);
        let plain = filter.is_none() && column.null_count() == 0 && orders.null_count() == 0;
        let view = self.values.look_into(column)?;
        for (row, &group) in groups.iter().enumerate() {
            if !plain && (column.is_null(row) || orders.is_null(row) || !passes(filter, row)) {
                continue;
            }
            let order = orders.value(row);
            let (held, better) =
                (self.orders[group], if self.last { Ordering::Greater } else { Ordering::Less });
            let wins = !self.seen[group]
                || match order.cmp(&held) {
                    Ordering::Equal => self.values.compare(group, &view, row)? == better,
                    other => other == better,
                };
            if wins {
                self.orders[group] = order;
                self.seen[group] = true;
                self.values.put(group, &view, row)?;
            }
        }
        Ok(())
    }
}

impl<S: Store> GroupsAccumulator for Extremes<S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.offer(&values[0], &ordinals(&values[1])?, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        emit.take_needed(&mut self.orders);
        let seen = emit.take_needed(&mut self.seen);
        self.values.emit(emit, NullBuffer::from(seen))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let orders = emit.take_needed(&mut self.orders);
        let nulls = NullBuffer::from(emit.take_needed(&mut self.seen));
        let values = self.values.emit(emit, nulls.clone())?;
        Ok(vec![values, Arc::new(Int64Array::try_new(orders.into(), Some(nulls))?)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.offer(&values[0], values[1].as_primitive(), groups, None, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let orders = ordinals(&values[1])?;
        let counts: NullBuffer = (0..orders.len())
            .map(|row| values[0].is_valid(row) && orders.is_valid(row) && passes(filter, row))
            .collect();
        let (_, numbers, _) = orders.into_parts();
        Ok(vec![Arc::clone(&values[0]), Arc::new(Int64Array::try_new(numbers, Some(counts))?)])
    }

    fn size(&self) -> usize {
        self.orders.capacity() * size_of::<i64>() + self.seen.capacity() + self.values.size()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::query;

    fn rows(select: &str) -> String {
        let table = "(VALUES ('a', 2, 20.5, 'x', true), ('a', 1, 10.5, 'y', false), ('a', 3, NULL, NULL, NULL), \
             ('b', 1, NULL, NULL, NULL), ('c', NULL, 1.5, 'z', true), ('d', 1, 3.5, 'p', false), ('d', 1, 2.5, 'q', true)) \
             AS t(k, ts, v, s, b)";
        query(&format!("SELECT k, {select} FROM {table} GROUP BY k ORDER BY k")).unwrap().join(" ")
    }

    #[test]
    fn the_value_at_the_ends_of_time() {
        assert_eq!(rows("first(v, ts), last(v, ts)"), "a|10.5|20.5 b|NULL|NULL c|NULL|NULL d|2.5|3.5");
        assert_eq!(rows("first(s, ts), last(s, ts)"), "a|y|x b|NULL|NULL c|NULL|NULL d|p|q");
        assert_eq!(rows("first(b, ts), last(b, ts)"), "a|false|true b|NULL|NULL c|NULL|NULL d|false|true");
        assert_eq!(rows("last(v, ts) FILTER (WHERE v < 15)"), "a|10.5 b|NULL c|NULL d|3.5");
        assert_eq!(
            rows("st_astext(last(st_point(v, 1), ts))"),
            "a|POINT(20.5 1) b|NULL c|NULL d|POINT(3.5 1)"
        );
        assert_eq!(rows("last(v, to_timestamp(ts))"), "a|20.5 b|NULL c|NULL d|3.5");
    }

    #[test]
    fn without_groups_without_rows_and_in_windows() {
        let table = "(VALUES (1, 5), (2, 6), (3, 4)) AS t(ts, v)";
        assert_eq!(query(&format!("SELECT first(v, ts), last(v, ts) FROM {table}")).unwrap(), ["5|4"]);
        assert_eq!(query(&format!("SELECT last(v, ts) FROM {table} WHERE ts > 9")).unwrap(), ["NULL"]);
        assert_eq!(
            query(&format!(
                "SELECT last(v, -ts) OVER (ORDER BY ts), last(v, ts) OVER (ORDER BY ts) FROM {table}"
            ))
            .unwrap(),
            ["5|5", "5|6", "5|4"]
        );
        assert_eq!(query("SELECT last(NULL, NULL)").unwrap(), ["NULL"]);
    }

    #[test]
    fn what_has_no_order_is_refused() {
        let error = query("SELECT last(1, 'x')").unwrap_err();
        assert!(error.contains("last does not take (Int64, Utf8)"), "{error}");
        let error = query("SELECT last(DISTINCT v, v) FROM (VALUES (1)) AS t(v)").unwrap_err();
        assert!(error.contains("DISTINCT"), "{error}");
    }
}
