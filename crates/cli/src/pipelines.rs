//! `twinlake run`, and the pipelines that `serve` and `demo` run beside themselves.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use twinlake_contracts::{RowGuard, SqlEngine, TableStore, now_us};
use twinlake_lake::{CpuMeter, RunCost, RunRecord};
use twinlake_pipeline::{
    Components, Diagnostics, Pipeline, Plan, RunReport, Runner, RunnerStats, SourceKind,
};
use twinlake_query::Engine;

use crate::governance;
use crate::progress;
use crate::settings::Settings;
use crate::town::Town;
use crate::upkeep::Upkeep;

/// Everything that a pipeline file may name.
pub fn components() -> Arc<Components> {
    Arc::new(Components::new(
        twinlake_sources::registry(),
        twinlake_formats::decoders(),
        twinlake_formats::readers().with::<twinlake_twin::SimulateSettings>(),
    ))
}

/// SQL for pipelines that are checked but not run: no lake behind it.
pub fn sql_engine() -> Arc<dyn SqlEngine> {
    Arc::new(twinlake_query::MicroBatches::default())
}

/// A pipeline that runs.
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its counters.
    pub stats: Arc<RunnerStats>,
    stop: watch::Sender<bool>,
    task: JoinHandle<twinlake_contracts::Result<RunReport>>,
}

impl Running {
    /// Tells it to finish what it has, waits for the last commit, and gives its report.
    pub async fn stop(self) -> Result<RunReport> {
        // A pipeline that has ended by itself no longer listens.
        let _ = self.stop.send(true);
        Ok(self.task.await.map_err(|error| anyhow!("pipeline {} ended early: {error}", self.name))??)
    }

    /// Waits for its inputs to be exhausted.
    pub async fn finish(self) -> Result<RunReport> {
        Ok(self.task.await.map_err(|error| anyhow!("pipeline {} ended early: {error}", self.name))??)
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// Loads and checks a file; every mistake is in the error. `variables` stand before the environment.
pub async fn load(file: &Path, engine: &Arc<Engine>, variables: &[(&str, String)]) -> Result<Plan> {
    let text =
        std::fs::read_to_string(file).map_err(|error| anyhow!("cannot read {}: {error}", file.display()))?;
    check_text(&text, file, engine, variables).await
}

/// Checks the text of a file; every mistake is in the error. `variables` stand before the environment.
pub async fn check_text(
    text: &str,
    file: &Path,
    engine: &Arc<Engine>,
    variables: &[(&str, String)],
) -> Result<Plan> {
    let lookup = |name: &str| {
        let given = variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        given.or_else(|| std::env::var(name).ok())
    };
    let (pipeline, found) = Pipeline::parse_with(text, Some(file), &components(), &lookup);
    let Some(pipeline) = pipeline else { bail!(told(&found)) };
    let (plan, more) = Plan::check(pipeline, &(Arc::clone(engine) as Arc<dyn SqlEngine>)).await;
    for warning in found.warnings.iter().chain(&more.warnings) {
        tracing::warn!("{warning}");
    }
    plan.ok_or_else(|| anyhow!(told(&more)))
}

fn told(found: &Diagnostics) -> String {
    found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

/// Starts a pipeline on the lake; the run and the lineage are recorded.
///
/// On a named node the pipeline is `<pipeline>.<node>`: log, state and writers are its own, the tables are shared.
pub async fn start(town: &Town, mut plan: Plan) -> Result<Running> {
    if let Some(node) = &town.node {
        plan.pipeline.name = format!("{}.{node}", plan.pipeline.name);
    }
    let (guard, edges) = governance::before(town, &plan).await?;
    let told = town.events.as_ref().map(|events| events.pipeline(town, &plan, &edges));
    let name = plan.pipeline.name.clone();
    let files_bytes = file_bytes(&plan.pipeline);
    let store: Arc<dyn TableStore> = Arc::clone(&town.lake) as _;
    let plan = plan.guarded(guard.clone().map(|guard| guard as Arc<dyn RowGuard>));
    let runner = Runner::new(plan, store, Arc::clone(&town.engine) as _);
    let stats = runner.stats();
    let (stop, stopped) = watch::channel(false);
    let town = town.clone();
    let pipeline = name.clone();
    let counted = Arc::clone(&stats);
    let task = tokio::spawn(async move {
        let started_at_us = now_us();
        let run_id = format!("{pipeline}-{started_at_us}");
        let meter = CpuMeter::start();
        let written_before = town.lake.bytes_written(&format!("{pipeline}/"));
        if let Some(told) = &told {
            told.started(&run_id, started_at_us);
        }
        let outcome = runner.run(stopped).await;
        let snapshot = counted.snapshot();
        let (status, outputs, summary) = match &outcome {
            Ok(report) => (
                if report.stopped { "cancelled" } else { "succeeded" },
                json!(report.versions),
                json!(snapshot),
            ),
            Err(error) => ("failed", json!({}), json!({ "error": error.to_string(), "stats": snapshot })),
        };
        let written = town.lake.bytes_written(&format!("{pipeline}/")) - written_before;
        let record = RunRecord {
            run_id: run_id.clone(),
            kind: "pipeline".to_owned(),
            name: pipeline.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status: status.to_owned(),
            parameters: "{}".to_owned(),
            inputs: "{}".to_owned(),
            outputs: outputs.to_string(),
            rows: snapshot.rows.values().sum::<u64>() as i64,
            rejects: snapshot.rejects.values().sum::<u64>() as i64,
            summary: summary.to_string(),
            started_at_us,
            finished_at_us: Some(now_us()),
            who: Some(twinlake_lake::who()),
            cost: RunCost {
                cpu_us: meter.cpu_us(),
                bytes_read: Some((snapshot.bytes + files_bytes) as i64),
                bytes_written: Some(written as i64),
            },
            ..RunRecord::default()
        };
        if let Some(told) = &told {
            told.ended(&record, &snapshot.rows, outcome.as_ref().err());
        }
        if let Err(error) = town.lake.record_run(record).await {
            // The rows are in; only the note about the run is not.
            tracing::warn!("the run is not recorded in meta.runs: {error}");
        }
        if let Some(guard) = guard {
            governance::after(&town, &pipeline, &run_id, &guard).await;
        }
        outcome
    });
    Ok(Running { name, stats, stop, task })
}

/// The bytes of the files that a pipeline reads.
fn file_bytes(pipeline: &Pipeline) -> u64 {
    let size = |source: &SourceKind| match source {
        SourceKind::File { path, .. } => std::fs::metadata(path).map_or(0, |found| found.len()),
        SourceKind::Messages { .. } => 0,
    };
    pipeline.sources.values().map(|source| size(&source.kind)).sum()
}

/// `twinlake run`: until the inputs are exhausted, or Ctrl-C.
pub async fn run(settings: &Settings, files: &[PathBuf], once: bool) -> Result<()> {
    let town = Town::open(settings).await?;
    let mut plans = Vec::new();
    for file in files {
        let plan = load(file, &town.engine, &[]).await?;
        if once && let Some(name) = endless_source(&plan.pipeline) {
            tracing::warn!("{}: the source '{name}' has no end: --once waits for Ctrl-C", plan.pipeline.name);
        }
        plans.push(plan);
    }
    let mut pipelines = Vec::new();
    for plan in plans {
        pipelines.push(start(&town, plan).await?);
    }
    let upkeep = Upkeep::start(&town, &settings.upkeep);
    let bar = progress::spinner(settings.progress, "running");
    // One future for the whole run: a signal that comes between two of them would be lost.
    let mut interrupted = pin!(crate::serve::interrupted());
    let stopped = loop {
        tokio::select! {
            () = &mut interrupted => break true,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        let (mut messages, mut rows, mut rejects) = (0, 0, 0);
        for pipeline in &pipelines {
            let now = pipeline.stats.snapshot();
            messages += now.messages;
            rows += now.rows.values().sum::<u64>();
            rejects += now.rejects.values().sum::<u64>();
        }
        bar.set_message(format!("{messages} messages, {rows} rows, {rejects} rejects"));
        if pipelines.iter().all(Running::is_finished) {
            break false;
        }
    };
    bar.finish_and_clear();
    drop(upkeep);
    let mut failure = None;
    for pipeline in pipelines {
        let name = pipeline.name.clone();
        match if stopped { pipeline.stop().await } else { pipeline.finish().await } {
            Ok(report) => println!("{}", report_line(&report)),
            Err(error) if failure.is_none() => {
                failure = Some(error.context(format!("pipeline {name} failed")));
            }
            Err(error) => eprintln!("error: pipeline {name} failed: {error:#}"),
        }
    }
    town.close().await?;
    failure.map_or(Ok(()), Err)
}

/// A source that listens and never comes to an end.
fn endless_source(pipeline: &Pipeline) -> Option<&str> {
    let endless = |kind: &SourceKind| matches!(kind, SourceKind::Messages { type_name, .. } if type_name.starts_with("mqtt"));
    pipeline.sources.iter().find(|(_, source)| endless(&source.kind)).map(|(name, _)| name.as_str())
}

/// One line on what a run did.
pub fn report_line(report: &RunReport) -> String {
    let rejects = if report.stats.rejects.is_empty() {
        "0 rejects".to_owned()
    } else {
        let by_reason: Vec<String> =
            report.stats.rejects.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        format!("{} rejects ({})", report.rejects(), by_reason.join(", "))
    };
    format!(
        "{}: {} messages, {} rows, {rejects} in {:.1} s",
        report.pipeline,
        report.stats.messages,
        report.rows(),
        (report.finished_us - report.started_us) as f64 / 1e6
    )
}
