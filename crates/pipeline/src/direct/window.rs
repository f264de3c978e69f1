//! A window of consecutive bodies of the log: their rows by table, their rejects, and the answers to their callers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{cast, concat, filter_record_batch};
use arrow::datatypes::{FieldRef, Schema};
use bytes::Bytes;
use tokio::sync::oneshot;
use twinlake_contracts::{
    BodyFormat, DecodedBody, Error, INGESTED_AT, IntakeError, Message, Precision, Receipt, RefusedPart,
    Rejects, Result, SEQUENCE, TableName, timestamp_type,
};

use super::budget::Held;
use super::envelope::Envelope;
use super::fit::Fit;
use super::keys::Known;
use crate::cell;
use crate::window::rejects_schema;

/// The longest payload of a reject.
const PAYLOAD_BYTES: usize = 64 << 10;

/// What a caller hears.
pub(super) type Answer = Result<Receipt, IntakeError>;

/// A body on its way from the log to the tables.
pub(super) struct Entry {
    pub sequence: u64,
    pub message: Message,
    pub envelope: Envelope,
    /// A fingerprint of body and format, for deliveries that have a key.
    pub fingerprint: u64,
    /// The rows; an error when the body cannot be read at all (any more).
    pub decoded: Result<DecodedBody>,
    /// Who waits for the answer; nobody after a restart.
    pub reply: Option<oneshot::Sender<Answer>>,
    /// Its share of the memory.
    pub held: Option<Held>,
}

impl Entry {
    /// A body of the log that says not what it is.
    pub fn unreadable(sequence: u64, message: Message, error: Error) -> Self {
        let format = BodyFormat::LineProtocol { database: String::new(), precision: Precision::default() };
        let envelope = Envelope { format, key: None };
        Self { sequence, message, envelope, fingerprint: 0, decoded: Err(error), reply: None, held: None }
    }
}

/// What becomes of one body.
pub(super) struct Outcome {
    pub sequence: u64,
    pub rows: u64,
    /// All refused parts; those found while fitting are added behind those found while decoding.
    pub refused: Vec<(RefusedPart, Option<TableName>)>,
    pub repeated: Option<Answer>,
    pub message: Message,
    pub envelope: Envelope,
    pub fingerprint: u64,
    pub reply: Option<oneshot::Sender<Answer>>,
    held: Option<Held>,
}

/// Rows of one body for one table, in the table's shape.
pub(super) struct Part {
    /// Which of the window's outcomes it belongs to.
    pub outcome: usize,
    pub rows: RecordBatch,
}

/// A refused part with its body and its table.
type RejectRow<'a> = (&'a Outcome, &'a RefusedPart, Option<&'a TableName>);

/// The window while it is put together.
#[derive(Default)]
pub(super) struct Window {
    pub outcomes: Vec<Outcome>,
    pub parts: BTreeMap<TableName, Vec<Part>>,
    /// Deliveries of this window by their keys.
    keys: HashMap<String, usize>,
}

impl Outcome {
    /// The outcome without any row yet, and what there is to land.
    pub fn of(entry: Entry) -> (Self, DecodedBody) {
        let body = &entry.message.payload;
        let mut decoded = entry.decoded.unwrap_or_else(|error| {
            let (reason, detail) = match error {
                Error::Data { reason, message } => (reason, message),
                other => ("decoder_error".into(), other.to_string()),
            };
            let part = RefusedPart { place: 0, reason, detail, text: body.clone() };
            DecodedBody { tables: Vec::new(), refused: vec![part] }
        });
        let refused = std::mem::take(&mut decoded.refused);
        let outcome = Self {
            sequence: entry.sequence,
            rows: 0,
            refused: refused.into_iter().map(|part| (part, None)).collect(),
            repeated: None,
            message: entry.message,
            envelope: entry.envelope,
            fingerprint: entry.fingerprint,
            reply: entry.reply,
            held: entry.held,
        };
        (outcome, decoded)
    }

    /// What is remembered of it, if it has a key.
    pub fn known(&self) -> Known {
        Known {
            sequence: self.sequence,
            fingerprint: self.fingerprint,
            rows: self.rows,
            refused: self.refused.len() as u64,
        }
    }

    fn receipt(&self) -> Receipt {
        let parts = self.refused.iter().take(Receipt::PARTS).map(|(part, _)| RefusedPart {
            text: Bytes::copy_from_slice(&part.text[..part.text.len().min(Receipt::TEXT_BYTES)]),
            ..part.clone()
        });
        Receipt {
            rows: self.rows,
            refused: self.refused.len() as u64,
            parts: parts.collect(),
            repeated: false,
        }
    }

    /// Tells the caller, if somebody waits.
    pub fn answer(mut self) {
        drop(self.held.take());
        let answer = self.repeated.take().unwrap_or_else(|| Ok(self.receipt()));
        if let Some(reply) = self.reply.take() {
            // A caller that went away has its rows all the same.
            let _ = reply.send(answer);
        }
    }
}

impl Window {
    pub fn push(&mut self, outcome: Outcome) {
        if let (Some(key), None) = (&outcome.envelope.key, &outcome.repeated) {
            self.keys.insert(key.clone(), self.outcomes.len());
        }
        self.outcomes.push(outcome);
    }

    /// The delivery of this window that has a key.
    pub fn by_key(&self, key: &str) -> Option<Known> {
        self.keys.get(key).and_then(|at| self.outcomes.get(*at)).map(Outcome::known)
    }

    /// Adds the rows of a body that fit a table.
    pub fn add(&mut self, table: &TableName, fit: Fit) -> Result<()> {
        let outcome = self.outcomes.len() - 1;
        let Some(of) = self.outcomes.last_mut() else { return Ok(()) };
        of.rows += fit.count as u64;
        let (mut fields, mut arrays): (Vec<FieldRef>, Vec<ArrayRef>) = fit.columns.into_iter().unzip();
        let [sequence, ingested_at] = crate::plan::added_fields();
        fields.extend([Arc::new(sequence), Arc::new(ingested_at)]);
        arrays.push(Arc::new(Int64Array::from_value(of.sequence as i64, fit.count)));
        let received = TimestampMicrosecondArray::from_value(of.message.received_at_us, fit.count);
        arrays.push(Arc::new(received.with_data_type(timestamp_type())));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        self.parts.entry(table.clone()).or_default().push(Part { outcome, rows });
        Ok(())
    }

    /// Takes back rows of a body that may not land; `part` is its place among those of the table.
    pub fn refuse_rows(&mut self, table: &TableName, part: usize, rejects: &Rejects) -> Result<()> {
        let part = self.parts.get_mut(table).and_then(|parts| parts.get_mut(part));
        let Some(part) = part.filter(|_| !rejects.0.is_empty()) else { return Ok(()) };
        let Some(outcome) = self.outcomes.get_mut(part.outcome) else { return Ok(()) };
        let mut keep = vec![true; part.rows.num_rows()];
        for reject in &rejects.0 {
            let row = reject.index as usize;
            if let Some(keep) = keep.get_mut(row) {
                *keep = false;
            }
            outcome.rows -= 1;
            let refused = RefusedPart {
                place: 0,
                reason: Arc::clone(&reject.reason),
                detail: reject.detail.clone(),
                text: row_text(&part.rows, row),
            };
            outcome.refused.push((refused, Some(table.clone())));
        }
        part.rows = filter_record_batch(&part.rows, &BooleanArray::from(keep))?;
        Ok(())
    }

    /// Takes back the rows of a table that refused them, and refuses them with its reason.
    pub fn refuse_table(&mut self, table: &TableName, reason: &str, detail: &str) {
        for part in self.parts.remove(table).unwrap_or_default() {
            let Some(outcome) = self.outcomes.get_mut(part.outcome) else { continue };
            outcome.rows -= part.rows.num_rows() as u64;
            outcome.refused.extend((0..part.rows.num_rows()).map(|row| {
                let refused = RefusedPart {
                    place: 0,
                    reason: reason.into(),
                    detail: detail.to_owned(),
                    text: row_text(&part.rows, row),
                };
                (refused, Some(table.clone()))
            }));
        }
    }

    /// The rejects of the bodies above a sequence.
    pub fn rejects(&self, above: u64) -> Result<Option<RecordBatch>> {
        let refused: Vec<RejectRow<'_>> = self
            .outcomes
            .iter()
            .filter(|outcome| outcome.sequence > above)
            .flat_map(|outcome| {
                outcome.refused.iter().map(move |(part, table)| (outcome, part, table.as_ref()))
            })
            .collect();
        if refused.is_empty() {
            return Ok(None);
        }
        let rows = || refused.iter();
        let received: TimestampMicrosecondArray =
            rows().map(|(outcome, ..)| Some(outcome.message.received_at_us)).collect();
        let text = |of: &dyn Fn(&RejectRow<'_>) -> String| -> ArrayRef {
            Arc::new(refused.iter().map(|row| Some(of(row))).collect::<StringArray>())
        };
        let payloads: BinaryArray =
            rows().map(|(_, part, _)| Some(&part.text[..part.text.len().min(PAYLOAD_BYTES)])).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows().map(|(outcome, ..)| Some(outcome.sequence as i64)).collect::<Int64Array>()),
            Arc::new(received.with_data_type(timestamp_type())),
            text(&|_| super::LOG.to_owned()),
            text(&|(outcome, _, table)| {
                table.map_or_else(|| outcome.message.origin.to_string(), ToString::to_string)
            }),
            text(&|(_, part, _)| part.reason.to_string()),
            text(&|(_, part, _)| match part.place {
                0 => part.detail.clone(),
                place => format!("{place}: {}", part.detail),
            }),
            text(&|(outcome, ..)| outcome.message.origin.to_string()),
            Arc::new(payloads),
        ];
        Ok(Some(RecordBatch::try_new(rejects_schema(), columns)?))
    }
}

/// A row as the text of a reject.
pub(super) fn row_text(rows: &RecordBatch, at: usize) -> Bytes {
    let mut row = cell::row(rows, at);
    row.retain(|name, value| !value.is_null() && name != SEQUENCE && name != INGESTED_AT);
    Bytes::from(serde_json::Value::Object(row).to_string())
}

/// The rows of a table's parts above a sequence as one batch, with the columns that any of them has.
pub(super) fn combine(
    parts: &[Part],
    outcomes: &[Outcome],
    schema: &Schema,
    above: u64,
) -> Result<Option<RecordBatch>> {
    let due = |part: &&Part| outcomes.get(part.outcome).is_some_and(|outcome| outcome.sequence > above);
    let due: Vec<&RecordBatch> = parts.iter().filter(due).map(|part| &part.rows).collect();
    if due.is_empty() {
        return Ok(None);
    }
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in schema.fields() {
        if due.iter().all(|rows| rows.column_by_name(field.name()).is_none()) {
            continue; // the table's own business: null, or a column that it computes
        }
        let arrays = due.iter().map(|rows| match rows.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            Some(values) if values.data_type() == field.data_type() => Ok(Arc::clone(values)),
            Some(values) => cast(values, field.data_type()),
        });
        let mut arrays = arrays.collect::<Result<Vec<ArrayRef>, _>>()?;
        columns.push(match (arrays.len(), arrays.pop()) {
            (1, Some(only)) => only,
            (_, last) => {
                arrays.extend(last);
                concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>())?
            }
        });
        fields.push(Arc::clone(field));
    }
    Ok(Some(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?))
}
