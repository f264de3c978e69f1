//! Twin models in `twinlake plan` and `twinlake apply`: what changes between the definitions that were applied and those of the files.
//!
//! What was applied is in `meta.twin_versions`, a row a change; the newest row of a model counts. Models that the program ships are
//! not compared: they change with the program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use serde_json::json;
use twinlake_contracts::{
    SqlEngine as _, TableName, TableSpec, TableStore as _, WriteMode, now_us, timestamp_type,
};
use twinlake_twin::{ModelChange, TwinModel, model_changes, model_refusal};

use crate::settings::Settings;
use crate::town::Town;

const VERSIONS: &str = "meta.twin_versions";

/// What is to be done with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Create,
    Change,
    Remove,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Remove => "remove",
        }
    }
}

/// One model of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct ModelStep {
    twin_model: String,
    action: Action,
    version: u32,
    version_before: Option<u32>,
    changes: Vec<ModelChange>,
    /// The table, and how many rows it has.
    table: Option<(String, u64)>,
    /// Why it is refused, if it is.
    pub refused: Option<String>,
    #[serde(skip)]
    definition: String,
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("model"),
        Field::new("version", DataType::Int64, true),
        text("action"),
        text("definition"),
        text("changes"),
        text("applied_by"),
        Field::new("applied_at", timestamp_type(), true),
    ]))
}

/// The definitions that were applied, by model; `None` for one that this program cannot read.
async fn applied(town: &Town) -> Result<BTreeMap<String, Option<TwinModel>>> {
    let mut found = BTreeMap::new();
    if town.lake.table(&TableName::parse(VERSIONS)?).is_none() {
        return Ok(found);
    }
    let sql = format!("SELECT model, action, definition FROM {VERSIONS} ORDER BY applied_at");
    for batch in town.engine.read_tables(&sql).await? {
        let columns: Vec<ArrayRef> =
            batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let text = |column: usize| columns[column].as_string::<i32>().value(row).to_owned();
            if text(1) == Action::Remove.name() {
                found.remove(&text(0));
            } else {
                found.insert(text(0), serde_json::from_str(&text(2)).ok());
            }
        }
    }
    Ok(found)
}

/// What would change. Nothing, where the models are those that the program ships.
pub async fn steps(settings: &Settings, town: &Town) -> Result<Vec<ModelStep>> {
    if settings.twins.is_none() && !Path::new("schemas/twins").is_dir() {
        return Ok(Vec::new());
    }
    let mut before = applied(town).await?;
    let mut steps = Vec::new();
    for model in town.twins.models() {
        let old = before.remove(&model.name);
        let rows = |table: &TableName| {
            town.lake.table(table).map_or(0, |table| {
                let stats = table.stats();
                stats.rows + stats.fresh_rows
            })
        };
        let mut step = ModelStep {
            twin_model: model.name.clone(),
            action: Action::Change,
            version: model.version,
            version_before: None,
            changes: Vec::new(),
            table: model.table().map(|table| (table.to_string(), rows(table))),
            refused: None,
            definition: serde_json::to_string(model.as_ref())?,
        };
        match old {
            None => step.action = Action::Create,
            // Another version of the program wrote it: what it meant is not known.
            Some(None) => {}
            Some(Some(old)) => {
                step.version_before = Some(old.version);
                step.changes = model_changes(&old, &model);
                step.refused =
                    model_refusal(&old, &model).map(|(what, help)| format!("{what}\n  help: {help}"));
                if step.changes.is_empty() && old.version == model.version {
                    continue;
                }
            }
        }
        steps.push(step);
    }
    for (name, old) in before {
        steps.push(ModelStep {
            twin_model: name,
            action: Action::Remove,
            version: old.as_ref().map_or(0, |old| old.version),
            version_before: old.as_ref().map(|old| old.version),
            changes: Vec::new(),
            table: None,
            refused: None,
            definition: String::new(),
        });
    }
    Ok(steps)
}

/// The lines of a plan.
pub fn tell(steps: &[ModelStep]) -> String {
    let mut text = String::new();
    for step in steps {
        let (sign, rest) = match step.action {
            Action::Create => ("+", format!("version {}", step.version)),
            Action::Remove => ("-", "is a twin no more; its table stays".to_owned()),
            Action::Change => match step.version_before {
                Some(before) if before != step.version => {
                    ("~", format!("version {before} to {}", step.version))
                }
                Some(_) => ("~", format!("version {}", step.version)),
                None => (
                    "~",
                    format!("version {}; what was applied cannot be read by this program", step.version),
                ),
            },
        };
        let _ = writeln!(text, "{sign} twin model {}   {rest}", step.twin_model);
        for change in &step.changes {
            let _ = writeln!(text, "    ~ {} {}", change.what, change.how);
            if let Some(rows) = &change.rows {
                let _ = writeln!(text, "        ! {rows}");
            }
        }
        let about_rows = step.changes.iter().any(|change| change.rows.is_some());
        if let Some((table, rows)) = step.table.as_ref().filter(|_| about_rows) {
            let _ = writeln!(text, "    ! table {table}: {rows} rows");
        }
        if let Some(why) = &step.refused {
            let _ = writeln!(text, "    x {why}");
        }
    }
    text
}

/// Records what was applied. The state itself is folded by the new definition from now on; nothing has to be moved.
pub async fn apply(town: &Town, steps: &[ModelStep]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let now = now_us();
    let by = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    let texts = |text: &dyn Fn(&ModelStep) -> String| -> ArrayRef {
        Arc::new(steps.iter().map(|step| Some(text(step))).collect::<StringArray>())
    };
    let rows = RecordBatch::try_new(
        schema(),
        vec![
            texts(&|step| step.twin_model.clone()),
            Arc::new(steps.iter().map(|step| i64::from(step.version)).collect::<Int64Array>()),
            texts(&|step| step.action.name().to_owned()),
            texts(&|step| step.definition.clone()),
            texts(&|step| json!(step.changes).to_string()),
            texts(&|_| by.clone()),
            Arc::new(TimestampMicrosecondArray::from(vec![now; steps.len()]).with_timezone("UTC")),
        ],
    )?;
    let spec = TableSpec {
        name: TableName::parse(VERSIONS)?,
        schema: schema(),
        description: "Twin models that were applied, with their definitions: the newest row of each counts."
            .to_owned(),
    };
    let table = town.lake.open_table(spec).await?;
    table.add_fresh("twin_models/applied", rows).await?;
    // The writer's sequence is the instant: it only grows.
    table.commit("twin_models/applied", now as u64, WriteMode::Append).await?;
    Ok(())
}
