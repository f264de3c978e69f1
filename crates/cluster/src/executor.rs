//! The process that runs parts of queries.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::JobId;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use twinlake_contracts::{Error, Result};
use twinlake_query::worker_state;

use crate::MESSAGE_BYTES;
use crate::address::Address;
use crate::codec::Codec;
use crate::lower::raise;
use crate::planner::base_config;
use crate::scheduler::runtime;
use crate::work::Worker;

/// How long rows between parts are kept when nobody has said that they are not needed any more.
const ROWS_KEPT: Duration = Duration::from_hours(1);
/// How often it is looked for such rows.
const LOOKED_EVERY: Duration = Duration::from_mins(5);

/// Where an executor is, and what it may take.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// Whose parts it runs.
    pub scheduler: Address,
    /// How long the scheduler may take to be there.
    pub patience: Duration,
    /// Where other executors and clients fetch rows. Nobody is asked who they are.
    pub listen: SocketAddr,
    /// The name or address under which others reach it, when that is not the one it listens on.
    pub reached_as: Option<String>,
    /// A folder for rows between parts and for what does not fit into memory; one of its own below the system's when
    /// nothing is said.
    pub work_dir: Option<PathBuf>,
    /// How many parts run at a time.
    pub slots: NonZeroUsize,
    /// How many bytes all parts together may hold in memory before they use files; seven tenths of the machine's when nothing
    /// is said.
    pub memory_bytes: Option<u64>,
    /// Who does work that is no query.
    pub worker: Option<Arc<dyn Worker>>,
}

/// Runs until Ctrl-C or SIGTERM, and tells the scheduler that it goes.
pub async fn run_executor(options: ExecutorOptions) -> Result<()> {
    let failed = |error: String| Error::permanent("executor", error);
    // Ballista finds out when it has told the scheduler already.
    TcpListener::bind(options.listen)
        .map_err(|error| failed(format!("cannot listen on {}: {error}", options.listen)))?;
    let own;
    let folder = if let Some(folder) = &options.work_dir {
        std::fs::create_dir_all(folder)
            .map_err(|error| failed(format!("cannot make the folder {}: {error}", folder.display())))?;
        folder.clone()
    } else {
        // Goes with the executor; no other one has it.
        own = tempfile::Builder::new()
            .prefix("twinlake-executor-")
            .tempdir()
            .map_err(|error| failed(error.to_string()))?;
        own.path().to_owned()
    };
    let folder = folder.to_string_lossy().into_owned();
    let base = runtime(Some(&folder)).map_err(|error| failed(error.to_string()))?;
    let state = worker_state(base_config(), Arc::clone(&base)).map_err(|error| failed(error.to_string()))?;
    let message_bytes = u32::try_from(MESSAGE_BYTES).unwrap_or(u32::MAX);
    let engine = Engine(DefaultExecutionEngine::new());
    let config = ExecutorProcessConfig {
        bind_host: options.listen.ip().to_string(),
        external_host: Some(options.reached_as.unwrap_or_else(|| options.listen.ip().to_string())),
        port: options.listen.port(),
        scheduler_host: options.scheduler.host.clone(),
        scheduler_port: options.scheduler.port,
        scheduler_connect_timeout_seconds: u16::try_from(options.patience.as_secs()).unwrap_or(u16::MAX),
        vcores: options.slots.get(),
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(folder),
        job_data_ttl_seconds: ROWS_KEPT.as_secs(),
        job_data_clean_up_interval_seconds: LOOKED_EVERY.as_secs(),
        grpc_max_decoding_message_size: message_bytes,
        grpc_max_encoding_message_size: message_bytes,
        memory_pool_size: options.memory_bytes,
        override_execution_engine: Some(Arc::new(engine)),
        override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&state))),
        override_runtime_producer: Some(Arc::new(move |_: &SessionConfig| Ok(Arc::clone(&base)))),
        override_config_producer: Some(Arc::new(base_config)),
        override_physical_codec: Some(Arc::new(Codec::new(&state).with_worker(options.worker))),
        ..ExecutorProcessConfig::default()
    };
    start_executor_process(Arc::new(config)).await.map_err(|error| {
        failed(error.to_string()).with_help(format!("is there a scheduler at {}?", options.scheduler))
    })
}

/// Ballista's engine, with the operators that are better within a process.
struct Engine(DefaultExecutionEngine);

impl ExecutionEngine for Engine {
    fn create_query_stage_exec(
        &self,
        job: JobId,
        stage: usize,
        task: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        folder: &str,
        config: &SessionConfig,
    ) -> datafusion::common::Result<Arc<dyn QueryStageExecutor>> {
        self.0.create_query_stage_exec(job, stage, task, partitions, raise(plan)?, folder, config)
    }
}
