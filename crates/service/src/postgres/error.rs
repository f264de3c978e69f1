//! Failures with the SQLSTATE that PostgreSQL clients act on.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use twinlake_contracts::Error;

use crate::failure::{Failure, engine_message};

/// `read_only_sql_transaction`.
pub(super) const READ_ONLY: &str = "25006";
/// `in_failed_sql_transaction`.
pub(super) const FAILED_TRANSACTION: &str = "25P02";
/// `syntax_error`.
pub(super) const SYNTAX: &str = "42601";
/// `invalid_parameter_value`.
pub(super) const INVALID_VALUE: &str = "22023";
/// `undefined_object`, also of an unknown setting.
pub(super) const UNDEFINED_OBJECT: &str = "42704";
/// `feature_not_supported`.
pub(super) const NOT_SUPPORTED: &str = "0A000";
/// `invalid_cursor_name`.
pub(super) const NO_CURSOR: &str = "34000";
/// `too_many_connections`.
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";

/// An error of that SQLSTATE.
pub(super) fn error(code: &str, message: impl Into<String>) -> ErrorInfo {
    ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into())
}

/// An error as pgwire passes it on.
pub(super) fn raise(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(error(code, message)))
}

impl From<Failure> for PgWireError {
    fn from(failure: Failure) -> Self {
        Self::UserError(Box::new(info(failure)))
    }
}

/// A syntax error of the statement.
pub(super) fn syntax(error: &ParserError) -> PgWireError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply",
    };
    raise(SYNTAX, message)
}

/// What the client is told. Defects and failures of other systems are logged in full and told without details.
pub(super) fn info(failure: Failure) -> ErrorInfo {
    match failure {
        Failure::Error(ours) => ours_info(ours),
        Failure::TimedOut(limit) => error(
            "57014",
            format!("canceling statement due to timeout: no row for {} s", limit.as_secs_f64()),
        ),
        Failure::Busy => error("53000", "too many queries are running, try again soon"),
        Failure::Engine(engine) => engine_info(&engine),
    }
}

fn ours_info(ours: Error) -> ErrorInfo {
    match ours {
        Error::Config(config) => {
            let mut told = error(config_code(&config.message), config.message);
            told.hint = config.help;
            told
        }
        Error::Data { message, .. } => error("22000", message),
        Error::NotFound { what, .. } => {
            let code = if what.contains("table") { "42P01" } else { UNDEFINED_OBJECT };
            error(code, ours.to_string())
        }
        Error::External { .. } => {
            tracing::error!(error = %ours, "a query failed");
            error("58000", "a system that Twinlake depends on failed; its log says which")
        }
        _ => {
            tracing::error!(error = %ours, "a query failed");
            error("XX000", "something inside Twinlake failed; its log says what")
        }
    }
}

fn engine_info(engine: &DataFusionError) -> ErrorInfo {
    let root = engine.find_root();
    let code = match root {
        DataFusionError::SQL(..) => SYNTAX,
        DataFusionError::SchemaError(error, _) => match **error {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => {
                "42701"
            }
        },
        DataFusionError::Plan(message) => planning_code(message),
        DataFusionError::NotImplemented(_) => NOT_SUPPORTED,
        DataFusionError::Configuration(_) => INVALID_VALUE,
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::ArrowError(error, _) => match **error {
            ArrowError::DivideByZero => "22012",
            ArrowError::ArithmeticOverflow(_) => "22003",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            _ => "22000",
        },
        DataFusionError::Execution(_) => "22000",
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => {
            tracing::error!(error = %engine, "a query failed");
            return error("58030", "a system that Twinlake depends on failed; its log says which");
        }
        _ => {
            tracing::error!(error = %engine, "a query failed");
            return error("XX000", "something inside Twinlake failed; its log says what");
        }
    };
    error(code, engine_message(engine))
}

/// What the author of a statement must change, sorted by the words in which the session says it.
fn config_code(message: &str) -> &'static str {
    if message.contains("only read") {
        READ_ONLY
    } else if message.starts_with("SQL:") {
        SYNTAX
    } else if message.starts_with("no column named") {
        "42703"
    } else if message.starts_with("Ambiguous reference") {
        "42702"
    } else if message.starts_with("not supported:") {
        NOT_SUPPORTED
    } else if message.starts_with("the file '") {
        "42P01"
    } else if message.starts_with("twin.") || message.starts_with("unknown setting") {
        INVALID_VALUE
    } else {
        planning_code(message)
    }
}

/// The engine tells the kinds of planning errors apart only in words.
fn planning_code(message: &str) -> &'static str {
    let message = message.to_ascii_lowercase();
    if message.contains("ddl not supported")
        || message.contains("dml not supported")
        || message.contains("statement not supported")
        || message.contains("read-only")
    {
        READ_ONLY
    } else if message.contains("table") && message.contains("not found") {
        "42P01"
    } else if message.contains("schema")
        && (message.contains("not found") || message.contains("failed to resolve"))
    {
        "3F000"
    } else if message.contains("invalid function")
        || (message.contains("function") && message.contains("not found"))
    {
        "42883"
    } else {
        "42000"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_codes_of_postgresql() {
        let cases = [
            (Failure::from(DataFusionError::Plan("table 'a.b.c' not found".to_owned())), "42P01"),
            (Failure::from(DataFusionError::Plan("Invalid function 'st_pont'.".to_owned())), "42883"),
            (Failure::from(DataFusionError::Plan("DML not supported: Insert Into".to_owned())), READ_ONLY),
            (Failure::from(DataFusionError::from(ArrowError::DivideByZero)), "22012"),
            (Failure::from(DataFusionError::from(ArrowError::CastError("x".to_owned()))), "22P02"),
            (Failure::from(DataFusionError::NotImplemented("x".to_owned())), NOT_SUPPORTED),
            (Failure::Error(Error::not_found("scenario", "x", [])), UNDEFINED_OBJECT),
            (Failure::Error(Error::config("no column named 'x'")), "42703"),
            (Failure::Error(Error::config("INSERT is refused: SQL sessions only read")), READ_ONLY),
            (Failure::Error(Error::config("x")), "42000"),
            (Failure::TimedOut(std::time::Duration::from_secs(1)), "57014"),
        ];
        for (failure, code) in cases {
            let told = info(failure);
            assert_eq!(told.code, code, "{told}");
        }
        let told = info(Failure::Error(Error::internal("password=secret")));
        assert!(!told.message.contains("secret"));
    }
}
