//! Scenarios in SQL: `scenario_create`, `scenario_drop`, `scenario_run` do something, `scenario_ensemble` shows the members.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
use datafusion::common::plan_err;
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use twinlake_contracts::{Error, timestamp_type};
use twinlake_query::{Arguments, Tense};

use super::Scenario;
use super::execution::{Execution, TABLE};
use crate::Twins;
use crate::effect::Effect;
use crate::functions::in_schema;
use crate::model::{KNOWN_TIME, SCENARIO, SimulationBinding, TwinModel};
use crate::run_job::result_schema;
use crate::simulated::RUN_ID;
use crate::snapshot::session_in;
use crate::view::through;

/// Adds the functions to a session.
pub(crate) fn register(twins: &Arc<Twins>, context: &SessionContext) {
    for what in [What::Create, What::Drop, What::Run, What::Ensemble] {
        context.register_udtf(what.name(), Arc::new(ScenarioFunction { twins: twins.clone(), what }));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Create,
    Drop,
    Run,
    Ensemble,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "scenario_create",
            Self::Drop => "scenario_drop",
            Self::Run => "scenario_run",
            Self::Ensemble => "scenario_ensemble",
        }
    }
}

struct ScenarioFunction {
    twins: Arc<Twins>,
    what: What,
}

impl std::fmt::Debug for ScenarioFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what.name())
    }
}

impl TableFunctionImpl for ScenarioFunction {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let function = self.what.name();
        let mut given = Arguments::parse(function, arguments.exprs())?;
        let names: &[&str] = match self.what {
            What::Create => &["definition", "name"],
            What::Drop | What::Run => &["name"],
            What::Ensemble => &["name", "model", "operator"],
        };
        given.name_positional(names)?;
        given.only(names)?;
        let needed = |name: &str, example: &str| {
            let Some(text) = given.text(name)? else {
                return plan_err!("{function} needs {name}, for example {function}({example})");
            };
            Ok(text)
        };
        let twins = self.twins.clone();
        match self.what {
            What::Create => {
                let text = needed("definition", "'name = \"dry\" …'")?;
                let name = given.text("name")?;
                Effect::table(changed_schema(), move || create(twins.clone(), name.clone(), text.clone()))
            }
            What::Drop => {
                let name = needed("name", "'dry'")?;
                Effect::table(changed_schema(), move || drop_one(twins.clone(), name.clone()))
            }
            What::Run => {
                let name = needed("name", "'dry'")?;
                Effect::table(runs_schema(), move || run(twins.clone(), name.clone()))
            }
            What::Ensemble => {
                let name = needed("name", "'dry', 'pipe'")?;
                let model = needed("model", "'dry', 'pipe'")?;
                members(&self.twins, &name, &model, given.text("operator")?.as_deref())
            }
        }
    }
}

/// What `scenario_create` and `scenario_drop` say: `name`, `change` and, of a scenario that is there, `fork_at`, `overrides` (how
/// many), `runs` (how many for each member) and `members`.
fn changed_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("change", DataType::Utf8, true),
        Field::new("fork_at", timestamp_type(), true),
        Field::new("overrides", DataType::Int64, true),
        Field::new("runs", DataType::Int64, true),
        Field::new("members", DataType::Int64, true),
    ]))
}

fn changed(name: &str, change: &str, scenario: Option<&Scenario>) -> twinlake_contracts::Result<RecordBatch> {
    let count = |count: fn(&Scenario) -> usize| {
        Arc::new(Int64Array::from(vec![scenario.map(|scenario| count(scenario) as i64)])) as ArrayRef
    };
    let fork = scenario.and_then(|scenario| scenario.fork_at_us);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![name])),
        Arc::new(StringArray::from(vec![change])),
        Arc::new(TimestampMicrosecondArray::from(vec![fork]).with_timezone("UTC")),
        count(|scenario| scenario.overrides.len()),
        count(|scenario| scenario.runs.len()),
        count(|scenario| scenario.ensemble.as_ref().map_or(0, |ensemble| ensemble.members as usize)),
    ];
    Ok(RecordBatch::try_new(changed_schema(), columns)?)
}

async fn create(twins: Arc<Twins>, name: Option<String>, text: String) -> Result<RecordBatch, Error> {
    let (scenario, change) = twins.create_scenario(name.as_deref(), &text).await?;
    changed(&scenario.name, change.name(), Some(&scenario))
}

async fn drop_one(twins: Arc<Twins>, name: String) -> Result<RecordBatch, Error> {
    twins.drop_scenario(&name).await?;
    changed(&name, "dropped", None)
}

/// What `scenario_run` says: a row a run of a member. `summary` is JSON.
fn runs_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![
        text("execution_id"),
        text("scenario"),
        number("member"),
        number("place"),
        text("operator"),
        text("model"),
        text("run_id"),
        Field::new("reused", DataType::Boolean, true),
        number("rows"),
        text("summary"),
    ]))
}

async fn run(twins: Arc<Twins>, name: String) -> Result<RecordBatch, Error> {
    let execution: Execution = twins.run_scenario(&name).await?;
    let runs = &execution.runs;
    let simulations = twins.simulations();
    let mut ended = Vec::with_capacity(runs.len());
    for run in runs {
        ended.push(simulations.status(&run.run_id).await?);
    }
    let all = |text: &str| Arc::new(StringArray::from(vec![text; runs.len()])) as ArrayRef;
    let texts = |text: Vec<String>| Arc::new(StringArray::from(text)) as ArrayRef;
    let numbers = |numbers: Vec<i64>| Arc::new(Int64Array::from(numbers)) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        all(&execution.execution_id),
        all(&execution.scenario),
        numbers(runs.iter().map(|run| i64::from(run.member)).collect()),
        numbers(runs.iter().map(|run| i64::from(run.place)).collect()),
        texts(runs.iter().map(|run| run.operator.clone()).collect()),
        texts(runs.iter().map(|run| run.model.clone()).collect()),
        texts(runs.iter().map(|run| run.run_id.clone()).collect()),
        Arc::new(BooleanArray::from(runs.iter().map(|run| run.reused).collect::<Vec<_>>())),
        numbers(ended.iter().map(|run| run.rows as i64).collect()),
        texts(ended.iter().map(|run| serde_json::Value::Object(run.summary.clone()).to_string()).collect()),
    ];
    Ok(RecordBatch::try_new(runs_schema(), columns)?)
}

/// `scenario_ensemble(name, model [, operator])`: what the members 1, 2, … of the newest execution say of a model: `member`, the
/// model's key, the columns that the run adds, `valid_time`, `run_id`. The scenario as it is written, member 0, is not among them:
/// it is what `twin.<model>` shows in the scenario.
fn members(
    twins: &Arc<Twins>,
    name: &str,
    model: &str,
    operator: Option<&str>,
) -> Result<Arc<dyn TableProvider>> {
    let scenario = twins.scenario(name).map_err(through)?;
    if scenario.ensemble.is_none() {
        return plan_err!("scenario_ensemble: the scenario '{name}' has no ensemble");
    }
    let model = twins.model(model).map_err(through)?;
    let bound = twins.bound_runs(&scenario).map_err(through)?;
    let mut bindings = model.simulation.iter();
    let ran = bindings.find(|binding| {
        let key = (binding.owner(&model.name).to_owned(), binding.operator.clone());
        operator.is_none_or(|operator| operator == binding.operator) && bound.contains(&key)
    });
    let Some(binding) = ran.cloned().map(Arc::new) else {
        return plan_err!(
            "scenario_ensemble: no run of the scenario '{name}' says anything of '{}'",
            model.name
        );
    };
    let schema = members_schema(&model, &binding);
    let members = Members { twins: twins.clone(), scenario, model, binding, schema: schema.clone() };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(members)])?))
}

fn members_schema(model: &TwinModel, binding: &SimulationBinding) -> SchemaRef {
    let rows = result_schema(model, binding);
    let shown =
        rows.fields().iter().filter(|field| ![RUN_ID, SCENARIO, KNOWN_TIME].contains(&field.name().as_str()));
    let mut fields = vec![Arc::new(Field::new("member", DataType::Int64, true))];
    fields.extend(shown.cloned());
    fields.push(Arc::new(Field::new(RUN_ID, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

struct Members {
    twins: Arc<Twins>,
    scenario: Arc<Scenario>,
    model: Arc<TwinModel>,
    binding: Arc<SimulationBinding>,
    schema: SchemaRef,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("scenario", &self.scenario.name).finish_non_exhaustive()
    }
}

impl PartitionStream for Members {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let Some(newest) = self.twins.newest_execution(&self.scenario) else {
            let name = &self.scenario.name;
            let failed = Error::config(format!("the scenario '{name}' has not been run as it is now"))
                .with_help(format!("run it: SELECT * FROM scenario_run('{name}')"));
            let rows = futures::stream::once(async { Err(through(failed)) });
            return Box::pin(RecordBatchStreamAdapter::new(schema, rows));
        };
        let columns: Vec<String> = self
            .schema
            .fields()
            .iter()
            .map(|field| {
                if field.name() == "member" {
                    "m.member".to_owned()
                } else {
                    format!("r.\"{}\"", field.name())
                }
            })
            .collect();
        let last = newest.runs.iter().filter(|run| {
            run.model == self.binding.owner(&self.model.name) && run.operator == self.binding.operator
        });
        let place = last.map(|run| run.place).max().unwrap_or_default();
        let sql = format!(
            "SELECT {} FROM {} AS r JOIN (SELECT run_id, member FROM {TABLE} WHERE execution_id = '{}' AND place = {place} \
             AND member > 0) AS m ON r.{RUN_ID} = m.run_id ORDER BY m.member, r.\"{}\"",
            columns.join(", "),
            self.binding.table,
            newest.execution_id,
            self.model.key,
        );
        let (twins, wanted) = (self.twins.clone(), schema.clone());
        let rows = async move {
            let session = session_in(&twins, &Tense::default()).await?;
            session.execute(&sql).await
        };
        let rows = futures::stream::once(rows)
            .map_err(through)
            .try_flatten()
            .map(move |batch| batch.and_then(|batch| in_schema(&batch, &wanted)));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}
