//! `type = "window"`: aggregates over stretches of event time.
//!
//! Rows are divided by `key` and by time; a window comes out as one row when the watermark (the newest event time so far
//! minus `allowed_lateness`, over all things) has reached its end, or when the input ends. A row that belongs to no open
//! window any more is refused as `late`. Windows come out in the order of their ends, then starts, then keys. Only event
//! times count, never the time of day.

mod aggregate;
mod frames;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use async_trait::async_trait;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    Batch, ColumnEdge, Component, Dependency, Error, Rejects, Result, Settlement, Transform, timestamp_type,
};

use self::aggregate::{Accumulator, Cell, Function, Outcome, check_percent};
use self::frames::{Frames, Place, Shape};
use super::lineage::{computed, decides};
use super::rows::{
    Bytes, Encoded, column, fingerprint, late_detail, million, number_column, only_input, read_head,
    sequence, time, time_column, times, ts, write_head,
};
use super::{TransformBuilder, TransformContext};
use crate::codec::{Reader, Writer};
use crate::duration::Microseconds;

const VERSION: u64 = 1;
/// The most windows that one row may belong to.
const OVERLAPS: i64 = 1_000;
const START: &str = "window_start";
const END: &str = "window_end";

/// Aggregates over stretches of event time. The columns that come out: the `key`, `window_start`, `window_end`, and one
/// for each aggregate.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    /// How time is divided.
    kind: Kind,
    /// The length of tumbling and hopping windows.
    size: Option<Microseconds>,
    /// The time from the start of a hopping window to the start of the next; not more than `size`.
    hop: Option<Microseconds>,
    /// Rows so far apart in time, or further, belong to different sessions.
    gap: Option<Microseconds>,
    /// Moves the windows' starts away from multiples of `hop` since the epoch, for example `6h` for days that begin at six
    /// o'clock UTC (default 0).
    offset: Option<Microseconds>,
    /// The columns that tell one thing from another. A null is a value like others here.
    #[serde(default)]
    key: Vec<String>,
    /// The column with the event time (default `ts`). Rows without one are refused as `missing_value`.
    #[serde(default = "ts")]
    time: String,
    /// How long after its end, in event time, a window stays open for rows that come late (default 0).
    #[serde(default)]
    allowed_lateness: Option<Microseconds>,
    /// The columns that come out, by name: `mean_speed_mps = { function = "mean", column = "speed_mps" }`.
    aggregates: IndexMap<String, Aggregate>,
    /// The most windows that are open at a time (default 1000000); with more, the one that ends first is closed early.
    #[serde(default = "million")]
    max_open_windows: usize,
}

/// How time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Windows of `size`, one after the other.
    Tumbling,
    /// Windows of `size` that begin every `hop`: each row belongs to several.
    Hopping,
    /// As long as rows of the same thing follow each other within less than `gap`.
    Session,
}

/// A column that comes out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Aggregate {
    /// What is made of the rows.
    function: Function,
    /// The column that it is made of; only `count` can do without.
    column: Option<String>,
    /// Of a percentile: which one, from 0 to 100.
    percent: Option<f64>,
}

impl Component for Window {
    const TYPE: &'static str = "window";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        self.shape()?;
        if self.aggregates.is_empty() {
            return Err(Error::config("'aggregates' is empty")
                .with_help("aggregates = { rows = { function = \"count\" } }"));
        }
        if self.max_open_windows == 0 {
            return Err(Error::config("'max_open_windows' must be above 0"));
        }
        for (name, own) in &self.aggregates {
            check_percent(name, own.function, own.percent)?;
            if own.column.is_none() && own.function != Function::Count {
                return Err(Error::config(format!("the aggregate '{name}' has no 'column'"))
                    .with_help(format!("{name} = {{ function = \"…\", column = \"speed_mps\" }}")));
            }
        }
        Ok(Box::new(self))
    }
}

impl Window {
    fn shape(&self) -> Result<Shape> {
        let needed = |key: &str, value: Option<Microseconds>| match value {
            Some(Microseconds(us)) if us > 0 => Ok(us),
            Some(_) => Err(Error::config(format!("'{key}' must be above 0"))),
            None => Err(Error::config(format!("a window of this 'kind' needs the key '{key}'"))
                .with_help(format!("{key} = \"5m\""))),
        };
        let foreign = |key: &str, given: bool| {
            if given {
                return Err(Error::config(format!("'{key}' does not belong to a window of this kind")));
            }
            Ok(())
        };
        if self.kind == Kind::Session {
            foreign("size", self.size.is_some())?;
            foreign("hop", self.hop.is_some())?;
            foreign("offset", self.offset.is_some())?;
            return Ok(Shape::Session { gap_us: needed("gap", self.gap)? });
        }
        foreign("gap", self.gap.is_some())?;
        let size_us = needed("size", self.size)?;
        let hop_us = if self.kind == Kind::Hopping {
            needed("hop", self.hop)?
        } else {
            foreign("hop", self.hop.is_some())?;
            size_us
        };
        if hop_us > size_us {
            return Err(Error::config("'hop' is longer than 'size': rows between windows would be lost")
                .with_help("make 'size' at least as long as 'hop'"));
        }
        if (size_us - 1) / hop_us >= OVERLAPS {
            return Err(Error::config(format!(
                "'hop' is so short that a row belongs to more than {OVERLAPS} windows"
            )));
        }
        let offset_us = self.offset.map_or(0, |offset| offset.0);
        Ok(Shape::Fixed { size_us, hop_us, offset_us })
    }
}

/// An aggregate with its place among the columns.
struct Part {
    function: Function,
    percent: f64,
    at: Option<usize>,
    /// Its column as bytes, in their order.
    bytes: Option<Bytes>,
}

#[async_trait]
impl TransformBuilder for Window {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let input = only_input(&context.inputs, "window")?;
        let keys = Bytes::named(&input, &self.key)?;
        let mut fields: Vec<Field> = keys.columns().iter().map(|at| input.field(*at).clone()).collect();
        fields.extend([START, END].map(|name| Field::new(name, timestamp_type(), true)));
        let mut parts = Vec::new();
        for (name, own) in &self.aggregates {
            if let Some(same) = fields.iter().find(|field| field.name() == name) {
                return Err(Error::config(format!("there would be two columns '{}'", same.name()))
                    .with_help("give the aggregate another name"));
            }
            let at = match &own.column {
                Some(of) if own.function.takes_numbers() => {
                    Some(number_column(&input, of, "such an aggregate")?)
                }
                Some(of) => Some(column(&input, of)?),
                None => None,
            };
            fields.push(match (own.function, at) {
                (Function::Count, _) => Field::new(name, DataType::Int64, true),
                (function, Some(at)) if function.gives_a_value() => input.field(at).clone().with_name(name),
                _ => Field::new(name, DataType::Float64, true),
            });
            parts.push(Part {
                function: own.function,
                percent: own.percent.unwrap_or(0.0),
                at,
                bytes: at.map(|at| Bytes::new(&input, vec![at])).transpose()?,
            });
        }
        Ok(Box::new(WindowTransform {
            shape: self.shape()?,
            lateness_us: self.allowed_lateness.map_or(0, |lateness| lateness.0),
            allowed_us: self.allowed_lateness.map_or(0, |lateness| lateness.0),
            most: self.max_open_windows,
            time: time_column(&input, &self.time)?,
            time_name: self.time.clone(),
            keys,
            functions: parts.iter().map(|part| part.function).collect(),
            parts,
            schema: Arc::new(Schema::new(fields)),
            frames: Frames::default(),
            settlement: Settlement::default(),
        }))
    }

    async fn lineage(&self, context: &TransformContext<'_>, _out: &SchemaRef) -> Result<Vec<ColumnEdge>> {
        let Some((input, _)) = context.inputs.first() else { return Ok(Vec::new()) };
        let mut edges: Vec<ColumnEdge> =
            self.key.iter().map(|name| ColumnEdge::direct(name, input, name)).collect();
        for name in [START, END] {
            edges.extend(computed(name, input, [self.time.as_str()], "window"));
        }
        for (name, own) in &self.aggregates {
            if let Some(column) = &own.column {
                let what = Some(format!("window: {:?} of {column}", own.function).to_lowercase());
                edges.push(ColumnEdge::new(Some(name), input, column, Dependency::Aggregate, what));
            }
        }
        let by = self.key.iter().chain([&self.time]).map(String::as_str);
        edges.extend(decides(input, by, Dependency::Aggregate, "window"));
        Ok(edges)
    }
}

struct WindowTransform {
    shape: Shape,
    /// What the settings allow, or more.
    lateness_us: i64,
    allowed_us: i64,
    most: usize,
    time: usize,
    time_name: String,
    keys: Bytes,
    parts: Vec<Part>,
    functions: Vec<Function>,
    schema: SchemaRef,
    frames: Frames,
    settlement: Settlement,
}

/// The values of a batch that an aggregate looks at.
struct Values {
    column: Option<ArrayRef>,
    bytes: Option<Encoded>,
    numbers: Option<Float64Array>,
}

impl Part {
    fn values(&self, rows: &RecordBatch) -> Result<Values> {
        let column = self.at.map(|at| rows.column(at).clone());
        let numeric = column.as_ref().filter(|column| column.data_type().is_numeric());
        let numbers = numeric.map(|column| cast(column, &DataType::Float64)).transpose()?;
        let numbers = numbers.map(|numbers| numbers.as_primitive::<Float64Type>().clone());
        let bytes = self.bytes.as_ref().map(|bytes| bytes.of(rows)).transpose()?;
        Ok(Values { column, bytes, numbers })
    }

    fn take(&self, accumulator: &mut Accumulator, values: &Values, row: usize, time_us: i64) {
        let number =
            values.numbers.as_ref().filter(|numbers| numbers.is_valid(row)).map(|own| own.value(row));
        let is_missing = values.column.as_ref().is_some_and(|column| column.is_null(row))
            || number.is_some_and(f64::is_nan);
        let bytes = match &values.bytes {
            Some(bytes) => bytes.row(row),
            None => Box::default(), // the count of rows: each has a value
        };
        let cell = Cell {
            time_us,
            bytes: (!is_missing).then_some(&*bytes),
            number: number.filter(|number| !number.is_nan()),
        };
        accumulator.take(self.function, cell);
    }

    /// The column of an aggregate over closed windows.
    fn column(&self, outcomes: &[Outcome], data_type: &DataType) -> Result<ArrayRef> {
        match &self.bytes {
            Some(bytes) if self.function.gives_a_value() => {
                let null = bytes.encode_column(new_null_array(data_type, 1))?;
                let rows = outcomes.iter().map(|outcome| match outcome {
                    Outcome::Bytes(Some(bytes)) => bytes.as_ref(),
                    _ => null.as_ref(),
                });
                let columns = bytes.back(rows)?;
                columns.into_iter().next().ok_or_else(|| Error::internal("a column of values is missing"))
            }
            _ if self.function == Function::Count => Ok(Arc::new(
                outcomes
                    .iter()
                    .map(|outcome| if let Outcome::Count(count) = outcome { Some(*count) } else { None })
                    .collect::<Int64Array>(),
            )),
            _ => Ok(Arc::new(
                outcomes
                    .iter()
                    .map(|outcome| if let Outcome::Number(number) = outcome { *number } else { None })
                    .collect::<Float64Array>(),
            )),
        }
    }
}

type Closed = (Place, Vec<Accumulator>);

impl WindowTransform {
    /// Closed windows as rows.
    fn rows(&self, closed: Vec<Closed>) -> Result<RecordBatch> {
        let keys: Vec<&[u8]> = closed.iter().map(|((_, _, key), _)| key.as_ref()).collect();
        let mut columns = if self.keys.columns().is_empty() { Vec::new() } else { self.keys.back(keys)? };
        let instants = |of: fn(&Place) -> i64| -> ArrayRef {
            let instants: TimestampMicrosecondArray =
                closed.iter().map(|(place, _)| Some(of(place))).collect();
            Arc::new(instants.with_data_type(timestamp_type()))
        };
        columns.push(instants(|place| place.1));
        columns.push(instants(|place| place.0));
        let mut outcomes: Vec<Vec<Outcome>> = self.parts.iter().map(|_| Vec::new()).collect();
        for (_, accumulators) in closed {
            for ((part, accumulator), outcomes) in self.parts.iter().zip(accumulators).zip(&mut outcomes) {
                outcomes.push(accumulator.finish(part.function, part.percent));
            }
        }
        for ((part, outcomes), number) in self.parts.iter().zip(&outcomes).zip(columns.len()..) {
            columns.push(part.column(outcomes, self.schema.field(number).data_type())?);
        }
        Ok(RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?)
    }

    fn fingerprint(&self) -> String {
        format!("{:?} {:?} {}", self.shape, self.functions, fingerprint(&self.schema))
    }
}

#[async_trait]
impl Transform for WindowTransform {
    fn output_schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    async fn process(&mut self, _input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let times = times(&batch.rows, self.time)?;
        let keys = self.keys.of(&batch.rows)?;
        let values = self.parts.iter().map(|part| part.values(&batch.rows)).collect::<Result<Vec<_>>>()?;
        let mut closed: Vec<Closed> = Vec::new();
        let mut sequences: Vec<Option<u64>> = Vec::new();
        for row in 0..batch.rows.num_rows() {
            let own = sequence(&batch, row);
            let Some(time_us) = time(&times, row) else {
                rejects.push(row, "missing_value", format!("no value for {}", self.time_name));
                continue;
            };
            let key = keys.row(row);
            let places = self.frames.windows(self.shape, &key, time_us, self.lateness_us, &self.functions);
            if places.is_empty() {
                let watermark = self.frames.watermark(self.lateness_us).unwrap_or(i64::MAX);
                let detail = late_detail(time_us, "belongs to a window closed by", watermark);
                rejects.push(row, "late", detail);
                continue;
            }
            for place in &places {
                let Some(accumulators) = self.frames.get_mut(place) else { continue };
                for ((part, values), accumulator) in self.parts.iter().zip(&values).zip(accumulators) {
                    part.take(accumulator, values, row, time_us);
                }
            }
            self.settlement.absorbed.extend(own);
            self.frames.advance(time_us);
            while let Some(window) = self.frames.close(self.lateness_us, self.most) {
                closed.push(window);
                sequences.push(own);
            }
        }
        Ok(vec![Batch { rows: self.rows(closed)?, sequences: sequences.into_iter().collect() }])
    }

    async fn finish(&mut self, _rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let mut closed = Vec::new();
        while let Some(window) = self.frames.end() {
            closed.push(window);
        }
        Ok(vec![Batch { rows: self.rows(closed)?, sequences: None }])
    }

    fn tolerate(&mut self, more_us: i64) {
        self.lateness_us = self.lateness_us.saturating_add(more_us);
    }

    async fn catch_up(&mut self) -> Result<Vec<Batch>> {
        let mut closed = Vec::new();
        while let Some(window) = self.frames.close(self.allowed_us, self.most) {
            closed.push(window);
        }
        Ok(vec![Batch { rows: self.rows(closed)?, sequences: None }])
    }

    fn settle(&mut self) -> Settlement {
        std::mem::take(&mut self.settlement)
    }

    fn holds_rows(&self) -> bool {
        !self.frames.is_empty()
    }

    fn state(&self) -> Result<Vec<u8>> {
        let mut out = Writer::default();
        write_head(&mut out, VERSION, &self.fingerprint(), self.holds_rows());
        self.frames.write(&mut out);
        Ok(out.finish())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut input = Reader::new(state);
        if read_head(&mut input, VERSION, &self.fingerprint())? {
            self.frames = Frames::read(self.shape, &self.functions, &mut input)?;
        }
        Ok(())
    }
}
