//! Arguments of table functions, by place and by name: `simulate('op', scenario => 'x', seed => 1)`.
//!
//! DataFusion's planner refuses named arguments of table functions. [`NamedArguments`] plans those calls instead and
//! hands each named argument on as two, its marked name and its value; [`Arguments::parse`] reads them back. It works
//! wherever the session state plans SQL, so every door understands the same text.

use std::collections::BTreeMap;

use datafusion::common::{DFSchema, Result, ScalarValue, TableReference, plan_err};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor};
use twinlake_contracts::{parse_us, suggest};

/// Marks a text as the name of the argument that follows; nobody writes such a text by accident.
const MARK: &str = "\u{1}=>";

/// Plans calls of table functions. Their columns may be written with the name of the function before them.
#[derive(Debug)]
pub(crate) struct NamedArguments;

impl RelationPlanner for NamedArguments {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, alias, args: Some(arguments), .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let [ast::ObjectNamePart::Identifier(function)] = name.0.as_slice() else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let function = context.normalize_ident(function.clone());
        let mut planned = Vec::with_capacity(arguments.args.len());
        let mut names = Vec::new();
        for argument in &arguments.args {
            let (key, value) = match argument {
                FunctionArg::Named { name, arg, .. } => (Some(context.normalize_ident(name.clone())), arg),
                FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg, .. } => {
                    (Some(context.normalize_ident(name.clone())), arg)
                }
                FunctionArg::Unnamed(arg) => (None, arg),
                FunctionArg::ExprNamed { name, .. } => {
                    return plan_err!("{function}: '{name}' is not the name of an argument");
                }
            };
            let FunctionArgExpr::Expr(value) = value else {
                return plan_err!("{function}: '{argument}' is not a value");
            };
            if key.is_none() && !names.is_empty() {
                return plan_err!(
                    "{function}: the argument '{value}' without a name follows one with a name"
                );
            }
            let value = context.sql_to_expr(value.clone(), &DFSchema::empty())?;
            if let Some(key) = key {
                if names.contains(&key) {
                    return plan_err!("{function}: '{key}' is given twice");
                }
                planned.push(lit(format!("{MARK}{key}")));
                names.push(key);
            }
            planned.push(value);
        }
        let source = context.context_provider().get_table_function_source(&function, planned)?;
        let plan = LogicalPlanBuilder::scan(TableReference::bare(function), source, None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// The arguments of one call of a table function, all constant.
#[derive(Debug, Clone)]
pub struct Arguments {
    function: String,
    positional: Vec<ScalarValue>,
    named: BTreeMap<String, ScalarValue>,
}

impl Arguments {
    /// Reads what the planner hands to `TableFunctionImpl::call_with_args`. Arguments that are not constant are an
    /// error that names the function.
    pub fn parse(function: &str, arguments: &[Expr]) -> Result<Self> {
        let mut parsed =
            Self { function: function.to_owned(), positional: Vec::new(), named: BTreeMap::new() };
        let mut name = None;
        for argument in arguments {
            let Expr::Literal(value, _) = argument else {
                return plan_err!("{function}: '{argument}' is not a constant");
            };
            let marked = value.try_as_str().flatten().and_then(|text| text.strip_prefix(MARK));
            match (name.take(), marked) {
                (None, Some(marked)) => name = Some(marked.to_owned()),
                (None, None) => parsed.positional.push(value.clone()),
                (Some(name), _) => {
                    parsed.named.insert(name, value.clone());
                }
            }
        }
        Ok(parsed)
    }

    /// Takes the positional arguments that have no name yet as the arguments of these names, in order. More of them
    /// than names, or one given both ways, is an error.
    pub fn name_positional(&mut self, names: &[&str]) -> Result<()> {
        if self.positional.len() > names.len() {
            return plan_err!(
                "{} takes {} arguments without a name ({}), not {}",
                self.function,
                names.len(),
                names.join(", "),
                self.positional.len()
            );
        }
        for (name, value) in names.iter().zip(std::mem::take(&mut self.positional)) {
            if self.named.insert((*name).to_owned(), value).is_some() {
                return plan_err!("{}: '{name}' is given twice", self.function);
            }
        }
        Ok(())
    }

    /// Refuses names that are not among `known`, with a suggestion.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        for name in self.named.keys() {
            if !known.contains(&name.as_str()) {
                let hint = suggest(name, known.iter().copied()).map_or_else(
                    || format!("it takes {}", known.join(", ")),
                    |near| format!("did you mean '{near}'?"),
                );
                return plan_err!("{} has no argument '{name}', {hint}", self.function);
            }
        }
        Ok(())
    }

    /// The arguments without a name, in order.
    pub fn positional(&self) -> &[ScalarValue] {
        &self.positional
    }

    /// The names given, in alphabetical order, with their values.
    pub fn named(&self) -> impl Iterator<Item = (&str, &ScalarValue)> {
        self.named.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of a name; a null counts as not given.
    pub fn get(&self, name: &str) -> Option<&ScalarValue> {
        self.named.get(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.try_as_str() {
                Some(Some(text)) => Ok(Some(text.to_owned())),
                _ => self.wrong(name, value, "a text"),
            },
        }
    }

    /// An instant in microseconds since the epoch, UTC, from a time stamp, a date or their text.
    pub fn instant_us(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        if let Some(Some(text)) = value.try_as_str() {
            return match parse_us(text) {
                Some(us) => Ok(Some(us)),
                None => self.wrong(name, value, "a time stamp such as '2018-10-09T04:32:53Z'"),
            };
        }
        let is_time = matches!(
            value.data_type(),
            arrow::datatypes::DataType::Timestamp(..)
                | arrow::datatypes::DataType::Date32
                | arrow::datatypes::DataType::Date64
        );
        match value.cast_to(&twinlake_contracts::timestamp_type()) {
            Ok(ScalarValue::TimestampMicrosecond(Some(us), _)) if is_time => Ok(Some(us)),
            _ => self.wrong(name, value, "a time stamp"),
        }
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.cast_to(&arrow::datatypes::DataType::Int64) {
            Ok(ScalarValue::Int64(Some(number))) if value.data_type().is_integer() => Ok(Some(number)),
            _ => self.wrong(name, value, "a whole number"),
        }
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.cast_to(&arrow::datatypes::DataType::Float64) {
            Ok(ScalarValue::Float64(Some(number))) if value.data_type().is_numeric() => Ok(Some(number)),
            _ => self.wrong(name, value, "a number"),
        }
    }

    fn wrong<T>(&self, name: &str, value: &ScalarValue, wanted: &str) -> Result<T> {
        plan_err!("{}: '{name}' must be {wanted}, not {value}", self.function)
    }
}
