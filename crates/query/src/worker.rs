//! What a process needs that runs parts of queries of other processes: functions and operators, no lake.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::settings::TwinOptions;
use crate::{scores, sort, timestamps};

/// A state with all functions of a session and no tables.
pub fn worker_state(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Result<SessionState> {
    let config = config.with_option_extension(TwinOptions::default());
    let builder =
        SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let context = SessionContext::new_with_state(twinlake_spatial::configure(builder).build());
    timestamps::register(&context);
    twinlake_spatial::register(&context)?;
    scores::register(&context);
    Ok(context.state())
}

/// The node in the place of one that has no bytes, or whose partitions cannot be in several processes; `None` when it
/// stays. `partitions` is how many a new exchange makes. To be asked from the leaves up; an error says what cannot be taken
/// apart.
pub fn separable(node: &Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match sort::plain(node) {
        Some(sort) => Ok(Some(sort)),
        None => twinlake_spatial::wire::separable(node, partitions),
    }
}

/// The node in the place of one for which there is a better one within a process; `None` when it stays. To be asked from the
/// leaves up, of a part of a plan that is about to run.
pub fn local_operators(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match sort::in_memory(node) {
        Some(sort) => Ok(Some(sort)),
        None => twinlake_spatial::wire::local(node),
    }
}
