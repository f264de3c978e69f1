//! Sensors that repeat one value for too long.
//!
//! A value is stuck when it has stayed within `tolerance` of the value at `t₀` from then on, and `t − t₀ > longer_than`
//! (the persistence test of sensor data control: WMO-No. 8, "minimum required variability"; the "flat line test" of the
//! QARTOD manuals). The first value that differs more begins a new `t₀`.

use arrow::array::Array;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result, format_us};

use super::per_column::{Judge, Marks, PerColumn};
use super::work::{Action, Work};
use crate::duration::Microseconds;

/// How long a value may stay the same.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StuckSettings {
    /// The longest time (of events) that the value may stay the same.
    longer_than: Microseconds,
    /// Differences up to this are none, in the column's unit (default 0).
    #[serde(default)]
    tolerance: f64,
    /// Values that may stay as long as they like, for example `[0]` of a rain gauge.
    #[serde(default)]
    except: Vec<f64>,
    /// What becomes of a row with a stuck value (default `reject`).
    #[serde(default)]
    action: Action,
}

impl StuckSettings {
    pub fn check(&self, column: &str) -> Result<()> {
        if self.tolerance >= 0.0 && self.tolerance.is_finite() {
            return Ok(());
        }
        Err(Error::config(format!("'tolerance' of '{column}' is not a number from 0 on")))
    }

    pub fn action(&self) -> Action {
        self.action
    }
}

/// Judges by the time since which each column has its value.
pub(super) struct Stuck;

impl Judge for Stuck {
    const NAME: &'static str = "stuck";
    const WANTS: &'static str = "a tolerance";
    type Settings = StuckSettings;
    type Past = Marks;

    fn judge(own: &mut PerColumn<Self>, work: &mut Work) -> Result<()> {
        let (heads, values) = (own.keyed.heads(&work.rows)?, own.values(work)?);
        for row in 0..work.rows.num_rows() {
            let Some((key, time)) = heads.key(row).zip(heads.time(row)) else { continue };
            let (since, _) = own.keyed.things.touch(&key);
            since.0.resize(own.columns.len(), None);
            for (((name, at, set), values), since) in own.columns.iter().zip(&values).zip(&mut since.0) {
                if values.is_null(row) || !values.value(row).is_finite() {
                    continue;
                }
                let value = values.value(row);
                let Some((since_us, before)) = *since else {
                    *since = Some((time, value));
                    continue;
                };
                if time < since_us {
                    continue; // from before the present value: it says nothing about its length
                }
                if (value - before).abs() > set.tolerance {
                    *since = Some((time, value));
                } else if time.abs_diff(since_us) > set.longer_than.0.unsigned_abs()
                    && !set.except.contains(&value)
                {
                    let detail = format!("{name} = {value} since {}", format_us(since_us));
                    work.judge(row, *at, set.action, "stuck", detail);
                }
            }
        }
        Ok(())
    }
}
