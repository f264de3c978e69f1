//! Text into statements, in PostgreSQL's dialect.
//!
//! Two ways lead through here, and they must not be mixed up. Statements that ask `pg_catalog` come from clients
//! (`\d` in psql, a driver's first questions) and are put, roughly, into words that the engine understands: the
//! compatibility rules there even take a correlated subquery for `NULL` and rename columns. Everything else is what
//! a person or a program asks of the data: it gets only rules that keep its meaning.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, Statement, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral, FixVersionColumnName,
    RewriteArrayAnyAllOperation, RewritePgCatalogOperator, RewriteRegCastToSubquery, SqlStatementRewriteRule,
    StripCallableQualifier, StripCollate,
};
use datafusion_postgres::pgwire::error::PgWireResult;

use twinlake_query::tokens_with_asof;

use crate::postgres::error::syntax;

/// Parses statements; shared by all connections.
#[derive(Debug)]
pub(super) struct StatementParser {
    catalog: PostgresCompatibilityParser,
    rules: Vec<Box<dyn SqlStatementRewriteRule>>,
}

impl StatementParser {
    pub(super) fn new() -> Self {
        Self {
            catalog: PostgresCompatibilityParser::new(),
            rules: vec![
                Box::new(RewriteArrayAnyAllOperation),
                Box::new(StripCallableQualifier),
                Box::new(FixArrayLiteral),
                Box::new(CurrentUserVariableToSessionUserFunctionCall),
                Box::new(StripCollate),
                Box::new(RewritePgCatalogOperator),
                Box::new(RewriteRegCastToSubquery::new()),
                Box::new(FixVersionColumnName),
            ],
        }
    }

    /// The statements of a text.
    pub(super) fn parse(&self, text: &str) -> PgWireResult<Vec<Statement>> {
        let parsed =
            tokens_with_asof(&PostgreSqlDialect {}, text).map_err(ParserError::from).and_then(|tokens| {
                Parser::new(&PostgreSqlDialect {}).with_tokens_with_locations(tokens).parse_statements()
            });
        match parsed {
            Ok(statements) if statements.iter().any(asks_catalog) => {
                self.catalog.parse(text).map_err(|error| syntax(&error))
            }
            Ok(statements) => Ok(statements.into_iter().map(|statement| self.rewrite(statement)).collect()),
            // The parser for clients knows words such as ABORT; if it fails too, the first error has the better place.
            Err(error) => self.catalog.parse(text).map_err(|_| syntax(&error)),
        }
    }

    fn rewrite(&self, statement: Statement) -> Statement {
        self.rules.iter().fold(statement, |statement, rule| rule.rewrite(statement))
    }
}

/// Whether a statement reads a table of `pg_catalog`.
fn asks_catalog(statement: &Statement) -> bool {
    let of_catalog = |name: &ObjectName| {
        let parts: Vec<String> = name
            .0
            .iter()
            .filter_map(|part| part.as_ident())
            .map(|ident| ident.value.to_lowercase())
            .collect();
        match parts.as_slice() {
            [table] => table.starts_with("pg_"),
            _ => parts.iter().any(|part| part == "pg_catalog"),
        }
    };
    visit_relations(statement, |name| {
        if of_catalog(name) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .is_break()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Vec<String> {
        StatementParser::new().parse(sql).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_people_ask_keeps_its_meaning() {
        for sql in [
            "SELECT (SELECT count(*) FROM a WHERE a.id = b.id) AS n FROM b",
            "SELECT id, a.* FROM a WHERE x > 1 ORDER BY y",
            "SELECT * FROM twin_at('vehicle', TIMESTAMP '2018-10-09', scenario => 'x') AS t",
            "SELECT (SELECT max(x) FROM a WHERE x < $1)",
            "SELECT x FROM a GLOBAL JOIN b ON a.k = b.k AND a.t >= b.t",
        ] {
            assert_eq!(parsed(sql), [sql]);
        }
        assert_eq!(
            parsed("SELECT x FROM a ASOF JOIN b ON a.k = b.k AND a.t >= b.t"),
            ["SELECT x FROM a GLOBAL JOIN b ON a.k = b.k AND a.t >= b.t"]
        );
        assert_eq!(parsed("SELECT 1; SELECT 2;").len(), 2);
        assert_eq!(parsed("SELECT x = ANY(ARRAY[1, 2])"), ["SELECT array_contains(ARRAY[1, 2], x)"]);
        assert_eq!(parsed("ABORT"), ["ROLLBACK"]);
        assert!(parsed(" ; ").is_empty());
    }

    #[test]
    fn what_clients_ask_of_the_catalog_is_put_into_other_words() {
        let asked = "SELECT n.nspname FROM pg_namespace n WHERE n.nspname COLLATE pg_catalog.default = 'x'";
        assert_eq!(parsed(asked), ["SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname = 'x'"]);
        assert!(asks_catalog(&Parser::parse_sql(&PostgreSqlDialect {}, asked).unwrap()[0]));
        let data = "SELECT 'pg_catalog' FROM traffic.pg_like";
        assert!(!asks_catalog(&Parser::parse_sql(&PostgreSqlDialect {}, data).unwrap()[0]));
    }
}
