//! The catalog of a session: the lake's tables at their newest version, what extensions add, and files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::datasource::MemTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::TableType;
use twinlake_contracts::{Error, TableName, parse_us, timestamp_type};
use twinlake_lake::{Lake, VersionRecord};

use crate::DEFAULT_SCHEMA;
use crate::files::FileTables;
use crate::meta_schemas;

/// The schema of tables about tables.
const META: &str = "meta";
const DATASETS: &str = "datasets";
/// What stands for the versions of a table in place of one.
const HISTORY: &str = "history";

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The one catalog. Schemas are those of the lake's tables, `meta`, `public` and those that extensions register.
pub(crate) struct LakeCatalog {
    lake: Arc<Lake>,
    files: Arc<FileTables>,
    /// Schemas registered by extensions (`twin`) and by doors (`pg_catalog`). A lake schema of the same name shows
    /// through below them.
    registered: RwLock<BTreeMap<String, Arc<dyn SchemaProvider>>>,
    /// The layer that takes tables registered into a schema of the lake, so that they outlive one lookup.
    added: RwLock<BTreeMap<String, Arc<MemorySchemaProvider>>>,
}

impl fmt::Debug for LakeCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeCatalog").finish_non_exhaustive()
    }
}

impl LakeCatalog {
    pub(crate) fn new(lake: Arc<Lake>, files: Arc<FileTables>) -> Self {
        Self { lake, files, registered: RwLock::default(), added: RwLock::default() }
    }

    /// Whether the session may read files of this machine.
    pub(crate) fn reads_files(&self) -> bool {
        self.files.allowed()
    }

    fn added(&self, schema: &str) -> Arc<MemorySchemaProvider> {
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(added.entry(schema.to_owned()).or_default())
    }

    /// All tables as `schema.table`, for suggestions.
    pub(crate) fn table_names(&self) -> Vec<String> {
        self.schema_names()
            .into_iter()
            .filter_map(|schema| self.schema(&schema).map(|provider| (schema, provider)))
            .flat_map(|(schema, provider)| {
                provider.table_names().into_iter().map(move |table| format!("{schema}.{table}"))
            })
            .collect()
    }
}

impl CatalogProvider for LakeCatalog {
    fn schema_names(&self) -> Vec<String> {
        let registered = self.registered.read().unwrap_or_else(PoisonError::into_inner);
        let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<String> = self
            .lake
            .tables()
            .iter()
            .map(|table| table.name().schema.clone())
            .chain(registered.keys().cloned())
            .chain(
                added
                    .iter()
                    .filter(|(_, layer)| !layer.table_names().is_empty())
                    .map(|(name, _)| name.clone()),
            )
            .chain([META.to_owned(), DEFAULT_SCHEMA.to_owned()])
            .collect();
        names.into_iter().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let registered =
            self.registered.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone);
        Some(Arc::new(LakeSchema {
            name: name.to_owned(),
            lake: Arc::clone(&self.lake),
            files: Arc::clone(&self.files),
            registered,
            added: self.added(name),
        }))
    }

    fn register_schema(
        &self,
        name: &str,
        schema: Arc<dyn SchemaProvider>,
    ) -> Result<Option<Arc<dyn SchemaProvider>>> {
        let mut registered = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        Ok(registered.insert(name.to_owned(), schema))
    }

    fn deregister_schema(&self, name: &str, _cascade: bool) -> Result<Option<Arc<dyn SchemaProvider>>> {
        Ok(self.registered.write().unwrap_or_else(PoisonError::into_inner).remove(name))
    }
}

/// One schema, looked up top to bottom: tables added in this session, a registered schema, the lake, files.
struct LakeSchema {
    name: String,
    lake: Arc<Lake>,
    files: Arc<FileTables>,
    registered: Option<Arc<dyn SchemaProvider>>,
    added: Arc<MemorySchemaProvider>,
}

impl fmt::Debug for LakeSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeSchema").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LakeSchema {
    fn lake_name(&self, table: &str) -> Option<TableName> {
        TableName::parse(&format!("{}.{table}", self.name)).ok()
    }

    /// Tables of `meta` that are there from the beginning, without rows until something happens.
    fn standing(&self, table: &str) -> Option<SchemaRef> {
        if self.name == META { meta_schemas::standing(table) } else { None }
    }

    /// `"table@7"`, `"table@2018-10-09T04:32:53Z"`: a table as a past version was; `"table@history"`: its versions.
    async fn past(&self, table: &str, version: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let found = self.lake_name(table).and_then(|name| self.lake.table(&name));
        let Some(found) = found else { return Ok(None) };
        if version == HISTORY {
            let rows = history_rows(&found.history(None).await.map_err(external)?)?;
            return Ok(Some(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?)));
        }
        let number = match (version.parse::<u64>(), parse_us(version)) {
            (Ok(number), _) => number,
            (Err(_), Some(at_us)) => found.version_at(at_us).await.map_err(external)?,
            (Err(_), None) => {
                let error = Error::config(format!("'{version}' is no version of {}.{table}", self.name));
                let help = "write \"table@7\", \"table@2018-10-09T04:32:53Z\" or \"table@history\"";
                return Err(external(error.with_help(help)));
            }
        };
        found.provider_at_version(number).await.map(Some).map_err(external)
    }

    async fn lake_table(&self, table: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.name == META && table == DATASETS {
            let rows = self.lake.datasets().await.map_err(external)?;
            return Ok(Some(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?)));
        }
        if let Some((table, version)) = table.split_once('@') {
            return self.past(table, version).await;
        }
        let Some(name) = self.lake_name(table) else { return Ok(None) };
        match self.lake.table(&name) {
            Some(found) => found.provider().await.map(Some).map_err(external),
            None => Ok(self.standing(table).map(|schema| Arc::new(EmptyTable::new(schema)) as _)),
        }
    }
}

#[async_trait]
impl SchemaProvider for LakeSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.added.table_names().into_iter().collect();
        if let Some(registered) = &self.registered {
            names.extend(registered.table_names());
        }
        let lake = self.lake.tables();
        names.extend(
            lake.iter()
                .map(|table| table.name())
                .filter(|name| name.schema == self.name)
                .map(|n| n.table.clone()),
        );
        if self.name == META {
            names.insert(DATASETS.to_owned());
            names.extend(meta_schemas::STANDING.map(|(name, _)| name.to_owned()));
        }
        names.into_iter().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.added.table(name).await? {
            return Ok(Some(table));
        }
        if let Some(registered) = &self.registered
            && let Some(table) = registered.table(name).await?
        {
            return Ok(Some(table));
        }
        if let Some(table) = self.lake_table(name).await? {
            return Ok(Some(table));
        }
        if self.name == DEFAULT_SCHEMA { self.files.table(name).await } else { Ok(None) }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        if let Some(registered) = &self.registered
            && let Some(found) = registered.table_type(name).await?
        {
            return Ok(Some(found));
        }
        if let Some(added) = self.added.table(name).await? {
            return Ok(Some(added.table_type()));
        }
        if self.name == META && name == DATASETS {
            return Ok(Some(TableType::View));
        }
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.lake_name(&name).is_some_and(|name| self.lake.table(&name).is_some()) {
            return exec_err!("table '{}.{name}' exists in the lake", self.name);
        }
        self.added.register_table(name, table)
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.added.deregister_table(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.added.table_exist(name)
            || self.registered.as_ref().is_some_and(|schema| schema.table_exist(name))
            || self.lake_name(name).is_some_and(|name| self.lake.table(&name).is_some())
            || self.standing(name).is_some()
            || (self.name == META && name == DATASETS)
    }
}

/// The versions of a table as rows.
fn history_rows(records: &[VersionRecord]) -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("version", DataType::Int64, true),
        Field::new("at", timestamp_type(), true),
        text("operation"),
        text("writer"),
        text("parameters"),
    ]);
    let at: TimestampMicrosecondArray = records.iter().map(|record| record.at_us).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(records.iter().map(|record| i64::try_from(record.version).ok()).collect::<Int64Array>()),
        Arc::new(at.with_timezone("UTC")),
        Arc::new(records.iter().map(|record| Some(record.operation.as_str())).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| record.writer.as_deref()).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| Some(record.parameters.as_str())).collect::<StringArray>()),
    ];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}
