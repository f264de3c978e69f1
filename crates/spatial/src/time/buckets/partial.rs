//! The operator in the place of a partial hash aggregate.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, displayable};
use futures::StreamExt;

use super::table::{Spec, Table};

/// See [the module](super). When memory is short it hands on the states that it has and begins anew; when there are about as
/// many groups as readings it hands on each reading as a state.
#[derive(Debug)]
pub(crate) struct BucketsExec {
    /// The aggregate that it stands for, an [`AggregateExec`].
    aggregate: Arc<dyn ExecutionPlan>,
    spec: Arc<Spec>,
    metrics: ExecutionPlanMetricsSet,
}

impl BucketsExec {
    /// `None` for an aggregate of another form.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else { return Ok(None) };
        let (AggregateMode::Partial, Some(bucket)) = (aggregate.mode(), Spec::bucket_place(aggregate)) else {
            return Ok(None);
        };
        let Some(spec) = Spec::of(aggregate, bucket)? else { return Ok(None) };
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Some(Self { aggregate: Arc::clone(plan), spec: Arc::new(spec), metrics }))
    }
}

impl BucketsExec {
    /// The aggregate that it stands for.
    pub(crate) fn aggregate(&self) -> &Arc<dyn ExecutionPlan> {
        &self.aggregate
    }
}

impl DisplayAs for BucketsExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(kind, DisplayFormatType::TreeRender) {
            return self.aggregate.fmt_as(kind, f);
        }
        let told = displayable(self.aggregate.as_ref()).one_line().to_string();
        write!(f, "BucketsExec{}", told.trim_end().strip_prefix("AggregateExec").unwrap_or_default())
    }
}

impl ExecutionPlan for BucketsExec {
    fn name(&self) -> &'static str {
        "BucketsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.aggregate.input_distribution_requirements()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.aggregate.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.aggregate.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let aggregate = Arc::clone(&self.aggregate).replace_children(children, options)?;
        // An input with another order may be aggregated in another way.
        Ok(Self::of(&aggregate)?.map_or(aggregate, |buckets| Arc::new(buckets)))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(input) = self.children().first().map(|input| Arc::clone(input)) else {
            return internal_err!("an aggregate has one child");
        };
        let options = &context.session_config().options().execution;
        let running = Running {
            input: input.execute(partition, Arc::clone(&context))?,
            table: Table::new(&self.spec)?,
            reservation: MemoryConsumer::new(format!("Buckets[{partition}]"))
                .with_can_spill(true)
                .register(context.memory_pool()),
            schema: self.schema(),
            batch_size: context.session_config().batch_size(),
            probe_rows: options.skip_partial_aggregation_probe_rows_threshold,
            probe_share: options.skip_partial_aggregation_probe_ratio_threshold,
            rows: 0,
            passes: None,
            ready: VecDeque::new(),
            ended: false,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let stream = futures::stream::try_unfold(running, |mut running| async move {
            Ok(running.next().await?.map(|batch| (batch, running)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

struct Running {
    input: SendableRecordBatchStream,
    table: Table,
    reservation: MemoryReservation,
    schema: SchemaRef,
    batch_size: usize,
    probe_rows: usize,
    probe_share: f64,
    rows: usize,
    /// Whether readings pass as states of their own, once that is decided.
    passes: Option<bool>,
    ready: VecDeque<RecordBatch>,
    ended: bool,
    metrics: BaselineMetrics,
}

impl Running {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            let batch = self.input.next().await.transpose()?;
            let compute = self.metrics.elapsed_compute().clone();
            let _time = compute.timer();
            if let Some(batch) = batch {
                self.take(&batch)?;
            } else {
                self.ended = true;
                self.hand_on()?;
            }
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.passes == Some(true) {
            self.ready.push_back(self.table.convert(batch)?);
            return Ok(());
        }
        self.table.add(batch)?;
        self.rows += batch.num_rows();
        if self.passes.is_none() && self.rows >= self.probe_rows {
            let many = self.table.len() as f64 >= self.probe_share * self.rows as f64;
            self.passes = Some(many);
        }
        if self.passes == Some(true) || self.reservation.try_resize(self.table.size()).is_err() {
            self.hand_on()?;
        }
        Ok(())
    }

    /// All states go; the table begins anew.
    fn hand_on(&mut self) -> Result<()> {
        let states = self.table.take_states(&self.schema)?;
        self.reservation.free();
        for from in (0..states.num_rows()).step_by(self.batch_size) {
            self.ready.push_back(states.slice(from, self.batch_size.min(states.num_rows() - from)));
        }
        Ok(())
    }
}
