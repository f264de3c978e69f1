//! One run on its way to its end: the operator computes, the rows land, the run is recorded.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};
use tokio::sync::watch;
use twinlake_contracts::{
    Error, Horizon, Outcome, Parameters, Result, Snapshot, TableSpec, TableStore as _, TableWriter,
    WriteMode, now_us, timestamp_type,
};
use twinlake_lake::CpuMeter;

use crate::model::{KNOWN_TIME, SCENARIO, SimulationBinding, TwinModel, VALID_TIME};
use crate::run_record::record;
use crate::runs::{Run, RunStatus, Share};
use crate::simulated::RUN_ID;
use crate::snapshot::Frozen;
use crate::{Twins, columns};

/// The columns of a result table: run, scenario, the twin's key, the simulated columns, and the times.
pub(crate) fn result_schema(model: &TwinModel, binding: &SimulationBinding) -> SchemaRef {
    let key = model.key_property().map_or(DataType::Int64, |property| property.kind.data_type());
    let mut fields = vec![
        Field::new(RUN_ID, DataType::Utf8, true),
        Field::new(SCENARIO, DataType::Utf8, true),
        Field::new(&model.key, key, true),
    ];
    fields.extend(binding.fields());
    fields.push(Field::new(VALID_TIME, timestamp_type(), true));
    fields.push(Field::new(KNOWN_TIME, timestamp_type(), true));
    Arc::new(Schema::new(fields))
}

/// One run on its way to its end.
pub(crate) struct Job {
    pub(crate) twins: Arc<Twins>,
    pub(crate) model: Arc<TwinModel>,
    pub(crate) binding: Arc<SimulationBinding>,
    pub(crate) version: String,
    pub(crate) horizon: Horizon,
    pub(crate) instant_us: Option<i64>,
    pub(crate) share: Share,
    pub(crate) started_at_us: i64,
    pub(crate) run: watch::Sender<Run>,
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) meter: CpuMeter,
    /// Bytes of the columns that it was given.
    pub(crate) bytes_read: i64,
}

impl Job {
    /// Works, records, and tells those who wait.
    pub(crate) async fn finish(self, frozen: Frozen) {
        let outcome = self.work(frozen).await;
        let (status, summary, rows) = match outcome {
            Ok((summary, rows)) => (RunStatus::Succeeded, summary, rows),
            Err(error) => (RunStatus::Failed { error: error.to_string() }, Map::new(), 0),
        };
        let mut finished = self.run.borrow().clone();
        finished.summary = summary;
        finished.rows = rows;
        finished.status = status;
        if let Err(error) = self.twins.lake().record_run(record(&self, &finished)).await {
            // The rows are there and the run can be found by its table; the record comes with the next equal request.
            tracing::warn!(run = %finished.run_id, %error, "a run could not be recorded");
        }
        self.run.send_replace(finished);
    }

    async fn work(&self, frozen: Frozen) -> Result<(Map<String, Value>, u64)> {
        let _turn = self.twins.runs().turn(self.share).await?;
        let told = frozen.told.clone();
        let outcome = self.compute(frozen.snapshot).await?;
        let rows = self.land(&outcome).await?;
        let mut summary = outcome.summary;
        summary.extend(told);
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
            let outcome = operator.run(&snapshot, horizon, asked.seed, &own, &progress)?;
            // What an operator gives when it is stopped is not the answer to the question.
            if cancelled.load(Ordering::Relaxed) {
                Err(Error::config("it was cancelled"))
            } else {
                Ok(outcome)
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal(format!("the operator broke off: {error}")))?
    }

    /// Commits the result's rows; those of a run that is there already are left as they are.
    async fn land(&self, outcome: &Outcome) -> Result<u64> {
        let own = self.rows(&self.model, &self.binding, outcome)?;
        let shared = self.twins.sharers(&self.model.name);
        let rows = shared.iter().map(|(model, binding)| self.rows(model, binding, outcome));
        let rows: Vec<RecordBatch> = rows.collect::<Result<_>>()?;
        // The model's own rows last: where they are, all are.
        for ((model, binding), rows) in shared.iter().zip(rows) {
            self.commit(model, binding, rows).await?;
        }
        self.commit(&self.model, &self.binding, own).await
    }

    async fn commit(&self, model: &TwinModel, binding: &SimulationBinding, rows: RecordBatch) -> Result<u64> {
        let spec = TableSpec {
            name: binding.table.clone(),
            schema: rows.schema(),
            description: format!("Results of {} for twin {}.", binding.operator, model.name),
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
    fn rows(&self, model: &TwinModel, binding: &SimulationBinding, outcome: &Outcome) -> Result<RecordBatch> {
        let given = outcome.tables.get(&binding.output).ok_or_else(|| {
            Error::not_found("output", &binding.output, outcome.tables.keys().map(String::as_str))
        })?;
        let schema = result_schema(model, binding);
        let table = format!("output '{}'", binding.output);
        let count = given.num_rows();
        let run = self.run.borrow().clone();
        let constant = |text: Option<&str>| Arc::new(StringArray::from(vec![text; count])) as ArrayRef;
        let instant = |us: Option<i64>| {
            Arc::new(TimestampMicrosecondArray::from(vec![us; count]).with_timezone("UTC")) as ArrayRef
        };
        let key_type = schema.field_with_name(&model.key)?.data_type();
        let keys = columns::column(given, &table, &binding.key, key_type)?;
        once_each(&keys, &table, &binding.key)?;
        let mut arrays = vec![constant(Some(&run.run_id)), constant(run.scenario.as_deref()), keys];
        for (name, simulated) in &binding.columns {
            let column = simulated.column.as_deref().unwrap_or(name);
            arrays.push(columns::column(given, &table, column, &simulated.kind.data_type())?);
        }
        arrays.push(instant(self.instant_us));
        arrays.push(instant(Some(now_us())));
        Ok(RecordBatch::try_new(schema, arrays)?)
    }
}

/// A twin has one state at a time: an instance that an output has twice, at two moments of the run, is an error.
fn once_each(keys: &ArrayRef, table: &str, key: &str) -> Result<()> {
    let converter = RowConverter::new(vec![SortField::new(keys.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(keys))?;
    let mut seen = HashSet::with_capacity(keys.len());
    match (0..keys.len()).find(|row| !seen.insert(rows.row(*row))) {
        None => Ok(()),
        Some(row) => {
            let named = array_value_to_string(keys, row)?;
            Err(Error::config(format!(
                "{table} has more than one row of {key} {named}, a twin has one state"
            ))
            .with_help(
                "simulate one moment (duration_s = 0), or run the operator on files for a course in time",
            ))
        }
    }
}
