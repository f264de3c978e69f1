//! The settings of one connection: those of PostgreSQL that clients send, and `twin.*`.
//!
//! As in PostgreSQL, `ROLLBACK` takes back what the transaction set, and `SET LOCAL` ends with the transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;
use std::time::Duration;

use arrow::array::timezone::Tz;
use datafusion::prelude::SessionContext;
use datafusion_postgres::pgwire::error::PgWireError;
use twinlake_contracts::suggest;
use twinlake_query::{DEFAULT_SCHEMA, TwinOptions};

use crate::failure::Failure;
use crate::options::with_options;
use crate::postgres::error::{INVALID_VALUE, UNDEFINED_OBJECT, error, raise};

/// What a client may set it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Anything.
    Any,
    /// Nothing but its default.
    Fixed,
}

/// The settings that are known: name, default, rule.
const KNOWN: &[(&str, &str, Rule)] = &[
    ("application_name", "", Rule::Any),
    ("bytea_output", "hex", Rule::Any),
    ("client_encoding", "UTF8", Rule::Any),
    ("client_min_messages", "notice", Rule::Any),
    ("datestyle", "ISO, MDY", Rule::Any),
    ("default_transaction_isolation", "read committed", Rule::Any),
    ("default_transaction_read_only", "on", Rule::Any),
    ("extra_float_digits", "1", Rule::Any),
    ("idle_in_transaction_session_timeout", "0", Rule::Any),
    ("idle_session_timeout", "0", Rule::Any),
    ("integer_datetimes", "on", Rule::Fixed),
    ("intervalstyle", "postgres", Rule::Any),
    ("is_superuser", "off", Rule::Fixed),
    ("jit", "off", Rule::Any),
    ("lc_collate", "C", Rule::Fixed),
    ("lc_ctype", "C.UTF-8", Rule::Fixed),
    ("lc_messages", "C", Rule::Any),
    ("lc_monetary", "C", Rule::Any),
    ("lc_numeric", "C", Rule::Any),
    ("lc_time", "C", Rule::Any),
    ("lock_timeout", "0", Rule::Any),
    ("max_identifier_length", "63", Rule::Fixed),
    ("row_security", "on", Rule::Any),
    ("search_path", "public", Rule::Any),
    ("server_encoding", "UTF8", Rule::Fixed),
    ("server_version", super::SERVER_VERSION, Rule::Fixed),
    ("server_version_num", super::SERVER_VERSION_NUMBER, Rule::Fixed),
    ("session_authorization", "twinlake", Rule::Any),
    ("standard_conforming_strings", "on", Rule::Fixed),
    ("statement_timeout", "0", Rule::Any),
    ("synchronize_seqscans", "on", Rule::Any),
    ("timezone", "UTC", Rule::Any),
    ("transaction_isolation", "read committed", Rule::Any),
    ("transaction_read_only", "on", Rule::Any),
];

/// The settings of the tense, as `SET` and `SHOW` spell them.
const TWIN: [&str; 3] = ["twin.as_of", "twin.known_at", "twin.scenario"];

/// The settings whose change clients are told of, with the name in that message.
const REPORTED: [(&str, &str); 6] = [
    ("application_name", "application_name"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("intervalstyle", "IntervalStyle"),
    ("search_path", "search_path"),
    ("timezone", "TimeZone"),
];

/// What is set, beyond the defaults.
#[derive(Debug, Default)]
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    /// The values when the open transaction began.
    at_begin: Option<BTreeMap<String, String>>,
    /// What `SET LOCAL` named in it.
    local: BTreeSet<String>,
}

/// Changes that the client must be told of: name and value.
pub(super) type Reports = Vec<(String, String)>;

impl Settings {
    /// The value of a setting.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        if let Some(value) = self.values.get(name) {
            return Some(value.clone());
        }
        if TWIN.contains(&name) {
            return Some(String::new());
        }
        KNOWN.iter().find(|(known, ..)| *known == name).map(|(_, value, _)| (*value).to_owned())
    }

    /// The value of a setting, or the error that PostgreSQL gives.
    pub(super) fn show(&self, name: &str) -> Result<String, PgWireError> {
        self.get(name).ok_or_else(|| unknown(name))
    }

    /// The time zone in which time stamps are shown.
    pub(super) fn zone(&self) -> String {
        self.get("timezone").unwrap_or_else(|| "UTC".to_owned())
    }

    /// The client's own limit on a statement.
    pub(super) fn statement_timeout(&self) -> Option<Duration> {
        self.values.get("statement_timeout").and_then(|text| timeout(text)).filter(|limit| !limit.is_zero())
    }

    /// `SET`; without a value, the default.
    pub(super) fn set(
        &mut self,
        context: &SessionContext,
        name: &str,
        value: Option<String>,
        local: bool,
    ) -> Result<Reports, PgWireError> {
        let value = value.map(|value| checked(name, &value)).transpose()?;
        if !name.contains('.') && !KNOWN.iter().any(|(known, ..)| *known == name) {
            return Err(unknown(name));
        }
        // Dotted names are a client's own, as in PostgreSQL, but for ours and the engine's.
        let ours = ["twin.", "datafusion."].iter().any(|prefix| name.starts_with(prefix));
        if ours && !TWIN.contains(&name) {
            return Err(unknown(name));
        }
        apply(context, name, value.as_deref())?;
        let value = if TWIN.contains(&name) { tense_value(context, name) } else { value };
        match value {
            Some(value) => self.values.insert(name.to_owned(), value),
            None => self.values.remove(name),
        };
        if local && self.at_begin.is_some() {
            self.local.insert(name.to_owned());
        }
        Ok(self.report(name))
    }

    /// `RESET ALL`.
    pub(super) fn reset_all(&mut self, context: &SessionContext) -> Result<Reports, PgWireError> {
        self.become_these(context, BTreeMap::new())
    }

    /// `BEGIN`.
    pub(super) fn begin(&mut self) {
        if self.at_begin.is_none() {
            self.at_begin = Some(self.values.clone());
            self.local.clear();
        }
    }

    /// `COMMIT`: what `SET LOCAL` set ends.
    pub(super) fn commit(&mut self, context: &SessionContext) -> Result<Reports, PgWireError> {
        let Some(before) = self.at_begin.take() else { return Ok(Reports::new()) };
        let mut values = self.values.clone();
        for name in std::mem::take(&mut self.local) {
            match before.get(&name) {
                Some(value) => values.insert(name, value.clone()),
                None => values.remove(&name),
            };
        }
        self.become_these(context, values)
    }

    /// `ROLLBACK`: all that the transaction set is taken back.
    pub(super) fn rollback(&mut self, context: &SessionContext) -> Result<Reports, PgWireError> {
        self.local.clear();
        match self.at_begin.take() {
            Some(before) => self.become_these(context, before),
            None => Ok(Reports::new()),
        }
    }

    fn become_these(
        &mut self,
        context: &SessionContext,
        values: BTreeMap<String, String>,
    ) -> Result<Reports, PgWireError> {
        let names: BTreeSet<String> = self.values.keys().chain(values.keys()).cloned().collect();
        let mut reports = Reports::new();
        for name in names {
            if self.values.get(&name) != values.get(&name) {
                apply(context, &name, values.get(&name).map(String::as_str))?;
                match values.get(&name) {
                    Some(value) => self.values.insert(name.clone(), value.clone()),
                    None => self.values.remove(&name),
                };
                reports.extend(self.report(&name));
            }
        }
        Ok(reports)
    }

    fn report(&self, name: &str) -> Reports {
        REPORTED
            .iter()
            .filter(|(reported, _)| *reported == name)
            .filter_map(|(_, shown)| Some(((*shown).to_owned(), self.get(name)?)))
            .collect()
    }

    /// The settings that pgwire's encoders read, under the names that they know.
    pub(super) fn format_metadata(&self) -> HashMap<String, String> {
        ["datestyle", "intervalstyle", "bytea_output", "extra_float_digits"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.get(name)?)))
            .collect()
    }
}

fn unknown(name: &str) -> PgWireError {
    let mut told = error(UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""));
    let known = KNOWN.iter().map(|(known, ..)| *known).chain(TWIN);
    told.hint = suggest(name, known).map(|near| format!("Did you mean \"{near}\"?"));
    PgWireError::UserError(Box::new(told))
}

fn checked(name: &str, value: &str) -> Result<String, PgWireError> {
    let refuse = || raise(INVALID_VALUE, format!("invalid value for parameter \"{name}\": \"{value}\""));
    let fixed = KNOWN.iter().find(|(known, _, rule)| *known == name && *rule == Rule::Fixed);
    if let Some((_, default, _)) = fixed {
        let same = value.eq_ignore_ascii_case(default)
            || (*default == "on" && matches!(value, "true" | "1" | "yes"));
        return if same { Ok((*default).to_owned()) } else { Err(refuse()) };
    }
    Ok(match name {
        "client_encoding" => match value.to_ascii_lowercase().as_str() {
            "utf8" | "utf-8" | "unicode" => "UTF8".to_owned(),
            _ => return Err(refuse()),
        },
        "timezone" => zone(value).ok_or_else(refuse)?,
        "statement_timeout" => {
            timeout(value).ok_or_else(refuse)?;
            value.to_owned()
        }
        "transaction_read_only" | "default_transaction_read_only" => {
            match value.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" => "on".to_owned(),
                _ => return Err(raise(INVALID_VALUE, "this service only reads")),
            }
        }
        _ => value.to_owned(),
    })
}

/// A time zone as Arrow knows it: an IANA name or an offset.
fn zone(value: &str) -> Option<String> {
    let spelled = match value.to_ascii_lowercase().as_str() {
        "utc" | "gmt" | "z" | "zulu" | "universal" | "etc/utc" => "UTC".to_owned(),
        _ => match value.parse::<i32>() {
            Ok(hours) if hours.abs() <= 14 => format!("{hours:+03}:00"),
            _ => value.to_owned(),
        },
    };
    Tz::from_str(&spelled).is_ok().then_some(spelled)
}

/// `5s`, `500ms`, `2min`, `1h`, or milliseconds without a unit.
fn timeout(value: &str) -> Option<Duration> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..digits].parse().ok()?;
    let unit_ms = match value[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit_ms)?))
}

/// Makes a setting work in the session.
fn apply(context: &SessionContext, name: &str, value: Option<&str>) -> Result<(), PgWireError> {
    match name {
        _ if TWIN.contains(&name) => {
            with_options(context, |options| options.set(name, value.unwrap_or_default()))
                .map_err(Failure::from)?;
        }
        "timezone" => {
            let zone = value.unwrap_or("UTC").to_owned();
            with_options(context, |options| options.execution.time_zone = Some(zone));
        }
        "search_path" => {
            let schema = first_schema(context, value.unwrap_or(DEFAULT_SCHEMA));
            with_options(context, |options| options.catalog.default_schema = schema);
        }
        _ => {}
    }
    Ok(())
}

/// A setting of the tense as the session understood it; `None` when it is the default.
fn tense_value(context: &SessionContext, name: &str) -> Option<String> {
    with_options(context, |options| {
        let twin = options.extensions.get::<TwinOptions>()?;
        match name {
            "twin.as_of" => twin.as_of.clone(),
            "twin.known_at" => twin.known_at.clone(),
            _ => twin.scenario.clone(),
        }
    })
}

/// The first schema of a search path that exists; `public` when none does.
fn first_schema(context: &SessionContext, path: &str) -> String {
    let state = context.state();
    let catalog = state.catalog_list().catalog(&state.config().options().catalog.default_catalog);
    path.split(',')
        .map(|part| part.trim().trim_matches(['"', '\'']).to_owned())
        .find(|schema| {
            schema != "pg_catalog"
                && catalog.as_ref().is_some_and(|catalog| catalog.schema_names().contains(schema))
        })
        .unwrap_or_else(|| DEFAULT_SCHEMA.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        assert_eq!(checked("client_encoding", "utf-8").unwrap(), "UTF8");
        assert!(checked("client_encoding", "LATIN1").is_err());
        assert!(checked("standard_conforming_strings", "off").is_err());
        assert_eq!(checked("standard_conforming_strings", "ON").unwrap(), "on");
        assert_eq!(checked("timezone", "Europe/Helsinki").unwrap(), "Europe/Helsinki");
        assert_eq!(checked("timezone", "3").unwrap(), "+03:00");
        assert_eq!(checked("timezone", "gmt").unwrap(), "UTC");
        assert!(checked("timezone", "Europe/Helsink").is_err());
        assert!(checked("statement_timeout", "soon").is_err());
    }

    #[test]
    fn timeouts_have_units() {
        assert_eq!(timeout("250"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("5s"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("2min"), Some(Duration::from_mins(2)));
        assert_eq!(timeout("ms"), None);
        assert_eq!(timeout("5 parsecs"), None);
    }
}
