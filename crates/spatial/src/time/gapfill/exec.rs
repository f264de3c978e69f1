//! The operator that fills gaps: all rows of a partition by key and bucket, and a row for each bucket between.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{Float64Type, IntervalMonthDayNano, SchemaRef, TimestampMicrosecondType};
use chrono::{DateTime, Months, Utc};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_err, internal_err, plan_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use twinlake_contracts::timestamp_type;

use super::markers::Marker;
use crate::functions::time_bucket::bucket;
use crate::time::keys::{Keys, by_key};

/// More buckets than this in one series are taken for a mistake in the bounds.
const MOST_BUCKETS: usize = 10_000_000;
/// Stands for a bucket without a row.
const GAP: u32 = u32::MAX;

/// The buckets of every series, or of each its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    width: IntervalMonthDayNano,
    /// The first bucket; without one, a series begins with its own first.
    first: Option<i64>,
    /// The end of the last bucket, exclusive; without one, a series ends with its own last.
    end: Option<i64>,
}

impl Grid {
    pub(super) fn new(width: IntervalMonthDayNano, start: Option<i64>, end: Option<i64>) -> Result<Self> {
        // Also checks the width, with any time.
        let first = bucket(width, start.unwrap_or(0), None);
        match first {
            Ok(first) => Ok(Self { width, first: start.map(|_| first), end }),
            Err(message) => plan_err!("time_bucket_gapfill: {message}"),
        }
    }

    /// The bucket after one; `None` at the end of time.
    fn after(&self, start: i64) -> Option<i64> {
        if self.width.months != 0 {
            let months = Months::new(self.width.months.unsigned_abs());
            let start = DateTime::<Utc>::from_timestamp_micros(start)?;
            return Some(start.checked_add_months(months)?.timestamp_micros());
        }
        start.checked_add(i64::from(self.width.days) * 86_400_000_000 + self.width.nanoseconds / 1_000)
    }
}

/// A column without gaps.
#[derive(Debug, Clone)]
pub(crate) struct PhysicalFill {
    pub(super) kind: Marker,
    pub(super) value: Arc<dyn PhysicalExpr>,
}

/// See [the module](super).
#[derive(Debug)]
pub(crate) struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    shape: Arc<Shape>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// Where things are in the input, and what comes out.
#[derive(Debug)]
struct Shape {
    time: usize,
    keys: Vec<usize>,
    grid: Grid,
    fills: Vec<PhysicalFill>,
    schema: SchemaRef,
}

impl GapFillExec {
    pub(super) fn new(
        input: Arc<dyn ExecutionPlan>,
        time: usize,
        keys: Vec<usize>,
        grid: Grid,
        fills: Vec<PhysicalFill>,
        schema: SchemaRef,
    ) -> Self {
        Self::of(input, Arc::new(Shape { time, keys, grid, fills, schema }))
    }

    fn of(input: Arc<dyn ExecutionPlan>, shape: Arc<Shape>) -> Self {
        // The input's columns come first, so what its partitions are hashed by keeps its meaning.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&shape.schema)),
            input.output_partitioning().clone(),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, shape, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.input.schema();
        let keys: Vec<&str> = self.shape.keys.iter().map(|key| schema.field(*key).name().as_str()).collect();
        let fills: Vec<String> =
            self.shape.fills.iter().map(|fill| format!("{}({})", fill.kind.name(), fill.value)).collect();
        write!(f, "GapFillExec: keys=[{}], fills=[{}]", keys.join(", "), fills.join(", "))?;
        let shown = |time: Option<i64>| time.and_then(DateTime::<Utc>::from_timestamp_micros);
        if let Some(first) = shown(self.shape.grid.first) {
            write!(f, ", from={}", first.format("%FT%T%.fZ"))?;
        }
        if let Some(end) = shown(self.shape.grid.end) {
            write!(f, ", before={}", end.format("%FT%T%.fZ"))?;
        }
        Ok(())
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &'static str {
        "GapFillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        if self.shape.keys.is_empty() {
            return InputDistributionRequirements::new(vec![Distribution::SinglePartition]);
        }
        let schema = self.input.schema();
        let column =
            |key: &usize| Arc::new(Column::new(schema.field(*key).name(), *key)) as Arc<dyn PhysicalExpr>;
        let keys = self.shape.keys.iter().map(column).collect();
        InputDistributionRequirements::new(vec![Distribution::KeyPartitioned(keys)])
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for fill in &self.shape.fills {
            recursion = recursion.visit_sibling(|| f(&fill.value))?;
        }
        Ok(recursion)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("filling gaps has one child");
        };
        Ok(Arc::new(Self::of(input, Arc::clone(&self.shape))))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let reservation =
            MemoryConsumer::new(format!("GapFill[{partition}]")).register(context.memory_pool());
        let shape = Arc::clone(&self.shape);
        let batch_size = context.session_config().batch_size();
        let stream = futures::stream::once(async move {
            let mut series = Series::collect(input, shape, reservation, &metrics).await?;
            let batches = std::iter::from_fn(move || {
                let _time = metrics.elapsed_compute().timer();
                let batch = series.next(batch_size).transpose()?;
                if let Ok(batch) = &batch {
                    metrics.record_output(batch.num_rows());
                }
                Some(batch)
            });
            Ok::<_, DataFusionError>(futures::stream::iter(batches))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream.try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// All rows of a partition, by key.
struct Series {
    shape: Arc<Shape>,
    rows: RecordBatch,
    times: TimestampMicrosecondArray,
    /// The value of each fill for each row.
    values: Vec<ArrayRef>,
    /// The columns of the keys.
    keys: Vec<ArrayRef>,
    starts: Vec<usize>,
    /// Row numbers by key.
    sorted: Vec<u32>,
    /// The key that comes next.
    next: usize,
    /// What was computed and not yet handed on.
    waiting: Option<(RecordBatch, usize)>,
    _reservation: MemoryReservation,
}

/// The rows to come out: which key, which bucket, and which row of the input stands there.
#[derive(Default)]
struct Output {
    keys: Vec<u32>,
    buckets: Vec<Option<i64>>,
    rows: Vec<u32>,
    /// For each `locf`, the row whose value is carried.
    carried: Vec<Vec<Option<u32>>>,
    /// For each `interpolate`, its values.
    lines: Vec<Vec<Option<f64>>>,
}

impl Series {
    async fn collect(
        mut input: SendableRecordBatchStream,
        shape: Arc<Shape>,
        reservation: MemoryReservation,
        metrics: &BaselineMetrics,
    ) -> Result<Self> {
        let schema = input.schema();
        let types: Vec<_> = shape.keys.iter().map(|key| schema.field(*key).data_type().clone()).collect();
        let mut keys = Keys::new(&types)?;
        let (mut owners, mut numbers, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(batch) = input.next().await.transpose()? {
            let _time = metrics.elapsed_compute().timer();
            let columns: Vec<ArrayRef> =
                shape.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
            keys.number(&columns, batch.num_rows(), &mut numbers)?;
            owners.extend(numbers.iter().map(|number| *number as u32));
            reservation.try_grow(2 * batch.get_array_memory_size() + batch.num_rows() * 16)?;
            batches.push(batch);
        }
        let _time = metrics.elapsed_compute().timer();
        reservation.try_grow(keys.size())?;
        let rows = concat_batches(&schema, &batches)?;
        if rows.num_rows() >= GAP as usize {
            return exec_err!("time_bucket_gapfill: more than {GAP} rows in one partition");
        }
        let times = cast(rows.column(shape.time), &timestamp_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>().clone();
        let (starts, mut sorted) = by_key(&owners, keys.len());
        let time = |row: &u32| {
            let row = *row as usize;
            times.is_valid(row).then(|| times.value(row))
        };
        for ends in starts.windows(2) {
            let own = &mut sorted[ends[0]..ends[1]];
            if !own.is_sorted_by_key(time) {
                own.sort_by_key(time);
            }
        }
        let value = |fill: &PhysicalFill| fill.value.evaluate(&rows)?.into_array(rows.num_rows());
        let values = shape.fills.iter().map(value).collect::<Result<Vec<_>>>()?;
        let keys = keys.columns()?;
        let (next, waiting) = (0, None);
        Ok(Self {
            shape,
            rows,
            times,
            values,
            keys,
            starts,
            sorted,
            next,
            waiting,
            _reservation: reservation,
        })
    }

    /// The next rows, at most `size`; `None` at the end.
    fn next(&mut self, size: usize) -> Result<Option<RecordBatch>> {
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

    fn time(&self, row: u32) -> Option<i64> {
        let row = row as usize;
        self.times.is_valid(row).then(|| self.times.value(row))
    }

    /// Adds one series, buckets ascending.
    fn fill(&self, key: usize, output: &mut Output) -> Result<()> {
        let own = &self.sorted[self.starts[key]..self.starts[key + 1]];
        let begin = output.rows.len();
        let grid = self.shape.grid;
        let known = |row: Option<&u32>| row.and_then(|row| self.time(*row));
        let mut bucket = grid.first.or_else(|| own.iter().find_map(|row| self.time(*row)));
        let end = grid.end.or_else(|| known(own.last()).map(|last| last.saturating_add(1)));
        let mut rest = own.iter().copied().peekable();
        while let (Some(at), Some(end)) = (bucket, end) {
            if at >= end {
                break;
            }
            // Those without a time or before the first bucket.
            while let Some(row) = rest.next_if(|row| self.time(*row).is_none_or(|time| time < at)) {
                output.push(key, self.time(row), row);
            }
            match rest.next_if(|row| self.time(*row) == Some(at)) {
                Some(row) => output.push(key, Some(at), row),
                None => output.push(key, Some(at), GAP),
            }
            if output.rows.len() - begin > MOST_BUCKETS {
                return exec_err!(
                    "time_bucket_gapfill: more than {MOST_BUCKETS} buckets in one series; narrow the bounds"
                );
            }
            bucket = grid.after(at);
        }
        for row in rest {
            output.push(key, self.time(row), row);
        }
        let (mut carried, mut lines) = (0, 0);
        for (fill, values) in self.shape.fills.iter().zip(&self.values) {
            if fill.kind == Marker::Locf {
                let mut last = None;
                for row in &output.rows[begin..] {
                    if *row != GAP && values.is_valid(*row as usize) {
                        last = Some(*row);
                    }
                    output.carried[carried].push(last);
                }
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
        let rows: UInt32Array = output.rows.iter().map(|row| (*row != GAP).then_some(*row)).collect();
        let owners = UInt32Array::from(output.keys);
        let buckets: TimestampMicrosecondArray = output.buckets.into_iter().collect();
        let mut columns = Vec::with_capacity(self.shape.schema.fields().len());
        for (place, column) in self.rows.columns().iter().enumerate() {
            columns.push(if place == self.shape.time {
                cast(&buckets, column.data_type())?
            } else if let Some(key) = self.shape.keys.iter().position(|key| *key == place) {
                take(&self.keys[key], &owners, None)?
            } else {
                take(column, &rows, None)?
            });
        }
        let (mut carried, mut lines) = (output.carried.into_iter(), output.lines.into_iter());
        for (fill, values) in self.shape.fills.iter().zip(&self.values) {
            columns.push(if fill.kind == Marker::Locf {
                let rows: UInt32Array = carried.next().unwrap_or_default().into_iter().collect();
                take(values, &rows, None)?
            } else {
                Arc::new(lines.next().unwrap_or_default().into_iter().collect::<Float64Array>())
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.shape.schema), columns)?)
    }
}

impl Output {
    fn push(&mut self, key: usize, bucket: Option<i64>, row: u32) {
        self.keys.push(key as u32);
        self.buckets.push(bucket);
        self.rows.push(row);
    }
}

/// Values at buckets on straight lines between the known ones.
fn interpolate(
    values: &arrow::array::PrimitiveArray<Float64Type>,
    buckets: &[Option<i64>],
    rows: &[u32],
    line: &mut Vec<Option<f64>>,
) {
    let known = |at: usize| {
        let row = rows[at] as usize;
        let value = (rows[at] != GAP && values.is_valid(row)).then(|| values.value(row))?;
        Some((buckets[at]?, value))
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
            line.push(match (before, after, bucket) {
                (Some(before), Some(after), Some(bucket)) => {
                    let share = (bucket - before.0) as f64 / (after.0 - before.0) as f64;
                    Some(before.1 + (after.1 - before.1) * share)
                }
                _ => None,
            });
        }
        at = next;
    }
}
