//! `twinlake plan` and `twinlake apply`: a folder of pipelines says what is to run; the lake remembers what was applied. Twin models
//! are compared with it (`models.rs`).
//!
//! What was applied is in `meta.pipelines`, a row a change; the newest row of a pipeline counts. `serve --applied` runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use twinlake_contracts::{
    Error, SqlEngine, TableName, TableSpec, TableStore, WriteMode, now_us, timestamp_type,
};
use twinlake_lake::Evolution;
use twinlake_pipeline::{
    Difference, Pipeline, Plan, Reprocess, ReprocessOptions, StepChange, difference, looks_up,
};

use crate::WrongUse;
use crate::arguments::{ApplyOptions, PlanOptions};
use crate::governance;
use crate::models::{self, ModelStep};
use crate::pipelines::{self, components};
use crate::settings::Settings;
use crate::town::Town;

const PIPELINES: &str = "meta.pipelines";

/// A pipeline as it was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    pub file: PathBuf,
    pub text: String,
    /// Tables whose rows are of an older text: run them again.
    pub stale: BTreeSet<String>,
}

/// What is to be done with a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Create,
    Change,
    Remove,
    /// Nothing but to run it again over what is there.
    Rebuild,
}

/// What becomes of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TableChange {
    table: String,
    create: bool,
    new_columns: Vec<String>,
    /// Columns that get a wider type: the table's files are written anew.
    widened: Vec<String>,
    /// The columns that do not fit, if any: the change is refused.
    refused: Option<String>,
    rebuild: bool,
}

/// One line of a plan, with what stands below it.
#[derive(Debug, Clone, Serialize)]
struct Step {
    pipeline: String,
    file: PathBuf,
    action: Action,
    steps: BTreeMap<String, StepChange>,
    tables: Vec<TableChange>,
    #[serde(skip)]
    text: String,
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("pipeline"),
        text("action"),
        text("file"),
        text("text"),
        text("stale"),
        text("applied_by"),
        Field::new("applied_at", timestamp_type(), true),
    ]))
}

/// The pipelines that are applied to the lake, by name.
pub async fn applied(town: &Town) -> Result<BTreeMap<String, Applied>> {
    let mut found = BTreeMap::new();
    if town.lake.table(&TableName::parse(PIPELINES)?).is_none() {
        return Ok(found);
    }
    let sql = format!("SELECT pipeline, action, file, text, stale FROM {PIPELINES} ORDER BY applied_at");
    for batch in town.engine.read_tables(&sql).await? {
        let columns: Vec<ArrayRef> =
            batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let text = |column: usize| columns[column].as_string::<i32>().value(row).to_owned();
            let name = text(0);
            if text(1) == "remove" {
                found.remove(&name);
                continue;
            }
            let stale = serde_json::from_str(&text(4)).unwrap_or_default();
            let applied = Applied { file: text(2).into(), text: text(3), stale };
            found.insert(name, applied);
        }
    }
    Ok(found)
}

/// The pipelines of a folder: every `.toml` in it. All mistakes of all files are told at once.
async fn wanted(town: &Town, folder: &Path) -> Result<BTreeMap<String, (PathBuf, Plan)>> {
    let unreadable =
        |error: std::io::Error| WrongUse(Error::config(format!("cannot read {}: {error}", folder.display())));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            files.push(path.canonicalize().map_err(unreadable)?);
        }
    }
    files.sort();
    let mut plans: BTreeMap<String, (PathBuf, Plan)> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for file in files {
        match pipelines::load(&file, &town.engine, &[]).await {
            Ok(plan) => {
                let name = plan.pipeline.name.clone();
                if let Some((other, _)) = plans.get(&name) {
                    mistakes.push(format!(
                        "{} and {} are both named '{name}'",
                        other.display(),
                        file.display()
                    ));
                }
                plans.insert(name, (file, plan));
            }
            Err(error) => mistakes.push(error.to_string()),
        }
    }
    if mistakes.is_empty() { Ok(plans) } else { bail!(mistakes.join("\n\n")) }
}

fn parse(text: &str, file: &Path) -> Option<Pipeline> {
    let lookup = |name: &str| std::env::var(name).ok();
    Pipeline::parse_with(text, Some(file), &components(), &lookup).0
}

/// What would change, in the order in which it is done.
async fn steps(town: &Town, folder: &Path) -> Result<(Vec<Step>, BTreeMap<String, (PathBuf, Plan)>)> {
    let before = applied(town).await?;
    let plans = wanted(town, folder).await?;
    let mut steps = Vec::new();
    for (name, (file, plan)) in &plans {
        let old = before.get(name);
        let told = match old {
            None => Difference::default(),
            Some(old) => match parse(&old.text, &old.file) {
                Some(old) => difference(&old, &plan.pipeline),
                // An older version of the program read it; it is taken as new, with all its tables.
                None => Difference {
                    stale: plan.pipeline.sinks.keys().cloned().collect(),
                    ..Difference::default()
                },
            },
        };
        let mut tables = Vec::new();
        for (sink, spec) in &plan.tables {
            let waiting = old.is_some_and(|old| old.stale.contains(&spec.name.to_string()));
            let stale = told.stale.contains(sink) || waiting;
            let change = table_change(town, spec, stale).await?;
            if change.create || !change.new_columns.is_empty() || change.refused.is_some() || change.rebuild {
                tables.push(change);
            }
        }
        let same_text = old.is_some_and(|old| old.text == plan.pipeline.text() && old.file == *file);
        let action = match old {
            None => Action::Create,
            Some(_) if !same_text || !told.steps.is_empty() => Action::Change,
            Some(_) if !tables.is_empty() => Action::Rebuild,
            Some(_) => continue,
        };
        let text = plan.pipeline.text().to_owned();
        let (pipeline, file) = (name.clone(), file.clone());
        steps.push(Step { pipeline, file, action, steps: told.steps, tables, text });
    }
    for (name, old) in before.into_iter().filter(|(name, _)| !plans.contains_key(name)) {
        steps.push(Step {
            pipeline: name,
            file: old.file,
            action: Action::Remove,
            steps: BTreeMap::new(),
            tables: Vec::new(),
            text: old.text,
        });
    }
    Ok((steps, plans))
}

async fn table_change(town: &Town, spec: &TableSpec, stale: bool) -> Result<TableChange> {
    let mut change = TableChange {
        table: spec.name.to_string(),
        create: false,
        new_columns: Vec::new(),
        widened: Vec::new(),
        refused: None,
        rebuild: false,
    };
    let Some(there) = town.lake.describe_table(&spec.name).await? else {
        change.create = true;
        return Ok(change);
    };
    let lacks = |field: &&Arc<Field>| there.schema.field_with_name(field.name()).is_err();
    let new = spec.schema.fields().iter().filter(lacks);
    change.new_columns = new.map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    match town.lake.widenings(spec) {
        Ok(widen) => {
            change.widened = widen.into_iter().map(|(column, wide)| format!("{column} {wide}")).collect();
        }
        Err(error) => change.refused = Some(error.to_string()),
    }
    change.rebuild = stale;
    Ok(change)
}

fn tell(steps: &[Step], models: &[ModelStep]) -> String {
    if steps.is_empty() && models.is_empty() {
        return "no changes: what is applied is what the folder says".to_owned();
    }
    let mut text = models::tell(models);
    for step in steps {
        let (sign, rest) = match step.action {
            Action::Create => ("+", String::new()),
            Action::Change => ("~", String::new()),
            Action::Rebuild => ("!", " is applied; its rows are of an older text".to_owned()),
            Action::Remove => ("-", " runs no more; its tables stay".to_owned()),
        };
        let _ = writeln!(text, "{sign} pipeline {}{rest}   {}", step.pipeline, step.file.display());
        for (name, change) in &step.steps {
            let sign = match change {
                StepChange::Added => "+",
                StepChange::Changed => "~",
                StepChange::Removed => "-",
            };
            let _ = writeln!(text, "    {sign} {name}");
        }
        for table in &step.tables {
            if table.create {
                let _ = writeln!(text, "    + table {}", table.table);
            }
            for column in &table.new_columns {
                let _ = writeln!(text, "    ~ table {}: + column {column}", table.table);
            }
            for column in &table.widened {
                let _ = writeln!(text, "    ~ table {}: widen column {column}", table.table);
            }
            if let Some(why) = &table.refused {
                let _ = writeln!(text, "    x table {}: {why}", table.table);
            }
            if table.rebuild {
                let _ = writeln!(text, "    ! table {} must be rebuilt", table.table);
            }
        }
    }
    text
}

/// Refuses a plan with columns that do not fit, or with models that mean something else without saying so.
fn check(steps: &[Step], models: &[ModelStep]) -> Result<()> {
    let tables = steps.iter().flat_map(|step| &step.tables).filter_map(|table| table.refused.clone());
    let refused: Vec<String> =
        models.iter().filter_map(|model| model.refused.clone()).chain(tables).collect();
    if refused.is_empty() { Ok(()) } else { Err(anyhow!(refused.join("\n"))) }
}

/// `twinlake plan`.
pub async fn plan(settings: &Settings, options: &PlanOptions) -> Result<()> {
    let town = Town::open(settings).await?;
    let models = models::steps(settings, &town).await?;
    let (steps, _) = steps(&town, &options.folder).await?;
    let text = if options.json {
        let all = models.iter().map(|model| json!(model)).chain(steps.iter().map(|step| json!(step)));
        serde_json::to_string(&all.collect::<Vec<_>>())?
    } else {
        tell(&steps, &models)
    };
    println!("{}", text.trim_end());
    check(&steps, &models)
}

/// `twinlake apply`.
pub async fn apply(settings: &Settings, options: &ApplyOptions) -> Result<()> {
    let town = Town::open(settings).await?;
    let models = models::steps(settings, &town).await?;
    let (steps, mut plans) = steps(&town, &options.folder).await?;
    println!("{}", tell(&steps, &models).trim_end());
    check(&steps, &models)?;
    models::apply(&town, &models).await?;
    for step in &steps {
        let mut stale: BTreeSet<String> =
            step.tables.iter().filter(|table| table.rebuild).map(|table| table.table.clone()).collect();
        if let Some((_, plan)) = plans.get(&step.pipeline) {
            for spec in plan.tables.values() {
                let widen = town.lake.widenings(spec)?;
                if let (false, Some(table)) = (widen.is_empty(), town.lake.table(&spec.name)) {
                    table.evolve(&Evolution { widen, ..Evolution::default() }).await?;
                }
                town.lake.open_table(spec.clone()).await?;
                governance::constrain(&town, &spec.name).await?;
            }
            governance::describe(&town, plan).await?;
        }
        if step.action != Action::Rebuild {
            record(&town, step, &stale).await?;
        }
        if options.rebuild
            && !stale.is_empty()
            && let Some((_, plan)) = plans.remove(&step.pipeline)
        {
            rebuild(&town, plan).await?;
            stale.clear();
            record(&town, step, &stale).await?;
        }
        if !stale.is_empty() {
            println!("to rebuild: twinlake reprocess {} (or apply --rebuild)", step.file.display());
        }
    }
    if !steps.is_empty() || !models.is_empty() {
        println!("applied");
    }
    town.close().await?;
    Ok(())
}

/// Makes all rows of a pipeline anew: messages through a reprocessing, files through a run.
pub async fn rebuild(town: &Town, plan: Plan) -> Result<()> {
    let messages = plan.pipeline.sources.values().any(twinlake_pipeline::SourceNode::gives_messages);
    if !messages {
        let report = pipelines::start(town, plan).await?.finish().await?;
        println!("{}", pipelines::report_line(&report));
        return Ok(());
    }
    let (store, engine): (Arc<dyn TableStore>, Arc<dyn SqlEngine>) =
        (Arc::clone(&town.lake) as _, Arc::clone(&town.engine) as _);
    let (_stop, stopped) = watch::channel(false);
    // The rules of tables that reject rows on their way reject the same ones again.
    let plan = governance::guarded(town, plan).await?;
    let report = Reprocess::new(plan, store, engine, ReprocessOptions::default()).run(stopped).await?;
    for (table, revised) in &report.tables {
        println!("  {table}: {} rows went, {} came", revised.rows_gone, revised.rows_come);
    }
    Ok(())
}

async fn record(town: &Town, step: &Step, stale: &BTreeSet<String>) -> Result<()> {
    let now = now_us();
    let action = match step.action {
        Action::Create => "create",
        Action::Change | Action::Rebuild => "change",
        Action::Remove => "remove",
    };
    let by = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    let text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    let rows = RecordBatch::try_new(
        schema(),
        vec![
            text(&step.pipeline),
            text(action),
            text(&step.file.to_string_lossy()),
            text(&step.text),
            text(&json!(stale).to_string()),
            text(&by),
            Arc::new(TimestampMicrosecondArray::from(vec![now]).with_timezone("UTC")),
        ],
    )?;
    let spec = TableSpec {
        name: TableName::parse(PIPELINES)?,
        schema: schema(),
        description: "Pipelines that were applied: the newest row of each counts.".to_owned(),
    };
    let table = town.lake.open_table(spec).await?;
    let writer = format!("{}/applied", step.pipeline);
    table.add_fresh(&writer, rows).await?;
    // The writer's sequence is the instant: it only grows.
    table.commit(&writer, now as u64, WriteMode::Append).await?;
    Ok(())
}

/// A pipeline's past messages have all been run through this text: if it is the one that was applied, its tables are no
/// longer stale.
pub async fn rebuilt(town: &Town, name: &str, text: &str) -> Result<()> {
    let Some(applied) = applied(town).await?.remove(name) else { return Ok(()) };
    if applied.text != text || applied.stale.is_empty() {
        return Ok(());
    }
    let step = Step {
        pipeline: name.to_owned(),
        file: applied.file,
        action: Action::Rebuild,
        steps: BTreeMap::new(),
        tables: Vec::new(),
        text: applied.text,
    };
    record(town, &step, &BTreeSet::new()).await
}

/// The plans of all applied pipelines, as they were applied.
pub async fn plans(town: &Town, variables: &[(&str, String)]) -> Result<Vec<Plan>> {
    let mut plans = Vec::new();
    for applied in applied(town).await?.into_values() {
        plans.push(pipelines::check_text(&applied.text, &applied.file, &town.engine, variables).await?);
    }
    Ok(plans)
}

/// The applied pipelines that look up tables of this one, directly or through others; each after those it depends on.
pub async fn downstream(town: &Town, of: &Plan) -> Result<Vec<Plan>> {
    let mut waiting = plans(town, &[]).await?;
    waiting.retain(|plan| plan.pipeline.name != of.pipeline.name);
    let tables = |plan: &Plan| -> BTreeSet<String> {
        plan.tables.values().map(|spec| spec.name.to_string()).collect()
    };
    let looks =
        |plan: &Plan, tables: &BTreeSet<String>| tables.iter().any(|table| looks_up(&plan.pipeline, table));
    let mut touched = tables(of);
    let mut below: Vec<Plan> = Vec::new();
    loop {
        let (more, rest): (Vec<Plan>, Vec<Plan>) =
            waiting.into_iter().partition(|plan| looks(plan, &touched));
        waiting = rest;
        if more.is_empty() {
            break;
        }
        for plan in &more {
            touched.extend(tables(plan));
        }
        below.extend(more);
    }
    let mut ordered: Vec<Plan> = Vec::new();
    while !below.is_empty() {
        let free = |at: &usize| {
            let others = below.iter().enumerate().filter(|(other, _)| other != at);
            !others.map(|(_, other)| tables(other)).any(|theirs| looks(&below[*at], &theirs))
        };
        // Pipelines that look each other up: one of them is first.
        let next = (0..below.len()).find(free).unwrap_or(0);
        ordered.push(below.remove(next));
    }
    Ok(ordered)
}
