//! Puts the operators of this module where hash aggregates by buckets of time are.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, internal_err};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateMode, AggregateOutputMode,
};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::partial::BucketsExec;
use super::table::Spec;
use crate::time::gapfill::exec::GapFillExec;

/// Partial aggregates by `time_bucket` become [`BucketsExec`]; filling gaps right over an aggregate takes its states and
/// finishes them itself, so that they are distributed and put in order once.
#[derive(Debug)]
pub(crate) struct AggregateByBuckets;

impl PhysicalOptimizerRule for AggregateByBuckets {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if let Some(buckets) = BucketsExec::of(&node)? {
                return Ok(Transformed::yes(Arc::new(buckets) as _));
            }
            let Some(filling) = node.downcast_ref::<GapFillExec>() else { return Ok(Transformed::no(node)) };
            Ok(match finishing(filling)? {
                Some(better) => Transformed::yes(better),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "aggregate_by_buckets"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same, over the input of the aggregate below.
fn finishing(filling: &GapFillExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let below = without_exchange(filling.input());
    let Some(aggregate) = below.downcast_ref::<AggregateExec>() else { return Ok(None) };
    if aggregate.mode().output_mode() != AggregateOutputMode::Final {
        return Ok(None);
    }
    let partitions = filling.input().output_partitioning().partition_count();
    let (states, spec, last) = if aggregate.mode().input_mode() == AggregateInputMode::Raw {
        if partitions != 1 || aggregate.input().output_partitioning().partition_count() != 1 {
            return Ok(None);
        }
        let Some((partial, last)) = in_two_steps(aggregate)? else { return Ok(None) };
        (partial, Spec::of(&last, filling.time())?, Arc::new(last) as Arc<dyn ExecutionPlan>)
    } else {
        (without_exchange(aggregate.input()), Spec::of(aggregate, filling.time())?, Arc::clone(&below))
    };
    let Some(spec) = spec else { return Ok(None) };
    let schema = states.schema();
    let keys: Vec<Arc<dyn PhysicalExpr>> = filling
        .keys()
        .iter()
        .map(|key| Arc::new(Column::new(schema.field(*key).name(), *key)) as _)
        .collect();
    let input: Arc<dyn ExecutionPlan> =
        if states.output_partitioning().partition_count() == 1 && partitions == 1 {
            states
        } else if keys.is_empty() {
            Arc::new(CoalescePartitionsExec::new(states))
        } else {
            Arc::new(RepartitionExec::try_new(states, Partitioning::Hash(keys, partitions))?)
        };
    Ok(Some(Arc::new(filling.finishing(input, Arc::new(spec), last))))
}

/// Filling gaps over an aggregate of DataFusion, where it finishes the states of that aggregate itself: what is left when
/// the partitions are made anew, in other processes.
pub(crate) fn unfinished(filling: &GapFillExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(aggregate) = filling.finished_aggregate() else { return Ok(None) };
    let Some(last) = aggregate.downcast_ref::<AggregateExec>() else {
        return internal_err!("what finishes the states is no aggregate");
    };
    let partitions = filling.input().output_partitioning().partition_count();
    let groups = last.group_expr().expr().iter().map(|(group, _)| Arc::clone(group)).collect();
    let keys = if *last.mode() == AggregateMode::FinalPartitioned { groups } else { Vec::new() };
    let states = exchanged(without_exchange(filling.input()), keys, partitions)?;
    let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let rows = Arc::clone(aggregate).replace_children(vec![states], recompute)?;
    let schema = rows.schema();
    let keys = filling.keys().iter().map(|key| Arc::new(Column::new(schema.field(*key).name(), *key)) as _);
    let rows = exchanged(rows, keys.collect(), partitions)?;
    Ok(Some(Arc::new(filling.over(rows))))
}

/// The rows by keys in as many partitions; in one without keys.
fn exchanged(
    plan: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.output_partitioning().partition_count() == 1 && (keys.is_empty() || partitions == 1) {
        return Ok(plan);
    }
    if keys.is_empty() {
        return Ok(Arc::new(CoalescePartitionsExec::new(plan)));
    }
    Ok(Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, partitions))?))
}

/// An aggregate in one step as the operator that makes states, and the aggregate over those.
fn in_two_steps(aggregate: &AggregateExec) -> Result<Option<(Arc<dyn ExecutionPlan>, AggregateExec)>> {
    let step = |mode, group_by, input| {
        let (functions, filters) = (aggregate.aggr_expr().to_vec(), aggregate.filter_expr().to_vec());
        AggregateExec::try_new(mode, group_by, functions, filters, input, aggregate.input_schema())
    };
    let group_by = aggregate.group_expr();
    let partial = step(AggregateMode::Partial, group_by.clone(), Arc::clone(aggregate.input()))?;
    let partial: Arc<dyn ExecutionPlan> = Arc::new(partial);
    let Some(partial) = BucketsExec::of(&partial)? else { return Ok(None) };
    let partial: Arc<dyn ExecutionPlan> = Arc::new(partial);
    let last = step(AggregateMode::Final, group_by.as_final(), Arc::clone(&partial))?;
    Ok(Some((partial, last)))
}

fn without_exchange(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let exchanges = plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>();
    match plan.children().as_slice() {
        [input] if exchanges => without_exchange(input),
        _ => Arc::clone(plan),
    }
}
