//! `twinlake scheduler` and `twinlake executor`: the processes of a cluster.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use twinlake_cluster::{Address, ExecutorOptions, SchedulerOptions, run_executor, run_scheduler};

use crate::WrongUse;
use crate::arguments;
use crate::jobs::JobWorker;
use crate::serve::interrupted;

/// How long an executor waits for its scheduler.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cuts queries into parts until Ctrl-C.
pub async fn scheduler(options: &arguments::SchedulerOptions) -> Result<()> {
    let options = SchedulerOptions {
        listen: options.listen,
        executor_timeout: Duration::from_secs(options.executor_timeout),
    };
    let ready = |address| println!("scheduling at ballista://{address}");
    Ok(run_scheduler(options, ready, interrupted()).await?)
}

/// Runs parts of queries until Ctrl-C.
pub async fn executor(options: &arguments::ExecutorOptions) -> Result<()> {
    let name = options.scheduler.as_str();
    let named = if name.contains("://") { name.to_owned() } else { format!("ballista://{name}") };
    let scheduler: Address = named.parse().map_err(WrongUse)?;
    let slots = options.slots.or_else(|| std::thread::available_parallelism().ok());
    println!("executing at {} for {scheduler}", options.listen);
    let options = ExecutorOptions {
        scheduler,
        patience: PATIENCE,
        listen: options.listen,
        reached_as: options.reached_as.clone(),
        work_dir: options.work_dir.clone(),
        slots: slots.unwrap_or(NonZeroUsize::MIN),
        memory_bytes: options.memory.map(|mebibytes| mebibytes << 20),
        worker: Some(Arc::new(JobWorker::new())),
    };
    Ok(run_executor(options).await?)
}
