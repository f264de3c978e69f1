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
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use twinlake_contracts::{
    Error, Horizon, Outcome, ParameterSpec, Parameters, Result, Snapshot, TableSpec, TableStore as _,
    TableWriter, WriteMode, now_us, suggest, timestamp_type,
};
use twinlake_lake::RunRecord;
use twinlake_query::Tense;

use crate::model::{KNOWN_TIME, SCENARIO, SimulationBinding, TwinModel, VALID_TIME};
use crate::simulated::RUN_ID;
use crate::snapshot::{self, Frozen};
use crate::{Twins, columns, demand};

/// How many operators run at a time; each uses all cores for itself.
const AT_A_TIME: usize = 1;
/// The status of a run in `meta.runs` whose rows are there.
pub(crate) const SUCCEEDED: &str = "succeeded";

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct SimulationRequest {
    /// The operator.
    pub operator: String,
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
    /// Whether the rows were there before this process asked.
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

struct Entry {
    run: watch::Sender<Run>,
    cancelled: Arc<AtomicBool>,
}

impl Default for RunTable {
    fn default() -> Self {
        Self { runs: Mutex::default(), turn: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

/// Runs simulations: submit, look, wait. Cheap to clone.
#[derive(Clone)]
pub struct Simulations {
    twins: Arc<Twins>,
}

impl Simulations {
    pub(crate) fn new(twins: Arc<Twins>) -> Self {
        Self { twins }
    }

    /// The parameters that `operator` takes here: its own, and those of the demand that is made for it.
    pub fn parameters(&self, operator: &str) -> Result<Vec<ParameterSpec>> {
        let (_, binding) = self.twins.simulation(operator)?;
        let mut specs = self.twins.operators().get(operator)?.describe().parameters;
        if binding.demand.is_some() {
            specs.extend(demand::parameters());
        }
        Ok(specs)
    }

    /// Asks for a run: freezes the snapshot and, unless an equal run is there or under way, starts the operator.
    /// Returns the run's identifier.
    pub async fn submit(&self, request: SimulationRequest) -> Result<String> {
        let (model, binding) = self.twins.simulation(&request.operator)?;
        let binding = binding.clone();
        let parameters = resolve(&self.parameters(&request.operator)?, &request)?;
        let (tense, instant_us) = self.instant(&request)?;
        let frozen = snapshot::freeze(&self.twins, &binding, &tense, &parameters).await?;
        let version = self.twins.operators().get(&request.operator)?.describe().version;
        let version = if binding.demand.is_some() {
            format!("{version}+demand.{}", demand::VERSION)
        } else {
            version.to_owned()
        };
        let fingerprint = fingerprint(&request, &version, &parameters, instant_us, &frozen.snapshot)?;
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
            horizon: Horizon {
                from_us: instant_us.unwrap_or_default(),
                to_us: instant_us.unwrap_or_default(),
            },
            instant_us,
            started_at_us: now_us(),
            run: sender,
            cancelled,
        };
        tokio::spawn(job.finish(frozen));
        Ok(run_id)
    }

    /// The run as it is now.
    pub async fn status(&self, run_id: &str) -> Result<Run> {
        if let Some(run) = self.watch(run_id).map(|run| run.borrow().clone()) {
            return Ok(run);
        }
        match self.recorded(run_id).await? {
            Some(run) => Ok(run),
            None => {
                let known: Vec<String> = self.ids();
                Err(Error::not_found("run", run_id, known.iter().map(String::as_str)))
            }
        }
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
        let (model, binding) = self.twins.simulation(&run.operator)?;
        let schema = result_schema(&model, &binding);
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Ok(format!(
            "SELECT {} FROM {} WHERE {RUN_ID} = '{}' ORDER BY {}",
            columns.join(", "),
            binding.table,
            run.run_id.replace('\'', "''"),
            model.key
        ))
    }

    /// The identifiers of the runs that this process was asked for.
    pub fn ids(&self) -> Vec<String> {
        let runs = self.twins.runs().runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.keys().cloned().collect()
    }

    /// The tense of the snapshot, and the instant that its results hold from.
    fn instant(&self, request: &SimulationRequest) -> Result<(Tense, Option<i64>)> {
        let named = request.scenario.as_deref().filter(|name| !name.is_empty());
        let scenario = named.map(|name| self.twins.scenario(name)).transpose()?;
        let fork = scenario.as_ref().and_then(|scenario| scenario.fork_at_us);
        if let (Some(fork), Some(as_of)) = (fork, request.as_of_us)
            && fork != as_of
        {
            return Err(Error::config("the scenario forks at another instant than as_of")
                .with_help("leave as_of away: a scenario is simulated from its fork"));
        }
        let as_of_us = fork.or(request.as_of_us);
        let known_at_us = scenario.as_ref().and_then(|scenario| scenario.fork_known_at_us);
        let scenario = scenario.map(|scenario| scenario.name.clone());
        Ok((Tense { as_of_us, known_at_us, scenario }, as_of_us))
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
        batches.iter().find(|batch| batch.num_rows() > 0).map(read_record).transpose()
    }
}

/// All parameters with their defaults; an unknown name is an error with a suggestion.
fn resolve(specs: &[ParameterSpec], request: &SimulationRequest) -> Result<Parameters> {
    for name in request.parameters.keys() {
        if !specs.iter().any(|spec| spec.name == name) {
            let known: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
            let failed = Error::config(format!("{} has no parameter '{name}'", request.operator));
            return Err(match suggest(name, known.iter().copied()) {
                Some(near) => failed.with_help(format!("did you mean '{near}'?")),
                None => failed.with_help(format!("known: {}", known.join(", "))),
            });
        }
    }
    let value = |spec: &ParameterSpec| request.parameters.get(spec.name).unwrap_or(&spec.default).clone();
    Ok(specs.iter().map(|spec| (spec.name.to_owned(), value(spec))).collect())
}

fn fingerprint(
    request: &SimulationRequest,
    version: &str,
    parameters: &Parameters,
    instant_us: Option<i64>,
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
    snapshot::hash(snapshot, &mut hasher)?;
    Ok(hasher.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

/// The columns of a result table: run, scenario, the twin's key, the simulated columns, and the times.
pub(crate) fn result_schema(model: &TwinModel, binding: &SimulationBinding) -> SchemaRef {
    let key = model.key_property().map_or(DataType::Int64, |property| property.kind.data_type());
    let mut fields = vec![
        Field::new(RUN_ID, DataType::Utf8, true),
        Field::new(SCENARIO, DataType::Utf8, true),
        Field::new(&model.key, key, true),
    ];
    fields.extend(binding.columns.keys().map(|name| Field::new(name, DataType::Float64, true)));
    fields.push(Field::new(VALID_TIME, timestamp_type(), true));
    fields.push(Field::new(KNOWN_TIME, timestamp_type(), true));
    Arc::new(Schema::new(fields))
}

/// One run on its way to its end.
struct Job {
    twins: Arc<Twins>,
    model: Arc<TwinModel>,
    binding: Arc<SimulationBinding>,
    version: String,
    horizon: Horizon,
    instant_us: Option<i64>,
    started_at_us: i64,
    run: watch::Sender<Run>,
    cancelled: Arc<AtomicBool>,
}

impl Job {
    async fn finish(self, frozen: Frozen) {
        let outcome = self.work(frozen).await;
        let (status, summary, rows) = match outcome {
            Ok((summary, rows)) => (RunStatus::Succeeded, summary, rows),
            Err(error) => (RunStatus::Failed { error: error.to_string() }, Map::new(), 0),
        };
        let mut finished = self.run.borrow().clone();
        finished.summary = summary;
        finished.rows = rows;
        finished.status = status;
        if let Err(error) = self.twins.lake().record_run(self.record(&finished)).await {
            // The rows are there and the run can be found by its table; the record comes with the next equal request.
            tracing::warn!(run = %finished.run_id, %error, "a run could not be recorded");
        }
        self.run.send_replace(finished);
    }

    async fn work(&self, frozen: Frozen) -> Result<(Map<String, Value>, u64)> {
        let turn = self.twins.runs().turn.clone();
        let _turn = turn.acquire_owned().await.map_err(Error::internal)?;
        let demand = frozen.demand.clone();
        let outcome = self.compute(frozen.snapshot).await?;
        let rows = self.land(&outcome).await?;
        let mut summary = outcome.summary;
        summary.extend(demand);
        Ok((summary, rows))
    }

    /// Runs the operator off the async runtime.
    async fn compute(&self, snapshot: Snapshot) -> Result<Outcome> {
        let (twins, run, cancelled) = (self.twins.clone(), self.run.clone(), self.cancelled.clone());
        let horizon = self.horizon;
        let asked = run.borrow().clone();
        let work = move || {
            let operator = twins.operators().get(&asked.operator)?;
            let own: Parameters = {
                let specs = operator.describe().parameters;
                let is_own = |name: &String| specs.iter().any(|spec| spec.name == name);
                asked
                    .parameters
                    .iter()
                    .filter(|(name, _)| is_own(name))
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .collect()
            };
            let progress = |fraction: f64, message: &str| {
                run.send_modify(|run| {
                    run.status = RunStatus::Running { fraction, message: message.to_owned() };
                });
                !cancelled.load(Ordering::Relaxed)
            };
            progress(0.0, "starting");
            operator.run(&snapshot, horizon, asked.seed, &own, &progress)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal(format!("the operator broke off: {error}")))?
    }

    /// Commits the result's rows; those of a run that is there already are left as they are.
    async fn land(&self, outcome: &Outcome) -> Result<u64> {
        let rows = self.rows(outcome)?;
        let spec = TableSpec {
            name: self.binding.table.clone(),
            schema: rows.schema(),
            description: format!("Results of {} for twin {}.", self.binding.operator, self.model.name),
        };
        let table: Arc<dyn TableWriter> = self.twins.lake().open_table(spec).await?;
        let writer = format!("simulation/{}", self.run.borrow().run_id);
        let count = rows.num_rows() as u64;
        if table.committed(&writer).await?.is_none() {
            table.add_fresh(&writer, rows).await?;
            table.commit(&writer, 1, WriteMode::Append).await?;
        }
        Ok(count)
    }

    /// The operator's output in the shape of the result table.
    fn rows(&self, outcome: &Outcome) -> Result<RecordBatch> {
        let given = outcome.tables.get(&self.binding.output).ok_or_else(|| {
            Error::not_found("output", &self.binding.output, outcome.tables.keys().map(String::as_str))
        })?;
        let schema = result_schema(&self.model, &self.binding);
        let table = format!("output '{}'", self.binding.output);
        let count = given.num_rows();
        let run = self.run.borrow().clone();
        let constant = |text: Option<&str>| Arc::new(StringArray::from(vec![text; count])) as ArrayRef;
        let instant = |us: Option<i64>| {
            Arc::new(TimestampMicrosecondArray::from(vec![us; count]).with_timezone("UTC")) as ArrayRef
        };
        let key_type = schema.field_with_name(&self.model.key)?.data_type();
        let mut arrays = vec![
            constant(Some(&run.run_id)),
            constant(run.scenario.as_deref()),
            columns::column(given, &table, &self.binding.key, key_type)?,
        ];
        for (name, simulated) in &self.binding.columns {
            let column = simulated.column.as_deref().unwrap_or(name);
            arrays.push(columns::column(given, &table, column, &DataType::Float64)?);
        }
        arrays.push(instant(self.instant_us));
        arrays.push(instant(Some(now_us())));
        Ok(RecordBatch::try_new(schema, arrays)?)
    }

    fn record(&self, run: &Run) -> RunRecord {
        let (status, summary) = match &run.status {
            RunStatus::Failed { error } if self.cancelled.load(Ordering::Relaxed) => {
                ("cancelled", json!({ "error": error }))
            }
            RunStatus::Failed { error } => ("failed", json!({ "error": error })),
            _ => (SUCCEEDED, Value::Object(run.summary.clone())),
        };
        let outputs = match self.twins.lake().table(&self.binding.table) {
            Some(table) if status == SUCCEEDED => json!({ (run.table.as_str()): table.version() }),
            _ => json!({}),
        };
        RunRecord {
            run_id: run.run_id.clone(),
            kind: "simulation".into(),
            name: run.operator.clone(),
            version: self.version.clone(),
            status: status.into(),
            scenario: run.scenario.clone(),
            seed: Some(run.seed as i64),
            parameters: json!(run.parameters).to_string(),
            inputs: json!(run.inputs).to_string(),
            outputs: outputs.to_string(),
            rows: run.rows as i64,
            rejects: 0,
            summary: summary.to_string(),
            fingerprint: run.fingerprint.clone(),
            started_at_us: self.started_at_us,
            finished_at_us: Some(now_us()),
        }
    }
}

/// A run from the first row of `meta.runs` given.
fn read_record(batch: &RecordBatch) -> Result<Run> {
    let text = |name: &str| -> Result<Option<String>> {
        let column = columns::column(batch, "meta.runs", name, &DataType::Utf8)?;
        let strings = column.as_any().downcast_ref::<StringArray>();
        Ok(strings.filter(|strings| strings.is_valid(0)).map(|strings| strings.value(0).to_owned()))
    };
    let number = |name: &str| -> Result<i64> { Ok(columns::integers(batch, "meta.runs", name)?.value(0)) };
    let damaged =
        |error: serde_json::Error| Error::internal(format!("a row of meta.runs is damaged: {error}"));
    let parameters = text("parameters")?.unwrap_or_default();
    let inputs = text("inputs")?.unwrap_or_default();
    let outputs: BTreeMap<String, u64> =
        serde_json::from_str(&text("outputs")?.unwrap_or_default()).map_err(damaged)?;
    Ok(Run {
        run_id: text("run_id")?.unwrap_or_default(),
        operator: text("name")?.unwrap_or_default(),
        scenario: text("scenario")?,
        seed: number("seed")? as u64,
        parameters: serde_json::from_str(&parameters).map_err(damaged)?,
        fingerprint: text("fingerprint")?.unwrap_or_default(),
        inputs: serde_json::from_str(&inputs).map_err(damaged)?,
        table: outputs.into_keys().next().unwrap_or_default(),
        reused: true,
        summary: serde_json::from_str(&text("summary")?.unwrap_or_default()).map_err(damaged)?,
        rows: number("rows")? as u64,
        status: RunStatus::Succeeded,
    })
}
