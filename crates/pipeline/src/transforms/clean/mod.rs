//! `type = "clean"`: refuses rows that should not land, each with its reason.
//!
//! The operators work in this order, and a row refused by one is not seen by the next: `require` (`missing_value`) →
//! `range` (`out_of_range`) → `dedup` (`duplicate`). So a row without a position never makes its good repetition a
//! duplicate. The result does not depend on how the stream is cut into batches.

mod dedup;
mod range;
mod require;

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Batch, Component, Error, Rejects, Result, Transform, suggest};

use self::dedup::{Dedup, DedupSettings};
use self::range::{Bounds, Range};
use self::require::Require;
use super::{TransformBuilder, TransformContext};

/// Refuses rows that should not land: first `require`, then `range`, then `dedup`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Clean {
    /// The columns that tell one thing (a vehicle, a sensor) from another; `dedup` keeps time for each by itself.
    #[serde(default)]
    key: Vec<String>,
    /// Columns that must have a value; else the row is refused as `missing_value`.
    #[serde(default)]
    require: Vec<String>,
    /// The least and the greatest value that a column may have, both allowed; else the row is refused as
    /// `out_of_range`. `inf` leaves a side open. A null passes.
    #[serde(default)]
    range: IndexMap<String, Bounds>,
    /// Rows that repeat an earlier one are refused as `duplicate`.
    dedup: Option<DedupSettings>,
}

impl Component for Clean {
    const TYPE: &'static str = "clean";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        if self.require.is_empty() && self.range.is_empty() && self.dedup.is_none() {
            return Err(
                Error::config("this transform cleans nothing").with_help("give require, range or dedup")
            );
        }
        for (column, bounds) in &self.range {
            bounds.check(column)?;
        }
        Ok(Box::new(self))
    }
}

#[async_trait]
impl TransformBuilder for Clean {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let [(_, schema)] = context.inputs.as_slice() else {
            return Err(Error::config("'inputs' of a clean transform names a single step").with_help(
                "the order of rows decides what is a duplicate, and two streams have no common order",
            ));
        };
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if !self.require.is_empty() {
            operators.push(Box::new(Require::new(schema, &self.require)?));
        }
        if !self.range.is_empty() {
            operators.push(Box::new(Range::new(schema, &self.range)?));
        }
        if let Some(dedup) = &self.dedup {
            operators.push(Box::new(Dedup::new(schema, &self.key, dedup)?));
        }
        Ok(Box::new(CleanTransform { schema: Arc::clone(schema), operators }))
    }
}

/// One way to refuse rows.
trait Operator: Send {
    /// Refuses rows: sets their place in `keep` to false and says why. Rows that are refused already are passed over.
    fn apply(&mut self, batch: &Batch, keep: &mut [bool], rejects: &mut Rejects) -> Result<()>;

    /// What must be remembered across a restart.
    fn state(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes back what [`Operator::state`] gave.
    fn restore(&mut self, _state: &[u8]) -> Result<()> {
        Ok(())
    }
}

struct CleanTransform {
    schema: SchemaRef,
    operators: Vec<Box<dyn Operator>>,
}

#[async_trait]
impl Transform for CleanTransform {
    fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn process(&mut self, _input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let mut keep = vec![true; batch.rows.num_rows()];
        for operator in &mut self.operators {
            operator.apply(&batch, &mut keep, rejects)?;
        }
        if keep.iter().all(|keep| *keep) {
            return Ok(vec![batch]);
        }
        let sequences = batch.sequences.map(|sequences| {
            sequences
                .into_iter()
                .zip(&keep)
                .filter(|(_, keep)| **keep)
                .map(|(sequence, _)| sequence)
                .collect()
        });
        let rows = filter_record_batch(&batch.rows, &BooleanArray::from(keep))?;
        Ok(vec![Batch { rows, sequences }])
    }

    fn state(&self) -> Result<Vec<u8>> {
        let states: Vec<Vec<u8>> = self.operators.iter().map(|operator| operator.state()).collect();
        if states.iter().all(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        for state in states {
            out.extend((state.len() as u64).to_le_bytes());
            out.extend(state);
        }
        Ok(out)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut rest = state;
        for operator in &mut self.operators {
            if rest.is_empty() {
                break;
            }
            let broken = || Error::internal("the state of a clean transform is cut off");
            let (length, after) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
            let (own, after) =
                after.split_at_checked(u64::from_le_bytes(*length) as usize).ok_or_else(broken)?;
            operator.restore(own)?;
            rest = after;
        }
        Ok(())
    }
}

/// The place of a column, or an error with the nearest name.
fn column(schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let help = suggest(name, names()).map_or_else(
            || format!("columns: {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean '{near}'?"),
        );
        Error::config(format!("there is no column '{name}' in the rows that come in")).with_help(help)
    })
}
