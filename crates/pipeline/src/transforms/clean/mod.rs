//! `type = "clean"`: refuses, blanks or marks values that should not land, each with its reason.
//!
//! The operators work in this order, and a row refused by one is not seen by the next:
//!
//! `unit` → `require` (`missing_value`) → `range` (`out_of_range`) → `dedup` (`duplicate`) → `rate_of_change` → `stuck` →
//! `spike` → `dead_band` → `swinging_door`
//!
//! So bounds are in the new units, a row without a position never makes its good repetition a duplicate, repetitions
//! never count as values that stay the same, and the dead band and the swinging door thin out only what is good. For another order put
//! several clean transforms one after the other. The result does not depend on how the stream is cut into batches.

mod dead_band;
mod dedup;
mod hampel;
mod operator;
mod per_column;
mod range;
mod rate_of_change;
mod require;
mod spike;
mod spike_centred;
mod stuck;
mod swinging_door;
mod unit;
mod units;
mod work;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    Batch, ColumnEdge, Component, Dependency, Error, Rejects, Result, Settlement, Transform,
};

use self::dead_band::{BandSettings, DeadBand};
use self::dedup::{Dedup, DedupSettings};
use self::hampel::SpikeSettings;
use self::operator::{Chain, Operator, Place};
use self::per_column::PerColumn;
use self::range::{Bounds, Range};
use self::rate_of_change::{RateOfChange, RateSettings};
use self::require::Require;
use self::spike::Spike;
use self::spike_centred::SpikeCentred;
use self::stuck::{Stuck, StuckSettings};
use self::swinging_door::{DoorSettings, SwingingDoor};
use self::unit::{UnitSettings, Units};
use self::work::{Action, Work};
use super::lineage::{computed, decides, handed_on};
use super::rows::{column, million, only_input, ts};
use super::{TransformBuilder, TransformContext};
use crate::codec::{Reader, Writer};

const VERSION: u64 = 2;

/// Refuses, blanks or marks values that should not land: `unit`, `require`, `range`, `dedup`, `rate_of_change`, `stuck`,
/// `spike`, `dead_band`, `swinging_door`, in this order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Clean {
    /// The columns that tell one thing (a vehicle, a sensor) from another: each has its own past. Rows with a null in one
    /// of them are judged only by what needs no past.
    #[serde(default)]
    key: Vec<String>,
    /// The column with the event time (default `ts`).
    #[serde(default = "ts")]
    time: String,
    /// The most things (values of `key`) of which each operator remembers a past (default 1000000); the one unheard for
    /// the longest is forgotten first.
    #[serde(default = "million")]
    max_keys: usize,
    /// The column to which `action = "flag"` adds `reason:column`, several joined by commas; null when there is nothing
    /// to say (default `quality`). It is added when the rows do not have it.
    #[serde(default = "quality")]
    quality: String,
    /// Columns whose values are brought to another unit.
    #[serde(default)]
    unit: IndexMap<String, UnitSettings>,
    /// Columns that must have a value; else the row is refused as `missing_value`.
    #[serde(default)]
    require: Vec<String>,
    /// The least and the greatest value that a column may have, both allowed; else the value is `out_of_range`. `inf`
    /// leaves a side open. A null passes.
    #[serde(default)]
    range: IndexMap<String, Bounds>,
    /// What becomes of a row with a value that is `out_of_range` (default `reject`).
    #[serde(default)]
    range_action: Action,
    /// Rows that repeat an earlier one are refused as `duplicate`.
    dedup: Option<DedupSettings>,
    /// Columns that may change only so fast; else the value is `rate_of_change`.
    #[serde(default)]
    rate_of_change: IndexMap<String, RateSettings>,
    /// Columns that may stay the same only so long; else the value is `stuck`.
    #[serde(default)]
    stuck: IndexMap<String, StuckSettings>,
    /// Columns whose values must be like those around them (Hampel identifier); else the value is `spike`.
    #[serde(default)]
    spike: IndexMap<String, SpikeSettings>,
    /// Columns whose small changes are not passed on: `dead_band`.
    #[serde(default)]
    dead_band: IndexMap<String, BandSettings>,
    /// Readings that lie on a straight line between others are not passed on: `swinging_door`.
    swinging_door: Option<DoorSettings>,
}

fn quality() -> String {
    "quality".to_owned()
}

impl Component for Clean {
    const TYPE: &'static str = "clean";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        if self.unit.is_empty() && self.require.is_empty() && self.range.is_empty() && self.is_stateless() {
            return Err(Error::config("this transform cleans nothing").with_help(
                "give unit, require, range, dedup, rate_of_change, stuck, spike, dead_band or swinging_door",
            ));
        }
        if self.max_keys == 0 {
            return Err(Error::config("'max_keys' must be above 0"));
        }
        for (column, bounds) in &self.range {
            bounds.check(column)?;
        }
        for (column, own) in &self.rate_of_change {
            own.check(column)?;
        }
        for (column, own) in &self.stuck {
            own.check(column)?;
        }
        for (column, own) in &self.spike {
            own.check(column)?;
        }
        for (column, own) in &self.dead_band {
            own.check(column)?;
        }
        if let Some(own) = &self.swinging_door {
            own.check()?;
        }
        Ok(Box::new(self))
    }
}

impl Clean {
    fn is_stateless(&self) -> bool {
        self.dedup.is_none()
            && self.rate_of_change.is_empty()
            && self.stuck.is_empty()
            && self.spike.is_empty()
            && self.dead_band.is_empty()
            && self.swinging_door.is_none()
    }

    fn flags(&self) -> bool {
        let mut actions = (!self.range.is_empty()).then_some(self.range_action).into_iter();
        actions.any(|action| action == Action::Flag)
            || self.rate_of_change.values().any(|own| own.action() == Action::Flag)
            || self.stuck.values().any(|own| own.action() == Action::Flag)
            || self.spike.values().any(|own| own.action == Action::Flag)
            || self.dead_band.values().any(|own| own.action() == Action::Flag)
    }

    /// The columns that an operator with a past looks at: its own, the key and the time; none when it has none of its own.
    fn with_past<'a>(&'a self, own: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
        let mut columns: Vec<&str> = own.map(String::as_str).collect();
        if !columns.is_empty() {
            columns.extend(self.key.iter().chain([&self.time]).map(String::as_str));
        }
        columns
    }

    /// The schema with the quality column, and its place, if there is anything to flag.
    fn with_quality(&self, schema: &SchemaRef) -> Result<(SchemaRef, Option<usize>)> {
        if !self.flags() {
            return Ok((SchemaRef::clone(schema), None));
        }
        if let Ok(at) = schema.index_of(&self.quality) {
            return match schema.field(at).data_type() {
                DataType::Utf8 => Ok((SchemaRef::clone(schema), Some(at))),
                other => Err(Error::config(format!("'{}' has type {other}: flags are text", self.quality))
                    .with_help("choose another name with quality = \"…\"")),
            };
        }
        if self.quality.is_empty() {
            return Err(Error::config("'quality' is empty").with_help("quality = \"quality\""));
        }
        let added = Arc::new(Field::new(&self.quality, DataType::Utf8, true));
        let fields: Vec<_> = schema.fields().iter().cloned().chain([added]).collect();
        Ok((Arc::new(Schema::new(fields)), Some(schema.fields().len())))
    }
}

#[async_trait]
impl TransformBuilder for Clean {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let input = only_input(&context.inputs, "clean")?;
        let units = (!self.unit.is_empty()).then(|| Units::new(&input, &self.unit)).transpose()?;
        let (schema, quality) = self.with_quality(units.as_ref().map_or(&input, Units::schema))?;
        let place = Place { schema: &schema, key: &self.key, time: &self.time, max_keys: self.max_keys };
        for name in &self.key {
            column(&schema, name)?;
        }
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if !self.require.is_empty() {
            operators.push(Box::new(Require::new(&place, &self.require)?));
        }
        if !self.range.is_empty() {
            operators.push(Box::new(Range::new(&place, &self.range, self.range_action)?));
        }
        if let Some(dedup) = &self.dedup {
            operators.push(Box::new(Dedup::new(&place, dedup)?));
        }
        if !self.rate_of_change.is_empty() {
            operators.push(Box::new(PerColumn::<RateOfChange>::new(&place, &self.rate_of_change, true)?));
        }
        if !self.stuck.is_empty() {
            operators.push(Box::new(PerColumn::<Stuck>::new(&place, &self.stuck, true)?));
        }
        if self.spike.values().any(|own| !own.centred) {
            let own = self.spike.iter().filter(|(_, own)| !own.centred);
            operators.push(Box::new(PerColumn::<Spike>::new(&place, own, false)?));
        }
        if self.spike.values().any(|own| own.centred) {
            operators.push(Box::new(SpikeCentred::new(&place, &schema, &self.spike)?));
        }
        if !self.dead_band.is_empty() {
            let timed = self.dead_band.values().any(BandSettings::is_timed);
            operators.push(Box::new(PerColumn::<DeadBand>::new(&place, &self.dead_band, timed)?));
        }
        if let Some(own) = &self.swinging_door {
            operators.push(Box::new(SwingingDoor::new(&place, &schema, own)?));
        }
        let settlement = Settlement::default();
        Ok(Box::new(CleanTransform { schema, units, quality, chain: Chain(operators), settlement }))
    }

    async fn lineage(&self, context: &TransformContext<'_>, out: &SchemaRef) -> Result<Vec<ColumnEdge>> {
        let Some((input, schema)) = context.inputs.first() else { return Ok(Vec::new()) };
        let units: Vec<&str> = self.unit.keys().map(String::as_str).collect();
        let mut edges = handed_on(input, schema, out, &units);
        for column in units {
            edges.extend(computed(column, input, [column], "clean: unit"));
        }
        let judged = |name: &'static str, columns: Vec<&str>| {
            decides(input, columns, Dependency::Filter, &format!("clean: {name}"))
        };
        edges.extend(judged("require", self.require.iter().map(String::as_str).collect()));
        edges.extend(judged("range", self.range.keys().map(String::as_str).collect()));
        edges.extend(judged("dedup", self.with_past(self.dedup.iter().flat_map(DedupSettings::columns))));
        edges.extend(judged("rate_of_change", self.with_past(self.rate_of_change.keys())));
        edges.extend(judged("stuck", self.with_past(self.stuck.keys())));
        edges.extend(judged("spike", self.with_past(self.spike.keys())));
        edges.extend(judged("dead_band", self.with_past(self.dead_band.keys())));
        edges.extend(judged(
            "swinging_door",
            self.with_past(self.swinging_door.iter().map(DoorSettings::column)),
        ));
        if self.flags() {
            let flagged = self.range.keys().chain(self.rate_of_change.keys()).chain(self.stuck.keys());
            let flagged = flagged.chain(self.spike.keys()).chain(self.dead_band.keys()).map(String::as_str);
            let mut flagged: Vec<&str> = flagged.collect();
            flagged.sort_unstable();
            flagged.dedup();
            edges.extend(computed(&self.quality, input, flagged, "clean: flag"));
        }
        Ok(edges)
    }
}

struct CleanTransform {
    schema: SchemaRef,
    units: Option<Units>,
    quality: Option<usize>,
    chain: Chain,
    settlement: Settlement,
}

impl CleanTransform {
    /// The rows in their new units, with the quality column.
    fn prepare(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let rows = match &self.units {
            Some(units) => units.apply(&rows)?,
            None => rows,
        };
        if rows.num_columns() == self.schema.fields().len() {
            return Ok(rows);
        }
        let empty: ArrayRef = Arc::new(StringArray::new_null(rows.num_rows()));
        let columns = rows.columns().iter().cloned().chain([empty]).collect();
        Ok(RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?)
    }

    /// The end of the chain.
    fn end(&mut self, mut work: Work, rejects: &mut Rejects) -> Batch {
        rejects.0.append(&mut work.rejects.0);
        self.settlement.refused.append(&mut work.refused);
        self.settlement.held.append(&mut work.held);
        self.settlement.released.append(&mut work.released);
        work.batch()
    }
}

#[async_trait]
impl Transform for CleanTransform {
    fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn process(&mut self, _input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let rows = self.prepare(batch.rows)?;
        let mut work = Work::new(Batch { rows, sequences: batch.sequences }, self.quality);
        self.chain.run(&mut work, 0)?;
        Ok(vec![self.end(work, rejects)])
    }

    async fn finish(&mut self, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let (schema, quality) = (SchemaRef::clone(&self.schema), self.quality);
        let empty = || {
            let rows = RecordBatch::new_empty(SchemaRef::clone(&schema));
            Work::new(Batch { rows, sequences: None }, quality)
        };
        let ended = self.chain.finish(empty)?;
        Ok(ended.into_iter().map(|work| self.end(work, rejects)).collect())
    }

    fn settle(&mut self) -> Settlement {
        std::mem::take(&mut self.settlement)
    }

    fn holds_rows(&self) -> bool {
        self.chain.0.iter().any(|operator| operator.holds_rows())
    }

    fn state(&self) -> Result<Vec<u8>> {
        let mut out = Writer::default();
        out.unsigned(VERSION);
        self.chain.write(&mut out);
        Ok(out.finish())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut input = Reader::new(state);
        if input.is_empty() {
            return Ok(());
        }
        if input.unsigned()? != VERSION {
            return Err(Error::internal("the state of a clean transform was written by another version"));
        }
        self.chain.read(&mut input)
    }

    fn remembers(&self) -> bool {
        self.chain.0.iter().any(|operator| operator.remembers())
    }
}
