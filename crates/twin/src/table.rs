//! `twin.<model>` and `twin.<model>_history` as tables: the state in the session's tense, or in one that is given.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use twinlake_contracts::Error;
use twinlake_query::Tense;

use crate::Twins;
use crate::model::TwinModel;
use crate::state::{StatePlanner, named};
use crate::view::through;

/// A twin as a table. The plan behind it is made anew for each query, over the newest version of the lake.
pub(crate) struct TwinTable {
    pub(crate) twins: Arc<Twins>,
    pub(crate) model: Arc<TwinModel>,
    pub(crate) schema: SchemaRef,
    pub(crate) history: bool,
    /// The tense; `None`: the session's settings.
    pub(crate) tense: Option<Tense>,
}

impl TwinTable {
    pub(crate) fn new(
        twins: &Arc<Twins>,
        model: &Arc<TwinModel>,
        history: bool,
        tense: Option<Tense>,
    ) -> Self {
        Self { twins: twins.clone(), model: model.clone(), schema: model.schema(), history, tense }
    }
}

impl std::fmt::Debug for TwinTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwinTable")
            .field("model", &self.model.name)
            .field("history", &self.history)
            .field("tense", &self.tense)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for TwinTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Every filter becomes part of the plan below, whose optimiser takes it as far down as it is right.
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let tense = match &self.tense {
            Some(tense) => tense.clone(),
            None => Tense::from(session.config_options()).map_err(through)?,
        };
        let view = self.twins.view(&tense).map_err(through)?;
        let names: Vec<&str> = match projection {
            Some(columns) => {
                columns.iter().map(|column| self.schema.field(*column).name().as_str()).collect()
            }
            None => self.schema.fields().iter().map(|field| field.name().as_str()).collect(),
        };
        let mut wanted: HashSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for filter in filters {
            wanted.extend(filter.column_refs().into_iter().map(|column| column.name.clone()));
        }
        let planner = StatePlanner { twins: &self.twins, session, view: &view, stand_in: false };
        let plan = planner.plan(&self.model, self.history, &wanted).await?;
        let mut plan = LogicalPlanBuilder::from(plan);
        for filter in filters {
            plan = plan.filter(filter.clone())?;
        }
        let mut plan = plan.project(names.into_iter().map(named))?;
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
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
