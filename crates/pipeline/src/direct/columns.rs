//! Which column of a table takes a column of a body, and values brought to the type of theirs.
//!
//! Line protocol is taken as it is, as InfluxDB does: a value of another type than its column's is refused. Columns of
//! JSON and Arrow are coerced where no value changes: whole numbers to wider or narrower ones that hold them, whole
//! numbers and fractions that stand for the same number, time stamps of any unit, text in RFC 3339 to time stamps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast_with_options, kernels};
use arrow::datatypes::{DataType, Field, Schema};
use twinlake_contracts::{COLUMN_ROLE, ORIGINAL_NAME, parse_us, timestamp_type};

/// The role of a column: `tag`, `field`, or none.
pub(super) fn role(field: &Field) -> Option<&str> {
    field.metadata().get(COLUMN_ROLE).map(String::as_str)
}

/// The column of a table that a client's name in a role means.
pub(super) fn find(schema: &Schema, given: &Field) -> Option<usize> {
    let (name, wanted) = (given.name(), role(given));
    let original = |field: &Field| field.metadata().get(ORIGINAL_NAME).is_some_and(|own| own == name);
    let fields = schema.fields();
    if wanted.is_some() {
        let claimed = fields.iter().position(|field| role(field) == wanted && original(field));
        // A column that a pipeline or another body made: nobody claimed it in line protocol.
        return claimed.or_else(|| {
            fields.iter().position(|field| {
                field.name() == name && role(field).is_none() && !field.metadata().contains_key(ORIGINAL_NAME)
            })
        });
    }
    let claimed = fields.iter().position(|field| role(field).is_none() && original(field));
    claimed.or_else(|| fields.iter().position(|field| field.name() == name))
}

/// Values in the type of their column, with the rows whose values it cannot hold; `None` when it holds none of them.
pub(super) fn coerce(values: &ArrayRef, to: &DataType) -> Option<(ArrayRef, Vec<usize>)> {
    let from = values.data_type();
    if from == to {
        return Some((Arc::clone(values), Vec::new()));
    }
    if is_text(from) && matches!(to, DataType::Timestamp(..)) {
        let texts = values.as_string_opt::<i32>()?;
        let times: TimestampMicrosecondArray = texts.iter().map(|text| text.and_then(parse_us)).collect();
        let times: ArrayRef = Arc::new(times.with_data_type(timestamp_type()));
        let lost = lost(values, &times);
        return Some((times, lost));
    }
    if !may_become(from, to) {
        return None;
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = cast_with_options(values, to, &options).ok()?;
    let mut lost = lost(values, &cast);
    if from.is_integer() != to.is_integer() {
        // A number that comes back as another one was changed on the way.
        let back = cast_with_options(&cast, from, &options).ok()?;
        let same = kernels::cmp::not_distinct(&back, values).ok()?;
        lost = rows_without(same.values());
    }
    Some((cast, lost))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8)
}

fn may_become(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Decimal128, List, Null, Struct, Timestamp};
    let number = |data_type: &DataType| data_type.is_integer() || data_type.is_floating();
    match (from, to) {
        (Null, _)
        | (Timestamp(..) | Date32, Timestamp(..))
        | (Decimal128(..), Decimal128(..))
        | (List(_), List(_))
        | (Struct(_), Struct(_)) => true,
        _ => number(from) && number(to),
    }
}

/// The rows that have a value in the first and none in the second.
fn lost(before: &ArrayRef, after: &ArrayRef) -> Vec<usize> {
    if after.logical_null_count() <= before.logical_null_count() {
        return Vec::new();
    }
    let (before, after) = (before.logical_nulls(), after.logical_nulls());
    let is_null = |nulls: &Option<arrow::buffer::NullBuffer>, row| {
        nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    };
    let count = after.as_ref().map_or(0, arrow::buffer::NullBuffer::len);
    (0..count).filter(|row| is_null(&after, *row) && !is_null(&before, *row)).collect()
}

fn rows_without(kept: &BooleanBuffer) -> Vec<usize> {
    kept.iter().enumerate().filter(|(_, kept)| !kept).map(|(row, _)| row).collect()
}

/// A type in the words of its users.
pub(super) fn shown(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(..) => "Timestamp".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Float64Array, Int32Array, Int64Array, StringArray};

    use super::*;

    fn field(name: &str, metadata: &[(&str, &str)]) -> Field {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Field::new(name, DataType::Int64, true).with_metadata(metadata.collect())
    }

    #[test]
    fn a_name_finds_its_own_column() {
        let schema = Schema::new(vec![
            field("temp", &[(ORIGINAL_NAME, "Temp"), (COLUMN_ROLE, "field")]),
            field("temp_1", &[(ORIGINAL_NAME, "temp"), (COLUMN_ROLE, "field")]),
            field("temp_2", &[(ORIGINAL_NAME, "temp"), (COLUMN_ROLE, "tag")]),
            field("plain", &[]),
            field("wind_speed", &[(ORIGINAL_NAME, "Wind Speed")]),
        ]);
        for (name, role, expected) in [
            ("Temp", Some("field"), Some(0)),
            ("temp", Some("field"), Some(1)),
            ("temp", Some("tag"), Some(2)),
            ("Temp", Some("tag"), None),
            ("plain", Some("tag"), Some(3)),
            ("plain", None, Some(3)),
            ("temp", None, Some(0)),
            ("Wind Speed", None, Some(4)),
            ("wind_speed", None, Some(4)),
            ("wind_speed", Some("field"), None),
        ] {
            let metadata = role.map(|role| (COLUMN_ROLE, role));
            assert_eq!(find(&schema, &field(name, metadata.as_slice())), expected, "{name} {role:?}");
        }
    }

    #[test]
    fn values_are_coerced_where_none_changes() {
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some((1 << 53) + 1)]));
        let (floats, lost) = coerce(&whole, &DataType::Float64).unwrap();
        assert_eq!(lost, [2]);
        assert_eq!(
            floats.as_ref(),
            &Float64Array::from(vec![Some(1.0), None, Some(9_007_199_254_740_992.0)])
        );
        assert_eq!(coerce(&whole, &DataType::Int32).unwrap().1, [2]);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(5.0), Some(5.5), None, Some(1e300)]));
        let (whole, lost) = coerce(&floats, &DataType::Int64).unwrap();
        assert_eq!((lost, whole.len()), (vec![1, 3], 4));
        let near: ArrayRef = Arc::new(Float64Array::from(vec![0.1]));
        assert_eq!(coerce(&near, &DataType::Float32).unwrap().1, [0; 0]);
        let small: ArrayRef = Arc::new(Int32Array::from(vec![7]));
        assert_eq!(coerce(&small, &DataType::Int64).unwrap().0.as_ref(), &Int64Array::from(vec![7]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["2018-10-09T04:32:53Z", "soon"]));
        assert_eq!(coerce(&text, &timestamp_type()).unwrap().1, [1]);
        assert!(coerce(&text, &DataType::Int64).is_none());
        assert!(coerce(&small, &DataType::Utf8).is_none());
        assert!(coerce(&small, &timestamp_type()).is_none());
        let narrow: ArrayRef = Arc::new(Float32Array::from(vec![1.5]));
        assert_eq!(coerce(&narrow, &DataType::Float64).unwrap().1, [0; 0]);
    }
}
