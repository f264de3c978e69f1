//! `FROM a CROSS JOIN LATERAL (SELECT … FROM b ORDER BY st_distance(a.geom, b.geom) LIMIT k)` as a search for the nearest.
//!
//! DataFusion cannot separate a subquery that sorts by outer columns. Where the sort is by the distance of one geometry
//! of each side, and everything else below it is about `b` alone, this rule makes a join of it, on a condition that only
//! such joins have: as `ORDER BY … LIMIT` does, it fills up with rows whose distance is null when there are fewer than
//! `k` others. What it computes of the rows comes after the join. Of equal distances, those of earlier rows of `b` are
//! taken; SQL leaves that open.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, JoinType, NullEquality, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Expr, Join, JoinConstraint, Limit, LogicalPlan, LogicalPlanBuilder, Projection, Sort, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::st_knn;

/// Rewrites lateral searches for the nearest; others that sort by outer columns are refused with the way out.
#[derive(Debug)]
pub(crate) struct LateralNearest;

impl AnalyzerRule for LateralNearest {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
            let Some(lateral) = Lateral::of(join)? else { return Ok(Transformed::no(plan)) };
            lateral.rewrite(join).map(Transformed::yes)
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "lateral_nearest"
    }
}

/// Columns of the rows that are searched, under names that nothing else has.
const NEAR: &str = "__near_";
/// True on every row that was found.
const FOUND: &str = "__near_found";

/// What a lateral subquery comes to.
struct Lateral<'a> {
    /// What it selects, over `base`, with outer references.
    output: Vec<Expr>,
    /// The geometry of the outer side, with outer references, and that of `base`.
    outer: Expr,
    inner: Expr,
    sphere: bool,
    count: i64,
    base: &'a LogicalPlan,
}

const WAY_OUT: &str = "a LATERAL subquery that sorts by columns from outside of it can be planned when it is a search for the \
     nearest: ORDER BY st_distance(a, b) (or st_distancesphere) with one geometry of each side and nothing else, LIMIT with \
     a constant of at least 1, no OFFSET, no conditions on outer columns, no grouping; otherwise join ON st_knn(a, b, k) \
     and put the conditions beside it";

impl<'a> Lateral<'a> {
    /// `None` when the join has no such subquery; an error when it has one that cannot be planned.
    fn of(join: &'a Join) -> Result<Option<Self>> {
        let subquery = match join.right.as_ref() {
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            other => other,
        };
        let LogicalPlan::Subquery(subquery) = subquery else { return Ok(None) };
        let plan = subquery.subquery.as_ref();
        if !(plan.exists(|node| Ok(matches!(node, LogicalPlan::Limit(_))))? && sorts_by_outer(plan)?) {
            return Ok(None);
        }
        let plain = join.on.is_empty()
            && matches!(join.join_type, JoinType::Inner | JoinType::Left)
            && join.filter.as_ref().is_none_or(|filter| *filter == lit(true));
        match Self::parts(plan, join.left.schema()) {
            Some(lateral) if plain => Ok(Some(lateral)),
            _ => plan_err!("{WAY_OUT}"),
        }
    }

    fn parts(plan: &'a LogicalPlan, left: &DFSchemaRef) -> Option<Self> {
        let LogicalPlan::Limit(Limit { skip, fetch, input }) = plan else { return None };
        let nothing = |skip: &Expr| matches!(skip, Expr::Literal(ScalarValue::Int64(Some(0)), _));
        let Some(Expr::Literal(ScalarValue::Int64(Some(count)), _)) = fetch.as_deref() else { return None };
        if *count < 1 || !skip.as_deref().is_none_or(nothing) {
            return None;
        }
        let (top, sort) = match input.as_ref() {
            LogicalPlan::Projection(Projection { expr, input, .. }) => (Some(expr), input.as_ref()),
            other => (None, other),
        };
        let LogicalPlan::Sort(Sort { expr, input, fetch: None }) = sort else { return None };
        let [key] = expr.as_slice() else { return None };
        if !key.asc || key.nulls_first {
            return None;
        }
        let (below, base) = match input.as_ref() {
            LogicalPlan::Projection(Projection { expr, input, .. }) => (Some(expr), input.as_ref()),
            other => (None, other),
        };
        if mentions_outer(base).ok()? {
            return None;
        }
        let through = |one: &Expr| match below {
            Some(below) => over_input(one, below, input.schema()),
            None => Some(one.clone()),
        };
        let columns: Vec<Expr>;
        let chosen = if let Some(top) = top {
            top
        } else {
            columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            &columns
        };
        let output = chosen.iter().map(through).collect::<Option<Vec<_>>>()?;
        let Expr::ScalarFunction(call) = unaliased(&through(&key.expr)?).clone() else { return None };
        let sphere = match call.name() {
            "st_distance" => false,
            "st_distancesphere" => true,
            _ => return None,
        };
        let [a, b] = call.args.as_slice() else { return None };
        let (outer, inner) = match (side(a, left), side(b, left)) {
            (Some(Side::Outer), Some(Side::Inner)) => (a, b),
            (Some(Side::Inner), Some(Side::Outer)) => (b, a),
            _ => return None,
        };
        if inner.contains_outer() {
            return None;
        }
        let (outer, inner) = (outer.clone(), inner.clone());
        // What refers farther out, or holds a subquery, is more than this rule moves.
        output.iter().all(|one| side(one, left).is_some()).then_some(Self {
            output,
            outer,
            inner,
            sphere,
            count: *count,
            base,
        })
    }

    fn rewrite(self, join: &Join) -> Result<LogicalPlan> {
        let columns = self.base.schema().columns();
        let near = columns
            .iter()
            .enumerate()
            .map(|(at, column)| Expr::Column(column.clone()).alias(format!("{NEAR}{at}")));
        let near = LogicalPlanBuilder::from(self.base.clone())
            .project(near.chain(std::iter::once(lit(true).alias(FOUND))).collect::<Vec<_>>())?
            .build()?;
        let moved = |one: &Expr| {
            one.clone().transform(|part| {
                Ok(match part {
                    Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
                    Expr::Column(column) => match columns.iter().position(|known| *known == column) {
                        Some(at) => {
                            Transformed::yes(Expr::Column(Column::new_unqualified(format!("{NEAR}{at}"))))
                        }
                        None => Transformed::no(Expr::Column(column)),
                    },
                    other => Transformed::no(other),
                })
            })
        };
        let definition = if self.sphere { &st_knn::ROWS_SPHERE } else { &st_knn::ROWS };
        let arguments = vec![moved(&self.outer)?.data, moved(&self.inner)?.data, lit(self.count)];
        let condition = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(definition.udf()), arguments));
        let joined = LogicalPlan::Join(Join::try_new(
            Arc::clone(&join.left),
            Arc::new(near),
            Vec::new(),
            Some(condition),
            join.join_type,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?);
        let mut output: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
        for (one, (qualifier, field)) in self.output.iter().zip(join.right.schema().iter()) {
            let one = unaliased(&moved(one)?.data).clone();
            // A row of the outer side without any is all null.
            let one = match one {
                Expr::Column(_) => one,
                other if join.join_type == JoinType::Inner => other,
                other => when(Expr::Column(Column::new_unqualified(FOUND)), other).end()?,
            };
            output.push(one.alias_qualified(qualifier.cloned(), field.name()));
        }
        LogicalPlanBuilder::from(joined).project(output)?.build()
    }
}

#[derive(PartialEq)]
enum Side {
    Inner,
    Outer,
}

/// Which side an expression is about; with columns of both, or none of the outer one, it counts as `Inner`. `None` when it
/// refers to neither, farther out, or to a subquery.
fn side(expression: &Expr, left: &DFSchemaRef) -> Option<Side> {
    let (mut inner, mut outer, mut other) = (false, false, false);
    let walked = expression.apply(|part| {
        match part {
            Expr::Column(_) => inner = true,
            Expr::OuterReferenceColumn(_, column) if left.has_column(column) => outer = true,
            Expr::OuterReferenceColumn(..)
            | Expr::ScalarSubquery(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_) => other = true,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match (walked.is_ok() && !other, inner, outer) {
        (false, ..) => None,
        (true, false, true) => Some(Side::Outer),
        (true, ..) => Some(Side::Inner),
    }
}

/// An expression over the output of a projection as one over its input; `None` when a column is not found there.
fn over_input(expression: &Expr, projection: &[Expr], schema: &DFSchemaRef) -> Option<Expr> {
    let replaced = expression.clone().transform_down(|part| {
        let Expr::Column(column) = &part else { return Ok(Transformed::no(part)) };
        let source = projection[schema.index_of_column(column)?].clone();
        Ok(Transformed::new(unaliased(&source).clone(), true, TreeNodeRecursion::Jump))
    });
    replaced.data().ok()
}

fn unaliased(expression: &Expr) -> &Expr {
    match expression {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// Whether a sort below, outside of further subqueries, has outer references, by itself or by a column computed below.
fn sorts_by_outer(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        if let LogicalPlan::Sort(sort) = node {
            for key in &sort.expr {
                let over = match sort.input.as_ref() {
                    LogicalPlan::Projection(below) => over_input(&key.expr, &below.expr, sort.input.schema()),
                    _ => None,
                };
                found |= over.as_ref().unwrap_or(&key.expr).contains_outer();
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether any node has outer references.
fn mentions_outer(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node.contains_outer_reference();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
