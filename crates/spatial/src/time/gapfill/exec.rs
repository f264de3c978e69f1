//! The operator that fills gaps: all rows of a partition by key and bucket, and a row for each bucket between.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
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

use super::gather::{Gathered, Gathering};
use super::grid::Grid;
use super::markers::Marker;
use super::series::Series;
use crate::time::buckets::table::Spec;

/// A column without gaps.
#[derive(Debug, Clone)]
pub(crate) struct PhysicalFill {
    pub(crate) kind: Marker,
    pub(crate) value: Arc<dyn PhysicalExpr>,
}

/// See [the module](super).
#[derive(Debug)]
pub(crate) struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    /// How to merge the input's rows, when they are states of aggregates.
    states: Option<States>,
    shape: Arc<Shape>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// The aggregates that filling gaps finishes itself.
#[derive(Debug, Clone)]
struct States {
    spec: Arc<Spec>,
    /// The aggregate that would finish them.
    aggregate: Arc<dyn ExecutionPlan>,
}

/// Where things are in the input, and what comes out.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) time: usize,
    pub(crate) keys: Vec<usize>,
    pub(crate) grid: Grid,
    pub(crate) fills: Vec<PhysicalFill>,
    pub(crate) schema: SchemaRef,
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
        Self::of(input, None, Arc::new(Shape { time, keys, grid, fills, schema }))
    }

    /// The same over the states of the aggregates, which it merges and finishes. The columns of the groups have the same
    /// places there. `aggregate` is the one that would do so.
    pub(crate) fn finishing(
        &self,
        input: Arc<dyn ExecutionPlan>,
        spec: Arc<Spec>,
        aggregate: Arc<dyn ExecutionPlan>,
    ) -> Self {
        Self::of(input, Some(States { spec, aggregate }), Arc::clone(&self.shape))
    }

    /// The aggregate that it finishes itself.
    pub(crate) fn finished_aggregate(&self) -> Option<&Arc<dyn ExecutionPlan>> {
        self.states.as_ref().map(|states| &states.aggregate)
    }

    /// The same over rows that are aggregated already.
    pub(crate) fn over(&self, rows: Arc<dyn ExecutionPlan>) -> Self {
        Self::of(rows, None, Arc::clone(&self.shape))
    }

    /// What it is made of, when its input's rows are aggregated already.
    pub(crate) fn shape(&self) -> Option<&Shape> {
        self.states.is_none().then_some(&*self.shape)
    }

    /// Fills the gaps of rows that are aggregated already.
    pub(crate) fn of_shape(input: Arc<dyn ExecutionPlan>, shape: Shape) -> Self {
        Self::of(input, None, Arc::new(shape))
    }

    pub(crate) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// The place of the buckets among the input's columns.
    pub(crate) fn time(&self) -> usize {
        self.shape.time
    }

    /// The places of the keys among the input's columns.
    pub(crate) fn keys(&self) -> &[usize] {
        &self.shape.keys
    }

    fn of(input: Arc<dyn ExecutionPlan>, states: Option<States>, shape: Arc<Shape>) -> Self {
        // The input's columns come first, so what its partitions are hashed by keeps its meaning.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&shape.schema)),
            input.output_partitioning().clone(),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            input,
            states,
            shape,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.input.schema();
        let keys: Vec<&str> = self.shape.keys.iter().map(|key| schema.field(*key).name().as_str()).collect();
        let fills: Vec<String> =
            self.shape.fills.iter().map(|fill| format!("{}({})", fill.kind.name(), fill.value)).collect();
        write!(f, "GapFillExec: keys=[{}], fills=[{}]", keys.join(", "), fills.join(", "))?;
        if self.states.is_some() {
            write!(f, ", finishes the aggregates")?;
        }
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
        Ok(Arc::new(Self::of(input, self.states.clone(), Arc::clone(&self.shape))))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let filling = Filling {
            input: Some(input),
            states: self.states.as_ref().map(|states| Arc::clone(&states.spec)),
            shape: Arc::clone(&self.shape),
            partition,
            gathered: None,
            series: None,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            context,
        };
        let stream = futures::stream::try_unfold(filling, |mut filling| async move {
            Ok(filling.next().await?.map(|batch| (batch, filling)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The purpose of the memory for what is read.
const INPUT: &str = "input";

/// One partition being filled.
struct Filling {
    /// Until it is read.
    input: Option<SendableRecordBatchStream>,
    states: Option<Arc<Spec>>,
    shape: Arc<Shape>,
    partition: usize,
    /// The input, and the memory for it.
    gathered: Option<(Gathered, MemoryReservation)>,
    series: Option<Series>,
    metrics: BaselineMetrics,
    context: Arc<TaskContext>,
}

impl Filling {
    /// Memory for one of the operator's purposes; only what is read can go to files.
    fn memory(&self, purpose: &str) -> MemoryReservation {
        let name = format!("GapFill[{}] {purpose}", self.partition);
        let spills = purpose == INPUT;
        MemoryConsumer::new(name).with_can_spill(spills).register(self.context.memory_pool())
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(input) = self.input.take() {
            let (shape, reservation) = (&self.shape, self.memory(INPUT));
            let gathering = Gathering {
                shape,
                context: &self.context,
                reservation: &reservation,
                metrics: &self.metrics,
            };
            let gathered = match &self.states {
                Some(spec) => gathering.states(input, spec).await?,
                None => gathering.rows(input).await?,
            };
            self.gathered = Some((gathered, reservation));
        }
        loop {
            if let Some(series) = &mut self.series {
                let compute = self.metrics.elapsed_compute().clone();
                let _time = compute.timer();
                if let Some(batch) = series.next(self.context.session_config().batch_size())? {
                    self.metrics.record_output(batch.num_rows());
                    return Ok(Some(batch));
                }
                self.series = None;
            }
            let Some((gathered, _)) = &mut self.gathered else { return Ok(None) };
            let Some((rows, starts)) = gathered.next().await? else { return Ok(None) };
            let output = self.memory("output");
            self.series = Some(Series::new(Arc::clone(&self.shape), rows, starts, output)?);
        }
    }
}
