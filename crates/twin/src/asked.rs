//! What a query asks of a table whose rows are a plan of their own: which columns, under which conditions, how many rows.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use twinlake_contracts::Error;

use crate::state::named;
use crate::view::through;

/// The arguments of [`TableProvider::scan`](datafusion::datasource::TableProvider::scan). Conditions become a part of the plan,
/// whose optimiser takes them as far down as is right.
pub(crate) struct Asked<'a> {
    names: Vec<&'a str>,
    filters: &'a [Expr],
    limit: Option<usize>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(
        schema: &'a Schema,
        projection: Option<&Vec<usize>>,
        filters: &'a [Expr],
        limit: Option<usize>,
    ) -> Self {
        let name = |column: usize| schema.field(column).name().as_str();
        let names = match projection {
            Some(columns) => columns.iter().map(|column| name(*column)).collect(),
            None => (0..schema.fields().len()).map(name).collect(),
        };
        Self { names, filters, limit }
    }

    /// The columns that the plan must give: those that are shown and those of conditions.
    pub(crate) fn columns(&self) -> HashSet<String> {
        let mut columns: HashSet<String> = self.names.iter().map(|name| (*name).to_owned()).collect();
        for filter in self.filters {
            columns.extend(filter.column_refs().into_iter().map(|column| column.name.clone()));
        }
        columns
    }

    /// What is asked of the rows of `plan`.
    pub(crate) async fn of(
        &self,
        mut plan: LogicalPlanBuilder,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        for filter in self.filters {
            plan = plan.filter(filter.clone())?;
        }
        plan = plan.project(self.names.iter().copied().map(named))?;
        if self.limit.is_some() {
            plan = plan.limit(0, self.limit)?;
        }
        plan_unoptimised(session, &plan.build()?).await
    }
}

/// The physical plan of `plan` before physical optimisation: that is done once, for the whole query around it. Done
/// here already, it would fix the joins' sides and filters before the query around them is seen.
pub(crate) async fn plan_unoptimised(
    session: &dyn Session,
    plan: &LogicalPlan,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
        return Err(through(Error::internal("a session of an unknown kind reads a twin")));
    };
    let unoptimised = SessionStateBuilder::new_from_existing(state.clone())
        .with_physical_optimizer_rules(Vec::new())
        .build();
    unoptimised.create_physical_plan(plan).await
}
