//! What a run adds to a twin: its columns, and where and when they come from.
//!
//! The run shown is the newest one (by the instant it became known, then by identifier) of the scenario in view whose
//! instant is not after `as_of`. A run without an instant was made from the map alone and holds at all times. A
//! scenario without overrides is the city as it is and shows its runs too; any other scenario shows its own only:
//! flows of the open street say nothing about the closed one. A scenario that was run as a whole shows the runs of its newest
//! execution (`scenario/execution.rs`), whatever was run beside it. `known_at` hides observations, never runs: a run is not
//! what was known, but an answer to a question asked now.
//!
//! A row with simulated values has origin `simulated`, the run's instant as `valid_time` and the run's end as
//! `known_time`. In a history, all runs in view are shown, each with its own rows beside the row without.

use std::collections::HashSet;

use datafusion::common::JoinType;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, SortExpr, lit, when};

use crate::between::NEXT;
use crate::model::{KNOWN_TIME, ORIGIN, SCENARIO, SimulationBinding, TwinModel, VALID_TIME};
use crate::scenario::pinned;
use crate::state::{StatePlanner, TOUCHED, instant, named, null};

/// The column of a result table with the run's identifier.
pub(crate) const RUN_ID: &str = "run_id";

const RUN_KEY: &str = "__run_key";
const RUN_VALID: &str = "__run_valid";
const RUN_KNOWN: &str = "__run_known";
const RUN_SCENARIO: &str = "__run_scenario";
const RUN: &str = "__run";
const NEWEST: &str = "__newest";
const NEWEST_KNOWN: &str = "__newest_known";

/// Adds the simulated columns, origin and scenario to the rows of a twin.
pub(crate) async fn add(
    planner: &StatePlanner<'_>,
    model: &TwinModel,
    plan: LogicalPlanBuilder,
    history: bool,
    wanted: &HashSet<String>,
) -> Result<LogicalPlanBuilder> {
    let runs = match &model.simulation {
        // In a history the runs decide how many rows there are, whatever the columns.
        Some(binding) if history || is_wanted(binding, wanted) => {
            runs(planner, model, binding, history).await?
        }
        _ => None,
    };
    let Some(runs) = runs else { return finish(planner, model, plan, false) };
    let runs = runs.build()?;
    let on = (vec![model.key.as_str()], vec![RUN_KEY]);
    if history {
        let without = finish(planner, model, plan.clone(), false)?.build()?;
        let with = plan.join(runs, JoinType::Inner, on, None)?;
        return finish(planner, model, with, true)?.union(without);
    }
    finish(planner, model, plan.join(runs, JoinType::Left, on, None)?, true)
}

fn is_wanted(binding: &SimulationBinding, wanted: &HashSet<String>) -> bool {
    binding
        .columns
        .keys()
        .map(String::as_str)
        .chain([VALID_TIME, KNOWN_TIME, ORIGIN, SCENARIO])
        .any(|column| wanted.contains(column))
}

/// The rows of the run (with `all`, of the runs) in view; `None` while no run has ever landed.
async fn runs(
    planner: &StatePlanner<'_>,
    model: &TwinModel,
    binding: &SimulationBinding,
    all: bool,
) -> Result<Option<LogicalPlanBuilder>> {
    let Some(provider) = planner.provider(model, &binding.table).await? else {
        return Ok(None);
    };
    let view = planner.view;
    let pinned = if planner.stand_in {
        None
    } else {
        // What shares the runs of another model shows the one that is shown there.
        pinned(planner.twins, planner.session, view, binding.owner(&model.name), &binding.operator)
    };
    if pinned == Some(None) {
        return Ok(None);
    }
    let base = named(SCENARIO).is_null();
    let matches = match (pinned.flatten(), view.scenario_name()) {
        (Some(run_id), _) => named(RUN_ID).eq(lit(run_id)),
        (None, None) => base,
        (None, Some(name)) if view.is_base() => named(SCENARIO).eq(lit(name)).or(base),
        (None, Some(name)) => named(SCENARIO).eq(lit(name)),
    };
    let mut rows = LogicalPlanBuilder::scan(binding.table.to_string(), provider_as_source(provider), None)?
        .filter(matches)?;
    if view.as_of_us.is_some() {
        let in_time = named(VALID_TIME).is_null().or(named(VALID_TIME).lt_eq(instant(view.as_of_us)));
        rows = rows.filter(in_time)?;
    }
    let mut columns: Vec<Expr> = vec![
        named(&model.key).alias(RUN_KEY),
        named(RUN_ID).alias(RUN),
        named(VALID_TIME).alias(RUN_VALID),
        named(KNOWN_TIME).alias(RUN_KNOWN),
        named(SCENARIO).alias(RUN_SCENARIO),
    ];
    columns.extend(binding.columns.keys().map(|column| named(column)));
    let rows = rows.project(columns)?;
    if all {
        return Ok(Some(rows));
    }
    let newest = rows
        .clone()
        .aggregate([named(RUN)], [max(named(RUN_KNOWN)).alias(NEWEST_KNOWN)])?
        .sort([SortExpr::new(named(NEWEST_KNOWN), false, false), SortExpr::new(named(RUN), false, false)])?
        .limit(0, Some(1))?
        .project([named(RUN).alias(NEWEST)])?
        .build()?;
    Ok(Some(rows.join(newest, JoinType::Inner, (vec![RUN], vec![NEWEST]), None)?))
}

/// The columns of every twin: simulated or null, times, origin, scenario.
fn finish(
    planner: &StatePlanner<'_>,
    model: &TwinModel,
    plan: LogicalPlanBuilder,
    with_run: bool,
) -> Result<LogicalPlanBuilder> {
    let ours = |field: &str| ![VALID_TIME, KNOWN_TIME, ORIGIN, SCENARIO].contains(&field);
    let simulated: HashSet<&str> =
        model.simulation.iter().flat_map(|binding| binding.columns.keys()).map(String::as_str).collect();
    let mut columns = Vec::new();
    for field in model.schema().fields().iter().filter(|field| ours(field.name())) {
        columns.push(if simulated.contains(field.name().as_str()) && !with_run {
            null(field.data_type())?.alias(field.name())
        } else {
            named(field.name())
        });
    }
    let name = planner.view.scenario_name();
    let touched = named(TOUCHED);
    // What a scenario sets holds from its fork on.
    let fork = planner.view.scenario.as_ref().and_then(|scenario| scenario.fork_at_us);
    let base_valid = when(touched.clone(), coalesce(vec![instant(fork), named(VALID_TIME)]))
        .otherwise(named(VALID_TIME))?;
    let base_scenario = when(touched.clone(), lit(name.unwrap_or_default())).end()?;
    let (ran, valid, known, scenario) = if with_run {
        let ran = named(RUN).is_not_null();
        (
            ran.clone(),
            when(ran.clone(), named(RUN_VALID)).otherwise(base_valid)?,
            when(ran.clone(), named(RUN_KNOWN)).otherwise(named(KNOWN_TIME))?,
            when(ran, named(RUN_SCENARIO)).otherwise(base_scenario)?,
        )
    } else {
        (lit(false), base_valid, named(KNOWN_TIME), base_scenario)
    };
    columns.push(valid.alias(VALID_TIME));
    columns.push(known.alias(KNOWN_TIME));
    columns.push(when(ran.or(touched), lit("simulated")).otherwise(lit("observed"))?.alias(ORIGIN));
    columns.push(scenario.alias(SCENARIO));
    if plan.schema().has_column_with_unqualified_name(NEXT) {
        columns.push(named(NEXT));
    }
    plan.project(columns)
}
