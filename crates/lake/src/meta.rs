//! Metadata as tables: `meta.runs`, which the lake writes, and `meta.datasets`, which it computes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::json;
use twinlake_contracts::{
    Error, Result, TableName, TableSpec, TableWriter as _, WriteMode, crs_of, is_geometry, timestamp_type,
};

use crate::lake::Lake;
use crate::table::LakeTable;

const META_WRITER: &str = "meta";
const RUNS_WRITER: &str = "meta/runs";
const RUNS_DESCRIPTION: &str =
    "Runs of pipelines, simulations and queries: what ran, on which versions, with what result.";

/// One row of `meta.runs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// Identifies the run.
    pub run_id: String,
    /// `pipeline`, `simulation` or `query`.
    pub kind: String,
    /// The pipeline's or operator's name.
    pub name: String,
    /// The version of what ran.
    pub version: String,
    /// `running`, `succeeded`, `failed` or `cancelled`.
    pub status: String,
    /// The scenario, if the run had one.
    pub scenario: Option<String>,
    /// The seed, if the run had one.
    pub seed: Option<i64>,
    /// Parameters, as JSON.
    pub parameters: String,
    /// Tables read with their versions, as JSON.
    pub inputs: String,
    /// Tables written with their versions, as JSON.
    pub outputs: String,
    /// Rows that came out.
    pub rows: i64,
    /// Rows or messages refused.
    pub rejects: i64,
    /// What the run says of itself, as JSON.
    pub summary: String,
    /// SHA-256 in hex of operator, version, parameters, seed and inputs: equal runs have equal fingerprints.
    pub fingerprint: String,
    /// When it started: microseconds since the epoch, UTC.
    pub started_at_us: i64,
    /// When it ended, if it has.
    pub finished_at_us: Option<i64>,
    /// Who started it.
    pub who: Option<String>,
    /// What it cost.
    pub cost: RunCost,
}

/// Is told of runs when they are recorded; it must not wait.
pub type RunObserver = Arc<dyn Fn(&RunRecord) + Send + Sync>;

/// What a run cost; `None` where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCost {
    /// Microseconds of CPU time; of those that runs at the same time in one process used together, an equal share.
    pub cpu_us: Option<i64>,
    /// Bytes read: payloads of messages, files, or the columns of a simulation's inputs.
    pub bytes_read: Option<i64>,
    /// Bytes of data files committed into tables.
    pub bytes_written: Option<i64>,
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn number(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn figure(name: &str) -> Field {
    Field::new(name, DataType::Float64, true)
}

fn instant(name: &str) -> Field {
    Field::new(name, timestamp_type(), true)
}

/// The columns of `meta.runs`.
pub fn runs_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("run_id"),
        text("kind"),
        text("name"),
        text("version"),
        text("status"),
        text("scenario"),
        number("seed"),
        text("parameters"),
        text("inputs"),
        text("outputs"),
        number("rows"),
        number("rejects"),
        text("summary"),
        text("fingerprint"),
        instant("started_at"),
        instant("finished_at"),
        text("who"),
        figure("cpu_s"),
        figure("wall_s"),
        number("bytes_read"),
        number("bytes_written"),
    ]))
}

/// The columns of `meta.datasets`. `columns` is JSON: a list of `{name, type, crs}`, `crs` for geometries only.
/// `rows`, `files` and `bytes` are those of `version`; `fresh_rows` wait for their commit beside them.
pub fn datasets_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("name"),
        text("description"),
        text("columns"),
        number("rows"),
        number("files"),
        number("bytes"),
        number("version"),
        number("fresh_rows"),
        instant("updated_at"),
        text("location"),
    ]))
}

fn texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn numbers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn figures(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

fn instants(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

impl RunRecord {
    fn to_batch(&self) -> Result<RecordBatch> {
        let columns = vec![
            texts([Some(self.run_id.as_str())]),
            texts([Some(self.kind.as_str())]),
            texts([Some(self.name.as_str())]),
            texts([Some(self.version.as_str())]),
            texts([Some(self.status.as_str())]),
            texts([self.scenario.as_deref()]),
            numbers([self.seed]),
            texts([Some(self.parameters.as_str())]),
            texts([Some(self.inputs.as_str())]),
            texts([Some(self.outputs.as_str())]),
            numbers([Some(self.rows)]),
            numbers([Some(self.rejects)]),
            texts([Some(self.summary.as_str())]),
            texts([Some(self.fingerprint.as_str())]),
            instants([Some(self.started_at_us)]),
            instants([self.finished_at_us]),
            texts([self.who.as_deref()]),
            figures([self.cost.cpu_us.map(|us| us as f64 / 1e6)]),
            figures([self.finished_at_us.map(|end| (end - self.started_at_us) as f64 / 1e6)]),
            numbers([self.cost.bytes_read]),
            numbers([self.cost.bytes_written]),
        ];
        Ok(RecordBatch::try_new(runs_schema(), columns)?)
    }
}

fn columns_of(table: &LakeTable) -> String {
    let schema = table.schema();
    let column = |field: &Arc<Field>| {
        let mut described = json!({ "name": field.name(), "type": field.data_type().to_string() });
        if is_geometry(field) {
            described["crs"] = json!(crs_of(field));
        }
        described
    };
    serde_json::Value::from(schema.fields().iter().map(column).collect::<Vec<_>>()).to_string()
}

impl Lake {
    async fn runs(&self) -> Result<Arc<LakeTable>> {
        let name = TableName::parse("meta.runs")?;
        // A table of an older version lacks the newest columns: opening it for writing adds them.
        let newest = runs_schema().fields().last().map(|field| field.name().clone()).unwrap_or_default();
        if let Some(table) = self.table(&name)
            && table.schema().column_with_name(&newest).is_some()
        {
            return Ok(table);
        }
        let spec = TableSpec { name, schema: runs_schema(), description: RUNS_DESCRIPTION.to_owned() };
        self.open_lake_table(spec).await
    }

    /// Adds a row to `meta.runs`; it is durable when this returns. Each call adds one row: record a run when it ends,
    /// or twice, when it starts (`running`) and when it ends. When the commit fails, the row is visible in this process
    /// all the same and is committed with the next one or by [`Lake::flush`].
    pub async fn record_run(&self, run: RunRecord) -> Result<()> {
        self.observed(&run);
        let table = self.runs().await?;
        table.add_fresh(RUNS_WRITER, run.to_batch()?).await?;
        table.commit_rows(RUNS_WRITER, None, WriteMode::Append).await?;
        Ok(())
    }

    /// Adds rows to a table about tables (`meta.…`), which is created or grown as they need it; they are durable when
    /// this returns. Each call adds its rows: nothing tells a call made again from another one.
    pub async fn append_meta(&self, name: &str, description: &str, rows: RecordBatch) -> Result<()> {
        let name = TableName::parse(name)?;
        let spec = TableSpec { name, schema: rows.schema(), description: description.to_owned() };
        let table = self.open_lake_table(spec).await?;
        let writer = format!("{META_WRITER}/{}", table.name().table);
        table.add_fresh(&writer, rows).await?;
        table.commit_rows(&writer, None, WriteMode::Append).await?;
        Ok(())
    }

    /// How many bytes of data files a writer (or all writers whose names begin so) has committed in this process.
    pub fn bytes_written(&self, writer: &str) -> u64 {
        self.tables().iter().map(|table| table.bytes_written(writer)).sum()
    }

    pub(crate) async fn flush_runs(&self) -> Result<()> {
        match self.table(&TableName::parse("meta.runs")?) {
            Some(table) if table.fresh_bytes() > 0 => {
                table.commit_rows(RUNS_WRITER, None, WriteMode::Append).await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// `meta.datasets`: every table of the lake with what it holds now, by name.
    pub async fn datasets(&self) -> Result<RecordBatch> {
        let tables = self.tables();
        let mut stats = Vec::with_capacity(tables.len());
        for table in &tables {
            // News of other processes; a table that cannot be reached is shown as it was last seen.
            if let Err(error) = table.provider().await {
                tracing::debug!(table = %table.name(), %error, "shown as last seen");
            }
            stats.push(table.stats());
        }
        let names: Vec<String> = tables.iter().map(|table| table.name().to_string()).collect();
        let descriptions: Vec<String> = tables.iter().map(|table| table.description()).collect();
        let columns: Vec<String> = tables.iter().map(|table| columns_of(table)).collect();
        let locations: Vec<String> = tables.iter().map(|table| table.location()).collect();
        let strings = |values: &[String]| texts(values.iter().map(|value| Some(value.as_str())));
        let arrays = vec![
            strings(&names),
            strings(&descriptions),
            strings(&columns),
            numbers(stats.iter().map(|stats| Some(stats.rows as i64))),
            numbers(stats.iter().map(|stats| Some(stats.files as i64))),
            numbers(stats.iter().map(|stats| Some(stats.bytes as i64))),
            numbers(stats.iter().map(|stats| Some(stats.version as i64))),
            numbers(stats.iter().map(|stats| Some(stats.fresh_rows as i64))),
            instants(stats.iter().map(|stats| stats.updated_at_us)),
            strings(&locations),
        ];
        RecordBatch::try_new(datasets_schema(), arrays).map_err(Error::from)
    }
}
