//! `SpatialJoinExec`: the physical operator.

use std::fmt;
use std::sync::{Arc, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, JoinSide, JoinType, Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::equivalence::{ProjectionMapping, join_equivalence_properties};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::joins::utils::{
    ColumnIndex, JoinFilter, adjust_right_output_partitioning, build_join_schema, check_join_is_valid,
    reorder_output_after_swap, swap_join_projection,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::{
    EmbeddedProjection, JoinData, ProjectionExec, try_embed_projection,
    try_pushdown_through_join_with_column_indices,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, StatisticsArgs, project_schema,
};
use futures::TryFutureExt;
use futures::future::{BoxFuture, FutureExt, Shared};

use super::building::{Building, Built, OnceBuild, Outcome, Work};
use super::condition::Condition;
use super::extent_filter::ExtentFilter;
use super::filter::{Expr, one_sided_of};
use super::metrics::JoinMetrics;
use super::nearest_spilled::Searching;
use super::predicate::{Test, bare};
use super::spilled::Cells;
use super::stream::{Joining, Task, needs_unmatched_right, tracks_left};

/// The column that a search for the nearest can add to its output.
const DISTANCE: &str = "distance";

/// What a join is made of, beside its two sides.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The whole condition.
    pub filter: JoinFilter,
    pub join_type: JoinType,
    /// The columns of the output among those of the join.
    pub projection: Option<Vec<usize>>,
    /// Whether the last column is how far apart the geometries are.
    pub with_distance: bool,
    /// Whether the right side must come in one partition.
    pub whole: bool,
}

/// A join on how geometries lie to each other.
///
/// The left side is read whole and indexed; each partition of the right side is probed against it, as it comes. So the
/// smaller side belongs on the left, where the rule that makes this operator puts it; in a search for the nearest, the
/// left side is the one searched.
pub(crate) struct SpatialJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    join_type: JoinType,
    filter: JoinFilter,
    condition: Arc<Condition>,
    projection: Option<Vec<usize>>,
    /// Whether the last column is how far apart the geometries are.
    with_distance: bool,
    join_schema: SchemaRef,
    /// Where each field of the join's schema comes from.
    columns: Vec<ColumnIndex>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// Filters of scans on the right side, which learn where the left side lies.
    filters: Vec<ExtentFilter>,
    /// Whether the right side must come in one partition, too.
    whole: bool,
    build: OnceBuild,
}

impl fmt::Debug for SpatialJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpatialJoinExec")
            .field("left", &self.left)
            .field("right", &self.right)
            .field("join_type", &self.join_type)
            .field("condition", &self.condition)
            .field("projection", &self.projection)
            .finish_non_exhaustive()
    }
}

impl SpatialJoinExec {
    /// A join on a condition that [`Condition::recognise`] knows; else `None`.
    pub(super) fn try_new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        filter: &JoinFilter,
        join_type: JoinType,
        projection: Option<Vec<usize>>,
    ) -> Result<Option<Self>> {
        Self::with_own_column(left, right, filter, join_type, projection, false)
    }

    fn with_own_column(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        filter: &JoinFilter,
        join_type: JoinType,
        projection: Option<Vec<usize>>,
        with_distance: bool,
    ) -> Result<Option<Self>> {
        let Some(condition) = Condition::recognise(filter)? else { return Ok(None) };
        check_join_is_valid(&left.schema(), &right.schema(), &[])?;
        let (mut schema, mut columns) = build_join_schema(&left.schema(), &right.schema(), &join_type);
        if with_distance {
            let mut fields = schema.fields().to_vec();
            fields.push(Arc::new(Field::new(DISTANCE, DataType::Float64, true)));
            schema = Schema::new_with_metadata(fields, schema.metadata().clone());
            columns.push(ColumnIndex { index: 0, side: JoinSide::None });
        }
        let join_schema = Arc::new(schema);
        let properties = properties(&left, &right, &join_schema, join_type, projection.as_deref())?;
        Ok(Some(Self {
            left,
            right,
            join_type,
            filter: filter.clone(),
            condition: Arc::new(condition),
            projection,
            with_distance,
            join_schema,
            columns,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            filters: Vec::new(),
            whole: false,
            build: OnceBuild::default(),
        }))
    }

    /// What it is made of, to be made again elsewhere.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            filter: self.filter.clone(),
            join_type: self.join_type,
            projection: self.projection.clone(),
            with_distance: self.with_distance,
            whole: self.whole,
        }
    }

    /// The join of these parts; an error when the condition is none that the join knows.
    pub(crate) fn of_parts(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        parts: Parts,
    ) -> Result<Self> {
        let Parts { filter, join_type, projection, with_distance, whole } = parts;
        let join = Self::with_own_column(left, right, &filter, join_type, projection, with_distance)?;
        let Some(join) = join else {
            return internal_err!("the condition of a spatial join is not spatial");
        };
        Ok(Self { whole, ..join })
    }

    /// The same join where each partition may run in another process: without filters for scans, which cannot be told
    /// anything there, and with the right side in one partition where it matters which left rows met nothing at all.
    pub(crate) fn separable(&self) -> Result<Self> {
        let whole = tracks_left(self.join_type);
        let right: Arc<dyn ExecutionPlan> = if whole && self.right.output_partitioning().partition_count() > 1
        {
            Arc::new(CoalescePartitionsExec::new(Arc::clone(&self.right)))
        } else {
            Arc::clone(&self.right)
        };
        Self::of_parts(Arc::clone(&self.left), right, Parts { whole, ..self.parts() })
    }

    fn again(
        &self,
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        filter: &JoinFilter,
        projection: Option<Vec<usize>>,
    ) -> Result<Self> {
        let again =
            Self::with_own_column(left, right, filter, self.join_type, projection, self.with_distance)?;
        let filters = self.filters.clone();
        again.map_or_else(
            || internal_err!("the condition of a spatial join is no longer spatial"),
            |again| Ok(Self { filters, whole: self.whole, ..again }),
        )
    }

    /// Whether the sides must stay as they are: the left one is searched for the nearest to each row of the right.
    pub(super) fn must_swap(&self) -> bool {
        matches!(self.condition.predicate.test, Test::Nearest { of_right: false, .. })
    }

    /// Whether it searches for the nearest.
    pub(super) fn is_nearest(&self) -> bool {
        matches!(self.condition.predicate.test, Test::Nearest { .. })
    }

    /// The same join with the sides exchanged, below a projection that puts the columns back.
    pub(super) fn swap(&self) -> Result<Arc<dyn ExecutionPlan>> {
        let (left, right) = (self.left.schema(), self.right.schema());
        let projection = swap_join_projection(
            left.fields().len(),
            right.fields().len(),
            self.projection.as_deref(),
            &self.join_type,
        );
        let filter = self.filter.swap();
        let swapped = Self::try_new(
            Arc::clone(&self.right),
            Arc::clone(&self.left),
            &filter,
            self.join_type.swap(),
            projection,
        )?;
        let Some(swapped) = swapped else { return internal_err!("a spatial join cannot be turned") };
        let one_sided =
            !matches!(self.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
        if one_sided || self.projection.is_some() {
            Ok(Arc::new(swapped))
        } else {
            reorder_output_after_swap(Arc::new(swapped), &left, &right)
        }
    }

    /// The column of the right side whose boxes tell which rows can meet nothing, when such rows need not be read.
    pub(super) fn filterable_geometry(&self) -> Option<usize> {
        let told = match self.condition.predicate.test {
            Test::Nearest { .. } | Test::Boxes { empty_meets_empty: true } => false,
            _ => !needs_unmatched_right(self.join_type),
        };
        let column = self.condition.predicate.right.downcast_ref::<Column>()?;
        (told && self.filters.is_empty()).then_some(column.index())
    }

    /// The same join over a right side with filters for it to fill in.
    pub(super) fn with_filters(&self, right: Arc<dyn ExecutionPlan>, filters: Vec<ExtentFilter>) -> Self {
        Self {
            left: Arc::clone(&self.left),
            right,
            join_type: self.join_type,
            filter: self.filter.clone(),
            condition: Arc::clone(&self.condition),
            projection: self.projection.clone(),
            with_distance: self.with_distance,
            join_schema: Arc::clone(&self.join_schema),
            columns: self.columns.clone(),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
            filters,
            whole: self.whole,
            build: OnceBuild::default(),
        }
    }

    /// The same join with the distance as its last column; `None` when it does not search for the nearest in the plane,
    /// or rows come out that have none to tell of.
    pub(super) fn with_distance(&self) -> Result<Option<Self>> {
        let known = matches!(self.condition.predicate.test, Test::Nearest { sphere: false, .. })
            && self.condition.rest.is_none()
            && matches!(self.join_type, JoinType::Inner | JoinType::Right);
        if !known || self.with_distance {
            return Ok(None);
        }
        let projection = self.projection.as_ref().map(|chosen| {
            chosen.iter().copied().chain(std::iter::once(self.join_schema.fields().len())).collect()
        });
        let (left, right) = (Arc::clone(&self.left), Arc::clone(&self.right));
        Self::with_own_column(left, right, &self.filter, self.join_type, projection, true)
    }

    /// Whether two expressions over the output are the geometries that the condition is about, either way round.
    pub(super) fn is_about(&self, a: &Expr, b: &Expr) -> bool {
        let columns = self.output_columns();
        let of_side = |geometry: &Expr| one_sided_of(&bare(geometry), &columns);
        let predicate = &self.condition.predicate;
        match (of_side(a), of_side(b)) {
            (Some((JoinSide::Left, a)), Some((JoinSide::Right, b)))
            | (Some((JoinSide::Right, b)), Some((JoinSide::Left, a))) => {
                *a == *predicate.left && *b == *predicate.right
            }
            _ => false,
        }
    }

    pub(super) fn join_type(&self) -> JoinType {
        self.join_type
    }

    pub(super) fn left(&self) -> &Arc<dyn ExecutionPlan> {
        &self.left
    }

    pub(super) fn right(&self) -> &Arc<dyn ExecutionPlan> {
        &self.right
    }

    /// Fields of the output: those of the join, or the chosen ones.
    fn output_columns(&self) -> Vec<ColumnIndex> {
        match &self.projection {
            Some(chosen) => chosen.iter().map(|index| self.columns[*index].clone()).collect(),
            None => self.columns.clone(),
        }
    }

    fn build_side(
        &self,
        context: &Arc<TaskContext>,
        metrics: &JoinMetrics,
    ) -> Shared<BoxFuture<'static, Outcome>> {
        let mut once = self.build.0.lock().unwrap_or_else(PoisonError::into_inner);
        once.get_or_insert_with(|| {
            let building = Building {
                left: Arc::clone(&self.left),
                right: Arc::clone(&self.right),
                context: Arc::clone(context),
                condition: Arc::clone(&self.condition),
                join_type: self.join_type,
                metrics: metrics.clone(),
                filters: self.filters.clone(),
            };
            async move { building.build().await.map_err(Arc::new) }.boxed().shared()
        })
        .clone()
    }
}

fn properties(
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
    schema: &SchemaRef,
    join_type: JoinType,
    projection: Option<&[usize]>,
) -> Result<PlanProperties> {
    let mut equivalence = join_equivalence_properties(
        left.equivalence_properties().clone(),
        right.equivalence_properties().clone(),
        &join_type,
        Arc::clone(schema),
        &[false, false],
        None,
        &[],
    )?;
    let of_right = right.output_partitioning();
    let mut partitioning = match join_type {
        JoinType::Inner | JoinType::Right => {
            adjust_right_output_partitioning(of_right, left.schema().fields().len())?
        }
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => of_right.clone(),
        _ => Partitioning::UnknownPartitioning(of_right.partition_count()),
    };
    let emission = if tracks_left(join_type) { EmissionType::Both } else { right.pipeline_behavior() };
    if let Some(projection) = projection {
        let mapping = ProjectionMapping::from_indices(projection, schema)?;
        let projected = project_schema(schema, Some(&projection.to_vec()))?;
        partitioning = partitioning.project(&mapping, &equivalence);
        equivalence = equivalence.project(&mapping, projected);
    }
    let boundedness =
        if left.boundedness().is_unbounded() { left.boundedness() } else { right.boundedness() };
    debug_assert!(matches!(boundedness, Boundedness::Bounded | Boundedness::Unbounded { .. }));
    Ok(PlanProperties::new(equivalence, partitioning, emission, boundedness))
}

impl DisplayAs for SpatialJoinExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if kind == DisplayFormatType::TreeRender {
            writeln!(f, "join_type={:?}", self.join_type)?;
            return writeln!(f, "on={}", self.condition.predicate);
        }
        write!(
            f,
            "SpatialJoinExec: join_type={:?}, on={}, index=left",
            self.join_type, self.condition.predicate
        )?;
        if let Some(window) = &self.condition.window {
            write!(f, ", window={window}")?;
        }
        if let Some(rest) = &self.condition.rest {
            write!(f, ", filter={}", rest.expression())?;
        }
        if let Some(projection) = &self.projection {
            let names: Vec<String> = projection
                .iter()
                .map(|index| format!("{}@{index}", self.join_schema.field(*index).name()))
                .collect();
            write!(f, ", projection=[{}]", names.join(", "))?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SpatialJoinExec {
    fn name(&self) -> &'static str {
        "SpatialJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![
            Distribution::SinglePartition,
            if self.whole { Distribution::SinglePartition } else { Distribution::UnspecifiedDistribution },
        ])
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots([self.filter.expression()], f)
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.filters.iter().map(ExtentFilter::expression).collect()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([left, right]) = <[_; 2]>::try_from(children) else {
            return internal_err!("a spatial join has two sides");
        };
        Ok(Arc::new(match options.children_properties {
            ChildrenPropertiesMode::Keep => Self {
                left,
                right,
                join_type: self.join_type,
                filter: self.filter.clone(),
                condition: Arc::clone(&self.condition),
                projection: self.projection.clone(),
                with_distance: self.with_distance,
                join_schema: Arc::clone(&self.join_schema),
                columns: self.columns.clone(),
                properties: Arc::clone(&self.properties),
                metrics: ExecutionPlanMetricsSet::new(),
                filters: self.filters.clone(),
                whole: self.whole,
                build: OnceBuild::default(),
            },
            ChildrenPropertiesMode::Recompute => {
                self.again(left, right, &self.filter, self.projection.clone())?
            }
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = JoinMetrics::new(&self.metrics, partition);
        let build = self.build_side(&context, &metrics);
        let (right, batch_size) = (Arc::clone(&self.right), context.session_config().batch_size());
        let task = Arc::new(Task {
            condition: Arc::clone(&self.condition),
            join_type: self.join_type,
            schema: self.schema(),
            columns: self.output_columns(),
            batch_size,
            metrics,
        });
        let output = async move {
            // The other side starts when it is known whether it is probed with or goes to disk.
            let work = match build.await.map_err(DataFusionError::Shared)? {
                Built::Memory(build) => {
                    let input = right.execute(partition, context)?;
                    Work::Memory(Box::new(Joining::new(Arc::clone(&task), build, input)))
                }
                Built::Parts(searched) => {
                    let input = right.execute(partition, context)?;
                    Work::Parts(Box::new(Searching::new(Arc::clone(&task), searched, input)))
                }
                Built::Disk(spilled) => Work::Disk(Box::new(Cells::new(Arc::clone(&task), spilled))),
            };
            Ok::<_, DataFusionError>(futures::stream::try_unfold(work, move |mut work| {
                let task = Arc::clone(&task);
                async move {
                    let batch = work.next().await?;
                    if let Some(batch) = &batch {
                        task.metrics.baseline.record_output(batch.num_rows());
                    }
                    Ok(batch.map(|batch| (batch, work)))
                }
            }))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output.try_flatten_stream())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None), ChildStats::At(partition)]
    }

    /// A guess: each row of the larger side meets one of the other, or as many as are asked for.
    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _arguments: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let [left, right] = inputs
            && let (Some(left), Some(right)) = (left.num_rows.get_value(), right.num_rows.get_value())
        {
            let rows = match (&self.condition.predicate.test, self.join_type) {
                (_, JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark) => *left,
                (_, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark) => *right,
                (Test::Nearest { count, .. }, _) => right.saturating_mul((*count).min(*left)),
                _ => *left.max(right),
            };
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if self.projection.is_some() {
            return Ok(None);
        }
        if self.with_distance {
            return try_embed_projection(projection, self);
        }
        let below = try_pushdown_through_join_with_column_indices(
            projection,
            &self.left,
            &self.right,
            &[],
            &self.schema(),
            Some(&self.filter),
            &self.columns,
        )?;
        match below {
            Some(JoinData {
                projected_left_child, projected_right_child, join_filter: Some(filter), ..
            }) => Ok(Some(Arc::new(self.again(
                Arc::new(projected_left_child),
                Arc::new(projected_right_child),
                &filter,
                None,
            )?))),
            _ => try_embed_projection(projection, self),
        }
    }
}

impl EmbeddedProjection for SpatialJoinExec {
    fn with_projection(&self, projection: Option<Vec<usize>>) -> Result<Self> {
        // The new one chooses among what the present one has chosen.
        let projection = match (&self.projection, projection) {
            (Some(present), Some(new)) => Some(new.into_iter().map(|index| present[index]).collect()),
            (present, None) => present.clone(),
            (None, new) => new,
        };
        self.again(Arc::clone(&self.left), Arc::clone(&self.right), &self.filter, projection)
    }
}
