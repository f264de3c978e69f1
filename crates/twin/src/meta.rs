//! Metadata as tables: `meta.twin_models`, `meta.twin_properties`, `meta.scenarios`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use crate::Twins;
use crate::model::{PropertyType, TwinModel};

/// One of the tables, computed from what is loaded whenever it is read.
#[derive(Clone)]
pub(crate) struct MetaTable {
    twins: Arc<Twins>,
    schema: SchemaRef,
    rows: Rows,
}

type Rows = fn(&Twins) -> Result<RecordBatch>;

impl MetaTable {
    /// The tables by name.
    pub(crate) fn all(twins: &Arc<Twins>) -> Result<Vec<(&'static str, Self)>> {
        let tables: [(&'static str, Rows); 3] =
            [("twin_models", models), ("twin_properties", properties), ("scenarios", scenarios)];
        tables
            .into_iter()
            .map(|(name, rows)| {
                Ok((name, Self { twins: twins.clone(), schema: rows(twins)?.schema(), rows }))
            })
            .collect()
    }
}

impl std::fmt::Debug for MetaTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaTable").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for MetaTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
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
        let rows = (self.rows)(&self.twins)?;
        let table = MemTable::try_new(self.schema.clone(), vec![vec![rows]])?;
        table.scan(session, projection, filters, limit).await
    }
}

fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn instants(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// A row a model: `kind` is `telemetry` or `map`, `operator` the simulation bound to it.
fn models(twins: &Twins) -> Result<RecordBatch> {
    let models = twins.models();
    let kind = |model: &TwinModel| if model.map.is_some() { "map" } else { "telemetry" };
    table(vec![
        ("name", texts(models.iter().map(|model| Some(&model.name)))),
        ("description", texts(models.iter().map(|model| Some(&model.description)))),
        ("key", texts(models.iter().map(|model| Some(&model.key)))),
        ("kind", texts(models.iter().map(|model| Some(kind(model))))),
        ("table", texts(models.iter().map(|model| model.table().map(ToString::to_string)))),
        ("operator", texts(models.iter().map(|model| model.simulation.as_ref().map(|s| &s.operator)))),
    ])
}

/// One row of `meta.twin_properties`.
struct PropertyRow {
    model: String,
    name: String,
    kind: String,
    unit: String,
    range: Option<[f64; 2]>,
    description: String,
    source: &'static str,
}

/// A row a column of a twin; `source` is `column`, `value`, `sql`, `relation` or `simulation`.
fn properties(twins: &Twins) -> Result<RecordBatch> {
    let mut rows: Vec<PropertyRow> = Vec::new();
    for model in twins.models() {
        for (name, property) in &model.properties {
            let source = match (&property.value, &property.sql) {
                (Some(_), _) => "value",
                (_, Some(_)) => "sql",
                _ => "column",
            };
            rows.push(PropertyRow {
                model: model.name.clone(),
                name: name.clone(),
                kind: property.kind.name().to_owned(),
                unit: property.unit.clone(),
                range: property.range,
                description: property.description.clone(),
                source,
            });
        }
        let mut added = |name: &str, kind: PropertyType, unit: &str, description: &str, source| {
            rows.push(PropertyRow {
                model: model.name.clone(),
                name: name.to_owned(),
                kind: kind.name().to_owned(),
                unit: unit.to_owned(),
                range: None,
                description: description.to_owned(),
                source,
            });
        };
        for relation in model.relations.values() {
            added(&relation.key_column, relation.key_kind, "", &relation.description, "relation");
            let distance = format!("Distance: {}", relation.description);
            added(&relation.distance_column, PropertyType::Float64, "m", &distance, "relation");
        }
        for (name, column) in model.simulation.iter().flat_map(|simulation| &simulation.columns) {
            added(name, PropertyType::Float64, &column.unit, &column.description, "simulation");
        }
    }
    let bound = |at: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.range.map(|range| range[at])).collect::<Float64Array>())
    };
    table(vec![
        ("model", texts(rows.iter().map(|row| Some(&row.model)))),
        ("name", texts(rows.iter().map(|row| Some(&row.name)))),
        ("type", texts(rows.iter().map(|row| Some(&row.kind)))),
        ("unit", texts(rows.iter().map(|row| Some(&row.unit)))),
        ("range_low", bound(0)),
        ("range_high", bound(1)),
        ("description", texts(rows.iter().map(|row| Some(&row.description)))),
        ("source", texts(rows.iter().map(|row| Some(row.source)))),
    ])
}

/// A row a scenario; `overrides` is JSON.
fn scenarios(twins: &Twins) -> Result<RecordBatch> {
    let scenarios = twins.scenarios();
    let json = |value: &Vec<crate::scenario::Override>| serde_json::json!(value).to_string();
    table(vec![
        ("name", texts(scenarios.iter().map(|scenario| Some(&scenario.name)))),
        ("description", texts(scenarios.iter().map(|scenario| Some(&scenario.description)))),
        ("fork_at", instants(scenarios.iter().map(|scenario| scenario.fork_at_us))),
        ("fork_known_at", instants(scenarios.iter().map(|scenario| scenario.fork_known_at_us))),
        ("override_count", {
            Arc::new(scenarios.iter().map(|scenario| scenario.overrides.len() as i64).collect::<Int64Array>())
        }),
        ("overrides", texts(scenarios.iter().map(|scenario| Some(json(&scenario.overrides))))),
    ])
}
