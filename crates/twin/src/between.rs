//! `twin_between(model, from, to)`: every state that held at some time of an interval, and for how long of it.
//!
//! A state holds from its reading to the next one of the same instance. Of readings of one instant the one that the fold takes
//! is the state, the others never held. Both ends are cut to the interval `[from, to)`, so that for each instance the pieces
//! neither overlap nor leave a gap from the first reading on: `sum(value * length) / sum(length)` is a mean over time. What
//! ends an instance ends its last state, and gives none.
//!
//! In a scenario with a fork inside the interval the city is as it was up to the fork; from there on the state of the scenario
//! holds to the end. A map has one state, which holds for all of the interval.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl};
use datafusion::common::plan_err;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::{coalesce, greatest, least};
use datafusion::functions_window::expr_fn::lead;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, SortExpr, TableProviderFilterPushDown, lit,
};
use datafusion::physical_plan::ExecutionPlan;
use twinlake_contracts::timestamp_type;
use twinlake_query::{Arguments, Tense};

use crate::Twins;
use crate::asked::Asked;
use crate::model::{TwinModel, VALID_TIME};
use crate::state::{StatePlanner, TOUCHED, empty, fold, instant, keep, named};
use crate::view::through;

/// The column with the beginning of the time that the state held, within the interval.
const HELD_FROM: &str = "held_from";
/// The column with the end of that time, within the interval.
const HELD_UNTIL: &str = "held_until";
/// When the next reading took over, on its way through the plan.
pub(crate) const NEXT: &str = "__next";

/// `twin_between(model, from, to [, known_at] [, scenario])`.
pub(crate) struct TwinBetween(pub(crate) Arc<Twins>);

impl std::fmt::Debug for TwinBetween {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TwinBetween")
    }
}

impl TableFunctionImpl for TwinBetween {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut given = Arguments::parse("twin_between", arguments.exprs())?;
        let names = ["model", "from", "to", "known_at", "scenario"];
        given.name_positional(&names)?;
        given.only(&names)?;
        let (Some(model), Some(from_us), Some(to_us)) =
            (given.text("model")?, given.instant_us("from")?, given.instant_us("to")?)
        else {
            return plan_err!(
                "twin_between needs a model and two instants, for example twin_between('vehicle', TIMESTAMP '…', TIMESTAMP '…')"
            );
        };
        if from_us > to_us {
            return plan_err!("twin_between: 'from' is later than 'to'");
        }
        let model = self.0.model(&model).map_err(through)?;
        let scenario = given.text("scenario")?.filter(|name| !name.is_empty());
        let known_at_us = given.instant_us("known_at")?;
        // An unknown scenario fails here, before anything is read.
        self.0.view(&Tense { scenario: scenario.clone(), ..Tense::default() }).map_err(through)?;
        let mut fields: Vec<Arc<Field>> = model.schema().fields().iter().cloned().collect();
        for name in [HELD_FROM, HELD_UNTIL] {
            if fields.iter().any(|field| field.name() == name) {
                return plan_err!(
                    "twin_between: twin model '{}' has a column '{name}' of its own",
                    model.name
                );
            }
            fields.push(Arc::new(Field::new(name, timestamp_type(), true)));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(Arc::new(BetweenTable {
            twins: self.0.clone(),
            model,
            schema,
            from_us,
            to_us,
            known_at_us,
            scenario,
        }))
    }
}

/// The states of one model in one interval.
struct BetweenTable {
    twins: Arc<Twins>,
    model: Arc<TwinModel>,
    schema: SchemaRef,
    from_us: i64,
    to_us: i64,
    known_at_us: Option<i64>,
    scenario: Option<String>,
}

/// A part of the interval in one tense.
struct Piece {
    tense: Tense,
    from_us: i64,
    to_us: i64,
    /// Whether states follow one another in it; else one holds throughout.
    moves: bool,
}

impl BetweenTable {
    fn pieces(&self) -> twinlake_contracts::Result<Vec<Piece>> {
        let (from_us, to_us) = (self.from_us, self.to_us);
        if from_us >= to_us {
            return Ok(Vec::new());
        }
        let moves = self.model.telemetry.is_some();
        // The last instant of what ends before `end`.
        let tense = |end: i64, scenario: Option<String>| Tense {
            as_of_us: Some(end.saturating_sub(1)),
            known_at_us: self.known_at_us,
            scenario,
        };
        let fork = match &self.scenario {
            Some(name) => self.twins.scenario(name)?.fork_at_us,
            None => None,
        };
        let Some(fork) = fork.filter(|fork| *fork < to_us) else {
            return Ok(vec![Piece { tense: tense(to_us, self.scenario.clone()), from_us, to_us, moves }]);
        };
        let mut pieces = Vec::new();
        if from_us < fork {
            pieces.push(Piece { tense: tense(fork, None), from_us, to_us: fork, moves });
        }
        let tense = tense(to_us, self.scenario.clone());
        pieces.push(Piece { tense, from_us: from_us.max(fork), to_us, moves: false });
        Ok(pieces)
    }

    async fn piece(
        &self,
        session: &dyn Session,
        piece: &Piece,
        wanted: &HashSet<String>,
    ) -> Result<LogicalPlan> {
        let view = self.twins.view(&piece.tense).map_err(through)?;
        let planner = StatePlanner { twins: &self.twins, session, view: &view, stand_in: false };
        let (from, to) = (instant(Some(piece.from_us)), instant(Some(piece.to_us)));
        let mut columns: Vec<Expr> =
            self.model.schema().fields().iter().map(|field| named(field.name())).collect();
        if !piece.moves {
            let plan = planner.plan(&self.model, false, wanted).await?;
            columns.extend([from.alias(HELD_FROM), to.alias(HELD_UNTIL)]);
            return LogicalPlanBuilder::from(plan).project(columns)?.build();
        }
        let Some(plan) = planner.readings_until_the_next(&self.model, wanted).await? else {
            return empty(&self.schema);
        };
        columns.push(greatest(vec![named(VALID_TIME), from.clone()]).alias(HELD_FROM));
        columns.push(least(vec![coalesce(vec![named(NEXT), to.clone()]), to]).alias(HELD_UNTIL));
        plan.filter(named(NEXT).is_null().or(named(NEXT).gt(from)))?.project(columns)?.build()
    }
}

impl StatePlanner<'_> {
    /// The readings in view as states, with the instant at which the next one took over in the column [`NEXT`]; `None` while
    /// there is no table.
    async fn readings_until_the_next(
        &self,
        model: &TwinModel,
        wanted: &HashSet<String>,
    ) -> Result<Option<LogicalPlanBuilder>> {
        let name = model.table().cloned();
        let Some(name) = name else { return Ok(None) };
        let Some(provider) = self.provider(model, &name).await? else { return Ok(None) };
        let plan = self.stored(model, &name, provider)?;
        let plan = fold(model, plan, &[model.key.as_str(), VALID_TIME])?;
        let next = lead(named(VALID_TIME), Some(1), None)
            .partition_by(vec![named(&model.key)])
            .order_by(vec![SortExpr::new(named(VALID_TIME), true, false)])
            .build()?;
        let columns = keep(model).into_iter().chain([named(NEXT), lit(false).alias(TOUCHED)]);
        let plan = plan.window([next.alias(NEXT)])?.project(columns)?;
        self.seen(model, plan, false, true, wanted).await.map(Some)
    }
}

impl std::fmt::Debug for BetweenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BetweenTable").field("model", &self.model.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for BetweenTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let asked = Asked::new(&self.schema, projection, filters, limit);
        let wanted = asked.columns();
        let mut all: Option<LogicalPlanBuilder> = None;
        for piece in self.pieces().map_err(through)? {
            let plan = self.piece(session, &piece, &wanted).await?;
            all = Some(match all {
                None => LogicalPlanBuilder::from(plan),
                Some(before) => before.union(plan)?,
            });
        }
        let plan = match all {
            Some(all) => all,
            None => LogicalPlanBuilder::from(empty(&self.schema)?),
        };
        asked.of(plan, session).await
    }
}
