//! Which models say what of an operator: whose simulation it is, who keeps another output of its runs, who has tables for questions.

use std::sync::Arc;

use indexmap::IndexMap;
use twinlake_contracts::{Error, ParameterSpec, Parameters, Result, TableName, suggest};

use crate::Twins;
use crate::model::{DemandBinding, SimulationBinding, TwinModel};

/// A model and its binding.
type Bound = (Arc<TwinModel>, Arc<SimulationBinding>);

/// What a model says that an operator takes when it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) model: Arc<TwinModel>,
    pub(crate) inputs: IndexMap<String, String>,
    pub(crate) parameters: Parameters,
    pub(crate) demand: Option<DemandBinding>,
}

impl Twins {
    /// The models that keep another output of the runs bound to `model`, by name.
    pub(crate) fn sharers(&self, model: &str) -> Vec<(Arc<TwinModel>, Arc<SimulationBinding>)> {
        let shares = |binding: &&SimulationBinding| binding.with_model.as_deref() == Some(model);
        let bound = self.models.values().filter_map(|model| {
            let binding = model.simulation.as_ref().filter(shares)?;
            Some((model.clone(), Arc::new(binding.clone())))
        });
        bound.collect()
    }

    /// All tables that the runs of a binding land in.
    pub(crate) fn result_tables(&self, binding: &SimulationBinding) -> Vec<TableName> {
        let own = self.models.values().find(|model| {
            model.simulation.as_ref().is_some_and(|simulation| simulation.table == binding.table)
        });
        let shared = own.map(|model| self.sharers(&model.name)).unwrap_or_default();
        shared.into_iter().map(|(_, other)| other.table.clone()).chain([binding.table.clone()]).collect()
    }

    /// The model that keeps that output of the runs bound to `model`.
    pub(crate) fn sharer(
        &self,
        model: &str,
        operator: &str,
        output: &str,
    ) -> Result<(Arc<TwinModel>, Arc<SimulationBinding>)> {
        let all = self.sharers(model);
        let known: Vec<&str> = all.iter().map(|(_, binding)| binding.output.as_str()).collect();
        let found = all.iter().find(|(_, binding)| binding.output == output);
        found.cloned().ok_or_else(|| {
            let message = format!("no twin model keeps the table '{output}' of {operator}");
            Error::config(message).with_help(match suggest(output, known.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None if known.is_empty() => "leave out 'table'".to_owned(),
                None => format!("beside its own it has {}", known.join(", ")),
            })
        })
    }

    /// The models whose simulation is one of `operator`, by name; not those that share the runs of another.
    fn bound(&self, operator: &str) -> Vec<Bound> {
        let own = |binding: &&SimulationBinding| binding.operator == operator && binding.with_model.is_none();
        let bound = self.models.values().filter_map(|model| {
            let binding = model.simulation.as_ref().filter(own)?;
            Some((model.clone(), Arc::new(binding.clone())))
        });
        bound.collect()
    }

    /// Whether the simulation of a model (of any, without a name) is one of `operator`.
    pub(crate) fn is_bound(&self, operator: &str, model: Option<&str>) -> bool {
        self.bound(operator).iter().any(|(bound, _)| model.is_none_or(|model| model == bound.name))
    }

    /// Whether several models have a simulation of `operator`.
    pub(crate) fn is_bound_twice(&self, operator: &str) -> bool {
        self.bound(operator).len() > 1
    }

    /// The model that an operator is bound to, and the binding that says what it takes.
    pub(crate) fn simulation(&self, operator: &str) -> Result<Bound> {
        self.simulation_of(operator, None)
    }

    /// The model that an operator is bound to, and the binding; that of `model`, which must be named if there are several.
    pub(crate) fn simulation_of(&self, operator: &str, model: Option<&str>) -> Result<Bound> {
        let model = model.filter(|model| !model.is_empty());
        if let Some(model) = model {
            self.model(model)?;
        }
        let mut bound = self.bound(operator);
        if bound.is_empty() {
            return Err(self.unbound(operator));
        }
        bound.retain(|(bound, _)| model.is_none_or(|model| model == bound.name));
        if bound.len() > 1 {
            let names = bound.iter().map(|(model, _)| model.name.as_str());
            return Err(several(&format!("have a simulation of {operator}"), names));
        }
        bound.pop().ok_or_else(|| {
            let model = model.unwrap_or_default();
            let failed = Error::config(format!("twin model '{model}' is not bound to {operator}"));
            let binding = self.models.get(model).and_then(|model| model.simulation.as_ref());
            match binding.and_then(|binding| Some((binding, binding.with_model.as_deref()?))) {
                Some((binding, owner)) if binding.operator == operator => failed.with_help(format!(
                    "it keeps the table '{}' of the runs of '{owner}': name that model",
                    binding.output
                )),
                _ => failed,
            }
        })
    }

    fn unbound(&self, operator: &str) -> Error {
        if self.operators().get(operator).is_ok() {
            return Error::config(format!(
                "no twin model has a simulation of {operator}, so its runs would land nowhere"
            ))
            .with_help(format!("ask it in SQL, which keeps nothing: simulate('{operator}', …)"));
        }
        let known = self.models.values().filter_map(|model| model.simulation.as_ref());
        Error::not_found("operator", operator, known.map(|binding| binding.operator.as_str()))
    }

    /// The model bound to an operator whose runs land in one of these tables.
    pub(crate) fn simulation_in(&self, operator: &str, tables: &[&str]) -> Result<Bound> {
        let mut bound = self.bound(operator).into_iter();
        match bound.find(|(_, binding)| tables.contains(&binding.table.to_string().as_str())) {
            Some(found) => Ok(found),
            None => self.simulation(operator),
        }
    }

    /// The parameters that an operator takes here: its own, and those of the demand that is made for it.
    pub(crate) fn parameter_specs(&self, operator: &str, model: Option<&str>) -> Result<Vec<ParameterSpec>> {
        let (_, binding) = self.simulation_of(operator, model)?;
        self.specs(operator, binding.demand.is_some(), &binding.parameters)
    }

    /// As [`Twins::parameter_specs`], of an operator that several models may be bound to, or that is only asked: what any of them takes.
    pub(crate) fn any_parameter_specs(&self, operator: &str) -> Result<Vec<ParameterSpec>> {
        let bound = self.bound(operator);
        let Some((_, first)) = bound.first() else {
            let asked = self.models.values().find_map(|model| model.analysis(operator));
            let asked = asked.ok_or_else(|| self.unbound(operator))?;
            return self.specs(operator, false, &asked.parameters);
        };
        let with_demand = bound.iter().any(|(_, binding)| binding.demand.is_some());
        self.specs(operator, with_demand, &first.parameters)
    }

    /// The parameters of an operator, and of the demand if there is one, with these defaults.
    pub(crate) fn specs(
        &self,
        operator: &str,
        with_demand: bool,
        defaults: &Parameters,
    ) -> Result<Vec<ParameterSpec>> {
        let mut specs = self.operators().get(operator)?.describe().parameters;
        if with_demand {
            specs.extend(crate::demand::parameters());
        }
        for spec in &mut specs {
            if let Some(given) = defaults.get(spec.name) {
                spec.default = given.clone();
            }
        }
        Ok(specs)
    }

    /// What a model says that an operator takes when it is asked: its analysis, else its simulation. An empty name is no model;
    /// without a name it is the only one that says something, if one does.
    pub(crate) fn said(&self, operator: &str, model: Option<&str>) -> Result<Option<Said>> {
        if model.is_some_and(str::is_empty) {
            return Ok(None);
        }
        if let Some(model) = model {
            self.model(model)?;
        }
        let said = |model: &Arc<TwinModel>| {
            if let Some(analysis) = model.analysis(operator) {
                return Some(Said {
                    model: model.clone(),
                    inputs: analysis.inputs.clone(),
                    parameters: analysis.parameters.clone(),
                    demand: None,
                });
            }
            let binding = model.simulation.as_ref()?;
            let own = binding.operator == operator && binding.with_model.is_none();
            own.then(|| Said {
                model: model.clone(),
                inputs: binding.inputs.clone(),
                parameters: binding.parameters.clone(),
                demand: binding.demand.clone(),
            })
        };
        let mut all: Vec<Said> = self.models.values().filter_map(said).collect();
        match model {
            Some(model) => match all.into_iter().find(|said| said.model.name == model) {
                Some(said) => Ok(Some(said)),
                None => {
                    Err(Error::config(format!("twin model '{model}' does not say what {operator} takes")))
                }
            },
            None if all.len() > 1 => {
                let names = all.iter().map(|said| said.model.name.as_str());
                Err(several(&format!("say what {operator} takes"), names))
            }
            None => Ok(all.pop()),
        }
    }
}

/// Several models, where one must be meant.
fn several<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let names: Vec<&str> = names.collect();
    let first = names.first().copied().unwrap_or_default();
    Error::config(format!("several twin models {what}: {}", names.join(", "))).with_help(format!(
        "name one: model => '{first}' in SQL, twin = \"{first}\" in [[runs]], --model {first}"
    ))
}
