//! Simulation runs: asked for, computed once, landed in the lake, recorded, found again.
//!
//! A run is its *fingerprint*: SHA-256 over operator, operator and demand version, parameters (with defaults filled
//! in), seed, scenario, instant, and the values of the frozen snapshot. Its identifier follows from the fingerprint,
//! so equal requests name the same run on every machine, and a run that is there is answered from its table. The
//! table versions that were read are recorded beside it in `meta.runs`; they are not part of the fingerprint, since
//! a table that was written again with the same values is the same input.
//!
//! Order of effects: the rows of a run are committed in one Delta transaction under a writer of its own name, then
//! `meta.runs` gets its row. A process that dies in between leaves rows that the next equal request finds and
//! records, so a run's rows are there once or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use twinlake_contracts::{Error, Horizon, ParameterSpec, Parameters, Result, Snapshot, now_us, suggest};
use twinlake_lake::CpuMeter;
use twinlake_query::Tense;

use crate::model::{SimulationBinding, TwinModel};
use crate::run_job::{Job, result_schema};
use crate::run_record::{SUCCEEDED, read_record};
use crate::scenario::{Pins, Scenario, hex};
use crate::simulated::RUN_ID;
use crate::snapshot::Wanted;
use crate::{Twins, demand, snapshot};

/// How many shares of the machine there are: an operator that runs alone uses all cores for itself, a member of an ensemble one.
fn shares() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// How much of the machine a run may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Share {
    /// Nothing else runs beside it.
    #[default]
    All,
    /// One core; others run beside it.
    One,
}

/// What else decides a run that is a part of something larger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Within {
    /// Which runs it sees.
    pub(crate) pins: Option<Arc<Pins>>,
    /// How much of the machine it may have.
    pub(crate) share: Share,
    /// How many operators wait for it, whose inputs it is a part of.
    pub(crate) depth: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct SimulationRequest {
    /// The operator.
    pub operator: String,
    /// The twin model whose simulation is meant, if several have one of the operator.
    pub model: Option<String>,
    /// The scenario; `None`: the city as it is.
    pub scenario: Option<String>,
    /// The seed of operators that draw random numbers.
    pub seed: u64,
    /// Parameters of the operator and of its demand; what is not given has its default.
    pub parameters: Parameters,
    /// The instant of the snapshot, microseconds since the epoch. A scenario with a fork has its own and refuses
    /// another; without either, the snapshot is the newest state.
    pub as_of_us: Option<i64>,
}

/// Where a run is.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RunStatus {
    /// Waits for its turn.
    Queued,
    /// Computes.
    Running {
        /// How far, 0..=1.
        fraction: f64,
        /// What is going on.
        message: String,
    },
    /// Its rows are in the table.
    Succeeded,
    /// It gave nothing.
    Failed {
        /// Why.
        error: String,
    },
}

/// What is known of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Names the run; follows from the fingerprint.
    pub run_id: String,
    /// The operator.
    pub operator: String,
    /// The scenario.
    pub scenario: Option<String>,
    /// The seed.
    pub seed: u64,
    /// All parameters, defaults filled in.
    pub parameters: Parameters,
    /// SHA-256 in hex of all that decides the result.
    pub fingerprint: String,
    /// The Delta version of each table that was read.
    pub inputs: BTreeMap<String, u64>,
    /// The lake table with the rows.
    pub table: String,
    /// Whether the last request for it was answered from the table, without computing.
    pub reused: bool,
    /// The figures that tell whether to believe it; empty before the end.
    pub summary: Map<String, Value>,
    /// How many rows.
    pub rows: u64,
    /// Where it is.
    #[serde(flatten)]
    pub status: RunStatus,
}

impl Run {
    /// Whether nothing more will happen to it.
    pub fn is_finished(&self) -> bool {
        matches!(self.status, RunStatus::Succeeded | RunStatus::Failed { .. })
    }
}

/// The runs that this process was asked for.
pub(crate) struct RunTable {
    runs: Mutex<BTreeMap<String, Entry>>,
    turn: Arc<Semaphore>,
}

impl RunTable {
    /// Waits for a share of the machine.
    pub(crate) async fn turn(&self, share: Share) -> Result<OwnedSemaphorePermit> {
        let wanted = if share == Share::All { shares() } else { 1 };
        self.turn.clone().acquire_many_owned(wanted).await.map_err(Error::internal)
    }
}

struct Entry {
    run: watch::Sender<Run>,
    cancelled: Arc<AtomicBool>,
}

impl Default for RunTable {
    fn default() -> Self {
        Self { runs: Mutex::default(), turn: Arc::new(Semaphore::new(shares() as usize)) }
    }
}

/// Runs that a process keeps in mind; beyond them it forgets those that are finished and that nobody waits for.
const REMEMBERED: usize = 10_000;

/// Runs simulations: submit, look, wait. Cheap to clone.
#[derive(Clone)]
pub struct Simulations {
    twins: Arc<Twins>,
}

impl Simulations {
    pub(crate) fn new(twins: Arc<Twins>) -> Self {
        Self { twins }
    }

    /// Asks for a run: freezes the snapshot and, unless an equal run is there or under way, starts the operator.
    /// Returns the run's identifier.
    pub async fn submit(&self, request: SimulationRequest) -> Result<String> {
        self.submit_within(request, Within::default()).await
    }

    /// As [`Simulations::submit`], for a run that is a part of something larger.
    pub(crate) async fn submit_within(
        &self,
        mut request: SimulationRequest,
        within: Within,
    ) -> Result<String> {
        let (model, binding) = self.twins.simulation_of(&request.operator, request.model.as_deref())?;
        let named = request.scenario.as_deref().filter(|name| !name.is_empty());
        let scenario = named.map(|name| self.twins.scenario(name)).transpose()?;
        if let Some(scenario) = &scenario {
            let mut given = scenario.parameters_of(&request.operator);
            given.append(&mut request.parameters);
            request.parameters = given;
        }
        let specs = self.twins.parameter_specs(&request.operator, request.model.as_deref())?;
        let parameters = resolve(&specs, &request.operator, &request.parameters)?;
        let (tense, instant_us) = instant(scenario.as_deref(), request.as_of_us)?;
        let horizon_s = scenario.as_ref().and_then(|scenario| scenario.horizon_s);
        let pins = within.pins.as_ref();
        let wanted = Wanted { depth: within.depth, ..Wanted::bound(&self.twins, &binding) };
        let mut frozen = snapshot::freeze(&self.twins, &wanted, &tense, &parameters, pins).await?;
        if let Some(member) = scenario.as_ref().filter(|scenario| scenario.member > 0) {
            // What the run says of itself is in its summary.
            frozen.told.insert("member".to_owned(), member.member.into());
            let drawn = member.drawn.get(&request.operator);
            frozen.told.insert("drawn".to_owned(), json!(drawn.cloned().unwrap_or_default()));
        }
        let version = self.twins.operators().get(&request.operator)?.describe().version;
        let version = if binding.demand.is_some() {
            format!("{version}+demand.{}", demand::VERSION)
        } else {
            version.to_owned()
        };
        // Of several models that take the same, each keeps its own.
        request.model = self.twins.is_bound_twice(&request.operator).then(|| model.name.clone());
        let fingerprint =
            fingerprint(&request, &version, &parameters, (instant_us, horizon_s), &frozen.snapshot)?;
        let run_id = format!("{}-{}", request.operator.replace('_', "-"), &fingerprint[..16]);
        let run = Run {
            run_id: run_id.clone(),
            operator: request.operator.clone(),
            scenario: tense.scenario.clone(),
            seed: request.seed,
            parameters,
            fingerprint,
            inputs: frozen.versions.clone(),
            table: binding.table.to_string(),
            reused: false,
            summary: Map::new(),
            rows: 0,
            status: RunStatus::Queued,
        };
        let recorded = self.recorded(&run_id).await?;
        let (sender, cancelled) = {
            let mut runs = self.twins.runs().runs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = runs.get(&run_id)
                && !matches!(known.run.borrow().status, RunStatus::Failed { .. })
            {
                known.run.send_modify(|run| run.reused = run.is_finished());
                return Ok(run_id);
            }
            let there = recorded.is_some();
            let sender = watch::Sender::new(recorded.unwrap_or(run));
            let cancelled = Arc::new(AtomicBool::new(false));
            if runs.len() >= REMEMBERED {
                // What succeeded is in `meta.runs`.
                runs.retain(|_, known| !known.run.borrow().is_finished() || known.run.receiver_count() > 0);
            }
            runs.insert(run_id.clone(), Entry { run: sender.clone(), cancelled: cancelled.clone() });
            if there {
                return Ok(run_id);
            }
            (sender, cancelled)
        };
        let job = Job {
            twins: self.twins.clone(),
            model,
            binding,
            version,
            horizon: horizon(instant_us, horizon_s),
            instant_us,
            share: within.share,
            started_at_us: now_us(),
            run: sender,
            cancelled,
            meter: CpuMeter::start(),
            bytes_read: frozen.snapshot.tables.values().map(|rows| rows.get_array_memory_size() as i64).sum(),
        };
        tokio::spawn(job.finish(frozen));
        Ok(run_id)
    }

    /// The run as it is now.
    pub async fn status(&self, run_id: &str) -> Result<Run> {
        if let Some(run) = self.watch(run_id).map(|run| run.borrow().clone()) {
            return Ok(run);
        }
        if let Some(run) = self.recorded(run_id).await? {
            return Ok(run);
        }
        let known = self.ids();
        Err(Error::not_found("run", run_id, known.iter().map(String::as_str)))
    }

    /// Follows a run of this process; each change is seen, the last one finished. `None` for a run it does not know.
    pub fn watch(&self, run_id: &str) -> Option<watch::Receiver<Run>> {
        let runs = self.twins.runs().runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.get(run_id).map(|entry| entry.run.subscribe())
    }

    /// Waits until the run is finished and gives it; a run that failed is an error.
    pub async fn wait(&self, run_id: &str) -> Result<Run> {
        let run = match self.watch(run_id) {
            Some(mut watched) => {
                let finished = watched.wait_for(Run::is_finished).await;
                finished.map_err(|_| Error::internal(format!("run '{run_id}' was abandoned")))?.clone()
            }
            None => self.status(run_id).await?,
        };
        match &run.status {
            RunStatus::Failed { error } => Err(Error::config(format!("run '{run_id}' failed: {error}"))),
            _ => Ok(run),
        }
    }

    /// Stops a run at its next step. A run that is finished stays as it is.
    pub fn cancel(&self, run_id: &str) -> Result<()> {
        let runs = self.twins.runs().runs.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = runs
            .get(run_id)
            .ok_or_else(|| Error::not_found("run", run_id, runs.keys().map(String::as_str)))?;
        entry.cancelled.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The SQL that gives a run's rows, in the order of the twin's key.
    pub fn result_sql(&self, run: &Run) -> Result<String> {
        let (model, binding) = self.twins.simulation_in(&run.operator, &[&run.table])?;
        Ok(rows_sql(&model, &binding, &run.run_id))
    }

    /// The rows of a run, in the order of the twin's key.
    pub async fn result(&self, run_id: &str) -> Result<Vec<RecordBatch>> {
        let sql = self.result_sql(&self.status(run_id).await?)?;
        snapshot::session_in(&self.twins, &Tense::default()).await?.collect(&sql).await
    }

    /// The identifiers of the runs that this process was asked for.
    pub fn ids(&self) -> Vec<String> {
        let runs = self.twins.runs().runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.keys().cloned().collect()
    }

    /// The run as `meta.runs` has it, if it succeeded.
    async fn recorded(&self, run_id: &str) -> Result<Option<Run>> {
        let session = snapshot::session_in(&self.twins, &Tense::default()).await?;
        let sql = format!(
            "SELECT run_id, name, scenario, seed, parameters, inputs, outputs, \"rows\", summary, fingerprint \
             FROM meta.runs WHERE run_id = '{}' AND kind = 'simulation' AND status = '{SUCCEEDED}' LIMIT 1",
            run_id.replace('\'', "''")
        );
        let batches = session.collect(&sql).await?;
        let found = batches.iter().find(|batch| batch.num_rows() > 0).map(read_record).transpose()?;
        Ok(found.map(|(mut run, tables)| {
            let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
            if let Ok((_, binding)) = self.twins.simulation_in(&run.operator, &tables) {
                // Of several tables that a run wrote, its own.
                run.table = binding.table.to_string();
            }
            run
        }))
    }
}

/// The tense of a snapshot, and the instant that its results hold from.
pub(crate) fn instant(scenario: Option<&Scenario>, as_of_us: Option<i64>) -> Result<(Tense, Option<i64>)> {
    let fork = scenario.and_then(|scenario| scenario.fork_at_us);
    if let (Some(fork), Some(as_of)) = (fork, as_of_us)
        && fork != as_of
    {
        return Err(Error::config("the scenario forks at another instant than as_of")
            .with_help("leave as_of away: a scenario is simulated from its fork"));
    }
    let as_of_us = fork.or(as_of_us);
    let known_at_us = scenario.and_then(|scenario| scenario.fork_known_at_us);
    let scenario = scenario.map(|scenario| scenario.name.clone());
    Ok((Tense { as_of_us, known_at_us, scenario }, as_of_us))
}

/// The SQL that gives the rows that a run added to a model, in the order of its key.
pub(crate) fn rows_sql(model: &TwinModel, binding: &SimulationBinding, run_id: &str) -> String {
    let schema = result_schema(model, binding);
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    format!(
        "SELECT {} FROM {} WHERE {RUN_ID} = '{}' ORDER BY {}",
        columns.join(", "),
        binding.table,
        run_id.replace('\'', "''"),
        model.key
    )
}

/// All parameters with their defaults; an unknown name is an error with a suggestion.
pub(crate) fn resolve(specs: &[ParameterSpec], operator: &str, given: &Parameters) -> Result<Parameters> {
    for name in given.keys() {
        if !specs.iter().any(|spec| spec.name == name) {
            let known: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
            let failed = Error::config(format!("{operator} has no parameter '{name}'"));
            return Err(match suggest(name, known.iter().copied()) {
                Some(near) => failed.with_help(format!("did you mean '{near}'?")),
                None => failed.with_help(format!("known: {}", known.join(", "))),
            });
        }
    }
    let value = |spec: &ParameterSpec| given.get(spec.name).unwrap_or(&spec.default).clone();
    Ok(specs.iter().map(|spec| (spec.name.to_owned(), value(spec))).collect())
}

fn fingerprint(
    request: &SimulationRequest,
    version: &str,
    parameters: &Parameters,
    (instant_us, horizon_s): (Option<i64>, Option<f64>),
    snapshot: &Snapshot,
) -> Result<String> {
    let mut hasher = Sha256::new();
    // 5 and 5.0 are the same number, and the same run.
    let parameters: BTreeMap<&String, Value> = parameters
        .iter()
        .map(|(name, value)| (name, value.as_f64().map_or(value.clone(), |n| json!(n))))
        .collect();
    let scenario = request.scenario.as_deref().filter(|name| !name.is_empty());
    let head = json!([request.operator, version, parameters, request.seed, scenario, instant_us]);
    hasher.update(head.to_string());
    if let Some(horizon_s) = horizon_s {
        hasher.update(format!("until {horizon_s} s later\n"));
    }
    if let Some(model) = &request.model {
        hasher.update(format!("for {model}\n"));
    }
    snapshot::hash(snapshot, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

/// From the instant as far as the future reaches; an instant alone, if it does not.
pub(crate) fn horizon(instant_us: Option<i64>, horizon_s: Option<f64>) -> Horizon {
    let from_us = instant_us.unwrap_or_default();
    let length_us = horizon_s.map_or(0, |seconds| (seconds * 1e6).round() as i64);
    Horizon { from_us, to_us: from_us.saturating_add(length_us) }
}
