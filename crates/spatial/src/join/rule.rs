//! Where the operator comes from: nested loops with a spatial condition become spatial joins.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs, StatisticsContext};

use super::distance::take_from_join;
use super::exec::SpatialJoinExec;
use super::extent_filter::PushExtents;

/// Replaces nested loops whose condition has a spatial part.
///
/// It runs right after DataFusion has chosen its joins, so that what follows distributes the inputs, pushes filters
/// and narrows columns as for any join. The smaller side is indexed, by bytes if they are known, else by rows. A join
/// that has equal keys too stays a hash join with the spatial condition as its filter: keys of real data (a vehicle, a
/// district) leave few pairs, and the hash table needs no geometry to be read.
#[derive(Debug, Default)]
pub(crate) struct SpatialJoins;

impl PhysicalOptimizerRule for SpatialJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let replaced = if let Some(nested) = plan.downcast_ref::<NestedLoopJoinExec>() {
                replace(nested, config)?
            } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
                take_from_join(projection)?
            } else {
                None
            };
            Ok(match replaced {
                Some(join) => Transformed::yes(join),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "spatial_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn replace(nested: &NestedLoopJoinExec, config: &ConfigOptions) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = nested.filter() else { return Ok(None) };
    let join = SpatialJoinExec::try_new(
        Arc::clone(nested.left()),
        Arc::clone(nested.right()),
        filter,
        *nested.join_type(),
        nested.projection().as_ref().map(|projection| projection.to_vec()),
    )?;
    let Some(join) = join else { return Ok(None) };
    let swap = if join.is_nearest() {
        join.must_swap()
    } else {
        config.optimizer.join_reordering
            && join.join_type().supports_swap()
            && larger(join.left().as_ref(), join.right().as_ref())?
    };
    if swap { join.swap().map(Some) } else { Ok(Some(Arc::new(join))) }
}

/// Whether the first is known to be the larger.
fn larger(a: &dyn ExecutionPlan, b: &dyn ExecutionPlan) -> Result<bool> {
    let context = StatisticsContext::new();
    let statistics = |plan| context.compute(plan, &StatisticsArgs::new());
    let (a, b) = (statistics(a)?, statistics(b)?);
    let greater = |a: Option<&usize>, b: Option<&usize>| Some(a? > b?);
    Ok(greater(a.total_byte_size.get_value(), b.total_byte_size.get_value())
        .or_else(|| greater(a.num_rows.get_value(), b.num_rows.get_value()))
        .unwrap_or(false))
}

/// DataFusion's physical optimizer rules with this one in its place.
pub fn physical_optimizer_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let after = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |place| place + 1);
    rules.insert(after, Arc::new(SpatialJoins));
    rules.push(Arc::new(PushExtents));
    rules
}
