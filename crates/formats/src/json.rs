//! Decoder `json`: paths into JSON payloads, segments of topics.
//!
//! Rules: a value of another type than its column's is a reject (`wrong_type`), never a silent null or a cast; null
//! and absent mean the same, null for an optional column and `missing_value` for a required one. Of duplicate keys the
//! last counts. Numbers are 64-bit; one that no double holds (`1e999`) makes the payload `invalid_json`, and so does
//! nesting deeper than 128. Text must be UTF-8 (`invalid_utf8`); a byte order mark is skipped.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use twinlake_contracts::{Component, Decoder, Error, Message, Rejects, Result};

use crate::columns::{Column, OriginColumns, Refused, TopicColumn, check_names};
use crate::values::{Cell, Rows, ValueType, shown};

/// Decodes JSON payloads into rows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonSettings {
    /// Where in the payload the row lies (with `each`: the array of rows): a JSON pointer (`/VP`) or a dotted path.
    pub root: Option<String>,
    /// Whether the payload (at `root`) is an array and each of its elements a row.
    #[serde(default)]
    pub each: bool,
    /// Whether the payload holds one JSON document a line.
    #[serde(default)]
    pub lines: bool,
    /// The columns, in their order: name and type, or name and a table with path, type, required and unit.
    #[serde(default)]
    pub columns: IndexMap<String, Column>,
    /// Columns from the segments of the topic.
    #[serde(default)]
    pub topic: IndexMap<String, TopicColumn>,
    /// The name of a column that holds the whole topic (the origin of the message).
    pub origin: Option<String>,
}

/// A path into a JSON document, as keys.
#[derive(Debug, Clone, PartialEq, Eq)]
struct JsonPath {
    keys: Vec<String>,
    text: String,
}

impl JsonPath {
    /// Parses a JSON pointer (RFC 6901), a dotted path, or "" for the document itself.
    fn parse(text: &str) -> Result<Self> {
        let keys = if let Some(pointer) = text.strip_prefix('/') {
            pointer.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect()
        } else if text.is_empty() {
            Vec::new()
        } else {
            text.split('.').map(str::to_owned).collect::<Vec<_>>()
        };
        if !text.starts_with('/') && keys.iter().any(String::is_empty) {
            return Err(Error::config(format!("'{text}' is not a path"))
                .with_help("write a JSON pointer such as /a/b/0, or a dotted path such as a.b.0"));
        }
        Ok(Self { keys, text: text.to_owned() })
    }

    fn key(name: &str) -> Self {
        Self { keys: vec![name.to_owned()], text: name.to_owned() }
    }

    fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.keys.iter().try_fold(document, |value, key| match value {
            Value::Object(members) => members.get(key),
            Value::Array(elements) => key.parse::<usize>().ok().and_then(|index| elements.get(index)),
            _ => None,
        })
    }
}

impl Component for JsonSettings {
    const TYPE: &'static str = "json";
    type Product = dyn Decoder;

    fn build(self) -> Result<Box<dyn Decoder>> {
        let origin = OriginColumns::new(self.topic, self.origin);
        let fields: Vec<Field> =
            self.columns.iter().map(|(name, column)| column.field(name)).chain(origin.fields()).collect();
        check_names(&fields)?;
        let columns = self
            .columns
            .into_iter()
            .map(|(name, column)| {
                let path = match &column.path {
                    None => JsonPath::key(&name),
                    Some(path) => JsonPath::parse(path)?,
                };
                Ok((name, path, column))
            })
            .collect::<Result<Vec<_>>>()?;
        let first_keys = || columns.iter().map(|(_, path, _)| path.keys.first());
        Ok(Box::new(JsonDecoder {
            schema: Arc::new(Schema::new(fields)),
            root: self.root.as_deref().map(JsonPath::parse).transpose()?,
            each: self.each,
            lines: self.lines,
            takes_scalars: columns.is_empty() || first_keys().any(|key| key.is_none()),
            takes_arrays: columns.is_empty()
                || first_keys()
                    .any(|key| key.is_none_or(|key| key.bytes().all(|byte| byte.is_ascii_digit()))),
            columns,
            origin,
        }))
    }
}

#[allow(
    clippy::struct_excessive_bools,
    reason = "two settings and two facts about the columns, each on its own"
)]
struct JsonDecoder {
    schema: SchemaRef,
    root: Option<JsonPath>,
    each: bool,
    lines: bool,
    /// Whether a row may be a number, a text…: some column's path is the row itself.
    takes_scalars: bool,
    /// Whether a row may be an array: some column's path starts with an index.
    takes_arrays: bool,
    columns: Vec<(String, JsonPath, Column)>,
    origin: OriginColumns,
}

impl Decoder for JsonDecoder {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn decode(
        &self,
        window: &[Message],
        rejects: &mut Rejects,
        rows_of: &mut Vec<u32>,
    ) -> Result<RecordBatch> {
        let mut rows = Rows::new(&self.schema);
        for (index, message) in window.iter().enumerate() {
            let mut target =
                Target { index, rows: &mut rows, rejects: &mut *rejects, rows_of: &mut *rows_of };
            self.message(message, &mut target);
        }
        rows.finish()
    }
}

/// Where the rows and rejects of one message go.
struct Target<'a> {
    index: usize,
    rows: &'a mut Rows,
    rejects: &'a mut Rejects,
    rows_of: &'a mut Vec<u32>,
}

impl Target<'_> {
    fn refuse(&mut self, place: &str, refused: &Refused) {
        self.rejects.push(self.index, refused.reason, format!("{place}{}", refused.detail));
    }
}

impl JsonDecoder {
    fn message(&self, message: &Message, target: &mut Target<'_>) {
        let bytes = message.payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&message.payload);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let refused =
                    Refused::new("invalid_utf8", format!("not UTF-8 at byte {}", error.valid_up_to()));
                return target.refuse("", &refused);
            }
        };
        let origin = match self.origin.cells(&message.origin) {
            Ok(cells) => cells,
            Err(refused) => return target.refuse("", &refused),
        };
        if self.lines {
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                self.document(line, &format!("line {}: ", number + 1), &origin, target);
            }
        } else {
            self.document(text, "", &origin, target);
        }
    }

    fn document(&self, text: &str, place: &str, origin: &[Cell<'_>], target: &mut Target<'_>) {
        let document: Value = match serde_json::from_str(text) {
            Ok(document) => document,
            Err(error) => {
                let detail = format!("{} at byte {}", syntax(&error), byte_of(text, &error));
                return target.refuse(place, &Refused::new("invalid_json", detail));
            }
        };
        let value = match &self.root {
            None => &document,
            Some(root) => {
                let Some(value) = root.find(&document) else {
                    let refused =
                        Refused::new("missing_value", format!("root: there is nothing at '{}'", root.text));
                    return target.refuse(place, &refused);
                };
                value
            }
        };
        if !self.each {
            return self.row(value, place, origin, target);
        }
        let Value::Array(elements) = value else {
            let detail = format!("an array of rows is expected, found {}", described(value));
            return target.refuse(place, &Refused::new("wrong_type", detail));
        };
        for (number, element) in elements.iter().enumerate() {
            self.row(element, &format!("{place}element {number}: "), origin, target);
        }
    }

    fn row(&self, value: &Value, place: &str, origin: &[Cell<'_>], target: &mut Target<'_>) {
        match self.cells(value) {
            Ok(mut cells) => {
                cells.extend(origin.iter().cloned());
                target.rows.push(&cells);
                target.rows_of.push(u32::try_from(target.index).unwrap_or(u32::MAX));
            }
            Err(refused) => target.refuse(place, &refused),
        }
    }

    fn cells<'a>(&self, value: &'a Value) -> Result<Vec<Cell<'a>>, Refused> {
        let fits = match value {
            Value::Object(_) => true,
            Value::Array(_) => self.takes_arrays,
            _ => self.takes_scalars,
        };
        if !fits {
            return Err(Refused::new(
                "wrong_type",
                format!("an object is expected, found {}", described(value)),
            ));
        }
        let mut cells = Vec::with_capacity(self.schema.fields().len());
        for (name, path, column) in &self.columns {
            cells.push(match path.find(value) {
                None | Some(Value::Null) if column.required => {
                    let detail = format!("column '{name}': there is no value at '{}'", path.text);
                    return Err(Refused::new("missing_value", detail));
                }
                None | Some(Value::Null) => Cell::Null,
                Some(found) => cell(found, column).map_err(|reason| {
                    let word = column.value_type.word();
                    let detail = format!("column '{name}': {word} is expected, found {}", described(found));
                    Refused::new(reason, detail)
                })?,
            });
        }
        Ok(cells)
    }
}

/// The value as a cell, or the code of the reject.
fn cell<'a>(value: &'a Value, column: &Column) -> Result<Cell<'a>, &'static str> {
    match (column.value_type, value) {
        (ValueType::Boolean, Value::Bool(truth)) => Ok(Cell::Boolean(*truth)),
        (ValueType::Int64, Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Cell::Int64(whole)),
            // 2^53: beyond it a double does not say which whole number it stands for.
            (None, Some(float)) if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 => {
                Ok(Cell::Int64(float as i64))
            }
            (None, Some(float)) if float.fract() == 0.0 => Err("out_of_range"),
            _ => Err("wrong_type"),
        },
        (ValueType::Float64, Value::Number(number)) => {
            number.as_f64().filter(|float| float.is_finite()).map(Cell::Float64).ok_or("out_of_range")
        }
        (ValueType::Utf8, Value::String(text)) => Ok(Cell::Utf8(Cow::Borrowed(text))),
        (ValueType::Timestamp, Value::String(text)) if column.unit.is_none() => {
            ValueType::Timestamp.parse(text, None).ok_or("wrong_type")
        }
        (ValueType::Timestamp, Value::Number(number)) => {
            let unit = column.unit.ok_or("wrong_type")?;
            match number.as_i64() {
                Some(whole) => unit.whole_to_us(whole),
                None => number.as_f64().and_then(|float| unit.to_us(float)),
            }
            .map(Cell::Timestamp)
            .ok_or("out_of_range")
        }
        (ValueType::Json, any) => Ok(Cell::Utf8(Cow::Owned(any.to_string()))),
        _ => Err("wrong_type"),
    }
}

/// A value in words: its kind and its beginning.
fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => format!("{truth}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text '{}'", shown(text)),
        Value::Array(elements) => format!("an array of {}", elements.len()),
        Value::Object(members) => format!("an object of {}", members.len()),
    }
}

/// The message of a syntax error without serde's line and column.
fn syntax(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or_else(|| text.clone(), |(what, _)| what.to_owned())
}

/// The byte at which a syntax error was found.
fn byte_of(text: &str, error: &serde_json::Error) -> usize {
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (line_start + error.column().saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests;
