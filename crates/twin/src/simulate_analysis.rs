//! `simulate('isochrone', origins => 'SELECT …', scenario => …)`: an operator that is asked, as a table.
//!
//! An argument with the name of one of the operator's inputs is SQL over lake and twins, run in the tense of the question: the
//! scenario's fork with its overrides, `as_of`, or now. Inputs that are not given are those of the model that says what the
//! operator takes (`[[analyses]]`, else `[simulation]`). Nothing lands in the lake and no run is recorded. The SQL may do what
//! the session may that asks, and must be a query. Like every table it is read when rows are asked for: planning and `EXPLAIN`
//! plan the SQL that is given, so that its mistakes are told, and run nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::plan_err;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use twinlake_contracts::{Error, Horizon, OperatorSpec, Parameters};
use twinlake_query::{Arguments, Tense, may_read_files};

use crate::Twins;
use crate::bound::Said;
use crate::effect::Effect;
use crate::field_files::{output_schema, output_shape, rows_of_outcome};
use crate::functions::{OWN, parameters, seed};
use crate::runs::{horizon, instant, resolve};
use crate::snapshot::{Wanted, depth, freeze, of_input, query};
use crate::view::through;

/// What to do about a run that did not converge.
const UNCONVERGED: &str = "give it more iterations or a wider tolerance";

/// Whether a call is a question: it gives inputs of the operator, or no model keeps the operator's runs.
pub(crate) fn is_asked(twins: &Twins, spec: &OperatorSpec, given: &Arguments) -> Result<bool> {
    let model = given.text("model")?;
    let gives_input = given.named().any(|(name, _)| spec.inputs.iter().any(|shape| shape.role == name));
    let of_no_model = model.as_deref() == Some("");
    if gives_input || of_no_model || !twins.is_bound(spec.name, None) {
        return Ok(true);
    }
    // A model that has no simulation of the operator may have tables for it.
    let Some(model) = model else { return Ok(false) };
    let model = twins.model(&model).map_err(through)?;
    Ok(!twins.is_bound(spec.name, Some(&model.name)) && model.analysis(spec.name).is_some())
}

/// What the operator is to be given, and the inputs that the call gives itself.
fn inputs(
    spec: &OperatorSpec,
    given: &Arguments,
    said: Option<&Said>,
    session: &dyn Session,
) -> Result<(Wanted, Vec<String>)> {
    let mut wanted = Wanted {
        operator: spec.name.to_owned(),
        inputs: said.map(|said| said.inputs.clone()).unwrap_or_default(),
        demand: said.and_then(|said| said.demand.clone()),
        earlier: Vec::new(),
        local_files: may_read_files(session),
        depth: depth(session, spec.name).map_err(through)?,
    };
    let is_input = |name: &str| spec.inputs.iter().any(|shape| shape.role == name);
    let mut asked = Vec::new();
    for (role, value) in given.named().filter(|(name, _)| is_input(name)) {
        if wanted.demand.as_ref().is_some_and(|demand| demand.role == role) {
            wanted.demand = None;
        }
        if value.is_null() {
            // Left out, though a model has it.
            wanted.inputs.shift_remove(role);
            continue;
        }
        let Some(Some(sql)) = value.try_as_str() else {
            return plan_err!("simulate: the input '{role}' must be SQL in a text, not {value}");
        };
        query(sql).map_err(|error| through(of_input(&error, spec.name, role)))?;
        wanted.inputs.insert(role.to_owned(), sql.to_owned());
        asked.push(role.to_owned());
    }
    Ok((wanted, asked))
}

/// The table of a question.
pub(crate) fn table(
    twins: &Arc<Twins>,
    spec: &OperatorSpec,
    given: &Arguments,
    session: &dyn Session,
) -> Result<Arc<dyn TableProvider>> {
    let said = twins.said(spec.name, given.text("model")?.as_deref()).map_err(through)?;
    let (wanted, asked) = inputs(spec, given, said.as_ref(), session)?;
    let roles: Vec<&str> = spec.inputs.iter().map(|shape| shape.role).collect();
    let defaults = said.as_ref().map(|said| said.parameters.clone()).unwrap_or_default();
    let specs = twins.specs(spec.name, wanted.demand.is_some(), &defaults).map_err(through)?;
    let own = OWN.into_iter().chain(roles.iter().copied());
    let known: Vec<&str> = own.clone().chain(specs.iter().map(|spec| spec.name)).collect();
    given.only(&known)?;
    if wanted.inputs.is_empty() && wanted.demand.is_none() {
        let message = format!("no twin model says what {} takes", spec.name);
        let help = format!("give its tables in SQL, role => 'SELECT …'; it takes {}", roles.join(", "));
        return Err(through(Error::config(message).with_help(help)));
    }
    let scenario = given.text("scenario")?.filter(|name| !name.is_empty());
    let scenario = scenario.map(|name| twins.scenario(&name)).transpose().map_err(through)?;
    let (tense, instant_us) = instant(scenario.as_deref(), given.instant_us("as_of")?).map_err(through)?;
    let mut set: Parameters =
        scenario.iter().flat_map(|scenario| scenario.parameters_of(spec.name)).collect();
    // A demand that is given needs no parameters of the one that would be made.
    set.retain(|name, _| specs.iter().any(|spec| spec.name == name));
    set.extend(parameters(given, &own.collect::<Vec<_>>())?);
    let parameters = resolve(&specs, spec.name, &set).map_err(through)?;
    let name = given.text("table")?;
    let shape = output_shape(spec, name.as_deref()).map_err(through)?;
    let schema = output_schema(shape).map_err(through)?;
    let left = |role: &String| wanted.inputs.contains_key(role) && !asked.contains(role);
    let of_model = said.filter(|said| said.inputs.keys().any(left)).map(|said| said.model.name.clone());
    let question = Arc::new(Question {
        twins: twins.clone(),
        of_model,
        wanted,
        asked,
        output: shape.role.to_owned(),
        seed: seed(given)?,
        parameters,
        tense,
        horizon: horizon(instant_us, scenario.and_then(|scenario| scenario.horizon_s)),
    });
    let work = question.clone();
    let answer = Effect::table(schema, move || {
        let question = work.clone();
        async move { question.answer().await }
    })?;
    Ok(Arc::new(Answer { question, answer }))
}

/// One question, checked.
struct Question {
    twins: Arc<Twins>,
    /// The model that some inputs are of.
    of_model: Option<String>,
    wanted: Wanted,
    /// The inputs that the call gives.
    asked: Vec<String>,
    output: String,
    seed: u64,
    parameters: Parameters,
    tense: Tense,
    horizon: Horizon,
}

impl Question {
    /// Plans the SQL that the call gives.
    async fn plan(&self) -> twinlake_contracts::Result<()> {
        for role in &self.asked {
            self.wanted.plan(&self.twins, role, &self.tense).await?;
        }
        Ok(())
    }

    /// Reads the inputs and runs the operator off the async runtime; a question that is dropped stops it at its next step.
    async fn answer(self: Arc<Self>) -> twinlake_contracts::Result<RecordBatch> {
        let frozen = freeze(&self.twins, &self.wanted, &self.tense, &self.parameters, None).await?;
        let awaited = Arc::new(());
        let (question, waiting) = (self.clone(), Arc::downgrade(&awaited));
        let work = move || {
            let operator = question.twins.operators().get(&question.wanted.operator)?;
            let spec = operator.describe();
            // Those of the demand have had their effect.
            let is_own = |name: &str| spec.parameters.iter().any(|spec| spec.name == name);
            let own = question.parameters.iter().filter(|(name, _)| is_own(name));
            let own = own.map(|(name, value)| (name.clone(), value.clone())).collect();
            let progress = |_: f64, _: &str| waiting.strong_count() > 0;
            let outcome = operator
                .run(&frozen.snapshot, question.horizon, question.seed, &own, &progress)
                .map_err(|error| question.explained(error, &spec))?;
            let shape = output_shape(&spec, Some(&question.output))?;
            rows_of_outcome(outcome, spec.name, shape, UNCONVERGED)
        };
        let rows = tokio::task::spawn_blocking(work).await;
        drop(awaited);
        rows.map_err(|error| Error::internal(format!("the operator broke off: {error}")))?
    }

    /// What the operator says of its tables, with what may be done about it here.
    fn explained(&self, error: Error, spec: &OperatorSpec) -> Error {
        let Error::Config(known) = &error else { return error };
        let failed = Error::config(format!("{}: {}", spec.name, known.message));
        let missing = spec.inputs.iter().find(|shape| {
            !self.wanted.inputs.contains_key(shape.role)
                && known.message.contains(&format!("needs a table '{}'", shape.role))
        });
        match (missing, &known.help, &self.of_model) {
            (Some(shape), ..) => {
                let columns: Vec<&str> = shape.columns.iter().map(|(name, ..)| *name).collect();
                failed.with_help(format!(
                    "give it in SQL: {} => 'SELECT {} FROM …'",
                    shape.role,
                    columns.join(", ")
                ))
            }
            (None, Some(help), _) => failed.with_help(help.clone()),
            (None, None, Some(model)) => failed.with_help(format!(
                "what the call does not give is of twin model '{model}'; role => NULL leaves an input out, model => '' all of them"
            )),
            (None, None, None) => failed,
        }
    }
}

/// The answer as a table.
struct Answer {
    question: Arc<Question>,
    answer: Arc<dyn TableProvider>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("operator", &self.question.wanted.operator).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Answer {
    fn schema(&self) -> SchemaRef {
        self.answer.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.question.plan().await.map_err(through)?;
        self.answer.scan(session, projection, filters, limit).await
    }
}
