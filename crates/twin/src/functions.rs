//! Table functions: `twin_at`, a twin in a tense of its own, and `simulate`, an operator as a table.
//!
//! Both are what they say: the session's `twin.…` settings do not enter, so that one query may look at several
//! tenses, and the same text means the same in every session.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::datasource::TableProvider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use twinlake_contracts::Parameters;
use twinlake_query::{Arguments, Tense};

use crate::Twins;
use crate::model::{SimulationBinding, TwinModel};
use crate::run_job::result_schema;
use crate::runs::{SimulationRequest, Within, rows_sql};
use crate::snapshot::{depth, session_in};
use crate::table::TwinTable;
use crate::view::through;
use crate::{simulate_analysis, simulate_files};

/// `twin_at(model, at [, known_at] [, scenario])`: the state of a model, or of `<model>_history`, in that tense.
/// A null `at` is now; `known_at` and `scenario` that are not given are "all that is known" and "what really is".
pub(crate) struct TwinAt(pub(crate) Arc<Twins>);

impl std::fmt::Debug for TwinAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TwinAt")
    }
}

impl TableFunctionImpl for TwinAt {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut given = Arguments::parse("twin_at", arguments.exprs())?;
        let names = ["model", "at", "known_at", "scenario"];
        given.name_positional(&names)?;
        given.only(&names)?;
        let Some(model) = given.text("model")? else {
            return plan_err!("twin_at needs a model, for example twin_at('vehicle', TIMESTAMP '…')");
        };
        let tense = Tense {
            as_of_us: given.instant_us("at")?,
            known_at_us: given.instant_us("known_at")?,
            scenario: given.text("scenario")?.filter(|name| !name.is_empty()),
        };
        // An unknown scenario fails here, before anything is read.
        self.0.view(&tense).map_err(through)?;
        let (model, history) = self.0.table_model(&model).map_err(through)?;
        Ok(Arc::new(TwinTable::new(&self.0, &model, history, Some(tense))))
    }
}

/// `simulate(operator [, scenario] [, seed] [, as_of] [, table] [, model] [, parameter => value]…)`: the rows of the run. The run
/// starts when rows are asked for, not when the query is planned or explained; an equal run is answered from its table. `table`
/// names another output of the operator that a model keeps, `model` the model whose simulation is meant. With
/// `role => 'SELECT …'` it answers a question and keeps nothing (see [`crate::simulate_analysis`]), with `network => 'file'` it
/// runs on files (see [`crate::simulate_files`]).
pub(crate) struct Simulate(pub(crate) Arc<Twins>);

impl std::fmt::Debug for Simulate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Simulate")
    }
}

impl TableFunctionImpl for Simulate {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut given = Arguments::parse("simulate", arguments.exprs())?;
        given.name_positional(&OWN[..4])?;
        let Some(operator) = given.text("operator")? else {
            return plan_err!("simulate needs an operator, for example simulate('traffic_assignment')");
        };
        let spec = self.0.operators().get(&operator).map_err(through)?.describe();
        if simulate_files::is_asked(&given, &spec)? {
            return simulate_files::table(&self.0, &spec, &given, arguments.session());
        }
        if simulate_analysis::is_asked(&self.0, &spec, &given)? {
            return simulate_analysis::table(&self.0, &spec, &given, arguments.session());
        }
        let named = given.text("model")?;
        let (mut model, mut binding) = self.0.simulation_of(&operator, named.as_deref()).map_err(through)?;
        let owner = model.name.clone();
        if let Some(table) = given.text("table")?.filter(|table| *table != binding.output) {
            (model, binding) = self.0.sharer(&model.name, &operator, &table).map_err(through)?;
        }
        let specs = self.0.parameter_specs(&operator, Some(&owner)).map_err(through)?;
        let roles = spec.inputs.iter().map(|shape| shape.role);
        let known: Vec<&str> =
            OWN.into_iter().chain(specs.iter().map(|spec| spec.name)).chain(roles).collect();
        given.only(&known)?;
        let seed = seed(&given)?;
        let scenario = given.text("scenario")?.filter(|name| !name.is_empty());
        if let Some(scenario) = &scenario {
            self.0.scenario(scenario).map_err(through)?;
        }
        let parameters = parameters(&given, &OWN)?;
        let as_of_us = given.instant_us("as_of")?;
        let request =
            SimulationRequest { operator, model: Some(owner), scenario, seed, parameters, as_of_us };
        let schema = result_schema(&model, &binding);
        let within =
            Within { depth: depth(arguments.session(), spec.name).map_err(through)?, ..Within::default() };
        let stream =
            RunStream { twins: self.0.clone(), request, within, model, binding, schema: schema.clone() };
        Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(stream)])?))
    }
}

/// The arguments of a call on the twins that are neither inputs nor parameters of the operator.
pub(crate) const OWN: [&str; 6] = ["operator", "scenario", "seed", "as_of", "table", "model"];

/// The seed of a call, 0 if it names none.
pub(crate) fn seed(given: &Arguments) -> Result<u64> {
    let Ok(seed) = u64::try_from(given.integer("seed")?.unwrap_or_default()) else {
        return plan_err!("simulate: 'seed' must not be negative");
    };
    Ok(seed)
}

/// What a call names beside `own`: the operator's parameters.
pub(crate) fn parameters(given: &Arguments, own: &[&str]) -> Result<Parameters> {
    let named = given.named().filter(|(name, value)| !own.contains(name) && !value.is_null());
    named.map(|(name, value)| Ok((name.to_owned(), parameter(name, value)?))).collect()
}

fn parameter(name: &str, value: &ScalarValue) -> Result<Value> {
    if let Some(Some(text)) = value.try_as_str() {
        // A list has no literal of its own: '[5, 10]'.
        let list = text.trim_start().starts_with('[').then(|| serde_json::from_str(text).ok()).flatten();
        return Ok(list.unwrap_or_else(|| json!(text)));
    }
    let parsed = match value {
        ScalarValue::Boolean(Some(flag)) => Some(json!(flag)),
        integer if integer.data_type().is_integer() => match integer.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(Some(number)) => Some(json!(number)),
            _ => None,
        },
        number if number.data_type().is_numeric() => match number.cast_to(&DataType::Float64)? {
            ScalarValue::Float64(Some(number)) if number.is_finite() => Some(json!(number)),
            _ => None,
        },
        _ => None,
    };
    match parsed {
        Some(parsed) => Ok(parsed),
        None => {
            plan_err!("simulate: '{name}' cannot be {value}, write a finite number, a text or a truth value")
        }
    }
}

struct RunStream {
    twins: Arc<Twins>,
    request: SimulationRequest,
    within: Within,
    /// Whose rows are shown.
    model: Arc<TwinModel>,
    binding: Arc<SimulationBinding>,
    schema: SchemaRef,
}

impl std::fmt::Debug for RunStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunStream").field("request", &self.request).finish_non_exhaustive()
    }
}

impl PartitionStream for RunStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (twins, request, schema) = (self.twins.clone(), self.request.clone(), self.schema.clone());
        let (model, binding) = (self.model.clone(), self.binding.clone());
        let within = self.within.clone();
        let rows = async move {
            let simulations = Twins::simulations(&twins);
            let run_id = simulations.submit_within(request, within).await?;
            let run = simulations.wait(&run_id).await?;
            let session = session_in(&twins, &Tense::default()).await?;
            session.execute(&rows_sql(&model, &binding, &run.run_id)).await
        };
        let wanted = schema.clone();
        let rows = futures::stream::once(rows)
            .map_err(through)
            .try_flatten()
            .map(move |batch| batch.and_then(|batch| in_schema(&batch, &wanted)));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

/// The batch in exactly these types.
pub(crate) fn in_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(DataFusionError::from)
}
