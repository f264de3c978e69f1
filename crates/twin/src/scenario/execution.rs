//! Running a scenario: all its runs in order, for each member of its ensemble.
//!
//! A member's runs follow one another; members are run side by side, as many at a time as there are cores. A run sees the results
//! of the runs before it in the same member, and of the runs that are still to come nothing, whatever was run earlier: so what a
//! member gives follows from the scenario and the tables alone, not from what ran beside or before it. Equal runs are answered
//! from their tables (`runs.rs`).
//!
//! When all have succeeded, the execution is recorded at once in `meta.scenario_runs`. The newest execution of a scenario is what
//! its twins show, as long as the scenario is the same; one that was run and replaced shows nothing until it is run again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::catalog::Session;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use twinlake_contracts::{Error, Result, now_us, timestamp_type};
use twinlake_query::Tense;

use super::Scenario;
use super::elsewhere::MemberWorkers;
use super::known::digest;
use crate::Twins;
use crate::runs::{Share, SimulationRequest, Within};
use crate::snapshot::session_in;
use crate::view::View;

/// The table of executions.
pub(crate) const TABLE: &str = "meta.scenario_runs";
const DESCRIPTION: &str = "Which runs the executions of scenarios consist of: a row a run of a member.";

/// How many executions a process remembers; those that succeeded stay in the table.
const REMEMBERED: usize = 256;

/// A scenario on its way through its runs, or at its end.
#[derive(Debug, Clone, Serialize)]
pub struct Execution {
    /// Names the execution.
    pub execution_id: String,
    /// The scenario.
    pub scenario: String,
    /// When it began, microseconds since the epoch.
    pub started_at_us: i64,
    /// When it ended.
    pub finished_at_us: Option<i64>,
    /// Where it is.
    #[serde(flatten)]
    pub status: ExecutionStatus,
    /// The runs that have succeeded, by member and place.
    pub runs: Vec<ExecutedRun>,
    /// What tells its scenario from another of the same name.
    #[serde(skip)]
    identity: String,
}

/// Where an execution is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// Members are being run.
    Running {
        /// How many have ended.
        members_done: u32,
        /// Of how many.
        members: u32,
    },
    /// All runs are in their tables.
    Succeeded,
    /// A run gave nothing.
    Failed {
        /// Why.
        error: String,
    },
}

/// A run of a member of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutedRun {
    /// The member; 0 is the scenario as it is written.
    pub member: u32,
    /// Its place among the runs of the scenario, from 1.
    pub place: u32,
    /// The operator.
    pub operator: String,
    /// The twin model that shows its result.
    pub model: String,
    /// The run in `meta.runs`.
    pub run_id: String,
    /// Whether its rows were there before.
    pub reused: bool,
}

/// The executions that are known, and those under way.
pub(crate) struct Executions {
    /// The newest of each scenario that succeeded.
    newest: RwLock<BTreeMap<String, Arc<Execution>>>,
    /// Those of this process, by identifier.
    own: Mutex<BTreeMap<String, watch::Sender<Execution>>>,
    at_once: AtomicUsize,
    /// Who runs members, if not this process.
    workers: RwLock<Option<Arc<dyn MemberWorkers>>>,
}

impl Executions {
    pub(crate) fn run_on(&self, workers: Arc<dyn MemberWorkers>) {
        *self.workers.write().unwrap_or_else(PoisonError::into_inner) = Some(workers);
    }

    fn workers(&self) -> Option<Arc<dyn MemberWorkers>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Executions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            newest: RwLock::default(),
            own: Mutex::default(),
            at_once: AtomicUsize::new(cores),
            workers: RwLock::default(),
        }
    }
}

/// Which runs a session sees in one scenario: model and operator → the run, or none yet. Others are seen as ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    scenario: String,
    runs: BTreeMap<(String, String), Option<String>>,
}

/// The run that a twin shows in a view, if that is decided by more than time: `Some(None)` is no run. `model` is the one that the
/// operator is bound to.
#[allow(clippy::option_option, reason = "not decided here, no run, a run")]
pub(crate) fn pinned(
    twins: &Twins,
    session: &dyn Session,
    view: &View,
    model: &str,
    operator: &str,
) -> Option<Option<String>> {
    let scenario = view.scenario.as_ref()?;
    let key = (model.to_owned(), operator.to_owned());
    if let Some(pins) = session.config().get_extension::<Pins>()
        && pins.scenario == scenario.name
        && let Some(pin) = pins.runs.get(&key)
    {
        return Some(pin.clone());
    }
    let runs = twins.bound_runs(scenario).ok()?;
    if !runs.contains(&key) {
        return None;
    }
    // What was never run as a whole shows what `simulate` gave.
    let newest = twins.last_execution(scenario)?;
    if newest.identity != scenario.identity() {
        return Some(None);
    }
    let mut shown = newest.runs.iter().rev();
    let run =
        shown.find(|run| run.member == scenario.member && run.model == model && run.operator == operator);
    Some(run.map(|run| run.run_id.clone()))
}

impl Twins {
    /// Model and operator of each run of a scenario, in order.
    pub(crate) fn bound_runs(&self, scenario: &Scenario) -> Result<Vec<(String, String)>> {
        let bound = scenario.runs.iter().map(|run| {
            let (model, _) = self.simulation_of(&run.operator, run.twin.as_deref())?;
            Ok((model.name.clone(), run.operator.clone()))
        });
        bound.collect()
    }

    /// The newest execution of a scenario as it is now; `None` if it has not been run.
    pub fn newest_execution(&self, scenario: &Scenario) -> Option<Arc<Execution>> {
        self.last_execution(scenario).filter(|execution| execution.identity == scenario.identity())
    }

    /// The newest execution of a scenario of that name, as it is now or was before.
    fn last_execution(&self, scenario: &Scenario) -> Option<Arc<Execution>> {
        let name = scenario.name.split('/').next().unwrap_or_default();
        let newest = self.known.executions.newest.read().unwrap_or_else(PoisonError::into_inner);
        newest.get(name).cloned()
    }

    /// How many members are run side by side; the number of cores, if nothing is said. Results do not depend on it.
    pub fn run_members_at_once(&self, members: usize) {
        self.known.executions.at_once.store(members.max(1), Ordering::Relaxed);
    }

    /// Begins to run a scenario: all its runs in order, for each member. While the same scenario is under way here, that
    /// execution is the answer. [`Twins::execution`] says how it goes on.
    pub fn start_scenario(self: &Arc<Self>, name: &str) -> Result<Execution> {
        let scenario = self.scenario(name)?;
        if scenario.member > 0 || name.contains('/') {
            return Err(Error::config(format!("'{name}' is a member of a scenario"))
                .with_help("run the scenario: its members are run with it"));
        }
        if scenario.runs.is_empty() {
            return Err(Error::config(format!("the scenario '{name}' says of no operator that it is run"))
                .with_help(
                    "add [[runs]] with operator = \"…\", or run one with simulate('…', scenario => '…')",
                ));
        }
        let identity = scenario.identity();
        let members = scenario.ensemble.as_ref().map_or(0, |ensemble| ensemble.members) + 1;
        let mut own = self.known.executions.own.lock().unwrap_or_else(PoisonError::into_inner);
        for known in own.values() {
            let known = known.borrow();
            if known.identity == identity && matches!(known.status, ExecutionStatus::Running { .. }) {
                return Ok(known.clone());
            }
        }
        let started_at_us = now_us();
        let execution = Execution {
            execution_id: format!(
                "{name}-{}",
                &digest(&format!("{identity} {started_at_us} {}", own.len()))[..16]
            ),
            scenario: name.to_owned(),
            started_at_us,
            finished_at_us: None,
            status: ExecutionStatus::Running { members_done: 0, members },
            runs: Vec::new(),
            identity,
        };
        let over = |known: &watch::Sender<Execution>| {
            !matches!(known.borrow().status, ExecutionStatus::Running { .. })
        };
        if own.len() >= REMEMBERED {
            let oldest = own
                .iter()
                .filter(|(_, known)| over(known))
                .min_by_key(|(_, known)| known.borrow().started_at_us);
            if let Some(oldest) = oldest.map(|(execution_id, _)| execution_id.clone()) {
                own.remove(&oldest);
            }
        }
        let told = watch::Sender::new(execution.clone());
        own.insert(execution.execution_id.clone(), told.clone());
        drop(own);
        let twins = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = twins.execute(&scenario, &told).await;
            told.send_modify(|execution| {
                execution.finished_at_us = Some(now_us());
                execution.status = match outcome {
                    Ok(runs) => {
                        execution.runs = runs;
                        ExecutionStatus::Succeeded
                    }
                    Err(error) => ExecutionStatus::Failed { error: error.to_string() },
                };
            });
        });
        Ok(execution)
    }

    /// Runs a scenario to its end. A run that fails is an error that names it.
    pub async fn run_scenario(self: &Arc<Self>, name: &str) -> Result<Execution> {
        let begun = self.start_scenario(name)?;
        let watched = {
            let own = self.known.executions.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.get(&begun.execution_id).map(watch::Sender::subscribe)
        };
        let mut watched = watched.ok_or_else(|| Error::internal("an execution was lost"))?;
        let ended =
            watched.wait_for(|execution| !matches!(execution.status, ExecutionStatus::Running { .. })).await;
        let ended = ended.map_err(|_| Error::internal("an execution was abandoned"))?.clone();
        match &ended.status {
            ExecutionStatus::Failed { error } => {
                Err(Error::config(format!("the scenario '{name}' could not be run: {error}")))
            }
            _ => Ok(ended),
        }
    }

    /// An execution by identifier: of this process, or the newest one of its scenario that another process recorded.
    pub fn execution(&self, execution_id: &str) -> Result<Execution> {
        let own = self.known.executions.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(execution) = own.get(execution_id) {
            return Ok(execution.borrow().clone());
        }
        let newest = self.known.executions.newest.read().unwrap_or_else(PoisonError::into_inner);
        let recorded = newest.values().find(|execution| execution.execution_id == execution_id);
        recorded
            .map(|execution| execution.as_ref().clone())
            .ok_or_else(|| Error::not_found("execution", execution_id, own.keys().map(String::as_str)))
    }

    async fn execute(
        self: &Arc<Self>,
        scenario: &Arc<Scenario>,
        told: &watch::Sender<Execution>,
    ) -> Result<Vec<ExecutedRun>> {
        let members = scenario.ensemble.as_ref().map_or(0, |ensemble| ensemble.members);
        let at_once = self.known.executions.at_once.load(Ordering::Relaxed);
        let mut waiting: Vec<u32> = (0..=members).collect();
        let mut runs = Vec::new();
        if members > 0
            && let Some(workers) = self.known.executions.workers()
        {
            waiting = self.run_elsewhere(workers.as_ref(), scenario, waiting, &mut runs, told).await;
        }
        let mut waiting = waiting.into_iter();
        let mut at_work = JoinSet::new();
        loop {
            while at_work.len() < at_once
                && let Some(member) = waiting.next()
            {
                at_work.spawn(run_member(Arc::clone(self), Arc::clone(scenario), member));
            }
            let Some(joined) = at_work.join_next().await else { break };
            runs.extend(joined.map_err(|error| Error::internal(format!("a member broke off: {error}")))??);
            told.send_modify(|execution| {
                if let ExecutionStatus::Running { members_done, .. } = &mut execution.status {
                    *members_done += 1;
                }
            });
        }
        runs.sort_by_key(|run: &ExecutedRun| (run.member, run.place));
        if self.scenario(&scenario.name).map(|now| now.identity()).ok() != Some(scenario.identity()) {
            return Err(Error::config(format!(
                "the scenario '{}' was changed while it was run",
                scenario.name
            )));
        }
        let mut ended = told.borrow().clone();
        ended.runs.clone_from(&runs);
        ended.status = ExecutionStatus::Succeeded;
        ended.finished_at_us = Some(now_us());
        let same = self.newest_execution(scenario).is_some_and(|newest| {
            let names = |runs: &[ExecutedRun]| runs.iter().map(|run| run.run_id.clone()).collect::<Vec<_>>();
            names(&newest.runs) == names(&runs)
        });
        if !same {
            self.lake().append_meta(TABLE, DESCRIPTION, rows_of(&ended)?).await?;
            let mut newest = self.known.executions.newest.write().unwrap_or_else(PoisonError::into_inner);
            newest.insert(scenario.name.clone(), Arc::new(ended));
        }
        Ok(runs)
    }
}

/// Runs what a scenario says, in order, as one of its members.
pub(super) async fn run_member(
    twins: Arc<Twins>,
    scenario: Arc<Scenario>,
    number: u32,
) -> Result<Vec<ExecutedRun>> {
    let gone = || Error::internal(format!("scenario '{}' lost its member {number}", scenario.name));
    let member = scenario.member(number, &twins).ok_or_else(gone)?;
    let bound = twins.bound_runs(&scenario)?;
    let mut pins = Pins {
        scenario: member.name.clone(),
        runs: bound.iter().map(|bound| (bound.clone(), None)).collect(),
    };
    let share = if scenario.ensemble.is_some() { Share::One } else { Share::All };
    let mut done = Vec::new();
    for (place, (run, bound)) in (1..).zip(scenario.runs.iter().zip(bound)) {
        let mut parameters = run.parameters.clone();
        parameters.extend(
            member.drawn.get(&run.operator).into_iter().flatten().map(|(n, v)| (n.clone(), v.clone())),
        );
        let seed = match &scenario.ensemble {
            Some(ensemble) if number > 0 => ensemble.run_seed(number, place),
            _ => run.seed,
        };
        let request = SimulationRequest {
            operator: run.operator.clone(),
            model: run.twin.clone(),
            scenario: Some(member.name.clone()),
            seed,
            parameters,
            ..SimulationRequest::default()
        };
        let within = Within { pins: Some(Arc::new(pins.clone())), share, depth: 0 };
        let simulations = twins.simulations();
        let ended = async {
            let run_id = simulations.submit_within(request, within).await?;
            simulations.wait(&run_id).await
        };
        let ended = ended.await.map_err(|error| {
            Error::config(format!("run {place} ({}) of '{}': {error}", run.operator, member.name))
        })?;
        pins.runs.insert(bound.clone(), Some(ended.run_id.clone()));
        done.push(ExecutedRun {
            member: number,
            place,
            operator: run.operator.clone(),
            model: bound.0,
            run_id: ended.run_id,
            reused: ended.reused,
        });
    }
    Ok(done)
}

fn rows_of(execution: &Execution) -> Result<RecordBatch> {
    let runs = &execution.runs;
    let all = |text: &str| Arc::new(StringArray::from(vec![text; runs.len()])) as ArrayRef;
    let texts = |text: fn(&ExecutedRun) -> &str| {
        Arc::new(runs.iter().map(|run| Some(text(run))).collect::<StringArray>()) as ArrayRef
    };
    let numbers = |number: fn(&ExecutedRun) -> u32| {
        Arc::new(runs.iter().map(|run| i64::from(number(run))).collect::<Int64Array>()) as ArrayRef
    };
    let instants = |us: Option<i64>| {
        Arc::new(TimestampMicrosecondArray::from(vec![us; runs.len()]).with_timezone("UTC")) as ArrayRef
    };
    let reused: BooleanArray = runs.iter().map(|run| Some(run.reused)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("execution_id", all(&execution.execution_id)),
        ("scenario", all(&execution.scenario)),
        ("definition", all(&execution.identity)),
        ("member", numbers(|run| run.member)),
        ("place", numbers(|run| run.place)),
        ("operator", texts(|run| &run.operator)),
        ("model", texts(|run| &run.model)),
        ("run_id", texts(|run| &run.run_id)),
        ("reused", Arc::new(reused)),
        ("started_at", instants(Some(execution.started_at_us))),
        ("finished_at", instants(execution.finished_at_us)),
        ("who", all(&twinlake_lake::who())),
    ];
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

impl Executions {
    /// Reads the newest execution of each scenario from the table.
    pub(crate) async fn read(&self, twins: &Twins) -> Result<()> {
        let session = session_in(twins, &Tense::default()).await?;
        let sql = format!(
            "SELECT execution_id, scenario, definition, operator, model, run_id, member, place, reused, started_at, finished_at \
             FROM {TABLE} WHERE execution_id IN (SELECT execution_id FROM (SELECT execution_id, row_number() OVER \
             (PARTITION BY scenario ORDER BY finished_at DESC, execution_id DESC) AS n FROM {TABLE}) WHERE n = 1) \
             ORDER BY scenario, member, place"
        );
        let mut all: BTreeMap<String, Execution> = BTreeMap::new();
        for batch in session.collect(&sql).await? {
            let cast_all = |columns: std::ops::Range<usize>, kind: &DataType| -> Result<Vec<ArrayRef>> {
                Ok(columns.map(|column| cast(batch.column(column), kind)).collect::<Result<_, _>>()?)
            };
            let texts = cast_all(0..6, &DataType::Utf8)?;
            let numbers = cast_all(6..8, &DataType::Int64)?;
            let reused = cast(batch.column(8), &DataType::Boolean)?;
            let instants = cast_all(9..11, &timestamp_type())?;
            for row in 0..batch.num_rows() {
                let text = |column: usize| texts[column].as_string::<i32>().value(row).to_owned();
                let number = |column: usize| numbers[column].as_primitive::<Int64Type>().value(row) as u32;
                let instant =
                    |column: usize| instants[column].as_primitive::<TimestampMicrosecondType>().value(row);
                let execution = all.entry(text(1)).or_insert_with(|| Execution {
                    execution_id: text(0),
                    scenario: text(1),
                    started_at_us: instant(0),
                    finished_at_us: Some(instant(1)),
                    status: ExecutionStatus::Succeeded,
                    runs: Vec::new(),
                    identity: text(2),
                });
                execution.runs.push(ExecutedRun {
                    member: number(0),
                    place: number(1),
                    operator: text(3),
                    model: text(4),
                    run_id: text(5),
                    reused: reused.as_boolean().value(row),
                });
            }
        }
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        for (name, execution) in all {
            // One of this process may have ended since the table was read.
            let newer =
                newest.get(&name).is_none_or(|known| known.finished_at_us <= execution.finished_at_us);
            if newer {
                newest.insert(name, Arc::new(execution));
            }
        }
        Ok(())
    }
}
