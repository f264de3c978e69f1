//! Rows of a table as readings of a model: its stored properties in their types, keys and times.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use twinlake_contracts::{Error, INGESTED_AT, Result, SEQUENCE, suggest, timestamp_type};

use super::state::Readings;
use crate::model::{KNOWN_TIME, PropertyType, TwinModel, VALID_TIME};
use crate::state::constant_value;
use crate::view::back;

/// What the state of a model shows.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The stored properties, then the two times.
    pub schema: SchemaRef,
    /// The place of the key among the columns.
    pub key: usize,
    /// The columns that break ties, in their order.
    pub deciding: Vec<usize>,
    /// The place among the columns, and the field, of the geometry by which instances are found.
    pub geometry: Option<(usize, FieldRef)>,
}

impl Shape {
    pub(crate) fn new(model: &TwinModel) -> Self {
        let stored: Vec<_> = model.properties.iter().filter(|(_, property)| property.sql.is_none()).collect();
        let mut fields: Vec<Field> = stored.iter().map(|(name, property)| property.field(name)).collect();
        let deciding = stored
            .iter()
            .enumerate()
            .filter(|(_, (name, property))| property.value.is_none() && **name != model.key);
        let deciding = deciding.map(|(place, _)| place).collect();
        let key = stored.iter().position(|(name, _)| **name == model.key).unwrap_or_default();
        let geometry = stored.iter().position(|(_, property)| property.kind == PropertyType::Geometry);
        let geometry = geometry.map(|place| (place, Arc::new(fields[place].clone())));
        fields.extend([VALID_TIME, KNOWN_TIME].map(|name| Field::new(name, timestamp_type(), true)));
        Self { schema: Arc::new(Schema::new(fields)), key, deciding, geometry }
    }
}

fn cast(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    if column.data_type() == wanted {
        return Ok(Arc::clone(column));
    }
    // As the query does it: a value that does not fit is an error.
    Ok(cast_with_options(column, wanted, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The readings in rows of the model's table; rows without a key or a time are none.
pub(crate) fn readings(model: &TwinModel, shape: &Shape, rows: &RecordBatch) -> Result<Readings> {
    let missing = |column: &str| {
        let schema = rows.schema();
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let error =
            Error::config(format!("twin model '{}' needs a column '{column}' in its table", model.name));
        match suggest(column, known.iter().copied()) {
            Some(near) => error.with_help(format!("did you mean '{near}'?")),
            None => error.with_help(format!("the table has: {}", known.join(", "))),
        }
    };
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| missing(name));
    let key = model.key_property()?.column.as_deref().unwrap_or(&model.key);
    let time = model.telemetry.as_ref().map_or("ts", |telemetry| telemetry.time.as_str());
    let (key, time) = (column(key)?, cast(column(time)?, &timestamp_type())?);
    let whole: BooleanArray =
        (0..rows.num_rows()).map(|row| Some(key.is_valid(row) && time.is_valid(row))).collect();
    let kept;
    let rows = if whole.true_count() == rows.num_rows() {
        rows
    } else {
        kept = filter_record_batch(rows, &whole)?;
        &kept
    };
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| missing(name));
    let count = rows.num_rows();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(shape.schema.fields().len());
    for (name, property) in model.properties.iter().filter(|(_, property)| property.sql.is_none()) {
        columns.push(match &property.value {
            Some(value) => constant_value(value, property)
                .and_then(|value: ScalarValue| value.to_array_of_size(count))
                .map_err(back)?,
            None => cast(column(property.column.as_deref().unwrap_or(name))?, &property.kind.data_type())?,
        });
    }
    let or_null = |name: &str, kind: &DataType| match rows.column_by_name(name) {
        Some(column) => cast(column, kind),
        None => Ok(new_null_array(kind, count)),
    };
    let valid = cast(
        column(model.telemetry.as_ref().map_or("ts", |telemetry| telemetry.time.as_str()))?,
        &timestamp_type(),
    )?;
    let known = or_null(INGESTED_AT, &timestamp_type())?;
    let sequence: Int64Array = or_null(SEQUENCE, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
    let keys = columns.get(shape.key).cloned().ok_or_else(|| missing(&model.key))?;
    let places = shape
        .geometry
        .as_ref()
        .and_then(|(place, _)| columns.get(*place))
        .map(|column| column.as_binary::<i32>().clone());
    let times = [&valid, &known].map(|column| column.as_primitive::<TimestampMicrosecondType>().clone());
    columns.extend([valid.clone(), known.clone()]);
    let rows = RecordBatch::try_new(shape.schema.clone(), columns)?;
    let [valid, known] = times;
    Ok(Readings { rows, keys, valid, known, sequence, places })
}
