//! Lineage as rows of `meta.lineage`: recorded whenever it has changed, read back as it is now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde::Serialize;
use twinlake_contracts::{Result, now_us};
use twinlake_query::lineage_schema;

use crate::catalog::Catalog;
use crate::rows::Rows;
use crate::rule::text;

/// What `meta.lineage` is, in a sentence.
const DESCRIPTION: &str =
    "Which step takes and gives which tables and columns; all rows again each time that it changed.";

/// One arrow of `meta.lineage`; see [`twinlake_query::lineage_schema`] for what is null when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LineageEdge {
    /// The pipeline, or `twin/<model>`.
    pub pipeline: String,
    /// The source, transform, sink or twin model.
    pub step: String,
    /// Its type: `mqtt`, `sql`, `clean`, `lake`, `twin`, ….
    pub kind: String,
    /// The table or step that it takes.
    pub input: String,
    /// The table or step that it gives.
    pub output: String,
    /// The column that it takes.
    pub input_column: Option<String>,
    /// The column that it gives.
    pub output_column: Option<String>,
    /// `direct`, `computed`, `aggregate`, `filter` or `join`.
    pub dependency: Option<String>,
    /// What is computed.
    pub expression: Option<String>,
}

impl Catalog {
    /// The lineage of everything as it is now: of each pipeline its newest rows.
    pub async fn lineage(&self) -> Result<Vec<LineageEdge>> {
        self.newest_lineage("true").await
    }

    async fn newest_lineage(&self, condition: &str) -> Result<Vec<LineageEdge>> {
        let sql = format!(
            "SELECT own.* FROM meta.lineage AS own JOIN (SELECT pipeline AS name, max(recorded_at) AS newest \
             FROM meta.lineage WHERE {condition} GROUP BY pipeline) AS newest \
             ON own.pipeline = newest.name AND own.recorded_at = newest.newest"
        );
        let found = self.session()?.collect(&sql).await?;
        let mut edges: Vec<LineageEdge> = Rows::new(&found)?
            .map(|row| {
                let own = |name: &str| row.text(name).unwrap_or_default();
                LineageEdge {
                    pipeline: own("pipeline"),
                    step: own("step"),
                    kind: own("kind"),
                    input: own("input"),
                    output: own("output"),
                    input_column: row.text("input_column"),
                    output_column: row.text("output_column"),
                    dependency: row.text("dependency"),
                    expression: row.text("expression"),
                }
            })
            .collect();
        edges.sort();
        edges.dedup();
        Ok(edges)
    }

    /// Puts the lineage of pipelines into `meta.lineage`, of each all rows, if it is not as it was recorded last. A
    /// pipeline has one name in all of its edges.
    pub async fn record_lineage(&self, edges: &[LineageEdge]) -> Result<()> {
        let mut by_pipeline: BTreeMap<&str, BTreeSet<&LineageEdge>> = BTreeMap::new();
        for edge in edges {
            by_pipeline.entry(&edge.pipeline).or_default().insert(edge);
        }
        let names: Vec<String> = by_pipeline.keys().map(|name| text(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let known = self.newest_lineage(&format!("pipeline IN ({})", names.join(", "))).await?;
        let mut changed: Vec<&LineageEdge> = Vec::new();
        for (name, own) in by_pipeline {
            let recorded: BTreeSet<&LineageEdge> =
                known.iter().filter(|edge| edge.pipeline == name).collect();
            if recorded != own {
                changed.extend(own);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        self.lake().append_meta("meta.lineage", DESCRIPTION, to_rows(&changed)?).await
    }
}

fn to_rows(edges: &[&LineageEdge]) -> Result<RecordBatch> {
    let column = |of: &dyn Fn(&LineageEdge) -> Option<&String>| -> ArrayRef {
        Arc::new(edges.iter().map(|edge| of(edge).map(String::as_str)).collect::<StringArray>())
    };
    let columns = vec![
        column(&|edge| Some(&edge.pipeline)),
        column(&|edge| Some(&edge.step)),
        column(&|edge| Some(&edge.kind)),
        column(&|edge| Some(&edge.input)),
        column(&|edge| Some(&edge.output)),
        Arc::new(TimestampMicrosecondArray::from(vec![now_us(); edges.len()]).with_timezone("UTC")),
        column(&|edge| edge.input_column.as_ref()),
        column(&|edge| edge.output_column.as_ref()),
        column(&|edge| edge.dependency.as_ref()),
        column(&|edge| edge.expression.as_ref()),
    ];
    Ok(RecordBatch::try_new(lineage_schema(), columns)?)
}
