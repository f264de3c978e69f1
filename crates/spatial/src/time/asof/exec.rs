//! The physical `ASOF JOIN`: the right side in memory, by key and time; the left side streams past it. When the right side
//! does not fit into memory, both are sorted.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_err, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
};
use futures::{StreamExt, TryStreamExt};

use super::merged::Merge;
use crate::time::keys::{Keys, all_valid, by_key};
use crate::time::order::ordinals;

/// Marks a right row that no key finds.
pub(super) const NOBODY: u32 = u32::MAX;

/// What decides which rows meet.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    /// Pairs of expressions over the left and the right side.
    pub(crate) on: Vec<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
    pub(crate) left_time: Arc<dyn PhysicalExpr>,
    pub(crate) operator: Operator,
    pub(crate) right_time: Arc<dyn PhysicalExpr>,
    /// Whether left rows that find nothing stay.
    pub(crate) keeps_left: bool,
}

impl Match {
    pub(super) fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let keys = self.on.iter().flat_map(|(left, right)| [left, right]);
        let mut recursion = TreeNodeRecursion::Continue;
        for expression in keys.chain([&self.left_time, &self.right_time]) {
            recursion = recursion.visit_sibling(|| f(expression))?;
        }
        Ok(recursion)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<String> = self.on.iter().map(|(left, right)| format!("({left}, {right})")).collect();
        let kind = if self.keeps_left { "Left" } else { "Inner" };
        let (left, operator, right) = (&self.left_time, self.operator, &self.right_time);
        write!(f, "join_type={kind}, on=[{}], match={left} {operator} {right}", on.join(", "))
    }
}

/// See [the module](super).
#[derive(Debug)]
pub(crate) struct AsofJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    rule: Match,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AsofJoinExec {
    pub(crate) fn new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        rule: Match,
        schema: SchemaRef,
    ) -> Self {
        // The left columns come first, so what its partitions are hashed and sorted by keeps its meaning.
        let partitioning = left.output_partitioning().clone();
        let orderings = left.equivalence_properties().oeq_class().iter().cloned();
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, orderings),
            partitioning,
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { left, right, rule, properties: Arc::new(properties), metrics }
    }

    /// What decides which rows meet.
    pub(crate) fn rule(&self) -> &Match {
        &self.rule
    }
}

impl DisplayAs for AsofJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsofJoinExec: {}", self.rule)
    }
}

impl ExecutionPlan for AsofJoinExec {
    fn name(&self) -> &'static str {
        "AsofJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        if self.rule.on.is_empty() {
            return InputDistributionRequirements::new(vec![Distribution::SinglePartition; 2]);
        }
        let (left, right) = self.rule.on.iter().cloned().unzip();
        let sides = vec![Distribution::KeyPartitioned(left), Distribution::KeyPartitioned(right)];
        InputDistributionRequirements::co_partitioned(sides)
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
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
        Ok(Arc::new(Self::new(left, right, self.rule.clone(), self.schema())))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mode = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let left = self.left.execute(partition, Arc::clone(&context))?;
        let right = self.right.execute(partition, Arc::clone(&context))?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let reservation = MemoryConsumer::new(format!("AsofJoin[{partition}]"))
            .with_can_spill(true)
            .register(context.memory_pool());
        let (rule, schema) = (self.rule.clone(), self.schema());
        let keeps_order = !self.properties.eq_properties.oeq_class().is_empty();
        let stream = futures::stream::once(async move {
            let mut index = match Index::build(right, &rule, &schema, reservation, &metrics).await? {
                Built::Index(index) => index,
                Built::TooLarge(held, rest) => {
                    let merge = Merge { rule, schema, keeps_order, context };
                    return Ok(merge.join((Vec::new(), left), (held, rest))?.boxed());
                }
            };
            Ok::<_, DataFusionError>(
                left.map(move |batch| {
                    let batch = batch?;
                    let _time = metrics.elapsed_compute().timer();
                    let joined = index.probe(&batch)?;
                    metrics.record_output(joined.num_rows());
                    Ok(joined)
                })
                .boxed(),
            )
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream.try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The right side: its rows by key, and by time within a key.
struct Index {
    rule: Match,
    schema: SchemaRef,
    keys: Keys,
    /// Where the rows of each key begin, and where the last key's end.
    starts: Vec<usize>,
    times: Vec<i64>,
    /// Numbers of rows, for each of `times`.
    rows: Vec<u32>,
    right: RecordBatch,
    numbers: Vec<usize>,
    _reservation: MemoryReservation,
}

pub(super) fn evaluate<'a>(
    expressions: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>,
    batch: &RecordBatch,
) -> Result<Vec<ArrayRef>> {
    expressions.map(|expression| expression.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

/// Where the rows of each key begin, the times of all rows by key and time, and the rows that they are of.
pub(super) fn by_time(owners: &[u32], unsorted: &[i64], keys: usize) -> (Vec<usize>, Vec<i64>, Vec<u32>) {
    let (starts, mut rows) = by_key(owners, keys);
    let mut times: Vec<i64> = rows.iter().map(|row| unsorted[*row as usize]).collect();
    for ends in starts.windows(2) {
        if !times[ends[0]..ends[1]].is_sorted() {
            rows[ends[0]..ends[1]].sort_by_key(|row| unsorted[*row as usize]);
            for at in ends[0]..ends[1] {
                times[at] = unsorted[rows[at] as usize];
            }
        }
    }
    (starts, times, rows)
}

/// What became of the right side.
enum Built {
    Index(Box<Index>),
    /// What was read of it and the rest.
    TooLarge(Vec<RecordBatch>, SendableRecordBatchStream),
}

impl Index {
    async fn build(
        mut right: SendableRecordBatchStream,
        rule: &Match,
        schema: &SchemaRef,
        reservation: MemoryReservation,
        metrics: &BaselineMetrics,
    ) -> Result<Built> {
        let right_schema = right.schema();
        let types =
            rule.on.iter().map(|(_, key)| key.data_type(&right_schema)).collect::<Result<Vec<_>>>()?;
        let mut keys = Keys::new(&types)?;
        let (mut owners, mut unsorted, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        let (mut numbers, mut known) = (Vec::new(), 0);
        while let Some(batch) = right.next().await.transpose()? {
            let _time = metrics.elapsed_compute().timer();
            let columns = evaluate(rule.on.iter().map(|(_, key)| key), &batch)?;
            let times = ordinals(&rule.right_time.evaluate(&batch)?.into_array(batch.num_rows())?)?;
            keys.number(&columns, batch.num_rows(), &mut numbers)?;
            let valid = all_valid(&columns);
            owners.extend(numbers.iter().enumerate().map(|(row, number)| {
                let counts = times.is_valid(row) && valid.as_ref().is_none_or(|valid| valid.is_valid(row));
                if counts { *number as u32 } else { NOBODY }
            }));
            unsorted.extend_from_slice(times.values());
            // The rows, once more as one batch, and what sorts them.
            let wanted = 2 * batch.get_array_memory_size() + batch.num_rows() * 28;
            let grown = keys.size().saturating_sub(std::mem::replace(&mut known, keys.size()));
            batches.push(batch);
            if reservation.try_grow(wanted + grown).is_err() {
                return Ok(Built::TooLarge(batches, right));
            }
        }
        if owners.len() >= NOBODY as usize {
            return exec_err!("the right side of an ASOF JOIN has more than {NOBODY} rows in one partition");
        }
        let _time = metrics.elapsed_compute().timer();
        let (starts, times, rows) = by_time(&owners, &unsorted, keys.len());
        let right = concat_batches(&right_schema, &batches)?;
        let (rule, schema) = (rule.clone(), Arc::clone(schema));
        let index =
            Self { rule, schema, keys, starts, times, rows, right, numbers, _reservation: reservation };
        Ok(Built::Index(Box::new(index)))
    }

    /// The joined rows of a batch of the left side, in its order.
    fn probe(&mut self, left: &RecordBatch) -> Result<RecordBatch> {
        let columns = evaluate(self.rule.on.iter().map(|(key, _)| key), left)?;
        let times = ordinals(&self.rule.left_time.evaluate(left)?.into_array(left.num_rows())?)?;
        let valid = all_valid(&columns);
        let mut numbers = std::mem::take(&mut self.numbers);
        // A key that the right side does not have gets a number beyond its keys.
        self.keys.number(&columns, left.num_rows(), &mut numbers)?;
        let found: UInt32Array = numbers
            .iter()
            .enumerate()
            .map(|(row, number)| {
                let counts = times.is_valid(row) && valid.as_ref().is_none_or(|valid| valid.is_valid(row));
                if counts { self.nearest(*number, times.value(row)) } else { None }
            })
            .collect();
        self.numbers = numbers;
        let (left, found) = if self.rule.keeps_left || found.null_count() == 0 {
            (left.clone(), found)
        } else {
            let kept: UInt32Array =
                (0..found.len() as u32).filter(|row| found.is_valid(*row as usize)).map(Some).collect();
            (take_record_batch(left, &kept)?, found.iter().flatten().map(Some).collect())
        };
        let mut joined = left.columns().to_vec();
        for column in self.right.columns() {
            joined.push(take(column, &found, None)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), joined, &options)?)
    }

    /// The row nearest to a time among those of a key.
    fn nearest(&self, key: usize, time: i64) -> Option<u32> {
        let (start, end) = (*self.starts.get(key)?, *self.starts.get(key + 1)?);
        let times = &self.times[start..end];
        let at = match self.rule.operator {
            Operator::GtEq => times.partition_point(|right| *right <= time).checked_sub(1)?,
            Operator::Gt => times.partition_point(|right| *right < time).checked_sub(1)?,
            Operator::LtEq => times.partition_point(|right| *right < time),
            _ => times.partition_point(|right| *right <= time),
        };
        (at < times.len()).then(|| self.rows[start + at])
    }
}
