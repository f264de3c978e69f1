//! The logical plan of an `ASOF JOIN`, and which filters go below it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, internal_err, plan_err};
use datafusion::logical_expr::logical_plan::builder::build_join_schema;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Filter, JoinType, LogicalPlan, Operator, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use super::exec::{AsofJoinExec, Match};
use super::streamed::AsofStreamedExec;
use crate::time::order::order_type;

/// For each row of the left side the one row of the right side with equal keys whose time comes nearest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AsofJoin {
    pub(super) left: Arc<LogicalPlan>,
    pub(super) right: Arc<LogicalPlan>,
    /// Pairs of expressions over the left and the right side that must be equal.
    pub(super) on: Vec<(Expr, Expr)>,
    pub(super) left_time: Expr,
    /// How the left time compares with the right one: `>=` and `>` look for the latest, `<=` and `<` for the earliest.
    pub(super) operator: Operator,
    pub(super) right_time: Expr,
    /// Whether left rows that find nothing stay, with nulls.
    pub(super) keeps_left: bool,
    schema: DFSchemaRef,
}

impl AsofJoin {
    /// Casts both sides of each comparison to their common type.
    pub(super) fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        on: Vec<(Expr, Expr)>,
        (left_time, operator, right_time): (Expr, Operator, Expr),
        keeps_left: bool,
    ) -> Result<Self> {
        let common = |one: Expr, other: Expr, is_time: bool| -> Result<(Expr, Expr)> {
            let types = (one.get_type(left.schema())?, other.get_type(right.schema())?);
            let common = comparison_coercion(&types.0, &types.1)
                .and_then(|common| if is_time { order_type(&common) } else { Some(common) });
            let Some(common) = common else {
                return plan_err!("ASOF JOIN cannot compare {one} ({}) with {other} ({})", types.0, types.1);
            };
            Ok((one.cast_to(&common, left.schema())?, other.cast_to(&common, right.schema())?))
        };
        let on = on.into_iter().map(|(one, other)| common(one, other, false)).collect::<Result<Vec<_>>>()?;
        let (left_time, right_time) = common(left_time, right_time, true)?;
        Self::of(Arc::new(left), Arc::new(right), on, (left_time, operator, right_time), keeps_left)
    }

    fn of(
        left: Arc<LogicalPlan>,
        right: Arc<LogicalPlan>,
        on: Vec<(Expr, Expr)>,
        (left_time, operator, right_time): (Expr, Operator, Expr),
        keeps_left: bool,
    ) -> Result<Self> {
        let kind = if keeps_left { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(Self { left, right, on, left_time, operator, right_time, keeps_left, schema })
    }

    /// The operator that computes it.
    pub(crate) fn physical(
        &self,
        left: &Arc<dyn ExecutionPlan>,
        right: &Arc<dyn ExecutionPlan>,
        expression: impl Fn(&Expr, &DFSchema) -> Result<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let pair = |(one, other): &(Expr, Expr)| {
            Ok((expression(one, self.left.schema())?, expression(other, self.right.schema())?))
        };
        let rule = Match {
            on: self.on.iter().map(pair).collect::<Result<_>>()?,
            left_time: expression(&self.left_time, self.left.schema())?,
            operator: self.operator,
            right_time: expression(&self.right_time, self.right.schema())?,
            keeps_left: self.keeps_left,
        };
        let schema = Arc::clone(self.schema.inner());
        // The smaller side is the one to hold in memory; without numbers that is taken to be the right one.
        if let (Some(left_rows), Some(right_rows)) = (rows(left), rows(right))
            && left_rows.saturating_mul(2) <= right_rows
        {
            let (left, right) = (Arc::clone(left), Arc::clone(right));
            return Ok(Arc::new(AsofStreamedExec::new(left, right, Arc::new(rule), schema)));
        }
        Ok(Arc::new(AsofJoinExec::new(Arc::clone(left), Arc::clone(right), rule, schema)))
    }

    fn times(&self) -> (Expr, Operator, Expr) {
        (self.left_time.clone(), self.operator, self.right_time.clone())
    }
}

/// How many rows a plan gives, as far as that is known.
fn rows(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let context = StatisticsContext::new();
    context.compute(plan.as_ref(), &StatisticsArgs::new()).ok()?.num_rows.get_value().copied()
}

impl PartialOrd for AsofJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.left.partial_cmp(&other.left)
    }
}

impl UserDefinedLogicalNodeCore for AsofJoin {
    fn name(&self) -> &'static str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.on.iter().flat_map(|(left, right)| [left.clone(), right.clone()]);
        keys.chain([self.left_time.clone(), self.right_time.clone()]).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsofJoin: {}", if self.keeps_left { "Left" } else { "Inner" })?;
        for (left, right) in &self.on {
            write!(f, " {left} = {right},")?;
        }
        write!(f, " {} {} {}", self.left_time, self.operator, self.right_time)
    }

    fn with_exprs_and_inputs(&self, mut expressions: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Ok([left, right]), Some(right_time), Some(left_time)) =
            (<[LogicalPlan; 2]>::try_from(inputs), expressions.pop(), expressions.pop())
        else {
            return internal_err!("an ASOF JOIN has two inputs and two times");
        };
        let mut on = Vec::with_capacity(self.on.len());
        let mut rest = expressions.into_iter();
        while let (Some(left), Some(right)) = (rest.next(), rest.next()) {
            on.push((left, right));
        }
        let times = (left_time, self.operator, right_time);
        Self::of(Arc::new(left), Arc::new(right), on, times, self.keeps_left)
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let (left, right): (Vec<usize>, Vec<usize>) = output.iter().partition(|column| **column < width);
        Some(vec![left, right.into_iter().map(|column| column - width).collect()])
    }
}

/// A filter on columns of the left side goes below the join; one on its keys goes below both sides. A filter on the
/// right side stays above: it must not decide which row is the nearest.
#[derive(Debug)]
pub(crate) struct PushBelowAsof;

impl OptimizerRule for PushBelowAsof {
    fn name(&self) -> &'static str {
        "push_below_asof"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Extension(extension) = filter.input.as_ref() else {
            return Ok(Transformed::no(plan));
        };
        let Some(join) = extension.node.as_any().downcast_ref::<AsofJoin>() else {
            return Ok(Transformed::no(plan));
        };
        let (below, above): (Vec<&Expr>, Vec<&Expr>) =
            split_conjunction(&filter.predicate).into_iter().partition(|part| {
                let columns = part.column_refs();
                !part.is_volatile() && columns.iter().all(|column| join.left.schema().has_column(column))
            });
        let Some(predicate) = conjunction(below.iter().map(|part| (*part).clone())) else {
            return Ok(Transformed::no(plan));
        };
        let left = LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(&join.left))?);
        let keys: HashMap<&Column, &Column> = join
            .on
            .iter()
            .filter_map(|(left, right)| Some((left.try_as_col()?, right.try_as_col()?)))
            .collect();
        let of_keys = below.into_iter().filter(|part| {
            let columns = part.column_refs();
            !columns.is_empty() && columns.iter().all(|column| keys.contains_key(column))
        });
        let of_keys: Vec<Expr> = of_keys
            .map(|part| datafusion::logical_expr::expr_rewriter::replace_col(part.clone(), &keys))
            .collect::<Result<_>>()?;
        let right = match conjunction(of_keys) {
            Some(predicate) => {
                Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(&join.right))?))
            }
            None => Arc::clone(&join.right),
        };
        let join = AsofJoin::of(Arc::new(left), right, join.on.clone(), join.times(), join.keeps_left)?;
        let mut plan = LogicalPlan::Extension(Extension { node: Arc::new(join) });
        if let Some(predicate) = conjunction(above.into_iter().cloned()) {
            plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?);
        }
        Ok(Transformed::yes(plan))
    }
}
