//! Values that change faster than they can.
//!
//! `|v − v₀| / |t − t₀| ≤ max_per_second`, where `(t₀, v₀)` is the newest accepted value of the same thing in event time
//! (the rate-of-change test of sensor data control; for example WMO-No. 8, "time consistency", or the QARTOD manuals of
//! the U.S. Integrated Ocean Observing System). Two different values at the same instant have an infinite rate.

use arrow::array::Array;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result, format_us};

use super::operator::{Keyed, Operator, Place};
use super::work::{Action, Work};
use crate::codec::{Reader, Writer};
use crate::transforms::rows::number_column;
use crate::transforms::things::Stored;

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

/// The newest accepted value of each column: event time, value.
#[derive(Debug, Default)]
struct Newest(Vec<Option<(i64, f64)>>);

impl Stored for Newest {
    fn write(&self, out: &mut Writer) {
        out.unsigned(self.0.len() as u64);
        for newest in &self.0 {
            out.option(*newest, |out, (time, value)| {
                out.signed(time);
                out.number(value);
            });
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let count = input.unsigned()?;
        let each = (0..count).map(|_| input.option(|input| Ok((input.signed()?, input.number()?))));
        Ok(Self(each.collect::<Result<_>>()?))
    }
}

pub(super) struct RateOfChange {
    columns: Vec<(String, usize, RateSettings)>,
    keyed: Keyed<Newest>,
}

impl RateOfChange {
    pub fn new(place: &Place<'_>, settings: &IndexMap<String, RateSettings>) -> Result<Self> {
        let columns = settings.iter().map(|(name, own)| {
            Ok((name.clone(), number_column(place.schema, name, "a rate of change")?, own.clone()))
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, keyed: Keyed::new(place, true)? })
    }
}

impl Operator for RateOfChange {
    fn name(&self) -> &'static str {
        "rate_of_change"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        let heads = self.keyed.heads(&work.rows)?;
        let values = self.columns.iter().map(|(_, at, _)| work.numbers(*at)).collect::<Result<Vec<_>>>()?;
        for row in 0..work.rows.num_rows() {
            let place = heads.key(row).zip(heads.time(row));
            let mut thing = place.map(|(key, time)| (self.keyed.things.touch(&key).0, time));
            for (number, ((name, at, own), values)) in self.columns.iter().zip(&values).enumerate() {
                if values.is_null(row) {
                    continue;
                }
                let value = values.value(row);
                if !value.is_finite() {
                    work.judge(row, *at, own.action, "not_finite", format!("{name} = {value}"));
                    continue;
                }
                let Some((newest, time)) = &mut thing else { continue };
                newest.0.resize(self.columns.len(), None);
                let newest = &mut newest.0[number];
                let Some((before_us, before)) = *newest else {
                    *newest = Some((*time, value));
                    continue;
                };
                let seconds = time.abs_diff(before_us) as f64 / 1e6;
                let change = (value - before).abs();
                if change > own.max_per_second * seconds {
                    let detail = format!(
                        "{name} = {value} after {before} at {}: more than {} a second",
                        format_us(before_us),
                        own.max_per_second
                    );
                    work.judge(row, *at, own.action, "rate_of_change", detail);
                } else if *time >= before_us {
                    *newest = Some((*time, value));
                }
            }
        }
        Ok(())
    }

    fn shape(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, ..)| name.as_str()).collect();
        format!("{} | {}", self.keyed.shape(), names.join(", "))
    }

    fn write(&self, out: &mut Writer) {
        self.keyed.things.write(out);
    }

    fn read(&mut self, input: &mut Reader<'_>) -> Result<()> {
        self.keyed.things.read(input)
    }
}
