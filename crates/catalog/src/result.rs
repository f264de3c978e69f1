//! Results of quality rules: rows of `meta.quality`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use serde::Serialize;
use serde_json::json;
use twinlake_contracts::{Result, TableName};
use twinlake_query::quality_schema;

use crate::rule::{QualityRule, Severity};

/// What `meta.quality` is, in a sentence.
pub(crate) const DESCRIPTION: &str = "Results of the quality rules of tables, by run.";

/// A rule, judged once.
#[derive(Debug, Clone, Serialize)]
pub struct QualityResult {
    /// The table.
    pub table: TableName,
    /// The rule's name.
    pub rule: String,
    /// The rule's kind: `not_null`, `drift`, ….
    pub kind: String,
    /// The columns that it is about.
    pub columns: Vec<String>,
    /// What becomes of it when it does not hold.
    pub severity: Severity,
    /// Whether it holds.
    pub passed: bool,
    /// Rows judged.
    pub rows_checked: i64,
    /// Rows at fault.
    pub rows_failed: i64,
    /// The figure of a rule on a figure.
    pub value: Option<f64>,
    /// What the figure may be at most, or what it is compared with.
    pub threshold: Option<f64>,
    /// What was found, for a person.
    pub detail: String,
    /// A few rows at fault, as JSON.
    pub sample: Option<String>,
}

impl QualityResult {
    /// A rule that holds over that many rows.
    pub(crate) fn new(table: &TableName, rule: &QualityRule, rows_checked: i64, rows_failed: i64) -> Self {
        Self {
            table: table.clone(),
            rule: rule.label(),
            kind: rule.rule.name().to_owned(),
            columns: rule.own_columns(),
            severity: rule.severity,
            passed: rows_failed == 0,
            rows_checked,
            rows_failed,
            value: None,
            threshold: None,
            detail: if rows_failed == 0 {
                String::new()
            } else {
                format!("{rows_failed} of {rows_checked} rows are at fault")
            },
            sample: None,
        }
    }

    /// Whether it must stop what depends on the table.
    pub fn stops(&self) -> bool {
        !self.passed && self.severity == Severity::Stop
    }
}

/// Who judged, for the rows of `meta.quality`.
#[derive(Debug, Clone)]
pub struct Judged<'a> {
    /// The run's identifier.
    pub run_id: &'a str,
    /// When: microseconds since the epoch, UTC.
    pub at_us: i64,
    /// `pipeline` or `check`.
    pub by: &'a str,
    /// The pipeline, if one ran.
    pub pipeline: Option<&'a str>,
}

/// Results as rows of `meta.quality`.
pub(crate) fn to_rows(results: &[QualityResult], judged: &Judged<'_>) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&QualityResult) -> Option<String>| {
        Arc::new(results.iter().map(of).collect::<StringArray>()) as ArrayRef
    };
    let number = |of: &dyn Fn(&QualityResult) -> i64| {
        Arc::new(Int64Array::from_iter_values(results.iter().map(of))) as ArrayRef
    };
    let figure = |of: &dyn Fn(&QualityResult) -> Option<f64>| {
        Arc::new(results.iter().map(of).collect::<Float64Array>()) as ArrayRef
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|_| Some(judged.run_id.to_owned())),
        Arc::new(TimestampMicrosecondArray::from(vec![judged.at_us; results.len()]).with_timezone("UTC")),
        text(&|_| Some(judged.by.to_owned())),
        text(&|_| judged.pipeline.map(str::to_owned)),
        text(&|result| Some(result.table.to_string())),
        text(&|result| Some(result.rule.clone())),
        text(&|result| Some(result.kind.clone())),
        text(&|result| Some(json!(result.columns).to_string())),
        text(&|result| Some(result.severity.name().to_owned())),
        Arc::new(results.iter().map(|result| Some(result.passed)).collect::<BooleanArray>()),
        number(&|result| result.rows_checked),
        number(&|result| result.rows_failed),
        figure(&|result| result.value),
        figure(&|result| result.threshold),
        text(&|result| (!result.detail.is_empty()).then(|| result.detail.clone())),
        text(&|result| result.sample.clone()),
    ];
    Ok(RecordBatch::try_new(quality_schema(), columns)?)
}
