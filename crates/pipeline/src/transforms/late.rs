//! `type = "late"`: rows that come too late are refused, and rows that come out of order are put in order.
//!
//! The watermark is the newest event time so far minus `allowed_lateness` (bounded disorder; watermarks as in Akidau et
//! al. 2015, "The Dataflow Model"). A row whose event time lies before the watermark is late. With `order`, rows are held
//! back until the watermark has reached them, and go on in the order of their event times; rows of the same instant keep
//! the order in which they came. Only event times count, never the time of day: so a stream that pauses holds its last rows
//! until it goes on or ends.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    Batch, ColumnEdge, Component, Dependency, Error, Rejects, Result, Settlement, Transform,
};

use super::lineage::{computed, decides, handed_on};
use super::rows::{
    Bytes, Out, fingerprint, free_name, late_detail, million, only_input, read_head, sequence, time,
    time_column, times, ts, write_head,
};
use super::things::{Stored, Things};
use super::{TransformBuilder, TransformContext};
use crate::codec::{Reader, Writer};
use crate::duration::Microseconds;

const VERSION: u64 = 1;

/// Refuses rows that come too late, and puts the others in order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Late {
    /// The column with the event time (default `ts`). Rows without one are refused as `missing_value`.
    #[serde(default = "ts")]
    time: String,
    /// The columns that tell one thing from another: each has a watermark of its own, so that one with a wrong clock harms
    /// no other. Default: one watermark for the whole stream.
    #[serde(default)]
    key: Vec<String>,
    /// How far the event time of a row may lie behind the newest one so far.
    allowed_lateness: Microseconds,
    /// Hold rows back until the watermark has reached them, and let them go in the order of their event times
    /// (default false).
    #[serde(default)]
    order: bool,
    /// What becomes of late rows (default `reject`: refused as `late`).
    #[serde(default)]
    action: LateAction,
    /// The column that `action = "flag"` adds: true for late rows (default `late`).
    #[serde(default = "late")]
    column: String,
    /// The most rows that are held back for one thing (default 1000000); with more, the earliest goes on, and the
    /// watermark with it.
    #[serde(default = "million")]
    max_held_rows: usize,
    /// The most things that are remembered (default 1000000); the one unheard for the longest is forgotten first, and its
    /// rows go on.
    #[serde(default = "million")]
    max_keys: usize,
}

/// What becomes of late rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LateAction {
    /// They are refused.
    #[default]
    Reject,
    /// They go on at once, marked in a column of their own.
    Flag,
}

fn late() -> String {
    "late".to_owned()
}

impl Component for Late {
    const TYPE: &'static str = "late";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        for (key, value) in [("max_held_rows", self.max_held_rows), ("max_keys", self.max_keys)] {
            if value == 0 {
                return Err(Error::config(format!("'{key}' must be above 0")));
            }
        }
        Ok(Box::new(self))
    }
}

#[async_trait]
impl TransformBuilder for Late {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let input = only_input(&context.inputs, "late")?;
        let flags = self.action == LateAction::Flag;
        let schema = if flags {
            free_name(&input, &self.column, "column")?;
            let added = Arc::new(Field::new(&self.column, DataType::Boolean, true));
            Arc::new(Schema::new(input.fields().iter().cloned().chain([added]).collect::<Vec<_>>()))
        } else {
            SchemaRef::clone(&input)
        };
        Ok(Box::new(LateTransform {
            time: time_column(&input, &self.time)?,
            keys: Bytes::named(&input, &self.key)?,
            whole: Bytes::whole(&schema)?,
            schema,
            settings: self.clone(),
            things: Things::new(self.max_keys),
            lateness_us: self.allowed_lateness.0,
            arrivals: 0,
            settlement: Settlement::default(),
        }))
    }

    async fn lineage(&self, context: &TransformContext<'_>, out: &SchemaRef) -> Result<Vec<ColumnEdge>> {
        let Some((input, schema)) = context.inputs.first() else { return Ok(Vec::new()) };
        let mut edges = handed_on(input, schema, out, &[]);
        let by = || self.key.iter().chain([&self.time]).map(String::as_str);
        match self.action {
            LateAction::Reject => edges.extend(decides(input, by(), Dependency::Filter, "late")),
            LateAction::Flag => edges.extend(computed(&self.column, input, by(), "late: flag")),
        }
        Ok(edges)
    }
}

/// A row that waits, with the sequence of its message.
type Waiting = (Box<[u8]>, Option<u64>);

/// The rows of a thing that wait, by event time and arrival.
#[derive(Debug, Default)]
struct Line {
    newest_us: Option<i64>,
    /// No row before this instant may go on any more.
    floor_us: Option<i64>,
    waiting: BTreeMap<(i64, u64), Waiting>,
}

impl Line {
    fn watermark(&self, lateness_us: i64) -> Option<i64> {
        self.newest_us.map(|newest| newest.saturating_sub(lateness_us)).max(self.floor_us)
    }
}

impl Stored for Line {
    fn write(&self, out: &mut Writer) {
        out.option(self.newest_us, Writer::signed);
        out.option(self.floor_us, Writer::signed);
        out.unsigned(self.waiting.len() as u64);
        for ((time, arrival), (row, sequence)) in &self.waiting {
            out.signed(*time);
            out.unsigned(*arrival);
            out.bytes(row);
            out.option(*sequence, Writer::unsigned);
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let (newest_us, floor_us) = (input.option(Reader::signed)?, input.option(Reader::signed)?);
        let mut waiting = BTreeMap::new();
        for _ in 0..input.unsigned()? {
            let place = (input.signed()?, input.unsigned()?);
            waiting.insert(place, (input.bytes()?.into(), input.option(Reader::unsigned)?));
        }
        Ok(Self { newest_us, floor_us, waiting })
    }
}

struct LateTransform {
    settings: Late,
    time: usize,
    keys: Bytes,
    schema: SchemaRef,
    whole: Bytes,
    things: Things<Line>,
    /// What the settings allow, or more.
    lateness_us: i64,
    arrivals: u64,
    settlement: Settlement,
}

impl LateTransform {
    /// The rows with the column that marks late ones.
    fn marked(&self, rows: &RecordBatch, late: &[bool]) -> Result<RecordBatch> {
        if self.settings.action == LateAction::Reject {
            return Ok(rows.clone());
        }
        let late: ArrayRef = Arc::new(BooleanArray::from(late.to_vec()));
        let columns = rows.columns().iter().cloned().chain([late]).collect();
        Ok(RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?)
    }

    fn shape(&self) -> String {
        format!("{:?} {} {}", self.settings.key, self.settings.time, fingerprint(&self.schema))
    }

    /// Refuses or marks late rows; the others go on at once.
    fn in_order_of_arrival(&mut self, batch: Batch, rejects: &mut Rejects) -> Result<Batch> {
        let times = times(&batch.rows, self.time)?;
        let keys = self.keys.of(&batch.rows)?;
        let mut keep = vec![true; batch.rows.num_rows()];
        let mut marks = vec![false; batch.rows.num_rows()];
        for row in 0..batch.rows.num_rows() {
            let Some(at) = time(&times, row) else {
                keep[row] = false;
                rejects.push(row, "missing_value", self.without_time());
                continue;
            };
            let (line, _) = self.things.touch(&keys.row(row));
            if let Some(detail) = line.come(at, self.lateness_us) {
                if self.settings.action == LateAction::Reject {
                    keep[row] = false;
                    rejects.push(row, "late", detail);
                }
                marks[row] = true;
            }
        }
        let rows = self.marked(&batch.rows, &marks)?;
        let sequences = batch.sequences.map(|own| {
            own.into_iter().zip(&keep).filter(|(_, keep)| **keep).map(|(sequence, _)| sequence).collect()
        });
        Ok(Batch { rows: filter_record_batch(&rows, &BooleanArray::from(keep))?, sequences })
    }

    /// Holds rows back and lets go those that the watermark has reached.
    fn in_order_of_time(&mut self, batch: &Batch, rejects: &mut Rejects) -> Result<Batch> {
        let times = times(&batch.rows, self.time)?;
        let keys = self.keys.of(&batch.rows)?;
        let count = batch.rows.num_rows();
        let lateness_us = self.lateness_us;
        let plain = self.whole.of(&self.marked(&batch.rows, &vec![false; count])?)?;
        let marked = self.whole.of(&self.marked(&batch.rows, &vec![true; count])?)?;
        let mut out = Out::default();
        for row in 0..count {
            let own = sequence(batch, row);
            let Some(at) = time(&times, row) else {
                rejects.push(row, "missing_value", self.without_time());
                continue;
            };
            let (line, forgotten) = self.things.touch(&keys.row(row));
            if let Some(mut line) = forgotten {
                line.drain(&mut out, &mut self.settlement);
            }
            if let Some(detail) = line.come(at, lateness_us) {
                match self.settings.action {
                    LateAction::Reject => rejects.push(row, "late", detail),
                    LateAction::Flag => out.push(marked.row(row), own),
                }
                continue;
            }
            self.arrivals += 1;
            self.settlement.held.extend(own);
            line.waiting.insert((at, self.arrivals), (plain.row(row), own));
            line.let_go(lateness_us, self.settings.max_held_rows, &mut out, &mut self.settlement);
        }
        out.batch(&self.whole, &self.schema)
    }

    fn without_time(&self) -> String {
        format!("no value for {}", self.settings.time)
    }
}

impl Line {
    /// A row comes: says why it is late, if it is.
    fn come(&mut self, at: i64, lateness_us: i64) -> Option<String> {
        let watermark = self.watermark(lateness_us);
        self.newest_us = self.newest_us.max(Some(at));
        let watermark = watermark.filter(|watermark| at < *watermark)?;
        Some(late_detail(at, "lies before the watermark", watermark))
    }

    /// Lets go the rows that the watermark has reached, and the earliest of too many.
    fn let_go(&mut self, lateness_us: i64, most: usize, out: &mut Out, settlement: &mut Settlement) {
        let watermark = self.watermark(lateness_us);
        while let Some(first) = self.waiting.first_entry() {
            let (at, _) = *first.key();
            if watermark.is_none_or(|watermark| at > watermark) {
                break;
            }
            let (row, sequence) = first.remove();
            settlement.released.extend(sequence);
            out.push(row, sequence);
        }
        while self.waiting.len() > most
            && let Some(((at, _), (row, sequence))) = self.waiting.pop_first()
        {
            self.floor_us = self.floor_us.max(Some(at));
            settlement.released.extend(sequence);
            out.push(row, sequence);
        }
    }

    /// Lets go all rows; what comes before them is late from now on.
    fn drain(&mut self, out: &mut Out, settlement: &mut Settlement) {
        while let Some(((at, _), (row, sequence))) = self.waiting.pop_first() {
            self.floor_us = self.floor_us.max(Some(at));
            settlement.released.extend(sequence);
            out.push(row, sequence);
        }
    }
}

#[async_trait]
impl Transform for LateTransform {
    fn output_schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    async fn process(&mut self, _input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let batch = if self.settings.order {
            self.in_order_of_time(&batch, rejects)?
        } else {
            self.in_order_of_arrival(batch, rejects)?
        };
        Ok(vec![batch])
    }

    async fn finish(&mut self, _rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let mut out = Out::default();
        let settlement = &mut self.settlement;
        self.things.for_each(|line| line.drain(&mut out, settlement));
        Ok(if out.is_empty() { Vec::new() } else { vec![out.batch(&self.whole, &self.schema)?] })
    }

    fn tolerate(&mut self, more_us: i64) {
        self.lateness_us = self.lateness_us.saturating_add(more_us);
    }

    async fn catch_up(&mut self) -> Result<Vec<Batch>> {
        let mut out = Out::default();
        let (allowed_us, most) = (self.settings.allowed_lateness.0, self.settings.max_held_rows);
        let settlement = &mut self.settlement;
        self.things.for_each(|line| line.let_go(allowed_us, most, &mut out, settlement));
        Ok(if out.is_empty() { Vec::new() } else { vec![out.batch(&self.whole, &self.schema)?] })
    }

    fn settle(&mut self) -> Settlement {
        std::mem::take(&mut self.settlement)
    }

    fn holds_rows(&self) -> bool {
        self.things.iter().any(|line| !line.waiting.is_empty())
    }

    fn state(&self) -> Result<Vec<u8>> {
        let mut out = Writer::default();
        write_head(&mut out, VERSION, &self.shape(), self.holds_rows());
        out.unsigned(self.arrivals);
        self.things.write(&mut out);
        Ok(out.finish())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut input = Reader::new(state);
        if read_head(&mut input, VERSION, &self.shape())? {
            self.arrivals = input.unsigned()?;
            self.things.read(&mut input)?;
        }
        Ok(())
    }
}
