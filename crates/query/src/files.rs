//! A file as a table: `SELECT … FROM 'trips.parquet'`.

use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider, UrlTableFactory};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::dynamic_file::DynamicListTableFactory;
use datafusion::datasource::listing::{ListingTable, ListingTableConfig};
use datafusion::prelude::SessionContext;
use twinlake_contracts::Error;

use crate::geo_parquet;

/// What a file's name must end in to be read, compressed or not.
const FORMATS: [&str; 5] = ["parquet", "csv", "json", "arrow", "ndjson"];

/// Opens files as tables, or refuses to.
#[derive(Debug)]
pub(crate) struct FileTables {
    allowed: bool,
    factory: DynamicListTableFactory,
}

impl FileTables {
    /// `allowed`: whether this session may read the files of the machine.
    pub(crate) fn new(allowed: bool) -> Self {
        Self { allowed, factory: DynamicListTableFactory::default() }
    }

    /// Whether files may be read.
    pub(crate) fn allowed(&self) -> bool {
        self.allowed
    }

    /// Hands over the session's state, which knows formats and object stores.
    pub(crate) fn attach(&self, context: &SessionContext) {
        self.factory.session_store().with_state(context.state_weak_ref());
    }

    /// The file as a table; `None` when the name does not look like a file's.
    pub(crate) async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if !looks_like_a_file(name) {
            return Ok(None);
        }
        let fail = |error: Error| Err(DataFusionError::External(Box::new(error)));
        if !self.allowed {
            return fail(refusal(name));
        }
        let local = !name.contains("://");
        if local && !name.contains('*') && !Path::new(name).exists() {
            return fail(Error::not_found("file", name, []));
        }
        match self.factory.try_new(name).await? {
            Some(table) => {
                with_geometry(table, (local && !name.contains('*')).then(|| Path::new(name))).map(Some)
            }
            None => fail(
                Error::config(format!("the file '{name}' cannot be read as a table"))
                    .with_help(format!("known endings: {}", FORMATS.join(", "))),
            ),
        }
    }
}

fn refusal(name: &str) -> Error {
    Error::config(format!(
        "the file '{name}' cannot be read here: files are tables only on the machine itself"
    ))
    .with_help("use twinlake sql, or bring the file into the lake with a pipeline")
}

/// What a session's configuration says about files, for functions that take their names.
#[derive(Debug)]
pub(crate) struct FileAccess(pub(crate) bool);

/// Refuses, in the words of a table that is a file, unless the session may read files of this machine. A session that does
/// not say may not.
pub fn may_read_file(session: &dyn Session, name: &str) -> Result<()> {
    if may_read_files(session) { Ok(()) } else { Err(DataFusionError::External(Box::new(refusal(name)))) }
}

/// Whether the session may read files of this machine.
pub fn may_read_files(session: &dyn Session) -> bool {
    session.config().get_extension::<FileAccess>().is_some_and(|access| access.0)
}

/// The table with its geometry columns marked as such.
fn with_geometry(table: Arc<dyn TableProvider>, file: Option<&Path>) -> Result<Arc<dyn TableProvider>> {
    let Some(listing) = table.downcast_ref::<ListingTable>() else { return Ok(table) };
    let file =
        file.filter(|file| file.is_file() && file.extension().is_some_and(|ending| ending == "parquet"));
    let options = listing.options();
    // Columns from the names of folders come behind those of the file.
    let own = table.schema().fields().len() - options.table_partition_cols.len();
    let own = Arc::new(table.schema().project(&(0..own).collect::<Vec<_>>())?);
    let Some(schema) = geo_parquet::schema(&own, file) else { return Ok(table) };
    let config = ListingTableConfig::new_with_multi_paths(listing.table_paths().clone())
        .with_listing_options(options.clone())
        .with_schema(schema);
    Ok(Arc::new(ListingTable::try_new(config)?))
}

fn looks_like_a_file(name: &str) -> bool {
    let lower = name.to_lowercase();
    name.contains('/')
        || FORMATS.iter().any(|ending| {
            [String::new(), ".gz".into(), ".zst".into(), ".bz2".into(), ".xz".into()]
                .iter()
                .any(|packed: &String| lower.ends_with(&format!(".{ending}{packed}")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_file_by_its_name() {
        for name in ["trips.parquet", "a/b", "./x.csv.gz", "s3://bucket/x.json"] {
            assert!(looks_like_a_file(name), "{name}");
        }
        for name in ["trips", "trips_parquet", "a.b"] {
            assert!(!looks_like_a_file(name), "{name}");
        }
    }
}
