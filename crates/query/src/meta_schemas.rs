//! The columns of the tables of `meta` that stand from the beginning, without rows until something happens.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use twinlake_contracts::{INGESTED_AT, SEQUENCE, timestamp_type};

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, kind): &(&str, DataType)| Field::new(*name, kind.clone(), true);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// The columns of `meta.rejects`.
pub fn rejects_schema() -> SchemaRef {
    schema(&[
        (SEQUENCE, DataType::Int64),
        (INGESTED_AT, timestamp_type()),
        ("pipeline", DataType::Utf8),
        ("component", DataType::Utf8),
        ("reason", DataType::Utf8),
        ("detail", DataType::Utf8),
        ("origin", DataType::Utf8),
        ("payload", DataType::Binary),
    ])
}

/// The columns of `meta.lineage`: an arrow a row. Without `input_column` and `output_column` it is one between tables and
/// steps; without `output_column` alone the input column decides over all rows of the output (`filter`, `join`,
/// `aggregate`). All rows of one `pipeline` and one `recorded_at` are its lineage from then on.
pub fn lineage_schema() -> SchemaRef {
    schema(&[
        ("pipeline", DataType::Utf8),
        ("step", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("input", DataType::Utf8),
        ("output", DataType::Utf8),
        ("recorded_at", timestamp_type()),
        ("input_column", DataType::Utf8),
        ("output_column", DataType::Utf8),
        ("dependency", DataType::Utf8),
        ("expression", DataType::Utf8),
    ])
}

/// The columns of `meta.quality`: the result of a rule of a table, judged once. `checked_by` is `pipeline` (rows on their
/// way into the table, counted over the run) or `check` (the table as a whole). `value` and `threshold` are those of rules
/// on a figure. `sample` is JSON: a few rows at fault.
pub fn quality_schema() -> SchemaRef {
    schema(&[
        ("run_id", DataType::Utf8),
        ("checked_at", timestamp_type()),
        ("checked_by", DataType::Utf8),
        ("pipeline", DataType::Utf8),
        ("table_name", DataType::Utf8),
        ("rule", DataType::Utf8),
        ("kind", DataType::Utf8),
        ("columns", DataType::Utf8),
        ("severity", DataType::Utf8),
        ("passed", DataType::Boolean),
        ("rows_checked", DataType::Int64),
        ("rows_failed", DataType::Int64),
        ("value", DataType::Float64),
        ("threshold", DataType::Float64),
        ("detail", DataType::Utf8),
        ("sample", DataType::Utf8),
    ])
}

/// The columns of `meta.definitions`: a table's definition each time it changed; `definition` is JSON.
pub fn definitions_schema() -> SchemaRef {
    schema(&[
        ("table_name", DataType::Utf8),
        ("owner", DataType::Utf8),
        ("description", DataType::Utf8),
        ("definition", DataType::Utf8),
        ("fingerprint", DataType::Utf8),
        ("recorded_at", timestamp_type()),
    ])
}

/// Gives the columns of a table.
type Columns = fn() -> SchemaRef;

/// The schema of a table of `meta` by its name.
pub(crate) fn standing(table: &str) -> Option<SchemaRef> {
    STANDING.iter().find(|(name, _)| *name == table).map(|(_, schema)| schema())
}

/// The tables of `meta` that stand from the beginning.
pub(crate) const STANDING: [(&str, Columns); 5] = [
    ("definitions", definitions_schema),
    ("lineage", lineage_schema),
    ("quality", quality_schema),
    ("rejects", rejects_schema),
    ("runs", twinlake_lake::runs_schema),
];
