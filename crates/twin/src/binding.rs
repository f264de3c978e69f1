//! What a model says of its simulation, held against what the operator takes and gives.

use std::collections::BTreeSet;

use twinlake_contracts::{Error, TableShape, suggest};

use crate::Twins;
use crate::demand;
use crate::model::{SimulationBinding, TwinModel};
use crate::snapshot::{of_input, query};

/// A mistake, and the text in the model's file that it is about.
pub(crate) struct Mistake {
    pub(crate) error: Error,
    pub(crate) at: String,
}

fn mistake(at: &str, error: Error) -> Mistake {
    Mistake { error, at: at.to_owned() }
}

/// An error that names what was written, with the nearest name that is known, or all of them.
fn unknown<'a>(message: String, name: &str, known: impl Iterator<Item = &'a str>) -> Mistake {
    let known: Vec<&str> = known.collect();
    let help = match suggest(name, known.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("known: {}", known.join(", ")),
    };
    mistake(name, Error::config(message).with_help(help))
}

/// Checks a binding: operator, output, columns, inputs and parameters are the operator's; what shares the runs of another
/// model says nothing of its own about what is taken.
pub(crate) fn check(twins: &Twins, model: &TwinModel, binding: &SimulationBinding) -> Result<(), Mistake> {
    let operator = &binding.operator;
    let spec = match twins.operators().get(operator) {
        Ok(found) => found.describe(),
        Err(error) => return Err(mistake(operator, Error::config(error.to_string()))),
    };
    let output = spec.outputs.iter().find(|shape| shape.role == binding.output).ok_or_else(|| {
        let message = format!("{operator} gives no table '{}'", binding.output);
        unknown(message, &binding.output, spec.outputs.iter().map(|shape| shape.role))
    })?;
    let columns = binding.columns.iter().map(|(name, column)| column.column.as_deref().unwrap_or(name));
    for column in columns.chain([binding.key.as_str()]) {
        has_column(output, operator, column)?;
    }
    let demand = binding.demand.iter().flat_map(|_| demand::parameters());
    let known: Vec<&str> = spec.parameters.iter().map(|it| it.name).chain(demand.map(|it| it.name)).collect();
    if let Some(name) = binding.parameters.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown(format!("{operator} has no parameter '{name}'"), name, known.iter().copied()));
    }
    let unasked = |role: &&String| spec.inputs.iter().all(|shape| shape.role != **role);
    if let Some(role) = binding.inputs.keys().find(unasked) {
        let message = format!("{operator} takes no table '{role}'");
        return Err(unknown(message, role, spec.inputs.iter().map(|shape| shape.role)));
    }
    match &binding.with_model {
        Some(other) => shares(twins, binding, other),
        None => takes_something(model, binding),
    }
}

/// Checks what a model has for operators that are asked: each of them is there, takes these inputs and parameters, and is named
/// once; each input is one query.
pub(crate) fn check_analyses(twins: &Twins, model: &TwinModel) -> Result<(), Mistake> {
    let mut seen = BTreeSet::new();
    for (analysis, operator) in
        model.analyses.iter().flat_map(|it| it.operators.iter().map(move |op| (it, op)))
    {
        let spec = match twins.operators().get(operator) {
            Ok(found) => found.describe(),
            Err(error) => return Err(mistake(&format!("\"{operator}\""), Error::config(error.to_string()))),
        };
        if !seen.insert(operator) {
            let message = format!("twin model '{}' says twice what {operator} takes", model.name);
            return Err(mistake(
                &format!("\"{operator}\""),
                Error::config(message).with_help("name it in one [[analyses]]"),
            ));
        }
        let roles = || spec.inputs.iter().map(|shape| shape.role);
        for (role, sql) in &analysis.inputs {
            if !roles().any(|known| known == role) {
                let failed = unknown(format!("{operator} takes no table '{role}'"), role, roles());
                return Err(Mistake { at: format!("{role} ="), ..failed });
            }
            query(sql).map_err(|error| mistake(&format!("{role} ="), of_input(&error, operator, role)))?;
        }
        let parameters = || spec.parameters.iter().map(|it| it.name);
        if let Some(name) = analysis.parameters.keys().find(|name| !parameters().any(|known| known == *name))
        {
            let failed = unknown(format!("{operator} has no parameter '{name}'"), name, parameters());
            return Err(Mistake { at: format!("{name} ="), ..failed });
        }
    }
    if let Some(empty) = model.analyses.iter().find(|it| it.operators.is_empty() || it.inputs.is_empty()) {
        let what = if empty.operators.is_empty() { "operators" } else { "inputs" };
        let message = format!("an analysis of twin model '{}' names no {what}", model.name);
        return Err(mistake(
            what,
            Error::config(message).with_help("give operators = [\"…\"] and [analyses.inputs]"),
        ));
    }
    Ok(())
}

fn has_column(output: &TableShape, operator: &str, column: &str) -> Result<(), Mistake> {
    let known = || output.columns.iter().map(|(name, _, _)| *name);
    if known().any(|name| name == column) {
        return Ok(());
    }
    let message = format!("the table '{}' of {operator} has no column '{column}'", output.role);
    Err(unknown(message, column, known()))
}

fn shares(twins: &Twins, binding: &SimulationBinding, other: &str) -> Result<(), Mistake> {
    let operator = &binding.operator;
    let found = twins.model(other).map_err(|error| mistake(other, Error::config(error.to_string())))?;
    let whole = found.simulation.as_ref();
    if !whole.is_some_and(|whole| whole.operator == *operator && whole.with_model.is_none()) {
        let message = format!("twin model '{other}' does not say what {operator} takes");
        return Err(mistake(
            other,
            Error::config(message)
                .with_help(format!("'with' names a model whose [simulation] has inputs of {operator}")),
        ));
    }
    if !binding.inputs.is_empty() || !binding.parameters.is_empty() || binding.demand.is_some() {
        let message = format!("what {operator} takes is said by twin model '{other}'");
        return Err(mistake(
            other,
            Error::config(message)
                .with_help("leave inputs, parameters and demand out here, or leave out 'with'"),
        ));
    }
    Ok(())
}

fn takes_something(model: &TwinModel, binding: &SimulationBinding) -> Result<(), Mistake> {
    let operator = &binding.operator;
    if binding.inputs.is_empty() {
        let message = format!("the simulation of twin model '{}' takes nothing", model.name);
        let help = format!("give [simulation.inputs], or with = \"the model that does\" for {operator}");
        return Err(mistake(operator, Error::config(message).with_help(help)));
    }
    Ok(())
}
