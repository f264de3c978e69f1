//! `meta.datasets` and `meta.columns`: computed whenever they are read, from the lake and the definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session};
use datafusion::common::DataFusionError;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use serde_json::json;
use twinlake_contracts::{TableName, crs_of, is_geometry, now_us};
use twinlake_lake::datasets_schema;
use twinlake_query::CATALOG;

use crate::catalog::Catalog;
use crate::rows::Rows;
use crate::rule::{quoted, quoted_table};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Datasets,
    Columns,
}

/// One of the views.
pub(crate) struct MetaView {
    catalog: Arc<Catalog>,
    schema: SchemaRef,
    kind: Kind,
}

impl std::fmt::Debug for MetaView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaView").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn through(error: twinlake_contracts::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The columns of `meta.datasets`: those of the lake, then what the definitions say. `tags` and `keys` are JSON; `crs` is
/// that of the first geometry; `fresh` is null where nothing is promised.
fn datasets_columns() -> SchemaRef {
    let added = [
        ("owner", DataType::Utf8),
        ("tags", DataType::Utf8),
        ("keys", DataType::Utf8),
        ("crs", DataType::Utf8),
        ("freshness_s", DataType::Int64),
        ("freshness_promise_s", DataType::Int64),
        ("fresh", DataType::Boolean),
    ]
    .map(|(name, kind)| Arc::new(Field::new(name, kind, true)));
    Arc::new(Schema::new(datasets_schema().fields().iter().cloned().chain(added).collect::<Vec<_>>()))
}

/// The columns of `meta.columns`: a row a column of a table of the lake or of a twin. `key` says whether it belongs to the
/// primary key, `personal` what kind of personal data the owner says it holds.
fn columns_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("table_name", DataType::Utf8, true),
        Field::new("column_name", DataType::Utf8, true),
        Field::new("position", DataType::Int64, true),
        Field::new("type", DataType::Utf8, true),
        Field::new("nullable", DataType::Boolean, true),
        Field::new("unit", DataType::Utf8, true),
        Field::new("crs", DataType::Utf8, true),
        Field::new("description", DataType::Utf8, true),
        Field::new("key", DataType::Boolean, true),
        Field::new("personal", DataType::Utf8, true),
    ]))
}

impl MetaView {
    /// The views by name.
    pub(crate) fn all(catalog: &Arc<Catalog>) -> [(&'static str, Self); 2] {
        let view = |kind, schema| Self { catalog: Arc::clone(catalog), schema, kind };
        [
            ("datasets", view(Kind::Datasets, datasets_columns())),
            ("columns", view(Kind::Columns, columns_columns())),
        ]
    }

    /// The age of the newest row of each table, in seconds, as its definition counts it.
    async fn ages(&self, state: &SessionState) -> BTreeMap<TableName, i64> {
        let now = now_us();
        let mut ages = BTreeMap::new();
        for table in self.catalog.lake().tables() {
            let definition = self.catalog.definition(table.name());
            let column = definition.and_then(|own| own.freshness.as_ref()?.column.clone());
            let newest_us = match column {
                None => table.stats().updated_at_us,
                Some(column) => newest(state, table.name(), &column).await,
            };
            if let Some(newest_us) = newest_us {
                ages.insert(table.name().clone(), (now - newest_us).div_euclid(1_000_000));
            }
        }
        ages
    }

    async fn datasets(&self, state: &SessionState, with_ages: bool) -> Result<RecordBatch> {
        let own = self.catalog.lake().datasets().await.map_err(through)?;
        let ages = if with_ages { self.ages(state).await } else { BTreeMap::new() };
        let mut names = Vec::new();
        for row in Rows::new(std::slice::from_ref(&own)).map_err(through)? {
            let name = row.text("name").unwrap_or_default();
            names.push((TableName::parse(&name).map_err(through)?, row.text("description")));
        }
        let definitions: Vec<_> = names.iter().map(|(name, _)| self.catalog.definition(name)).collect();
        let mut columns = own.columns().to_vec();
        if let Ok(at) = own.schema().index_of("description") {
            let described = names.iter().zip(&definitions).map(|((_, stored), definition)| {
                let own = definition.map(|own| own.description.clone()).filter(|text| !text.is_empty());
                own.or_else(|| stored.clone())
            });
            columns[at] = Arc::new(described.collect::<StringArray>());
        }
        let texts = |values: Vec<Option<String>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        columns.push(texts(definitions.iter().map(|own| own.and_then(|own| some(&own.owner))).collect()));
        columns
            .push(texts(definitions.iter().map(|own| own.map(|own| json!(own.tags).to_string())).collect()));
        columns
            .push(texts(definitions.iter().map(|own| own.map(|own| json!(own.keys).to_string())).collect()));
        let crs = names.iter().map(|(name, _)| {
            let schema = self.catalog.lake().table(name)?.schema();
            schema.fields().iter().find(|field| is_geometry(field)).and_then(|field| crs_of(field))
        });
        columns.push(texts(crs.collect()));
        let age = |name: &TableName| ages.get(name).copied();
        let promise = |at: usize| definitions[at]?.freshness.as_ref()?.promise.map(|promise| promise.0);
        columns.push(Arc::new(names.iter().map(|(name, _)| age(name)).collect::<Int64Array>()));
        columns.push(Arc::new((0..names.len()).map(promise).collect::<Int64Array>()));
        let fresh = names.iter().enumerate().map(|(at, (name, _))| {
            // A table that promises and has no row is not fresh.
            promise(at).map(|promise| age(name).is_some_and(|age| age <= promise))
        });
        columns.push(Arc::new(fresh.collect::<BooleanArray>()));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    async fn columns(&self, state: &SessionState) -> Result<RecordBatch> {
        let mut rows = ColumnRows::default();
        for table in self.catalog.lake().tables() {
            let definition = self.catalog.definition(table.name());
            for (position, field) in table.schema().fields().iter().enumerate() {
                let own = definition.and_then(|own| own.columns.get(field.name()));
                let key = definition.is_some_and(|own| own.is_key(field.name()));
                let said =
                    own.map(|own| (own.unit.as_str(), own.description.as_str(), own.personal.as_str()));
                rows.push(&table.name().to_string(), position, field, said.unwrap_or_default(), key);
            }
        }
        self.twins(state, &mut rows).await?;
        rows.finish(Arc::clone(&self.schema))
    }

    /// The columns of the twins, whose models say units and descriptions.
    async fn twins(&self, state: &SessionState, rows: &mut ColumnRows) -> Result<()> {
        let Some(twin) = state.catalog_list().catalog(CATALOG).and_then(|catalog| catalog.schema("twin"))
        else {
            return Ok(());
        };
        let mut names = twin.table_names();
        names.sort();
        if names.is_empty() {
            return Ok(());
        }
        let context = SessionContext::new_with_state(state.clone());
        let properties =
            context.sql("SELECT model, name, unit, description FROM meta.twin_properties").await?;
        let mut said: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
        for row in Rows::new(&properties.collect().await?).map_err(through)? {
            let text = |name: &str| row.text(name).unwrap_or_default();
            said.insert((text("model"), text("name")), (text("unit"), text("description")));
        }
        let keys = context.sql("SELECT name, key FROM meta.twin_models").await?.collect().await?;
        let keys: BTreeMap<String, String> = Rows::new(&keys)
            .map_err(through)?
            .filter_map(|row| Some((row.text("name")?, row.text("key")?)))
            .collect();
        for name in names {
            let Some(table) = twin.table(&name).await? else { continue };
            let model = name.strip_suffix("_history").unwrap_or(&name).to_owned();
            for (position, field) in table.schema().fields().iter().enumerate() {
                let own = said.get(&(model.clone(), field.name().clone()));
                let own = own.map(|(unit, text)| (unit.as_str(), text.as_str(), "")).unwrap_or_default();
                let is_key = model == name && keys.get(&model) == Some(field.name());
                rows.push(&format!("twin.{name}"), position, field, own, is_key);
            }
        }
        Ok(())
    }
}

/// The newest time in a column, in microseconds.
async fn newest(state: &SessionState, table: &TableName, column: &str) -> Option<i64> {
    let context = SessionContext::new_with_state(state.clone());
    let sql = format!(
        "SELECT CAST(CAST(max({}) AS TIMESTAMP(6)) AS BIGINT) AS us FROM {}",
        quoted(column),
        quoted_table(table)
    );
    let rows = match context.sql(&sql).await {
        Ok(frame) => frame.collect().await,
        Err(error) => Err(error),
    };
    match rows {
        Ok(rows) => Rows::one(&rows).ok()?.integer("us"),
        Err(error) => {
            tracing::warn!(%table, column, %error, "the freshness of a table cannot be found");
            None
        }
    }
}

/// Rows of `meta.columns` as they are gathered.
#[derive(Default)]
struct ColumnRows {
    texts: [Vec<Option<String>>; 7],
    positions: Vec<i64>,
    nullable: Vec<bool>,
    keys: Vec<bool>,
}

impl ColumnRows {
    /// `said`: unit, description, kind of personal data.
    fn push(&mut self, table: &str, position: usize, field: &Field, said: (&str, &str, &str), key: bool) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let crs = if is_geometry(field) { crs_of(field) } else { None };
        let texts = [
            some(table),
            some(field.name()),
            Some(field.data_type().to_string()),
            some(said.0),
            crs,
            some(said.1),
            some(said.2),
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(text);
        }
        self.positions.push(position as i64 + 1);
        self.nullable.push(field.is_nullable());
        self.keys.push(key);
    }

    fn finish(self, schema: SchemaRef) -> Result<RecordBatch> {
        let [table, column, kind, unit, crs, description, personal] =
            self.texts.map(|texts| Arc::new(StringArray::from(texts)) as ArrayRef);
        let columns = vec![
            table,
            column,
            Arc::new(Int64Array::from(self.positions)) as ArrayRef,
            kind,
            Arc::new(BooleanArray::from(self.nullable)),
            unit,
            crs,
            description,
            Arc::new(BooleanArray::from(self.keys)),
            personal,
        ];
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

#[async_trait]
impl TableProvider for MetaView {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
            return Err(through(twinlake_contracts::Error::internal("a session of an unknown kind")));
        };
        let rows = match self.kind {
            Kind::Datasets => {
                // Looking for the newest row reads tables: only when somebody asks for it.
                let of_age =
                    |at: &usize| ["freshness_s", "fresh"].contains(&self.schema.field(*at).name().as_str());
                let with_ages = projection.is_none_or(|columns| columns.iter().any(of_age));
                self.datasets(state, with_ages).await?
            }
            Kind::Columns => self.columns(state).await?,
        };
        let table = MemTable::try_new(Arc::clone(&self.schema), vec![vec![rows]])?;
        table.scan(session, projection, filters, limit).await
    }
}
