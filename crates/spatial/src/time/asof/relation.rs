//! The tree of an `ASOF JOIN` into a node of the plan.

use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{BinaryExpr, Expr, Extension, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, FunctionArg, FunctionArgExpr, FunctionArguments, JoinConstraint, JoinOperator,
    TableFactor, TableWithJoins,
};

use super::node::AsofJoin;
use super::syntax::{MATCH_CONDITION, is_marked};

/// Plans relations that [`super::syntax::mark`] made.
#[derive(Debug)]
pub(crate) struct AsofRelations;

impl RelationPlanner for AsofRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias } if is_marked(&table_with_joins) => {
                let plan = plan(*table_with_joins, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn plan(mut table: TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let Some(join) = table.joins.pop() else { return plan_err!("ASOF JOIN without a join") };
    let left = if table.joins.is_empty() {
        context.plan(table.relation)?
    } else {
        context.plan(TableFactor::NestedJoin { table_with_joins: Box::new(table), alias: None })?
    };
    let right = context.plan(join.relation)?;
    let mut conditions = Vec::new();
    let mut keeps_left = false;
    match join.join_operator {
        JoinOperator::Join(JoinConstraint::On(condition))
        | JoinOperator::Inner(JoinConstraint::On(condition)) => {
            split(condition, &mut conditions);
        }
        JoinOperator::Left(JoinConstraint::On(condition))
        | JoinOperator::LeftOuter(JoinConstraint::On(condition)) => {
            keeps_left = true;
            split(condition, &mut conditions);
        }
        JoinOperator::AsOf { match_condition, constraint } => {
            keeps_left = true;
            split(match_condition, &mut conditions);
            match constraint {
                JoinConstraint::On(condition) => split(condition, &mut conditions),
                JoinConstraint::None => {}
                _ => return plan_err!("ASOF JOIN takes its keys with ON"),
            }
        }
        other => return plan_err!("ASOF JOIN with {other:?}"),
    }
    let both: DFSchemaRef = Arc::new(left.schema().join(right.schema())?);
    let (mut on, mut times) = (Vec::new(), None);
    for condition in conditions {
        // Snowflake's join keeps the rows that find nothing.
        let (condition, snowflake) = match match_condition(&condition) {
            Some(inner) => (inner, true),
            None => (condition, false),
        };
        keeps_left |= snowflake;
        let text = condition.to_string();
        let Expr::BinaryExpr(BinaryExpr { left: one, op, right: other }) =
            context.sql_to_expr(condition, &both)?
        else {
            return misfit(&text);
        };
        let (one, other, op) = if from(&one, left.schema()) && from(&other, right.schema()) {
            (*one, *other, op)
        } else if from(&other, left.schema())
            && from(&one, right.schema())
            && let Some(op) = op.swap()
        {
            (*other, *one, op)
        } else {
            return misfit(&text);
        };
        match op {
            Operator::Eq => on.push((one, other)),
            Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq if times.is_none() => {
                times = Some((one, op, other));
            }
            Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq => {
                return plan_err!("ASOF JOIN takes one comparison of times; a second one is {text}");
            }
            _ => return misfit(&text),
        }
    }
    let Some((left_time, operator, right_time)) = times else {
        return plan_err!("ASOF JOIN needs a comparison of times, such as a.ts >= b.ts");
    };
    let node = AsofJoin::try_new(left, right, on, (left_time, operator, right_time), keeps_left)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

fn misfit<T>(condition: &str) -> Result<T> {
    plan_err!(
        "the condition {condition} does not fit an ASOF JOIN: it takes equalities and one comparison (>=, >, <=, <) between \
         the two sides; put other conditions into a subquery or into WHERE"
    )
}

/// Whether an expression reads columns, all of them from this side.
fn from(expression: &Expr, side: &DFSchema) -> bool {
    let columns = expression.column_refs();
    !columns.is_empty() && columns.iter().all(|column| side.has_column(column))
}

fn split(condition: ast::Expr, conditions: &mut Vec<ast::Expr>) {
    match condition {
        ast::Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            split(*left, conditions);
            split(*right, conditions);
        }
        ast::Expr::Nested(inner) => split(*inner, conditions),
        other => conditions.push(other),
    }
}

fn match_condition(condition: &ast::Expr) -> Option<ast::Expr> {
    let ast::Expr::Function(function) = condition else { return None };
    let FunctionArguments::List(arguments) = &function.args else { return None };
    match arguments.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))]
            if function.name.to_string().eq_ignore_ascii_case(MATCH_CONDITION) =>
        {
            Some(inner.clone())
        }
        _ => None,
    }
}
