//! The present of a twin, held in memory: the fold of its table, kept up to date as rows come.
//!
//! Begun with one fold over the table, then fed by what the table tells ([`twinlake_lake::Following`]): each reading is taken in
//! before the next question is answered, so that an answer shows every row that a query of the table would. Where the table tells
//! that rows went, or columns changed, the state is folded anew. Past states, states as they were known, histories and
//! scenarios with a fork are read from the lake as ever; both ways give the same rows.

mod grid;
mod readings;
mod state;

use std::sync::{Arc, Weak};
use std::time::Duration;

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
pub(crate) use self::readings::{Shape, readings};
use self::state::State;
use crate::model::{PropertyType, TwinModel};
use crate::view::{back, through};

/// How often versions of other processes are looked for when nobody asks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The present of one model.
#[derive(Debug)]
pub(crate) struct Live {
    engine: Weak<Engine>,
    model: Arc<TwinModel>,
    table: Arc<LakeTable>,
    inner: Mutex<Option<Inner>>,
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
    /// The present of a model with telemetry; nothing is read yet.
    pub(crate) fn new(engine: &Arc<Engine>, model: Arc<TwinModel>, table: Arc<LakeTable>) -> Arc<Self> {
        Arc::new(Self { engine: Arc::downgrade(engine), model, table, inner: Mutex::new(None) })
    }

    /// Takes in what has come, and goes on doing so as rows come, as long as somebody else holds the present.
    pub(crate) async fn keep(this: Weak<Self>) -> Result<()> {
        loop {
            let Some(live) = this.upgrade() else { return Ok(()) };
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
        let degrees = shape.geometry.as_ref().map(|(_, field)| {
            crs_of(field).is_some_and(|crs| crs == twinlake_contracts::CRS84 || crs == "EPSG:4326")
        });
        let mut state = State::new(shape.schema.clone(), shape.deciding.clone(), degrees);
        let engine = self.engine.upgrade();
        let engine = engine.ok_or_else(|| twinlake_contracts::Error::internal("the query engine is gone"))?;
        let session = engine.session(SessionSettings::default())?;
        let scan = session.context().read_table(Arc::clone(&following.snapshot)).map_err(back)?;
        let mut rows = scan.execute_stream().await.map_err(back)?;
        while let Some(batch) = futures::StreamExt::next(&mut rows).await {
            state.apply(&readings(&self.model, &shape, &batch.map_err(back)?)?)?;
        }
        tracing::debug!(
            model = self.model.name,
            instances = state.len(),
            bytes = state.bytes(),
            "state in memory"
        );
        Ok(Inner { following, shape, state })
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
