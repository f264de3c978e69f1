//! `twinlake check`: the quality rules of tables, judged over the lake.

use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use twinlake_catalog::{Judged, QualityResult};
use twinlake_contracts::now_us;
use twinlake_query::output;

use crate::WrongUse;
use crate::arguments::CheckOptions;
use crate::governance::table_names;
use crate::printed::Printed;
use crate::settings::Settings;
use crate::sql::print_format;
use crate::town::Town;

/// Judges, records, prints; an error when a rule with severity `stop` does not hold.
pub async fn check(settings: &Settings, options: &CheckOptions) -> Result<()> {
    let tables = table_names(&options.tables)
        .map_err(|error| WrongUse(twinlake_contracts::Error::config(error.to_string())))?;
    let town = Town::open(settings).await?;
    let results = town.catalog.check(&tables).await?;
    let at_us = now_us();
    let run_id = format!("check-{at_us}");
    town.catalog.record_definitions().await?;
    let judged = Judged { run_id: &run_id, at_us, by: "check", pipeline: None };
    town.catalog.record_quality(&results, &judged).await?;
    let rows = shown(&results)?;
    output::write(print_format(options.format), &rows.schema(), &[rows], &mut Printed::new())?;
    let stops = results.iter().filter(|result| result.stops()).count();
    town.close().await?;
    if stops > 0 {
        bail!("{stops} of {} rules with severity stop do not hold", results.len());
    }
    Ok(())
}

/// Results as rows for people.
pub fn shown(results: &[QualityResult]) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&QualityResult) -> String| {
        Arc::new(results.iter().map(|result| Some(of(result))).collect::<StringArray>()) as ArrayRef
    };
    let number = |of: &dyn Fn(&QualityResult) -> i64| {
        Arc::new(Int64Array::from_iter_values(results.iter().map(of))) as ArrayRef
    };
    Ok(RecordBatch::try_from_iter([
        ("table", text(&|result| result.table.to_string())),
        ("rule", text(&|result| result.rule.clone())),
        ("severity", text(&|result| result.severity.name().to_owned())),
        (
            "passed",
            Arc::new(results.iter().map(|result| Some(result.passed)).collect::<BooleanArray>()) as ArrayRef,
        ),
        ("checked", number(&|result| result.rows_checked)),
        ("failed", number(&|result| result.rows_failed)),
        ("detail", text(&|result| result.detail.clone())),
    ])?)
}
