//! The parameters of a prepared statement: their types, and the values that a client bound.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::{PG_OID_ALIAS_KEY, pg_type_for_alias_kind};
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Portal;
use datafusion_postgres::pgwire::error::PgWireError;

use crate::failure::Failure;
use crate::postgres::encode::{declared_type, parameter_type};
use crate::postgres::error::raise;

/// The parameters of a plan, in order: for each the Arrow type that the statement needs, if it says, and the
/// wire type that the client is told.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters {
    arrow: Vec<Option<DataType>>,
    wire: Vec<Type>,
}

impl Parameters {
    /// The parameters of a plan.
    pub(super) fn of(plan: &LogicalPlan) -> Result<Self, Failure> {
        let mut found: HashMap<String, (Option<DataType>, Option<Type>)> = HashMap::new();
        let inferred = plan.get_parameter_types().map_err(Failure::from)?;
        for (id, kind) in inferred {
            found.insert(id, (kind, None));
        }
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Limit(limit) = node {
                for part in [&limit.skip, &limit.fetch].into_iter().flatten() {
                    if let Expr::Placeholder(placeholder) = part.as_ref() {
                        found.entry(placeholder.id.clone()).or_default().0.get_or_insert(DataType::Int64);
                    }
                }
            }
            node.apply_expressions(|expression| {
                expression.apply(|part| {
                    note(part, &mut found);
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })
        .map_err(Failure::from)?;
        let mut ordered: Vec<_> = found.into_iter().collect();
        ordered.sort_by_key(|(id, _)| number(id));
        let mut parameters = Self::default();
        for (_, (arrow, alias)) in ordered {
            parameters.wire.push(alias.unwrap_or_else(|| parameter_type(arrow.as_ref())));
            parameters.arrow.push(arrow);
        }
        Ok(parameters)
    }

    /// The wire types.
    pub(super) fn wire(&self) -> &[Type] {
        &self.wire
    }

    /// The values that a client bound.
    pub(super) fn values<S: Clone>(&self, portal: &Portal<S>) -> Result<ParamValues, PgWireError> {
        if portal.parameter_len() != self.wire.len() {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                portal.parameter_len(),
                portal.statement.id,
                self.wire.len()
            );
            return Err(raise("08P01", message));
        }
        let arrow: Vec<Option<&DataType>> = self.arrow.iter().map(Option::as_ref).collect();
        let wire: Vec<Option<&Type>> = self.wire.iter().map(Some).collect();
        deserialize_parameters_with_server_types(portal, &arrow, &wire)
    }
}

/// `$12` → 12.
fn number(id: &str) -> usize {
    id.trim_start_matches('$').parse().unwrap_or(usize::MAX)
}

/// What an expression tells of a parameter: the type it is cast to, and whether it stands for an object identifier.
fn note(expression: &Expr, found: &mut HashMap<String, (Option<DataType>, Option<Type>)>) {
    let (placeholder, cast_to) = match expression {
        Expr::Placeholder(placeholder) => (placeholder, None),
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Placeholder(placeholder) => (placeholder, Some(cast.field.data_type().clone())),
            _ => return,
        },
        _ => return,
    };
    let (kind, alias) = found.entry(placeholder.id.clone()).or_default();
    if kind.is_none() {
        *kind = cast_to;
    }
    if let Some(field) = &placeholder.field
        && field.data_type() == &DataType::Int32
        && let Some(name) = field.metadata().get(PG_OID_ALIAS_KEY)
    {
        *alias = pg_type_for_alias_kind(name);
    }
}

/// Gives placeholders whose type the statement leaves open the type that the client declared.
pub(super) fn declare(plan: LogicalPlan, declared: &[Option<Type>]) -> Result<LogicalPlan, Failure> {
    let open = Parameters::of(&plan)?.arrow.iter().any(Option::is_none);
    if !open || declared.iter().all(Option::is_none) {
        return Ok(plan);
    }
    let typed = |expression: Expr| -> Result<Transformed<Expr>, DataFusionError> {
        let Expr::Placeholder(mut placeholder) = expression else { return Ok(Transformed::no(expression)) };
        let index = number(&placeholder.id).checked_sub(1);
        let kind = index.and_then(|index| declared.get(index)?.as_ref()).and_then(declared_type);
        match (&placeholder.field, kind) {
            (None, Some(kind)) => {
                placeholder.field = Some(Field::new(&placeholder.id, kind, true).into());
                Ok(Transformed::yes(Expr::Placeholder(placeholder)))
            }
            _ => Ok(Transformed::no(Expr::Placeholder(placeholder))),
        }
    };
    plan.transform_up_with_subqueries(|node| {
        let schema = node.schema().clone();
        node.map_expressions(|expression| {
            // What the statement itself says comes first.
            let (expression, _) = expression.infer_placeholder_types(&schema)?;
            expression.transform_up(typed)
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .map(|transformed| transformed.data)
    .map_err(Failure::from)
}
