//! Decoder `csv`: delimited text, a record or a whole file a message.
//!
//! Rules: fields are as RFC 4180 has them (quoted fields may hold delimiters, line ends and doubled quotes); a record
//! with another number of fields than the header is a reject (`wrong_field_count`), a field that is not of its column's
//! type is one too (`wrong_type`), and so is a quote that is never closed (`unclosed_quote`): what follows it cannot be
//! told apart. Each names the line. An empty field, or one of `null`, is null.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use csv::{ByteRecord, ReaderBuilder};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Component, Decoder, Error, Message, Rejects, Result, suggest};

use crate::columns::{Column, OriginColumns, Refused, TopicColumn, check_names};
use crate::values::{Cell, Rows, shown};

/// What a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CsvMessage {
    /// A whole file (or any number of records), each message with its own header.
    #[default]
    File,
    /// One record without a header, as the `files` source gives with `split = "lines"`.
    Line,
}

/// Decodes delimited text into rows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvSettings {
    /// What a message is.
    #[serde(default)]
    pub message: CsvMessage,
    /// Whether the first record of a message names the fields (only for `message = "file"`).
    #[serde(default = "yes")]
    pub header: bool,
    /// The names of the fields, when no header gives them. With `message = "line"`, a line that holds exactly these
    /// names is the header of a file and is skipped.
    #[serde(default)]
    pub names: Vec<String>,
    /// The character between fields.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// The character around fields that hold delimiters or line ends; none with "".
    #[serde(default = "double_quote")]
    pub quote: String,
    /// Texts that mean null, besides the empty one.
    #[serde(default)]
    pub null: Vec<String>,
    /// The columns, in their order: name and type, or name and a table whose `path` is the field's name or number.
    pub columns: IndexMap<String, Column>,
    /// Columns from the segments of the topic.
    #[serde(default)]
    pub topic: IndexMap<String, TopicColumn>,
    /// The name of a column that holds the whole topic (the origin of the message, for files their path).
    pub origin: Option<String>,
}

fn yes() -> bool {
    true
}

fn comma() -> char {
    ','
}

fn double_quote() -> String {
    "\"".to_owned()
}

fn byte(what: &str, character: char) -> Result<u8> {
    u8::try_from(character).ok().filter(u8::is_ascii).ok_or_else(|| {
        Error::config(format!("'{what}' is '{character}'"))
            .with_help("one ASCII character is expected, such as ';'")
    })
}

impl Component for CsvSettings {
    const TYPE: &'static str = "csv";
    type Product = dyn Decoder;

    fn build(self) -> Result<Box<dyn Decoder>> {
        let origin = OriginColumns::new(self.topic, self.origin);
        let fields: Vec<Field> =
            self.columns.iter().map(|(name, column)| column.field(name)).chain(origin.fields()).collect();
        check_names(&fields)?;
        let delimiter = byte("delimiter", self.delimiter)?;
        let mut quotes = self.quote.chars();
        let quote = match (quotes.next(), quotes.next()) {
            (None, _) => None,
            (Some(character), None) => Some(byte("quote", character)?),
            _ => {
                return Err(Error::config(format!("'quote' is '{}'", self.quote))
                    .with_help("one character, or \"\" for none"));
            }
        };
        if quote == Some(delimiter) {
            return Err(Error::config("'delimiter' and 'quote' are the same character"));
        }
        let own_header = self.message == CsvMessage::File && self.header;
        if own_header && !self.names.is_empty() {
            return Err(Error::config("both a header in the file and 'names' are given")
                .with_help("write header = false to use 'names'"));
        }
        let columns: Vec<(String, Column)> = self.columns.into_iter().collect();
        let fixed = if own_header { None } else { Some(places(&columns, &self.names)?) };
        Ok(Box::new(CsvDecoder {
            schema: Arc::new(Schema::new(fields)),
            by_line: self.message == CsvMessage::Line,
            names: self.names,
            delimiter,
            quote,
            null: self.null,
            columns,
            fixed,
            origin,
        }))
    }
}

/// For each column the number of its field: by name, or by a `path` that is a number.
fn places(columns: &[(String, Column)], names: &[String]) -> Result<Vec<usize>> {
    let by_name: HashMap<&str, usize> =
        names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
    columns
        .iter()
        .map(|(name, column)| {
            let wanted = column.path.as_deref().unwrap_or(name);
            by_name.get(wanted).copied().or_else(|| wanted.parse().ok()).ok_or_else(|| {
                let error = Error::config(format!("column '{name}': there is no field '{wanted}'"));
                match suggest(wanted, names.iter().map(String::as_str)) {
                    Some(near) => error.with_help(format!("did you mean '{near}'?")),
                    None if names.is_empty() => {
                        error.with_help("name the fields with 'names', or number them")
                    }
                    None => error.with_help(format!("the fields are: {}", names.join(", "))),
                }
            })
        })
        .collect()
}

struct CsvDecoder {
    schema: SchemaRef,
    by_line: bool,
    names: Vec<String>,
    delimiter: u8,
    quote: Option<u8>,
    null: Vec<String>,
    columns: Vec<(String, Column)>,
    /// The fields' numbers when they do not come from a header.
    fixed: Option<Vec<usize>>,
    origin: OriginColumns,
}

impl Decoder for CsvDecoder {
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
            let outcome = self.message(message, &mut |line, row| match row {
                Ok(cells) => {
                    rows.push(&cells);
                    rows_of.push(u32::try_from(index).unwrap_or(u32::MAX));
                }
                Err(refused) => {
                    rejects.push(index, refused.reason, format!("line {line}: {}", refused.detail));
                }
            });
            if let Err(refused) = outcome {
                rejects.push(index, refused.reason, refused.detail);
            }
        }
        rows.finish()
    }
}

type Row<'a> = Result<Vec<Cell<'a>>, Refused>;

impl CsvDecoder {
    /// Reads the records of a message; an error is about the whole of it.
    fn message(&self, message: &Message, take: &mut dyn FnMut(u64, Row<'_>)) -> Result<(), Refused> {
        let bytes = message.payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&message.payload);
        let origin = self.origin.cells(&message.origin)?;
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .quote(self.quote.unwrap_or(b'"'))
            .quoting(self.quote.is_some())
            .from_reader(bytes);
        let mut record = ByteRecord::new();
        let mut places: Option<Cow<'_, [usize]>> = self.fixed.as_deref().map(Cow::Borrowed);
        let mut width = (!self.names.is_empty()).then_some(self.names.len());
        let (mut line, mut counted) = (1, 0);
        loop {
            let begin = (reader.position().byte() as usize).min(bytes.len());
            match reader.read_byte_record(&mut record) {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => return Err(Refused::new("invalid_csv", error.to_string())),
            }
            // The reader's own count is behind by one after \r\n; line ends before a record are no part of it.
            let blank = bytes[begin..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            line += bytes[counted..begin + blank].split(|byte| *byte == b'\n').count() as u64 - 1;
            counted = begin + blank;
            let end = reader.position().byte() as usize;
            if end >= bytes.len() && self.is_unclosed(&bytes[begin..]) {
                let refused = Refused::new("unclosed_quote", "a quoted field is not closed before the end");
                take(line, Err(refused));
                break;
            }
            let Some(places) = &places else {
                let names: Vec<String> =
                    record.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
                width = Some(names.len());
                let found = self::places(&self.columns, &names)
                    .map_err(|error| Refused::new("wrong_header", error.to_string().replace('\n', ";")))?;
                places = Some(Cow::Owned(found));
                continue;
            };
            if self.by_line
                && !self.names.is_empty()
                && record.iter().eq(self.names.iter().map(String::as_bytes))
            {
                continue;
            }
            if let Some(width) = width
                && record.len() != width
            {
                let detail = format!("{} fields instead of {width}", record.len());
                take(line, Err(Refused::new("wrong_field_count", detail)));
                continue;
            }
            take(line, self.row(&record, places, &origin));
        }
        Ok(())
    }

    /// Whether the last record's text opens a quoted field without closing it.
    fn is_unclosed(&self, text: &[u8]) -> bool {
        let Some(quote) = self.quote else { return false };
        let mut inside = false;
        let mut may_open = true;
        for byte in text {
            if inside {
                if *byte == quote {
                    // A doubled quote closes and opens again.
                    (inside, may_open) = (false, true);
                }
            } else if *byte == quote {
                // A quote inside an unquoted field is text.
                inside = may_open;
            } else {
                may_open = [self.delimiter, b'\n', b'\r'].contains(byte);
            }
        }
        inside
    }

    fn row<'a>(&self, record: &'a ByteRecord, places: &[usize], origin: &[Cell<'a>]) -> Row<'a> {
        let mut cells = Vec::with_capacity(self.schema.fields().len());
        for ((name, column), place) in self.columns.iter().zip(places) {
            let Some(field) = record.get(*place) else {
                let detail = format!("column '{name}': {} fields, none of number {place}", record.len());
                return Err(Refused::new("wrong_field_count", detail));
            };
            let text = std::str::from_utf8(field)
                .map_err(|_| Refused::new("invalid_utf8", format!("column '{name}': not UTF-8")))?;
            if text.is_empty() || self.null.iter().any(|null| null == text) {
                if column.required {
                    return Err(Refused::new("missing_value", format!("column '{name}': there is no value")));
                }
                cells.push(Cell::Null);
                continue;
            }
            cells.push(column.value_type.parse(text, column.unit).ok_or_else(|| {
                let word = column.value_type.word();
                let detail = format!("column '{name}': {word} is expected, found '{}'", shown(text));
                Refused::new("wrong_type", detail)
            })?);
        }
        cells.extend(origin.iter().cloned());
        Ok(cells)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};
    use serde_json::{Value, json};

    use super::*;
    use crate::conformance::{message, test_data};

    fn decode(settings: Value, messages: &[Message]) -> (RecordBatch, Vec<(String, String)>) {
        let decoder = crate::decoders().build("csv", settings).expect("settings");
        let (mut rejects, mut rows_of) = (Rejects::default(), Vec::new());
        let batch = decoder.decode(messages, &mut rejects, &mut rows_of).expect("batch");
        assert_eq!(batch.num_rows(), rows_of.len());
        (batch, rejects.0.into_iter().map(|r| (r.reason.to_string(), r.detail)).collect())
    }

    #[test]
    fn reads_a_file_with_a_header_and_rejects_bad_rows_by_line() {
        let text = "\u{feff}station;pm10;\"when it, was\"\r\nA;1,5;2013-03-01 00:00\r\nB;NA;\r\n\"C\n;\";x;\r\nD;2\r\nE;3;soon\r\n";
        let settings = json!({
            "delimiter": ";", "null": ["NA"],
            "columns": {
                "name": {"path": "station", "type": "utf8", "required": true}, "pm10": "utf8",
                "ts": {"path": "when it, was", "type": "timestamp"},
            },
            "origin": "file",
        });
        let (batch, rejects) = decode(settings, &[message("air.csv", text)]);
        assert_eq!(batch.num_rows(), 3);
        let names = batch.column(0).as_string::<i32>();
        assert_eq!((names.value(0), names.value(2)), ("A", "C\n;"));
        assert!(batch.column(1).is_null(1) && batch.column(2).is_null(1));
        assert_eq!(batch.column(3).as_string::<i32>().value(0), "air.csv");
        assert_eq!(rejects[0], ("wrong_field_count".into(), "line 6: 2 fields instead of 3".into()));
        assert_eq!(rejects[1].0, "wrong_type");
        assert!(rejects[1].1.starts_with("line 7: column 'ts'"), "{}", rejects[1].1);
    }

    #[test]
    fn reads_lines_by_name_and_skips_the_header_line() {
        let settings =
            json!({"message": "line", "names": ["id", "v"], "columns": {"v": "float64", "id": "int64"}});
        let lines = ["id,v", "1,2.5", "2,\"3.5\"", "3", "x,1", "4,\"open"];
        let messages: Vec<Message> = lines.iter().map(|line| message("f", line)).collect();
        let (batch, rejects) = decode(settings, &messages);
        assert_eq!(batch.column(0).as_primitive::<Float64Type>().values().to_vec(), [2.5, 3.5]);
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().values().to_vec(), [1, 2]);
        let reasons: Vec<&str> = rejects.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(reasons, ["wrong_field_count", "wrong_type", "unclosed_quote"]);
        let numbered = json!({"header": false, "columns": {"second": {"path": "1", "type": "utf8"}}});
        let (batch, rejects) = decode(numbered, &[message("f", "a,\"b \"\"x\"\"\"\nc\n5\" pipe,d \"e\"\n")]);
        assert_eq!(
            batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["b \"x\"", "d \"e\""]
        );
        assert_eq!(rejects[0].0, "wrong_field_count");
    }

    #[test]
    fn a_header_without_the_columns_is_one_reject_with_a_suggestion() {
        let settings = json!({"columns": {"speed": "float64"}});
        let (batch, rejects) = decode(settings, &[message("f", "sped,x\n1,2\n")]);
        assert_eq!(batch.num_rows(), 0);
        assert_eq!(rejects[0].0, "wrong_header");
        assert!(rejects[0].1.contains("did you mean 'sped'"), "{}", rejects[0].1);
        for settings in [
            json!({"columns": {}}),
            json!({"columns": {"a": "utf8"}, "delimiter": "ä"}),
            json!({"columns": {"a": "utf8"}, "delimiter": "\""}),
            json!({"columns": {"a": "utf8"}, "quote": "''"}),
            json!({"columns": {"a": "utf8"}, "names": ["a"]}),
            json!({"columns": {"a": "utf8"}, "header": false, "names": ["b"]}),
        ] {
            assert!(crate::decoders().build("csv", settings.clone()).is_err(), "{settings}");
        }
    }

    #[test]
    fn reads_csv_spectrum() {
        let Some(folder) = test_data("conformance/csv-spectrum") else { return };
        let mut seen = 0;
        for entry in std::fs::read_dir(folder.join("csvs")).expect("folder") {
            let path = entry.expect("entry").path();
            let stem = path.file_stem().expect("name").to_string_lossy().into_owned();
            let expected = std::fs::read(folder.join(format!("json/{stem}.json"))).expect("json");
            let expected: Vec<serde_json::Map<String, Value>> =
                serde_json::from_slice(&expected).expect("json");
            let columns: serde_json::Map<String, Value> =
                expected[0].keys().map(|name| (name.clone(), json!("utf8"))).collect();
            let payload = std::fs::read(&path).expect("csv");
            let (batch, rejects) = decode(
                json!({"columns": columns}),
                &[Message { payload: payload.into(), ..message("f", "") }],
            );
            assert_eq!(rejects, [], "{stem}");
            assert_eq!(batch.num_rows(), expected.len(), "{stem}");
            for (row, members) in expected.iter().enumerate() {
                for (name, value) in members {
                    let column = batch.column_by_name(name).expect("column").as_string::<i32>();
                    let found =
                        if arrow::array::Array::is_null(column, row) { "" } else { column.value(row) };
                    // The suite's files have \r\n inside quotes where its JSON has \n.
                    assert_eq!(
                        found.replace("\r\n", "\n"),
                        value.as_str().expect("text").replace("\r\n", "\n"),
                        "{stem}"
                    );
                }
            }
            seen += 1;
        }
        assert!(seen >= 10, "{seen}");
    }
}
