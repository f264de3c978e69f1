//! `/v1/scenarios`: what would be, asked, created, dropped and run.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use twinlake_contracts::{Error, Parameters, format_us};
use twinlake_twin::{ExecutedRun, Execution, ExecutionStatus, Scenario, ScenarioChange};
use utoipa::ToSchema;

use crate::http::App;
use crate::http::problem::Problem;
use crate::http::sql::read_body;

/// All scenarios.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Scenarios {
    /// By name.
    scenarios: Vec<ScenarioState>,
}

/// A scenario.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScenarioState {
    /// Its name in `twin.scenario`, SQL functions and here.
    name: String,
    /// What is supposed, in a sentence.
    description: String,
    /// The name of its file, or `created`.
    source: String,
    /// Where it leaves the city as observed, RFC 3339; `null`: nowhere.
    fork_at: Option<String>,
    /// What was known at the fork, RFC 3339; `null`: all that is known of the time before it.
    fork_known_at: Option<String>,
    /// How long after the fork its future reaches, in seconds; `null`: an instant.
    horizon_s: Option<f64>,
    /// What is set otherwise; of overrides by key, how many there are (`row_count`).
    #[schema(value_type = Vec<Object>)]
    overrides: Value,
    /// Operator and parameters of all its runs.
    #[schema(value_type = Object)]
    parameters: BTreeMap<String, Parameters>,
    /// What is run, in order.
    #[schema(value_type = Vec<Object>)]
    runs: Value,
    /// What is varied; `null`: nothing.
    #[schema(value_type = Option<Object>)]
    ensemble: Value,
    /// The newest execution of the scenario as it is; `null` if it has not been run.
    execution_id: Option<String>,
    /// Where it is.
    address: String,
}

impl ScenarioState {
    fn new(app: &App, scenario: &Scenario) -> Self {
        let instant = |us: Option<i64>| us.map(format_us);
        Self {
            name: scenario.name.clone(),
            description: scenario.description.clone(),
            source: scenario.source.clone(),
            fork_at: instant(scenario.fork_at_us),
            fork_known_at: instant(scenario.fork_known_at_us),
            horizon_s: scenario.horizon_s,
            overrides: serde_json::json!(scenario.overrides),
            parameters: scenario.parameters.clone(),
            runs: serde_json::json!(scenario.runs),
            ensemble: serde_json::json!(scenario.ensemble),
            execution_id: app.twins.newest_execution(scenario).map(|newest| newest.execution_id.clone()),
            address: format!("/v1/scenarios/{}", scenario.name),
        }
    }
}

/// A scenario on its way through its runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecutionState {
    /// Names the execution.
    execution_id: String,
    /// The scenario.
    scenario: String,
    /// `running`, `succeeded` or `failed`.
    status: &'static str,
    /// How many members have ended; those of an execution that is over all have.
    #[serde(skip_serializing_if = "Option::is_none")]
    members_done: Option<u32>,
    /// Of how many, the scenario as it is written among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<u32>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When it began, RFC 3339.
    started_at: String,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    /// Its runs, by member and place; empty before the end.
    runs: Vec<RunOfScenario>,
}

/// A run of a member.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunOfScenario {
    /// The member; 0 is the scenario as it is written.
    member: u32,
    /// Its place among the runs of the scenario, from 1.
    place: u32,
    /// The operator.
    operator: String,
    /// The twin model that shows its result.
    model: String,
    /// The run.
    run_id: String,
    /// Whether its rows were there before: an equal run is not computed again.
    reused: bool,
    /// Where its figures and rows are.
    address: String,
}

impl From<ExecutedRun> for RunOfScenario {
    fn from(run: ExecutedRun) -> Self {
        let ExecutedRun { member, place, operator, model, run_id, reused } = run;
        let address = format!("/v1/simulations/{run_id}");
        Self { member, place, operator, model, run_id, reused, address }
    }
}

impl From<Execution> for ExecutionState {
    fn from(execution: Execution) -> Self {
        let (status, members_done, members, error) = match execution.status {
            ExecutionStatus::Running { members_done, members } => {
                ("running", Some(members_done), Some(members), None)
            }
            ExecutionStatus::Succeeded => ("succeeded", None, None, None),
            ExecutionStatus::Failed { error } => ("failed", None, None, Some(error)),
        };
        Self {
            execution_id: execution.execution_id,
            scenario: execution.scenario,
            status,
            members_done,
            members,
            error,
            started_at: format_us(execution.started_at_us),
            finished_at: execution.finished_at_us.map(format_us),
            runs: execution.runs.into_iter().map(RunOfScenario::from).collect(),
        }
    }
}

/// The scenarios.
#[utoipa::path(get, path = "/v1/scenarios", tag = "scenarios", operation_id = "scenarios",
    responses((status = 200, description = "Those of files and those that were created, by name", body = Scenarios)))]
pub(crate) async fn list(State(app): State<App>) -> Json<Scenarios> {
    let scenarios = app.twins.scenarios();
    Json(Scenarios {
        scenarios: scenarios.iter().map(|scenario| ScenarioState::new(&app, scenario)).collect(),
    })
}

/// A scenario.
#[utoipa::path(get, path = "/v1/scenarios/{name}", tag = "scenarios", operation_id = "scenario",
    params(("name" = String, Path, description = "The scenario")),
    responses(
        (status = 200, description = "The scenario", body = ScenarioState),
        (status = 404, description = "No such scenario", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<ScenarioState>, Problem> {
    let scenario = app.twins.scenario(&name)?;
    Ok(Json(ScenarioState::new(&app, &scenario)))
}

/// Creates a scenario, or replaces the created one of that name.
///
/// The body is what a file in `scenarios` holds, in TOML or as JSON; its name may be left away. It is durable when the answer comes,
/// and seen by every door. The same body again changes nothing; a fork at `now` stays where it is.
#[utoipa::path(put, path = "/v1/scenarios/{name}", tag = "scenarios", operation_id = "scenario_put",
    params(("name" = String, Path, description = "The scenario")),
    request_body(content((Object = "application/json"), (String = "application/toml"))),
    responses(
        (status = 200, description = "It replaced another one, or was there", body = ScenarioState),
        (status = 201, description = "There was none of that name", body = ScenarioState),
        (status = 400, description = "It cannot be; the problem says where", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither TOML nor JSON", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A system behind failed", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn put(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let media = media(&headers);
    if !["application/json", "application/toml", "text/x-toml", "text/plain", ""].contains(&media.as_str()) {
        return Err(unsupported(format!("a scenario of type '{media}' is not understood"))
            .with_help("application/toml or application/json"));
    }
    let body = read_body(body)?;
    let text = std::str::from_utf8(&body).map_err(|_| Problem::bad_request("the body is not UTF-8 text"))?;
    let (scenario, change) = app.twins.create_scenario(Some(&name), text).await?;
    let status = if change == ScenarioChange::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(ScenarioState::new(&app, &scenario))).into_response())
}

/// Drops a created scenario.
///
/// What was run in it stays in the tables of its runs.
#[utoipa::path(delete, path = "/v1/scenarios/{name}", tag = "scenarios", operation_id = "scenario_delete",
    params(("name" = String, Path, description = "The scenario")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "It is the scenario of a file", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such scenario", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    app.twins.drop_scenario(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a scenario.
///
/// All its runs in order, for each member of its ensemble; equal runs are answered from their tables. `Location` says where the
/// execution can be followed. While the same scenario is under way, that execution is the answer.
#[utoipa::path(post, path = "/v1/scenarios/{name}/runs", tag = "scenarios", operation_id = "scenario_run",
    params(("name" = String, Path, description = "The scenario")),
    request_body(content = Object, description = "Nothing, or an empty object; its type must be application/json"),
    responses(
        (status = 202, description = "Begun", body = ExecutionState, headers(("location" = String, description = "Where the execution is"))),
        (status = 400, description = "The scenario says of nothing that it is run", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such scenario", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The type is not JSON", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn run(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // A web page cannot send this type to another origin without asking first, so it cannot start runs.
    if media(&headers) != "application/json" {
        return Err(unsupported("the type must be application/json".to_owned()));
    }
    let execution = app.twins.start_scenario(&name)?;
    let location = format!("/v1/scenarios/{name}/runs/{}", execution.execution_id);
    let state = ExecutionState::from(execution);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(state)).into_response())
}

/// An execution of a scenario: where it is, and when it is done, its runs.
#[utoipa::path(get, path = "/v1/scenarios/{name}/runs/{execution_id}", tag = "scenarios", operation_id = "scenario_execution",
    params(
        ("name" = String, Path, description = "The scenario"),
        ("execution_id" = String, Path, description = "The execution"),
    ),
    responses(
        (status = 200, description = "The execution", body = ExecutionState),
        (status = 404, description = "No such execution; all that succeeded are in the table meta.scenario_runs", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn execution(
    State(app): State<App>,
    Path((name, execution_id)): Path<(String, String)>,
) -> Result<Json<ExecutionState>, Problem> {
    let execution = app.twins.execution(&execution_id)?;
    if execution.scenario != name {
        return Err(Error::not_found("execution", execution_id, []).into());
    }
    Ok(Json(execution.into()))
}

fn media(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unsupported(detail: String) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
}
