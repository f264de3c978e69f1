//! Spikes, by the values before them: the Hampel identifier over the last values of the same thing.
//!
//! All finite values enter the window, spikes too: so a step to a new level is accepted after half a window.

use std::collections::VecDeque;

use arrow::array::Array;
use twinlake_contracts::Result;

use super::hampel::SpikeSettings;
use super::per_column::{Judge, PerColumn};
use super::work::Work;
use crate::codec::{Reader, Writer};
use crate::transforms::things::Stored;

/// The last values of each column.
#[derive(Debug, Default)]
pub(super) struct Before(pub Vec<VecDeque<f64>>);

impl Before {
    /// Adds a value and forgets those before the last `window`.
    pub fn push(&mut self, number: usize, value: f64, window: usize) {
        let values = &mut self.0[number];
        while values.len() >= window {
            values.pop_front();
        }
        values.push_back(value);
    }
}

impl Stored for Before {
    fn write(&self, out: &mut Writer) {
        out.unsigned(self.0.len() as u64);
        for values in &self.0 {
            out.unsigned(values.len() as u64);
            for value in values {
                out.number(*value);
            }
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let mut columns = Vec::new();
        for _ in 0..input.unsigned()? {
            let count = input.unsigned()?;
            columns.push((0..count).map(|_| input.number()).collect::<Result<_>>()?);
        }
        Ok(Self(columns))
    }
}

/// Judges the columns that are not `centred`.
pub(super) struct Spike;

impl Judge for Spike {
    const NAME: &'static str = "spike";
    const WANTS: &'static str = "spikes";
    type Settings = SpikeSettings;
    type Past = Before;

    fn judge(own: &mut PerColumn<Self>, work: &mut Work) -> Result<()> {
        let (heads, values) = (own.keyed.heads(&work.rows)?, own.values(work)?);
        let mut neighbours = Vec::new();
        for row in 0..work.rows.num_rows() {
            let key = heads.key(row);
            let mut thing = key.map(|key| own.keyed.things.touch(&key).0);
            for (number, ((name, at, set), values)) in own.columns.iter().zip(&values).enumerate() {
                if values.is_null(row) {
                    continue;
                }
                let value = values.value(row);
                if !value.is_finite() {
                    work.judge(row, *at, set.action, "not_finite", format!("{name} = {value}"));
                    continue;
                }
                let Some(before) = &mut thing else { continue };
                before.0.resize(own.columns.len(), VecDeque::new());
                neighbours.clear();
                neighbours.extend(&before.0[number]);
                if let Some(detail) = set.spike(name, value, &mut neighbours) {
                    work.judge(row, *at, set.action, "spike", detail);
                }
                before.push(number, value, set.window);
            }
        }
        Ok(())
    }
}
