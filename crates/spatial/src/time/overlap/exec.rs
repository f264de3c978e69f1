//! The operator that joins overlapping intervals: the left side in memory, the right side streams past it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter as keep, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, JoinSide, JoinType, Result, exec_err, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
};
use futures::{StreamExt, TryStreamExt};

use super::index::Intervals;
use crate::time::order::ordinals;

/// A comparison of an expression over the left side with one over the right side.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    pub(super) left: Arc<dyn PhysicalExpr>,
    pub(super) right: Arc<dyn PhysicalExpr>,
    pub(super) strict: bool,
    /// Whether the values are whole numbers or times.
    pub(super) is_whole: bool,
}

/// Which rows meet.
#[derive(Debug, Clone)]
pub(super) struct Overlap {
    /// The left is the smaller: its start, and the right's end.
    pub(super) starts: Comparison,
    /// The left is the greater: its end, and the right's start.
    pub(super) ends: Comparison,
    /// Whether the two comparisons are the whole condition and need not be looked at again.
    pub(super) exact: bool,
    pub(super) filter: JoinFilter,
    pub(super) join_type: JoinType,
}

/// What a join is made of, beside its two sides.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The whole condition.
    pub(crate) filter: JoinFilter,
    pub(crate) join_type: JoinType,
    /// The columns of the output among those of both sides.
    pub(crate) projection: Option<Vec<usize>>,
    /// Whether the right side must come in one partition.
    pub(crate) whole: bool,
}

/// Joins what a nested loop would join, without looking at every pair.
#[derive(Debug)]
pub(crate) struct OverlapJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    overlap: Arc<Overlap>,
    /// Columns of the output among those of both sides.
    projection: Option<Vec<usize>>,
    /// Whether the right side must come in one partition, too.
    whole: bool,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    built: Arc<futures::lock::Mutex<Option<Arc<Build>>>>,
    metrics: ExecutionPlanMetricsSet,
}

impl OverlapJoinExec {
    pub(super) fn new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        overlap: Overlap,
        projection: Option<Vec<usize>>,
        schema: SchemaRef,
        properties: Arc<PlanProperties>,
    ) -> Self {
        Self {
            left,
            right,
            overlap: Arc::new(overlap),
            projection,
            whole: false,
            schema,
            properties,
            built: Arc::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// What it is made of, to be made again elsewhere.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            filter: self.overlap.filter.clone(),
            join_type: self.overlap.join_type,
            projection: self.projection.clone(),
            whole: self.whole,
        }
    }

    /// The join of these parts; an error when the condition is none of an overlap.
    pub(crate) fn of_parts(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        parts: Parts,
    ) -> Result<Self> {
        let Parts { filter, join_type, projection, whole } = parts;
        let nested = NestedLoopJoinExec::try_new(left, right, Some(filter), &join_type, projection)?;
        let Some(join) = super::rule::replace(&nested)? else {
            return internal_err!("the condition of a join of intervals is not an overlap");
        };
        Ok(Self { whole, ..join })
    }

    /// The same join where each partition may run in another process: with the right side in one partition where it
    /// matters which left rows met nothing at all.
    pub(crate) fn separable(&self) -> Result<Self> {
        let whole = matches!(self.overlap.join_type, JoinType::Left | JoinType::Full);
        let right: Arc<dyn ExecutionPlan> = if whole && self.right.output_partitioning().partition_count() > 1
        {
            Arc::new(CoalescePartitionsExec::new(Arc::clone(&self.right)))
        } else {
            Arc::clone(&self.right)
        };
        Self::of_parts(Arc::clone(&self.left), right, Parts { whole, ..self.parts() })
    }
}

impl DisplayAs for OverlapJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "OverlapJoinExec: join_type={}, filter={}",
            self.overlap.join_type,
            self.overlap.filter.expression()
        )
    }
}

impl ExecutionPlan for OverlapJoinExec {
    fn name(&self) -> &'static str {
        "OverlapJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![
            Distribution::SinglePartition,
            if self.whole { Distribution::SinglePartition } else { Distribution::UnspecifiedDistribution },
        ])
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        f(self.overlap.filter.expression())
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([left, right]) = <[_; 2]>::try_from(children) else {
            return internal_err!("a join has two children");
        };
        let partitioning = right.output_partitioning().partition_count();
        if partitioning != self.properties.output_partitioning().partition_count() {
            return Ok(Arc::new(Self::of_parts(left, right, self.parts())?));
        }
        let join = Self::new(
            left,
            right,
            self.overlap.as_ref().clone(),
            self.projection.clone(),
            Arc::clone(&self.schema),
            Arc::clone(&self.properties),
        );
        Ok(Arc::new(Self { whole: self.whole, ..join }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let right = self.right.execute(partition, Arc::clone(&context))?;
        let (built, left) = (Arc::clone(&self.built), Arc::clone(&self.left));
        let partitions = self.right.output_partitioning().partition_count();
        let overlap = Arc::clone(&self.overlap);
        let (projection, schema) = (self.projection.clone(), Arc::clone(&self.schema));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let stream = futures::stream::once(async move {
            // The first partition that comes here reads the left side, the others wait for it.
            let build = {
                let mut built = built.lock().await;
                if let Some(build) = &*built {
                    Arc::clone(build)
                } else {
                    let build = Build::new(&left, &overlap, &context, right.schema(), partitions).await?;
                    Arc::clone(built.insert(Arc::new(build)))
                }
            };
            let size = context.session_config().batch_size();
            let probe = Probe {
                overlap,
                projection,
                schema,
                build,
                right: Some(right),
                current: None,
                size,
                metrics,
            };
            Ok::<_, DataFusionError>(futures::stream::try_unfold(probe, async |mut probe| {
                Ok(probe.next().await?.map(|batch| (batch, probe)))
            }))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream.try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The left side.
#[derive(Debug)]
struct Build {
    rows: RecordBatch,
    right_schema: SchemaRef,
    intervals: Intervals,
    /// Left rows that met a right one, where those that did not come out too.
    met: Option<Mutex<Vec<bool>>>,
    /// Partitions of the right side that are not at their end.
    open: AtomicUsize,
    _reservation: MemoryReservation,
}

fn side_ordinals(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<Int64Array> {
    ordinals(&expression.evaluate(batch)?.into_array(batch.num_rows())?)
}

impl Build {
    async fn new(
        left: &Arc<dyn ExecutionPlan>,
        overlap: &Overlap,
        context: &Arc<TaskContext>,
        right_schema: SchemaRef,
        partitions: usize,
    ) -> Result<Self> {
        let reservation = MemoryConsumer::new("OverlapJoin").register(context.memory_pool());
        let mut stream = left.execute(0, Arc::clone(context))?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await.transpose()? {
            reservation.try_grow(2 * batch.get_array_memory_size() + batch.num_rows() * 24)?;
            batches.push(batch);
        }
        let rows = concat_batches(&left.schema(), &batches)?;
        let Ok(count) = u32::try_from(rows.num_rows()) else {
            return exec_err!("the left side of a join of intervals has more than {} rows", u32::MAX);
        };
        let starts = side_ordinals(&overlap.starts.left, &rows)?;
        let ends = side_ordinals(&overlap.ends.left, &rows)?;
        let intervals = (0..count)
            .filter(|row| starts.is_valid(*row as usize) && ends.is_valid(*row as usize))
            .map(|row| (starts.value(row as usize), ends.value(row as usize), row));
        let intervals = Intervals::new(intervals.collect());
        reservation.try_grow(intervals.size())?;
        let keeps_left = matches!(overlap.join_type, JoinType::Left | JoinType::Full);
        let met = keeps_left.then(|| Mutex::new(vec![false; rows.num_rows()]));
        let open = AtomicUsize::new(partitions);
        Ok(Self { rows, right_schema, intervals, met, open, _reservation: reservation })
    }
}

/// One partition of the right side.
struct Probe {
    overlap: Arc<Overlap>,
    projection: Option<Vec<usize>>,
    schema: SchemaRef,
    build: Arc<Build>,
    right: Option<SendableRecordBatchStream>,
    current: Option<Current>,
    size: usize,
    metrics: BaselineMetrics,
}

/// A batch of the right side, as far as it is joined.
struct Current {
    batch: RecordBatch,
    starts: Int64Array,
    ends: Int64Array,
    next: usize,
}

impl Probe {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(mut current) = self.current.take() {
                let _time = self.metrics.elapsed_compute().timer();
                let joined = self.join(&mut current)?;
                if current.next < current.batch.num_rows() {
                    self.current = Some(current);
                }
                if joined.num_rows() > 0 {
                    self.metrics.record_output(joined.num_rows());
                    return Ok(Some(joined));
                }
                continue;
            }
            let Some(right) = &mut self.right else { return Ok(None) };
            if let Some(batch) = right.next().await.transpose()? {
                let _time = self.metrics.elapsed_compute().timer();
                let starts = side_ordinals(&self.overlap.ends.right, &batch)?;
                let ends = side_ordinals(&self.overlap.starts.right, &batch)?;
                self.current = Some(Current { batch, starts, ends, next: 0 });
                continue;
            }
            self.right = None;
            if self.build.open.fetch_sub(1, Ordering::AcqRel) == 1
                && let Some(alone) = self.left_alone()?
            {
                return Ok(Some(alone));
            }
            return Ok(None);
        }
    }

    /// The next rows of the right side with what they meet: about as many pairs as a batch holds.
    fn join(&self, current: &mut Current) -> Result<RecordBatch> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let begin = current.next;
        while current.next < current.batch.num_rows() && left.len() < self.size {
            let row = current.next;
            current.next += 1;
            if current.starts.is_null(row) || current.ends.is_null(row) {
                continue;
            }
            // As long as the condition itself is looked at again, too many pairs do no harm.
            let exact = self.overlap.exact;
            let end = current.ends.value(row).checked_sub(i64::from(exact && self.overlap.starts.strict));
            let start = current.starts.value(row).checked_add(i64::from(exact && self.overlap.ends.strict));
            let (Some(end), Some(start)) = (end, start) else { continue };
            self.build.intervals.meeting(end, start, |met| left.push(met));
            right.resize(left.len(), row as u32);
        }
        let (mut left, mut right) = (UInt32Array::from(left), UInt32Array::from(right));
        if !self.overlap.exact {
            let pairs = self.condition(&current.batch, &left, &right)?;
            left = keep(&left, &pairs)?.as_primitive().clone();
            right = keep(&right, &pairs)?.as_primitive().clone();
        }
        if let Some(met) = &self.build.met {
            let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
            left.values().iter().for_each(|row| met[*row as usize] = true);
        }
        if matches!(self.overlap.join_type, JoinType::Right | JoinType::Full) {
            let mut alone = vec![true; current.next - begin];
            right.values().iter().for_each(|row| alone[*row as usize - begin] = false);
            let rows: Vec<u32> =
                (begin..current.next).filter(|row| alone[row - begin]).map(|row| row as u32).collect();
            left = left.iter().chain(std::iter::repeat_n(None, rows.len())).collect();
            right = right.iter().chain(rows.into_iter().map(Some)).collect();
        }
        self.output(&current.batch, &left, &right)
    }

    /// Whether each pair meets the condition of the join.
    fn condition(
        &self,
        batch: &RecordBatch,
        left: &UInt32Array,
        right: &UInt32Array,
    ) -> Result<BooleanArray> {
        let filter = &self.overlap.filter;
        let columns = filter.column_indices().iter().map(|column| {
            let (from, rows) = match column.side {
                JoinSide::Left => (&self.build.rows, left),
                _ => (batch, right),
            };
            take(from.column(column.index), rows, None)
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(left.len()));
        let pairs = RecordBatch::try_new_with_options(Arc::clone(filter.schema()), columns, &options)?;
        let met = filter.expression().evaluate(&pairs)?.into_array(pairs.num_rows())?;
        Ok(met.as_boolean().clone())
    }

    /// The columns of pairs of rows, null where there is none.
    fn output(&self, batch: &RecordBatch, left: &UInt32Array, right: &UInt32Array) -> Result<RecordBatch> {
        let width = self.build.rows.num_columns();
        let column = |place: usize| match place.checked_sub(width) {
            None => take(self.build.rows.column(place), left, None),
            Some(place) => take(batch.column(place), right, None),
        };
        let columns = match &self.projection {
            Some(projection) => projection.iter().copied().map(column).collect::<Result<Vec<_>, _>>()?,
            None => (0..width + batch.num_columns()).map(column).collect::<Result<Vec<_>, _>>()?,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(left.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Left rows that met nothing, once every partition is at its end.
    fn left_alone(&self) -> Result<Option<RecordBatch>> {
        let Some(met) = &self.build.met else { return Ok(None) };
        let met = met.lock().unwrap_or_else(PoisonError::into_inner);
        let left: UInt32Array = (0..met.len()).filter(|row| !met[*row]).map(|row| Some(row as u32)).collect();
        let right = UInt32Array::new_null(left.len());
        let nothing = RecordBatch::new_empty(Arc::clone(&self.build.right_schema));
        let alone = self.output(&nothing, &left, &right)?;
        self.metrics.record_output(alone.num_rows());
        Ok((alone.num_rows() > 0).then_some(alone))
    }
}
