//! The distance to the nearest, taken from the search that has just measured it.
//!
//! `SELECT st_distance(a.geom, b.geom) … ON st_knn(a.geom, b.geom, k)` would read every pair of geometries again. The
//! search measures with the same code, so its distances are those of the function to the last bit.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::exec::SpatialJoinExec;
use super::filter::Expr;

/// A projection that asks for the distance again, over a join that gives it; `None` when it does not ask.
pub(super) fn take_from_join(projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    // A join whose sides were exchanged lies below a projection that puts the columns back.
    let between = projection.input().downcast_ref::<ProjectionExec>();
    let input = between.map_or(projection.input(), ProjectionExec::input);
    let Some(join) = input.downcast_ref::<SpatialJoinExec>() else { return Ok(None) };
    let Some(measuring) = join.with_distance()? else { return Ok(None) };
    let at = measuring.schema().fields().len() - 1;
    let distance: Expr = Arc::new(Column::new(measuring.schema().field(at).name(), at));
    let mut taken = false;
    let expressions = projection
        .expr()
        .iter()
        .map(|one| {
            let over_join = match between {
                Some(between) => through(Arc::clone(&one.expr), between)?,
                None => Arc::clone(&one.expr),
            };
            let changed = over_join.transform(|part| {
                let call = part.downcast_ref::<ScalarFunctionExpr>();
                Ok(match call.map(|call| (call.fun().name(), call.args())) {
                    Some(("st_distance", [a, b])) if join.is_about(a, b) => {
                        Transformed::yes(Arc::clone(&distance))
                    }
                    _ => Transformed::no(part),
                })
            })?;
            taken |= changed.transformed;
            Ok(ProjectionExpr { expr: changed.data, alias: one.alias.clone() })
        })
        .collect::<Result<Vec<_>>>()?;
    if !taken {
        return Ok(None);
    }
    Ok(Some(Arc::new(ProjectionExec::try_new(expressions, Arc::new(measuring))?)))
}

/// An expression over the output of a projection as one over its input.
fn through(expression: Expr, projection: &ProjectionExec) -> Result<Expr> {
    let replaced = expression.transform_down(|part| {
        Ok(match part.downcast_ref::<Column>().and_then(|column| projection.expr().get(column.index())) {
            Some(source) => Transformed::new(
                Arc::clone(&source.expr),
                true,
                datafusion::common::tree_node::TreeNodeRecursion::Jump,
            ),
            None => Transformed::no(part),
        })
    })?;
    Ok(replaced.data)
}
