//! What the session needs to know to plan time: nodes of the plan into operators, and rules.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::asof;
use super::buckets;
use super::gapfill;
use super::overlap;

/// Adds to a session what the SQL of this module needs beside its functions: relations, rules and operators.
pub fn configure(builder: SessionStateBuilder) -> SessionStateBuilder {
    builder
        .with_query_planner(Arc::new(Planner))
        .with_relation_planners(vec![Arc::new(asof::relation::AsofRelations)])
        .with_analyzer_rule(Arc::new(gapfill::rewrite::FillGaps))
        .with_optimizer_rule(Arc::new(asof::node::PushBelowAsof))
        .with_physical_optimizer_rule(Arc::new(overlap::rule::JoinOverlaps))
        .with_physical_optimizer_rule(Arc::new(buckets::rule::AggregateByBuckets))
}

/// DataFusion's planner, with the operators of this crate.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Operators)])
            .create_physical_plan(plan, session)
            .await
    }
}

struct Operators;

#[async_trait]
impl ExtensionPlanner for Operators {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let (Some(join), [left, right]) = (node.as_any().downcast_ref::<asof::node::AsofJoin>(), inputs) {
            let plan = join.physical(left, right, |expression, schema| {
                planner.create_physical_expr(expression, schema, session, context)
            })?;
            return Ok(Some(plan));
        }
        if let (Some(node), [input]) = (node.as_any().downcast_ref::<gapfill::node::GapFill>(), inputs) {
            let plan = node.physical(input, |expression, schema| {
                planner.create_physical_expr(expression, schema, session, context)
            })?;
            return Ok(Some(plan));
        }
        Ok(None)
    }
}
