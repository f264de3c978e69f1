//! Statements: parsing, the session's own settings, and what a session refuses.

use std::collections::VecDeque;

use datafusion::sql::parser::{DFParserBuilder, ResetStatement, Statement};
use datafusion::sql::sqlparser::ast::{self, Set};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use twinlake_contracts::{Error, Result};
use twinlake_spatial::time::{mark_asof_joins, tokens_with_asof};

/// Parses SQL text into its statements. The dialect is DataFusion's generic one: it reads PostgreSQL's casts,
/// operators and `=>`, and more (`SELECT * EXCLUDE (…)`, `ASOF JOIN`).
pub fn parse(sql: &str) -> Result<VecDeque<Statement>> {
    let tokens =
        tokens_with_asof(&GenericDialect {}, sql).map_err(|error| Error::config(error.to_string()))?;
    DFParserBuilder::new(tokens)
        .with_dialect(&GenericDialect {})
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| crate::error::to_error(error, &[]))
}

/// What a statement is rewritten to before DataFusion plans it: `RESET twin.x` clears the setting, `SET twin.x`
/// takes a `TIMESTAMP '…'` and a `SESSION` scope, and `ASOF JOIN` is marked for its planner. All other statements pass unchanged. A statement that writes is
/// refused, as is a setting that would loosen the bounds of the process.
pub fn prepare_statement(mut statement: Statement) -> Result<Statement> {
    mark_asof_joins(&mut statement);
    if let Some(what) = writes(&statement) {
        return Err(Error::config(format!("{what} is refused: SQL sessions only read")).with_help(
            "rows come in through pipelines (twinlake run), twins and scenarios through their files",
        ));
    }
    match statement {
        Statement::Reset(ResetStatement::Variable(variable)) => {
            let name = variable.to_string().to_lowercase();
            check_setting(&name)?;
            if name.starts_with("twin.") {
                return Ok(set(variable, ""));
            }
            Ok(Statement::Reset(ResetStatement::Variable(variable)))
        }
        Statement::Statement(inner) => match *inner {
            ast::Statement::Reset(ast::ResetStatement {
                reset: ast::Reset::ConfigurationParameter(variable),
            }) => prepare_statement(Statement::Reset(ResetStatement::Variable(variable))),
            ast::Statement::Set(Set::SingleAssignment { scope, hivevar, variable, values }) => {
                let name = variable.to_string().to_lowercase();
                check_setting(&name)?;
                match values.as_slice() {
                    [value] if name.starts_with("twin.") => Ok(set(variable, &setting_text(&name, value)?)),
                    _ => Ok(Statement::Statement(Box::new(ast::Statement::Set(Set::SingleAssignment {
                        scope,
                        hivevar,
                        variable,
                        values,
                    })))),
                }
            }
            other => Ok(Statement::Statement(Box::new(other))),
        },
        other => Ok(other),
    }
}

fn set(variable: ast::ObjectName, value: &str) -> Statement {
    Statement::Statement(Box::new(ast::Statement::Set(Set::SingleAssignment {
        scope: None,
        hivevar: false,
        variable,
        values: vec![ast::Expr::value(ast::Value::SingleQuotedString(value.to_owned()))],
    })))
}

/// The text of a setting's value: a text, a number, a word, or a typed text such as `TIMESTAMP '…'`.
fn setting_text(name: &str, value: &ast::Expr) -> Result<String> {
    let plain = |value: &ast::Value| match value {
        ast::Value::Null => Some(String::new()),
        other => other.clone().into_string().or_else(|| Some(other.to_string())),
    };
    let text = match value {
        ast::Expr::Value(value) => plain(&value.value),
        ast::Expr::TypedString(typed) => plain(&typed.value.value),
        ast::Expr::Identifier(word) => Some(word.value.clone()),
        // NOW() and CURRENT_TIMESTAMP mean the moving present, as NOW does.
        ast::Expr::Function(function) => {
            let function = function.name.to_string().to_lowercase();
            ["now", "current_timestamp"].contains(&function.as_str()).then(String::new)
        }
        // bridge-closed without quotes parses as a subtraction.
        ast::Expr::BinaryOp { op: ast::BinaryOperator::Minus, .. } if name == "twin.scenario" => {
            Some(value.to_string().replace(' ', ""))
        }
        _ => None,
    };
    text.ok_or_else(|| {
        Error::config(format!("{name} takes a constant, not {value}"))
            .with_help(format!("write for example SET {name} = '2018-10-09T04:32:53Z'"))
    })
}

/// Memory, disk and catalog bounds belong to who started the process.
fn check_setting(name: &str) -> Result<()> {
    for bound in ["datafusion.runtime.", "datafusion.catalog."] {
        if name.starts_with(bound) {
            return Err(Error::config(format!("the setting '{name}' cannot be changed in a session"))
                .with_help("it is set when the process starts"));
        }
    }
    Ok(())
}

/// The word for a statement that writes; `None` for one that only reads.
fn writes(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::CopyTo(_) => Some("COPY"),
        Statement::CreateExternalTable(_) => Some("CREATE EXTERNAL TABLE"),
        Statement::Explain(explain) => writes(&explain.statement),
        Statement::Reset(_) => None,
        Statement::Statement(inner) => writes_sql(inner),
    }
}

fn writes_sql(statement: &ast::Statement) -> Option<&'static str> {
    use ast::Statement as S;
    Some(match statement {
        S::Insert(_) => "INSERT",
        S::Update(_) => "UPDATE",
        S::Delete(_) => "DELETE",
        S::Merge(_) => "MERGE",
        S::Truncate(_) => "TRUNCATE",
        S::Copy { .. } => "COPY",
        S::CreateTable(_) => "CREATE TABLE",
        S::CreateView(_) => "CREATE VIEW",
        S::CreateSchema { .. } => "CREATE SCHEMA",
        S::CreateDatabase { .. } => "CREATE DATABASE",
        S::CreateFunction(_) => "CREATE FUNCTION",
        S::CreateIndex(_) => "CREATE INDEX",
        S::AlterTable(_) => "ALTER TABLE",
        S::Drop { .. } => "DROP",
        S::DropFunction(_) => "DROP FUNCTION",
        S::Explain { statement, .. } => return writes_sql(statement),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(sql: &str) -> Result<String> {
        let statement = parse(sql)?.pop_front().ok_or_else(|| Error::config("nothing"))?;
        prepare_statement(statement).map(|statement| statement.to_string())
    }

    #[test]
    fn every_spelling_of_a_setting_is_one() {
        for sql in [
            "SET twin.as_of = '2018-10-09T04:32:53Z'",
            "SET twin.as_of TO '2018-10-09T04:32:53Z'",
            "SET SESSION twin.as_of = '2018-10-09T04:32:53Z'",
            "SET twin.as_of = TIMESTAMP '2018-10-09T04:32:53Z'",
        ] {
            assert_eq!(prepared(sql).unwrap(), "SET twin.as_of = '2018-10-09T04:32:53Z'", "{sql}");
        }
        for sql in
            ["RESET twin.as_of", "SET twin.as_of = ''", "SET twin.as_of = now()", "SET twin.as_of = NULL"]
        {
            assert_eq!(prepared(sql).unwrap(), "SET twin.as_of = ''", "{sql}");
        }
        assert_eq!(prepared("SET twin.as_of = NOW").unwrap(), "SET twin.as_of = 'NOW'");
        assert_eq!(
            prepared("SET twin.scenario = bridge-closed").unwrap(),
            "SET twin.scenario = 'bridge-closed'"
        );
    }

    #[test]
    fn writing_is_refused_by_name() {
        for (sql, word) in [
            ("INSERT INTO a.b VALUES (1)", "INSERT"),
            ("DELETE FROM a.b", "DELETE"),
            ("UPDATE a.b SET c = 1", "UPDATE"),
            ("CREATE TABLE a.b AS SELECT 1", "CREATE TABLE"),
            ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
            ("DROP TABLE a.b", "DROP"),
            ("COPY (SELECT 1) TO 'a.csv'", "COPY"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc'", "CREATE EXTERNAL TABLE"),
            ("EXPLAIN ANALYZE INSERT INTO a.b VALUES (1)", "INSERT"),
        ] {
            let message = prepared(sql).unwrap_err().to_string();
            assert!(message.contains(&format!("{word} is refused")), "{sql}: {message}");
        }
        let bound = prepared("SET datafusion.runtime.memory_limit = '100G'").unwrap_err().to_string();
        assert!(bound.contains("cannot be changed"), "{bound}");
    }

    #[test]
    fn a_mistake_in_the_text_is_the_authors() {
        let error = parse("SELECT * FORM t").unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error:?}");
    }
}
