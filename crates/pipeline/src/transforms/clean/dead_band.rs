//! Values that hardly differ from the last one that was passed on.
//!
//! A value lies within its dead band when `|v − v₀| ≤ max(absolute, percent / 100 · |v₀|)`, where `v₀` is the last value
//! of the same thing that passed (send-on-delta sampling: Miskowicz 2006; `DeadbandType` of OPC UA, IEC 62541-4, has the
//! percentage of the instrument's range, which is an absolute band). The value is recovered from what passes with an
//! error of at most the band.

use arrow::array::{Array, Float64Array};
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result};

use super::per_column::{Judge, PerColumn};
use super::work::{Action, Work};
use crate::codec::{Reader, Writer};
use crate::duration::Microseconds;
use crate::transforms::things::Stored;

/// How far a value must move to be passed on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BandSettings {
    /// The half-width of the band, in the column's unit.
    absolute: Option<f64>,
    /// The half-width of the band in percent of the last value passed. With `absolute`, the wider one counts.
    percent: Option<f64>,
    /// A value passes in any case when the last one passed lies so far back in event time, or further.
    max_silence: Option<Microseconds>,
    /// What becomes of a row within the band (default `reject`: the row, when all its columns with `reject` are within
    /// theirs).
    #[serde(default)]
    action: Action,
}

impl BandSettings {
    pub fn check(&self, column: &str) -> Result<()> {
        let given = [("absolute", self.absolute), ("percent", self.percent)];
        for (key, value) in given.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(format!("'{key}' of '{column}' is not a number from 0 on")));
            }
        }
        if given.iter().all(|(_, value)| value.is_none()) {
            return Err(Error::config(format!("the dead band of '{column}' has no width"))
                .with_help(format!("write {column} = {{ absolute = 0.2 }} or {{ percent = 1 }}")));
        }
        Ok(())
    }

    pub fn action(&self) -> Action {
        self.action
    }

    /// Whether it looks at times.
    pub fn is_timed(&self) -> bool {
        self.max_silence.is_some()
    }

    fn half_width(&self, last: f64) -> f64 {
        let relative = self.percent.map_or(0.0, |percent| percent / 100.0 * last.abs());
        self.absolute.unwrap_or(0.0).max(relative)
    }
}

/// What passed last in a column; no value when it was null or not finite.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last {
    value: Option<f64>,
    time: Option<i64>,
}

/// What passed last in each column.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<Option<Last>>);

impl Stored for Passed {
    fn write(&self, out: &mut Writer) {
        out.unsigned(self.0.len() as u64);
        for last in &self.0 {
            out.option(*last, |out, last| {
                out.option(last.value, Writer::number);
                out.option(last.time, Writer::signed);
            });
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let count = input.unsigned()?;
        let each = (0..count).map(|_| {
            input.option(|input| {
                Ok(Last { value: input.option(Reader::number)?, time: input.option(Reader::signed)? })
            })
        });
        Ok(Self(each.collect::<Result<_>>()?))
    }
}

/// A value that can be compared.
fn finite(values: &Float64Array, row: usize) -> Option<f64> {
    values.is_valid(row).then(|| values.value(row)).filter(|value| value.is_finite())
}

/// Whether a value lies within the band around what passed last.
fn within(own: &BandSettings, last: Option<Last>, value: Option<f64>, time: Option<i64>) -> bool {
    let Some(last) = last else { return false };
    let silent = own
        .max_silence
        .zip(last.time)
        .zip(time)
        .is_some_and(|((most, before), now)| now.saturating_sub(before) >= most.0);
    let near = match (last.value, value) {
        (Some(before), Some(now)) => (now - before).abs() <= own.half_width(before),
        (before, now) => before.is_none() && now.is_none(),
    };
    near && !silent
}

/// Judges by what passed last.
pub(super) struct DeadBand;

impl Judge for DeadBand {
    const NAME: &'static str = "dead_band";
    const WANTS: &'static str = "a dead band";
    type Settings = BandSettings;
    type Past = Passed;

    fn judge(own: &mut PerColumn<Self>, work: &mut Work) -> Result<()> {
        let (heads, values) = (own.keyed.heads(&work.rows)?, own.values(work)?);
        let mut near = vec![false; own.columns.len()];
        for row in 0..work.rows.num_rows() {
            let Some(key) = heads.key(row) else { continue };
            let time = heads.time(row);
            let (passed, _) = own.keyed.things.touch(&key);
            passed.0.resize(own.columns.len(), None);
            for (number, (_, _, set)) in own.columns.iter().enumerate() {
                near[number] = within(set, passed.0[number], finite(&values[number], row), time);
            }
            let mut rejecting = own
                .columns
                .iter()
                .zip(&near)
                .filter(|((_, _, set), _)| set.action == Action::Reject)
                .peekable();
            if rejecting.peek().is_some() && rejecting.all(|(_, near)| *near) {
                let detail = format!("no change of {} since the last row that passed", own.names());
                work.refuse(row, "dead_band", detail);
                continue;
            }
            for (number, (name, at, set)) in own.columns.iter().enumerate() {
                let value = finite(&values[number], row);
                if near[number] && set.action != Action::Reject {
                    if let Some(value) = value {
                        let detail = format!("{name} = {value} lies within its dead band");
                        work.judge(row, *at, set.action, "dead_band", detail);
                    }
                    continue;
                }
                let before = passed.0[number].and_then(|last| last.time);
                passed.0[number] = Some(Last { value, time: time.max(before) });
            }
        }
        Ok(())
    }
}
