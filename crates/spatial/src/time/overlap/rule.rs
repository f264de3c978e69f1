//! Finds joins of overlapping intervals among those that would compare every pair.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, JoinType, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::utils::{collect_columns, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::joins::utils::JoinFilter;

use super::exec::{Comparison, Overlap, OverlapJoinExec};
use crate::time::order::order_type;

/// Puts an [`OverlapJoinExec`] in the place of a nested loop whose condition has the form
/// `left.start < right.end AND left.end > right.start`.
#[derive(Debug)]
pub(crate) struct JoinOverlaps;

impl PhysicalOptimizerRule for JoinOverlaps {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else {
                return Ok(Transformed::no(node));
            };
            Ok(match replace(join)? {
                Some(better) => Transformed::yes(Arc::new(better) as _),
                None => Transformed::no(node),
            })
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &'static str {
        "join_overlaps"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

pub(super) fn replace(join: &NestedLoopJoinExec) -> Result<Option<OverlapJoinExec>> {
    let Some(filter) = join.filter() else { return Ok(None) };
    if !matches!(join.join_type(), JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) {
        return Ok(None);
    }
    let parts = split_conjunction(filter.expression());
    let (mut starts, mut ends) = (None, None);
    let mut exact = true;
    for part in &parts {
        match comparison(part, filter)? {
            Some((comparison, true)) if starts.is_none() => starts = Some(comparison),
            Some((comparison, false)) if ends.is_none() => ends = Some(comparison),
            _ => exact = false,
        }
    }
    let (Some(starts), Some(ends)) = (starts, ends) else { return Ok(None) };
    // Floats have two zeros that compare in more than one way; the condition itself decides about them.
    exact &= starts.is_whole && ends.is_whole;
    let overlap = Overlap { starts, ends, exact, filter: filter.clone(), join_type: *join.join_type() };
    let projection = join.projection().as_ref().map(|projection| projection.to_vec());
    let exec = OverlapJoinExec::new(
        Arc::clone(join.left()),
        Arc::clone(join.right()),
        overlap,
        projection,
        join.schema(),
        Arc::clone(join.properties()),
    );
    Ok(Some(exec))
}

/// A comparison of the left side with the right, and whether the left is to be the smaller.
fn comparison(part: &Arc<dyn PhysicalExpr>, filter: &JoinFilter) -> Result<Option<(Comparison, bool)>> {
    let Some(binary) = part.downcast_ref::<BinaryExpr>() else { return Ok(None) };
    let sides = (side(binary.left(), filter), side(binary.right(), filter));
    let (left, right, operator) = match sides {
        (Some(JoinSide::Left), Some(JoinSide::Right)) => (binary.left(), binary.right(), Some(*binary.op())),
        (Some(JoinSide::Right), Some(JoinSide::Left)) => (binary.right(), binary.left(), binary.op().swap()),
        _ => return Ok(None),
    };
    let (strict, smaller) = match operator {
        Some(Operator::Lt) => (true, true),
        Some(Operator::LtEq) => (false, true),
        Some(Operator::Gt) => (true, false),
        Some(Operator::GtEq) => (false, false),
        _ => return Ok(None),
    };
    let types = (left.data_type(filter.schema())?, right.data_type(filter.schema())?);
    let Some(ordered) = order_type(&types.0).filter(|_| types.0 == types.1) else { return Ok(None) };
    let comparison = Comparison {
        left: over_its_side(left, filter)?,
        right: over_its_side(right, filter)?,
        strict,
        is_whole: !ordered.is_floating(),
    };
    Ok(Some((comparison, smaller)))
}

/// The side that an expression reads, if it reads one.
fn side(expression: &Arc<dyn PhysicalExpr>, filter: &JoinFilter) -> Option<JoinSide> {
    let columns = collect_columns(expression);
    let mut sides = columns.iter().map(|column| filter.column_indices()[column.index()].side);
    let first = sides.next()?;
    sides.all(|side| side == first).then_some(first)
}

/// The expression over the columns of its side instead of those of the filter.
fn over_its_side(expression: &Arc<dyn PhysicalExpr>, filter: &JoinFilter) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expression)
        .transform(|part| {
            let Some(column) = part.downcast_ref::<Column>() else { return Ok(Transformed::no(part)) };
            let index = filter.column_indices()[column.index()].index;
            Ok(Transformed::yes(Arc::new(Column::new(column.name(), index)) as Arc<dyn PhysicalExpr>))
        })
        .map(|transformed| transformed.data)
}
