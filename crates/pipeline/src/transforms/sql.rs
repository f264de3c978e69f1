//! `type = "sql"`: a query over the rows of other steps.
//!
//! Over messages the query must be row-wise (a projection, a filter): then the same messages give the same rows however
//! the stream is cut, and each row keeps the log sequence of its message. Over files any query is possible; it runs
//! once, over all rows. A row on which the query fails becomes a reject `sql_error`; the others go on.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, concat_batches, take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Batch, ColumnEdge, Component, Error, Rejects, Result, SqlEngine, Transform};

use super::{TransformBuilder, TransformContext};
use crate::normalise::{normal_schema, normalise};

/// The hidden column with the number of the input row.
const ROW: &str = "_row";

/// A query over the rows of other steps.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sql {
    /// The query. A single input is the table `input` (or its own name), several have their names. Over messages it
    /// must be a projection or filter of one input.
    query: String,
}

impl Component for Sql {
    const TYPE: &'static str = "sql";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        if self.query.trim().is_empty() {
            return Err(Error::config("'query' is empty").with_help("query = \"SELECT … FROM input\""));
        }
        Ok(Box::new(self))
    }
}

#[async_trait]
impl TransformBuilder for Sql {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let mut inputs = context.inputs.clone();
        if let [(name, _)] = inputs.as_mut_slice()
            && mentions(&self.query, "input")
        {
            "input".clone_into(name);
        }
        let planned = context.engine.plan(&self.query, &inputs).await?;
        let row_wise = inputs.len() == 1 && context.engine.is_row_wise(&self.query, &inputs).await?;
        if context.messages && !row_wise {
            let message = if inputs.len() > 1 {
                "'inputs': a query over messages has a single input"
            } else {
                "a query over messages is a projection or filter: this one joins, groups, sorts or limits rows"
            };
            let help = "land the rows with a sink, and ask such questions of the table";
            return Err(Error::config(message).with_help(help));
        }
        let schema = normal_schema(&planned)?;
        let buffers = vec![Vec::new(); inputs.len()];
        Ok(Box::new(SqlTransform {
            engine: Arc::clone(&context.engine),
            query: self.query.clone(),
            inputs,
            planned,
            schema,
            row_wise,
            buffers,
        }))
    }

    async fn lineage(&self, context: &TransformContext<'_>, _out: &SchemaRef) -> Result<Vec<ColumnEdge>> {
        let mut inputs = context.inputs.clone();
        let mut renamed = None;
        if let [(name, _)] = inputs.as_mut_slice()
            && mentions(&self.query, "input")
        {
            renamed = Some(std::mem::replace(name, "input".to_owned()));
        }
        let mut edges = context.engine.column_lineage(&self.query, &inputs).await?.unwrap_or_default();
        if let Some(name) = renamed {
            for edge in edges.iter_mut().filter(|edge| edge.table == "input") {
                edge.table.clone_from(&name);
            }
        }
        Ok(edges)
    }
}

/// Whether a query names `word`.
fn mentions(query: &str, word: &str) -> bool {
    query.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part.eq_ignore_ascii_case(word))
}

struct SqlTransform {
    engine: Arc<dyn SqlEngine>,
    query: String,
    inputs: Vec<(String, SchemaRef)>,
    planned: SchemaRef,
    schema: SchemaRef,
    row_wise: bool,
    /// What waits for the end, an entry an input; used only when the query is not row-wise.
    buffers: Vec<Vec<RecordBatch>>,
}

#[async_trait]
impl Transform for SqlTransform {
    fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn process(&mut self, input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        if !self.row_wise {
            self.buffers[input].push(batch.rows);
            return Ok(Vec::new());
        }
        let numbered = self.number(&batch.rows)?;
        let mut out = Vec::new();
        // Halves of a part that fails are tried again, so that only the rows at fault are refused.
        let mut parts = vec![(0, numbered.num_rows())];
        while let Some((start, length)) = parts.pop() {
            if length == 0 {
                continue;
            }
            match self.run(numbered.slice(start, length)).await {
                Ok(result) => out.extend(result),
                Err(error @ Error::External { .. }) => return Err(error),
                Err(error) if length == 1 => rejects.push(start, "sql_error", error.to_string()),
                Err(_) => {
                    let half = length / 2;
                    parts.push((start + half, length - half));
                    parts.push((start, half));
                }
            }
        }
        let mut batches = Vec::with_capacity(out.len());
        for (rows, origin) in out {
            let (rows, lost) = normalise(&rows, &self.schema)?;
            let mut keep = vec![true; rows.num_rows()];
            for lost in lost {
                keep[lost.row] = false;
                let detail = format!("'{}' does not fit into a signed 64-bit integer", lost.column);
                rejects.push(origin[lost.row] as usize, "out_of_range", detail);
            }
            let kept: UInt32Array =
                (0u32..).zip(&keep).filter(|(_, keep)| **keep).map(|(row, _)| row).collect();
            let rows = if kept.len() == keep.len() { rows } else { take_record_batch(&rows, &kept)? };
            let sequences = batch.sequences.as_ref().map(|sequences| {
                kept.values().iter().map(|row| sequences[origin[*row as usize] as usize]).collect()
            });
            batches.push(Batch { rows, sequences });
        }
        Ok(batches)
    }

    async fn finish(&mut self, _rejects: &mut Rejects) -> Result<Vec<Batch>> {
        if self.row_wise {
            return Ok(Vec::new());
        }
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .zip(&mut self.buffers)
            .map(|((name, schema), buffer)| (name.clone(), Arc::clone(schema), std::mem::take(buffer)))
            .collect();
        let result = self.engine.run(&self.query, &inputs, None).await?;
        result
            .iter()
            .map(|rows| {
                let (rows, lost) = normalise(rows, &self.schema)?;
                match lost.first() {
                    None => Ok(Batch { rows, sequences: None }),
                    Some(lost) => Err(Error::data(
                        "out_of_range",
                        format!("'{}' does not fit into a signed 64-bit integer", lost.column),
                    )),
                }
            })
            .collect()
    }

    fn remembers(&self) -> bool {
        !self.row_wise
    }
}

impl SqlTransform {
    /// The rows with their numbers in a last column.
    fn number(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let numbers: Int64Array = (0i64..).take(rows.num_rows()).collect();
        let fields = self.inputs[0].1.fields().iter().cloned();
        let fields = fields.chain([Arc::new(Field::new(ROW, DataType::Int64, false))]);
        let columns = rows.columns().iter().cloned().chain([Arc::new(numbers) as ArrayRef]);
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns.collect())?)
    }

    /// Runs the query over numbered rows: the result in the order of the input, with each row's number.
    async fn run(&self, numbered: RecordBatch) -> Result<Option<(RecordBatch, Vec<u32>)>> {
        let inputs = [(self.inputs[0].0.clone(), numbered.schema(), vec![numbered])];
        let result = self.engine.run(&self.query, &inputs, Some(ROW)).await?;
        let Some(first) = result.first() else { return Ok(None) };
        let merged = concat_batches(&first.schema(), &result)?;
        if merged.num_rows() == 0 {
            return Ok(None);
        }
        let carried = merged
            .columns()
            .last()
            .filter(|_| merged.num_columns() > self.planned.fields().len())
            .ok_or_else(|| Error::internal("the SQL engine did not carry the row number"))?;
        let numbers = cast(carried, &DataType::Int64)?;
        let columns = self
            .planned
            .fields()
            .iter()
            .map(|field| {
                merged.column_by_name(field.name()).cloned().ok_or_else(|| {
                    Error::internal(format!(
                        "the SQL engine planned a column '{}' and gave none",
                        field.name()
                    ))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let fields = self.planned.fields().iter().zip(&columns).map(|(field, column)| {
            field.as_ref().clone().with_data_type(column.data_type().clone()).with_nullable(true)
        });
        let options = RecordBatchOptions::new().with_row_count(Some(merged.num_rows()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let ascending = |numbers: &Int64Array| numbers.values().windows(2).all(|pair| pair[0] <= pair[1]);
        let own = |numbers: &ArrayRef| {
            numbers
                .as_any()
                .downcast_ref::<Int64Array>()
                .cloned()
                .ok_or_else(|| Error::internal("row numbers"))
        };
        let (rows, numbers) = if ascending(&own(&numbers)?) {
            (rows, own(&numbers)?)
        } else {
            // Stable, so that several rows of one input row keep their order.
            let unordered = own(&numbers)?;
            let mut order: Vec<u32> = (0..unordered.len() as u32).collect();
            order.sort_by_key(|row| unordered.value(*row as usize));
            let order = UInt32Array::from(order);
            (take_record_batch(&rows, &order)?, own(&take(&numbers, &order, None)?)?)
        };
        Ok(Some((rows, numbers.values().iter().map(|number| *number as u32).collect())))
    }
}
