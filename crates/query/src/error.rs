//! DataFusion's errors as the project's: who must act, with a suggestion where a name is near.

use datafusion::common::{DataFusionError, SchemaError};
use twinlake_contracts::{Error, suggest};

/// Sorts an error. `tables` are the names `schema.table` that a missing table's name is held against.
///
/// What the text of a query got wrong is `Config`; what a row's value made impossible is `Data` (`sql_failed`);
/// memory, disk and object stores are `External`; broken promises are `Internal`.
pub fn to_error(error: DataFusionError, tables: &[String]) -> Error {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            to_error(*inner, tables)
        }
        DataFusionError::Shared(inner) => shared(&inner, tables),
        // One of ours on its way through DataFusion.
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::permanent("query", other),
        },
        DataFusionError::Collection(mut all) if !all.is_empty() => to_error(all.swap_remove(0), tables),
        DataFusionError::Plan(message) => plan(&message, tables),
        DataFusionError::SQL(inner, _) => Error::config(format!("SQL: {inner}")),
        DataFusionError::SchemaError(inner, _) => schema(&inner),
        DataFusionError::Configuration(message) => Error::config(message),
        DataFusionError::NotImplemented(message) => Error::config(format!("not supported: {message}")),
        DataFusionError::Execution(message) => Error::data("sql_failed", message),
        DataFusionError::ArrowError(inner, _) => Error::data("sql_failed", inner.to_string()),
        DataFusionError::ResourcesExhausted(message) => {
            Error::transient("query memory", message.lines().next().unwrap_or_default())
        }
        DataFusionError::ObjectStore(inner) => match *inner {
            datafusion::object_store::Error::NotFound { path, .. } => Error::not_found("file", path, []),
            other => Error::transient("object store", other),
        },
        DataFusionError::IoError(inner) => Error::transient("file system", inner),
        DataFusionError::ParquetError(inner) => Error::permanent("Parquet file", inner),
        other => Error::internal(other),
    }
}

/// A failure met by several streams at once cannot be taken apart; its class is kept.
fn shared(error: &DataFusionError, tables: &[String]) -> Error {
    let message = error.strip_backtrace();
    match error.find_root() {
        DataFusionError::Plan(text) => plan(text, tables),
        DataFusionError::Execution(text) => Error::data("sql_failed", text.clone()),
        DataFusionError::ArrowError(inner, _) => Error::data("sql_failed", inner.to_string()),
        DataFusionError::ResourcesExhausted(text) => Error::transient("query memory", text),
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::permanent("query", inner),
        },
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => Error::transient("storage", message),
        _ => Error::internal(message),
    }
}

fn plan(message: &str, tables: &[String]) -> Error {
    let missing = message
        .strip_prefix("table '")
        .and_then(|rest| rest.split_once("' not found"))
        .map(|(name, _)| name.strip_prefix("twinlake.").unwrap_or(name));
    match missing {
        Some(name) => missing_table(name, tables),
        None => Error::config(message.to_owned()),
    }
}

/// A name without a schema is looked for in every schema first.
fn missing_table(name: &str, tables: &[String]) -> Error {
    let bare = name.strip_prefix("public.");
    let shown = bare.unwrap_or(name);
    let elsewhere = bare.and_then(|bare| {
        tables.iter().find(|full| full.split_once('.').is_some_and(|(_, table)| table == bare))
    });
    let near = elsewhere.map(String::as_str).or_else(|| {
        suggest(shown, tables.iter().map(String::as_str)).or_else(|| {
            let bare_names = tables.iter().filter_map(|full| full.split_once('.').map(|(_, table)| table));
            let near = suggest(bare?, bare_names)?;
            tables.iter().map(String::as_str).find(|full| full.ends_with(&format!(".{near}")))
        })
    });
    Error::NotFound {
        what: "table",
        name: shown.to_owned(),
        hint: near.map_or_else(String::new, |near| format!(", did you mean '{near}'?")),
    }
}

fn schema(error: &SchemaError) -> Error {
    let SchemaError::FieldNotFound { field, valid_fields } = error else {
        return Error::config(error.to_string());
    };
    let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
    let help = match suggest(&field.name, names.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None if names.is_empty() => "there are no columns here".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    Error::config(format!("no column named '{}'", field.flat_name())).with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_table_suggests_the_nearest() {
        let tables = ["traffic.vehicle_position".to_owned(), "map.road_link".to_owned()];
        let message = |name: &str| {
            to_error(DataFusionError::Plan(format!("table 'twinlake.{name}' not found")), &tables).to_string()
        };
        assert_eq!(
            message("traffic.vehicle_positon"),
            "table 'traffic.vehicle_positon' not found, did you mean 'traffic.vehicle_position'?"
        );
        assert_eq!(
            message("public.vehicle_position"),
            "table 'vehicle_position' not found, did you mean 'traffic.vehicle_position'?"
        );
        assert_eq!(message("public.road_lnk"), "table 'road_lnk' not found, did you mean 'map.road_link'?");
        assert_eq!(message("a.b"), "table 'a.b' not found");
    }

    #[test]
    fn our_own_errors_come_through_unchanged() {
        let ours = DataFusionError::External(Box::new(Error::not_found("run", "x", [])));
        assert_eq!(to_error(ours, &[]).to_string(), "run 'x' not found");
    }
}
