//! `hindcast(…)`: what would have been said at an instant of the past, held against what was observed afterwards.
//!
//! The city is forked at that instant, the operator runs, and each observation after it (within the horizon, if there is one) is
//! paired with what was said of the same instance: of several times said, the last one not after the observation. The run is one
//! as any other: recorded in `meta.runs`, and answered from its table when it is asked again. What was not yet known at the fork is
//! left out when the scenario says so (`[fork] known_at`).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
use datafusion::common::plan_err;
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use twinlake_contracts::{Error, format_us, timestamp_type};
use twinlake_query::{Arguments, Session, Tense};

use crate::Twins;
use crate::effect::Effect;
use crate::model::{SimulationBinding, TwinModel};
use crate::runs::SimulationRequest;
use crate::scenario::Scenario;
use crate::simulated::RUN_ID;
use crate::snapshot::session_in;
use crate::view::through;

/// The unit of flows that GEH is made for.
const VEHICLES_AN_HOUR: &str = "veh/h";
/// The columns of observations beside the model's key.
const OBSERVED: &str = "observed";
const TIME: &str = "ts";

/// Adds `hindcast` and `hindcast_pairs` to a session.
pub(crate) fn register(twins: &Arc<Twins>, context: &SessionContext) {
    for scored in [true, false] {
        let function = HindcastFunction { twins: twins.clone(), scored };
        context.register_udtf(function.name(), Arc::new(function));
    }
}

/// `hindcast(scenario, model, predicted, observed [, horizon_s] [, operator])`, or with the pairs in place of their scores.
struct HindcastFunction {
    twins: Arc<Twins>,
    scored: bool,
}

impl HindcastFunction {
    fn name(&self) -> &'static str {
        if self.scored { "hindcast" } else { "hindcast_pairs" }
    }
}

impl std::fmt::Debug for HindcastFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the past is left.
#[derive(Debug, Clone)]
enum Fork {
    /// Where a scenario leaves it, with what it sets and runs.
    Scenario(Arc<Scenario>),
    /// At an instant, with the city as it was.
    Instant(i64),
}

#[derive(Clone)]
struct Hindcast {
    twins: Arc<Twins>,
    fork: Fork,
    fork_us: i64,
    horizon_s: Option<f64>,
    model: Arc<TwinModel>,
    binding: Arc<SimulationBinding>,
    predicted: String,
    observed: String,
}

impl TableFunctionImpl for HindcastFunction {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let function = self.name();
        let mut given = Arguments::parse(function, arguments.exprs())?;
        let names = ["scenario", "model", "predicted", "observed", "horizon_s", "operator"];
        given.name_positional(&names)?;
        given.only(&names)?;
        let (Some(model), Some(predicted), Some(observed)) =
            (given.text("model")?, given.text("predicted")?, given.text("observed")?)
        else {
            return plan_err!(
                "{function} needs a scenario or an instant, a model, what is predicted and what was observed, for example \
                 {function}('last-week', 'road_segment', 'flow_vph', 'SELECT road_segment_id, ts, count AS observed FROM …')"
            );
        };
        let (fork, fork_us) = self.fork(&given)?;
        let model = self.twins.model(&model).map_err(through)?;
        let operator = given.text("operator")?;
        let binding = binding(&model, &predicted, operator.as_deref()).map_err(through)?;
        let observed = observations(&model, &observed).map_err(through)?;
        let of_scenario = match &fork {
            Fork::Scenario(scenario) => scenario.horizon_s,
            Fork::Instant(_) => None,
        };
        let horizon_s = given.number("horizon_s")?.or(of_scenario);
        if horizon_s.is_some_and(|horizon_s| !horizon_s.is_finite() || horizon_s <= 0.0) {
            return plan_err!("{function}: 'horizon_s' must be greater than 0");
        }
        let hindcast = Hindcast {
            twins: self.twins.clone(),
            fork,
            fork_us,
            horizon_s,
            model,
            binding,
            predicted,
            observed,
        };
        let scored = self.scored;
        let schema = if scored { scores_schema() } else { pairs_schema(&hindcast.model).map_err(through)? };
        let wanted = schema.clone();
        Effect::table(schema, move || {
            let (hindcast, wanted) = (hindcast.clone(), wanted.clone());
            async move { hindcast.answer(scored, &wanted).await }
        })
    }
}

impl HindcastFunction {
    fn fork(&self, given: &Arguments) -> Result<(Fork, i64)> {
        let function = self.name();
        let text = given.get("scenario").and_then(|value| value.try_as_str().flatten().map(str::to_owned));
        let unknown = match text.map(|name| self.twins.scenario(&name)) {
            Some(Ok(scenario)) => {
                let Some(fork_us) = scenario.fork_at_us else {
                    return plan_err!(
                        "{function}: the scenario '{}' has no fork, so nothing comes after it",
                        scenario.name
                    );
                };
                return Ok((Fork::Scenario(scenario), fork_us));
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        match (given.instant_us("scenario"), unknown) {
            (Ok(Some(fork_us)), _) => Ok((Fork::Instant(fork_us), fork_us)),
            // Neither a scenario nor an instant: most likely the name of a scenario.
            (_, Some(error)) => Err(through(error)),
            (Err(error), None) => Err(error),
            (Ok(None), None) => {
                plan_err!("{function} needs a scenario, or the instant at which the past is left")
            }
        }
    }
}

/// The binding that gives a column.
fn binding(
    model: &TwinModel,
    column: &str,
    operator: Option<&str>,
) -> twinlake_contracts::Result<Arc<SimulationBinding>> {
    let mut bound = model.simulation.iter();
    let found = bound.find(|binding| {
        binding.columns.contains_key(column) && operator.is_none_or(|operator| binding.operator == operator)
    });
    found.cloned().map(Arc::new).ok_or_else(|| {
        let known = model.simulation.iter().flat_map(|binding| binding.columns.keys());
        Error::not_found("simulated column", column, known.map(String::as_str))
    })
}

/// The SQL of the observations: as given, or the readings of a property of the model.
fn observations(model: &TwinModel, observed: &str) -> twinlake_contracts::Result<String> {
    let begins = observed.trim_start().to_lowercase();
    if ["select", "with", "(", "from", "values"].iter().any(|word| begins.starts_with(word)) {
        return Ok(observed.to_owned());
    }
    if !model.properties.contains_key(observed) {
        let known = model.properties.keys().map(String::as_str);
        return Err(Error::not_found("property", observed, known));
    }
    if model.telemetry.is_none() {
        return Err(Error::config(format!(
            "'{}' is a map, so nobody has observed '{observed}' over time",
            model.name
        ))
        .with_help(format!("give SQL with the columns {}, {TIME} and {OBSERVED}", model.key)));
    }
    Ok(format!(
        "SELECT \"{}\", valid_time AS {TIME}, \"{observed}\" AS {OBSERVED} FROM twin_at('{}_history', NULL) WHERE origin = 'observed'",
        model.key, model.name
    ))
}

fn pairs_schema(model: &TwinModel) -> twinlake_contracts::Result<SchemaRef> {
    let members = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    Ok(Arc::new(Schema::new(vec![
        Field::new("id", model.key_property()?.kind.data_type(), true),
        Field::new(TIME, timestamp_type(), true),
        Field::new("predicted", DataType::Float64, true),
        Field::new(OBSERVED, DataType::Float64, true),
        Field::new("members", members, true),
    ])))
}

/// The scores with what each of them is computed from.
const SCORES: [(&str, &str); 10] = [
    ("observations", "count(*)"),
    ("pairs", "count(predicted)"),
    ("members", "max(cardinality(members))"),
    ("rmse", "rmse(predicted, observed)"),
    ("mae", "mae(predicted, observed)"),
    ("bias", "bias(predicted, observed)"),
    ("geh", "avg(geh)"),
    ("geh_below_5", "avg(CASE WHEN geh < 5 THEN 1.0 WHEN geh >= 5 THEN 0.0 END)"),
    ("crps", "avg(crps(members, observed))"),
    ("crps_fair", "avg(crps_fair(members, observed))"),
];

fn scores_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let instant = |name: &str| Field::new(name, timestamp_type(), true);
    let mut fields =
        vec![text("scenario"), text("model"), text("predicted"), instant("fork_at"), instant("until")];
    fields.extend(SCORES.iter().enumerate().map(|(place, (name, _))| {
        Field::new(*name, if place < 3 { DataType::Int64 } else { DataType::Float64 }, true)
    }));
    Arc::new(Schema::new(fields))
}

impl Hindcast {
    async fn answer(&self, scored: bool, schema: &SchemaRef) -> twinlake_contracts::Result<RecordBatch> {
        let (run_id, members) = self.run().await?;
        let session = session_in(&self.twins, &Tense::default()).await?;
        let pairs = self.pairs_sql(&session, &run_id, &members).await?;
        let sql = if scored { self.scores_sql(&pairs) } else { format!("{pairs} ORDER BY id, {TIME}") };
        let batches = session.collect(&sql).await?;
        let found = batches.first().map_or_else(|| schema.clone(), RecordBatch::schema);
        let rows = concat_batches(&found, &batches)?;
        let columns = rows.columns().iter().zip(schema.fields());
        let columns =
            columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }

    /// The run as the scenario is written, and those of its members.
    async fn run(&self) -> twinlake_contracts::Result<(String, Vec<String>)> {
        let operator = self.binding.operator.as_str();
        let owner = self.binding.owner(&self.model.name);
        let mut request = SimulationRequest {
            operator: operator.to_owned(),
            model: Some(owner.to_owned()),
            ..SimulationRequest::default()
        };
        match &self.fork {
            Fork::Scenario(scenario) if !scenario.runs.is_empty() && scenario.member == 0 => {
                let execution = self.twins.run_scenario(&scenario.name).await?;
                let own = |run: &&crate::ExecutedRun| run.model == owner && run.operator == operator;
                let runs: Vec<_> = execution.runs.iter().filter(own).collect();
                let place = runs.iter().map(|run| run.place).max();
                let last = runs.into_iter().filter(|run| Some(run.place) == place);
                let (written, members): (Vec<_>, Vec<_>) = last.partition(|run| run.member == 0);
                let written = written.first().map(|run| run.run_id.clone());
                let written = written.ok_or_else(|| {
                    let message = format!(
                        "no run of the scenario '{}' is one of {operator} for '{}'",
                        scenario.name, self.model.name
                    );
                    Error::config(message).with_help("add it to the scenario's [[runs]]")
                })?;
                return Ok((written, members.into_iter().map(|run| run.run_id.clone()).collect()));
            }
            Fork::Scenario(scenario) => request.scenario = Some(scenario.name.clone()),
            Fork::Instant(us) => request.as_of_us = Some(*us),
        }
        let simulations = self.twins.simulations();
        let run_id = simulations.submit(request).await?;
        simulations.wait(&run_id).await?;
        Ok((run_id, Vec::new()))
    }

    /// `id`, `ts`, `predicted`, `observed`, `members`: a row an observation; `predicted` is null where nothing was said.
    async fn pairs_sql(
        &self,
        session: &Session,
        run_id: &str,
        members: &[String],
    ) -> twinlake_contracts::Result<String> {
        let frame = session.sql(&self.observed).await?;
        let given: Vec<String> = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
        let key = &self.model.key;
        for needed in [key.as_str(), OBSERVED] {
            if !given.iter().any(|column| column == needed) {
                return Err(Error::config(format!("the observations have no column '{needed}'")).with_help(format!(
                    "give SQL with the columns {key}, {OBSERVED} and, unless all of it is meant, {TIME}; given: {}",
                    given.join(", ")
                )));
            }
        }
        let (time, within) = if given.iter().any(|column| column == TIME) {
            let us = timestamp_type();
            let after = format!("{TIME} > arrow_cast('{}', '{us}')", format_us(self.fork_us));
            let until = self
                .until_us()
                .map(|until| format!(" AND {TIME} <= arrow_cast('{}', '{us}')", format_us(until)));
            (format!("arrow_cast({TIME}, '{us}')"), format!(" AND {after}{}", until.unwrap_or_default()))
        } else {
            (format!("arrow_cast(NULL, '{}')", timestamp_type()), String::new())
        };
        let (table, column) = (&self.binding.table, &self.predicted);
        let said = format!(
            "\"{key}\" AS id, valid_time AS said_at FROM {table} WHERE \"{column}\" IS NOT NULL AND {RUN_ID}"
        );
        let listed: Vec<String> = members.iter().map(|run_id| format!("'{run_id}'")).collect();
        let members = match listed.as_slice() {
            [] => "CAST(NULL AS DOUBLE[]) AS members".to_owned(),
            _ => "e.members".to_owned(),
        };
        let ensemble = match listed.as_slice() {
            [] => String::new(),
            _ => format!(
                " LEFT JOIN (SELECT id, said_at, array_agg(value ORDER BY {RUN_ID}) AS members FROM \
                 (SELECT CAST(\"{column}\" AS DOUBLE) AS value, {RUN_ID}, {said} IN ({})) GROUP BY id, said_at) AS e \
                 ON q.id = e.id AND q.said_at IS NOT DISTINCT FROM e.said_at",
                listed.join(", ")
            ),
        };
        let kind = self.model.key_property()?.kind.data_type();
        Ok(format!(
            "SELECT q.id, q.{TIME}, q.predicted, q.{OBSERVED}, {members} FROM \
             (SELECT *, row_number() OVER (PARTITION BY n ORDER BY said_at DESC NULLS LAST) AS rank FROM \
             (SELECT o.*, p.predicted, p.said_at FROM \
             (SELECT row_number() OVER () AS n, arrow_cast(\"{key}\", '{kind}') AS id, {time} AS {TIME}, \
             CAST({OBSERVED} AS DOUBLE) AS {OBSERVED} FROM ({}) AS given WHERE {OBSERVED} IS NOT NULL{within}) AS o \
             LEFT JOIN (SELECT CAST(\"{column}\" AS DOUBLE) AS predicted, {said} = '{run_id}') AS p \
             ON o.id = p.id AND (o.{TIME} IS NULL OR p.said_at IS NULL OR p.said_at <= o.{TIME}))) AS q{ensemble} WHERE q.rank = 1",
            self.observed
        ))
    }

    fn until_us(&self) -> Option<i64> {
        let length_us = (self.horizon_s? * 1e6).round() as i64;
        Some(self.fork_us.saturating_add(length_us))
    }

    fn scores_sql(&self, pairs: &str) -> String {
        let instant = |us: Option<i64>| {
            let text = us.map_or_else(|| "NULL".to_owned(), |us| format!("'{}'", format_us(us)));
            format!("arrow_cast({text}, '{}')", timestamp_type())
        };
        let scenario = match &self.fork {
            Fork::Scenario(scenario) => format!("'{}'", scenario.name),
            Fork::Instant(_) => "CAST(NULL AS VARCHAR)".to_owned(),
        };
        let is_flow =
            self.binding.columns.get(&self.predicted).is_some_and(|column| column.unit == VEHICLES_AN_HOUR);
        let geh = if is_flow { "geh(predicted, observed)" } else { "CAST(NULL AS DOUBLE)" };
        let scores: Vec<String> = SCORES.iter().map(|(name, sql)| format!("{sql} AS {name}")).collect();
        format!(
            "SELECT {scenario} AS scenario, '{}' AS model, '{}' AS predicted, {} AS fork_at, {} AS until, {} \
             FROM (SELECT *, {geh} AS geh FROM ({pairs}))",
            self.model.name,
            self.predicted,
            instant(Some(self.fork_us)),
            instant(self.until_us()),
            scores.join(", ")
        )
    }
}
