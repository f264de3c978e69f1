//! `PrefixSortExec`: the physical operator.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements,
    PlanProperties, apply_expression_roots,
};
use futures::stream::Fuse;
use futures::{StreamExt, TryFutureExt};

use super::gather::gather;
use super::keys::{Item, Keys, supports};
use super::memory::Buffers;

/// Sorts a whole partition in memory, or lets DataFusion's sort do it when that is too small.
#[derive(Debug)]
pub(super) struct PrefixSortExec {
    /// The sort that it stands for.
    sort: Arc<SortExec>,
    metrics: ExecutionPlanMetricsSet,
}

impl PrefixSortExec {
    /// Takes the place of a sort; `None` when that stops early, has nothing to do or orders by what has no row format.
    pub(super) fn instead_of(sort: &SortExec) -> Option<Self> {
        let done = sort.input().equivalence_properties().ordering_satisfy(sort.expr().clone()).ok()?;
        let fits = sort.fetch().is_none() && !done && supports(sort.expr(), &sort.input().schema());
        fits.then(|| Self { sort: Arc::new(sort.clone()), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl PrefixSortExec {
    /// The sort that it stands for.
    pub(super) fn sort(&self) -> Arc<dyn ExecutionPlan> {
        Arc::clone(&self.sort) as _
    }
}

impl DisplayAs for PrefixSortExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if kind == DisplayFormatType::TreeRender {
            return write!(f, "{}", self.sort.expr());
        }
        let keep = self.sort.preserve_partitioning();
        write!(f, "PrefixSortExec: expr=[{}], preserve_partitioning=[{keep}]", self.sort.expr())
    }
}

impl ExecutionPlan for PrefixSortExec {
    fn name(&self) -> &'static str {
        "PrefixSortExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.sort.properties()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.sort.input_distribution_requirements()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        self.sort.benefits_from_input_partitioning()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.sort.input()]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.sort.expr().iter().map(|sort| &sort.expr), f)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        let sort = Arc::clone(&self.sort).replace_children(children, recompute)?;
        let Some(sort) = sort.downcast_ref::<SortExec>() else {
            return internal_err!("a sort with new input is no longer a sort");
        };
        Ok(Arc::new(Self { sort: Arc::new(sort.clone()), metrics: ExecutionPlanMetricsSet::new() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.sort.input().execute(partition, Arc::clone(&context))?;
        let reservation = MemoryConsumer::new(format!("PrefixSort[{partition}]"))
            .with_can_spill(true)
            .register(context.memory_pool());
        let sorting = Sorting {
            sort: Arc::clone(&self.sort),
            partition,
            batch_size: context.session_config().batch_size(),
            context,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            mem_used: MetricBuilder::new(&self.metrics).gauge("mem_used", partition),
            reservation,
        };
        let output = sorting.run(input).try_flatten_stream();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = self.metrics.clone_inner();
        // Those of the sort that it handed over to.
        for metric in self.sort.metrics().iter().flat_map(MetricsSet::iter) {
            all.push(Arc::clone(metric));
        }
        Some(all)
    }
}

/// One partition at work.
struct Sorting {
    sort: Arc<SortExec>,
    partition: usize,
    batch_size: usize,
    context: Arc<TaskContext>,
    metrics: BaselineMetrics,
    mem_used: Gauge,
    reservation: MemoryReservation,
}

impl Sorting {
    /// Reads all of the input and gives it in order.
    async fn run(self, input: SendableRecordBatchStream) -> Result<SendableRecordBatchStream> {
        let schema = input.schema();
        let mut input = input.fuse();
        let mut keys = Keys::new(self.sort.expr(), &schema)?;
        let (mut batches, mut buffers) = (Vec::new(), Buffers::default());
        let mut small = Small::default();
        loop {
            let next = input.next().await.transpose()?;
            let ended = next.is_none();
            let timer = self.metrics.elapsed_compute().timer();
            let Some(large) = small.take(&schema, next)? else {
                drop(timer);
                if ended {
                    break;
                }
                continue;
            };
            let bytes = buffers.add(&large) + keys.add(&large)?;
            batches.push(large);
            drop(timer);
            if self.reservation.try_grow(bytes).is_err() || keys.is_full() {
                drop(keys);
                self.reservation.free();
                return self.hand_over(schema, batches, input);
            }
            if ended {
                break;
            }
        }
        drop(input);
        self.mem_used.set_max(self.reservation.size());
        let timer = self.metrics.elapsed_compute().timer();
        // Long work: not on the threads that keep other queries going.
        let items = SpawnedTask::spawn_blocking(move || keys.sorted()).join_unwind().await;
        drop(timer);
        let items: Vec<Item> = items.map_err(|error| {
            datafusion::common::DataFusionError::Execution(format!("a sort ended early: {error}"))
        })?;
        let output = Arc::clone(&schema);
        let state = (self, batches, items, 0_usize);
        let stream = futures::stream::try_unfold(state, move |(work, batches, items, from)| {
            let schema = Arc::clone(&schema);
            async move {
                if from == items.len() {
                    return Ok(None);
                }
                let to = (from + work.batch_size).min(items.len());
                let timer = work.metrics.elapsed_compute().timer();
                let batch = gather(&schema, &batches, &items[from..to])?;
                drop(timer);
                work.metrics.record_output(batch.num_rows());
                Ok(Some((batch, (work, batches, items, to))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(output, stream)))
    }

    /// What was read, and what is left to read, to DataFusion's sort.
    fn hand_over(
        &self,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
        rest: Fuse<SendableRecordBatchStream>,
    ) -> Result<SendableRecordBatchStream> {
        // What spills needs room for a batch or two: large ones become small again, with buffers of their own.
        let (copied, batch_size) = (Arc::clone(&schema), self.batch_size);
        let small = batches.into_iter().flat_map(move |large| {
            let (schema, rows) = (Arc::clone(&copied), large.num_rows());
            (0..rows).step_by(batch_size).map(move |from| {
                let items: Vec<Item> = (from..(from + batch_size).min(rows)).map(Item::first_batch).collect();
                gather(&schema, std::slice::from_ref(&large), &items)
            })
        });
        let input = Once {
            properties: Arc::clone(self.sort.input().properties()),
            stream: Mutex::new(Some(Box::pin(RecordBatchStreamAdapter::new(
                schema,
                futures::stream::iter(small).chain(rest),
            )))),
        };
        let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        let sort = Arc::clone(&self.sort).replace_children(vec![Arc::new(input)], keep)?;
        sort.execute(self.partition, Arc::clone(&self.context))
    }
}

/// Small batches that become a large one: what is gathered from many takes longer.
#[derive(Default)]
struct Small {
    batches: Vec<RecordBatch>,
    rows: usize,
    buffers: Buffers,
    bytes: usize,
}

const ENOUGH_ROWS: usize = 64 * 1024;
const ENOUGH_BYTES: usize = 16 << 20;

impl Small {
    /// Takes a batch, or the end; gives a large one when there is enough for it.
    fn take(&mut self, schema: &SchemaRef, batch: Option<RecordBatch>) -> Result<Option<RecordBatch>> {
        let ended = batch.is_none();
        if let Some(batch) = batch.filter(|batch| batch.num_rows() > 0) {
            self.rows += batch.num_rows();
            self.bytes += self.buffers.add(&batch);
            self.batches.push(batch);
        }
        if self.batches.is_empty() || !(ended || self.rows >= ENOUGH_ROWS || self.bytes >= ENOUGH_BYTES) {
            return Ok(None);
        }
        let all = std::mem::take(self).batches;
        match <[RecordBatch; 1]>::try_from(all) {
            Ok([one]) => Ok(Some(one)),
            Err(several) => Ok(Some(concat_batches(schema, &several)?)),
        }
    }
}

/// A stream that has begun, as the input of a plan; whichever partition is asked for.
struct Once {
    properties: Arc<PlanProperties>,
    stream: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl DisplayAs for Once {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl ExecutionPlan for Once {
    fn name(&self) -> &'static str {
        "Once"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.map_or_else(|| internal_err!("a stream can be read once"), Ok)
    }
}
