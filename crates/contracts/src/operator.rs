//! Simulation operators: pure functions from a snapshot and a seed to tables of results.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The frozen input of a run: tables by role, for example `links` and `demand`.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One batch a role.
    pub tables: BTreeMap<String, RecordBatch>,
}

impl Snapshot {
    /// The table of a role; an error that names the roles that are there.
    pub fn table(&self, role: &str) -> Result<&RecordBatch> {
        self.tables.get(role).ok_or_else(|| {
            let known: Vec<&str> = self.tables.keys().map(String::as_str).collect();
            Error::config(format!("the operator needs a table '{role}'"))
                .with_help(format!("given: {}", known.join(", ")))
        })
    }
}

/// The time that a run covers: microseconds since the epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// From.
    pub from_us: i64,
    /// To; equal to `from_us` for a static operator.
    pub to_us: i64,
}

/// Parameters as given, `key = value`, checked by the operator against its [`OperatorSpec`].
pub type Parameters = BTreeMap<String, serde_json::Value>;

/// One parameter: its name, meaning, unit and default.
#[derive(Debug, Clone, Serialize)]
pub struct ParameterSpec {
    /// The name in `--set`, TOML and SQL.
    pub name: &'static str,
    /// What it means, with the equation it enters.
    pub description: &'static str,
    /// The unit; empty for a pure number.
    pub unit: &'static str,
    /// The value when none is given.
    pub default: serde_json::Value,
}

/// A table that an operator takes or gives.
#[derive(Debug, Clone, Serialize)]
pub struct TableShape {
    /// Its role.
    pub role: &'static str,
    /// What it holds.
    pub description: &'static str,
    /// Its columns: name, Arrow type, meaning with unit.
    pub columns: Vec<(&'static str, &'static str, &'static str)>,
}

/// What an operator is.
#[derive(Debug, Clone, Serialize)]
pub struct OperatorSpec {
    /// Its name in SQL, TOML and on the command line.
    pub name: &'static str,
    /// Changes whenever the same input may give another output.
    pub version: &'static str,
    /// What it computes.
    pub description: &'static str,
    /// Author, year, equation.
    pub source: &'static str,
    /// Tables taken.
    pub inputs: Vec<TableShape>,
    /// Tables given.
    pub outputs: Vec<TableShape>,
    /// Parameters.
    pub parameters: Vec<ParameterSpec>,
}

impl OperatorSpec {
    /// The parameters with defaults filled in; an unknown name is an error with a suggestion.
    pub fn resolve(&self, given: &Parameters) -> Result<Parameters> {
        for name in given.keys() {
            if !self.parameters.iter().any(|parameter| parameter.name == name) {
                let known: Vec<&str> = self.parameters.iter().map(|parameter| parameter.name).collect();
                let help = crate::suggest(name, known.iter().copied()).map_or_else(
                    || format!("known: {}", known.join(", ")),
                    |near| format!("did you mean '{near}'?"),
                );
                return Err(Error::config(format!("{} has no parameter '{name}'", self.name)).with_help(help));
            }
        }
        Ok(self
            .parameters
            .iter()
            .map(|parameter| {
                let value = given.get(parameter.name).unwrap_or(&parameter.default);
                (parameter.name.to_owned(), value.clone())
            })
            .collect())
    }
}

/// What a run gave.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Tables by role.
    pub tables: BTreeMap<String, RecordBatch>,
    /// The figures that tell whether to believe it: objective, gap, iterations, converged.
    pub summary: serde_json::Map<String, serde_json::Value>,
}

/// Told how far a run is: a fraction in 0..=1 and a word on what is going on. Returns `false` to stop the run.
pub type Progress<'a> = &'a (dyn Fn(f64, &str) -> bool + Sync);

/// A simulation operator. Pure: the same snapshot, horizon, seed and parameters give the same bytes, on any number
/// of threads.
pub trait Operator: Send + Sync {
    /// What it is.
    fn describe(&self) -> OperatorSpec;

    /// Runs. A run that does not converge is either an error or an outcome whose summary says `converged: false`.
    fn run(
        &self,
        city: &Snapshot,
        horizon: Horizon,
        seed: u64,
        parameters: &Parameters,
        progress: Progress<'_>,
    ) -> Result<Outcome>;
}

/// All operators by name, filled by an explicit list.
#[derive(Default)]
pub struct OperatorRegistry(BTreeMap<&'static str, Box<dyn Operator>>);

impl OperatorRegistry {
    /// Adds one.
    #[must_use]
    pub fn with(mut self, operator: impl Operator + 'static) -> Self {
        self.0.insert(operator.describe().name, Box::new(operator));
        self
    }

    /// The operator of that name.
    pub fn get(&self, name: &str) -> Result<&dyn Operator> {
        self.0
            .get(name)
            .map(AsRef::as_ref)
            .ok_or_else(|| Error::not_found("operator", name, self.0.keys().copied()))
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Operator> {
        self.0.values().map(AsRef::as_ref)
    }
}
