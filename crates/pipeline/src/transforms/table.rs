//! Tables beside the stream: read as a whole when the first rows come, and kept in memory for the run.
//!
//! What a table holds is a part of the pipeline, like its settings: a stretch of the stream that is processed again (after a
//! crash, or later) gives the same rows only with the same table.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema as JsonSchemaOf, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use twinlake_contracts::{
    ColumnEdge, Decoder, Error, Location, Message, Position, Reader, Rejects, Result, SqlEngine,
    timestamp_type,
};

use super::TransformContext;
use crate::normalise::{normal_schema, normalise};

/// Where a table comes from: a file with a `decoder` or `reader`, or a `query` over the lake.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TableSettings {
    /// Where the file lies, relative to the pipeline file.
    path: Option<String>,
    /// What reads the file, whole: for example `{ type = "csv", columns = { stop_id = "utf8", name = "utf8" } }`.
    #[schemars(schema_with = "decoder_schema")]
    decoder: Option<Map<String, Json>>,
    /// What reads a large file, in place of `decoder`.
    #[schemars(schema_with = "reader_schema")]
    reader: Option<Map<String, Json>>,
    /// A query over tables of the lake, in place of `path`. It is asked once, when the first rows come.
    query: Option<String>,
    /// The columns of the query's result with their types.
    #[serde(default)]
    columns: IndexMap<String, ColumnType>,
}

fn decoder_schema(_: &mut SchemaGenerator) -> JsonSchemaOf {
    json_schema!({ "$ref": "#/$defs/decoder" })
}

fn reader_schema(_: &mut SchemaGenerator) -> JsonSchemaOf {
    json_schema!({ "$ref": "#/$defs/reader" })
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ColumnType {
    /// `true` or `false`.
    Boolean,
    /// A whole number from -2^63 to 2^63-1.
    Int64,
    /// A number.
    Float64,
    /// Text.
    Utf8,
    /// A time stamp in UTC.
    Timestamp,
    /// Bytes, or a geometry as WKB.
    Binary,
}

impl ColumnType {
    fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Utf8 => DataType::Utf8,
            Self::Timestamp => timestamp_type(),
            Self::Binary => DataType::Binary,
        }
    }
}

/// Where a table's columns come from: a file, or the tables of a query.
pub(super) struct TableLineage {
    name: String,
    edges: Option<Vec<ColumnEdge>>,
}

impl TableLineage {
    /// The sources of a column.
    pub fn of(&self, column: &str) -> impl Iterator<Item = ColumnEdge> {
        let found = match &self.edges {
            Some(edges) => {
                edges.iter().filter(|edge| edge.output.as_deref() == Some(column)).cloned().collect()
            }
            None => vec![ColumnEdge::direct(column, &self.name, column)],
        };
        found.into_iter()
    }
}

/// A table that can be read; its schema is known before.
pub(super) struct Table {
    from: From,
    /// In normal types.
    pub schema: SchemaRef,
}

enum From {
    Decoded(String, Arc<dyn Decoder>),
    Read(String, Arc<dyn Reader>),
    Asked(String, Arc<dyn SqlEngine>),
}

impl TableSettings {
    /// Checks the settings; opens nothing.
    pub fn build(&self, context: &TransformContext<'_>) -> Result<Table> {
        let (from, schema) = match (&self.path, &self.query) {
            (Some(path), None) => self.file(path, context)?,
            (None, Some(query)) => {
                if self.columns.is_empty() {
                    return Err(Error::config("a table with a 'query' needs the key 'columns'")
                        .with_help("columns = { stop_id = \"utf8\", name = \"utf8\" }"));
                }
                if self.decoder.is_some() || self.reader.is_some() {
                    return Err(Error::config("a table with a 'query' has no decoder or reader"));
                }
                let fields = self.columns.iter().map(|(name, kind)| Field::new(name, kind.arrow(), true));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                (From::Asked(query.clone(), Arc::clone(&context.engine)), schema)
            }
            _ => {
                return Err(Error::config("a 'table' is either a file or a query").with_help(
                    "table = { path = \"stops.csv\", decoder = { type = \"csv\", … } } or { query = \"SELECT …\", columns = { … } }",
                ));
            }
        };
        Ok(Table { from, schema: normal_schema(&schema)? })
    }

    /// Where its columns come from.
    pub async fn lineage(&self, context: &TransformContext<'_>) -> Result<TableLineage> {
        let (name, edges) = match (&self.path, &self.query) {
            (Some(path), _) => (path.clone(), None),
            (None, Some(query)) => {
                let edges = context.engine.table_lineage(query).await?;
                (format!("({})", query.split_whitespace().collect::<Vec<_>>().join(" ")), edges)
            }
            (None, None) => (String::new(), None),
        };
        Ok(TableLineage { name, edges })
    }

    fn file(&self, path: &str, context: &TransformContext<'_>) -> Result<(From, SchemaRef)> {
        if !self.columns.is_empty() {
            return Err(Error::config("'columns' of a table belongs to a 'query'")
                .with_help("the decoder has columns of its own"));
        }
        let components = &context.components;
        match (&self.decoder, &self.reader) {
            (Some(own), None) => {
                let (type_name, settings) = component("decoder", own)?;
                let decoder: Arc<dyn Decoder> = components.decoders.build(&type_name, settings)?.into();
                let schema = decoder.schema();
                Ok((From::Decoded(path.to_owned(), decoder), schema))
            }
            (None, Some(own)) => {
                let (type_name, settings) = component("reader", own)?;
                let reader: Arc<dyn Reader> = components.readers.build(&type_name, settings)?.into();
                let schema = reader.schema();
                Ok((From::Read(path.to_owned(), reader), schema))
            }
            _ => Err(Error::config("a table with a 'path' needs either a decoder or a reader")
                .with_help("decoder = { type = \"csv\", columns = { stop_id = \"utf8\" } }")),
        }
    }
}

/// The type and the settings of a component.
fn component(kind: &str, own: &Map<String, Json>) -> Result<(String, Json)> {
    let mut own = own.clone();
    match own.shift_remove("type") {
        Some(Json::String(type_name)) => Ok((type_name, Json::Object(own))),
        _ => Err(Error::config(format!("the '{kind}' of a table has no 'type'"))
            .with_help(format!("{kind} = {{ type = \"…\" }}"))),
    }
}

impl Table {
    /// Reads all rows.
    pub async fn read(&self) -> Result<RecordBatch> {
        let batches = match &self.from {
            From::Decoded(path, decoder) => {
                let (path, decoder) = (path.clone(), Arc::clone(decoder));
                blocking(move || decode(&path, decoder.as_ref())).await?
            }
            From::Read(path, reader) => {
                let (location, reader) = (Location(path.into()), Arc::clone(reader));
                blocking(move || reader.read(&location)?.collect()).await?
            }
            From::Asked(query, engine) => {
                let batches = engine.read_tables(query).await?;
                return self.conform(query, &batches);
            }
        };
        let normal = batches.iter().map(|rows| {
            let (rows, lost) = normalise(rows, &self.schema)?;
            match lost.first() {
                None => Ok(rows),
                Some(lost) => Err(Error::config(format!("a value of '{}' is out of range", lost.column))),
            }
        });
        Ok(concat_batches(&self.schema, &normal.collect::<Result<Vec<_>>>()?)?)
    }

    /// The result of a query in the columns that were promised.
    fn conform(&self, query: &str, batches: &[RecordBatch]) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let conformed = batches.iter().map(|batch| {
            let columns = self.schema.fields().iter().map(|field| {
                let own = batch.column_by_name(field.name()).ok_or_else(|| {
                    Error::config(format!("the query has no column '{}': {query}", field.name()))
                })?;
                cast_with_options(own, field.data_type(), &options).map_err(|error| {
                    Error::config(format!("the column '{}' of the query: {error}", field.name()))
                })
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Ok(RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?)
        });
        Ok(concat_batches(&self.schema, &conformed.collect::<Result<Vec<_>>>()?)?)
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<Vec<RecordBatch>> + Send + 'static,
) -> Result<Vec<RecordBatch>> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("reading a table was broken off: {error}")))?
}

/// A file as one message.
fn decode(path: &str, decoder: &dyn Decoder) -> Result<Vec<RecordBatch>> {
    let payload = std::fs::read(path).map_err(|error| Error::permanent(path, error))?;
    let message = Message {
        payload: Bytes::from(payload),
        origin: path.into(),
        position: Position { ordinal: 1, token: String::new() },
        received_at_us: 0,
    };
    let mut rejects = Rejects::default();
    let rows = decoder.decode(&[message], &mut rejects, &mut Vec::new())?;
    match rejects.0.first() {
        None => Ok(vec![rows]),
        Some(reject) => {
            let more = rejects.0.len() - 1;
            let message = format!(
                "the table {path} is damaged: {}: {} (and {more} more)",
                reject.reason, reject.detail
            );
            Err(Error::config(message))
        }
    }
}
