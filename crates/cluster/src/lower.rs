//! A plan of one process as one whose parts can be in several.

use std::sync::Arc;

use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, not_impl_err};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::{Partitioning, ScalarFunctionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::columns::ReadColumnsExec;
use crate::described::is_described;

/// The plan to send; an error says what in it cannot be taken apart.
pub(crate) fn lower(plan: Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        check_leaf(&node)?;
        check_exchange(&node)?;
        if let Some(scan) = ReadColumnsExec::instead_of(&node)? {
            return Ok(Transformed::yes(Arc::new(scan) as _));
        }
        Ok(match twinlake_query::separable(&node, partitions)? {
            Some(other) => Transformed::yes(other),
            None => Transformed::no(node),
        })
    })
    .data()
}

/// A part of a query is given the partitions that are its own by narrowing the leaves of its plan. The scheduler knows how to
/// narrow files and rows in memory; any other leaf would give all of its rows to every part.
fn check_leaf(node: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if !node.children().is_empty() {
        return Ok(());
    }
    let narrows = match node.downcast_ref::<DataSourceExec>() {
        Some(source) => {
            let source = source.data_source();
            source.downcast_ref::<FileScanConfig>().is_some()
                || source.downcast_ref::<MemorySourceConfig>().is_some()
        }
        None => node.output_partitioning().partition_count() <= 1,
    };
    if narrows { Ok(()) } else { not_impl_err!("the operator {} in several partitions", node.name()) }
}

/// Ballista writes what rows are exchanged by without what our functions know beside their names.
fn check_exchange(node: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let Some(exchange) = node.downcast_ref::<RepartitionExec>() else { return Ok(()) };
    let Partitioning::Hash(keys, _) = exchange.partitioning() else { return Ok(()) };
    for key in keys {
        let found = key.exists(|part| {
            Ok(part.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| is_described(call.fun())))
        })?;
        if found {
            return not_impl_err!("rows by {key}, which depends on a reference system");
        }
    }
    Ok(())
}

/// A part of a plan with the operators that are better within a process, which the plan left behind when it was taken apart.
pub(crate) fn raise(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match twinlake_query::local_operators(&node)? {
            Some(other) => Transformed::yes(other),
            None => Transformed::no(node),
        })
    })
    .data()
}

/// Whether the plan reads files: what is in memory already is quicker here than anywhere else.
pub(crate) fn reads_files(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        let source = node.downcast_ref::<DataSourceExec>();
        found |= source.is_some_and(|source| source.data_source().downcast_ref::<FileScanConfig>().is_some());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
