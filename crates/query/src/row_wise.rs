//! Row-wise queries: each result row stands for exactly one input row, so a hidden column may ride along.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, internal_err};
use datafusion::logical_expr::{
    Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableSource, Volatility,
};

/// Whether a plan, not yet optimised, only projects and filters the rows of a single table.
pub(crate) fn is_row_wise(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(looks_at_one_row) && is_row_wise(&projection.input)
        }
        LogicalPlan::Filter(filter) => looks_at_one_row(&filter.predicate) && is_row_wise(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => is_row_wise(&alias.input),
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        _ => false,
    }
}

/// Whether an expression needs nothing but the columns of one row.
fn looks_at_one_row(expression: &Expr) -> bool {
    let found = expression.exists(|part| {
        Ok(matches!(
            part,
            Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::Unnest(_)
                | Expr::GroupingSet(_)
                | Expr::OuterReferenceColumn(..)
        ))
    });
    matches!(found, Ok(false))
}

/// The row-wise plan over a table that has one more column, which it hands on unchanged as the last column of its
/// result. `source` is the table with that column.
pub(crate) fn carry(plan: &LogicalPlan, source: &Arc<dyn TableSource>, hidden: &str) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::TableScan(scan) => {
            LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(source), None)?.build()?
        }
        LogicalPlan::Filter(filter) => {
            let input = carry(&filter.input, source, hidden)?;
            LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = carry(&alias.input, source, hidden)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?)
        }
        LogicalPlan::Projection(projection) => {
            let input = carry(&projection.input, source, hidden)?;
            let (qualifier, _) = input.schema().qualified_field_with_unqualified_name(hidden)?;
            let column = Expr::Column(Column::new(qualifier.cloned(), hidden));
            let expressions = projection.expr.iter().cloned().chain([column]).collect();
            LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(input))?)
        }
        other => return internal_err!("{} is not row-wise", other.display()),
    })
}

/// The first function whose value is not a matter of its arguments alone: the clock or chance.
pub(crate) fn unrepeatable(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(call.func.name().to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}
