//! The engine: one lake, its extensions, and the sessions opened on it.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use datafusion::catalog::{CatalogProvider as _, MemoryCatalogProviderList};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryPool, TrackConsumersPool, UnboundedMemoryPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use twinlake_contracts::{Error, Result};
use twinlake_lake::Lake;

use crate::arguments::NamedArguments;
use crate::catalog::LakeCatalog;
use crate::files::{FileAccess, FileTables};
use crate::memory::QueryMemory;
use crate::micro_batch::MicroBatches;
use crate::remote::Remote;
use crate::scan_pieces::ScanPieces;
use crate::session::{Session, SessionSettings};
use crate::settings::TwinOptions;
use crate::sort::PrefixSorts;
use crate::timestamps;
use crate::{CATALOG, DEFAULT_SCHEMA, scores};

/// How long the list of tables may be old before a statement looks for those that other processes made.
const REFRESH_AFTER: Duration = Duration::from_secs(2);
/// How many of the hungriest parts of a query an out-of-memory error names.
const NAMED_CONSUMERS: usize = 3;

/// Adds tables, schemas and functions to every session opened after it was given to the engine.
pub trait Extension: Send + Sync {
    /// Registers what it brings. The session's catalog takes whole schemas (`register_schema`) and single tables
    /// (`context.register_table("meta.twin_models", …)`); table functions read their arguments with
    /// [`crate::Arguments`].
    fn register(&self, context: &SessionContext) -> datafusion::common::Result<()>;
}

/// Bounds for all sessions of an engine together.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// How many bytes all queries together may hold before they spill to disk or fail; `None` is no bound.
    pub memory_limit_bytes: Option<usize>,
    /// How many partitions a query runs in; `None` is the number of cores.
    pub partitions: Option<NonZeroUsize>,
}

/// One lake, asked in SQL. Share it with `Arc`.
pub struct Engine {
    /// Sessions hold the engine.
    pub(crate) itself: Weak<Self>,
    lake: Arc<Lake>,
    options: EngineOptions,
    runtime: Arc<RuntimeEnv>,
    extensions: RwLock<Vec<Arc<dyn Extension>>>,
    refreshed: Mutex<Option<Instant>>,
    remote: OnceLock<Arc<dyn Remote>>,
    pub(crate) micro_batches: MicroBatches,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("lake", &self.lake)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine without bounds.
    pub fn new(lake: Arc<Lake>) -> Arc<Self> {
        Self::build(lake, EngineOptions::default(), Arc::new(RuntimeEnv::default()))
    }

    /// An engine with bounds.
    pub fn with_options(lake: Arc<Lake>, options: EngineOptions) -> Result<Arc<Self>> {
        let pool: Arc<dyn MemoryPool> = match options.memory_limit_bytes {
            Some(limit) => {
                let consumers = NonZeroUsize::new(NAMED_CONSUMERS).unwrap_or(NonZeroUsize::MIN);
                Arc::new(TrackConsumersPool::new(FairSpillPool::new(limit), consumers))
            }
            None => Arc::new(UnboundedMemoryPool::default()),
        };
        let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(QueryMemory::new(pool)));
        let runtime = builder.build_arc().map_err(|error| crate::to_error(error, &[]))?;
        Ok(Self::build(lake, options, runtime))
    }

    fn build(lake: Arc<Lake>, options: EngineOptions, runtime: Arc<RuntimeEnv>) -> Arc<Self> {
        let micro_batches = MicroBatches::new(Arc::clone(&runtime));
        Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            lake,
            options,
            runtime,
            extensions: RwLock::default(),
            refreshed: Mutex::default(),
            remote: OnceLock::new(),
            micro_batches,
        })
    }

    /// The lake.
    pub fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    /// Registers an extension with every session opened from now on.
    pub fn extend(&self, extension: Arc<dyn Extension>) {
        self.extensions.write().unwrap_or_else(PoisonError::into_inner).push(extension);
    }

    /// Lets queries of sessions opened from now on run in other processes; micro-batches of pipelines stay here. Only the
    /// first call counts.
    pub fn run_on(&self, remote: Arc<dyn Remote>) {
        // An engine has one place where its queries run.
        let _ = self.remote.set(remote);
    }

    /// Opens a session: its settings are its own, everything else is shared.
    pub fn session(self: &Arc<Self>, settings: SessionSettings) -> Result<Session> {
        let files = Arc::new(FileTables::new(settings.local_files));
        let catalog = Arc::new(LakeCatalog::new(Arc::clone(&self.lake), Arc::clone(&files)));
        let catalogs = MemoryCatalogProviderList::new();
        datafusion::catalog::CatalogProviderList::register_catalog(
            &catalogs,
            CATALOG.to_owned(),
            Arc::clone(&catalog) as _,
        );
        let remote = self.remote.get();
        let config = remote.map_or_else(|| self.config(), |remote| remote.configure(self.config()));
        let config = config.with_extension(Arc::new(FileAccess(settings.local_files)));
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_catalog_list(Arc::new(catalogs))
            .with_default_features();
        let mut builder = twinlake_spatial::configure(builder);
        let rules = builder.physical_optimizer_rules().get_or_insert_default();
        rules.push(Arc::new(PrefixSorts));
        rules.push(Arc::new(ScanPieces));
        if let Some(remote) = remote {
            let planner = builder.query_planner().take();
            let planner = planner.ok_or_else(|| Error::internal("a session has no planner"))?;
            builder = builder.with_query_planner(remote.planner(planner));
        }
        let mut state = builder.build();
        let failed = |error| Error::internal(format!("a session cannot be opened: {error}"));
        state.register_relation_planner(Arc::new(NamedArguments)).map_err(failed)?;
        let context = SessionContext::new_with_state(state);
        files.attach(&context);
        timestamps::register(&context);
        twinlake_spatial::register(&context).map_err(failed)?;
        scores::register(&context);
        // Cloned, so that an extension may itself ask for the list.
        let extensions = self.extensions.read().unwrap_or_else(PoisonError::into_inner).clone();
        for extension in extensions {
            extension.register(&context).map_err(|error| crate::to_error(error, &[]))?;
        }
        debug_assert!(catalog.schema(DEFAULT_SCHEMA).is_some());
        Ok(Session::new(Arc::new(context), Arc::clone(self), catalog))
    }

    fn config(&self) -> SessionConfig {
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true)
            .with_option_extension(TwinOptions::default())
            .set_str("datafusion.execution.time_zone", "UTC")
            // The metadata of a file's columns says which of them are geometry, in which reference system.
            .set_bool("datafusion.execution.parquet.skip_metadata", false);
        if let Some(partitions) = self.options.partitions {
            config = config.with_target_partitions(partitions.get());
        }
        config
    }

    /// Looks for tables that other processes made, unless that was done a moment ago.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let due = {
            let mut refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
            let due = refreshed.is_none_or(|last| last.elapsed() >= REFRESH_AFTER);
            if due {
                *refreshed = Some(Instant::now());
            }
            due
        };
        if due { self.lake.refresh().await } else { Ok(()) }
    }
}
