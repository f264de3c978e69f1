//! A table: the newest Delta version and the rows that wait for their commit, as one consistent whole.
//!
//! Why a query never sees a row twice or misses one: what is readable (a Delta state and the fresh rows beside it) is
//! one value behind one lock, and it is only ever exchanged as a whole. A commit writes the new version to storage
//! first; until it has exchanged the value, nobody in this process looks for newer versions (the look needs the
//! write side's lock), so readers go on with the old version and the rows still fresh. When a commit's fate is
//! unknown (storage failed), its files and sequence are noted before it starts, and
//! the next look at the storage settles whether the rows are there.

mod cell;
mod change;
mod commit;
mod compact;
mod constraint;
mod evolve;
mod expire;
mod extent;
mod files;
mod follow;
mod history;
mod open;
mod provider;
mod revise;
mod schema;
mod since;

#[cfg(test)]
mod evolve_tests;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod since_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upkeep_tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::Add;
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::table::state::DeltaTableState;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt as _};
use tokio::sync::{Mutex, MutexGuard};
use twinlake_contracts::{
    Error, Rejects, Result, Revised, Revision, Sequences, StagedFile, TableName, TableWriter, WriteMode,
};

pub use self::cell::H3_COLUMN;
pub use self::compact::{CompactOptions, Compacted};
use self::constraint::Constraints;
use self::evolve::Renames;
pub use self::evolve::{Evolution, Evolved, wider_type};
pub use self::expire::Expired;
pub use self::extent::extent_of;
use self::follow::Follower;
pub use self::follow::{AddedFiles, Following, TableChange};
pub use self::history::{Vacuumed, VersionRecord};
use self::provider::SnapshotTable;
use crate::error;

/// Above this many rows, bringing a batch into shape leaves the async runtime.
const ROWS_INLINE: usize = 1024;

/// What a table holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableStats {
    /// The Delta version.
    pub version: u64,
    /// Data files of that version.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Committed rows, from the files' statistics.
    pub rows: u64,
    /// Rows of this process that wait for their commit.
    pub fresh_rows: u64,
    /// When the version was written, in microseconds since the epoch; unknown when its commit file is gone.
    pub updated_at_us: Option<i64>,
}

/// A table of the lake. Reads, writes and looks for news are safe from any task at any time.
pub struct LakeTable {
    /// For work that outlives its caller.
    itself: Weak<Self>,
    name: TableName,
    /// For errors: the table with its location.
    system: String,
    log_store: LogStoreRef,
    fresh_limit_bytes: usize,
    /// One commit, change of columns or look for news at a time.
    write_side: Mutex<WriteSide>,
    committing: AtomicBool,
    /// Bytes of data files that this process committed, by writer.
    written: StdMutex<HashMap<String, u64>>,
    /// What readers see.
    readable: RwLock<Readable>,
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeTable")
            .field("name", &self.name)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

struct WriteSide {
    /// The newest state known; `readable` shows the same.
    table: DeltaTable,
    /// A commit that may or may not have reached storage.
    in_doubt: Option<InDoubt>,
    /// Committed sequences by writer, as of the state; forgotten when another process wrote.
    committed: HashMap<String, Option<u64>>,
}

/// What must be known of a commit to settle its fate.
struct InDoubt {
    writer: String,
    sequence: Option<u64>,
    /// The files that it adds.
    paths: HashSet<String>,
    /// How many of the writer's oldest batches it commits.
    batches: usize,
}

struct Readable {
    state: DeltaTableState,
    committed: Arc<dyn TableProvider>,
    /// The columns that queries see.
    schema: SchemaRef,
    /// Names that its columns had.
    renames: Renames,
    constraints: Constraints,
    fresh: BTreeMap<String, Fresh>,
    /// Writers whose commits take the place of all rows: their fresh rows show only when committed.
    replacers: HashSet<String>,
    followers: Vec<Follower>,
}

#[derive(Default)]
struct Fresh {
    batches: Vec<RecordBatch>,
    bytes: usize,
}

/// Plain types instead of views: what is read has the schema of the table. Made once, used for all tables.
static SCAN_DEFAULTS: LazyLock<Arc<SessionState>> = LazyLock::new(|| {
    let mut config = SessionConfig::new();
    config.options_mut().execution.parquet.schema_force_view_types = false;
    config.options_mut().execution.parquet.pushdown_filters = true;
    Arc::new(SessionContext::new_with_config(config).state())
});

async fn scan_of(system: &str, table: &DeltaTable) -> Result<Arc<dyn TableProvider>> {
    let builder = table.table_provider().with_session(Arc::clone(&SCAN_DEFAULTS));
    builder.await.map_err(|error| error::datafusion(system, &error))
}

fn bytes_of(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default()).sum()
}

impl LakeTable {
    async fn new(name: TableName, table: DeltaTable, fresh_limit_bytes: usize) -> Result<Arc<Self>> {
        let system = format!("table {name} at {}", table.table_url());
        let state = table.snapshot().map_err(|error| error::delta(&system, &error))?.clone();
        let committed = scan_of(&system, &table).await?;
        let schema = extent::visible(&committed.schema());
        let renames = Renames::of(&state);
        let constraints = Constraints::of(&system, &state, &schema)?;
        let replacers = commit::replacers(&table).await;
        Ok(Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            name,
            log_store: table.log_store(),
            fresh_limit_bytes,
            write_side: Mutex::new(WriteSide { table, in_doubt: None, committed: HashMap::new() }),
            committing: AtomicBool::new(false),
            written: StdMutex::default(),
            readable: RwLock::new(Readable {
                state,
                committed,
                schema,
                renames,
                constraints,
                fresh: BTreeMap::new(),
                replacers,
                followers: Vec::new(),
            }),
            system,
        }))
    }

    /// The readable value is exchanged in single statements, so a panic elsewhere leaves it whole.
    fn readable(&self) -> RwLockReadGuard<'_, Readable> {
        self.readable.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn readable_mut(&self) -> RwLockWriteGuard<'_, Readable> {
        self.readable.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name.
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// Its address, without credentials.
    pub fn location(&self) -> String {
        self.log_store.root_url().to_string()
    }

    /// Names it for all time: another table at the same place has another one.
    pub fn id(&self) -> String {
        self.readable().state.metadata().id().to_owned()
    }

    /// What its writer says it is; may be empty.
    pub fn description(&self) -> String {
        self.readable().state.metadata().description().unwrap_or_default().to_owned()
    }

    /// Its columns, with the fields' metadata (geometry, CRS).
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.readable().schema)
    }

    /// Its columns as files hold them, with those that queries do not see.
    fn stored_schema(&self) -> SchemaRef {
        self.readable().committed.schema()
    }

    /// The newest Delta version that this process has seen.
    pub fn version(&self) -> u64 {
        self.readable().state.version()
    }

    /// How many bytes of data files writers whose names begin so have committed in this process.
    pub(crate) fn bytes_written(&self, writer: &str) -> u64 {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.iter().filter(|(name, _)| name.starts_with(writer)).map(|(_, bytes)| bytes).sum()
    }

    /// Counts the data files of a commit.
    fn note_written(&self, writer: &str, adds: &[Add]) {
        let bytes: i64 = adds.iter().map(|add| add.size).sum();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        *written.entry(writer.to_owned()).or_default() += bytes.unsigned_abs();
    }

    /// How many bytes of rows wait for their commit.
    pub fn fresh_bytes(&self) -> usize {
        self.readable().fresh.values().map(|fresh| fresh.bytes).sum()
    }

    /// The newest version, also one that another process wrote, and this process's fresh rows as one consistent
    /// snapshot. Each call looks for news at the cost of one request to storage; it does not wait for a commit that
    /// runs meanwhile.
    pub async fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        if let Some(mut side) = self.write_side_unless_committing().await {
            self.look_for_news(&mut side).await?;
        }
        let readable = self.readable();
        let shown = readable.fresh.iter().filter(|(writer, _)| !readable.replacers.contains(*writer));
        Ok(Arc::new(SnapshotTable {
            schema: Arc::clone(&readable.schema),
            version: readable.state.version(),
            committed: Arc::clone(&readable.committed),
            fresh: shown.flat_map(|(_, fresh)| fresh.batches.iter().cloned()).collect(),
        }))
    }

    /// The table as a past version was, without fresh rows.
    pub async fn provider_at_version(&self, version: u64) -> Result<Arc<dyn TableProvider>> {
        if version > self.version() {
            self.provider().await?;
        }
        if version > self.version() {
            return Err(Error::not_found("version", format!("{version} of table {}", self.name), []));
        }
        let mut table = DeltaTable::new(Arc::clone(&self.log_store));
        table.load_version(version).await.map_err(|error| error::delta(&self.system, &error))?;
        let committed = scan_of(&self.system, &table).await?;
        let schema = extent::visible(&committed.schema());
        Ok(Arc::new(SnapshotTable { schema, version, committed, fresh: Vec::new() }))
    }

    /// What the table holds, as of the newest version that this process has seen.
    pub fn stats(&self) -> TableStats {
        let (state, fresh_rows) = {
            let readable = self.readable();
            let batches = readable.fresh.values().flat_map(|fresh| &fresh.batches);
            (readable.state.clone(), batches.map(|batch| batch.num_rows() as u64).sum())
        };
        let mut stats = TableStats {
            version: state.version(),
            files: 0,
            bytes: 0,
            rows: 0,
            fresh_rows,
            updated_at_us: state.version_timestamp(state.version()).map(|milliseconds| milliseconds * 1000),
        };
        for file in state.log_data().iter() {
            stats.files += 1;
            stats.bytes += u64::try_from(file.size()).unwrap_or_default();
            stats.rows += file.num_records().unwrap_or_default() as u64;
        }
        stats
    }

    /// Returns when no commit runs.
    pub(crate) async fn wait_for_commit(&self) {
        drop(self.write_side.lock().await);
    }

    /// The write side, unless a commit of this process holds it.
    async fn write_side_unless_committing(&self) -> Option<MutexGuard<'_, WriteSide>> {
        match self.write_side.try_lock() {
            Ok(side) => Some(side),
            Err(_) if self.committing.load(Ordering::Acquire) => None,
            Err(_) => Some(self.write_side.lock().await),
        }
    }

    /// Takes over versions that appeared in storage.
    async fn look_for_news(&self, side: &mut WriteSide) -> Result<()> {
        if side.in_doubt.is_none() {
            let next = side.table.version().map_or(0, |version| version + 1);
            let commit = Path::from(format!("_delta_log/{next:020}.json"));
            match self.log_store.object_store(None).head(&commit).await {
                Ok(_) => {}
                Err(StoreError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error::store(&self.system, &error)),
            }
        }
        self.settle(side).await
    }

    /// Loads the newest version and settles a commit whose fate was unknown.
    async fn settle(&self, side: &mut WriteSide) -> Result<()> {
        let before = side.table.version();
        let loaded = side.table.update_incremental(None).await;
        loaded.map_err(|error| error::delta(&self.system, &error))?;
        let mut landed = None;
        if let Some(doubt) = &side.in_doubt {
            let state = side.table.snapshot().map_err(|error| error::delta(&self.system, &error))?;
            let added = state.log_data().iter().any(|file| doubt.paths.contains(file.path().as_ref()));
            let reached = match doubt.sequence {
                Some(sequence) if !added => {
                    let stored = state.transaction_version(&self.log_store, &doubt.writer).await;
                    let stored = stored.map_err(|error| error::delta(&self.system, &error))?;
                    stored.is_some_and(|stored| stored as u64 >= sequence)
                }
                _ => false,
            };
            landed = Some((doubt.writer.clone(), if added || reached { doubt.batches } else { 0 }));
        }
        if side.table.version() != before || landed.is_some() {
            side.committed.clear();
            let own = side.in_doubt.as_ref().map(|doubt| doubt.paths.clone()).unwrap_or_default();
            self.publish(side, landed, &own, false).await?;
        }
        Ok(())
    }

    /// Exchanges what readers see: the write side's state, and without the `landed` oldest batches of a writer, which are
    /// in the files `own`. `moved` says that the version holds the same rows in other files.
    async fn publish(
        &self,
        side: &mut WriteSide,
        landed: Option<(String, usize)>,
        own: &HashSet<String>,
        moved: bool,
    ) -> Result<()> {
        let state = side.table.snapshot().map_err(|error| error::delta(&self.system, &error))?.clone();
        let committed = scan_of(&self.system, &side.table).await?;
        let schema = extent::visible(&committed.schema());
        let renames = Renames::of(&state);
        let constraints = Constraints::of(&self.system, &state, &schema)?;
        let mut readable = self.readable_mut();
        if schema != readable.schema {
            let aligned: Result<Vec<()>> = readable
                .fresh
                .values_mut()
                .flat_map(|fresh| fresh.batches.iter_mut())
                .map(|batch| {
                    let named = renames.rows(batch.clone(), &schema)?;
                    *batch = schema::align(&self.name, &named, &schema)?;
                    Ok(())
                })
                .collect();
            aligned?;
        }
        // Rows of a writer that replaces are seen with their commit only.
        let seen = landed.as_ref().is_some_and(|(writer, _)| !readable.replacers.contains(writer));
        let none = HashSet::new();
        readable.tell_version(&state, &schema, if seen { own } else { &none }, moved);
        if let Some((writer, batches)) = landed
            && let Some(fresh) = readable.fresh.get_mut(&writer)
        {
            let gone: usize = fresh.batches.drain(..batches).map(|batch| bytes_of(&batch)).sum();
            fresh.bytes = fresh.bytes.saturating_sub(gone);
        }
        readable.state = state;
        readable.committed = committed;
        readable.schema = schema;
        readable.renames = renames;
        readable.constraints = constraints;
        drop(readable);
        side.in_doubt = None;
        Ok(())
    }

    /// The highest committed sequence of a writer, from memory or from the Delta log.
    async fn committed_by(&self, side: &mut WriteSide, writer: &str) -> Result<Option<u64>> {
        if let Some(known) = side.committed.get(writer) {
            return Ok(*known);
        }
        let state = side.table.snapshot().map_err(|error| error::delta(&self.system, &error))?;
        let stored = state.transaction_version(&self.log_store, writer).await;
        let stored =
            stored.map_err(|error| error::delta(&self.system, &error))?.map(|version| version as u64);
        side.committed.insert(writer.to_owned(), stored);
        Ok(stored)
    }

    /// Rows in the table's shape, off the async runtime when they are many.
    async fn shaped(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let (schema, renames) = {
            let readable = self.readable();
            (Arc::clone(&readable.schema), readable.renames.clone())
        };
        let rows = renames.rows(rows, &schema)?;
        if rows.num_rows() <= ROWS_INLINE {
            return schema::align(&self.name, &rows, &schema);
        }
        let name = self.name.clone();
        tokio::task::spawn_blocking(move || schema::align(&name, &rows, &schema))
            .await
            .map_err(Error::internal)?
    }
}

#[async_trait]
impl TableWriter for LakeTable {
    fn name(&self) -> &TableName {
        &self.name
    }

    async fn committed(&self, writer: &str) -> Result<Option<u64>> {
        let mut side = self.write_side.lock().await;
        self.look_for_news(&mut side).await?;
        self.committed_by(&mut side, writer).await
    }

    /// Rows wait in memory up to a limit ([`crate::LakeOptions::fresh_limit_bytes`]); beyond it they are refused with
    /// an error that a commit mends. Rows of a writer that replaces the table show only when they are committed.
    async fn add_fresh(&self, writer: &str, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut rows = self.shaped(rows).await?;
        let constraints = self.readable().constraints.clone();
        constraints.hold(&self.name, &rows)?;
        let bytes = bytes_of(&rows);
        let mut readable = self.readable_mut();
        let waiting: usize = readable.fresh.values().map(|fresh| fresh.bytes).sum();
        if waiting > 0 && waiting + bytes > self.fresh_limit_bytes {
            return Err(Error::transient(
                self.system.clone(),
                format!(
                    "{waiting} bytes of rows wait for their commit and {bytes} more pass the limit of {}; commit first",
                    self.fresh_limit_bytes
                ),
            ));
        }
        if rows.schema() != readable.schema {
            // The table's columns have changed since.
            rows = readable.renames.rows(rows, &readable.schema)?;
            rows = schema::align(&self.name, &rows, &readable.schema)?;
        }
        let fresh = readable.fresh.entry(writer.to_owned()).or_default();
        fresh.batches.push(rows.clone());
        fresh.bytes += bytes;
        if !readable.replacers.contains(writer) {
            readable.tell_rows(&rows);
        }
        Ok(())
    }

    async fn commit(&self, writer: &str, upto: u64, mode: WriteMode) -> Result<u64> {
        self.commit_rows(writer, Some(upto), mode).await
    }

    async fn violations(&self, rows: &RecordBatch) -> Result<Rejects> {
        let constraints = self.readable().constraints.clone();
        if constraints.is_empty() {
            return Ok(Rejects::default());
        }
        constraints.violations(&self.name, &self.shaped(rows.clone()).await?)
    }

    async fn stage(&self, writer: &str, rows: RecordBatch) -> Result<Vec<StagedFile>> {
        self.stage_rows(writer, rows).await
    }

    async fn affected(&self, writer: &str, gone: &Sequences) -> Result<Revised> {
        self.affected_by(writer, gone).await
    }

    async fn revise(&self, revision: Revision<'_>) -> Result<Revised> {
        self.revise_to_its_end(revision).await
    }
}
