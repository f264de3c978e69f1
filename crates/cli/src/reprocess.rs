//! `twinlake reprocess`: past messages through a pipeline again.

#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::sync::watch;
use twinlake_cluster::Cluster;
use twinlake_contracts::{SqlEngine, TableStore, format_us, now_us};
use twinlake_lake::{Lake, RunRecord};
use twinlake_pipeline::{Estimate, Plan, Reprocess, ReprocessReport};

use crate::arguments::ReprocessOptions;
use crate::pieces::Pieces;
use crate::settings::Settings;
use crate::town::Town;
use crate::{apply, governance, pipelines, progress};

/// Runs it, shows how far it is, and records the run.
pub async fn run(settings: &Settings, options: &ReprocessOptions) -> Result<()> {
    let town = Town::open(settings).await?;
    let mut plan = pipelines::load(&options.file, &town.engine, &[]).await?;
    if let Some(node) = &town.node {
        plan.pipeline.name = format!("{}.{node}", plan.pipeline.name);
    }
    let below = if options.downstream { apply::downstream(&town, &plan).await? } else { Vec::new() };
    let (name, file_text) = (plan.pipeline.name.clone(), plan.pipeline.text().to_owned());
    // The rules of tables that reject rows on their way reject the same ones again.
    let plan = governance::guarded(&town, plan).await?;
    let pieces = match settings.engine.as_ref().filter(|_| !options.dry_run) {
        None => None,
        Some(address) => {
            match Pieces::new(Cluster::new(address.clone())?, &town.lake, &plan, &options.file) {
                Ok(pieces) => Some(Arc::new(pieces)),
                Err(reason) => {
                    tracing::warn!("the messages run here and not on {address}: {reason}");
                    None
                }
            }
        }
    };
    let mut reprocess = prepare(&town, plan, options);
    if let Some(pieces) = pieces {
        reprocess = reprocess.with_workers(pieces);
    }
    if options.dry_run {
        let estimate = reprocess.estimate().await?;
        let text = if options.json { serde_json::to_string(&estimate)? } else { tell_estimate(&estimate) };
        println!("{}", text.trim_end());
        for plan in below {
            println!("then: {}", plan.pipeline.name);
        }
        return Ok(());
    }
    let (stop, stopped) = watch::channel(false);
    let mut advance = reprocess.advance();
    let bar = progress::bar(settings.progress, "reprocessing", 0, "messages");
    let work = reprocess.run(stopped);
    tokio::pin!(work);
    // One future for the whole run: a signal that comes between two of them would be lost.
    let interrupted = crate::serve::interrupted();
    tokio::pin!(interrupted);
    let begin = std::time::Instant::now();
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            () = &mut interrupted, if !*stop.borrow() => {
                bar.set_message("ends after this piece");
                stop.send_replace(true);
            }
            _ = advance.changed() => {
                let now = *advance.borrow_and_update();
                bar.set_length(now.all);
                bar.set_position(now.done);
                if now.done > 0 && !*stop.borrow() {
                    let left = now.all.saturating_sub(now.done) as f64 / now.done as f64;
                    bar.set_message(format!("{} left", length(begin.elapsed().mul_f64(left))));
                }
            }
        }
    };
    bar.finish_and_clear();
    record(&town.lake, options, &outcome).await;
    let report = outcome?;
    let text = if options.json { serde_json::to_string(&report)? } else { tell(&report) };
    println!("{}", text.trim_end());
    if options.from.is_none() && options.to.is_none() && options.condition.is_none() {
        apply::rebuilt(&town, &name, &file_text).await?;
    }
    for plan in below {
        println!("then: {}", plan.pipeline.name);
        apply::rebuild(&town, plan).await?;
    }
    town.close().await?;
    Ok(())
}

fn prepare(town: &Town, plan: Plan, options: &ReprocessOptions) -> Reprocess {
    let store: Arc<dyn TableStore> = Arc::clone(&town.lake) as _;
    let engine: Arc<dyn SqlEngine> = Arc::clone(&town.engine) as _;
    let choice = twinlake_pipeline::ReprocessOptions {
        from_us: options.from,
        to_us: options.to,
        condition: options.condition.clone(),
        warm_up_us: options.warm_up,
        stale: options.stale,
        parallel: options.parallel,
        piece_messages: options.piece,
    };
    Reprocess::new(plan, store, engine, choice)
}

/// A row of `meta.runs`.
async fn record(
    lake: &Lake,
    options: &ReprocessOptions,
    outcome: &twinlake_contracts::Result<ReprocessReport>,
) {
    let parameters = json!({
        "file": options.file,
        "from": options.from.map(format_us),
        "to": options.to.map(format_us),
        "where": options.condition,
        "stale": options.stale,
        "parallel": options.parallel,
    });
    let mut run = RunRecord {
        kind: "reprocess".to_owned(),
        name: options.file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: parameters.to_string(),
        inputs: "{}".to_owned(),
        outputs: "{}".to_owned(),
        finished_at_us: Some(now_us()),
        who: Some(twinlake_lake::who()),
        ..RunRecord::default()
    };
    match outcome {
        Ok(report) => {
            let versions: serde_json::Map<_, _> =
                report.tables.iter().map(|(name, table)| (name.clone(), json!(table.version))).collect();
            run.run_id.clone_from(&report.run_id);
            run.name.clone_from(&report.pipeline);
            "succeeded".clone_into(&mut run.status);
            run.started_at_us = report.started_us;
            run.outputs = json!(versions).to_string();
            let come = |reject: bool| -> u64 {
                let tables = report.tables.iter().filter(|(name, _)| (*name == "meta.rejects") == reject);
                tables.map(|(_, table)| table.rows_come).sum()
            };
            (run.rows, run.rejects) = (come(false) as i64, come(true) as i64);
            run.summary = json!(report).to_string();
        }
        Err(error) => {
            run.run_id = format!("{}-reprocess-{}", run.name, now_us());
            "failed".clone_into(&mut run.status);
            run.started_at_us = now_us();
            run.summary = json!({ "error": error.to_string() }).to_string();
        }
    }
    if let Err(error) = lake.record_run(run).await {
        tracing::warn!("the run is not recorded in meta.runs: {error}");
    }
}

/// A length of time in the two largest units.
fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

fn tell_estimate(estimate: &Estimate) -> String {
    let mut text = format!(
        "{}: {} messages to run again ({} with those before that steps remember), up to number {}; about {}\n",
        estimate.pipeline,
        estimate.messages,
        estimate.replayed,
        estimate.cut,
        length(Duration::from_secs_f64(estimate.seconds.max(0.0)))
    );
    for (name, table) in &estimate.tables {
        let _ = writeln!(
            text,
            "  {name}: at most {} rows in {} files are exchanged",
            table.rows_gone, table.files
        );
    }
    notes(&mut text, &estimate.notes);
    text.push_str("dry run: nothing has changed");
    text
}

fn tell(report: &ReprocessReport) -> String {
    let mut text = format!(
        "{}: {} messages run again ({} in all) in {:.1} s{}\n",
        report.pipeline,
        report.messages,
        report.replayed,
        (report.finished_us - report.started_us) as f64 / 1e6,
        if report.resumed { ", gone on with after an interruption" } else { "" }
    );
    for (name, table) in &report.tables {
        let _ = writeln!(
            text,
            "  {name}: {} rows went, {} came, version {}",
            table.rows_gone, table.rows_come, table.version
        );
    }
    notes(&mut text, &report.notes);
    text
}

fn notes(text: &mut String, notes: &[String]) {
    for note in notes {
        let _ = writeln!(text, "note: {note}");
    }
}
