//! A run as a row of `meta.runs`, and back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use serde_json::{Value, json};
use twinlake_contracts::{Error, Result, now_us};
use twinlake_lake::{RunCost, RunRecord};

use crate::columns;
use crate::run_job::Job;
use crate::runs::{Run, RunStatus};

/// The status of a run whose rows are there.
pub(crate) const SUCCEEDED: &str = "succeeded";

/// The row of a run that ended.
pub(crate) fn record(job: &Job, run: &Run) -> RunRecord {
    let (status, summary) = match &run.status {
        RunStatus::Failed { error } if job.cancelled.load(Ordering::Relaxed) => {
            ("cancelled", json!({ "error": error }))
        }
        RunStatus::Failed { error } => ("failed", json!({ "error": error })),
        _ => (SUCCEEDED, Value::Object(run.summary.clone())),
    };
    let mut outputs = serde_json::Map::new();
    if status == SUCCEEDED {
        let shared = job.twins.sharers(&job.model.name);
        let names = shared.iter().map(|(_, binding)| &binding.table).chain([&job.binding.table]);
        let versions = names.filter_map(|name| Some((name, job.twins.lake().table(name)?.version())));
        outputs.extend(versions.map(|(name, version)| (name.to_string(), json!(version))));
    }
    RunRecord {
        run_id: run.run_id.clone(),
        kind: "simulation".into(),
        name: run.operator.clone(),
        version: job.version.clone(),
        status: status.into(),
        scenario: run.scenario.clone(),
        seed: Some(run.seed as i64),
        parameters: json!(run.parameters).to_string(),
        inputs: json!(run.inputs).to_string(),
        outputs: Value::Object(outputs).to_string(),
        rows: run.rows as i64,
        rejects: 0,
        summary: summary.to_string(),
        fingerprint: run.fingerprint.clone(),
        started_at_us: job.started_at_us,
        finished_at_us: Some(now_us()),
        who: Some(twinlake_lake::who()),
        cost: RunCost {
            cpu_us: job.meter.cpu_us(),
            bytes_read: Some(job.bytes_read),
            bytes_written: Some(job.twins.lake().bytes_written(&format!("simulation/{}", run.run_id)) as i64),
        },
    }
}

/// A run from the first row of `meta.runs` given, and the tables that it wrote, of which its own is the first until it is known.
pub(crate) fn read_record(batch: &RecordBatch) -> Result<(Run, Vec<String>)> {
    let text = |name: &str| -> Result<Option<String>> {
        let column = columns::column(batch, "meta.runs", name, &DataType::Utf8)?;
        let strings = column.as_any().downcast_ref::<StringArray>();
        Ok(strings.filter(|strings| strings.is_valid(0)).map(|strings| strings.value(0).to_owned()))
    };
    let number = |name: &str| -> Result<i64> { Ok(columns::integers(batch, "meta.runs", name)?.value(0)) };
    let damaged =
        |error: serde_json::Error| Error::internal(format!("a row of meta.runs is damaged: {error}"));
    let parameters = text("parameters")?.unwrap_or_default();
    let inputs = text("inputs")?.unwrap_or_default();
    let outputs: BTreeMap<String, u64> =
        serde_json::from_str(&text("outputs")?.unwrap_or_default()).map_err(damaged)?;
    let tables: Vec<String> = outputs.into_keys().collect();
    let run = Run {
        run_id: text("run_id")?.unwrap_or_default(),
        operator: text("name")?.unwrap_or_default(),
        scenario: text("scenario")?,
        seed: number("seed")? as u64,
        parameters: serde_json::from_str(&parameters).map_err(damaged)?,
        fingerprint: text("fingerprint")?.unwrap_or_default(),
        inputs: serde_json::from_str(&inputs).map_err(damaged)?,
        table: tables.first().cloned().unwrap_or_default(),
        reused: true,
        summary: serde_json::from_str(&text("summary")?.unwrap_or_default()).map_err(damaged)?,
        rows: number("rows")? as u64,
        status: RunStatus::Succeeded,
    };
    Ok((run, tables))
}
