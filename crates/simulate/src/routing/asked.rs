//! What the operators on roads are asked, alike in all of them: weight, hour, limits, and nodes named by a table.

use arrow::array::RecordBatch;
use serde_json::Value;
use twinlake_contracts::{Error, Parameters, Result};

use super::roads::Roads;
use crate::columns::Table;

/// A column of node identifiers as node numbers.
pub(crate) fn read_nodes(role: &str, batch: &RecordBatch, column: &str, roads: &Roads) -> Result<Vec<u32>> {
    let ids = Table::new(role, batch).integers(column)?.into_iter().enumerate();
    ids.map(|(row, id)| {
        roads.index_of(id).ok_or_else(|| {
            Error::config(format!(
                "row {} of '{role}' names node {id}, which the network does not have",
                row + 1
            ))
        })
    })
    .collect()
}

/// Ascending positive numbers, given as a list or as one number.
pub(crate) fn limits(value: &Value) -> Result<Vec<f64>> {
    let numbers: Option<Vec<f64>> = match value {
        Value::Array(values) => values.iter().map(Value::as_f64).collect(),
        Value::Number(number) => number.as_f64().map(|number| vec![number]),
        _ => None,
    };
    numbers
        .filter(|numbers| {
            let ascending = numbers.windows(2).all(|pair| pair[0] < pair[1]);
            ascending && numbers.first().is_some_and(|first| *first >= 0.0)
        })
        .ok_or_else(|| {
            Error::config(format!("parameter limits = {value} must be ascending numbers, not negative"))
                .with_help("for example [300, 600, 900]")
        })
}

/// The parameter `weight`: the name of a column of `links`.
pub(crate) fn weight_column(parameters: &Parameters) -> Result<String> {
    match &parameters["weight"] {
        Value::String(name) if !name.is_empty() => Ok(name.clone()),
        other => {
            Err(Error::config(format!("parameter weight = {other} must be the name of a column of 'links'"))
                .with_help("for example free_flow_time_s or length_m"))
        }
    }
}

/// The parameter `hour`: a whole number, or null.
pub(crate) fn hour(parameters: &Parameters) -> Result<Option<i64>> {
    match &parameters["hour"] {
        Value::Null => Ok(None),
        Value::Number(number) if number.as_i64().is_some() => Ok(number.as_i64()),
        other => Err(Error::config(format!("parameter hour = {other} must be a whole number or null"))),
    }
}
