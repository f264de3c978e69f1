//! What a statement asks of the session: read rows, change a setting, or something that is refused.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CloseCursor, ContextModifier, Expr, FetchDirection, Ident, ObjectName, Query, Reset, Set,
    Statement, TransactionAccessMode, TransactionMode, Value,
};
use datafusion_postgres::pgwire::error::PgWireError;

use crate::postgres::error::{NOT_SUPPORTED, READ_ONLY, SYNTAX, raise};

/// A statement, sorted by what it does here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    /// Rows.
    Read,
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// Accepted, does nothing; the text is its command tag.
    Nothing(&'static str),
    /// `SET`: name, value (`None`: the default), only for this transaction.
    Set { name: String, value: Option<String>, local: bool },
    /// `RESET`: one setting, or all.
    Reset(Option<String>),
    /// `SHOW`.
    Show(String),
    /// `DISCARD ALL`.
    Discard,
    /// `DECLARE … CURSOR FOR`.
    Declare { name: String, query: Box<Query>, binary: bool, hold: bool },
    /// `FETCH`: the cursor and how many rows (0: all).
    Fetch { name: String, rows: usize },
    /// `CLOSE`: one cursor, or all.
    Close(Option<String>),
    /// `DEALLOCATE`: one prepared statement, or all.
    Deallocate(Option<String>),
}

impl Command {
    /// Sorts a statement; one that would write is refused.
    pub(super) fn of(statement: &Statement) -> Result<Self, PgWireError> {
        Ok(match statement {
            Statement::Query(_)
            | Statement::Explain { .. }
            | Statement::ExplainTable { .. }
            | Statement::ShowTables { .. }
            | Statement::ShowColumns { .. } => Self::Read,
            Statement::StartTransaction { modes, .. } => {
                check_modes(modes)?;
                Self::Begin
            }
            Statement::Commit { .. } => Self::Commit,
            Statement::Rollback { savepoint: None, .. } => Self::Rollback,
            Statement::Rollback { .. } => Self::Nothing("ROLLBACK"),
            Statement::Savepoint { .. } => Self::Nothing("SAVEPOINT"),
            Statement::ReleaseSavepoint { .. } => Self::Nothing("RELEASE"),
            Statement::LISTEN { .. } => Self::Nothing("LISTEN"),
            Statement::UNLISTEN { .. } => Self::Nothing("UNLISTEN"),
            Statement::Set(set) => Self::of_set(set)?,
            Statement::Reset(reset) => Self::Reset(match &reset.reset {
                Reset::ALL => None,
                Reset::ConfigurationParameter(name) => Some(setting_name(name)),
            }),
            Statement::ShowVariable { variable } => Self::Show(shown_name(variable)),
            Statement::Discard { .. } => Self::Discard,
            Statement::Declare { stmts } => match stmts.as_slice() {
                [declare] => match (declare.names.as_slice(), &declare.for_query) {
                    ([name], Some(query)) => Self::Declare {
                        name: folded(name),
                        query: query.clone(),
                        binary: declare.binary == Some(true),
                        hold: declare.hold == Some(true),
                    },
                    _ => return Err(raise(SYNTAX, "DECLARE takes one name and CURSOR FOR a query")),
                },
                _ => return Err(raise(SYNTAX, "DECLARE takes one cursor")),
            },
            Statement::Fetch { name, direction, .. } => {
                Self::Fetch { name: folded(name), rows: rows_of(direction)? }
            }
            Statement::Close { cursor: CloseCursor::All } => Self::Close(None),
            Statement::Close { cursor: CloseCursor::Specific { name } } => Self::Close(Some(folded(name))),
            Statement::Deallocate { name, .. } => {
                let name = folded(name);
                Self::Deallocate((name != "all").then_some(name))
            }
            other => return Err(refused(other)),
        })
    }

    fn of_set(set: &Set) -> Result<Self, PgWireError> {
        Ok(match set {
            Set::SingleAssignment { scope, variable, values, .. } => Self::Set {
                name: setting_name(variable),
                value: value_of(values),
                local: *scope == Some(ContextModifier::Local),
            },
            Set::SetTimeZone { local, value } => Self::Set {
                name: "timezone".to_owned(),
                value: value_of(std::slice::from_ref(value))
                    .filter(|value| !value.eq_ignore_ascii_case("local")),
                local: *local,
            },
            Set::SetNames { charset_name, .. } => Self::Set {
                name: "client_encoding".to_owned(),
                value: Some(charset_name.value.clone()),
                local: false,
            },
            Set::SetTransaction { modes, .. } => {
                check_modes(modes)?;
                Self::Nothing("SET")
            }
            Set::SetRole { .. } | Set::SetSessionAuthorization(_) => Self::Nothing("SET"),
            other => return Err(raise(NOT_SUPPORTED, format!("'{other}' is not supported"))),
        })
    }
}

/// A transaction may say anything but that it writes.
fn check_modes(modes: &[TransactionMode]) -> Result<(), PgWireError> {
    if modes.contains(&TransactionMode::AccessMode(TransactionAccessMode::ReadWrite)) {
        return Err(raise(READ_ONLY, "cannot set transaction read-write mode: this service only reads"));
    }
    Ok(())
}

fn refused(statement: &Statement) -> PgWireError {
    let text = statement.to_string();
    let word = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if matches!(word.as_str(), "PREPARE" | "EXECUTE" | "COPY" | "CALL") {
        return raise(NOT_SUPPORTED, format!("{word} is not supported"));
    }
    raise(READ_ONLY, format!("cannot execute {word} in a read-only transaction"))
}

/// An identifier as PostgreSQL folds it.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

/// The canonical name of a setting: lower case, parts joined with dots.
fn setting_name(name: &ObjectName) -> String {
    let parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(|ident| ident.value.to_ascii_lowercase())
        .collect();
    parts.join(".")
}

/// `SHOW` gives its name word by word (`TIME ZONE`) or as dotted parts.
fn shown_name(variable: &[Ident]) -> String {
    let words: Vec<String> =
        variable.iter().map(|ident| ident.value.to_ascii_lowercase()).filter(|word| word != ".").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["time", "zone"] => "timezone".to_owned(),
        ["transaction", "isolation", "level"] => "transaction_isolation".to_owned(),
        ["session", "authorization"] => "session_authorization".to_owned(),
        _ => words.join("."),
    }
}

/// The value of a `SET`; `None` for `DEFAULT`.
fn value_of(values: &[Expr]) -> Option<String> {
    let texts: Vec<String> = values
        .iter()
        .map(|value| match value {
            Expr::Value(value) => match &value.value {
                Value::Boolean(yes) => (if *yes { "on" } else { "off" }).to_owned(),
                other => other.clone().into_string().unwrap_or_else(|| other.to_string()),
            },
            Expr::TypedString(typed) => {
                typed.value.value.clone().into_string().unwrap_or_else(|| typed.value.to_string())
            }
            Expr::Identifier(ident) => ident.value.clone(),
            // bridge-closed without quotes parses as a subtraction.
            Expr::BinaryOp { op: BinaryOperator::Minus, .. } => value.to_string().replace(' ', ""),
            other => other.to_string(),
        })
        .collect();
    // NOW() means the moving present: for twin.as_of, the default.
    let is_default = |value: &Expr| match value {
        Expr::Identifier(ident) => ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"),
        Expr::Function(function) => {
            ["now", "current_timestamp"].contains(&function.name.to_string().to_lowercase().as_str())
        }
        Expr::Value(value) => value.value == Value::Null,
        _ => false,
    };
    match values {
        [value] if is_default(value) => None,
        _ => Some(texts.join(", ")),
    }
}

fn rows_of(direction: &FetchDirection) -> Result<usize, PgWireError> {
    let count = |limit: &Value| match limit {
        Value::Number(digits, _) => {
            digits.parse().map_err(|_| raise(SYNTAX, format!("FETCH cannot take {digits} rows")))
        }
        other => Err(raise(SYNTAX, format!("FETCH cannot take {other} rows"))),
    };
    match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Ok(1),
        FetchDirection::Forward { limit: Some(limit) } | FetchDirection::Count { limit } => {
            count(&limit.value)
        }
        FetchDirection::All | FetchDirection::ForwardAll => Ok(0),
        _ => Err(raise("55000", "cursor can only scan forward")),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;
    use datafusion_postgres::pgwire::error::ErrorInfo;

    use super::*;

    fn command(sql: &str) -> Result<Command, String> {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        Command::of(&statements[0]).map_err(|error| ErrorInfo::from(error).code)
    }

    fn set(name: &str, value: Option<&str>, local: bool) -> Command {
        Command::Set { name: name.to_owned(), value: value.map(str::to_owned), local }
    }

    #[test]
    fn settings_in_every_spelling() {
        assert_eq!(
            command("SET twin.as_of = '2018-10-09'"),
            Ok(set("twin.as_of", Some("2018-10-09"), false))
        );
        assert_eq!(command("SET LOCAL twin.scenario TO x"), Ok(set("twin.scenario", Some("x"), true)));
        assert_eq!(command("SET twin.as_of TO DEFAULT"), Ok(set("twin.as_of", None, false)));
        assert_eq!(
            command("SET twin.as_of = TIMESTAMP '2018-10-09 04:32:53'"),
            Ok(set("twin.as_of", Some("2018-10-09 04:32:53"), false))
        );
        assert_eq!(command("SET twin.as_of = now()"), Ok(set("twin.as_of", None, false)));
        assert_eq!(
            command("SET twin.scenario = bridge-closed"),
            Ok(set("twin.scenario", Some("bridge-closed"), false))
        );
        assert_eq!(command("SET extra_float_digits = 3"), Ok(set("extra_float_digits", Some("3"), false)));
        assert_eq!(
            command("SET search_path TO traffic, public"),
            Ok(set("search_path", Some("traffic, public"), false))
        );
        assert_eq!(
            command("SET TIME ZONE 'Europe/Helsinki'"),
            Ok(set("timezone", Some("Europe/Helsinki"), false))
        );
        assert_eq!(
            command("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
            Ok(Command::Nothing("SET"))
        );
        assert_eq!(command("RESET twin.as_of"), Ok(Command::Reset(Some("twin.as_of".to_owned()))));
        assert_eq!(command("RESET ALL"), Ok(Command::Reset(None)));
        assert_eq!(command("SHOW twin.as_of"), Ok(Command::Show("twin.as_of".to_owned())));
        assert_eq!(
            command("SHOW TRANSACTION ISOLATION LEVEL"),
            Ok(Command::Show("transaction_isolation".to_owned()))
        );
        assert_eq!(command("SHOW TIME ZONE"), Ok(Command::Show("timezone".to_owned())));
    }

    #[test]
    fn reads_pass_and_writes_do_not() {
        for sql in ["SELECT 1", "WITH a AS (SELECT 1) SELECT * FROM a", "EXPLAIN SELECT 1", "VALUES (1)"] {
            assert_eq!(command(sql), Ok(Command::Read), "{sql}");
        }
        for sql in [
            "INSERT INTO a VALUES (1)",
            "UPDATE a SET b = 1",
            "DELETE FROM a",
            "CREATE TABLE a (b INT)",
            "DROP TABLE a",
            "TRUNCATE a",
            "CREATE VIEW a AS SELECT 1",
            "START TRANSACTION READ WRITE",
        ] {
            assert_eq!(command(sql), Err(READ_ONLY.to_owned()), "{sql}");
        }
    }

    #[test]
    fn transactions_and_cursors() {
        assert_eq!(command("BEGIN"), Ok(Command::Begin));
        assert_eq!(
            command("START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"),
            Ok(Command::Begin)
        );
        assert_eq!(command("COMMIT"), Ok(Command::Commit));
        assert_eq!(command("ROLLBACK"), Ok(Command::Rollback));
        assert!(matches!(
            command("DECLARE \"c1\" CURSOR WITH HOLD FOR SELECT 1"),
            Ok(Command::Declare { name, hold: true, binary: false, .. }) if name == "c1"
        ));
        assert_eq!(
            command("FETCH FORWARD 100 FROM c1"),
            Ok(Command::Fetch { name: "c1".to_owned(), rows: 100 })
        );
        assert_eq!(command("FETCH ALL FROM c1"), Ok(Command::Fetch { name: "c1".to_owned(), rows: 0 }));
        assert_eq!(command("FETCH PRIOR FROM c1"), Err("55000".to_owned()));
        assert_eq!(command("CLOSE c1"), Ok(Command::Close(Some("c1".to_owned()))));
        assert_eq!(command("CLOSE ALL"), Ok(Command::Close(None)));
    }
}
