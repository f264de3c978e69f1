//! The messages of a pipeline as `raw.<source>` keeps them, in the order of the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use twinlake_contracts::{
    Error, INGESTED_AT, LoggedMessage, Message, Position, Result, SEQUENCE, Sequences, SqlEngine,
};

use crate::transforms::late_by_us;
use crate::window::{END_OF_INPUT, end_of_input};

/// How many sequences are looked through at a time when messages are chosen.
const CHOOSE_AT_ONCE: u64 = 4_000_000;

/// Which messages.
pub(super) struct Selection<'a> {
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
    pub condition: Option<&'a str>,
}

/// What was refused as late.
pub(super) struct Late {
    /// How many rows.
    pub rows: u64,
    /// By how much the latest of them was late.
    pub most_us: Option<i64>,
}

/// The messages of one pipeline up to a cut.
#[derive(Clone)]
pub(super) struct Messages {
    engine: Arc<dyn SqlEngine>,
    pipeline: String,
    /// The names of the tables in the schema `raw` that hold any of them.
    sources: Vec<String>,
    /// The first that is kept; `None` when there is none.
    pub first: Option<u64>,
    cut: u64,
    /// Messages of sources that the file no longer had when they came: they are rejects alone.
    unread: Arc<BTreeSet<u64>>,
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn name(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\"\""))
}

fn instant(us: i64) -> String {
    format!("arrow_cast({us}, 'Timestamp(Microsecond, Some(\"UTC\"))')")
}

fn numbers(batch: &RecordBatch, column: usize) -> Result<Vec<Option<u64>>> {
    let values = cast(batch.column(column), &DataType::Int64)?;
    let values = values.as_primitive::<Int64Type>();
    Ok(values.iter().map(|value| value.and_then(|value| u64::try_from(value).ok())).collect())
}

impl Messages {
    pub async fn open(pipeline: &str, engine: &Arc<dyn SqlEngine>, cut: u64) -> Result<Self> {
        let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'raw' ORDER BY 1";
        let mut all = Vec::new();
        for batch in engine.read_tables(tables).await? {
            let names = cast(batch.column(0), &DataType::Utf8)?;
            all.extend(names.as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        let mut messages = Self {
            engine: Arc::clone(engine),
            pipeline: pipeline.to_owned(),
            sources: Vec::new(),
            first: None,
            cut,
            unread: Arc::default(),
        };
        for source in all {
            let sql = format!(
                "SELECT min({SEQUENCE}) FROM raw.{} WHERE source = {} AND {SEQUENCE} <= {cut}",
                name(&source),
                text(&format!("{pipeline}/{source}"))
            );
            let batches = engine.read_tables(&sql).await?;
            let least = batches.first().map(|batch| numbers(batch, 0)).transpose()?.unwrap_or_default();
            if let Some(Some(least)) = least.first() {
                messages.first = Some(messages.first.map_or(*least, |first: u64| first.min(*least)));
                messages.sources.push(source);
            }
        }
        let unread = format!(
            "SELECT {SEQUENCE} FROM meta.rejects WHERE pipeline = {} AND reason = 'unknown_source'",
            text(pipeline)
        );
        // Without a first message nothing has ever been refused either, and the table may not be there.
        if messages.first.is_some() {
            let mut found = BTreeSet::new();
            for batch in engine.read_tables(&unread).await.unwrap_or_default() {
                found.extend(numbers(&batch, 0)?.into_iter().flatten());
            }
            messages.unread = Arc::new(found);
        }
        Ok(messages)
    }

    /// A query over all sources: the columns with `{source}` for the source's table.
    fn over(&self, columns: &str, condition: &str, after: u64, upto: u64) -> String {
        let parts = self.sources.iter().map(|source| {
            format!(
                "SELECT {columns} FROM raw.{} WHERE source = {} AND {SEQUENCE} > {after} AND {SEQUENCE} <= {upto}{condition}",
                name(source),
                text(&format!("{}/{source}", self.pipeline)),
            )
        });
        parts.collect::<Vec<_>>().join(" UNION ALL ")
    }

    /// The sequences of the chosen messages. The end of an input is chosen with the message before it.
    pub async fn select(&self, selection: &Selection<'_>) -> Result<Sequences> {
        let parts = [
            selection.from_us.map(|from_us| format!(" AND {INGESTED_AT} >= {}", instant(from_us))),
            selection.to_us.map(|to_us| format!(" AND {INGESTED_AT} < {}", instant(to_us))),
            selection.condition.map(|own| format!(" AND ({own})")),
        ];
        let condition: String = parts.into_iter().flatten().collect();
        let mut selected = Sequences::default();
        let Some(first) = self.first else { return Ok(selected) };
        let mut after = first - 1;
        let mut last_chosen = false;
        while after < self.cut {
            let upto = after.saturating_add(CHOOSE_AT_ONCE).min(self.cut);
            let all = self.sequences("", after, upto).await?;
            let chosen = if condition.is_empty() {
                all.clone()
            } else {
                self.sequences(&condition, after, upto).await?
            };
            let mut chosen = chosen.into_iter().peekable();
            let mut all = all.into_iter().peekable();
            for sequence in after + 1..=upto {
                if all.next_if_eq(&sequence).is_some() {
                    last_chosen = chosen.next_if_eq(&sequence).is_some();
                    if last_chosen {
                        selected.push(sequence);
                    }
                } else if last_chosen && !self.unread.contains(&sequence) {
                    selected.push(sequence);
                }
            }
            after = upto;
        }
        Ok(selected)
    }

    async fn sequences(&self, condition: &str, after: u64, upto: u64) -> Result<Vec<u64>> {
        let sql = format!("{} ORDER BY 1", self.over(SEQUENCE, condition, after, upto));
        let batches = self.engine.read_tables(&sql).await.map_err(|error| match error {
            Error::Config(config) if !condition.is_empty() => {
                let error = Error::config(format!("the condition cannot be used: {}", config.message));
                error.with_help(
                    "columns of raw tables: _sequence, _ingested_at, source, ordinal, token, origin, payload",
                )
            }
            other => other,
        })?;
        let mut found = Vec::new();
        for batch in batches {
            found.extend(numbers(&batch, 0)?.into_iter().flatten());
        }
        Ok(found)
    }

    /// The rows of the pipeline that were refused as late, where it is known by how much.
    pub async fn late(&self) -> Result<Late> {
        let sql = format!(
            "SELECT detail FROM meta.rejects WHERE pipeline = {} AND reason = 'late' AND {SEQUENCE} <= {}",
            text(&self.pipeline),
            self.cut
        );
        let mut late = Late { rows: 0, most_us: None };
        for batch in self.engine.read_tables(&sql).await? {
            let details = cast(batch.column(0), &DataType::Utf8)?;
            for by_us in details.as_string::<i32>().iter().flatten().filter_map(late_by_us) {
                late.rows += 1;
                // A row right at the watermark is late by nothing and needs one more.
                late.most_us = late.most_us.max(Some(by_us.saturating_add(1)));
            }
        }
        Ok(late)
    }

    /// The first message that may have become known no earlier than `warm_up_us` before the message `first`.
    pub async fn warm(&self, first: u64, warm_up_us: i64) -> Result<u64> {
        let at = self.read(first - 1, first).await?;
        let Some(at) = at.first() else { return Ok(first) };
        let since = at.message.received_at_us.saturating_sub(warm_up_us);
        let condition = format!(" AND {INGESTED_AT} >= {}", instant(since));
        let sql = format!(
            "SELECT min(least) FROM ({})",
            self.over(&format!("{SEQUENCE} AS least"), &condition, 0, first)
        );
        let batches = self.engine.read_tables(&sql).await?;
        let least = batches.first().map(|batch| numbers(batch, 0)).transpose()?.unwrap_or_default();
        Ok(least.first().copied().flatten().unwrap_or(first))
    }

    /// The messages behind `after` up to `upto` (and the cut), each as the log gave it.
    pub async fn read(&self, after: u64, upto: u64) -> Result<Vec<LoggedMessage>> {
        let upto = upto.min(self.cut);
        if after >= upto || self.sources.is_empty() {
            return Ok(Vec::new());
        }
        let columns = format!("{SEQUENCE}, {INGESTED_AT}, source, ordinal, token, origin, payload");
        let sql = format!("{} ORDER BY 1", self.over(&columns, "", after, upto));
        let mut messages: Vec<LoggedMessage> = Vec::new();
        for batch in self.engine.read_tables(&sql).await? {
            self.append(&batch, &mut messages)?;
        }
        // An end of the input that comes first here has the time of the message before it, wherever the reading was cut.
        let first = self.first.unwrap_or(u64::MAX);
        let mut before_us = 0;
        if after >= first && messages.first().is_none_or(|message| message.sequence > after + 1) {
            let mut before = after;
            while before > first && self.unread.contains(&before) {
                before -= 1;
            }
            let read = Box::pin(self.read(before - 1, before)).await?;
            before_us = read.last().map_or(0, |message| message.message.received_at_us);
        }
        self.fill(messages, after, upto, before_us)
    }

    fn append(&self, batch: &RecordBatch, messages: &mut Vec<LoggedMessage>) -> Result<()> {
        let sequences = numbers(batch, 0)?;
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let received = cast(batch.column(1), &micros)?;
        let received = received.as_primitive::<TimestampMicrosecondType>();
        let texts = |column: usize| cast(batch.column(column), &DataType::Utf8);
        let (sources, tokens, origins): (ArrayRef, ArrayRef, ArrayRef) = (texts(2)?, texts(4)?, texts(5)?);
        let ordinals = numbers(batch, 3)?;
        let payloads = cast(batch.column(6), &DataType::Binary)?;
        let payloads = payloads.as_binary::<i32>();
        let prefix = format!("{}/", self.pipeline);
        for row in 0..batch.num_rows() {
            let text = |column: &ArrayRef| column.as_string::<i32>().value(row).to_owned();
            let Some(sequence) = sequences[row] else { continue };
            let source = text(&sources);
            let payload = if payloads.is_valid(row) {
                Bytes::copy_from_slice(payloads.value(row))
            } else {
                Bytes::new()
            };
            messages.push(LoggedMessage {
                sequence,
                source: source.strip_prefix(&prefix).unwrap_or(&source).into(),
                message: Message {
                    payload,
                    origin: text(&origins).into(),
                    position: Position { ordinal: ordinals[row].unwrap_or_default(), token: text(&tokens) },
                    received_at_us: received.value(row),
                },
            });
        }
        Ok(())
    }

    /// Puts an end of the input where one message is missing between others, or at the cut. `before_us` is when the message before
    /// all of them was received.
    fn fill(
        &self,
        messages: Vec<LoggedMessage>,
        after: u64,
        upto: u64,
        before_us: i64,
    ) -> Result<Vec<LoggedMessage>> {
        let mut filled: Vec<LoggedMessage> = Vec::with_capacity(messages.len() + 1);
        let mut next = after + 1;
        let kept = self.first.unwrap_or(u64::MAX);
        let missing = |filled: &mut Vec<LoggedMessage>, from: u64, to: u64| -> Result<()> {
            let gone = (from.max(kept)..to).filter(|sequence| !self.unread.contains(sequence));
            match gone.collect::<Vec<u64>>().as_slice() {
                [] => Ok(()),
                [sequence] => {
                    let received_us = filled.last().map_or(before_us, |last| last.message.received_at_us);
                    let message = end_of_input(0, received_us);
                    filled.push(LoggedMessage { sequence: *sequence, source: END_OF_INPUT.into(), message });
                    Ok(())
                }
                gone @ [first, ..] => Err(Error::config(format!(
                    "{} messages of '{}' are missing from the raw tables, from number {first} on",
                    gone.len(),
                    self.pipeline
                ))
                .with_help("choose an interval in which all messages are kept (--from)")),
            }
        };
        for message in messages {
            missing(&mut filled, next, message.sequence)?;
            next = message.sequence + 1;
            filled.push(message);
        }
        missing(&mut filled, next, upto + 1)?;
        Ok(filled)
    }
}
