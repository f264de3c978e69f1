//! Filling: the rows of some series, and a row for each bucket between them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, PrimitiveArray, RecordBatch, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use datafusion::common::{Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use twinlake_contracts::timestamp_type;

use super::exec::Shape;
use super::markers::Marker;

/// More buckets than this in one series are taken for a mistake in the bounds.
const MOST_BUCKETS: usize = 10_000_000;
/// Stands for a bucket without a row.
const GAP: u32 = u32::MAX;
/// Stands for a row without a time. No bucket begins there.
const NO_TIME: i64 = i64::MIN;

/// Some series, filled one after the other.
pub(super) struct Series {
    shape: Arc<Shape>,
    /// By key, and by time within a key, rows without a time first.
    rows: RecordBatch,
    times: Vec<i64>,
    /// The value of each fill for each row.
    values: Vec<ArrayRef>,
    /// Where each key's rows begin, and where the last one's end.
    starts: Vec<usize>,
    /// The series that comes next.
    next: usize,
    /// What was computed and not yet handed on.
    waiting: Option<(RecordBatch, usize)>,
    /// For what is waiting.
    reservation: MemoryReservation,
}

/// The rows to come out: of which key (by its first row), which bucket, and which row of the input stands there.
#[derive(Default)]
struct Output {
    keys: Vec<u32>,
    buckets: Vec<i64>,
    rows: Vec<u32>,
    /// For each `locf`, the row whose value is carried.
    carried: Vec<Vec<u32>>,
    /// For each `interpolate`, its values.
    lines: Vec<Vec<Option<f64>>>,
}

impl Series {
    /// `rows` by key, and by time within a key with nulls first; `starts` tells where each key's rows begin and where the
    /// last one's end.
    pub(super) fn new(
        shape: Arc<Shape>,
        rows: RecordBatch,
        starts: Vec<usize>,
        reservation: MemoryReservation,
    ) -> Result<Self> {
        if rows.num_rows() >= GAP as usize {
            return exec_err!("time_bucket_gapfill: more than {GAP} rows in one partition");
        }
        let times = cast(rows.column(shape.time), &timestamp_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let times = if times.null_count() == 0 {
            times.values().to_vec()
        } else {
            times.iter().map(|time| time.unwrap_or(NO_TIME)).collect()
        };
        let values = shape.fills.iter().map(|fill| fill.value.evaluate(&rows)?.into_array(rows.num_rows()));
        let values = values.collect::<Result<Vec<_>>>()?;
        Ok(Self { shape, rows, times, values, starts, next: 0, waiting: None, reservation })
    }

    /// The next rows, at most `size`; `None` at the end.
    pub(super) fn next(&mut self, size: usize) -> Result<Option<RecordBatch>> {
        if self.waiting.is_none() {
            let mut output = Output {
                carried: vec![Vec::new(); self.count(Marker::Locf)],
                lines: vec![Vec::new(); self.count(Marker::Interpolate)],
                ..Output::default()
            };
            while output.rows.len() < size && self.next + 1 < self.starts.len() {
                self.fill(self.next, &mut output)?;
                self.next += 1;
            }
            if output.rows.is_empty() {
                self.reservation.free();
                return Ok(None);
            }
            self.waiting = Some((self.batch(output)?, 0));
        }
        let Some((batch, given)) = self.waiting.take() else { return Ok(None) };
        let count = size.min(batch.num_rows() - given);
        let slice = batch.slice(given, count);
        if given + count < batch.num_rows() {
            self.waiting = Some((batch, given + count));
        }
        Ok(Some(slice))
    }

    fn count(&self, kind: Marker) -> usize {
        self.shape.fills.iter().filter(|fill| fill.kind == kind).count()
    }

    /// Adds one series, buckets ascending.
    fn fill(&self, key: usize, output: &mut Output) -> Result<()> {
        let (mut row, stop) = (self.starts[key], self.starts[key + 1]);
        let (first, begin) = (row as u32, output.rows.len());
        let grid = self.shape.grid;
        let known = self.times[row..stop].iter().find(|time| **time != NO_TIME);
        let mut bucket = grid.first.or_else(|| known.copied());
        let end =
            grid.end.or_else(|| known.and(self.times[row..stop].last()).map(|last| last.saturating_add(1)));
        while let (Some(at), Some(end)) = (bucket, end) {
            if at >= end {
                break;
            }
            // Those without a time or before the first bucket.
            while row < stop && self.times[row] < at {
                output.push(self.times[row], row as u32);
                row += 1;
            }
            if row < stop && self.times[row] == at {
                output.push(at, row as u32);
                row += 1;
            } else {
                output.push(at, GAP);
            }
            if output.rows.len() - begin > MOST_BUCKETS {
                return exec_err!(
                    "time_bucket_gapfill: more than {MOST_BUCKETS} buckets in one series; narrow the bounds"
                );
            }
            bucket = grid.after(at);
        }
        for row in row..stop {
            output.push(self.times[row], row as u32);
        }
        output.keys.resize(output.rows.len(), first);
        let (mut carried, mut lines) = (0, 0);
        for (fill, values) in self.shape.fills.iter().zip(&self.values) {
            if fill.kind == Marker::Locf {
                let nulls = values.logical_nulls();
                let mut last = GAP;
                output.carried[carried].extend(output.rows[begin..].iter().map(|row| {
                    if *row != GAP && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row as usize)) {
                        last = *row;
                    }
                    last
                }));
                carried += 1;
            } else {
                interpolate(
                    values.as_primitive(),
                    &output.buckets[begin..],
                    &output.rows[begin..],
                    &mut output.lines[lines],
                );
                lines += 1;
            }
        }
        Ok(())
    }

    fn batch(&self, output: Output) -> Result<RecordBatch> {
        let count = output.rows.len();
        let held = (self.rows.get_array_memory_size() + size_of_val(self.times.as_slice()))
            / self.rows.num_rows().max(1);
        self.reservation.try_resize(count * (held + 16 + 16 * self.values.len())).map_err(|error| {
            error
                .context("the buckets of one series do not fit into the memory of queries; narrow the bounds")
        })?;
        let rows = or_null(&output.rows);
        let owners = UInt32Array::from(output.keys);
        let nulls = output
            .buckets
            .contains(&NO_TIME)
            .then(|| output.buckets.iter().map(|bucket| *bucket != NO_TIME).collect());
        let buckets = TimestampMicrosecondArray::try_new(output.buckets.into(), nulls)?;
        let buckets = buckets.with_data_type(timestamp_type());
        let mut columns = Vec::with_capacity(self.shape.schema.fields().len());
        for (place, column) in self.rows.columns().iter().enumerate() {
            columns.push(if place == self.shape.time {
                cast(&buckets, column.data_type())?
            } else if self.shape.keys.contains(&place) {
                take(column, &owners, None)?
            } else {
                take(column, &rows, None)?
            });
        }
        let (mut carried, mut lines) = (output.carried.iter(), output.lines.into_iter());
        for (fill, values) in self.shape.fills.iter().zip(&self.values) {
            columns.push(if fill.kind == Marker::Locf {
                take(values, &or_null(carried.next().map_or(&[], Vec::as_slice)), None)?
            } else {
                Arc::new(lines.next().unwrap_or_default().into_iter().collect::<Float64Array>())
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.shape.schema), columns)?)
    }
}

/// Rows to take, none for a gap.
fn or_null(rows: &[u32]) -> UInt32Array {
    let nulls = rows.contains(&GAP).then(|| rows.iter().map(|row| *row != GAP).collect());
    UInt32Array::new(rows.to_vec().into(), nulls)
}

impl Output {
    fn push(&mut self, bucket: i64, row: u32) {
        self.buckets.push(bucket);
        self.rows.push(row);
    }
}

/// Values at buckets on straight lines between the known ones.
fn interpolate(
    values: &PrimitiveArray<Float64Type>,
    buckets: &[i64],
    rows: &[u32],
    line: &mut Vec<Option<f64>>,
) {
    let known = |at: usize| {
        let row = rows[at] as usize;
        let value = (rows[at] != GAP && values.is_valid(row)).then(|| values.value(row))?;
        (buckets[at] != NO_TIME).then_some((buckets[at], value))
    };
    let mut before: Option<(i64, f64)> = None;
    let mut at = 0;
    while at < rows.len() {
        if let Some(found) = known(at) {
            line.push(Some(found.1));
            before = Some(found);
            at += 1;
            continue;
        }
        let next = (at..rows.len()).find(|later| known(*later).is_some()).unwrap_or(rows.len());
        let after = if next < rows.len() { known(next) } else { None };
        for bucket in &buckets[at..next] {
            line.push(match (before, after) {
                (Some(before), Some(after)) if *bucket != NO_TIME => {
                    let share = (bucket - before.0) as f64 / (after.0 - before.0) as f64;
                    Some(before.1 + (after.1 - before.1) * share)
                }
                _ => None,
            });
        }
        at = next;
    }
}
