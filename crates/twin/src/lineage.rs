//! Lineage of twins: from which columns of which tables each property comes, read from the plan of the twin's state.
//!
//! A table that is not there yet is stood in for by one without rows that has the columns that the model names, so that
//! lineage is known from the models alone.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use twinlake_contracts::{ColumnEdge, Dependency, INGESTED_AT, Result, SEQUENCE, TableName, timestamp_type};
use twinlake_query::{SessionSettings, column_lineage};

use crate::Twins;
use crate::model::TwinModel;
use crate::run_job::result_schema;
use crate::state::StatePlanner;
use crate::view::{View, back};

impl Twins {
    /// The arrows that lead to the columns of every twin: model's name, arrows. Relations lead to the twin that they name.
    pub async fn lineage(&self) -> Result<Vec<(String, Vec<ColumnEdge>)>> {
        let session = self.engine()?.session(SessionSettings::default())?;
        let state = session.context().state();
        let view = View::default();
        let planner = StatePlanner { twins: self, session: &state, view: &view, stand_in: true };
        let mut all = Vec::new();
        for model in self.models() {
            if model.table().is_none() {
                continue;
            }
            let wanted: HashSet<String> =
                model.schema().fields().iter().map(|field| field.name().clone()).collect();
            let plan = planner.plan(&model, false, &wanted).await.map_err(back)?;
            let mut edges = column_lineage(&plan).map_err(back)?;
            for relation in model.relations.values() {
                let Some(nearest) = relation.nearest() else { continue };
                let target = self.model(&relation.twin)?;
                let table = format!("twin.{}", target.name);
                let what = || Some(format!("nearest within {} m", nearest.within_m));
                // What the lookup reads of this twin is in the plan; what it reads of the other is not.
                let key = ColumnEdge::new(
                    Some(nearest.key_column),
                    &table,
                    &target.key,
                    Dependency::Direct,
                    what(),
                );
                let geometries = target
                    .properties
                    .iter()
                    .filter(|(_, property)| property.kind == crate::model::PropertyType::Geometry);
                for (name, _) in geometries {
                    for output in [nearest.key_column, nearest.distance_column] {
                        edges.push(ColumnEdge::new(Some(output), &table, name, Dependency::Computed, what()));
                    }
                }
                edges.push(key);
            }
            edges.sort();
            edges.dedup();
            all.push((model.name.clone(), edges));
        }
        Ok(all)
    }

    /// A table without rows that has what a model reads of it; `None` when it is not a table of that model.
    pub(crate) fn stand_in(model: &TwinModel, name: &TableName) -> Option<Arc<dyn TableProvider>> {
        if model.table() == Some(name) {
            let mut fields: Vec<Field> = Vec::new();
            for (property_name, property) in &model.properties {
                if property.sql.is_some() || property.value.is_some() {
                    continue;
                }
                let column = property.column.as_deref().unwrap_or(property_name);
                let schema = model.schema();
                let Ok(known) = schema.field_with_name(property_name) else { continue };
                fields.push(known.clone().with_name(column));
            }
            if let Some(telemetry) = &model.telemetry {
                fields.push(Field::new(&telemetry.time, timestamp_type(), true));
            }
            fields.push(Field::new(INGESTED_AT, timestamp_type(), true));
            fields.push(Field::new(SEQUENCE, DataType::Int64, true));
            let mut seen = HashSet::new();
            fields.retain(|field| seen.insert(field.name().clone()));
            return Some(Arc::new(EmptyTable::new(Arc::new(Schema::new(fields)))));
        }
        let binding = model.simulation.as_ref().filter(|binding| binding.table == *name)?;
        Some(Arc::new(EmptyTable::new(result_schema(model, binding))))
    }
}
