//! Bounds of numeric columns.

use arrow::array::Array;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result};

use super::operator::{Operator, Place};
use super::work::{Action, Work};
use crate::transforms::rows::number_column;

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

/// Finds values outside their bounds or not a number: `out_of_range`. A null passes.
pub(super) struct Range {
    columns: Vec<(String, usize, Bounds)>,
    action: Action,
}

impl Range {
    pub fn new(place: &Place<'_>, ranges: &IndexMap<String, Bounds>, action: Action) -> Result<Self> {
        let columns = ranges
            .iter()
            .map(|(name, bounds)| Ok((name.clone(), number_column(place.schema, name, "a range")?, *bounds)));
        Ok(Self { columns: columns.collect::<Result<_>>()?, action })
    }
}

impl Operator for Range {
    fn name(&self) -> &'static str {
        "range"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        for (name, at, bounds) in &self.columns {
            let values = work.numbers(*at)?;
            for row in 0..values.len() {
                if !values.is_null(row) && !bounds.contains(values.value(row)) && work.keeps(row) {
                    let detail = format!("{name} = {} lies outside {}", values.value(row), bounds.describe());
                    work.judge(row, *at, self.action, "out_of_range", detail);
                }
            }
        }
        Ok(())
    }

    fn remembers(&self) -> bool {
        false
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
