//! The physical `ASOF JOIN` when the left side is the smaller one: it is in memory, by key and time, and the right side
//! streams past it, in any order and in as many partitions as it has.
//!
//! Each right row is noted at one left row: for `>=` at the earliest left row of its key that is not before it, if no
//! later right row is noted there. When all rows have passed, the nearest right row of a left row is the latest one noted
//! at it or at any left row before it (for `<=` all this the other way round). No side is sorted or hashed into
//! partitions, and the work for a right row is a look at its key and, mostly, at the place where the row before it of that
//! key was noted.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, interleave, interleave_record_batch, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_err, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning,
};
use futures::{StreamExt, TryStreamExt};

use super::exec::{AsofJoinExec, Match, NOBODY, by_time, evaluate};
use super::merged::Merge;
use crate::time::keys::{Keys, all_valid};
use crate::time::order::ordinals;

/// Marks a left row that no right row is noted at.
const NOTHING: u64 = u64::MAX;

/// See [the module](self).
#[derive(Debug)]
pub(crate) struct AsofStreamedExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    rule: Arc<Match>,
    properties: Arc<PlanProperties>,
    shared: Arc<Shared>,
    metrics: ExecutionPlanMetricsSet,
}

/// What the partitions of one execution share.
#[derive(Default)]
struct Shared {
    left: futures::lock::Mutex<Option<ReadLeft>>,
    /// What the partitions that are at their end have noted.
    done: Mutex<Vec<Notes>>,
    /// The right side's partitions, when the left side is too large and all is sorted.
    unread: Mutex<Vec<SendableRecordBatchStream>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// What became of the left side.
enum ReadLeft {
    Left(Arc<Left>),
    /// What was read of it, and the rest, for the one that joins.
    TooLarge(Option<(Vec<RecordBatch>, SendableRecordBatchStream)>),
}

impl AsofStreamedExec {
    pub(crate) fn new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        rule: Arc<Match>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(right.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { left, right, rule, properties: Arc::new(properties), shared: Arc::default(), metrics }
    }

    /// The same join where each partition may run in another process: each looks at the keys that are its own, since the
    /// partitions of this operator tell each other what they found.
    pub(crate) fn separable(&self, partitions: usize) -> Result<AsofJoinExec> {
        let side = |plan: &Arc<dyn ExecutionPlan>, keys: Vec<Arc<dyn PhysicalExpr>>| {
            let plan = Arc::clone(plan);
            Ok::<Arc<dyn ExecutionPlan>, DataFusionError>(if keys.is_empty() {
                Arc::new(CoalescePartitionsExec::new(plan))
            } else {
                Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, partitions))?)
            })
        };
        let (left, right) = self.rule.on.iter().cloned().unzip();
        let (left, right) = (side(&self.left, left)?, side(&self.right, right)?);
        Ok(AsofJoinExec::new(left, right, (*self.rule).clone(), self.schema()))
    }
}

impl DisplayAs for AsofStreamedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsofStreamedExec: {}", self.rule)
    }
}

impl ExecutionPlan for AsofStreamedExec {
    fn name(&self) -> &'static str {
        "AsofStreamedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![
            Distribution::SinglePartition,
            Distribution::UnspecifiedDistribution,
        ])
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.rule.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([left, right]) = <[_; 2]>::try_from(children) else {
            return internal_err!("an ASOF JOIN has two children");
        };
        Ok(Arc::new(Self::new(left, right, Arc::clone(&self.rule), self.schema())))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let right = self.right.execute(partition, Arc::clone(&context))?;
        let partitions = self.right.output_partitioning().partition_count();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (rule, shared, schema) = (Arc::clone(&self.rule), Arc::clone(&self.shared), self.schema());
        let (left, right_schema) = (Arc::clone(&self.left), self.right.schema());
        let stream = futures::stream::once(async move {
            let left = {
                let mut known = shared.left.lock().await;
                if known.is_none() {
                    *known = Some(Left::read(&left, &rule, &context).await?);
                }
                match &mut *known {
                    Some(ReadLeft::Left(left)) => Arc::clone(left),
                    Some(ReadLeft::TooLarge(left)) => {
                        let mut unread = shared.unread.lock().unwrap_or_else(PoisonError::into_inner);
                        unread.push(right);
                        if unread.len() < partitions {
                            return Ok(futures::stream::empty().boxed());
                        }
                        // The last one joins all.
                        let Some((held, rest)) = left.take() else {
                            return internal_err!("the left side of an ASOF JOIN is read twice");
                        };
                        let all = futures::stream::select_all(std::mem::take(&mut *unread));
                        let right = RecordBatchStreamAdapter::new(right_schema, all);
                        let merge = Merge { rule: (*rule).clone(), schema, keeps_order: false, context };
                        return Ok(merge.join((held, rest), (Vec::new(), Box::pin(right)))?.boxed());
                    }
                    None => return internal_err!("the left side of an ASOF JOIN is not read"),
                }
            };
            let reservation =
                MemoryConsumer::new(format!("AsofJoin[{partition}]")).register(context.memory_pool());
            let notes = Notes::take(right, &left, &rule, reservation, &metrics).await?;
            let all = {
                let mut done = shared.done.lock().unwrap_or_else(PoisonError::into_inner);
                done.push(notes);
                if done.len() == partitions { std::mem::take(&mut *done) } else { Vec::new() }
            };
            // The last one gives all rows.
            let mut output = None;
            if !all.is_empty() {
                let _time = metrics.elapsed_compute().timer();
                output = Some(Output::new(left, all, &rule, schema));
            }
            let size = context.session_config().batch_size();
            let batches = std::iter::from_fn(move || {
                let _time = metrics.elapsed_compute().timer();
                let batch = output.as_mut()?.next(size).transpose()?;
                if let Ok(batch) = &batch {
                    metrics.record_output(batch.num_rows());
                }
                Some(batch)
            });
            Ok::<_, DataFusionError>(futures::stream::iter(batches).boxed())
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream.try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The left side.
#[derive(Debug)]
struct Left {
    batch: RecordBatch,
    /// The columns of its different keys.
    keys: Vec<ArrayRef>,
    starts: Vec<usize>,
    times: Vec<i64>,
    /// The row of each of `times`.
    rows: Vec<u32>,
    /// Rows whose key or time is null.
    alone: Vec<u32>,
    _reservation: MemoryReservation,
}

impl Left {
    async fn read(
        plan: &Arc<dyn ExecutionPlan>,
        rule: &Match,
        context: &Arc<TaskContext>,
    ) -> Result<ReadLeft> {
        let reservation =
            MemoryConsumer::new("AsofJoin").with_can_spill(true).register(context.memory_pool());
        let mut stream = plan.execute(0, Arc::clone(context))?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await.transpose()? {
            let wanted = 2 * batch.get_array_memory_size() + batch.num_rows() * 32;
            batches.push(batch);
            if reservation.try_grow(wanted).is_err() {
                return Ok(ReadLeft::TooLarge(Some((batches, stream))));
            }
        }
        let batch = concat_batches(&plan.schema(), &batches)?;
        drop(batches);
        if batch.num_rows() >= NOBODY as usize {
            return exec_err!("the left side of an ASOF JOIN has more than {NOBODY} rows");
        }
        let columns = evaluate(rule.on.iter().map(|(key, _)| key), &batch)?;
        let unsorted = ordinals(&rule.left_time.evaluate(&batch)?.into_array(batch.num_rows())?)?;
        let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
        let (mut keys, mut numbers) = (Keys::new(&types)?, Vec::new());
        keys.number(&columns, batch.num_rows(), &mut numbers)?;
        let valid = all_valid(&columns);
        let counts =
            |row: usize| unsorted.is_valid(row) && valid.as_ref().is_none_or(|valid| valid.is_valid(row));
        let owners: Vec<u32> = numbers
            .iter()
            .enumerate()
            .map(|(row, number)| if counts(row) { *number as u32 } else { NOBODY })
            .collect();
        let alone = (0..owners.len()).filter(|row| owners[*row] == NOBODY).map(|row| row as u32).collect();
        let (starts, times, rows) = by_time(&owners, unsorted.values(), keys.len());
        let keys = keys.columns()?;
        let left = Self { batch, keys, starts, times, rows, alone, _reservation: reservation };
        Ok(ReadLeft::Left(Arc::new(left)))
    }
}

/// What one partition of the right side has noted: for each of the left's times the time and place of a right row.
#[derive(Debug)]
struct Notes {
    times: Vec<i64>,
    /// The batch in the upper half, the row in the lower.
    places: Vec<u64>,
    batches: Vec<RecordBatch>,
    reservation: MemoryReservation,
}

impl Notes {
    async fn take(
        mut right: SendableRecordBatchStream,
        left: &Left,
        rule: &Match,
        reservation: MemoryReservation,
        metrics: &BaselineMetrics,
    ) -> Result<Self> {
        let count = left.times.len();
        reservation.try_grow(count * 16)?;
        let mut notes =
            Self { times: vec![0; count], places: vec![NOTHING; count], batches: Vec::new(), reservation };
        // The same keys in the same order have the same numbers; what the right side adds comes behind them.
        let types: Vec<_> = left.keys.iter().map(|column| column.data_type().clone()).collect();
        let (mut keys, mut numbers) = (Keys::new(&types)?, Vec::new());
        keys.number(&left.keys, left.keys.first().map_or(1, Array::len), &mut numbers)?;
        let mut cursors = vec![Cursor::default(); left.starts.len()];
        while let Some(batch) = right.next().await.transpose()? {
            let _time = metrics.elapsed_compute().timer();
            let columns = evaluate(rule.on.iter().map(|(_, key)| key), &batch)?;
            let times = ordinals(&rule.right_time.evaluate(&batch)?.into_array(batch.num_rows())?)?;
            keys.number(&columns, batch.num_rows(), &mut numbers)?;
            let valid = all_valid(&columns);
            let all = valid.is_none() && times.null_count() == 0;
            let batch_place = (notes.batches.len() as u64) << 32;
            let mut noted = false;
            for (row, &key) in numbers.iter().enumerate() {
                let counts =
                    all || times.is_valid(row) && valid.as_ref().is_none_or(|valid| valid.is_valid(row));
                if !counts || key + 1 >= left.starts.len() {
                    continue;
                }
                let time = times.value(row);
                let cursor = &mut cursors[key];
                if !cursor.holds(rule.operator, time) {
                    notes.put_down(cursor);
                    let own = &left.times[left.starts[key]..left.starts[key + 1]];
                    *cursor = Cursor::find(rule.operator, own, left.starts[key], time);
                    if cursor.slot != NO_SLOT {
                        (cursor.time, cursor.place) =
                            (notes.times[cursor.slot as usize], notes.places[cursor.slot as usize]);
                    }
                }
                let nearer = match rule.operator {
                    Operator::GtEq | Operator::Gt => time > cursor.time,
                    _ => time < cursor.time,
                };
                if cursor.slot != NO_SLOT && (cursor.place == NOTHING || nearer) {
                    cursor.time = time;
                    cursor.place = batch_place | row as u64;
                    noted = true;
                }
            }
            // A batch that nothing was noted of is not kept.
            if noted {
                let grown = notes.reservation.try_grow(batch.get_array_memory_size());
                notes.batches.push(batch);
                if grown.is_err() {
                    notes.compact(&mut cursors)?;
                }
            }
        }
        for cursor in &cursors {
            notes.put_down(cursor);
        }
        Ok(notes)
    }

    /// Keeps of all batches the rows that are noted, when memory is short.
    fn compact(&mut self, cursors: &mut [Cursor]) -> Result<()> {
        for cursor in &*cursors {
            self.put_down(cursor);
        }
        let noted = (0..self.places.len()).filter(|slot| self.places[*slot] != NOTHING);
        let noted: Vec<usize> = noted.collect();
        let rows: Vec<(usize, usize)> = noted
            .iter()
            .map(|slot| ((self.places[*slot] >> 32) as usize, self.places[*slot] as u32 as usize))
            .collect();
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let kept = interleave_record_batch(&batches, &rows)?;
        for (place, slot) in noted.into_iter().enumerate() {
            self.places[slot] = place as u64;
        }
        for cursor in cursors.iter_mut().filter(|cursor| cursor.slot != NO_SLOT) {
            cursor.place = self.places[cursor.slot as usize];
        }
        let needed = self.places.len() * 16 + kept.get_array_memory_size();
        // With less room than that for what comes, each batch would bring all here again.
        self.reservation.try_resize(needed + kept.get_array_memory_size() / 4).map_err(|error| {
            error.context("the rows that an ASOF JOIN has found do not fit into the memory of queries")
        })?;
        self.reservation.resize(needed);
        self.batches = vec![kept];
        Ok(())
    }

    fn put_down(&mut self, cursor: &Cursor) {
        if cursor.slot != NO_SLOT {
            self.times[cursor.slot as usize] = cursor.time;
            self.places[cursor.slot as usize] = cursor.place;
        }
    }
}

/// Where right rows of a key are being noted, and what is noted there: neighbours in time are noted at one left time, and
/// the large columns of all left times are touched only when that changes.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// The right times from `low` to `high` are noted at the left time `slot`, or nowhere if that is `NO_SLOT`.
    low: i64,
    high: i64,
    time: i64,
    place: u64,
    slot: u32,
}

/// Marks a cursor whose right times no left time asks for.
const NO_SLOT: u32 = u32::MAX;

impl Default for Cursor {
    /// Holds no time at all.
    fn default() -> Self {
        Self { low: i64::MAX, high: i64::MIN, time: 0, place: NOTHING, slot: NO_SLOT }
    }
}

impl Cursor {
    /// Whether a right time belongs where the cursor stands. For `>=` and `<` the left time before the range is shut out
    /// of it and the one at its end is in it; for `>` and `<=` the other way round.
    fn holds(&self, operator: Operator, time: i64) -> bool {
        match operator {
            Operator::GtEq | Operator::Lt => {
                (self.low < time || self.low == i64::MIN) && time <= self.high && self.low <= self.high
            }
            _ => self.low <= time && (time < self.high || self.high == i64::MAX) && self.low <= self.high,
        }
    }

    fn find(operator: Operator, own: &[i64], start: usize, time: i64) -> Self {
        let count = match operator {
            Operator::GtEq | Operator::Lt => own.partition_point(|left| *left < time),
            _ => own.partition_point(|left| *left <= time),
        };
        let low = count.checked_sub(1).map_or(i64::MIN, |before| own[before]);
        let high = own.get(count).copied().unwrap_or(i64::MAX);
        let at = match operator {
            Operator::GtEq | Operator::Gt => (count < own.len()).then_some(count),
            _ => count.checked_sub(1),
        };
        let slot = at.map_or(NO_SLOT, |at| (start + at) as u32);
        Self { low, high, time: 0, place: NOTHING, slot }
    }
}

/// The joined rows.
struct Output {
    left: Arc<Left>,
    keeps_left: bool,
    schema: SchemaRef,
    /// For each of the left's times the right row: its batch among all, and its place there.
    found: Vec<Option<(u32, u32)>>,
    /// For each column of the right side a null and all batches.
    columns: Vec<Vec<ArrayRef>>,
    next: usize,
    _notes: Vec<MemoryReservation>,
}

impl Output {
    fn new(left: Arc<Left>, all: Vec<Notes>, rule: &Match, schema: SchemaRef) -> Self {
        let later = matches!(rule.operator, Operator::GtEq | Operator::Gt);
        let nearer = |one: i64, other: i64| if later { one > other } else { one < other };
        let width = left.batch.num_columns();
        let null = |place: usize| new_null_array(schema.field(place).data_type(), 1);
        let mut columns: Vec<Vec<ArrayRef>> =
            (width..schema.fields().len()).map(|place| vec![null(place)]).collect();
        let mut best: Vec<Option<(i64, u32, u32)>> = vec![None; left.times.len()];
        let mut reservations = Vec::new();
        let mut offset = 1;
        for notes in all {
            for ((best, time), place) in best.iter_mut().zip(&notes.times).zip(&notes.places) {
                if *place != NOTHING && best.is_none_or(|(held, ..)| nearer(*time, held)) {
                    *best = Some((*time, offset + (place >> 32) as u32, *place as u32));
                }
            }
            offset += notes.batches.len() as u32;
            for batch in &notes.batches {
                for (column, values) in columns.iter_mut().zip(batch.columns()) {
                    column.push(Arc::clone(values));
                }
            }
            reservations.push(notes.reservation);
        }
        for ends in left.starts.windows(2) {
            let own = &mut best[ends[0]..ends[1]];
            let mut held: Option<(i64, u32, u32)> = None;
            let mut pass = |slot: &mut Option<(i64, u32, u32)>| {
                if slot.is_none_or(|slot| held.is_some_and(|held| nearer(held.0, slot.0))) {
                    *slot = held;
                }
                held = *slot;
            };
            if later { own.iter_mut().for_each(&mut pass) } else { own.iter_mut().rev().for_each(&mut pass) }
        }
        let found = best.into_iter().map(|best| best.map(|(_, batch, row)| (batch, row))).collect();
        Self { left, keeps_left: rule.keeps_left, schema, found, columns, next: 0, _notes: reservations }
    }

    /// The next rows, at most `size`; `None` at the end.
    fn next(&mut self, size: usize) -> Result<Option<RecordBatch>> {
        let (mut rows, mut places) = (Vec::with_capacity(size), Vec::with_capacity(size));
        let matched = self.found.len();
        while self.next < matched + self.left.alone.len() && rows.len() < size {
            let at = self.next;
            self.next += 1;
            let (row, found) = match at.checked_sub(matched) {
                None => (self.left.rows[at], self.found[at]),
                Some(at) => (self.left.alone[at], None),
            };
            if found.is_some() || self.keeps_left {
                rows.push(row);
                places.push(found.map_or((0, 0), |(batch, row)| (batch as usize, row as usize)));
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let rows = UInt32Array::from(rows);
        let left = self.left.batch.columns().iter().map(|column| take(column, &rows, None));
        let mut joined = left.collect::<Result<Vec<_>, _>>()?;
        for column in &self.columns {
            let arrays: Vec<&dyn Array> = column.iter().map(AsRef::as_ref).collect();
            joined.push(interleave(&arrays, &places)?);
        }
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), joined, &options)?))
    }
}
