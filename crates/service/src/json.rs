//! Rows as JSON. One rule a type, the same at every HTTP address:
//!
//! | Arrow | JSON |
//! |---|---|
//! | integers, floats | number (not a number and infinity: `null`) |
//! | decimals | string, all digits kept |
//! | time stamps | string, RFC 3339; with `Z` when the column has a time zone |
//! | geometry (WKB) | GeoJSON geometry, in the CRS that the column's `crs` names |
//! | other binary | string, hexadecimal |
//! | lists, structs, maps | array, object, object |
//! | anything else | string, as SQL prints it |

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use twinlake_contracts::{crs_of, is_geometry};
use utoipa::ToSchema;

use crate::geometry::write_geojson;

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type: `geometry`, or the Arrow type (`Int64`, `Utf8`, `Timestamp(µs, "UTC")`).
    #[serde(rename = "type")]
    pub kind: String,
    /// The coordinate reference system of a geometry column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crs: Option<String>,
}

/// The columns of a schema.
pub(crate) fn columns(schema: &Schema) -> Vec<Column> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let geometry = is_geometry(field);
            Column {
                name: field.name().clone(),
                kind: if geometry { "geometry".to_owned() } else { field.data_type().to_string() },
                crs: geometry.then(|| crs_of(field)).flatten(),
            }
        })
        .collect()
}

/// How a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowStyle {
    /// `[1, "a"]`, in the order of the columns.
    Array,
    /// `{"id": 1, "name": "a"}`.
    Object,
}

/// Appends a batch's rows, separated by commas; `first` says whether a comma must come before the first.
pub(crate) fn write_rows(batch: &RecordBatch, style: RowStyle, first: &mut bool, out: &mut Vec<u8>) {
    let schema = batch.schema();
    let fields = schema.fields();
    let names: Vec<Vec<u8>> = fields.iter().map(|field| quoted(field.name())).collect();
    for row in 0..batch.num_rows() {
        if !std::mem::take(first) {
            out.push(b',');
        }
        out.push(if style == RowStyle::Array { b'[' } else { b'{' });
        for (index, (field, column)) in fields.iter().zip(batch.columns()).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if style == RowStyle::Object {
                out.extend_from_slice(&names[index]);
                out.push(b':');
            }
            write_value(out, column, row, field);
        }
        out.push(if style == RowStyle::Array { b']' } else { b'}' });
    }
}

fn quoted(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_else(|_| b"\"\"".to_vec())
}

fn write_serialized(out: &mut Vec<u8>, value: impl Serialize) {
    let start = out.len();
    // serde_json writes a float that is not finite as `null`.
    if serde_json::to_writer(&mut *out, &value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'"');
}

fn write_binary(out: &mut Vec<u8>, bytes: &[u8], field: &Field) {
    if !(is_geometry(field) && write_geojson(bytes, out)) {
        write_hex(out, bytes);
    }
}

fn write_instant(out: &mut Vec<u8>, instant: Option<DateTime<Utc>>, zoned: bool) {
    match instant {
        Some(instant) => {
            let text = instant.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            write_serialized(out, if zoned { text.as_str() } else { text.trim_end_matches('Z') });
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn write_list(out: &mut Vec<u8>, values: &ArrayRef, field: &Field) {
    out.push(b'[');
    for index in 0..values.len() {
        if index > 0 {
            out.push(b',');
        }
        write_value(out, values, index, field);
    }
    out.push(b']');
}

/// Writes one value by the table above.
pub(crate) fn write_value(out: &mut Vec<u8>, array: &ArrayRef, row: usize, field: &Field) {
    if array.is_null(row) || array.data_type() == &DataType::Null {
        out.extend_from_slice(b"null");
        return;
    }
    match array.data_type() {
        DataType::Boolean => write_serialized(out, array.as_boolean().value(row)),
        DataType::Int8 => write_serialized(out, array.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => write_serialized(out, array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write_serialized(out, array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write_serialized(out, array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => write_serialized(out, array.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => write_serialized(out, array.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => write_serialized(out, array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => write_serialized(out, array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float16 => write_serialized(out, array.as_primitive::<Float16Type>().value(row).to_f32()),
        DataType::Float32 => write_serialized(out, array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => write_serialized(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => write_serialized(out, array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => write_serialized(out, array.as_string::<i64>().value(row)),
        DataType::Utf8View => write_serialized(out, array.as_string_view().value(row)),
        DataType::Binary => write_binary(out, array.as_binary::<i32>().value(row), field),
        DataType::LargeBinary => write_binary(out, array.as_binary::<i64>().value(row), field),
        DataType::BinaryView => write_binary(out, array.as_binary_view().value(row), field),
        DataType::FixedSizeBinary(_) => write_binary(out, array.as_fixed_size_binary().value(row), field),
        DataType::Timestamp(unit, zone) => {
            let instant = match unit {
                TimeUnit::Second => {
                    DateTime::from_timestamp(array.as_primitive::<TimestampSecondType>().value(row), 0)
                }
                TimeUnit::Millisecond => DateTime::from_timestamp_millis(
                    array.as_primitive::<TimestampMillisecondType>().value(row),
                ),
                TimeUnit::Microsecond => DateTime::from_timestamp_micros(
                    array.as_primitive::<TimestampMicrosecondType>().value(row),
                ),
                TimeUnit::Nanosecond => Some(DateTime::from_timestamp_nanos(
                    array.as_primitive::<TimestampNanosecondType>().value(row),
                )),
            };
            write_instant(out, instant, zone.is_some());
        }
        DataType::List(item) => write_list(out, &array.as_list::<i32>().value(row), item),
        DataType::LargeList(item) => write_list(out, &array.as_list::<i64>().value(row), item),
        DataType::FixedSizeList(item, _) => write_list(out, &array.as_fixed_size_list().value(row), item),
        DataType::Struct(fields) => {
            out.push(b'{');
            for (index, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&quoted(field.name()));
                out.push(b':');
                write_value(out, column, row, field);
            }
            out.push(b'}');
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            out.push(b'{');
            for index in 0..entries.len() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&quoted(&printed(keys, index)));
                out.push(b':');
                write_value(out, values, index, &entries.fields()[1]);
            }
            out.push(b'}');
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match dictionary.normalized_keys().get(row) {
                Some(key) => write_value(out, dictionary.values(), *key, field),
                None => out.extend_from_slice(b"null"),
            }
        }
        _ => write_serialized(out, printed(array, row)),
    }
}

/// A value as SQL prints it.
pub(crate) fn printed(array: &ArrayRef, row: usize) -> String {
    ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())
        .and_then(|formatter| formatter.value(row).try_to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, Float64Array, Int64Array, ListArray,
        StringArray, TimestampMicrosecondArray,
    };
    use twinlake_contracts::{CRS84, geometry_field, timestamp_type};

    use super::*;
    use crate::geometry::tests::point;

    fn batch() -> RecordBatch {
        let place = point(24.94, 60.17);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let dictionary: DictionaryArray<Int32Type> = [Some("tram"), None].into_iter().collect();
        let columns: Vec<(Field, ArrayRef)> = vec![
            (Field::new("id", DataType::Int64, true), Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            (Field::new("x", DataType::Float64, true), Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
            (
                Field::new("name", DataType::Utf8, true),
                Arc::new(StringArray::from(vec![Some("Hä\"meentie\n"), None])),
            ),
            (Field::new("ok", DataType::Boolean, true), Arc::new(BooleanArray::from(vec![Some(true), None]))),
            (
                Field::new("ts", timestamp_type(), true),
                Arc::new(
                    TimestampMicrosecondArray::from(vec![Some(1_539_059_573_250_000), None])
                        .with_timezone("UTC"),
                ),
            ),
            (
                geometry_field("geom", CRS84, true),
                Arc::new(BinaryArray::from_opt_vec(vec![Some(place.as_slice()), None])),
            ),
            (
                Field::new("payload", DataType::Binary, true),
                Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff".as_slice()), None])),
            ),
            (
                Field::new("price", DataType::Decimal128(10, 2), true),
                Arc::new(
                    Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(10, 2).unwrap(),
                ),
            ),
            (Field::new("list", list.data_type().clone(), true), Arc::new(list)),
            (Field::new("mode", dictionary.data_type().clone(), true), Arc::new(dictionary)),
        ];
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    #[test]
    fn every_type_and_null_has_its_form() {
        let mut out = Vec::new();
        let mut first = true;
        write_rows(&batch(), RowStyle::Array, &mut first, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"[9223372036854775807,1.5,"Hä\"meentie\n",true,"2018-10-09T04:32:53.250Z","#,
                r#"{"type":"Point","coordinates":[24.94,60.17]},"00ff","123.45",[1,null],"tram"],"#,
                "[null,null,null,null,null,null,null,null,null,null]"
            )
        );
        assert!(!first);
    }

    #[test]
    fn objects_carry_names_and_columns_their_crs() {
        let batch = batch().project(&[0, 5]).unwrap().slice(0, 1);
        let mut out = Vec::new();
        write_rows(&batch, RowStyle::Object, &mut true, &mut out);
        let row: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(row["geom"]["type"], "Point");
        assert_eq!(row["id"], i64::MAX);
        let columns = columns(&batch.schema());
        assert_eq!(columns[1].kind, "geometry");
        assert_eq!(columns[1].crs.as_deref(), Some("OGC:CRS84"));
    }
}
