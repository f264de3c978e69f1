//! Taking the condition of a join apart: conjuncts, and which side an expression belongs to.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};

pub(super) type Expr = Arc<dyn PhysicalExpr>;

/// The parts of a condition that must all hold.
pub(super) fn conjuncts(expression: &Expr) -> Vec<Expr> {
    datafusion::physical_expr::split_conjunction(expression).into_iter().map(Arc::clone).collect()
}

/// An expression over one side of a join, with the columns of that side; `None` when it needs both. A constant
/// belongs to neither.
pub(super) fn one_sided(expression: &Expr, filter: &JoinFilter) -> Option<(JoinSide, Expr)> {
    one_sided_of(expression, filter.column_indices())
}

/// The same for an expression over columns that come from where `columns` says.
pub(super) fn one_sided_of(expression: &Expr, columns: &[ColumnIndex]) -> Option<(JoinSide, Expr)> {
    let mut side = JoinSide::None;
    for column in collect_columns(expression) {
        let of = columns.get(column.index())?.side;
        if of == JoinSide::None || (side != JoinSide::None && side != of) {
            return None;
        }
        side = of;
    }
    let moved = Arc::clone(expression).transform(|part| {
        Ok(match part.downcast_ref::<Column>() {
            Some(column) => {
                let index = columns[column.index()].index;
                Transformed::yes(Arc::new(Column::new(column.name(), index)) as _)
            }
            None => Transformed::no(part),
        })
    });
    Some((side, moved.ok()?.data))
}

/// What is left of a condition, over the columns that it still needs; `None` when nothing is left.
pub(super) fn remaining(parts: &[Expr], filter: &JoinFilter) -> Result<Option<JoinFilter>> {
    let Some(all) =
        parts.iter().map(Arc::clone).reduce(|a, b| Arc::new(BinaryExpr::new(a, Operator::And, b)))
    else {
        return Ok(None);
    };
    let mut needed: Vec<usize> = collect_columns(&all).iter().map(Column::index).collect();
    needed.sort_unstable();
    let indices: Vec<ColumnIndex> =
        needed.iter().map(|column| filter.column_indices()[*column].clone()).collect();
    let fields: Vec<_> = needed.iter().map(|column| Arc::clone(&filter.schema().fields()[*column])).collect();
    let expression = all
        .transform(|part| {
            Ok(match part.downcast_ref::<Column>() {
                Some(column) => {
                    let index = needed.binary_search(&column.index()).unwrap_or_default();
                    Transformed::yes(Arc::new(Column::new(column.name(), index)) as _)
                }
                None => Transformed::no(part),
            })
        })?
        .data;
    Ok(Some(JoinFilter::new(expression, indices, Arc::new(Schema::new(fields)))))
}

/// The value of a constant expression.
pub(super) fn constant(expression: &Expr) -> Option<ScalarValue> {
    if let Some(literal) = expression.downcast_ref::<Literal>() {
        return Some(literal.value().clone());
    }
    let cast = expression.downcast_ref::<CastExpr>()?;
    constant(cast.expr())?.cast_to(cast.cast_type()).ok()
}

/// A comparison with the operator turned so that it reads from `a` to `b`.
pub(super) fn comparison(expression: &Expr) -> Option<(&Expr, Operator, &Expr)> {
    let binary = expression.downcast_ref::<BinaryExpr>()?;
    matches!(binary.op(), Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq | Operator::Eq)
        .then(|| (binary.left(), *binary.op(), binary.right()))
}

/// The operator of the comparison read the other way.
pub(super) fn turned(operator: Operator) -> Operator {
    operator.swap().unwrap_or(operator)
}
