//! Rows as JSON: an array of objects, one object, or one object a line.
//!
//! Each object is a row, each key a column; the types come from the values: whole numbers are Int64, others Float64
//! (in one body they share a Float64 column), then Boolean and text. Null and absent mean the same. An object within a row
//! is taken apart, its keys joined with `_`: `{"wind": {"speed_mps": 4}}` is a column `wind_speed_mps`. A GeoJSON
//! geometry becomes WKB in longitude and latitude; any other array is kept as its JSON text.
//!
//! `ts` is the time of the row: text in RFC 3339, or a number since 1970 whose unit its size tells: below 10¹¹ seconds,
//! below 10¹⁴ milliseconds, below 10¹⁷ microseconds, else nanoseconds.
//!
//! A row at fault is refused with its number, and the rest goes on. In an array, a syntax error refuses the whole body
//! (`invalid_json`); of objects line by line it refuses its line only.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer as _, SeqAccess, Visitor};
use serde_json::{Map, Value};
use twinlake_contracts::{DecodedBody, Error, RefusedPart, Result, RowsFor, TableName, TableRows, parse_us};

use crate::bodies::refuse;
use crate::geojson;
use crate::sheets::{Named, Role, Sheets};
use crate::values::{Cell, EpochUnit, shown};

const TIME: &str = "ts";

/// How the rows lie in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Array,
    Lines,
    /// One object over several lines.
    Object,
}

fn layout(body: &[u8]) -> Layout {
    let start = body.trim_ascii_start();
    if start.starts_with(b"[") {
        return Layout::Array;
    }
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if serde_json::from_slice::<serde::de::IgnoredAny>(first).is_ok()
        || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err()
    {
        return Layout::Lines;
    }
    Layout::Object
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Decodes a body: the rows, and those at fault.
pub(crate) fn decode(table: &TableName, body: &Bytes) -> Result<DecodedBody> {
    let bytes = without_mark(body);
    let mut rows = Rows { sheets: Sheets::new(true), refused: Vec::new(), number: 0 };
    let invalid = |error: serde_json::Error| Error::data("invalid_json", error.to_string());
    match layout(bytes) {
        Layout::Array => {
            let mut document = serde_json::Deserializer::from_slice(bytes);
            document.deserialize_seq(Elements(&mut rows)).map_err(invalid)?;
            document.end().map_err(invalid)?;
        }
        Layout::Object => rows.row(1, serde_json::from_slice(bytes).map_err(invalid)?)?,
        Layout::Lines => {
            let mut any = false;
            for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                match serde_json::from_slice(line) {
                    Ok(value) => {
                        any = true;
                        rows.row(number, value)?;
                    }
                    Err(error) => {
                        let detail = format!("not JSON at column {}", error.column());
                        rows.refuse(number, "invalid_json", detail, line.trim_ascii())?;
                    }
                }
            }
            if !any && !rows.refused.is_empty() {
                let message = "neither an array of objects nor one object a line";
                return Err(Error::data("invalid_json", message));
            }
        }
    }
    let tables = rows.sheets.finish()?.into_iter().map(|(_, rows, places)| TableRows {
        table: RowsFor::Table(table.clone()),
        rows,
        places,
    });
    Ok(DecodedBody { tables: tables.collect(), refused: rows.refused })
}

/// The texts of rows; `None` for the elements of an array.
pub(crate) fn texts(body: &Bytes, places: &[u32]) -> Option<Vec<Bytes>> {
    match layout(without_mark(body)) {
        Layout::Array => None,
        Layout::Object => Some(vec![body.clone(); places.len()]),
        Layout::Lines => Some(crate::line_protocol::texts(body, places)),
    }
}

/// Rows as they come.
struct Rows {
    sheets: Sheets,
    refused: Vec<RefusedPart>,
    number: u32,
}

/// Takes the elements of an array one by one, so that the array is never held as a whole.
struct Elements<'r>(&'r mut Rows);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> std::result::Result<(), A::Error> {
        while elements.next_element_seed(Element(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct Element<'r>(&'r mut Rows);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, source: D) -> std::result::Result<(), D::Error> {
        let value = <Value as serde::Deserialize>::deserialize(source)?;
        self.0.number += 1;
        self.0.row(self.0.number, value).map_err(serde::de::Error::custom)
    }
}

impl Rows {
    fn refuse(&mut self, place: u32, reason: &str, detail: String, text: &[u8]) -> Result<()> {
        let text = Bytes::copy_from_slice(text);
        refuse(&mut self.refused, RefusedPart { place: place.into(), reason: reason.into(), detail, text })
    }

    fn row(&mut self, place: u32, value: Value) -> Result<()> {
        let mut cells = Vec::new();
        let outcome = match &value {
            Value::Object(members) => flatten(members, "", &mut cells),
            _ => Err(("wrong_type", "a row is an object".to_owned())),
        };
        let outcome = outcome.and_then(|nested| {
            if cells.iter().all(|named| named.cell == Cell::Null) {
                return Err(("empty_row", "there is no value in this row".to_owned()));
            }
            let mut names = HashSet::new();
            match cells.iter().find(|named| nested && !names.insert(named.name.as_ref())) {
                None => Ok(()),
                Some(twice) => {
                    Err(("duplicate_column", format!("the column '{}' is there twice", shown(&twice.name))))
                }
            }
        });
        match outcome {
            Ok(()) => {
                self.sheets.push("", place, &mut cells);
                Ok(())
            }
            Err((reason, detail)) => self.refuse(place, reason, detail, value.to_string().as_bytes()),
        }
    }
}

type Refusal = (&'static str, String);

/// The values of an object with the names of their columns; tells whether an object within was taken apart.
fn flatten<'a>(
    members: &'a Map<String, Value>,
    prefix: &str,
    cells: &mut Vec<Named<'a>>,
) -> std::result::Result<bool, Refusal> {
    let mut nested = false;
    for (key, value) in members {
        let name =
            if prefix.is_empty() { Cow::Borrowed(key.as_str()) } else { format!("{prefix}_{key}").into() };
        let cell = match value {
            Value::Object(inner) => match geojson::wkb(inner) {
                Some(Ok(geometry)) => Cell::Geometry(geometry),
                Some(Err(detail)) => {
                    return Err(("invalid_geometry", format!("column '{}': {detail}", shown(&name))));
                }
                None => {
                    flatten(inner, &name, cells)?;
                    nested = true;
                    continue;
                }
            },
            value if name == TIME => time(value)?,
            Value::Null => Cell::Null,
            Value::Bool(truth) => Cell::Boolean(*truth),
            Value::String(text) => Cell::Utf8(Cow::Borrowed(text)),
            Value::Array(_) => Cell::Utf8(value.to_string().into()),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Cell::Int64(whole),
                (None, Some(float)) if !number.is_u64() => Cell::Float64(float),
                _ => {
                    let detail = format!("column '{}': {number} is above 2^63 - 1", shown(&name));
                    return Err(("out_of_range", detail));
                }
            },
        };
        cells.push(Named { role: Role::Plain, name, cell });
    }
    Ok(nested)
}

fn time(value: &Value) -> std::result::Result<Cell<'static>, Refusal> {
    let us = match value {
        Value::Null => return Ok(Cell::Null),
        Value::String(text) => parse_us(text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => match whole.unsigned_abs() {
                0..100_000_000_000 => EpochUnit::Seconds.whole_to_us(whole),
                100_000_000_000..100_000_000_000_000 => EpochUnit::Milliseconds.whole_to_us(whole),
                100_000_000_000_000..100_000_000_000_000_000 => Some(whole),
                _ => Some(whole.div_euclid(1_000)),
            },
            (None, Some(float)) if float.abs() < 1e11 => EpochUnit::Seconds.to_us(float),
            (None, Some(float)) if float.abs() < 1e14 => EpochUnit::Milliseconds.to_us(float),
            _ => None,
        },
        _ => None,
    };
    us.map(Cell::Timestamp).ok_or_else(|| {
        let detail = format!("ts: {} is not a time, write it in RFC 3339", shown(&value.to_string()));
        ("wrong_type", detail)
    })
}

#[cfg(test)]
mod tests;
