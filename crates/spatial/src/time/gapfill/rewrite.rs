//! Finds `time_bucket_gapfill` in GROUP BY and puts the node that fills gaps over the aggregate.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, plan_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Expr, Extension, LogicalPlan, Operator, Projection, ScalarUDF,
};
use datafusion::optimizer::AnalyzerRule;

use super::markers::Marker;
use super::node::{Bound, Fill, GapFill};

/// The rule. It runs after types are settled and before filters move.
#[derive(Debug)]
pub(crate) struct FillGaps;

impl AnalyzerRule for FillGaps {
    fn name(&self) -> &'static str {
        "fill_gaps"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut changed = false;
        plan.transform_up_with_subqueries(|node| match rewrite(&node)? {
            Some(filled) => {
                changed = true;
                Ok(Transformed::yes(filled))
            }
            // Above, an aggregate's column may now be null.
            None if changed => Ok(Transformed::yes(node.recompute_schema()?)),
            None => Ok(Transformed::no(node)),
        })
        .map(|transformed| transformed.data)
    }
}

/// The projection over a gap filling aggregate, with the gaps filled.
fn rewrite(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Projection(projection) = plan else { return Ok(None) };
    let mut windows = Vec::new();
    let mut below = projection.input.as_ref();
    while let LogicalPlan::Window(window) = below {
        windows.push(window);
        below = window.input.as_ref();
    }
    let mut filters = Vec::new();
    while let LogicalPlan::Filter(filter) = below {
        filters.push(filter);
        below = filter.input.as_ref();
    }
    let LogicalPlan::Aggregate(aggregate) = below else { return Ok(None) };
    let Some((place, arguments)) = bucket(aggregate)? else { return Ok(None) };

    let mut fills: Vec<Fill> = Vec::new();
    let mut collect = |expressions: &[Expr]| {
        expressions.iter().try_for_each(|expression| {
            expression
                .apply(|part| {
                    if let Some((kind @ (Marker::Interpolate | Marker::Locf), [value])) = Marker::of(part) {
                        let fill = Fill { kind, value: value.clone(), name: part.schema_name().to_string() };
                        if !fills.contains(&fill) {
                            fills.push(fill);
                        }
                    }
                    Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
                })
                .map(|_| ())
        })
    };
    collect(&projection.expr)?;
    windows.iter().try_for_each(|window| collect(&window.window_expr))?;

    let (bucketed, time_name) = grouped_by_bucket(aggregate, place, arguments)?;
    let mut input = bucketed;
    for filter in filters.iter().rev() {
        input = LogicalPlan::Filter(datafusion::logical_expr::Filter::try_new(
            filter.predicate.clone(),
            Arc::new(input),
        )?);
    }
    let (mut lower, mut upper) = bounds(&aggregate.input, &arguments[1]);
    if let [_, _, start, finish] = arguments {
        if !is_null(start) {
            lower = vec![Bound { value: start.clone(), shift_us: 0 }];
        }
        if !is_null(finish) {
            upper = vec![Bound { value: finish.clone(), shift_us: 0 }];
        }
    }
    let keys = (0..aggregate.group_expr.len()).filter(|key| *key != place);
    let keys: Vec<Column> = keys.map(|key| Column::from(aggregate.schema.qualified_field(key))).collect();
    let node = GapFill::try_new(input, time_name, keys, arguments[0].clone(), lower, upper, fills)?;
    let mut filled = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    for window in windows.into_iter().rev() {
        let expressions = window.window_expr.iter().cloned().map(read_filled).collect::<Result<Vec<_>>>()?;
        filled =
            LogicalPlan::Window(datafusion::logical_expr::Window::try_new(expressions, Arc::new(filled))?);
    }
    let expressions = projection.expr.iter().cloned().map(read_filled).collect::<Result<Vec<_>>>()?;
    Ok(Some(LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(filled))?)))
}

fn is_null(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(cast) => is_null(&cast.expr),
        _ => false,
    }
}

/// Which group expression is the bucket, and its arguments.
fn bucket(aggregate: &Aggregate) -> Result<Option<(usize, &[Expr])>> {
    let mut found = None;
    for (place, expression) in aggregate.group_expr.iter().enumerate() {
        if let Some((Marker::Bucket, arguments)) = Marker::of(without_casts(expression)) {
            if found.is_some() {
                return plan_err!("GROUP BY takes one time_bucket_gapfill");
            }
            found = Some((place, arguments));
        } else if expression.exists(|part| Ok(matches!(Marker::of(part), Some((Marker::Bucket, _)))))? {
            return plan_err!(
                "time_bucket_gapfill stands alone in GROUP BY, not in {expression}; compute with it in an outer query"
            );
        }
    }
    Ok(found)
}

/// The aggregate by plain buckets, under the same names.
fn grouped_by_bucket(
    aggregate: &Aggregate,
    place: usize,
    arguments: &[Expr],
) -> Result<(LogicalPlan, Column)> {
    let name = aggregate.schema.field(place).name().clone();
    let function: Arc<ScalarUDF> = Arc::new(crate::functions::time_bucket::DEFINITION.udf());
    let mut groups = aggregate.group_expr.clone();
    groups[place] = function.call(arguments[..2].to_vec()).alias(&name);
    let plan = Aggregate::try_new(Arc::clone(&aggregate.input), groups, aggregate.aggr_expr.clone())?;
    Ok((LogicalPlan::Aggregate(plan), Column::new_unqualified(name)))
}

/// `locf(…)` and `interpolate(…)` become columns of the node below.
fn read_filled(expression: Expr) -> Result<Expr> {
    let saved = NamePreserver::new_for_projection().save(&expression);
    let read = expression.transform_down(|part| {
        Ok(match Marker::of(&part) {
            Some((Marker::Interpolate | Marker::Locf, [_])) => {
                Transformed::yes(Expr::Column(Column::new_unqualified(part.schema_name().to_string())))
            }
            _ => Transformed::no(part),
        })
    })?;
    Ok(saved.restore(read.data))
}

/// What the filters right below the aggregate say of the time: bounds from below (inclusive) and from above
/// (exclusive).
fn bounds(input: &LogicalPlan, time: &Expr) -> (Vec<Bound>, Vec<Bound>) {
    let (mut lower, mut upper) = (Vec::new(), Vec::new());
    let time = without_casts(time);
    let mut below = input;
    while let LogicalPlan::Filter(filter) = below {
        for part in split_conjunction(&filter.predicate) {
            let (value, operator) = match part {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if without_casts(left) == time => {
                    (right, *op)
                }
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if without_casts(right) == time => {
                    let Some(op) = op.swap() else { continue };
                    (left, op)
                }
                Expr::Between(Between { expr, negated: false, low, high }) if without_casts(expr) == time => {
                    if is_constant(low) && is_constant(high) {
                        lower.push(Bound { value: low.as_ref().clone(), shift_us: 0 });
                        upper.push(Bound { value: high.as_ref().clone(), shift_us: 1 });
                    }
                    continue;
                }
                _ => continue,
            };
            if !is_constant(value) {
                continue;
            }
            let bound = |shift_us| Bound { value: value.as_ref().clone(), shift_us };
            match operator {
                Operator::Gt => lower.push(bound(1)),
                Operator::GtEq => lower.push(bound(0)),
                Operator::Lt => upper.push(bound(0)),
                Operator::LtEq => upper.push(bound(1)),
                Operator::Eq => {
                    lower.push(bound(0));
                    upper.push(bound(1));
                }
                _ => {}
            }
        }
        below = filter.input.as_ref();
    }
    (lower, upper)
}

/// Whether an expression is the same for all rows.
fn is_constant(expression: &Expr) -> bool {
    let per_row = expression.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..)
        ))
    });
    expression.column_refs().is_empty() && matches!(per_row, Ok(false)) && !expression.is_volatile()
}

fn without_casts(expression: &Expr) -> &Expr {
    match expression {
        Expr::Cast(cast) => without_casts(&cast.expr),
        Expr::Alias(alias) => without_casts(&alias.expr),
        other => other,
    }
}
