//! `GET /v1/twins`, `/v1/twins/{model}` and `/v1/twins/{model}/{key}`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::prelude::DataFrame;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use twinlake_contracts::{Error, suggest};
use twinlake_query::Session;
use twinlake_twin::{PropertyType, TwinModel};
use utoipa::ToSchema;

use crate::failure::Failure;
use crate::http::App;
use crate::http::body::{Format, internal, respond};
use crate::http::problem::Problem;
use crate::http::sql::Tense;
use crate::json::{Column, RowStyle, columns, printed, write_rows};

/// How many states an answer holds when nothing is said, and at most.
const USUAL_LIMIT: usize = 1_000;
const LARGEST_LIMIT: usize = 1_000_000;
/// Among how many keys a suggestion for an unknown one is looked for.
const SUGGESTED_AMONG: usize = 10_000;

/// The twin models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    /// By name.
    models: Vec<Model>,
}

/// What a twin model is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    /// Its name in SQL (`twin.<name>`) and here.
    name: String,
    /// What it is, in a sentence.
    description: String,
    /// The column that tells one instance from another.
    key: String,
    /// The columns of a state.
    columns: Vec<ModelColumn>,
    /// Where its states are.
    address: String,
}

/// A column of a state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelColumn {
    #[serde(flatten)]
    column: Column,
    /// The unit of its values; absent for a pure number or a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// What it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// Which states.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatesQuery {
    /// The instant asked about, RFC 3339; now, if absent.
    as_of: Option<String>,
    /// Only what was known at this instant, RFC 3339; all that is known now, if absent.
    known_at: Option<String>,
    /// The scenario; the city as it is, if absent.
    scenario: Option<String>,
    /// How many states at most, in the order of their keys: 1000 if absent, 1000000 at most.
    #[param(minimum = 1, maximum = 1_000_000)]
    limit: Option<usize>,
}

/// States of a model, in the order of their keys.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "the shape of a streamed answer, for the OpenAPI document")]
pub(crate) struct States {
    /// The model.
    model: String,
    /// The instant asked about, if one was given.
    as_of: Option<String>,
    /// The instant of knowledge, if one was given.
    known_at: Option<String>,
    /// The scenario, if one was given.
    scenario: Option<String>,
    /// The columns, with their types and the CRS of geometry.
    columns: Vec<Column>,
    /// One object a twin.
    rows: Vec<Map<String, Value>>,
    /// How many. It is the last member: an answer that has it is complete.
    row_count: u64,
}

/// The state of one twin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneState {
    /// The model.
    model: String,
    /// The key.
    key: String,
    /// The instant asked about, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    /// The instant of knowledge, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    known_at: Option<String>,
    /// The scenario, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<String>,
    /// The columns, with their types and the CRS of geometry.
    columns: Vec<Column>,
    /// The state: column and value.
    state: Map<String, Value>,
}

/// The twin models.
#[utoipa::path(get, path = "/v1/twins", tag = "twins", operation_id = "twin_models",
    responses((status = 200, description = "The models, by name", body = Models)))]
pub(crate) async fn models(State(app): State<App>) -> Json<Models> {
    Json(Models { models: app.twins.models().iter().map(|model| describe(model)).collect() })
}

fn describe(model: &TwinModel) -> Model {
    let described = columns(&model.schema()).into_iter().map(|column| {
        let property = model.properties.get(&column.name);
        ModelColumn {
            unit: property.map(|property| property.unit.clone()).filter(|unit| !unit.is_empty()),
            description: property.map(|property| property.description.clone()),
            column,
        }
    });
    Model {
        name: model.name.clone(),
        description: model.description.clone(),
        key: model.key.clone(),
        columns: described.collect(),
        address: format!("/v1/twins/{}", model.name),
    }
}

/// The states of a model's twins.
///
/// At most `limit` states, in the order of their keys. JSON or an Arrow stream, as `Accept` says.
#[utoipa::path(get, path = "/v1/twins/{model}", tag = "twins", operation_id = "twin_states",
    params(("model" = String, Path, description = "The twin model"), StatesQuery),
    responses(
        (status = 200, description = "The states", content(
            (States = "application/json"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such model or scenario", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too busy, or a system behind failed", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn states(
    State(app): State<App>,
    Path(name): Path<String>,
    query: Result<Query<StatesQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = Format::accepted(&headers)?;
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let limit = query.limit.unwrap_or(USUAL_LIMIT);
    if !(1..=LARGEST_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!("limit must be from 1 to {LARGEST_LIMIT}")));
    }
    let tense = Tense { as_of: query.as_of, known_at: query.known_at, scenario: query.scenario };
    let model = &*app.twins.model(&name)?;
    let answer = app
        .ask(&tense, |session| async move {
            let frame = table(&session, &model.name).await?;
            let sorted = frame.sort(vec![ident(&model.key).sort(true, false)])?;
            Ok(sorted.limit(0, Some(limit))?)
        })
        .await?;
    let mut head = Map::from_iter([("model".to_owned(), model.name.clone().into())]);
    head.extend(tense.head());
    respond(format, head, answer, RowStyle::Object)
}

/// The state of one twin.
///
/// The key is the rest of the path; it may hold slashes, encoded or not. The present of a model that is kept in memory is read
/// from there: rows of this process are in it at once, those of other processes within 200 ms.
#[utoipa::path(get, path = "/v1/twins/{model}/{key}", tag = "twins", operation_id = "twin_state",
    params(
        ("model" = String, Path, description = "The twin model"),
        ("key" = String, Path, description = "The twin's key; it may hold slashes (22/1095 or 22%2F1095)"),
        Tense),
    responses(
        (status = 200, description = "The state", body = OneState),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such model, scenario, or twin", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too busy, or a system behind failed", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn state(
    State(app): State<App>,
    Path((name, key)): Path<(String, String)>,
    query: Result<Query<Tense>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(tense) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let model = &*app.twins.model(&name)?;
    let Some(wanted) = key_literal(model, &key)? else {
        return Err(
            Problem::from(unknown(model, &key, None)).with_help("the keys of this model are integers")
        );
    };
    // The present in memory needs no plan, and no place among the queries.
    let present =
        if tense == Tense::default() { app.twins.present_of(&model.name, &key).await? } else { None };
    let (described, batch) = if let Some(batch) = present {
        app.metrics.query("http", "ok");
        (columns(&batch.schema()), (batch.num_rows() > 0).then_some(batch))
    } else {
        let answer = app
            .ask(&tense, |session| async move {
                Ok(table(&session, &model.name)
                    .await?
                    .filter(ident(&model.key).eq(wanted))?
                    .limit(0, Some(1))?)
            })
            .await?;
        (columns(answer.schema()), answer.collect().await?.into_iter().next())
    };
    let Some(batch) = batch else {
        let near = near(&app, &tense, model, &key).await?;
        return Err(unknown(model, &key, near.as_deref()).into());
    };
    let mut row = Vec::new();
    write_rows(&batch.slice(0, 1), RowStyle::Object, &mut true, &mut row);
    let state = serde_json::from_slice(&row).map_err(|error| internal(&error))?;
    let Tense { as_of, known_at, scenario } = tense;
    let one =
        OneState { model: model.name.clone(), key, as_of, known_at, scenario, columns: described, state };
    Ok(Json(one).into_response())
}

async fn table(session: &Session, model: &str) -> Result<DataFrame, Failure> {
    // The names of models are lower-case words.
    Ok(session.sql(&format!("SELECT * FROM twin.\"{model}\"")).await?)
}

/// The key as the model's type; `None` when it cannot be one.
fn key_literal(model: &TwinModel, key: &str) -> Result<Option<Expr>, Problem> {
    Ok(match model.key_property().map_err(Problem::from)?.kind {
        PropertyType::Int64 => key.parse::<i64>().ok().map(lit),
        _ => Some(lit(key)),
    })
}

fn unknown(model: &TwinModel, key: &str, near: Option<&str>) -> Error {
    Error::not_found(
        "twin",
        format!("{}/{key}", model.name),
        near.map(|near| format!("{}/{near}", model.name)).as_deref(),
    )
}

/// The existing key nearest to an unknown one.
async fn near(app: &App, tense: &Tense, model: &TwinModel, key: &str) -> Result<Option<String>, Problem> {
    let answer = app
        .ask(tense, |session| async move {
            let keys = table(&session, &model.name).await?.select(vec![ident(&model.key)])?;
            Ok(keys.limit(0, Some(SUGGESTED_AMONG))?)
        })
        .await?;
    let mut keys = Vec::new();
    for batch in answer.collect().await? {
        keys.extend((0..batch.num_rows()).map(|row| printed(batch.column(0), row)));
    }
    Ok(suggest(key, keys.iter().map(String::as_str)).map(str::to_owned))
}
