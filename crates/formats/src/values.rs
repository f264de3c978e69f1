//! Columns that a decoder's settings ask for: their types, one row's cells, and the batch that they become.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Result, parse_us, timestamp_type};

/// The type of a decoded column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// A whole number from -2^63 to 2^63-1; `5.0` and `1e3` count as whole.
    Int64,
    /// A number.
    Float64,
    /// Text.
    Utf8,
    /// A time stamp in UTC: text in RFC 3339 (also with `+0000`, a space for `T`, or a bare date; no offset means UTC),
    /// or a number when `unit` says of what.
    Timestamp,
    /// Any JSON value, kept as its compact text.
    Json,
}

/// The unit of a numeric time stamp, counted from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EpochUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
}

impl EpochUnit {
    /// Microseconds since the epoch; `None` beyond the range.
    pub(crate) fn to_us(self, count: f64) -> Option<i64> {
        let us = count
            * match self {
                Self::Seconds => 1e6,
                Self::Milliseconds => 1e3,
                Self::Microseconds => 1.0,
            };
        // 9e18 is below i64::MAX and about the year 287,000.
        (us.abs() < 9e18).then(|| us.round() as i64)
    }

    /// The same for a whole number, exactly.
    pub(crate) fn whole_to_us(self, count: i64) -> Option<i64> {
        match self {
            Self::Seconds => count.checked_mul(1_000_000),
            Self::Milliseconds => count.checked_mul(1_000),
            Self::Microseconds => Some(count),
        }
    }
}

impl ValueType {
    /// The Arrow type.
    pub(crate) fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Utf8 | Self::Json => DataType::Utf8,
            Self::Timestamp => timestamp_type(),
        }
    }

    /// The word in settings and messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Utf8 => "utf8",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
        }
    }

    /// Reads a text (a CSV field, a topic segment) as this type; `None` when it is not of it.
    pub(crate) fn parse(self, text: &str, unit: Option<EpochUnit>) -> Option<Cell<'_>> {
        match self {
            Self::Boolean => match text {
                "true" | "TRUE" | "True" => Some(Cell::Boolean(true)),
                "false" | "FALSE" | "False" => Some(Cell::Boolean(false)),
                _ => None,
            },
            Self::Int64 => text.parse().ok().map(Cell::Int64),
            // "inf" and "nan" parse in Rust, but are no measurements.
            Self::Float64 => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Cell::Float64),
            Self::Utf8 => Some(Cell::Utf8(Cow::Borrowed(text))),
            Self::Timestamp => match unit {
                None => parse_us(text),
                Some(unit) => match text.parse::<i64>() {
                    Ok(count) => unit.whole_to_us(count),
                    Err(_) => text.parse().ok().filter(|n: &f64| n.is_finite()).and_then(|n| unit.to_us(n)),
                },
            }
            .map(Cell::Timestamp),
            Self::Json => {
                serde_json::from_str::<serde_json::Value>(text).ok().map(|_| Cell::Utf8(Cow::Borrowed(text)))
            }
        }
    }
}

/// One value of a row before it goes into its column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    Utf8(Cow<'a, str>),
    Timestamp(i64),
    /// WKB in longitude and latitude.
    Geometry(Vec<u8>),
}

enum Builder {
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

/// Collects whole rows and gives a batch. A row goes in completely or not at all.
pub(crate) struct Rows {
    schema: SchemaRef,
    builders: Vec<Builder>,
    count: usize,
}

impl Rows {
    /// For a schema whose types [`ValueType::arrow`] gave.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let builder = |field: &Arc<Field>| match field.data_type() {
            DataType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            DataType::Int64 => Builder::Int64(Int64Builder::new()),
            DataType::Float64 => Builder::Float64(Float64Builder::new()),
            DataType::Timestamp(..) => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(timestamp_type()))
            }
            _ => Builder::Utf8(StringBuilder::new()),
        };
        Self { schema: Arc::clone(schema), builders: schema.fields().iter().map(builder).collect(), count: 0 }
    }

    /// Adds a row: one cell a column, of its type or null.
    pub(crate) fn push(&mut self, cells: &[Cell<'_>]) {
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            match (builder, cell) {
                (Builder::Boolean(builder), Cell::Boolean(value)) => builder.append_value(*value),
                (Builder::Int64(builder), Cell::Int64(value)) => builder.append_value(*value),
                (Builder::Float64(builder), Cell::Float64(value)) => builder.append_value(*value),
                (Builder::Utf8(builder), Cell::Utf8(value)) => builder.append_value(value),
                (Builder::Timestamp(builder), Cell::Timestamp(value)) => builder.append_value(*value),
                (Builder::Boolean(builder), _) => builder.append_null(),
                (Builder::Int64(builder), _) => builder.append_null(),
                (Builder::Float64(builder), _) => builder.append_null(),
                (Builder::Utf8(builder), _) => builder.append_null(),
                (Builder::Timestamp(builder), _) => builder.append_null(),
            }
        }
        self.count += 1;
    }

    /// The batch of all rows.
    pub(crate) fn finish(self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = self
            .builders
            .into_iter()
            .map(|builder| match builder {
                Builder::Boolean(mut builder) => Arc::new(builder.finish()) as ArrayRef,
                Builder::Int64(mut builder) => Arc::new(builder.finish()),
                Builder::Float64(mut builder) => Arc::new(builder.finish()),
                Builder::Utf8(mut builder) => Arc::new(builder.finish()),
                Builder::Timestamp(mut builder) => Arc::new(builder.finish()),
            })
            .collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.count));
        Ok(RecordBatch::try_new_with_options(self.schema, columns, &options)?)
    }
}

/// A value as a reject shows it: at most 80 characters.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(80) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values_or_are_refused() {
        for (kind, text, expected) in [
            (ValueType::Boolean, "true", Some(Cell::Boolean(true))),
            (ValueType::Boolean, "1", None),
            (ValueType::Int64, "-5", Some(Cell::Int64(-5))),
            (ValueType::Int64, "5.0", None),
            (ValueType::Int64, "99999999999999999999", None),
            (ValueType::Float64, "1e3", Some(Cell::Float64(1000.0))),
            (ValueType::Float64, "NaN", None),
            (ValueType::Float64, "1e999", None),
            (ValueType::Utf8, "ä", Some(Cell::Utf8("ä".into()))),
            (ValueType::Timestamp, "1970-01-01T00:00:01Z", Some(Cell::Timestamp(1_000_000))),
            (ValueType::Timestamp, "1", None),
            (ValueType::Json, "[1]", Some(Cell::Utf8("[1]".into()))),
            (ValueType::Json, "[1", None),
        ] {
            assert_eq!(kind.parse(text, None), expected, "{text} as {}", kind.word());
        }
        let seconds = Some(EpochUnit::Seconds);
        assert_eq!(ValueType::Timestamp.parse("1.5", seconds), Some(Cell::Timestamp(1_500_000)));
        assert_eq!(ValueType::Timestamp.parse("9223372036854775807", seconds), None);
        assert_eq!(EpochUnit::Seconds.to_us(f64::MAX), None);
    }
}
