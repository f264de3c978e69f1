//! `POST /v1/simulations`, `/v1/simulations/{run_id}` and its result.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use twinlake_contracts::{Parameters, parse_us};
use twinlake_twin::{Run, RunStatus, SimulationRequest};
use utoipa::ToSchema;

use crate::http::App;
use crate::http::body::{Format, respond};
use crate::http::problem::Problem;
use crate::http::sql::{Tense, read_body, read_json};
use crate::json::{Column, RowStyle};

/// A run to be made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operator": "traffic_assignment", "scenario": "bridge-closed", "seed": 1, "parameters": {}}))]
pub(crate) struct SimulationBody {
    /// The operator.
    operator: String,
    /// The twin model whose simulation is meant, if several have one of the operator.
    model: Option<String>,
    /// The scenario; the city as it is, if absent.
    scenario: Option<String>,
    /// The seed of operators that draw random numbers; 0, if absent.
    #[serde(default)]
    seed: u64,
    /// Parameters of the operator; those that are absent have their defaults.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: Parameters,
    /// The instant of the snapshot, RFC 3339. A scenario with a fork has its own; without either, now.
    as_of: Option<String>,
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunState {
    /// Names the run. Equal requests on equal tables have the same.
    run_id: String,
    /// `queued`, `running`, `succeeded` or `failed`.
    status: &'static str,
    /// How far a run that is running is, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction: Option<f64>,
    /// What a run that is running does.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Why a run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The operator.
    operator: String,
    /// The scenario; `null`: the city as it is.
    scenario: Option<String>,
    /// The seed.
    seed: u64,
    /// All parameters, defaults filled in.
    #[schema(value_type = Object)]
    parameters: Parameters,
    /// SHA-256 in hex of all that decides the result.
    fingerprint: String,
    /// The version of each table that was read.
    inputs: BTreeMap<String, u64>,
    /// The lake table with the rows.
    table: String,
    /// Whether the rows were there before: an equal run is not computed again.
    reused: bool,
    /// The figures that tell whether to believe it (objective, gap, iterations); empty before the end.
    #[schema(value_type = Object)]
    summary: Map<String, Value>,
    /// How many rows; 0 before the end.
    rows: u64,
    /// Where its rows are.
    result: String,
}

impl From<Run> for RunState {
    fn from(run: Run) -> Self {
        let (status, fraction, message, error) = match run.status {
            RunStatus::Queued => ("queued", None, None, None),
            RunStatus::Running { fraction, message } => ("running", Some(fraction), Some(message), None),
            RunStatus::Succeeded => ("succeeded", None, None, None),
            RunStatus::Failed { error } => ("failed", None, None, Some(error)),
        };
        Self {
            result: format!("{}/result", address(&run.run_id)),
            run_id: run.run_id,
            status,
            fraction,
            message,
            error,
            operator: run.operator,
            scenario: run.scenario,
            seed: run.seed,
            parameters: run.parameters,
            fingerprint: run.fingerprint,
            inputs: run.inputs,
            table: run.table,
            reused: run.reused,
            summary: run.summary,
            rows: run.rows,
        }
    }
}

/// The rows of a run.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "the shape of a streamed answer, for the OpenAPI document")]
pub(crate) struct RunResult {
    /// The run.
    run_id: String,
    /// The figures that tell whether to believe it.
    #[schema(value_type = Object)]
    summary: Map<String, Value>,
    /// The columns.
    columns: Vec<Column>,
    /// One object a row.
    rows: Vec<Map<String, Value>>,
    /// How many. It is the last member: an answer that has it is complete.
    row_count: u64,
}

/// Asks for a simulation.
///
/// The city is frozen in the scenario when the request is taken. `Location` says where the run can be followed. An
/// equal run that was made before is not computed again.
#[utoipa::path(post, path = "/v1/simulations", tag = "simulations", operation_id = "simulate",
    request_body = SimulationBody,
    responses(
        (status = 202, description = "Taken", body = RunState, headers(("location" = String, description = "Where the run is"))),
        (status = 400, description = "The request cannot be run", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such operator or scenario", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A system behind failed", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A web page cannot send this type to another origin without asking first, so it cannot start runs.
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "the body must be application/json",
        ));
    }
    let body: SimulationBody = read_json(&read_body(body)?)?;
    let as_of_us = match &body.as_of {
        Some(text) => {
            let parsed = parse_us(text).ok_or_else(|| {
                Problem::bad_request(format!("as_of: '{text}' is not a time stamp"))
                    .with_help("write for example 2018-10-09T04:32:53Z")
            });
            Some(parsed?)
        }
        None => None,
    };
    let simulations = app.twins.simulations();
    let request = SimulationRequest {
        operator: body.operator,
        model: body.model,
        scenario: body.scenario,
        seed: body.seed,
        parameters: body.parameters,
        as_of_us,
    };
    let run_id = simulations.submit(request).await?;
    let state = RunState::from(simulations.status(&run_id).await?);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, address(&run_id))], Json(state)).into_response())
}

/// A run: where it is, and when it is done, its figures.
#[utoipa::path(get, path = "/v1/simulations/{run_id}", tag = "simulations", operation_id = "simulation_run",
    params(("run_id" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The run", body = RunState),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn run(
    State(app): State<App>,
    Path(run_id): Path<String>,
) -> Result<Json<RunState>, Problem> {
    Ok(Json(app.twins.simulations().status(&run_id).await?.into()))
}

/// The rows of a run that succeeded.
#[utoipa::path(get, path = "/v1/simulations/{run_id}/result", tag = "simulations", operation_id = "simulation_result",
    params(("run_id" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The rows", content(
            (RunResult = "application/json"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The run has no rows: not yet, or it failed", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn result(
    State(app): State<App>,
    Path(run_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = Format::accepted(&headers)?;
    let simulations = app.twins.simulations();
    let run = simulations.status(&run_id).await?;
    match &run.status {
        RunStatus::Succeeded => {}
        RunStatus::Failed { error } => {
            let detail = format!("run '{run_id}' failed: {error}");
            return Err(Problem::new(StatusCode::CONFLICT, "run-failed", detail));
        }
        RunStatus::Queued | RunStatus::Running { .. } => {
            let detail = format!("run '{run_id}' is not finished");
            return Err(Problem::new(StatusCode::CONFLICT, "run-not-finished", detail)
                .with_help(format!("follow it at {}", address(&run_id))));
        }
    }
    let sql = simulations.result_sql(&run)?;
    let answer = app.ask(&Tense::default(), |session| async move { Ok(session.sql(&sql).await?) }).await?;
    let head = Map::from_iter([
        ("run_id".to_owned(), run.run_id.into()),
        ("summary".to_owned(), Value::Object(run.summary)),
    ]);
    respond(format, head, answer, RowStyle::Object)
}

fn address(run_id: &str) -> String {
    format!("/v1/simulations/{run_id}")
}
