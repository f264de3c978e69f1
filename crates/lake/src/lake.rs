//! The lake: all tables, states and logs at one place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;
use twinlake_contracts::{Error, MessageLog, Result, TableName, TableSpec, TableStore, TableWriter};

use crate::cache::{BlockCache, CacheStats};
use crate::meta::{RunObserver, RunRecord};
use crate::storage::{LakeOptions, Storage};
use crate::table::LakeTable;
use crate::{DurableLog, state};

/// How many tables are opened at a time.
const OPEN_AT_ONCE: usize = 8;

/// A lake, opened. Share it with `Arc`; everything works from any task.
pub struct Lake {
    storage: Storage,
    cache: Option<Arc<BlockCache>>,
    options: LakeOptions,
    tables: RwLock<BTreeMap<TableName, Arc<LakeTable>>>,
    /// Told of every run that is recorded.
    observer: OnceLock<RunObserver>,
    /// One opening, creation or discovery at a time: a table is one object in a process.
    opening: Mutex<()>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lake").field("location", &self.location()).finish_non_exhaustive()
    }
}

impl Lake {
    /// Opens a lake and the tables in it. `url` is a path, `file://…` or an object store's URL (`s3://bucket/path`,
    /// credentials and region from the environment or [`LakeOptions::storage`]). A local folder is created.
    pub async fn open(url: &str, options: LakeOptions) -> Result<Arc<Self>> {
        Self::over(Storage::open(url, &options)?, options).await
    }

    /// A lake over an opened place.
    pub(crate) async fn over(mut storage: Storage, options: LakeOptions) -> Result<Arc<Self>> {
        let cache = storage.cached(&options.cache).await;
        let lake = Self {
            storage,
            cache,
            options,
            tables: RwLock::new(BTreeMap::new()),
            observer: OnceLock::new(),
            opening: Mutex::new(()),
        };
        lake.refresh().await?;
        Ok(Arc::new(lake))
    }

    /// Calls `observer` with every run that is recorded from now on in this process; the first one who asks is told.
    pub fn observe_runs(&self, observer: RunObserver) {
        // A second observer would be told nothing: there is one front end a process.
        let _ = self.observer.set(observer);
    }

    pub(crate) fn observed(&self, run: &RunRecord) {
        if let Some(observer) = self.observer.get() {
            observer(run);
        }
    }

    /// The lake's address, without credentials.
    pub fn location(&self) -> String {
        self.storage.url.to_string()
    }

    /// What the cache of data files did so far; `None` for a lake that has none.
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(|cache| cache.stats())
    }

    fn known(&self) -> RwLockReadGuard<'_, BTreeMap<TableName, Arc<LakeTable>>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<TableName, Arc<LakeTable>>> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table that was opened or discovered.
    pub fn table(&self, name: &TableName) -> Option<Arc<LakeTable>> {
        self.known().get(name).cloned()
    }

    /// All tables that were opened or discovered, by name.
    pub fn tables(&self) -> Vec<Arc<LakeTable>> {
        self.known().values().cloned().collect()
    }

    /// Discovers tables that other processes created, and forgets those whose folder is gone. A table that cannot be
    /// read is left out with a warning: one damaged table does not close the lake.
    pub async fn refresh(&self) -> Result<()> {
        let _opening = self.opening.lock().await;
        let names = self.storage.table_names().await?;
        self.known_mut().retain(|name, table| names.contains(name) || table.fresh_bytes() > 0);
        let new: Vec<TableName> = names.into_iter().filter(|name| self.table(name).is_none()).collect();
        let opened = futures::stream::iter(new).map(|name| async move {
            let log_store = self.storage.log_store(&name)?;
            match LakeTable::open(&name, log_store, self.options.fresh_limit_bytes).await {
                Ok(table) => Ok::<_, Error>(table),
                Err(error) => {
                    tracing::warn!(table = %name, %error, "a table cannot be opened and is left out");
                    Ok(None)
                }
            }
        });
        let opened: Vec<Option<Arc<LakeTable>>> = opened.buffered(OPEN_AT_ONCE).try_collect().await?;
        let mut known = self.known_mut();
        for table in opened.into_iter().flatten() {
            known.insert(table.name().clone(), table);
        }
        Ok(())
    }

    /// Opens a table for writing, creating it if it is not there: [`TableStore::open_table`] with the table's own type.
    pub async fn open_lake_table(&self, spec: TableSpec) -> Result<Arc<LakeTable>> {
        if spec.name.schema.starts_with('_') {
            return Err(Error::config(format!("'{}' cannot hold tables", spec.name.schema))
                .with_help("the name of a schema starts with a letter"));
        }
        if spec.schema.fields().is_empty() {
            return Err(Error::config(format!("table {} would have no columns", spec.name)));
        }
        let _opening = self.opening.lock().await;
        let limit = self.options.fresh_limit_bytes;
        let table = if let Some(table) = self.table(&spec.name) {
            table
        } else {
            let log_store = self.storage.log_store(&spec.name)?;
            let there = LakeTable::open(&spec.name, log_store.clone(), limit).await?;
            match there {
                Some(table) => table,
                None => LakeTable::create(&spec, log_store, limit, self.options.checkpoint_interval).await?,
            }
        };
        table.fit(&spec).await?;
        self.known_mut().insert(spec.name.clone(), Arc::clone(&table));
        Ok(table)
    }

    /// Whether a writer's columns fit a table that is there: an error names those that do not. Changes nothing.
    pub fn misfit(&self, spec: &TableSpec) -> Result<()> {
        self.table(&spec.name).map_or(Ok(()), |table| table.would_fit(spec))
    }

    /// The columns that must be widened so that a writer's fit their table; an error that names the columns when they would
    /// not fit even then. A table that is not there fits.
    pub fn widenings(&self, spec: &TableSpec) -> Result<Vec<(String, DataType)>> {
        self.table(&spec.name).map_or(Ok(Vec::new()), |table| table.widenings(spec))
    }

    /// The folder of a pipeline's durable log.
    pub fn log_directory(&self, pipeline: &str) -> PathBuf {
        self.storage.logs.join(pipeline)
    }

    /// The folder, on this machine, where a process keeps what it can make anew from the tables; it may not be there yet.
    pub fn keep_directory(&self) -> PathBuf {
        self.storage.logs.join("_kept")
    }

    /// Commits what the lake itself holds back (records of runs whose commit failed). Writers commit their own rows.
    pub async fn flush(&self) -> Result<()> {
        self.flush_runs().await
    }

    /// Flushes and waits for commits that run. Rows that no writer committed are named in a warning: they come back
    /// from the log of their pipeline.
    pub async fn close(&self) -> Result<()> {
        self.flush().await?;
        for table in self.tables() {
            table.wait_for_commit().await;
            let fresh_rows = table.stats().fresh_rows;
            if fresh_rows > 0 {
                tracing::warn!(table = %table.name(), fresh_rows, "rows were not committed when the lake closed");
            }
        }
        if let Some(cache) = &self.cache {
            cache.close().await;
        }
        Ok(())
    }
}

#[async_trait]
impl TableStore for Lake {
    async fn open_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>> {
        let table = self.open_lake_table(spec).await?;
        Ok(table)
    }

    async fn grow_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>> {
        self.open_table(spec).await
    }

    async fn describe_table(&self, name: &TableName) -> Result<Option<TableSpec>> {
        if self.table(name).is_none() {
            let _opening = self.opening.lock().await;
            if self.table(name).is_none() {
                let log_store = self.storage.log_store(name)?;
                let there = LakeTable::open(name, log_store, self.options.fresh_limit_bytes).await?;
                if let Some(table) = there {
                    self.known_mut().insert(name.clone(), table);
                }
            }
        }
        Ok(self.table(name).map(|table| TableSpec {
            name: name.clone(),
            schema: table.schema(),
            description: table.description(),
        }))
    }

    /// A pipeline whose log was lost (its folder deleted, another machine) gets a log that goes on after the newest
    /// stored state, so that no new message takes a sequence that its tables have already committed.
    async fn open_log(&self, pipeline: &str) -> Result<Arc<dyn MessageLog>> {
        state::check_pipeline_name(pipeline)?;
        let floor = state::sequences(&self.storage, pipeline).await?.pop().unwrap_or_default();
        let directory = self.log_directory(pipeline);
        let pipeline = pipeline.to_owned();
        let options = self.options.log.clone();
        let open = move || DurableLog::open(&directory, &pipeline, floor, &options);
        let log = tokio::task::spawn_blocking(open).await.map_err(Error::internal)??;
        Ok(Arc::new(log))
    }

    async fn put_state(&self, pipeline: &str, sequence: u64, keep_from: u64, state: Vec<u8>) -> Result<()> {
        state::put(&self.storage, pipeline, sequence, keep_from, state).await
    }

    async fn newest_state(&self, pipeline: &str) -> Result<Option<(u64, Vec<u8>)>> {
        state::check_pipeline_name(pipeline)?;
        let Some(sequence) = state::sequences(&self.storage, pipeline).await?.pop() else { return Ok(None) };
        Ok(state::get(&self.storage, pipeline, sequence).await?.map(|state| (sequence, state)))
    }

    async fn state(&self, pipeline: &str, sequence: u64) -> Result<Option<Vec<u8>>> {
        state::get(&self.storage, pipeline, sequence).await
    }
}
