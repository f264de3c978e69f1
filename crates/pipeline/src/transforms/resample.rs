//! `type = "resample"`: readings at regular instants, with gaps filled.
//!
//! For each thing and each instant `g` of the grid (the multiples of `interval` since the epoch, moved by `offset`) between
//! two readings `(t₀, v₀)` and `(t₁, v₁)` one row comes out, as soon as the second reading is there:
//!
//! - `linear`: `v₀ + (v₁ − v₀) · (g − t₀) / (t₁ − t₀)` for the columns to interpolate, what the reading before says for the
//!   others;
//! - `previous`: what the reading before says (sample and hold);
//! - `none`: nulls but for key and time.
//!
//! A reading at an instant of the grid comes out as it is. Between readings more than `max_gap` apart nothing is filled.
//! The readings themselves do not come out. They must come in the order of their times; others are refused as `late` (put a
//! `late` transform with `order = true` before this one). A thing is remembered by its last reading alone.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    Batch, ColumnEdge, Component, Dependency, Error, Rejects, Result, Settlement, Transform, format_us,
    timestamp_type,
};

use super::lineage::{computed, decides};
use super::rows::{
    Bytes, Out, fingerprint, million, number_column, only_input, read_head, sequence, time, time_column,
    times, ts, write_head,
};
use super::things::{Stored, Things};
use super::{TransformBuilder, TransformContext};
use crate::codec::{Reader, Writer};
use crate::duration::Microseconds;

const VERSION: u64 = 1;
/// The most rows that one reading may bring out.
const MOST: i64 = 100_000;

/// Readings at regular instants, with gaps filled.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resample {
    /// The time from one instant of the grid to the next.
    interval: Microseconds,
    /// What comes out between two readings.
    method: Method,
    /// Nothing is filled between readings further apart than this.
    max_gap: Microseconds,
    /// Moves the grid away from multiples of `interval` since the epoch (default 0).
    offset: Option<Microseconds>,
    /// The columns to interpolate (default: all doubles and floats); they come out as doubles. Only for `linear`. Not for
    /// angles: between 350° and 10° this is 180°.
    columns: Option<Vec<String>>,
    /// The columns that tell one thing from another. A null is a value like others here.
    #[serde(default)]
    key: Vec<String>,
    /// The column with the event time (default `ts`). Rows without one are refused as `missing_value`.
    #[serde(default = "ts")]
    time: String,
    /// The most things that are remembered (default 1000000); the one unheard for the longest is forgotten first.
    #[serde(default = "million")]
    max_keys: usize,
}

/// What comes out between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// The value on the straight line between them; null when one of them is null, NaN or infinite.
    Linear,
    /// The value of the one before.
    Previous,
    /// Null.
    None,
}

impl Component for Resample {
    const TYPE: &'static str = "resample";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        if self.interval.0 <= 0 {
            return Err(Error::config("'interval' must be above 0").with_help("interval = \"1m\""));
        }
        if self.max_gap.0 / self.interval.0 > MOST {
            return Err(Error::config(format!("'max_gap' is more than {MOST} times 'interval'"))
                .with_help("one reading would bring out too many rows: shorten max_gap"));
        }
        if self.columns.is_some() && self.method != Method::Linear {
            return Err(Error::config("'columns' belongs to method = \"linear\""));
        }
        if self.max_keys == 0 {
            return Err(Error::config("'max_keys' must be above 0"));
        }
        Ok(Box::new(self))
    }
}

#[async_trait]
impl TransformBuilder for Resample {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let input = only_input(&context.inputs, "resample")?;
        let time = time_column(&input, &self.time)?;
        let keys = Bytes::named(&input, &self.key)?;
        if let Some(name) = self.key.iter().find(|name| **name == self.time) {
            return Err(Error::config(format!("'{name}' is both key and time")));
        }
        let is_float =
            |at: &usize| matches!(input.field(*at).data_type(), DataType::Float64 | DataType::Float32);
        let free = |at: &usize| !keys.columns().contains(at);
        let lines: Vec<usize> = match (&self.columns, self.method) {
            (_, Method::Previous | Method::None) => Vec::new(),
            (None, _) => (0..input.fields().len()).filter(|at| is_float(at) && free(at)).collect(),
            (Some(names), _) => {
                let each = names.iter().map(|name| number_column(&input, name, "values between them"));
                each.collect::<Result<_>>()?
            }
        };
        if let Some(at) = lines.iter().find(|at| !free(at)) {
            return Err(Error::config(format!(
                "'{}' is a key: it cannot be interpolated",
                input.field(*at).name()
            )));
        }
        if self.method == Method::Linear && lines.is_empty() {
            return Err(Error::config("there is no column of floating-point numbers to interpolate")
                .with_help("name numeric columns: columns = [\"…\"], or use method = \"previous\""));
        }
        let fields = input.fields().iter().enumerate().map(|(at, field)| {
            let field = field.as_ref().clone().with_nullable(true);
            if lines.contains(&at) { field.with_data_type(DataType::Float64) } else { field }
        });
        Ok(Box::new(ResampleTransform {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            whole: Bytes::whole(&input)?,
            things: Things::new(self.max_keys),
            settings: self.clone(),
            input,
            time,
            keys,
            lines,
            settlement: Settlement::default(),
        }))
    }

    async fn lineage(&self, context: &TransformContext<'_>, _out: &SchemaRef) -> Result<Vec<ColumnEdge>> {
        let Some((input, schema)) = context.inputs.first() else { return Ok(Vec::new()) };
        let mut edges = computed(&self.time, input, [self.time.as_str()], "resample");
        for field in schema.fields().iter().filter(|field| *field.name() != self.time) {
            let name = field.name();
            let float = matches!(field.data_type(), DataType::Float64 | DataType::Float32);
            let named = self.columns.as_ref().map_or(float, |columns| columns.contains(name));
            if self.key.contains(name) {
                edges.push(ColumnEdge::direct(name, input, name));
            } else if self.method == Method::Linear && named {
                let what = Some("resample: linear".to_owned());
                edges.push(ColumnEdge::new(Some(name), input, name, Dependency::Aggregate, what));
                edges.extend(computed(name, input, [self.time.as_str()], "resample: linear"));
            } else if self.method != Method::None {
                edges.push(ColumnEdge::direct(name, input, name));
            }
        }
        let by = self.key.iter().chain([&self.time]).map(String::as_str);
        edges.extend(decides(input, by, Dependency::Filter, "resample"));
        Ok(edges)
    }
}

/// The last reading of a thing.
#[derive(Debug, Clone, Default)]
struct Reading {
    /// `None` before the first.
    time_us: Option<i64>,
    row: Box<[u8]>,
    /// The values to interpolate.
    values: Vec<Option<f64>>,
}

impl Stored for Reading {
    fn write(&self, out: &mut Writer) {
        out.option(self.time_us, Writer::signed);
        out.bytes(&self.row);
        out.unsigned(self.values.len() as u64);
        for value in &self.values {
            out.option(*value, Writer::number);
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let time_us = input.option(Reader::signed)?;
        let row = input.bytes()?.into();
        let count = input.unsigned()?;
        let values = (0..count).map(|_| input.option(Reader::number)).collect::<Result<_>>()?;
        Ok(Self { time_us, row, values })
    }
}

struct ResampleTransform {
    settings: Resample,
    input: SchemaRef,
    schema: SchemaRef,
    time: usize,
    keys: Bytes,
    whole: Bytes,
    /// The columns to interpolate.
    lines: Vec<usize>,
    things: Things<Reading>,
    settlement: Settlement,
}

/// Rows of the grid before they are a batch.
#[derive(Default)]
struct Grid {
    /// The readings that the rows repeat.
    out: Out,
    times: Vec<i64>,
    /// Whether a row is a reading itself.
    exact: Vec<bool>,
    /// The values of each column to interpolate.
    values: Vec<Vec<Option<f64>>>,
}

impl Grid {
    fn push(&mut self, time_us: i64, row: &[u8], exact: bool, values: &[Option<f64>], sequence: Option<u64>) {
        self.out.push(row.into(), sequence);
        self.times.push(time_us);
        self.exact.push(exact);
        self.values.resize(values.len(), Vec::new());
        for (column, value) in self.values.iter_mut().zip(values) {
            column.push(*value);
        }
    }
}

/// The value on the straight line, `share` of the way from one to the other.
fn between(before: Option<f64>, after: Option<f64>, share: f64) -> Option<f64> {
    let (before, after) = (before.filter(|v| v.is_finite())?, after.filter(|v| v.is_finite())?);
    let rise = after - before;
    Some(if rise.is_finite() { before + rise * share } else { before * (1.0 - share) + after * share })
}

impl ResampleTransform {
    /// The instants of the grid from a reading to the next, the first and the last not among them.
    fn instants(&self, from_us: i64, to_us: i64) -> impl Iterator<Item = i64> + use<> {
        let (interval, offset) =
            (self.settings.interval.0, self.settings.offset.map_or(0, |offset| offset.0));
        let into = from_us.saturating_sub(offset).rem_euclid(interval);
        let first = from_us.saturating_sub(into).saturating_add(interval);
        let next = move |at: &i64| at.checked_add(interval);
        std::iter::successors(Some(first), next).take_while(move |at| *at < to_us)
    }

    fn is_on_grid(&self, time_us: i64) -> bool {
        let offset = self.settings.offset.map_or(0, |offset| offset.0);
        time_us.saturating_sub(offset).rem_euclid(self.settings.interval.0) == 0
    }

    /// The rows of the grid that a reading brings out.
    fn fill(&self, before: &Reading, now: &Reading, sequence: Option<u64>, grid: &mut Grid) {
        let Some(time_us) = now.time_us else { return };
        if let Some(before_us) = before.time_us {
            let apart = time_us.abs_diff(before_us);
            if apart <= self.settings.max_gap.0.unsigned_abs() {
                for at in self.instants(before_us, time_us) {
                    let share = at.abs_diff(before_us) as f64 / apart as f64;
                    let pairs = before.values.iter().zip(&now.values);
                    let values: Vec<_> = pairs.map(|(left, right)| between(*left, *right, share)).collect();
                    grid.push(at, &before.row, false, &values, sequence);
                }
            }
        }
        if before.time_us != Some(time_us) && self.is_on_grid(time_us) {
            grid.push(time_us, &now.row, true, &now.values, sequence);
        }
    }

    fn batch(&self, grid: Grid) -> Result<Batch> {
        let rows: Vec<&[u8]> = grid.out.rows.iter().map(AsRef::as_ref).collect();
        let rows = self.whole.batch(&self.input, &rows)?;
        let mut columns = rows.columns().to_vec();
        if self.settings.method == Method::None {
            let empty = BooleanArray::from(grid.exact.iter().map(|exact| !exact).collect::<Vec<_>>());
            for (at, column) in columns.iter_mut().enumerate() {
                if !self.keys.columns().contains(&at) {
                    *column = nullif(column, &empty)?;
                }
            }
        }
        for (at, values) in self.lines.iter().zip(&grid.values) {
            columns[*at] = Arc::new(values.iter().copied().collect::<Float64Array>());
        }
        if grid.values.is_empty() {
            for at in &self.lines {
                columns[*at] = Arc::new(Float64Array::new_null(0));
            }
        }
        let times = TimestampMicrosecondArray::from(grid.times).with_data_type(timestamp_type());
        columns[self.time] = Arc::new(times);
        Ok(Batch {
            rows: RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?,
            sequences: grid.out.sequences(),
        })
    }

    fn shape(&self) -> String {
        format!(
            "{:?} {} {:?} {}",
            self.settings.key,
            self.settings.time,
            self.lines,
            fingerprint(&self.input)
        )
    }
}

#[async_trait]
impl Transform for ResampleTransform {
    fn output_schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    async fn process(&mut self, _input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let times = times(&batch.rows, self.time)?;
        let (keys, rows) = (self.keys.of(&batch.rows)?, self.whole.of(&batch.rows)?);
        let values = self.lines.iter().map(|at| {
            let numbers = cast(batch.rows.column(*at), &DataType::Float64)?;
            Ok(numbers.as_primitive::<Float64Type>().clone())
        });
        let values = values.collect::<Result<Vec<Float64Array>>>()?;
        let mut grid = Grid::default();
        for row in 0..batch.rows.num_rows() {
            let own = sequence(&batch, row);
            let Some(time_us) = time(&times, row) else {
                rejects.push(row, "missing_value", format!("no value for {}", self.settings.time));
                continue;
            };
            let now = Reading {
                time_us: Some(time_us),
                row: rows.row(row),
                values: values.iter().map(|v| v.is_valid(row).then(|| v.value(row))).collect(),
            };
            let (last, _) = self.things.touch(&keys.row(row));
            if let Some(last_us) = last.time_us.filter(|last| time_us < *last) {
                let detail =
                    format!("{} comes after the reading of {}", format_us(time_us), format_us(last_us));
                rejects.push(row, "late", detail);
                continue;
            }
            let before = std::mem::replace(last, now.clone());
            self.fill(&before, &now, own, &mut grid);
            self.settlement.absorbed.extend(own);
        }
        Ok(vec![self.batch(grid)?])
    }

    fn settle(&mut self) -> Settlement {
        std::mem::take(&mut self.settlement)
    }

    fn state(&self) -> Result<Vec<u8>> {
        let mut out = Writer::default();
        write_head(&mut out, VERSION, &self.shape(), false);
        self.things.write(&mut out);
        Ok(out.finish())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut input = Reader::new(state);
        if read_head(&mut input, VERSION, &self.shape())? {
            self.things.read(&mut input)?;
        }
        Ok(())
    }
}
