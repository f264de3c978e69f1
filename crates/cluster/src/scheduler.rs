//! The process that cuts queries into parts and gives them to executors.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::net::TcpListener;
use twinlake_contracts::{Error, Result};
use twinlake_lake::object_stores;
use twinlake_query::worker_state;

use crate::MESSAGE_BYTES;
use crate::codec::Codec;
use crate::planner::base_config;

/// How often is looked for executors that are gone.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// Where the scheduler is, and how patient.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Where it listens. Nobody is asked who they are.
    pub listen: SocketAddr,
    /// An executor that was not heard of for so long is taken for lost, and its parts are given to others.
    pub executor_timeout: Duration,
}

/// A runtime that opens object stores by their address, with credentials of this process.
pub(crate) fn runtime(folder: Option<&str>) -> datafusion::common::Result<Arc<RuntimeEnv>> {
    let mut builder = RuntimeEnvBuilder::new().with_object_store_registry(object_stores());
    if let Some(folder) = folder {
        builder = builder.with_temp_file_path(folder);
    }
    builder.build_arc()
}

/// Runs until `stop`; calls `ready` when executors and clients may come.
pub async fn run_scheduler(
    options: SchedulerOptions,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let failed = |error: String| Error::permanent("scheduler", error);
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| failed(format!("cannot listen on {}: {error}", options.listen)))?;
    let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let runtime = runtime(None).map_err(|error| failed(error.to_string()))?;
    let state =
        worker_state(base_config(), Arc::clone(&runtime)).map_err(|error| failed(error.to_string()))?;
    let message_bytes = u32::try_from(MESSAGE_BYTES).unwrap_or(u32::MAX);
    let builder = move |config: SessionConfig| worker_state(config, Arc::clone(&runtime));
    let config = SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        external_host: address.ip().to_string(),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: options.executor_timeout.as_secs().max(1),
        expire_dead_executor_interval_seconds: LOOKED_EVERY.as_secs(),
        no_executors_grace_period_seconds: options.executor_timeout.as_secs().max(1) * 2,
        grpc_server_max_decoding_message_size: message_bytes,
        grpc_server_max_encoding_message_size: message_bytes,
        grpc_client_max_message_size: message_bytes,
        override_config_producer: Some(Arc::new(base_config)),
        override_session_builder: Some(Arc::new(builder)),
        override_physical_codec: Some(Arc::new(Codec::new(&state))),
        ..SchedulerConfig::default()
    };
    config.validate().map_err(|error| failed(error.to_string()))?;
    let cluster =
        BallistaCluster::new_from_config(&config).await.map_err(|error| failed(error.to_string()))?;
    let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(config))
        .await
        .map_err(|error| failed(error.to_string()))?;
    ready(address);
    tokio::select! {
        served = start_grpc_service_with_listener(listener, scheduler) => {
            served.map_err(|error| failed(error.to_string()))
        }
        () = stop => Ok(()),
    }
}
