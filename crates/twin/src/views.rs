//! Views of a model: questions over the twins that have a name, `twin.<model>_<view>`.
//!
//! A property says what holds of one instance at one instant. A figure over a time (the OEE of a machine, the punctuality of a
//! line) is a question over the history, and a view gives it a name, columns with units and a place beside the twin. It is
//! planned anew for each query, so that it sees the newest rows, and it is asked in the tense of the session: the tables of the
//! schema `twin` in it are those of that tense.

use std::sync::Arc;

use datafusion::datasource::{TableProvider, ViewTable};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result, TomlFile, is_word};
use twinlake_query::SessionSettings;

use crate::Twins;
use crate::model::TwinModel;
use crate::twins::TWIN_SCHEMA;
use crate::view::back;

/// How many views may stand on one another.
const DEPTH: usize = 8;

tokio::task_local! {
    static PLANNED: usize;
}

/// A question over the twins with a name.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelView {
    /// What it answers, in a sentence.
    pub description: String,
    /// The query.
    pub sql: String,
    /// What its columns mean.
    #[serde(default)]
    pub columns: IndexMap<String, ViewColumn>,
}

/// One column of a view.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewColumn {
    /// What it means.
    pub description: String,
    /// The unit of its values; empty for a pure number or a text.
    #[serde(default)]
    pub unit: String,
}

impl TwinModel {
    /// Checks the names of the views; their SQL is checked when they are asked.
    pub(crate) fn check_views(&self, source: &TomlFile) -> Result<()> {
        for (name, view) in &self.views {
            let header = format!("views.{name}");
            if !is_word(name) || name == "history" {
                return Err(source
                    .mistake(format!("'{name}' cannot be the name of a view"), &header)
                    .with_help("a lower-case word other than history"));
            }
            if view.sql.trim().is_empty() {
                return Err(source.mistake(format!("view '{name}' asks nothing"), &header));
            }
        }
        Ok(())
    }
}

/// The name of a view's table in the schema `twin`.
pub(crate) fn table_of(model: &TwinModel, view: &str) -> String {
    format!("{}_{view}", model.name)
}

impl Twins {
    /// The model and the view behind a table's name.
    pub(crate) fn view_of(&self, table: &str) -> Option<(Arc<TwinModel>, ModelView)> {
        self.models().into_iter().find_map(|model| {
            let view = table.strip_prefix(model.name.as_str())?.strip_prefix('_')?;
            let view = model.views.get(view)?.clone();
            Some((model, view))
        })
    }

    /// The names of all views' tables.
    pub(crate) fn view_names(&self) -> Vec<String> {
        let models = self.models();
        let names =
            models.iter().flat_map(|model| model.views.keys().map(|view| table_of(model, view.as_str())));
        names.collect()
    }

    /// Checks the SQL of all views: it asks tables of the schema `twin` and nothing else, which are there from the start.
    pub async fn check_views(&self) -> Result<()> {
        let state = self.engine()?.session(SessionSettings::default())?.context().state();
        for model in self.models() {
            for (name, view) in &model.views {
                let place = format!("view '{name}' of twin model '{}'", model.name);
                let asked = state
                    .sql_to_statement(&view.sql, &state.config_options().sql_parser.dialect)
                    .and_then(|statement| state.resolve_table_references(&statement))
                    .map_err(|error| Error::config(format!("{place}: {}", error.strip_backtrace())))?;
                if let Some(other) = asked.iter().find(|table| table.schema() != Some(TWIN_SCHEMA)) {
                    return Err(Error::config(format!("{place} asks {other}")).with_help(
                        "a view asks tables of the schema twin; what it needs of others is a property",
                    ));
                }
                let table = self.view_table(&table_of(&model, name), view).await?;
                if let Some(known) =
                    view.columns.keys().find(|column| table.schema().index_of(column).is_err())
                {
                    return Err(Error::config(format!("{place} has no column '{known}'")));
                }
            }
        }
        Ok(())
    }

    /// A view as a table, planned over what is there now.
    pub(crate) async fn view_table(&self, table: &str, view: &ModelView) -> Result<Arc<dyn TableProvider>> {
        let depth = PLANNED.try_with(|depth| *depth).unwrap_or(0) + 1;
        if depth > DEPTH {
            let message = format!("view twin.{table} stands on itself, or on more than {DEPTH} others");
            return Err(Error::config(message));
        }
        let state = self.engine()?.session(SessionSettings::default())?.context().state();
        let plan = Box::pin(PLANNED.scope(depth, state.create_logical_plan(&view.sql))).await;
        let plan = plan.map_err(|error| match back(error) {
            Error::Config(detail) => Error::config(format!("view twin.{table}: {detail}")),
            other => other,
        })?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.sql.clone()))))
    }
}
