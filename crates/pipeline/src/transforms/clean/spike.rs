//! Spikes, by the values before them: the Hampel identifier over the last values of the same thing.
//!
//! All finite values enter the window, spikes too: so a step to a new level is accepted after half a window.

use std::collections::VecDeque;

use arrow::array::Array;
use indexmap::IndexMap;
use twinlake_contracts::Result;

use super::hampel::SpikeSettings;
use super::operator::{Keyed, Operator, Place};
use super::work::Work;
use crate::codec::{Reader, Writer};
use crate::transforms::rows::number_column;
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

/// Spikes of the columns that are not `centred`.
pub(super) struct Spike {
    columns: Vec<(String, usize, SpikeSettings)>,
    keyed: Keyed<Before>,
}

impl Spike {
    pub fn new(place: &Place<'_>, settings: &IndexMap<String, SpikeSettings>) -> Result<Self> {
        let own = settings.iter().filter(|(_, own)| !own.centred);
        let columns = own
            .map(|(name, own)| Ok((name.clone(), number_column(place.schema, name, "spikes")?, own.clone())));
        Ok(Self { columns: columns.collect::<Result<_>>()?, keyed: Keyed::new(place, false)? })
    }
}

impl Operator for Spike {
    fn name(&self) -> &'static str {
        "spike"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        let heads = self.keyed.heads(&work.rows)?;
        let values = self.columns.iter().map(|(_, at, _)| work.numbers(*at)).collect::<Result<Vec<_>>>()?;
        let mut neighbours = Vec::new();
        for row in 0..work.rows.num_rows() {
            let key = heads.key(row);
            let mut thing = key.map(|key| self.keyed.things.touch(&key).0);
            for (number, ((name, at, own), values)) in self.columns.iter().zip(&values).enumerate() {
                if values.is_null(row) {
                    continue;
                }
                let value = values.value(row);
                if !value.is_finite() {
                    work.judge(row, *at, own.action, "not_finite", format!("{name} = {value}"));
                    continue;
                }
                let Some(before) = &mut thing else { continue };
                before.0.resize(self.columns.len(), VecDeque::new());
                neighbours.clear();
                neighbours.extend(&before.0[number]);
                if let Some(detail) = own.spike(name, value, &mut neighbours) {
                    work.judge(row, *at, own.action, "spike", detail);
                }
                before.push(number, value, own.window);
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
