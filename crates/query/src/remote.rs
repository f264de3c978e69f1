//! Where queries run that do not run in this process.

use std::sync::Arc;

use datafusion::execution::context::QueryPlanner;
use datafusion::prelude::SessionConfig;

/// Other processes that queries of an engine may run in.
pub trait Remote: Send + Sync {
    /// The settings of a session whose plans can be taken apart.
    fn configure(&self, config: SessionConfig) -> SessionConfig;

    /// A planner that hands plans of `local` over where that is possible, and gives them as they are where it is not.
    /// Answers are the same either way.
    fn planner(&self, local: Arc<dyn QueryPlanner + Send + Sync>) -> Arc<dyn QueryPlanner + Send + Sync>;
}
