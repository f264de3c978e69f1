//! Sorting whole inputs in memory: one sort of short keys instead of many sorted batches that are merged.
//!
//! DataFusion sorts batch by batch and merges the runs row by row, which for large inputs costs most of the time of a
//! query, and counts buffers that batches share once for each of them. [`PrefixSortExec`] takes the place of its sort
//! when there is no limit; when memory does not suffice it hands over to DataFusion's, which spills.

mod exec;
mod gather;
mod keys;
mod memory;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;

use exec::PrefixSortExec;

/// Replaces sorts without a limit; to run last.
#[derive(Debug, Default)]
pub(crate) struct PrefixSorts;

impl PhysicalOptimizerRule for PrefixSorts {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let replaced = plan.downcast_ref::<SortExec>().and_then(PrefixSortExec::instead_of);
            Ok(match replaced {
                Some(sort) => Transformed::yes(Arc::new(sort) as _),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "prefix_sorts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
