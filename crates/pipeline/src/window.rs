//! A window of the log, processed: decoded, transformed, every message accounted for.
//!
//! Law: each message ends in at least one row of a sink or at least one reject, or is absorbed by a step that makes one
//! row of many. A message that gives no row at all is refused as `no_rows`; one whose rows no query let through, as
//! `filtered`. A message whose rows a step holds back has not ended yet: it is judged in the window in which the last of
//! them is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use twinlake_contracts::{
    Batch, Decoder, Error, LoggedMessage, Message, Position, Rejects, Result, timestamp_type,
};

use crate::flow::{Flow, Output, Refused};
use crate::held::Held;
use crate::model::SourceKind;
use crate::normalise::normalise;
use crate::plan::{Plan, added_fields};

/// The columns of `raw.<source>`.
pub(crate) fn raw_schema() -> SchemaRef {
    let [sequence, ingested_at] = added_fields();
    Arc::new(Schema::new(vec![
        sequence,
        ingested_at,
        Field::new("source", DataType::Utf8, true),
        Field::new("ordinal", DataType::Int64, true),
        Field::new("token", DataType::Utf8, true),
        Field::new("origin", DataType::Utf8, true),
        Field::new("payload", DataType::Binary, true),
    ]))
}

/// The columns of `meta.rejects`.
pub(crate) fn rejects_schema() -> SchemaRef {
    let [sequence, ingested_at] = added_fields();
    Arc::new(Schema::new(vec![
        sequence,
        ingested_at,
        Field::new("pipeline", DataType::Utf8, true),
        Field::new("component", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
        Field::new("origin", DataType::Utf8, true),
        Field::new("payload", DataType::Binary, true),
    ]))
}

/// What a window became: batches with the columns that their tables have.
#[derive(Debug, Default)]
pub(crate) struct Processed {
    /// Rows by sink.
    pub sinks: BTreeMap<String, RecordBatch>,
    /// All messages by source.
    pub raw: BTreeMap<String, RecordBatch>,
    /// Rejects with their payloads; `None` when there are none.
    pub rejects: Option<RecordBatch>,
    /// The same rejects, in the order of the log.
    pub refused: Vec<Refused>,
    /// What tapped steps gave.
    pub tapped: BTreeMap<String, Vec<Batch>>,
}

/// The source of the log's own messages that say: all inputs have ended here. No source can have this name.
pub(crate) const END_OF_INPUT: &str = "end of input";

/// The message that says that all inputs have ended.
pub(crate) fn end_of_input(ordinal: u64, received_at_us: i64) -> Message {
    let position = Position { ordinal, token: String::new() };
    Message { payload: Bytes::new(), origin: END_OF_INPUT.into(), position, received_at_us }
}

/// Processes consecutive messages of the log. An end of input may only be the last of them: there everything that was
/// held back goes on.
pub(crate) async fn process(plan: &Plan, flow: &mut Flow, window: Vec<LoggedMessage>) -> Result<Processed> {
    let mut by_source: BTreeMap<&str, (Vec<u64>, Vec<Message>)> = BTreeMap::new();
    for logged in window.iter().filter(|logged| &*logged.source != END_OF_INPUT) {
        let (sequences, messages) = by_source.entry(&logged.source).or_default();
        sequences.push(logged.sequence);
        messages.push(logged.message.clone());
    }
    let mut output = Output::default();
    let mut raw = BTreeMap::new();
    let mut decoded: BTreeSet<u64> = BTreeSet::new();
    for (source, (sequences, messages)) in by_source {
        raw.insert(source.to_owned(), raw_batch(plan, source, &sequences, &messages)?);
        // A message from before its source was taken out of the file: refused with its payload, never dropped.
        let Some(SourceKind::Messages { decoder, .. }) =
            plan.pipeline.sources.get(source).map(|node| &node.kind)
        else {
            let unread = sequences.iter().map(|sequence| Refused {
                component: source.to_owned(),
                reason: "unknown_source".into(),
                detail: "the pipeline has no source of this name any more".to_owned(),
                sequence: Some(*sequence),
            });
            output.refused.extend(unread);
            continue;
        };
        let decoder = Arc::clone(decoder);
        let work = move || decode(decoder.as_ref(), &messages);
        let (batches, rejects) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal(format!("decoding was broken off: {error}")))??;
        output.refused.extend(rejects.0.into_iter().filter_map(|reject| {
            Some(Refused {
                component: source.to_owned(),
                reason: reject.reason,
                detail: reject.detail,
                sequence: Some(*sequences.get(reject.index as usize)?),
            })
        }));
        for (rows, origin) in batches {
            let batch = settle(plan, source, &rows, &origin, &sequences, &mut output)?;
            decoded.extend(batch.sequences.iter().flatten());
            flow.push(source, batch, &mut output).await?;
        }
    }
    if let Some(end) = window.last().filter(|logged| &*logged.source == END_OF_INPUT) {
        flow.finish(Some(end.sequence), &mut output).await?;
        output.absorbed.insert(end.sequence);
    }
    conclude(plan, flow, &window, &decoded, output, raw)
}

/// After messages that were run with more tolerance than the settings have: what by the settings would have gone on by now,
/// goes on, as rows of the message `sequence` where they are of no single one.
pub(crate) async fn catch_up(plan: &Plan, flow: &mut Flow, last: LoggedMessage) -> Result<Processed> {
    let mut output = Output::default();
    flow.catch_up(last.sequence, &mut output).await?;
    // It was counted in its own window.
    output.absorbed.insert(last.sequence);
    conclude(plan, flow, &[last], &BTreeSet::new(), output, BTreeMap::new())
}

/// Accounts for every message of a window and gives rows and rejects the columns of their tables.
fn conclude(
    plan: &Plan,
    flow: &mut Flow,
    window: &[LoggedMessage],
    decoded: &BTreeSet<u64>,
    mut output: Output,
    raw: BTreeMap<String, RecordBatch>,
) -> Result<Processed> {
    account(window, decoded, &mut flow.held, &mut output);
    let known = Known { window, held: &flow.held };
    let mut refused = std::mem::take(&mut output.refused);
    refused.sort_by_key(|refused| refused.sequence); // stable: the order of the steps stays
    let mut sinks = BTreeMap::new();
    for (sink, batches) in output.sinks {
        sinks.insert(sink.clone(), sink_batch(plan, &sink, &known, &batches)?);
    }
    let rejects = (!refused.is_empty()).then(|| rejects_batch(plan, &known, &refused)).transpose()?;
    flow.held.forget();
    Ok(Processed { sinks, raw, rejects, refused, tapped: output.tapped })
}

type Decoded = (Vec<(RecordBatch, Vec<u32>)>, Rejects);

/// Decodes messages. When the decoder fails on the whole, halves are tried again, so that one message at fault never
/// stops the others: it is refused as `decoder_error`.
fn decode(decoder: &dyn Decoder, messages: &[Message]) -> Result<Decoded> {
    let mut batches = Vec::new();
    let mut all = Rejects::default();
    let mut parts = vec![(0, messages.len())];
    while let Some((start, length)) = parts.pop() {
        if length == 0 {
            continue;
        }
        let mut rejects = Rejects::default();
        let mut rows_of = Vec::new();
        let part = &messages[start..start + length];
        let result = catch_unwind(AssertUnwindSafe(|| decoder.decode(part, &mut rejects, &mut rows_of)))
            .unwrap_or_else(|_| Err(Error::internal("the decoder panicked")));
        match result {
            Ok(rows) if rows.num_rows() == rows_of.len() => {
                let shift = start as u32;
                all.0.extend(rejects.0.into_iter().map(|mut reject| {
                    reject.index += shift;
                    reject
                }));
                for index in &mut rows_of {
                    *index += shift;
                }
                batches.push((rows, rows_of));
            }
            Ok(rows) => {
                return Err(Error::internal(format!(
                    "the decoder gave {} rows and named the messages of {}",
                    rows.num_rows(),
                    rows_of.len()
                )));
            }
            Err(error @ Error::External { .. }) => return Err(error),
            Err(error) if length == 1 => all.push(start, "decoder_error", error.to_string()),
            Err(_) => {
                let half = length / 2;
                parts.push((start + half, length - half));
                parts.push((start, half));
            }
        }
    }
    Ok((batches, all))
}

/// Brings a decoder's batch to the source's normal schema and gives each row the sequence of its message.
fn settle(
    plan: &Plan,
    source: &str,
    rows: &RecordBatch,
    origin: &[u32],
    sequences: &[u64],
    output: &mut Output,
) -> Result<Batch> {
    let (rows, lost) = normalise(rows, &plan.schemas[source])?;
    let of = |index: u32| {
        let missing = || Error::internal("the decoder named a message that it was not given");
        sequences.get(index as usize).copied().ok_or_else(missing)
    };
    let own = origin.iter().map(|index| of(*index)).collect::<Result<Vec<u64>>>()?;
    if lost.is_empty() {
        return Ok(Batch { rows, sequences: Some(own) });
    }
    let mut keep = vec![true; own.len()];
    for lost in lost {
        if std::mem::replace(&mut keep[lost.row], false) {
            output.refused.push(Refused {
                component: source.to_owned(),
                reason: "out_of_range".into(),
                detail: format!("'{}' does not fit into a signed 64-bit integer", lost.column),
                sequence: Some(own[lost.row]),
            });
        }
    }
    let kept = own.into_iter().zip(&keep).filter(|(_, keep)| **keep).map(|(sequence, _)| sequence).collect();
    let rows = filter_record_batch(&rows, &keep.into())?;
    Ok(Batch { rows, sequences: Some(kept) })
}

/// Refuses the messages that ended nowhere, so that none disappears without a word.
fn account(window: &[LoggedMessage], decoded: &BTreeSet<u64>, held: &mut Held, output: &mut Output) {
    let landed = output.sinks.values().flatten().filter_map(|batch| batch.sequences.as_ref()).flatten();
    let refused = output.refused.iter().filter_map(|refused| refused.sequence.as_ref());
    let ended: BTreeSet<u64> = landed.chain(refused).chain(&output.absorbed).copied().collect();
    let first = window.first().map_or(u64::MAX, |logged| logged.sequence);
    for logged in held.close(window, &ended) {
        // What was held back from an earlier window was decoded there.
        let (reason, detail) = if decoded.contains(&logged.sequence) || logged.sequence < first {
            ("filtered", "no row of this message reached a sink")
        } else {
            ("no_rows", "the decoder found no row in this message")
        };
        output.refused.push(Refused {
            component: logged.source.to_string(),
            reason: reason.into(),
            detail: detail.to_owned(),
            sequence: Some(logged.sequence),
        });
    }
}

/// The messages that rows and rejects of a window may come from.
struct Known<'a> {
    window: &'a [LoggedMessage],
    held: &'a Held,
}

impl Known<'_> {
    /// The message with a sequence; the window's sequences are consecutive.
    fn message(&self, sequence: u64) -> Option<&Message> {
        let near = self
            .window
            .first()
            .and_then(|first| self.window.get(usize::try_from(sequence.checked_sub(first.sequence)?).ok()?));
        near.filter(|logged| logged.sequence == sequence)
            .or_else(|| self.held.message(sequence))
            .or_else(|| self.window.iter().find(|logged| logged.sequence == sequence))
            .map(|logged| &logged.message)
    }
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_data_type(timestamp_type()))
}

/// The rows of a sink with `_sequence` and `_ingested_at`.
fn sink_batch(plan: &Plan, sink: &str, known: &Known<'_>, batches: &[Batch]) -> Result<RecordBatch> {
    let parts = batches
        .iter()
        .map(|batch| {
            let rows = batch.rows.num_rows();
            let sequence = |row: usize| batch.sequences.as_ref().and_then(|own| own.get(row)).copied();
            let sequences: Int64Array = (0..rows).map(|row| sequence(row).map(|s| s as i64)).collect();
            let received = times((0..rows).map(|row| {
                sequence(row).and_then(|s| known.message(s)).map(|message| message.received_at_us)
            }));
            with_columns(&plan.tables[sink].schema, &batch.rows, sequences, received)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(concat_batches(&plan.tables[sink].schema, &parts)?)
}

/// Adds the two columns that every fed table has.
pub(crate) fn with_columns(
    schema: &SchemaRef,
    rows: &RecordBatch,
    sequences: Int64Array,
    received: ArrayRef,
) -> Result<RecordBatch> {
    let added: [ArrayRef; 2] = [Arc::new(sequences), received];
    let columns = rows.columns().iter().cloned().chain(added).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn raw_batch(plan: &Plan, source: &str, sequences: &[u64], messages: &[Message]) -> Result<RecordBatch> {
    let name = format!("{}/{source}", plan.pipeline.name);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(sequences.iter().map(|sequence| *sequence as i64).collect::<Int64Array>()),
        times(messages.iter().map(|message| Some(message.received_at_us))),
        Arc::new(messages.iter().map(|_| Some(name.as_str())).collect::<StringArray>()),
        Arc::new(messages.iter().map(|message| message.position.ordinal as i64).collect::<Int64Array>()),
        Arc::new(
            messages.iter().map(|message| Some(message.position.token.as_str())).collect::<StringArray>(),
        ),
        Arc::new(messages.iter().map(|message| Some(message.origin.as_ref())).collect::<StringArray>()),
        Arc::new(messages.iter().map(|message| Some(message.payload.as_ref())).collect::<BinaryArray>()),
    ];
    Ok(RecordBatch::try_new(raw_schema(), columns)?)
}

fn rejects_batch(plan: &Plan, known: &Known<'_>, refused: &[Refused]) -> Result<RecordBatch> {
    let messages: Vec<Option<&Message>> =
        refused.iter().map(|refused| refused.sequence.and_then(|s| known.message(s))).collect();
    let text = |of: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
        Arc::new((0..refused.len()).map(of).collect::<StringArray>())
    };
    let payloads: BinaryArray = messages.iter().map(|message| message.map(|m| m.payload.as_ref())).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(refused.iter().map(|r| r.sequence.map(|s| s as i64)).collect::<Int64Array>()),
        times(messages.iter().map(|message| message.map(|m| m.received_at_us))),
        text(&|_| Some(plan.pipeline.name.clone())),
        text(&|row| Some(refused[row].component.clone())),
        text(&|row| Some(refused[row].reason.to_string())),
        text(&|row| Some(refused[row].detail.clone())),
        text(&|row| messages[row].map(|m| m.origin.to_string())),
        Arc::new(payloads),
    ];
    Ok(RecordBatch::try_new(rejects_schema(), columns)?)
}
