//! Sensors that repeat one value for too long.
//!
//! A value is stuck when it has stayed within `tolerance` of the value at `t₀` from then on, and `t − t₀ > longer_than`
//! (the persistence test of sensor data control: WMO-No. 8, "minimum required variability"; the "flat line test" of the
//! QARTOD manuals). The first value that differs more begins a new `t₀`.

use arrow::array::Array;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result, format_us};

use super::operator::{Keyed, Operator, Place};
use super::work::{Action, Work};
use crate::codec::{Reader, Writer};
use crate::duration::Microseconds;
use crate::transforms::rows::number_column;
use crate::transforms::things::Stored;

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

/// Since when each column has which value: event time, value.
#[derive(Debug, Default)]
struct Since(Vec<Option<(i64, f64)>>);

impl Stored for Since {
    fn write(&self, out: &mut Writer) {
        out.unsigned(self.0.len() as u64);
        for since in &self.0 {
            out.option(*since, |out, (time, value)| {
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

pub(super) struct Stuck {
    columns: Vec<(String, usize, StuckSettings)>,
    keyed: Keyed<Since>,
}

impl Stuck {
    pub fn new(place: &Place<'_>, settings: &IndexMap<String, StuckSettings>) -> Result<Self> {
        let columns = settings.iter().map(|(name, own)| {
            Ok((name.clone(), number_column(place.schema, name, "a tolerance")?, own.clone()))
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, keyed: Keyed::new(place, true)? })
    }
}

impl Operator for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        let heads = self.keyed.heads(&work.rows)?;
        let values = self.columns.iter().map(|(_, at, _)| work.numbers(*at)).collect::<Result<Vec<_>>>()?;
        for row in 0..work.rows.num_rows() {
            let Some((key, time)) = heads.key(row).zip(heads.time(row)) else { continue };
            let (since, _) = self.keyed.things.touch(&key);
            since.0.resize(self.columns.len(), None);
            for (((name, at, own), values), since) in self.columns.iter().zip(&values).zip(&mut since.0) {
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
                if (value - before).abs() > own.tolerance {
                    *since = Some((time, value));
                } else if time.abs_diff(since_us) > own.longer_than.0.unsigned_abs()
                    && !own.except.contains(&value)
                {
                    let detail = format!("{name} = {value} since {}", format_us(since_us));
                    work.judge(row, *at, own.action, "stuck", detail);
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
