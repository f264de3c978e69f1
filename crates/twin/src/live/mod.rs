//! The present of a twin, held in memory: the fold of its table, kept up to date as rows come.
//!
//! Begun with the kept state of a version and what came since then (`kept.rs`), or else with one fold over the table, then fed by what the table tells ([`twinlake_lake::Following`]): each reading is taken in
//! before the next question is answered, so that an answer shows every row that a query of the table would. Where the table tells
//! that rows went, or columns changed, the state is folded anew. Past states, states as they were known, histories and
//! scenarios with a fork are read from the lake as ever; both ways give the same rows.

mod grid;
mod kept;
mod readings;
mod state;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use tokio::sync::Mutex;
use twinlake_contracts::{Result, crs_of};
use twinlake_lake::{Following, LakeTable, TableChange};
use twinlake_query::{Engine, SessionSettings};

use self::grid::Extent;
use self::kept::Kept;
pub(crate) use self::readings::{Shape, readings};
use self::state::State;
use crate::model::{PropertyType, TwinModel};
use crate::view::{back, through};

/// How often versions of other processes are looked for when nobody asks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The state is kept anew when so many rows have come since the last time, and as many as there are instances.
const KEEP_AFTER_ROWS: u64 = 10_000;
/// But not more often than this.
const KEEP_EVERY: Duration = Duration::from_mins(1);

/// The present of one model.
#[derive(Debug)]
pub(crate) struct Live {
    engine: Weak<Engine>,
    model: Arc<TwinModel>,
    table: Arc<LakeTable>,
    inner: Mutex<Option<Inner>>,
    kept: Kept,
    /// Rows that came since the state was kept.
    since_kept: AtomicU64,
    keeping: AtomicBool,
    begun: Begun,
}

/// From what the present was begun, the last time.
#[derive(Debug, Default)]
struct Begun {
    instances: AtomicU64,
    rows: AtomicU64,
}

/// From what the present of a model was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentBegun {
    /// The model.
    pub model: String,
    /// Instances of the kept state; 0 when there was none that fitted.
    pub kept_instances: u64,
    /// Rows that were read of the table and folded: those since the kept state, or all.
    pub rows: u64,
}

#[derive(Debug)]
struct Inner {
    following: Following,
    shape: Shape,
    state: State,
}

/// What is asked of the present.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// All instances.
    All,
    /// Those of these keys, as texts.
    Keys(Vec<String>),
    /// Those that may lie in a box.
    Within(Extent),
}

impl Live {
    /// The present of a model with telemetry, kept in that folder; nothing is read yet.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        model: Arc<TwinModel>,
        table: Arc<LakeTable>,
        folder: &Path,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine: Arc::downgrade(engine),
            kept: Kept::new(folder, &model, &table),
            model,
            table,
            inner: Mutex::new(None),
            since_kept: AtomicU64::new(0),
            keeping: AtomicBool::new(false),
            begun: Begun::default(),
        })
    }

    /// Takes in what has come, and goes on doing so as rows come, as long as somebody else holds the present.
    pub(crate) async fn keep(this: Weak<Self>) -> Result<()> {
        let mut kept_at = Instant::now();
        loop {
            let Some(live) = this.upgrade() else { return Ok(()) };
            if kept_at.elapsed() >= KEEP_EVERY && live.is_worth_keeping().await {
                kept_at = Instant::now();
                let live = Arc::clone(&live);
                tokio::spawn(async move {
                    if let Err(error) = live.keep_state().await {
                        tracing::warn!(model = live.model.name, %error, "the state is not kept for the next start");
                    }
                });
            }
            // Not behind the lock: who reads does not wait for storage.
            live.table.look().await?;
            let woken = {
                let mut inner = live.inner.lock().await;
                live.with_what_was_told(&mut inner).await?.following.woken()
            };
            drop(live);
            // Rows of other processes are looked for even if nothing of this one happens.
            let _ = tokio::time::timeout(LOOK_EVERY, woken.notified()).await;
        }
    }

    async fn begin(&self) -> Result<Inner> {
        let following = self.table.follow().await?;
        let shape = Shape::new(&self.model);
        let state = if let Some((_, mut state, rows)) = self.rolled_forward(&shape).await? {
            // The kept state and what was committed since; what waits for its commit is here.
            let mut fresh = 0;
            for batch in &following.fresh {
                fresh += batch.num_rows() as u64;
                state.apply(&readings(&self.model, &shape, batch)?)?;
            }
            self.begun.rows.store(rows + fresh, Ordering::Relaxed);
            self.since_kept.store(rows + fresh, Ordering::Relaxed);
            state
        } else {
            let (state, rows) = self.folded(&shape, Arc::clone(&following.snapshot)).await?;
            self.begun.instances.store(0, Ordering::Relaxed);
            self.begun.rows.store(rows, Ordering::Relaxed);
            self.since_kept.store(rows, Ordering::Relaxed);
            state
        };
        tracing::debug!(
            model = self.model.name,
            instances = state.len(),
            rows = self.begun.rows.load(Ordering::Relaxed),
            bytes = state.bytes(),
            "state in memory"
        );
        Ok(Inner { following, shape, state })
    }

    fn empty(shape: &Shape) -> State {
        let degrees = shape.geometry.as_ref().map(|(_, field)| {
            crs_of(field).is_some_and(|crs| crs == twinlake_contracts::CRS84 || crs == "EPSG:4326")
        });
        State::new(shape.schema.clone(), shape.deciding.clone(), degrees)
    }

    /// The fold of all rows of a snapshot, and how many there are.
    async fn folded(&self, shape: &Shape, snapshot: Arc<dyn TableProvider>) -> Result<(State, u64)> {
        let mut state = Self::empty(shape);
        let engine = self.engine.upgrade();
        let engine = engine.ok_or_else(|| twinlake_contracts::Error::internal("the query engine is gone"))?;
        let session = engine.session(SessionSettings::default())?;
        let scan = session.context().read_table(snapshot).map_err(back)?;
        let mut rows = scan.execute_stream().await.map_err(back)?;
        let mut count = 0;
        while let Some(batch) = futures::StreamExt::next(&mut rows).await {
            let batch = batch.map_err(back)?;
            count += batch.num_rows() as u64;
            state.apply(&readings(&self.model, shape, &batch)?)?;
        }
        Ok((state, count))
    }

    /// The kept state with all rows that were committed since then: the version that it is of now, the state, and how many rows came.
    /// `None` when no state is kept that fits, or rows went since then.
    async fn rolled_forward(&self, shape: &Shape) -> Result<Option<(u64, State, u64)>> {
        let (kept, own) = (self.kept.clone(), shape.clone());
        let read = tokio::task::spawn_blocking(move || kept.read(&own)).await;
        let Some((version, all)) = read.map_err(twinlake_contracts::Error::internal)? else {
            return Ok(None);
        };
        let Some((upto, added)) = self.table.since(version).await? else {
            tracing::info!(
                model = self.model.name,
                version,
                "rows went since the state was kept: the table is folded"
            );
            return Ok(None);
        };
        let mut state = Self::empty(shape);
        for readings in &all {
            state.apply(readings)?;
        }
        self.begun.instances.store(state.len() as u64, Ordering::Relaxed);
        let mut count = 0;
        for file in added.one_by_one() {
            for batch in self.table.read_added(&file).await? {
                count += batch.num_rows() as u64;
                state.apply(&readings(&self.model, shape, &batch)?)?;
            }
        }
        Ok(Some((upto, state, count)))
    }

    async fn is_worth_keeping(&self) -> bool {
        let instances = self.inner.lock().await.as_ref().map_or(0, |inner| inner.state.len() as u64);
        self.since_kept.load(Ordering::Relaxed) >= KEEP_AFTER_ROWS.max(instances)
    }

    /// Keeps the state of the newest committed version for the next process, unless it is kept already.
    ///
    /// It is made from the one that was kept before and what was committed since then, beside the state in memory, which has rows
    /// that wait for their commit: so it costs the rows since the last time, and for a while the memory of a second state.
    pub(crate) async fn keep_state(&self) -> Result<()> {
        if self.keeping.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let kept = self.keep_state_now().await;
        self.keeping.store(false, Ordering::Release);
        kept
    }

    async fn keep_state_now(&self) -> Result<()> {
        let came = self.since_kept.load(Ordering::Relaxed);
        let shape = Shape::new(&self.model);
        let (version, state) = match self.rolled_forward(&shape).await? {
            Some((_, _, 0)) => return Ok(()),
            Some((version, state, _)) => (version, state),
            None => {
                let (version, rows) = self.table.committed_rows().await?;
                (version, self.folded(&shape, rows).await?.0)
            }
        };
        let kept = self.kept.clone();
        let written = tokio::task::spawn_blocking(move || {
            let rows = state.with_sequences()?;
            kept.write(&shape, version, &rows)
        });
        written.await.map_err(twinlake_contracts::Error::internal)??;
        let _ = self
            .since_kept
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(came)));
        Ok(())
    }

    /// From what it was begun.
    pub(crate) fn begun(&self) -> PresentBegun {
        PresentBegun {
            model: self.model.name.clone(),
            kept_instances: self.begun.instances.load(Ordering::Relaxed),
            rows: self.begun.rows.load(Ordering::Relaxed),
        }
    }

    /// The state with everything that the table has told: the rows of this process, and those of others as of the last look.
    async fn with_what_was_told<'a>(&self, inner: &'a mut Option<Inner>) -> Result<&'a mut Inner> {
        loop {
            let now = match inner.take() {
                Some(now) => now,
                None => self.begin().await?,
            };
            let now = inner.insert(now);
            let mut anew = false;
            while let Some(change) = now.following.next() {
                let batches = match change {
                    TableChange::Rows(rows) => vec![rows],
                    TableChange::Files(added) => self.table.read_added(&added).await?,
                    TableChange::Anew => {
                        anew = true;
                        break;
                    }
                };
                for batch in batches {
                    self.since_kept.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    now.state.apply(&readings(&self.model, &now.shape, &batch)?)?;
                }
            }
            if !anew {
                break;
            }
            *inner = None;
        }
        inner.as_mut().ok_or_else(|| twinlake_contracts::Error::internal("a state without a beginning"))
    }

    /// The columns that are held: stored properties and the two times.
    pub(crate) fn schema(&self) -> SchemaRef {
        Shape::new(&self.model).schema
    }

    /// Rows of [`Live::schema`] as a query of the table would see them now.
    async fn read(&self, wanted: &Wanted) -> Result<Vec<RecordBatch>> {
        self.read_after(wanted, true).await
    }

    /// As they are in memory: the rows of this process, and those of others as of the last look, at most [`LOOK_EVERY`] ago.
    pub(crate) async fn read_now(&self, wanted: &Wanted) -> Result<Vec<RecordBatch>> {
        self.read_after(wanted, false).await
    }

    async fn read_after(&self, wanted: &Wanted, look: bool) -> Result<Vec<RecordBatch>> {
        if look {
            self.table.look().await?;
        }
        let mut inner = self.inner.lock().await;
        // What fails in the middle is begun anew by the next one who asks.
        let now = match self.with_what_was_told(&mut inner).await {
            Ok(now) => now,
            Err(error) => {
                *inner = None;
                return Err(error);
            }
        };
        match wanted {
            Wanted::All => now.state.all(),
            Wanted::Keys(keys) => now.state.of_keys(keys.iter().map(String::as_str)),
            Wanted::Within(extent) => now.state.in_extent(*extent),
        }
    }

    /// How many rows are held, shown or overtaken.
    #[cfg(test)]
    pub(crate) async fn rows_held(&self) -> Result<usize> {
        self.table.look().await?;
        let mut inner = self.inner.lock().await;
        Ok(self.with_what_was_told(&mut inner).await?.state.rows_held())
    }

    /// How many instances there are.
    #[cfg(test)]
    pub(crate) async fn len(&self) -> Result<usize> {
        self.table.look().await?;
        let mut inner = self.inner.lock().await;
        Ok(self.with_what_was_told(&mut inner).await?.state.len())
    }
}

/// The present of a model as a table: its stored properties and the two times.
#[derive(Debug)]
pub(crate) struct LiveTable {
    live: Arc<Live>,
    schema: SchemaRef,
}

impl LiveTable {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        let schema = Shape::new(&live.model).schema;
        Self { live, schema }
    }

    /// What has to be looked at for the filters to be true: one of them decides, the others are held against the rows.
    fn wanted(&self, filters: &[Expr]) -> Wanted {
        let model = &self.live.model;
        let keys = filters.iter().find_map(|filter| keys_of(filter, &model.key));
        if let Some(keys) = keys {
            return Wanted::Keys(keys);
        }
        let geometry = model.properties.iter().find(|(_, property)| property.kind == PropertyType::Geometry);
        let Some((geometry, _)) = geometry else { return Wanted::All };
        filters
            .iter()
            .filter(|filter| filter.column_refs().iter().all(|column| column.name == *geometry))
            .find_map(twinlake_lake::extent_of)
            .map_or(Wanted::All, Wanted::Within)
    }
}

/// The keys, as text, that a filter allows.
fn keys_of(filter: &Expr, key: &str) -> Option<Vec<String>> {
    let is_key = |expression: &Expr| matches!(expression, Expr::Column(column) if column.name == key);
    let text = |expression: &Expr| match expression {
        Expr::Literal(value, _) if !value.is_null() => match value.cast_to(&DataType::Utf8).ok()? {
            ScalarValue::Utf8(text) => text,
            _ => None,
        },
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
            let (left, right) = (binary.left.as_ref(), binary.right.as_ref());
            let value = if is_key(left) { right } else { left };
            (is_key(left) || is_key(right)).then(|| text(value).map(|key| vec![key])).flatten()
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let mut keys = keys_of(&binary.left, key)?;
            keys.extend(keys_of(&binary.right, key)?);
            Some(keys)
        }
        Expr::InList(list) if !list.negated && is_key(&list.expr) => list.list.iter().map(text).collect(),
        _ => None,
    }
}

#[async_trait]
impl TableProvider for LiveTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let rows = self.live.read(&self.wanted(filters)).await.map_err(through)?;
        let plan = MemorySourceConfig::try_new_exec(&[rows], self.schema(), projection.cloned())?;
        Ok(plan)
    }
}
