//! Cells of a batch as values that people can read and write: time stamps as RFC 3339, geometries as WKT.

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, SchemaRef, TimestampMicrosecondType};
use arrow::json::ReaderBuilder;
use serde_json::{Map, Value as Json};
use std::sync::Arc;
use twinlake_contracts::{Error, Result, format_us, is_geometry, parse_us, timestamp_type};

use crate::wkt;

/// The cell of a column in a normal type.
pub(crate) fn cell(field: &Field, column: &dyn Array, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::Boolean => Json::from(column.as_boolean().value(row)),
        DataType::Utf8 => Json::from(column.as_string::<i32>().value(row)),
        DataType::Timestamp(..) => {
            Json::from(format_us(column.as_primitive::<TimestampMicrosecondType>().value(row)))
        }
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(row);
            let text = is_geometry(field).then(|| wkt::to_text(bytes)).flatten();
            let plain = || String::from_utf8(bytes.to_vec()).ok();
            let hex = || {
                bytes
                    .iter()
                    .flat_map(|byte| [byte >> 4, byte & 15])
                    .filter_map(|digit| char::from_digit(digit.into(), 16))
                    .collect()
            };
            // A geometry that lost its metadata on the way through SQL is still shown as one.
            Json::from(text.or_else(|| wkt::to_text(bytes)).or_else(plain).unwrap_or_else(hex))
        }
        DataType::List(inner) => {
            let values = column.as_list::<i32>().value(row);
            (0..values.len()).map(|at| cell(inner, &values, at)).collect()
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let entries = fields.iter().zip(columns);
            Json::Object(
                entries.map(|(field, column)| (field.name().clone(), cell(field, column, row))).collect(),
            )
        }
        _ => {
            let Ok(text) = arrow::util::display::array_value_to_string(column, row) else {
                return Json::Null;
            };
            match text.parse::<i64>() {
                Ok(number) if column.data_type().is_integer() => Json::from(number),
                _ => match text.parse::<f64>() {
                    Ok(number) if column.data_type().is_numeric() => {
                        serde_json::Number::from_f64(number).map_or_else(|| Json::from(text), Json::Number)
                    }
                    _ => Json::from(text),
                },
            }
        }
    }
}

/// A row as a table.
pub(crate) fn row(batch: &RecordBatch, at: usize) -> Map<String, Json> {
    let fields = batch.schema();
    let cells = fields.fields().iter().zip(batch.columns());
    cells.map(|(field, column)| (field.name().clone(), cell(field, column, at))).collect()
}

/// Whether a cell is what a test expects: numbers within one part in 10⁹, time stamps as instants, geometries
/// without regard to spaces, `{ null = true }` for a null.
pub(crate) fn equal(expected: &Json, actual: &Json) -> bool {
    match (expected, actual) {
        (Json::Object(table), Json::Null) => table.get("null") == Some(&Json::Bool(true)),
        (Json::Null, Json::Null) => true,
        (Json::Number(expected), Json::Number(actual)) => {
            let (expected, actual) =
                (expected.as_f64().unwrap_or(f64::NAN), actual.as_f64().unwrap_or(f64::NAN));
            (expected - actual).abs() <= 1e-9 * expected.abs().max(actual.abs())
        }
        (Json::String(expected), Json::String(actual)) => {
            expected == actual
                || matches!((parse_us(expected), parse_us(actual)), (Some(left), Some(right)) if left == right)
                || matches!(
                    (wkt::from_text(expected), wkt::from_text(actual)),
                    (Some(left), Some(right)) if left == right
                )
        }
        (Json::Array(expected), Json::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| equal(e, a))
        }
        (Json::Object(expected), Json::Object(actual)) => {
            expected.iter().all(|(key, value)| equal(value, actual.get(key).unwrap_or(&Json::Null)))
        }
        _ => expected == actual,
    }
}

/// A batch of the schema (in normal types) from rows that a test gives; a column that a row does not name is null.
pub(crate) fn batch(schema: &SchemaRef, rows: &[Map<String, Json>]) -> Result<RecordBatch> {
    for row in rows {
        if let Some(unknown) = row.keys().find(|key| schema.index_of(key).is_err()) {
            return Err(Error::config(format!("'{unknown}' is not a column")).with_help(format!(
                "columns: {}",
                schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
            )));
        }
    }
    let columns = schema.fields().iter().map(|field| column(field, rows)).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn column(field: &Arc<Field>, rows: &[Map<String, Json>]) -> Result<ArrayRef> {
    let value = |row: &Map<String, Json>| {
        let value = row.get(field.name()).cloned().unwrap_or(Json::Null);
        if value.get("null") == Some(&Json::Bool(true)) { Json::Null } else { value }
    };
    let wrong = |value: &Json| {
        Error::config(format!("{value} is not a value of '{}' ({})", field.name(), field.data_type()))
    };
    match field.data_type() {
        DataType::Timestamp(..) => {
            let values = rows
                .iter()
                .map(|row| match value(row) {
                    Json::Null => Ok(None),
                    Json::String(text) => parse_us(&text).map(Some).ok_or_else(|| wrong(&Json::from(text))),
                    other => Err(wrong(&other)),
                })
                .collect::<Result<TimestampMicrosecondArray>>()?;
            Ok(Arc::new(values.with_data_type(timestamp_type())))
        }
        DataType::Binary => {
            let mut builder = BinaryBuilder::new();
            for row in rows {
                match value(row) {
                    Json::Null => builder.append_null(),
                    Json::String(text) if is_geometry(field) => {
                        builder.append_value(wkt::from_text(&text).ok_or_else(|| wrong(&Json::from(text)))?);
                    }
                    Json::String(text) => builder.append_value(text),
                    other => return Err(wrong(&other)),
                }
            }
            Ok(Arc::new(builder.finish()))
        }
        _ => {
            let mut decoder = ReaderBuilder::new_with_field(Arc::clone(field)).build_decoder()?;
            let values: Vec<Json> = rows.iter().map(value).collect();
            decoder
                .serialize(&values)
                .map_err(|error| Error::config(format!("the column '{}': {error}", field.name())))?;
            let batch = decoder.flush()?;
            batch.map_or_else(
                || Ok(arrow::array::new_empty_array(field.data_type())),
                |batch| Ok(Arc::clone(batch.column(0))),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use serde_json::json;
    use twinlake_contracts::{CRS84, geometry_field};

    use super::*;

    #[test]
    fn rows_become_a_batch_and_rows_again() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("count", DataType::Int64, true),
            Field::new("ts", timestamp_type(), true),
            geometry_field("geom", CRS84, true),
        ]));
        let given = json!({"name": "Mellunmäki", "count": 3, "ts": "2018-10-09T04:32:53Z", "geom": "POINT (24.9 60.2)"});
        let given = given.as_object().unwrap().clone();
        let batch = batch(&schema, &[given.clone(), Map::new()]).unwrap();
        assert_eq!(row(&batch, 0), given);
        assert!(row(&batch, 1).values().all(Json::is_null));
        assert!(equal(&json!({"null": true}), &Json::Null));
        assert!(!equal(&json!({"null": true}), &json!(1)));
        assert!(equal(&json!("2018-10-09T07:32:53+03:00"), &json!("2018-10-09T04:32:53Z")));
        assert!(!equal(&json!(1.0), &json!(1.1)));
    }
}
