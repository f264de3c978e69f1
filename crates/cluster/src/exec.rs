//! A query that runs elsewhere, as an operator that gives its rows.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use ballista_core::extension::SessionConfigExt;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, PlanProperties};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning};
use futures::{StreamExt, TryStreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use twinlake_contracts::Error;

use crate::address::Address;
use crate::codec::Codec;
use crate::job::Order;

/// How long the scheduler may take to answer a call.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

/// See [the module](self). The rows of all parts come one part after the other, in order where the query asks for one.
#[derive(Debug)]
pub(crate) struct ClusterExec {
    address: Address,
    codec: Arc<Codec>,
    /// What runs there.
    plan: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl ClusterExec {
    pub(crate) fn new(
        address: Address,
        codec: Arc<Codec>,
        plan: Arc<dyn ExecutionPlan>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { address, codec, plan, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ClusterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterExec: {}", self.address)
    }
}

impl ExecutionPlan for ClusterExec {
    fn name(&self) -> &'static str {
        "ClusterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
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
        if children.is_empty() { Ok(self) } else { internal_err!("a query elsewhere has no children") }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a query elsewhere has one partition, not {partition}");
        }
        let (address, codec, plan) = (self.address.clone(), Arc::clone(&self.codec), Arc::clone(&self.plan));
        let named = address.clone();
        let asked = async move {
            reach(&address).await?;
            let config = context.session_config();
            let order =
                Order::new(plan, codec.as_ref(), context.session_id(), config, &config.ballista_config())?;
            tracing::info!("a query runs on {address}");
            order.run(address.url()).await
        };
        let schema = self.schema();
        let rows = futures::stream::once(asked).try_flatten().map(move |batch| match batch {
            Ok(batch) => named_as(batch, &schema),
            Err(error) => Err(failed(&named, error)),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// The same rows under the schema that was planned: on the way fields lose what they say beside name and type.
fn named_as(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

/// Whether somebody listens there; Ballista's own error for it names neither.
async fn reach(address: &Address) -> Result<()> {
    let place = (address.host.as_str(), address.port);
    let reason = match timeout(REACHED_WITHIN, TcpStream::connect(place)).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", REACHED_WITHIN.as_secs()),
    };
    let error =
        Error::transient(format!("the scheduler at {address}"), format!("cannot be reached: {reason}"));
    let help = format!("start one with: twinlake scheduler --listen {}:{}", address.host, address.port);
    Err(DataFusionError::External(Box::new(error.with_help(help))))
}

/// What went wrong there, as an error of the cluster; one of ours stays.
fn failed(address: &Address, error: DataFusionError) -> DataFusionError {
    if let DataFusionError::External(inner) = &error
        && inner.is::<Error>()
    {
        return error;
    }
    let text = error.strip_backtrace();
    let text = text.strip_prefix("Execution error: ").unwrap_or(&text).to_owned();
    DataFusionError::External(Box::new(Error::transient(format!("the cluster at {address}"), text)))
}
