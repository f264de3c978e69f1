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

/// DataFusion's sort in the place of ours; `None` for another operator.
pub(crate) fn plain(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    node.downcast_ref::<PrefixSortExec>().map(PrefixSortExec::sort)
}

/// Our sort in the place of DataFusion's; `None` when that stays.
pub(crate) fn in_memory(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let sort = node.downcast_ref::<SortExec>().and_then(PrefixSortExec::instead_of)?;
    Some(Arc::new(sort))
}

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
            Ok(match in_memory(&plan) {
                Some(sort) => Transformed::yes(sort),
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
