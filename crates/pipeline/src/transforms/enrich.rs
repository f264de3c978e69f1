//! `type = "enrich"`: columns of a table, joined to each row by equal keys.
//!
//! A row gets the columns of the table's row with the same key, or, with `as_of`, of the newest one that was valid at the
//! row's time (the as-of join of time series databases). Row by row, without a state.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, filter_record_batch, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    Batch, ColumnEdge, Component, Dependency, Error, Rejects, Result, Transform, suggest,
};

use super::lineage::{decides, handed_on};
use super::rows::{Bytes, column, free_name, only_input, time, time_column, times, ts};
use super::table::{Table, TableSettings};
use super::{TransformBuilder, TransformContext};

/// Columns of a table, joined to each row by equal keys.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrich {
    /// The table: a file or a query over the lake. It is read once, when the first rows come, and kept in memory.
    table: TableSettings,
    /// Which columns are equal: `{ column_of_the_rows = "column_of_the_table" }`. A null equals nothing.
    on: IndexMap<String, String>,
    /// The columns to add, by their new names: `{ stop_name = "name" }`.
    columns: IndexMap<String, String>,
    /// Take the newest of the table's rows that was valid at the row's time. Without it a key may stand in the table
    /// only once.
    as_of: Option<AsOf>,
    /// What becomes of rows without a match (default `null`).
    #[serde(default)]
    missing: Missing,
}

/// Which of several rows with the same key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AsOf {
    /// The rows' column with the event time (default `ts`). A row without one has no match.
    #[serde(default = "ts")]
    time: String,
    /// The table's column with the time from which a row of it is valid; that of the next one ends it.
    valid_from: String,
}

/// What becomes of rows without a match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Missing {
    /// The added columns are null.
    #[default]
    Null,
    /// They are refused as `no_match`.
    Reject,
}

impl Component for Enrich {
    const TYPE: &'static str = "enrich";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        if self.on.is_empty() {
            return Err(Error::config("'on' names no column").with_help("on = { stop_id = \"stop_id\" }"));
        }
        if self.columns.is_empty() {
            return Err(
                Error::config("'columns' adds nothing").with_help("columns = { stop_name = \"name\" }")
            );
        }
        Ok(Box::new(self))
    }
}

/// The place of a column of the table, or an error with the nearest name.
fn table_column(schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let help = suggest(name, names()).map_or_else(
            || format!("columns of the table: {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean '{near}'?"),
        );
        Error::config(format!("there is no column '{name}' in the table")).with_help(help)
    })
}

#[async_trait]
impl TransformBuilder for Enrich {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let input = only_input(&context.inputs, "enrich")?;
        let table = self.table.build(context)?;
        let mut own = Vec::new();
        let mut theirs = Vec::new();
        for (left, right) in &self.on {
            let (at, other) = (column(&input, left)?, table_column(&table.schema, right)?);
            let (kind, other_kind) = (input.field(at).data_type(), table.schema.field(other).data_type());
            if kind != other_kind && !(kind.is_integer() && other_kind.is_integer()) {
                let message = format!("'{left}' has type {kind}, '{right}' of the table has {other_kind}");
                return Err(Error::config(message).with_help("bring them to one type in a sql transform"));
            }
            own.push(at);
            theirs.push((other, kind.clone()));
        }
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        let mut added = Vec::new();
        for (name, of) in &self.columns {
            free_name(&input, name, "columns")?;
            let at = table_column(&table.schema, of)?;
            fields.push(Arc::new(table.schema.field(at).clone().with_name(name).with_nullable(true)));
            added.push(at);
        }
        let as_of = match &self.as_of {
            None => None,
            Some(as_of) => {
                let valid_from = table_column(&table.schema, &as_of.valid_from)?;
                let kind = table.schema.field(valid_from).data_type();
                if !matches!(kind, DataType::Timestamp(..)) {
                    let message =
                        format!("'{}' of the table has type {kind}, not a time stamp", as_of.valid_from);
                    return Err(Error::config(message));
                }
                Some((time_column(&input, &as_of.time)?, valid_from))
            }
        };
        Ok(Box::new(EnrichTransform {
            keys: Bytes::new(&input, own)?,
            names: self.on.keys().cloned().collect(),
            table,
            theirs,
            added,
            as_of,
            missing: self.missing,
            schema: Arc::new(Schema::new(fields)),
            known: None,
        }))
    }

    async fn lineage(&self, context: &TransformContext<'_>, out: &SchemaRef) -> Result<Vec<ColumnEdge>> {
        let Some((input, schema)) = context.inputs.first() else { return Ok(Vec::new()) };
        let added: Vec<&str> = self.columns.keys().map(String::as_str).collect();
        let mut edges = handed_on(input, schema, out, &added);
        let theirs = self.table.lineage(context).await?;
        for (name, of) in &self.columns {
            edges.extend(theirs.of(of).map(|source| ColumnEdge {
                output: Some(name.clone()),
                expression: source.expression.clone().or_else(|| Some("enrich".to_owned())),
                ..source
            }));
        }
        let time = self.as_of.as_ref();
        let own = self.on.keys().chain(time.map(|as_of| &as_of.time)).map(String::as_str);
        edges.extend(decides(input, own, Dependency::Join, "enrich: on"));
        for column in self.on.values().chain(time.map(|as_of| &as_of.valid_from)) {
            edges.extend(theirs.of(column).map(|source| ColumnEdge {
                output: None,
                dependency: Dependency::Join,
                expression: Some("enrich: on".to_owned()),
                ..source
            }));
        }
        edges.sort();
        edges.dedup();
        Ok(edges)
    }
}

/// The table in memory.
struct Known {
    rows: RecordBatch,
    /// The rows of each key: valid from (0 without `as_of`), number; in this order.
    places: HashMap<Box<[u8]>, Vec<(i64, u32)>>,
}

struct EnrichTransform {
    table: Table,
    keys: Bytes,
    names: Vec<String>,
    /// The key's columns in the table, and the types in which they are compared.
    theirs: Vec<(usize, DataType)>,
    added: Vec<usize>,
    /// The time's column, that of the table's `valid_from`.
    as_of: Option<(usize, usize)>,
    missing: Missing,
    schema: SchemaRef,
    known: Option<Known>,
}

impl EnrichTransform {
    /// Reads the table, and finds the rows of each key.
    async fn know(&self) -> Result<Known> {
        let rows = self.table.read().await?;
        let columns = self.theirs.iter().map(|(at, kind)| Ok(cast(rows.column(*at), kind)?));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let keys = self.keys.of_columns(&columns)?;
        let since = self.as_of.map(|(_, at)| times(&rows, at)).transpose()?;
        let mut places: HashMap<Box<[u8]>, Vec<(i64, u32)>> = HashMap::new();
        for row in 0..rows.num_rows() {
            let from_us = since.as_ref().map_or(Some(0), |since| time(since, row));
            let Some(from_us) = from_us.filter(|_| !keys.has_null(row)) else { continue };
            places.entry(keys.row(row)).or_default().push((from_us, row as u32));
        }
        for of_key in places.values_mut() {
            of_key.sort_by_key(|(from_us, _)| *from_us); // stable: of two at the same time the later one counts
            if let ([_, (_, row), ..], None) = (of_key.as_slice(), self.as_of) {
                let shown = self.theirs.iter().map(|(at, _)| {
                    arrow::util::display::array_value_to_string(rows.column(*at), *row as usize)
                });
                let shown = shown.collect::<Result<Vec<_>, _>>()?.join(", ");
                return Err(Error::config(format!("the key {shown} stands in the table more than once"))
                    .with_help("give as_of = { valid_from = \"…\" }, or a table with each key once"));
            }
        }
        Ok(Known { rows, places })
    }

    /// The row of the table that belongs to a row.
    fn place(known: &Known, key: Option<&[u8]>, time_us: Option<i64>) -> Option<u32> {
        let of_key = known.places.get(key?)?;
        let before =
            of_key.partition_point(|(from_us, _)| time_us.is_some_and(|time_us| *from_us <= time_us));
        of_key.get(before.checked_sub(1)?).map(|(_, row)| *row)
    }
}

#[async_trait]
impl Transform for EnrichTransform {
    fn output_schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    async fn process(&mut self, _input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        if self.known.is_none() {
            self.known = Some(self.know().await?);
        }
        let Some(known) = &self.known else { return Ok(Vec::new()) };
        let keys = self.keys.of(&batch.rows)?;
        let at = self.as_of.map(|(at, _)| times(&batch.rows, at)).transpose()?;
        let places: UInt32Array = (0..batch.rows.num_rows())
            .map(|row| {
                let key = (!keys.has_null(row)).then(|| keys.row(row));
                let time_us = at.as_ref().map_or(Some(0), |at| time(at, row));
                Self::place(known, key.as_deref(), time_us)
            })
            .collect();
        let mut columns = batch.rows.columns().to_vec();
        for at in &self.added {
            columns.push(take(known.rows.column(*at), &places, None)?);
        }
        let rows = RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?;
        if self.missing == Missing::Null || places.null_count() == 0 {
            return Ok(vec![Batch { rows, sequences: batch.sequences }]);
        }
        for row in (0..places.len()).filter(|row| places.is_null(*row)) {
            rejects.push(row, "no_match", format!("the table has no row for its {}", self.names.join(", ")));
        }
        let keep: BooleanArray = (0..places.len()).map(|row| Some(places.is_valid(row))).collect();
        let sequences = batch.sequences.map(|own| {
            own.into_iter()
                .zip(keep.values())
                .filter(|(_, keep)| *keep)
                .map(|(sequence, _)| sequence)
                .collect()
        });
        Ok(vec![Batch { rows: filter_record_batch(&rows, &keep)?, sequences }])
    }

    fn remembers(&self) -> bool {
        false
    }
}
