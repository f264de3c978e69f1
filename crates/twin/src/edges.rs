//! `twin.relations`: the edges between all instances, as one table, in the session's tense or in one that is given.
//!
//! An edge is there when both its ends are: in a scenario, at an instant, as it was known. Keys are texts here, so that instances
//! of models with numbers and with texts as keys are in one column; they are printed as SQL prints them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, ScalarValue, TableReference};
use datafusion::datasource::{TableProvider, TableType, provider_as_source};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, cast, ident, lit,
};
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion::physical_plan::ExecutionPlan;
use twinlake_contracts::Error;
use twinlake_query::Tense;

use crate::Twins;
use crate::asked::Asked;
use crate::model::TwinModel;
use crate::relation::Relation;
use crate::state::{empty, named, null};
use crate::table::TwinTable;
use crate::view::through;

/// The columns of `twin.relations`.
pub(crate) fn edge_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("relation"),
        text("type"),
        text("from_model"),
        text("from_id"),
        text("to_model"),
        text("to_id"),
        Field::new("weight", DataType::Float64, true),
    ]))
}

/// All edges in one tense.
pub(crate) struct EdgeTable {
    twins: Arc<Twins>,
    schema: SchemaRef,
    tense: Option<Tense>,
}

impl EdgeTable {
    /// The edges; without a tense, in that of the session.
    pub(crate) fn new(twins: &Arc<Twins>, tense: Option<Tense>) -> Self {
        Self { twins: twins.clone(), schema: edge_schema(), tense }
    }

    /// The edges of one relation.
    fn edges(
        &self,
        state: &SessionState,
        tense: &Tense,
        model: &Arc<TwinModel>,
        name: &str,
        relation: &Relation,
    ) -> Result<LogicalPlan> {
        let twin = |model: &Arc<TwinModel>| -> Result<LogicalPlanBuilder> {
            let table = TwinTable::new(&self.twins, model, false, Some(tense.clone()));
            LogicalPlanBuilder::scan(
                TableReference::partial("twin", model.name.clone()),
                provider_as_source(Arc::new(table)),
                None,
            )
        };
        let mut own = twin(model)?;
        let expression = |sql: &str, plan: &LogicalPlanBuilder| {
            state.create_logical_expr(sql, plan.schema()).map_err(|error| {
                let place = format!("relation '{name}' of twin model '{}'", model.name);
                through(Error::config(format!(
                    "{place}: '{sql}' is not possible: {}",
                    error.strip_backtrace()
                )))
            })
        };
        if let Some(condition) = &relation.condition {
            let holds = expression(condition, &own)?;
            own = own.filter(holds)?;
        }
        let weight = match (relation.nearest(), &relation.weight) {
            (Some(nearest), _) => named(nearest.distance_column),
            (None, Some(sql)) => cast(expression(sql, &own)?, DataType::Float64),
            (None, None) => null(&DataType::Float64)?,
        };
        let value = match (relation.nearest(), &relation.property) {
            (Some(nearest), _) => nearest.key_column,
            (None, Some(property)) => property,
            (None, None) => return empty(&self.schema),
        };
        let own = own.filter(named(value).is_not_null())?.project([
            cast(named(&model.key), DataType::Utf8).alias("from_id"),
            named(value).alias("__value"),
            weight.alias("weight"),
        ])?;
        let other = self.twins.model(&relation.twin).map_err(through)?;
        let at = relation.other.as_deref().unwrap_or(&other.key);
        let far = twin(&other)?
            .project([cast(named(&other.key), DataType::Utf8).alias("to_id"), named(at).alias("__other")])?
            .build()?;
        let on = (vec![Column::from_name("__value")], vec![Column::from_name("__other")]);
        own.join(far, JoinType::Inner, on, None)?
            .project([
                lit(name).alias("relation"),
                lit(relation.kind.name()).alias("type"),
                lit(model.name.as_str()).alias("from_model"),
                ident("from_id"),
                lit(other.name.as_str()).alias("to_model"),
                ident("to_id"),
                ident("weight"),
            ])?
            .build()
    }
}

impl std::fmt::Debug for EdgeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeTable").field("tense", &self.tense).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for EdgeTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // A filter on the relation leaves out what it does not ask for: it becomes part of the plan below.
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
            return Err(through(Error::internal("a session of an unknown kind reads relations")));
        };
        let tense = match &self.tense {
            Some(tense) => tense.clone(),
            None => Tense::from(session.config_options()).map_err(through)?,
        };
        // An unknown scenario fails here, whatever relations there are.
        self.twins.view(&tense).map_err(through)?;
        let mut all: Option<LogicalPlanBuilder> = None;
        for model in self.twins.models() {
            for (name, relation) in &model.relations {
                if !may_hold(filters, &model.name, name, relation)? {
                    continue;
                }
                let edges = self.edges(state, &tense, &model, name, relation)?;
                all = Some(match all {
                    None => LogicalPlanBuilder::from(edges),
                    Some(others) => others.union(edges)?,
                });
            }
        }
        let plan = match all {
            Some(all) => all,
            None => LogicalPlanBuilder::from(empty(&self.schema)?),
        };
        Asked::new(&self.schema, projection, filters, limit).of(plan, session).await
    }
}

/// Whether an edge of that relation may pass the filters. The optimiser would find out too, but only after the twins at both
/// ends have been planned.
fn may_hold(filters: &[Expr], model: &str, name: &str, relation: &Relation) -> Result<bool> {
    let known = [
        ("relation", name),
        ("type", relation.kind.name()),
        ("from_model", model),
        ("to_model", relation.twin.as_str()),
    ];
    let schema = Arc::new(DFSchema::try_from(edge_schema().as_ref().clone())?);
    let context = SimplifyContext::builder().with_schema(schema).build();
    let simplifier = ExprSimplifier::new(context);
    for filter in filters {
        let told = filter.clone().transform(|part| match &part {
            Expr::Column(column) => match known.iter().find(|(known, _)| *known == column.name) {
                Some((_, value)) => Ok(Transformed::yes(lit(*value))),
                None => Ok(Transformed::no(part)),
            },
            _ => Ok(Transformed::no(part)),
        })?;
        if let Expr::Literal(ScalarValue::Boolean(Some(false) | None), _) = simplifier.simplify(told.data)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names and types of all relations, for suggestions.
pub(crate) fn relation_names(twins: &Twins) -> HashSet<String> {
    let models = twins.models();
    let relations = models.iter().flat_map(|model| &model.relations);
    relations.flat_map(|(name, relation)| [name.clone(), relation.kind.name().to_owned()]).collect()
}
