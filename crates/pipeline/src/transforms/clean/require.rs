//! Columns that must have a value.

use arrow::array::Array;
use twinlake_contracts::Result;

use super::operator::{Operator, Place};
use super::work::Work;
use crate::transforms::rows::column;

/// Refuses rows in which one of the columns is null, as `missing_value`; the detail names all columns without a value.
pub(super) struct Require {
    columns: Vec<(String, usize)>,
}

impl Require {
    pub fn new(place: &Place<'_>, names: &[String]) -> Result<Self> {
        let columns = names.iter().map(|name| Ok((name.clone(), column(place.schema, name)?)));
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }
}

impl Operator for Require {
    fn name(&self) -> &'static str {
        "require"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        let columns: Vec<(&str, _)> = self
            .columns
            .iter()
            .map(|(name, at)| (name.as_str(), work.rows.column(*at).clone()))
            .filter(|(_, values)| values.null_count() > 0)
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        for row in 0..work.rows.num_rows() {
            let missing: Vec<&str> =
                columns.iter().filter(|(_, values)| values.is_null(row)).map(|(name, _)| *name).collect();
            if !missing.is_empty() {
                work.refuse(row, "missing_value", format!("no value for {}", missing.join(", ")));
            }
        }
        Ok(())
    }

    fn remembers(&self) -> bool {
        false
    }
}
