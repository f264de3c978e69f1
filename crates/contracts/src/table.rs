//! Tables as the writers of rows see them; the lake implements these traits.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, MessageLog, Rejects, Result, Revised, Revision, Sequences, StagedFile};

/// The column, in every table fed by a pipeline, that holds when the row's message became known here.
pub const INGESTED_AT: &str = "_ingested_at";
/// The column, in every table fed by a pipeline, that holds the log sequence of the row's message (Int64, may be null).
pub const SEQUENCE: &str = "_sequence";

/// `schema.table`, each part a lower-case word of letters, digits and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    /// The schema, for example `traffic`.
    pub schema: String,
    /// The table, for example `vehicle_position`.
    pub table: String,
}

impl TableName {
    /// Parses `schema.table`.
    pub fn parse(text: &str) -> Result<Self> {
        let word = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        match text.split_once('.') {
            Some((schema, table)) if word(schema) && word(table) => {
                Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
            }
            _ => Err(Error::config(format!("'{text}' is not a table name"))
                .with_help("write schema.table in lower-case words, for example traffic.vehicle_position")),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl TryFrom<String> for TableName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

/// What a table is, asked for by whoever writes it.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Its name.
    pub name: TableName,
    /// Its columns, as the writer gives them (the lake adds its own, such as `_h3` beside a geometry).
    pub schema: SchemaRef,
    /// A sentence for people; may be empty.
    pub description: String,
}

/// How a writer's rows meet the rows that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Rows are added.
    #[default]
    Append,
    /// The writer's rows take the place of all rows, in one commit.
    Replace,
}

/// Opens tables, logs and states: the lake as pipelines see it.
#[async_trait]
pub trait TableStore: Send + Sync {
    /// Opens a table, creating it if it does not exist. An existing table whose columns do not fit is an error that
    /// names the columns.
    async fn open_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>>;

    /// Like [`TableStore::open_table`], but columns that the table lacks are added to it: nullable, earlier rows show
    /// null, in a commit of their own. A column that is there with another type is an error that names it. Writers
    /// opened before go on working.
    async fn grow_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>> {
        Err(Error::config(format!("the columns of '{}' cannot be changed here", spec.name)))
    }

    /// What a table is now: its columns as it holds them, with their metadata, and its description; `None` when there is
    /// no table of that name.
    async fn describe_table(&self, name: &TableName) -> Result<Option<TableSpec>> {
        Err(Error::config(format!("the table '{name}' cannot be described here")))
    }

    /// Opens the durable log of a pipeline; an error when another process holds it.
    async fn open_log(&self, pipeline: &str) -> Result<Arc<dyn MessageLog>>;

    /// Stores the operator state that belongs to log sequence `sequence`; durable when it returns. States older than
    /// `keep_from` may go.
    async fn put_state(&self, pipeline: &str, sequence: u64, keep_from: u64, state: Vec<u8>) -> Result<()>;

    /// The operator state of the highest sequence that has one, with that sequence.
    async fn newest_state(&self, pipeline: &str) -> Result<Option<(u64, Vec<u8>)>> {
        Err(Error::config(format!("the states of '{pipeline}' cannot be listed here")))
    }

    /// The operator state stored for exactly that sequence.
    async fn state(&self, pipeline: &str, sequence: u64) -> Result<Option<Vec<u8>>>;
}

/// Writes one table. Many writers may share a table; each has a name of its own (`pipeline/sink`).
#[async_trait]
pub trait TableWriter: Send + Sync {
    /// The table's name.
    fn name(&self) -> &TableName;

    /// The highest log sequence that `writer` has committed; `None` when it never committed.
    async fn committed(&self, writer: &str) -> Result<Option<u64>>;

    /// Makes rows visible to queries of this process at once. They are not durable before [`TableWriter::commit`].
    async fn add_fresh(&self, writer: &str, rows: RecordBatch) -> Result<()>;

    /// The rows that [`TableWriter::add_fresh`] would refuse, by the table's constraints.
    async fn violations(&self, rows: &RecordBatch) -> Result<Rejects> {
        let _ = rows;
        Ok(Rejects::default())
    }

    /// Commits all fresh rows of `writer` and the sequence `upto` in one Delta transaction; returns the table's new
    /// version. A second call with an `upto` not above the committed one changes nothing. On error nothing is lost:
    /// the fresh rows stay, and the call may be made again.
    async fn commit(&self, writer: &str, upto: u64, mode: WriteMode) -> Result<u64>;

    /// Stores rows of `writer` as data files beside the table. They are durable when this returns and belong to the
    /// table only when [`TableWriter::revise`] names them.
    async fn stage(&self, writer: &str, rows: RecordBatch) -> Result<Vec<StagedFile>> {
        let _ = (writer, rows);
        Err(self.fixed())
    }

    /// What [`TableWriter::revise`] would take away, from the files' statistics: at most so many rows. Reads no rows.
    async fn affected(&self, writer: &str, gone: &Sequences) -> Result<Revised> {
        let _ = (writer, gone);
        Err(self.fixed())
    }

    /// Exchanges the committed rows of one writer that come from certain messages for staged ones, in one commit that
    /// other commits (appends, compaction) may precede or follow but never lose. A key that was used before changes
    /// nothing.
    async fn revise(&self, revision: Revision<'_>) -> Result<Revised> {
        let _ = revision;
        Err(self.fixed())
    }

    /// The error of a table whose committed rows cannot be exchanged.
    #[doc(hidden)]
    fn fixed(&self) -> Error {
        Error::config(format!("committed rows of '{}' cannot be exchanged here", self.name()))
    }
}
