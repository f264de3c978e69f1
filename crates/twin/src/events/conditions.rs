//! What a rule reads of a twin: its conditions and its property, as expressions over the columns of the twin.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::DFSchema;
use datafusion::physical_expr::PhysicalExpr;
use twinlake_contracts::{Error, Result};
use twinlake_query::SessionSettings;

use super::rule::EventRule;
use super::watch::{Observed, Verdict};
use crate::Twins;
use crate::model::TwinModel;
use crate::view::back;

/// The expressions of a rule over the columns of its twin.
pub(super) struct Conditions {
    pub(super) rule: String,
    raise: Option<Arc<dyn PhysicalExpr>>,
    clear: Option<Arc<dyn PhysicalExpr>>,
    steps: Vec<Arc<dyn PhysicalExpr>>,
    value: Option<Arc<dyn PhysicalExpr>>,
}

/// What a rule reads of some rows.
pub(super) struct Evaluated {
    raise: Option<BooleanArray>,
    clear: Option<BooleanArray>,
    steps: Vec<BooleanArray>,
    value: Option<Float64Array>,
}

impl Twins {
    /// The expressions of a rule. What cannot hold is an error that names rule and SQL.
    pub(super) fn conditions(&self, rule: &EventRule, model: &TwinModel) -> Result<Conditions> {
        let session = self.engine()?.session(SessionSettings::default())?;
        let columns = DFSchema::try_from(model.schema().as_ref().clone()).map_err(back)?;
        let physical = |sql: &str| {
            let made = session
                .context()
                .parse_sql_expr(sql, &columns)
                .and_then(|expression| session.context().create_physical_expr(expression, &columns));
            made.map_err(|error| {
                let reason = error.strip_backtrace();
                Error::config(format!("rule '{}': '{sql}' is not possible: {reason}", rule.name))
            })
        };
        let condition = |sql: &String| -> Result<Arc<dyn PhysicalExpr>> {
            let made = physical(sql)?;
            if made.data_type(columns.as_arrow()).map_err(back)? != DataType::Boolean {
                return Err(Error::config(format!("rule '{}': '{sql}' is no condition", rule.name)));
            }
            Ok(made)
        };
        let value = rule.anomaly.as_ref().map(|anomaly| {
            let property = &anomaly.property;
            let kind = columns.field_with_unqualified_name(property).map(|field| field.data_type().clone());
            match kind {
                Ok(kind) if kind.is_numeric() => physical(&format!("\"{}\"", property.replace('"', "\"\""))),
                Ok(kind) => {
                    Err(Error::config(format!("rule '{}': '{property}' is {kind}, no number", rule.name)))
                }
                Err(_) => {
                    let known = columns.fields().iter().map(|field| field.name().as_str());
                    let failed = Error::not_found("property", property, known);
                    Err(Error::config(format!("rule '{}': {failed}", rule.name)))
                }
            }
        });
        Ok(Conditions {
            rule: rule.name.clone(),
            raise: rule.raise_when.as_ref().map(condition).transpose()?,
            clear: rule.clear_when.as_ref().map(condition).transpose()?,
            steps: rule.steps.iter().map(|step| condition(&step.when)).collect::<Result<_>>()?,
            value: value.transpose()?,
        })
    }
}

fn evaluated(expression: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    expression.evaluate(rows).and_then(|values| values.into_array(rows.num_rows())).map_err(back)
}

/// Where a condition holds; a null is no.
fn holds(condition: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
    let held = evaluated(condition, rows)?;
    let held = held.as_boolean_opt().ok_or_else(|| Error::internal("a condition that is no condition"))?;
    Ok(held.iter().map(|held| Some(held.unwrap_or(false))).collect())
}

impl Conditions {
    /// What the rule reads of rows of its twin.
    pub(super) fn evaluate(&self, rows: &RecordBatch) -> Result<Evaluated> {
        let optional = |condition: &Option<Arc<dyn PhysicalExpr>>| {
            condition.as_ref().map(|condition| holds(condition, rows)).transpose()
        };
        let value = self.value.as_ref().map(|value| -> Result<Float64Array> {
            Ok(cast(&evaluated(value, rows)?, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
        });
        Ok(Evaluated {
            raise: optional(&self.raise)?,
            clear: optional(&self.clear)?,
            steps: self.steps.iter().map(|step| holds(step, rows)).collect::<Result<_>>()?,
            value: value.transpose()?,
        })
    }
}

impl Evaluated {
    /// What the rule reads of one row.
    pub(super) fn of(&self, row: usize) -> Observed {
        let clear = self.clear.as_ref().map(|clear| clear.value(row));
        if let Some(values) = &self.value {
            return Observed::Value(values.is_valid(row).then(|| values.value(row)));
        }
        if !self.steps.is_empty() {
            let bits = self.steps.iter().enumerate().map(|(step, held)| u32::from(held.value(row)) << step);
            return Observed::Steps { holds: bits.sum(), clear };
        }
        let raise = self.raise.as_ref().is_some_and(|raise| raise.value(row));
        Observed::Verdict(Verdict { raise, clear: clear.unwrap_or(!raise) })
    }
}
