//! Values that change faster than they can.
//!
//! `|v − v₀| / |t − t₀| ≤ max_per_second`, where `(t₀, v₀)` is the newest accepted value of the same thing in event time
//! (the rate-of-change test of sensor data control; for example WMO-No. 8, "time consistency", or the QARTOD manuals of
//! the U.S. Integrated Ocean Observing System). Two different values at the same instant have an infinite rate.

use arrow::array::Array;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result, format_us};

use super::per_column::{Judge, Marks, PerColumn};
use super::work::{Action, Work};

/// How fast a value may change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RateSettings {
    /// The most that the value may change in a second, up or down, in the column's unit.
    max_per_second: f64,
    /// What becomes of a row that changes faster (default `reject`).
    #[serde(default)]
    action: Action,
}

impl RateSettings {
    pub fn check(&self, column: &str) -> Result<()> {
        if self.max_per_second.is_finite() && self.max_per_second > 0.0 {
            return Ok(());
        }
        Err(Error::config(format!("'max_per_second' of '{column}' is not a number above 0"))
            .with_help(format!("write {column} = {{ max_per_second = 0.5 }}")))
    }

    pub fn action(&self) -> Action {
        self.action
    }
}

/// Judges by the newest accepted value of each column.
pub(super) struct RateOfChange;

impl Judge for RateOfChange {
    const NAME: &'static str = "rate_of_change";
    const WANTS: &'static str = "a rate of change";
    type Settings = RateSettings;
    type Past = Marks;

    fn judge(own: &mut PerColumn<Self>, work: &mut Work) -> Result<()> {
        let (heads, values) = (own.keyed.heads(&work.rows)?, own.values(work)?);
        for row in 0..work.rows.num_rows() {
            let place = heads.key(row).zip(heads.time(row));
            let mut thing = place.map(|(key, time)| (own.keyed.things.touch(&key).0, time));
            for (number, ((name, at, set), values)) in own.columns.iter().zip(&values).enumerate() {
                if values.is_null(row) {
                    continue;
                }
                let value = values.value(row);
                if !value.is_finite() {
                    work.judge(row, *at, set.action, "not_finite", format!("{name} = {value}"));
                    continue;
                }
                let Some((newest, time)) = &mut thing else { continue };
                newest.0.resize(own.columns.len(), None);
                let newest = &mut newest.0[number];
                let Some((before_us, before)) = *newest else {
                    *newest = Some((*time, value));
                    continue;
                };
                let seconds = time.abs_diff(before_us) as f64 / 1e6;
                let change = (value - before).abs();
                if change > set.max_per_second * seconds {
                    let detail = format!(
                        "{name} = {value} after {before} at {}: more than {} a second",
                        format_us(before_us),
                        set.max_per_second
                    );
                    work.judge(row, *at, set.action, "rate_of_change", detail);
                } else if *time >= before_us {
                    *newest = Some((*time, value));
                }
            }
        }
        Ok(())
    }
}
