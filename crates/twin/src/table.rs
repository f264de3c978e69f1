//! `twin.<model>` and `twin.<model>_history` as tables: the state in the session's tense, or in one that is given.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use twinlake_query::Tense;

use crate::Twins;
use crate::asked::Asked;
use crate::model::TwinModel;
use crate::state::StatePlanner;
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
        let asked = Asked::new(&self.schema, projection, filters, limit);
        let planner = StatePlanner { twins: &self.twins, session, view: &view, stand_in: false };
        let plan = planner.plan(&self.model, self.history, &asked.columns()).await?;
        asked.of(LogicalPlanBuilder::from(plan), session).await
    }
}
