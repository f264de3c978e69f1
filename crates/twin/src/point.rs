//! The present of single instances, read from memory without planning a query.
//!
//! What SQL shows of an instance is a chain of projections and filters over its stored row. That chain is planned once, by the
//! same planner, and kept as physical expressions; a read looks the row up and evaluates them. So both ways give the same answer.
//! Where more than the row is needed (the run of a simulation), or an expression depends on when it is asked (`now()`), there is no
//! such chain and the caller asks in SQL.
//!
//! Rows of this process are seen at once, those of other processes within 200 ms.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Volatility, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use geo::BoundingRect;
use twinlake_contracts::{Error, Result};
use twinlake_query::SessionSettings;

use crate::Twins;
use crate::asked::plan_unoptimised;
use crate::live::{LOOK_EVERY, Shape, Wanted};
use crate::model::{PropertyType, TwinModel};
use crate::state::{StatePlanner, TOUCHED, final_columns, keep, named};
use crate::twins::Stamp;
use crate::view::{View, back};

/// How a stored row becomes what is shown.
pub(crate) struct Chain {
    /// The versions of the tables that it was made from.
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
    /// The stored columns that it begins with, and the steps; `None` when SQL must be asked.
    steps: Option<(Vec<String>, Vec<Step>)>,
}

enum Step {
    Project(SchemaRef, Vec<Arc<dyn PhysicalExpr>>),
    Filter(Arc<dyn PhysicalExpr>),
}

impl Twins {
    /// The present state of the instance with that key (as text): a batch of one row, or of none when it is not there, in the
    /// model's columns. `None` when the present of the model is not kept in memory or needs more than the row: ask in SQL then.
    pub async fn present_of(&self, model: &str, key: &str) -> Result<Option<RecordBatch>> {
        let wanted = Wanted::Keys(vec![key.to_owned()]);
        self.present(&self.model(model)?, &wanted).await
    }

    /// The present states of the instances whose geometry's bounding rectangle meets a box (least x, least y, greatest x,
    /// greatest y, in the reference system of the model's first geometry), as [`Twins::present_of`] gives one.
    pub async fn present_within(&self, model: &str, extent: [f64; 4]) -> Result<Option<RecordBatch>> {
        let model = self.model(model)?;
        let mut geometries = model.properties.iter().filter(|(_, p)| p.kind == PropertyType::Geometry);
        let Some((geometry, _)) = geometries.next() else {
            return Err(Error::config(format!("twin model '{}' has no geometry", model.name)));
        };
        let Some(rows) = self.present(&model, &Wanted::Within(extent)).await? else { return Ok(None) };
        let shapes = rows.column_by_name(geometry).and_then(|column| column.as_binary_opt::<i32>());
        let shapes = shapes.ok_or_else(|| Error::internal("a state without its geometry"))?;
        let inside: BooleanArray =
            shapes.iter().map(|shape| Some(shape.is_some_and(|shape| meets(shape, extent)))).collect();
        Ok(Some(filter_record_batch(&rows, &inside)?))
    }

    async fn present(&self, model: &Arc<TwinModel>, wanted: &Wanted) -> Result<Option<RecordBatch>> {
        let Some(live) = self.live(model) else { return Ok(None) };
        let chain = self.chain(model).await?;
        if chain.steps.is_none() {
            return Ok(None);
        }
        let rows = live.read_now(wanted).await?;
        chain.shown(&concat_batches(&live.schema(), &rows)?)
    }

    /// The versions of the tables, beside the model's own, that its states depend on.
    fn stamps(&self, model: &TwinModel) -> Vec<Option<Stamp>> {
        let near = model.relations.values().filter(|relation| relation.nearest().is_some());
        let others = near.filter_map(|relation| self.model(&relation.twin).ok()?.table().cloned());
        let runs = model.simulation.iter().map(|binding| binding.table.clone());
        let stamp = |name| self.lake().table(&name).map(|table| (table.version(), table.fresh_bytes()));
        others.chain(runs).map(stamp).collect()
    }

    async fn chain(&self, model: &Arc<TwinModel>) -> Result<Arc<Chain>> {
        let known = {
            let chains = self.chains.read().unwrap_or_else(PoisonError::into_inner);
            chains.get(&model.name).cloned()
        };
        if let Some(chain) = known
            && chain.looked_at.elapsed() < LOOK_EVERY
            && chain.stamps == self.stamps(model)
        {
            return Ok(chain);
        }
        // What other processes wrote to the maps that this model is matched to.
        for relation in model.relations.values().filter(|relation| relation.nearest().is_some()) {
            if let Some(name) = self.model(&relation.twin)?.table() {
                self.provider(name).await?;
            }
        }
        let stamps = self.stamps(model);
        let before = {
            let mut chains = self.chains.write().unwrap_or_else(PoisonError::into_inner);
            chains.remove(&model.name)
        };
        let steps = match before {
            Some(chain) if chain.stamps == stamps => chain,
            _ => Arc::new(Chain {
                stamps: stamps.clone(),
                looked_at: Instant::now(),
                steps: self.steps(model).await.map_err(back)?,
            }),
        };
        let chain = match Arc::try_unwrap(steps) {
            Ok(chain) => Arc::new(Chain { looked_at: Instant::now(), ..chain }),
            // Somebody reads by it; it is looked at again by the next.
            Err(shared) => shared,
        };
        let mut chains = self.chains.write().unwrap_or_else(PoisonError::into_inner);
        chains.insert(model.name.clone(), Arc::clone(&chain));
        Ok(chain)
    }

    async fn steps(&self, model: &TwinModel) -> datafusion::error::Result<Option<(Vec<String>, Vec<Step>)>> {
        let session = self.engine().and_then(|engine| engine.session(SessionSettings::default()));
        let state = session.map_err(crate::view::through)?.context().state();
        let view = View::default();
        let planner = StatePlanner { twins: self, session: &state, view: &view, stand_in: false };
        let stored = MemTable::try_new(Shape::new(model).schema, vec![Vec::new()])?;
        let plan = LogicalPlanBuilder::scan("present", provider_as_source(Arc::new(stored)), None)?
            .project(keep(model).into_iter().chain([lit(false).alias(TOUCHED)]))?;
        let wanted: HashSet<String> =
            model.schema().fields().iter().map(|field| field.name().clone()).collect();
        let plan = planner.seen(model, plan, false, true, &wanted).await?;
        let plan = plan.project(final_columns(model))?.build()?;
        if depends_on_the_moment(&plan)? {
            return Ok(None);
        }
        let names: Vec<Expr> = model.schema().fields().iter().map(|field| named(field.name())).collect();
        let plan = LogicalPlanBuilder::from(plan).project(names)?.build()?;
        Ok(chain_of(&plan_unoptimised(&state, &plan).await?))
    }
}

/// Whether an expression of a plan is not the same whenever it is asked.
fn depends_on_the_moment(plan: &LogicalPlan) -> datafusion::error::Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part {
                    found |= call.func.signature().volatility != Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// The steps of a plan that is nothing but projections and filters over one table.
fn chain_of(plan: &Arc<dyn ExecutionPlan>) -> Option<(Vec<String>, Vec<Step>)> {
    let mut steps = Vec::new();
    let mut node = Arc::clone(plan);
    loop {
        let next = match node.children().as_slice() {
            [] => break,
            [child] => Arc::clone(child),
            _ => return None,
        };
        if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            let expressions = projection.expr().iter().map(|one| Arc::clone(&one.expr)).collect();
            steps.push(Step::Project(node.schema(), expressions));
        } else if let Some(filter) = node.downcast_ref::<FilterExec>()
            && node.schema() == next.schema()
        {
            steps.push(Step::Filter(Arc::clone(filter.predicate())));
        } else {
            return None;
        }
        node = next;
    }
    steps.reverse();
    let columns = node.schema().fields().iter().map(|field| field.name().clone()).collect();
    Some((columns, steps))
}

/// What is shown of stored rows of a model ([`Shape::schema`]); `None` when that needs more than the rows.
pub(crate) async fn take_steps(
    twins: &Twins,
    model: &Arc<TwinModel>,
    rows: &RecordBatch,
) -> Result<Option<RecordBatch>> {
    twins.chain(model).await?.shown(rows)
}

impl Chain {
    fn shown(&self, rows: &RecordBatch) -> Result<Option<RecordBatch>> {
        let Some((columns, steps)) = &self.steps else { return Ok(None) };
        let places: Vec<usize> =
            columns.iter().map(|name| rows.schema().index_of(name)).collect::<std::result::Result<_, _>>()?;
        let mut rows = rows.project(&places)?;
        for step in steps {
            rows = step.take(&rows).map_err(back)?;
        }
        Ok(Some(rows))
    }
}

impl Step {
    fn take(&self, rows: &RecordBatch) -> datafusion::error::Result<RecordBatch> {
        match self {
            Self::Filter(predicate) => {
                let holds = predicate.evaluate(rows)?.into_array(rows.num_rows())?;
                let holds = holds.as_boolean_opt().ok_or_else(|| {
                    crate::view::through(Error::internal("a filter that is neither true nor false"))
                })?;
                Ok(filter_record_batch(rows, holds)?)
            }
            Self::Project(schema, expressions) => {
                let columns = expressions
                    .iter()
                    .map(|expression| expression.evaluate(rows)?.into_array(rows.num_rows()))
                    .collect::<datafusion::error::Result<Vec<_>>>()?;
                Ok(RecordBatch::try_new(schema.clone(), columns)?)
            }
        }
    }
}

/// Whether the bounding rectangle of a WKB geometry meets a box. Of a point, which most twins are, only the numbers are read.
fn meets(wkb: &[u8], extent: [f64; 4]) -> bool {
    let within = |low: [f64; 2], high: [f64; 2]| {
        low[0] <= extent[2] && high[0] >= extent[0] && low[1] <= extent[3] && high[1] >= extent[1]
    };
    if let [1, 1, 0, 0, 0, rest @ ..] = wkb
        && rest.len() == 16
    {
        let number = |at: usize| f64::from_le_bytes(std::array::from_fn(|i| rest[at + i]));
        let point = [number(0), number(8)];
        return within(point, point);
    }
    let bounds = twinlake_spatial::decode(wkb).ok().and_then(|shape| shape.bounding_rect());
    bounds.is_some_and(|bounds| within([bounds.min().x, bounds.min().y], [bounds.max().x, bounds.max().y]))
}
