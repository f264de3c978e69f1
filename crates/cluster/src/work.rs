//! Work that is no query: orders, each run by whichever executor is free.
//!
//! What the work is, the program decides that starts the executor ([`Worker`]); to the cluster it is a plan like any other, with
//! a partition for each order, so that an order is given to another executor when its own is lost. It may therefore be run
//! more than once.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, PlanProperties};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;

/// Does work on an executor.
#[async_trait]
pub trait Worker: Send + Sync + fmt::Debug {
    /// Carries out one order of a job; the same order may come more than once.
    async fn run(&self, job: &str, order: &str) -> twinlake_contracts::Result<String>;
}

/// The one column of orders and of what became of them.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]))
}

/// A partition for each order.
pub(crate) fn orders(orders: Vec<String>) -> Result<Arc<dyn ExecutionPlan>> {
    let one = |order: String| {
        let column: ArrayRef = Arc::new(StringArray::from(vec![order]));
        Ok(vec![RecordBatch::try_new(schema(), vec![column])?])
    };
    let partitions = orders.into_iter().map(one).collect::<Result<Vec<_>>>()?;
    let source: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&partitions, schema(), None)?;
    Ok(source)
}

/// Carries out the orders that come in.
#[derive(Debug)]
pub(crate) struct WorkExec {
    input: Arc<dyn ExecutionPlan>,
    job: Arc<str>,
    worker: Option<Arc<dyn Worker>>,
    properties: Arc<PlanProperties>,
}

impl WorkExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, job: Arc<str>, worker: Option<Arc<dyn Worker>>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema()),
            input.output_partitioning().clone(),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, job, worker, properties: Arc::new(properties) }
    }

    pub(crate) fn job(&self) -> &str {
        &self.job
    }
}

impl DisplayAs for WorkExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkExec")
    }
}

impl ExecutionPlan for WorkExec {
    fn name(&self) -> &'static str {
        "WorkExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[_; 1]>::try_from(children) else { return internal_err!("work has one input") };
        Ok(Arc::new(Self::new(input, Arc::clone(&self.job), self.worker.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(worker) = self.worker.clone() else {
            return plan_err!("this process does no work but queries");
        };
        let job = Arc::clone(&self.job);
        let input = self.input.execute(partition, context)?;
        let done = input.then(move |batch| {
            let (worker, job) = (Arc::clone(&worker), Arc::clone(&job));
            async move {
                let batch = batch?;
                let mut done = Vec::with_capacity(batch.num_rows());
                for order in batch.column(0).as_string::<i32>().iter().flatten() {
                    let answer = worker.run(&job, order).await;
                    done.push(answer.map_err(|error| DataFusionError::External(Box::new(error)))?);
                }
                let column: ArrayRef = Arc::new(StringArray::from(done));
                Ok(RecordBatch::try_new(schema(), vec![column])?)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema(), done)))
    }
}
