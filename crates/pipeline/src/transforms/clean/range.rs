//! Bounds of numeric columns.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Batch, Error, Rejects, Result};

use super::{Operator, column};

/// The least and the greatest value allowed; null (`inf` in TOML) leaves a side open.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Bounds([Option<f64>; 2]);

impl Bounds {
    /// Bounds that no value can meet are a mistake.
    pub fn check(&self, column: &str) -> Result<()> {
        match self.0 {
            [Some(low), Some(high)] if low > high => {
                Err(Error::config(format!("the range of '{column}' is empty: {low} is above {high}"))
                    .with_help(format!("write {column} = [{high}, {low}]")))
            }
            _ => Ok(()),
        }
    }

    fn contains(self, value: f64) -> bool {
        !value.is_nan()
            && self.0[0].is_none_or(|low| value >= low)
            && self.0[1].is_none_or(|high| value <= high)
    }

    fn describe(self) -> String {
        let [low, high] = self.0;
        let side = |bound: Option<f64>, open: &str| bound.map_or_else(|| open.to_owned(), |b| b.to_string());
        format!("{} … {}", side(low, "-inf"), side(high, "inf"))
    }
}

/// Refuses rows in which a column lies outside its bounds or is not a number, as `out_of_range`. A null passes.
pub(super) struct Range {
    columns: Vec<(String, usize, Bounds)>,
}

impl Range {
    pub fn new(schema: &Schema, ranges: &IndexMap<String, Bounds>) -> Result<Self> {
        let mut columns = Vec::new();
        for (name, bounds) in ranges {
            let at = column(schema, name)?;
            let data_type = schema.field(at).data_type();
            if !data_type.is_numeric() {
                return Err(Error::config(format!(
                    "'{name}' has type {data_type}: only numbers have a range"
                )));
            }
            columns.push((name.clone(), at, *bounds));
        }
        Ok(Self { columns })
    }
}

impl Operator for Range {
    fn apply(&mut self, batch: &Batch, keep: &mut [bool], rejects: &mut Rejects) -> Result<()> {
        for (name, at, bounds) in &self.columns {
            let values = cast(batch.rows.column(*at), &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            for (row, keep) in keep.iter_mut().enumerate().filter(|(_, keep)| **keep) {
                if !values.is_null(row) && !bounds.contains(values.value(row)) {
                    *keep = false;
                    let detail = format!("{name} = {} lies outside {}", values.value(row), bounds.describe());
                    rejects.push(row, "out_of_range", detail);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_may_be_open() {
        assert!(Bounds([Some(0.0), Some(60.0)]).contains(60.0));
        assert!(!Bounds([Some(0.0), Some(60.0)]).contains(60.1));
        assert!(Bounds([None, Some(60.0)]).contains(-1e300));
        assert!(!Bounds([None, None]).contains(f64::NAN));
        assert!(Bounds([Some(2.0), Some(1.0)]).check("speed_mps").is_err());
    }
}
