//! Metadata as tables: `meta.twin_models`, `meta.twin_properties`, `meta.twin_relations`, `meta.twin_views`, `meta.scenarios`.

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
use crate::model::{KNOWN_TIME, ORIGIN, PropertyType, RELATIONS, SCENARIO, TwinModel, VALID_TIME};
use crate::relation::Relation;
use crate::views::{ModelView, table_of};

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
        let tables: [(&'static str, Rows); 5] = [
            ("twin_models", models),
            ("twin_views", views),
            ("twin_properties", properties),
            ("twin_relations", relations),
            ("scenarios", scenarios),
        ];
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

/// A row a model: `kind` is `telemetry` or `map`, `operator` the simulation bound to it, `fresh_within_s` the promise how often
/// an instance tells its state, `ended_when` the condition that ends an instance, `relations` the names of its relations.
fn models(twins: &Twins) -> Result<RecordBatch> {
    let models = twins.models();
    let kind = |model: &TwinModel| if model.map.is_some() { "map" } else { "telemetry" };
    let within = |model: &Arc<TwinModel>| model.freshness.as_ref().map(|freshness| freshness.within_s);
    let names = |model: &TwinModel| model.relations.keys().cloned().collect::<Vec<_>>().join(", ");
    table(vec![
        ("name", texts(models.iter().map(|model| Some(&model.name)))),
        ("version", Arc::new(models.iter().map(|model| i64::from(model.version)).collect::<Int64Array>())),
        ("description", texts(models.iter().map(|model| Some(&model.description)))),
        ("key", texts(models.iter().map(|model| Some(&model.key)))),
        ("kind", texts(models.iter().map(|model| Some(kind(model))))),
        ("table", texts(models.iter().map(|model| model.table().map(ToString::to_string)))),
        ("operator", texts(models.iter().map(|model| model.simulation.as_ref().map(|s| &s.operator)))),
        ("fresh_within_s", Arc::new(models.iter().map(within).collect::<Float64Array>())),
        ("ended_when", texts(models.iter().map(|model| model.lifecycle.as_ref().map(|l| &l.ended_when)))),
        ("relations", texts(models.iter().map(|model| Some(names(model)).filter(|names| !names.is_empty())))),
    ])
}

/// A row a relation. Its edges are `twin.relations`; `property` equals `other_property` at the other end, or, without one, the
/// edge leads to the nearest instance within `within_m`.
fn relations(twins: &Twins) -> Result<RecordBatch> {
    let models = twins.models();
    let all: Vec<(&TwinModel, &String, &Relation)> = models
        .iter()
        .flat_map(|model| model.relations.iter().map(|(name, relation)| (model.as_ref(), name, relation)))
        .collect();
    let other = |relation: &Relation| {
        relation.property.as_ref()?;
        let key = || Some(models.iter().find(|model| model.name == relation.twin)?.key.clone());
        relation.other.clone().or_else(key)
    };
    let weight = |relation: &Relation| match relation.nearest() {
        Some(nearest) => Some((nearest.distance_column.to_owned(), "m".to_owned())),
        None => relation.weight.clone().map(|weight| (weight, relation.weight_unit.clone())),
    };
    let each = |text: &dyn Fn(&TwinModel, &String, &Relation) -> Option<String>| {
        texts(all.iter().map(|(model, name, relation)| text(model, name, relation)))
    };
    table(vec![
        ("model", each(&|model, _, _| Some(model.name.clone()))),
        ("name", each(&|_, name, _| Some(name.clone()))),
        ("type", each(&|_, _, relation| Some(relation.kind.name().to_owned()))),
        ("to_model", each(&|_, _, relation| Some(relation.twin.clone()))),
        ("property", each(&|_, _, relation| relation.property.clone())),
        ("other_property", each(&|_, _, relation| other(relation))),
        ("within_m", Arc::new(all.iter().map(|one| one.2.nearest_within_m).collect::<Float64Array>())),
        ("condition", each(&|_, _, relation| relation.condition.clone())),
        ("weight", each(&|_, _, relation| weight(relation).map(|weight| weight.0))),
        (
            "weight_unit",
            each(&|_, _, relation| weight(relation).map(|weight| weight.1).filter(|u| !u.is_empty())),
        ),
        ("description", each(&|_, _, relation| Some(relation.description.clone()))),
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

/// The columns that every twin has.
const OF_EVERY_TWIN: [(&str, PropertyType, &str); 4] = [
    (VALID_TIME, PropertyType::Timestamp, "Since when the state holds; null on a map, which has no time."),
    (KNOWN_TIME, PropertyType::Timestamp, "When that became known here; null where the table does not tell."),
    (ORIGIN, PropertyType::String, "Where the state comes from: observed, forecast or simulated."),
    (
        SCENARIO,
        PropertyType::String,
        "The scenario that the row owes its state to; null for the city as it is.",
    ),
];

/// A row a view: the table of the schema `twin` that asks `sql`.
fn views(twins: &Twins) -> Result<RecordBatch> {
    let models = twins.models();
    let all: Vec<(&TwinModel, &String, &ModelView)> = models
        .iter()
        .flat_map(|model| model.views.iter().map(|(name, view)| (model.as_ref(), name, view)))
        .collect();
    table(vec![
        ("model", texts(all.iter().map(|(model, _, _)| Some(&model.name)))),
        ("name", texts(all.iter().map(|(model, name, _)| Some(table_of(model, name))))),
        ("description", texts(all.iter().map(|(_, _, view)| Some(&view.description)))),
        ("sql", texts(all.iter().map(|(_, _, view)| Some(view.sql.trim())))),
    ])
}

/// The columns of `twin.relations`.
const OF_RELATIONS: [(&str, PropertyType, &str, &str); 7] = [
    ("relation", PropertyType::String, "", "The name of the relation in its model."),
    ("type", PropertyType::String, "", "part_of, located_in, feeds, connects or relates_to."),
    ("from_model", PropertyType::String, "", "The model of the instance where the edge begins."),
    ("from_id", PropertyType::String, "", "The key of that instance, as text."),
    ("to_model", PropertyType::String, "", "The model of the instance where the edge ends."),
    ("to_id", PropertyType::String, "", "The key of that instance, as text."),
    (
        "weight",
        PropertyType::Float64,
        "",
        "What it costs to go along the edge, in the unit of meta.twin_relations; null where the relation has none.",
    ),
];

/// A row a column of a table of the schema `twin`; `source` is `column`, `value`, `sql`, `relation`, `simulation`, `view` for the
/// columns of a view, `edge` for those of `twin.relations` or, for the columns that every twin has, `twin`.
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
            let Some(nearest) = relation.nearest() else { continue };
            added(nearest.key_column, relation.key_kind, "", &relation.description, "relation");
            let distance = format!("Distance: {}", relation.description);
            added(nearest.distance_column, PropertyType::Float64, "m", &distance, "relation");
        }
        for (name, column) in model.simulation.iter().flat_map(|simulation| &simulation.columns) {
            added(name, column.kind, &column.unit, &column.description, "simulation");
        }
        for (name, kind, description) in OF_EVERY_TWIN {
            added(name, kind, "", description, "twin");
        }
        for (view, told) in &model.views {
            for (name, column) in &told.columns {
                rows.push(PropertyRow {
                    model: table_of(&model, view),
                    name: name.clone(),
                    kind: String::new(),
                    unit: column.unit.clone(),
                    range: None,
                    description: column.description.clone(),
                    source: "view",
                });
            }
        }
    }
    for (name, kind, unit, description) in OF_RELATIONS {
        rows.push(PropertyRow {
            model: RELATIONS.to_owned(),
            name: name.to_owned(),
            kind: kind.name().to_owned(),
            unit: unit.to_owned(),
            range: None,
            description: description.to_owned(),
            source: "edge",
        });
    }
    let bound = |at: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.range.map(|range| range[at])).collect::<Float64Array>())
    };
    table(vec![
        ("model", texts(rows.iter().map(|row| Some(&row.model)))),
        ("name", texts(rows.iter().map(|row| Some(&row.name)))),
        ("type", texts(rows.iter().map(|row| Some(&row.kind).filter(|kind| !kind.is_empty())))),
        ("unit", texts(rows.iter().map(|row| Some(&row.unit)))),
        ("range_low", bound(0)),
        ("range_high", bound(1)),
        ("description", texts(rows.iter().map(|row| Some(&row.description)))),
        ("source", texts(rows.iter().map(|row| Some(row.source)))),
    ])
}

/// A value as JSON; null where there is nothing.
fn said<T: serde::Serialize>(value: &T, nothing: bool) -> Option<String> {
    (!nothing).then(|| serde_json::json!(value).to_string())
}

/// A row a scenario; `base` is what it leaves at `fork_at` (`observed`: the city as it is), `overrides`, `parameters`, `runs` and
/// `ensemble` are JSON, `source` is the file, or `created`.
fn scenarios(twins: &Twins) -> Result<RecordBatch> {
    let scenarios = twins.scenarios();
    let json = |value: &Vec<crate::scenario::Override>| serde_json::json!(value).to_string();
    table(vec![
        ("name", texts(scenarios.iter().map(|scenario| Some(&scenario.name)))),
        ("description", texts(scenarios.iter().map(|scenario| Some(&scenario.description)))),
        ("base", texts(scenarios.iter().map(|_| Some("observed")))),
        ("fork_at", instants(scenarios.iter().map(|scenario| scenario.fork_at_us))),
        ("fork_known_at", instants(scenarios.iter().map(|scenario| scenario.fork_known_at_us))),
        ("override_count", {
            Arc::new(scenarios.iter().map(|scenario| scenario.overrides.len() as i64).collect::<Int64Array>())
        }),
        ("overrides", texts(scenarios.iter().map(|scenario| Some(json(&scenario.overrides))))),
        (
            "horizon_s",
            Arc::new(scenarios.iter().map(|scenario| scenario.horizon_s).collect::<Float64Array>()),
        ),
        (
            "parameters",
            texts(
                scenarios.iter().map(|scenario| said(&scenario.parameters, scenario.parameters.is_empty())),
            ),
        ),
        ("runs", texts(scenarios.iter().map(|scenario| said(&scenario.runs, scenario.runs.is_empty())))),
        (
            "ensemble",
            texts(scenarios.iter().map(|scenario| said(&scenario.ensemble, scenario.ensemble.is_none()))),
        ),
        (
            "source",
            texts(
                scenarios.iter().map(|scenario| Some(&scenario.source).filter(|source| !source.is_empty())),
            ),
        ),
    ])
}
