//! A plan handed to the scheduler, and its rows fetched from the executors. Who no longer wants them cancels it.

use std::sync::Arc;
use std::time::Duration;

use ballista_core::client::BallistaClient;
use ballista_core::config::BallistaConfig;
use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, GetJobStatusParams, KeyValuePair, PartitionLocation,
    execute_query_result, job_status,
};
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use ballista_core::{BALLISTA_VERSION, version};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionConfig;
use datafusion_proto::physical_plan::{AsExecutionPlan, PhysicalExtensionCodec};
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

type Scheduler = SchedulerGrpcClient<Channel>;

/// How long is waited before the scheduler is asked again: a short query is answered soon, a long one costs few calls.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// What is sent, and how it is spoken with both kinds of process.
pub(crate) struct Order {
    plan: Arc<dyn ExecutionPlan>,
    bytes: Vec<u8>,
    settings: Vec<KeyValuePair>,
    session: String,
    calls: GrpcClientConfig,
}

impl Order {
    pub(crate) fn new(
        plan: Arc<dyn ExecutionPlan>,
        codec: &dyn PhysicalExtensionCodec,
        session: String,
        config: &SessionConfig,
        ballista: &BallistaConfig,
    ) -> Result<Self> {
        let bytes = PhysicalPlanNode::try_from_physical_plan(Arc::clone(&plan), codec)?.encode_to_vec();
        let entries = config.options().entries().into_iter();
        let settings = entries.map(|entry| KeyValuePair { key: entry.key, value: entry.value }).collect();
        Ok(Self { plan, bytes, settings, session, calls: GrpcClientConfig::from(ballista) })
    }

    /// Waits until all parts have run; the rows are fetched as they are asked for.
    pub(crate) async fn run(self, url: String) -> Result<SendableRecordBatchStream> {
        let schema = self.plan.schema();
        let endpoint = create_grpc_client_endpoint(url, Some(&self.calls))
            .map_err(|error| exec_datafusion_err!("{error}"))?;
        let connection = endpoint.connect().await.map_err(|error| exec_datafusion_err!("{error}"))?;
        let mut scheduler = Scheduler::new(connection)
            .max_encoding_message_size(self.calls.max_message_size)
            .max_decoding_message_size(self.calls.max_message_size);
        let mut asked = Request::new(ExecuteQueryParams {
            query: Some(Query::PhysicalPlan(self.bytes)),
            settings: self.settings,
            session_id: self.session,
            operation_id: Uuid::now_v7().to_string(),
        });
        version::insert_version_header(asked.metadata_mut());
        let answer = scheduler.execute_query(asked).await.map_err(refused)?;
        let theirs = version::version_from_metadata(answer.metadata()).map(str::to_owned);
        let id = match answer.into_inner().result {
            Some(execute_query_result::Result::Success(taken)) => taken.job_id,
            other => return exec_err!("the scheduler does not take the query: {other:?}"),
        };
        let mut job = Job { scheduler, id, ended: false };
        version::check_compatibility(Some(BALLISTA_VERSION), theirs.as_deref())
            .map_err(DataFusionError::Execution)?;
        let parts = job.wait().await?;
        let calls = self.calls;
        let rows = futures::stream::iter(parts).then(move |part| fetch(part, calls.clone())).try_flatten();
        // A plan's rows stay with the executors until they were fetched; the job itself is done.
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// A job that the scheduler has taken. Dropped before its end, it is cancelled.
struct Job {
    scheduler: Scheduler,
    id: String,
    ended: bool,
}

impl Job {
    async fn wait(&mut self) -> Result<Vec<PartitionLocation>> {
        let mut pause = FIRST_WAIT;
        loop {
            let asked = GetJobStatusParams { job_id: self.id.clone() };
            let answer = self.scheduler.get_job_status(asked).await.map_err(refused)?.into_inner();
            match answer.status.and_then(|status| status.status) {
                Some(job_status::Status::Successful(done)) => {
                    self.ended = true;
                    return Ok(done.partition_location);
                }
                Some(job_status::Status::Failed(failed)) => {
                    self.ended = true;
                    return exec_err!("Job {} failed: {}", self.id, failed.error);
                }
                None | Some(job_status::Status::Queued(_) | job_status::Status::Running(_)) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_WAIT);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (mut scheduler, job_id) = (self.scheduler.clone(), std::mem::take(&mut self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = scheduler.cancel_job(CancelJobParams { job_id: job_id.clone() }).await {
                    tracing::warn!("the job {job_id} is not cancelled: {}", error.message());
                }
            });
        }
    }
}

/// The rows of one part, from the executor that holds them.
async fn fetch(part: PartitionLocation, calls: GrpcClientConfig) -> Result<SendableRecordBatchStream> {
    let layout = part.layout();
    let missing = || exec_datafusion_err!("the scheduler does not say where the rows of a part are");
    let holder = part.executor_meta.ok_or_else(missing)?;
    let place = part.partition_id.ok_or_else(missing)?;
    let port = u16::try_from(holder.port).map_err(|_| exec_datafusion_err!("{} is no port", holder.port))?;
    let client = BallistaClient::try_new(
        &holder.host,
        port,
        calls.max_message_size,
        calls.use_tls,
        None,
        calls.io_retries_times,
        calls.io_retry_wait_time_ms,
        0,
        0,
    );
    let mut client = client.await.map_err(BallistaError::into_datafusion)?;
    client
        .fetch_partition_proxied(&holder.id, &place.into(), part.file_id, layout, &holder.host, port, true)
        .await
        .map_err(BallistaError::into_datafusion)
}

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn refused(status: Status) -> DataFusionError {
    exec_datafusion_err!("{}", status.message())
}
