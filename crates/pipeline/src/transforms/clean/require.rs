//! Columns that must have a value.

use arrow::array::Array;
use arrow::datatypes::Schema;
use twinlake_contracts::{Batch, Rejects, Result};

use super::{Operator, column};

/// Refuses rows in which one of the columns is null, as `missing_value`; the detail names all columns without a value.
pub(super) struct Require {
    columns: Vec<(String, usize)>,
}

impl Require {
    pub fn new(schema: &Schema, names: &[String]) -> Result<Self> {
        let columns = names.iter().map(|name| Ok((name.clone(), column(schema, name)?)));
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }
}

impl Operator for Require {
    fn apply(&mut self, batch: &Batch, keep: &mut [bool], rejects: &mut Rejects) -> Result<()> {
        let columns: Vec<(&str, _)> = self
            .columns
            .iter()
            .map(|(name, at)| (name.as_str(), batch.rows.column(*at)))
            .filter(|(_, values)| values.null_count() > 0)
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        for (row, keep) in keep.iter_mut().enumerate().filter(|(_, keep)| **keep) {
            let missing: Vec<&str> =
                columns.iter().filter(|(_, values)| values.is_null(row)).map(|(name, _)| *name).collect();
            if !missing.is_empty() {
                *keep = false;
                rejects.push(row, "missing_value", format!("no value for {}", missing.join(", ")));
            }
        }
        Ok(())
    }
}
