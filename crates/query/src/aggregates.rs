//! Aggregates under the names that PostGIS gives them.
//!
//! There `st_union(geom)` is the union of a group, and of a list when it is given one. Here a name is either a function or
//! an aggregate, so the aggregate is `st_union_agg`. A statement that does not fit the function is planned again with the
//! aggregate in place of every call with a single argument that is no list by its looks.

use std::ops::ControlFlow;

use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArguments, Ident, ObjectName, visit_expressions_mut,
};

/// The function, and the aggregate of the same name.
const BOTH: [(&str, &str); 2] = [("st_union", "st_union_agg"), ("st_collect", "st_collect_agg")];

/// Plans a statement, with aggregates where functions of their name do not fit.
pub(crate) async fn plan(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    let mut other = statement.clone();
    match state.statement_to_plan(statement).await {
        Ok(plan) => Ok(plan),
        Err(error) if name_aggregates(&mut other) => state.statement_to_plan(other).await.map_err(|_| error),
        Err(error) => Err(error),
    }
}

/// Whether there was a call to be renamed.
fn name_aggregates(statement: &mut Statement) -> bool {
    match statement {
        Statement::Statement(inner) => {
            let mut renamed = false;
            let _ = visit_expressions_mut(inner.as_mut(), |expression| {
                if let Expr::Function(function) = expression {
                    renamed |= rename(function);
                }
                ControlFlow::<()>::Continue(())
            });
            renamed
        }
        Statement::Explain(explain) => name_aggregates(&mut explain.statement),
        _ => false,
    }
}

fn rename(function: &mut Function) -> bool {
    let name = function.name.to_string().to_lowercase();
    let Some((_, aggregate)) = BOTH.iter().find(|(known, _)| *known == name) else { return false };
    let FunctionArguments::List(list) = &function.args else { return false };
    let [argument] = list.args.as_slice() else { return false };
    let text = argument.to_string().to_lowercase();
    let is_list = ["[", "array", "make_array"].iter().any(|start| text.starts_with(start));
    if !is_list {
        function.name = ObjectName::from(vec![Ident::new(*aggregate)]);
    }
    !is_list
}

#[cfg(test)]
mod tests {
    use crate::SessionSettings;
    use crate::testing::{engine, lines};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_names_of_postgis_are_aggregates_over_groups_and_functions_of_lists() {
        let (_folder, engine) = engine().await;
        let session = engine.session(SessionSettings::default()).unwrap();
        let squares = "(VALUES (1, st_makeenvelope(0, 0, 1, 1)), (1, st_makeenvelope(1, 0, 2, 1)), (2, st_makeenvelope(5, 5, 6, 6))) AS t(k, g)";
        for (sql, expected) in [
            (format!("SELECT k, st_area(st_union(g)) FROM {squares} GROUP BY k ORDER BY k"), "1|2.0\n2|1.0"),
            (
                format!("SELECT st_numgeometries(ST_Collect(g)), st_area(st_extent(g)) FROM {squares}"),
                "3|36.0",
            ),
            (format!("SELECT st_area(st_union(array_agg(g))) FROM {squares}"), "3.0"),
            (
                "SELECT st_area(st_union(st_makeenvelope(0, 0, 1, 1), st_makeenvelope(0, 0, 2, 1)))"
                    .to_owned(),
                "2.0",
            ),
        ] {
            let answer = session.collect(&sql).await.map(|rows| lines(&rows));
            assert_eq!(answer.as_deref().map_err(ToString::to_string), Ok(expected), "{sql}");
        }
        let error = session.collect("SELECT st_union(1) FROM (VALUES (1)) AS t(k)").await.unwrap_err();
        assert!(error.to_string().contains("st_union"), "{error}");
    }
}
