//! The runs of a scenario: which operators, in which order, with which parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Parameters, Result, TomlFile, suggest};

use super::ensemble::is_whole;
use super::{Scenario, placed};
use crate::Twins;

/// One run of a scenario; it sees what the runs before it gave.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioRun {
    /// The operator.
    pub operator: String,
    /// The twin model whose binding is meant, if several bind the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
    /// The seed of operators that draw random numbers.
    #[serde(default)]
    pub seed: u64,
    /// Parameters of this run, before those that the scenario gives for all runs of the operator.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

impl Scenario {
    /// The parameters that the scenario gives to an operator: its own, then what the member drew.
    pub(crate) fn parameters_of(&self, operator: &str) -> Parameters {
        let own = self.parameters.get(operator).into_iter();
        own.chain(self.drawn.get(operator))
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The scenario as one of its members: 0 is the scenario itself, an unknown number nothing.
    pub(crate) fn member(&self, number: u32, twins: &Twins) -> Option<Self> {
        if number == 0 {
            return Some(self.clone());
        }
        let ensemble = self.ensemble.as_ref().filter(|ensemble| number <= ensemble.members)?;
        let whole = |operator: &str, parameter: &str| {
            let specs = twins.any_parameter_specs(operator).unwrap_or_default();
            specs.iter().any(|spec| spec.name == parameter && is_whole(spec))
        };
        Some(Self {
            name: format!("{}/{number}", self.name),
            drawn: ensemble.draw(number, &whole),
            member: number,
            ..self.clone()
        })
    }

    /// Holds runs, parameters and distributions against the operators that there are.
    pub(crate) fn check_runs(&self, source: &TomlFile, twins: &Twins) -> Result<()> {
        let known = |operator: &str, run: Option<&ScenarioRun>, names: &mut dyn Iterator<Item = &String>| {
            let quoted = format!("\"{operator}\"");
            let at = if source.text().contains(&quoted) { quoted.as_str() } else { operator };
            let specs = match run {
                Some(run) => twins.parameter_specs(operator, run.twin.as_deref()),
                None => twins.any_parameter_specs(operator),
            };
            let specs = specs.map_err(|error| placed(source, error, at))?;
            for name in names {
                if specs.iter().any(|spec| spec.name == name) {
                    continue;
                }
                let known: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
                let failed = source.mistake(format!("{operator} has no parameter '{name}'"), name);
                return Err(match suggest(name, known.iter().copied()) {
                    Some(near) => failed.with_help(format!("did you mean '{near}'?")),
                    None => failed.with_help(format!("known: {}", known.join(", "))),
                });
            }
            Ok(())
        };
        for run in &self.runs {
            known(&run.operator, Some(run), &mut run.parameters.keys())?;
        }
        for (operator, parameters) in &self.parameters {
            known(operator, None, &mut parameters.keys())?;
        }
        let Some(ensemble) = &self.ensemble else { return Ok(()) };
        if let Some(mistake) = ensemble.mistake() {
            return Err(source.mistake(mistake, "[ensemble"));
        }
        if self.runs.is_empty() {
            return Err(source
                .mistake("an ensemble without runs", "[ensemble")
                .with_help("say what its members run: [[runs]] with operator = \"…\""));
        }
        for (operator, parameters) in &ensemble.sample {
            known(operator, None, &mut parameters.keys())?;
            if !self.runs.iter().any(|run| run.operator == *operator) {
                let message = format!("'{operator}' is sampled, but no run of the scenario uses it");
                return Err(source.mistake(message, operator));
            }
        }
        Ok(())
    }
}
