//! A decoder for tests: one row a line, `measurement key=value key=value`.
//!
//! Whole numbers are Int64, numbers with a point Float64, the rest text. A line that starts with `!` is refused, a body
//! that starts with `?` is none, and `panic` is a defect of the decoder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use twinlake_contracts::{
    BodyDecoder, BodyFormat, COLUMN_ROLE, Clock, DecodedBody, Delivery, Error, ORIGINAL_NAME, Precision,
    RefusedPart, Result, RowsFor, TableName, TableRows, timestamp_type,
};

use super::{DirectIngest, DirectOptions};
use crate::fakes::{Durable, FakeStore, Faults};

pub struct Lines;

impl BodyDecoder for Lines {
    fn decode(&self, format: &BodyFormat, body: &Bytes, received_at_us: i64) -> Result<DecodedBody> {
        let text = std::str::from_utf8(body).unwrap();
        assert!(!text.starts_with("panic"), "a defect of the decoder");
        if text.starts_with('?') {
            return Err(Error::data("invalid_body", "this is no body"));
        }
        let mut decoded = DecodedBody::default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('!') {
                decoded.refused.push(RefusedPart {
                    place: number.into(),
                    reason: "invalid_line".into(),
                    detail: "a bad line".to_owned(),
                    text: Bytes::copy_from_slice(line.as_bytes()),
                });
            } else {
                decoded.tables.push(row(format, line, number, received_at_us));
            }
        }
        Ok(decoded)
    }

    fn texts(&self, format: &BodyFormat, body: &Bytes, places: &[u32]) -> Option<Vec<Bytes>> {
        let lines: Vec<&str> = std::str::from_utf8(body).unwrap().lines().collect();
        let text = |place: &u32| Bytes::copy_from_slice(lines[*place as usize - 1].as_bytes());
        matches!(format, BodyFormat::LineProtocol { .. }).then(|| places.iter().map(text).collect())
    }
}

fn row(format: &BodyFormat, line: &str, place: u32, received_at_us: i64) -> TableRows {
    let mut words = line.split(' ');
    let measurement = words.next().unwrap();
    let (table, strict) = match format {
        BodyFormat::LineProtocol { database, .. } => {
            let (database, measurement) = (database.as_str().into(), measurement.into());
            (RowsFor::Measurement { database, measurement }, true)
        }
        BodyFormat::JsonRows { table } | BodyFormat::ArrowStream { table } => {
            (RowsFor::Table(table.clone()), false)
        }
    };
    let time = TimestampMicrosecondArray::from(vec![received_at_us]).with_data_type(timestamp_type());
    let mut fields = vec![Field::new("ts", timestamp_type(), true)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(time)];
    for word in words {
        let (key, value) = word.split_once('=').unwrap();
        let values: ArrayRef = match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(number), _) => Arc::new(Int64Array::from(vec![number])),
            (_, Ok(number)) => Arc::new(Float64Array::from(vec![number])),
            _ => Arc::new(StringArray::from(vec![value])),
        };
        let metadata = strict.then(|| {
            let metadata = [(ORIGINAL_NAME, key), (COLUMN_ROLE, "field")];
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        });
        let metadata: HashMap<String, String> = metadata.unwrap_or_default();
        fields.push(Field::new(key, values.data_type().clone(), true).with_metadata(metadata));
        columns.push(values);
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    TableRows { table, rows, places: vec![place] }
}

struct Noon;

impl Clock for Noon {
    fn now_us(&self) -> i64 {
        43_200_000_000
    }
}

/// Direct ingest over a store that survives it.
pub async fn open(
    durable: &Arc<Mutex<Durable>>,
    faults: Arc<Faults>,
    options: DirectOptions,
) -> Result<Arc<DirectIngest>> {
    let store = FakeStore::new(durable, faults);
    DirectIngest::open(Arc::new(store), Arc::new(Lines), Some(Arc::new(Noon)), options).await
}

/// Quick enough for tests.
pub fn options() -> DirectOptions {
    DirectOptions {
        commit_interval: std::time::Duration::from_millis(2),
        first_pause: std::time::Duration::from_micros(10),
        longest_pause: std::time::Duration::from_micros(50),
        ..DirectOptions::default()
    }
}

pub fn lines(text: &str, key: Option<&str>) -> Delivery {
    let format = BodyFormat::LineProtocol { database: "plant".to_owned(), precision: Precision::default() };
    Delivery { body: Bytes::from(text.to_owned()), format, key: key.map(str::to_owned) }
}

pub fn json(table: &str, text: &str) -> Delivery {
    let format = BodyFormat::JsonRows { table: TableName::parse(table).unwrap() };
    Delivery { format, ..lines(text, None) }
}

/// The rows of all tables without their log sequence, sorted.
pub fn content(durable: &Mutex<Durable>) -> std::collections::BTreeMap<String, Vec<String>> {
    let durable = durable.lock().unwrap();
    let tables = durable.tables.iter().map(|(name, rows)| {
        let mut rows: Vec<String> = rows
            .iter()
            .map(|row| {
                let mut row: serde_json::Value = serde_json::from_str(row).unwrap();
                row.as_object_mut().unwrap().retain(|key, value| key != "_sequence" && !value.is_null());
                row.to_string()
            })
            .collect();
        rows.sort();
        (name.clone(), rows)
    });
    tables.collect()
}
