//! The doors of InfluxDB's clients: line protocol at `/api/v2/write` (InfluxDB 2) and `/write` (InfluxDB 1), and the
//! few other addresses that clients call before they write.
//!
//! Answers are those that the clients of InfluxDB know: 204 when all lines landed; 400 with the reason when some did
//! not (the others landed); 413, 429 with `Retry-After`, 503. A user, password or token is not asked for and not looked
//! at. Queries are asked in SQL, at `/v1/sql`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use twinlake_contracts::{BodyFormat, IntakeError, Precision, Receipt};
use utoipa::ToSchema;

use crate::http::App;
use crate::http::ingest::{Untaken, take};
use crate::http::problem::Problem;

/// Clients look here for what they talk to; some refuse a server without it.
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-influxdb-version");
/// The line protocol of this version is spoken.
const VERSION: HeaderValue = HeaderValue::from_static("2.7-twinlake");
const ERROR_HEADER: HeaderName = HeaderName::from_static("x-influxdb-error");
/// How many lines at fault are named in an answer.
const TOLD: usize = 10;

/// Where lines go, in the words of InfluxDB 2.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct V2 {
    /// The bucket: the schema of the tables, one for each measurement.
    bucket: Option<String>,
    /// The unit of the time stamps: `ns` (default), `us`, `ms`, `s`.
    precision: Option<String>,
}

/// Where lines go, in the words of InfluxDB 1.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct V1 {
    /// The database: the schema of the tables, one for each measurement.
    db: Option<String>,
    /// The retention policy; a part of the schema's name when given.
    rp: Option<String>,
    /// The unit of the time stamps: `ns` (default), `u`, `ms`, `s`, `m`, `h`.
    precision: Option<String>,
}

/// An error as InfluxDB 2 tells it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct V2Error {
    /// A short, stable code.
    code: &'static str,
    /// What is wrong.
    message: String,
}

/// An error as InfluxDB 1 tells it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct V1Error {
    /// What is wrong.
    error: String,
}

/// What went wrong, before it takes the form of either version.
struct Trouble {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<u64>,
}

impl Trouble {
    fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid", message: message.into(), retry_after: None }
    }

    fn headers(&self, response: &mut Response) {
        response.headers_mut().insert(VERSION_HEADER, VERSION);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let line: String = self.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Ok(value) = HeaderValue::from_str(&line) {
            response.headers_mut().insert(ERROR_HEADER, value);
        }
    }

    fn v2(self) -> Response {
        let told = V2Error { code: self.code, message: self.message.clone() };
        let mut response = (self.status, Json(told)).into_response();
        self.headers(&mut response);
        response
    }

    fn v1(self) -> Response {
        let mut response = (self.status, Json(V1Error { error: self.message.clone() })).into_response();
        self.headers(&mut response);
        response
    }
}

impl From<Untaken> for Trouble {
    fn from(untaken: Untaken) -> Self {
        let (status, code) = match &untaken {
            Untaken::Intake(IntakeError::Busy { retry_after }) => {
                return Self {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    code: "too many requests",
                    message: "too much waits to be stored".to_owned(),
                    retry_after: Some(retry_after.as_secs().max(1)),
                };
            }
            Untaken::Intake(IntakeError::Refused { .. }) => (StatusCode::BAD_REQUEST, "invalid"),
            Untaken::Intake(IntakeError::Failed(_)) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Untaken::Closed => (StatusCode::NOT_FOUND, "not found"),
        };
        let problem = Problem::from(untaken);
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(5);
        Self { status, code, message: problem.detail, retry_after }
    }
}

/// Writes lines as the clients of InfluxDB 2 do.
#[utoipa::path(
    post, path = "/api/v2/write", tag = "ingest", operation_id = "influx_v2_write",
    params(V2), request_body(content = String, content_type = "text/plain"),
    responses(
        (status = 204, description = "Every line landed: durable, and seen by every query from now on"),
        (status = 400, description = "Lines are wrong; all others landed", body = V2Error),
        (status = 413, description = "The body is too large", body = V2Error),
        (status = 429, description = "Too much waits to be stored: come again after `Retry-After`", body = V2Error),
        (status = 503, description = "The lines could not be stored", body = V2Error),
    )
)]
pub(crate) async fn write_v2(
    State(app): State<App>,
    query: Result<Query<V2>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return Trouble::invalid(error.body_text()).v2(),
    };
    let Some(bucket) = query.bucket.filter(|bucket| !bucket.is_empty()) else {
        return Trouble::invalid("the parameter 'bucket' is missing").v2();
    };
    match write(&app, bucket, query.precision.as_deref(), &headers, body).await {
        Ok(()) => done(),
        Err(trouble) => trouble.v2(),
    }
}

/// Writes lines as the clients of InfluxDB 1 do.
#[utoipa::path(
    post, path = "/write", tag = "ingest", operation_id = "influx_v1_write",
    params(V1), request_body(content = String, content_type = "text/plain"),
    responses(
        (status = 204, description = "Every line landed: durable, and seen by every query from now on"),
        (status = 400, description = "Lines are wrong; all others landed", body = V1Error),
        (status = 413, description = "The body is too large", body = V1Error),
        (status = 429, description = "Too much waits to be stored: come again after `Retry-After`", body = V1Error),
        (status = 503, description = "The lines could not be stored", body = V1Error),
    )
)]
pub(crate) async fn write_v1(
    State(app): State<App>,
    query: Result<Query<V1>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return Trouble::invalid(error.body_text()).v1(),
    };
    let Some(database) = query.db.filter(|database| !database.is_empty()) else {
        return Trouble::invalid("database is required").v1();
    };
    let database = match query.rp.filter(|policy| !policy.is_empty()) {
        Some(policy) => format!("{database}/{policy}"),
        None => database,
    };
    match write(&app, database, query.precision.as_deref(), &headers, body).await {
        Ok(()) => done(),
        Err(trouble) => trouble.v1(),
    }
}

fn done() -> Response {
    (StatusCode::NO_CONTENT, [(VERSION_HEADER, VERSION)]).into_response()
}

async fn write(
    app: &App,
    database: String,
    precision: Option<&str>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(), Trouble> {
    let precision = match precision.filter(|text| !text.is_empty()) {
        None => Precision::default(),
        Some(text) => Precision::parse(text).ok_or_else(|| {
            Trouble::invalid(format!("the precision '{text}' is none of ns, us, ms, s, m, h"))
        })?,
    };
    let body = body.map_err(|error| Trouble {
        code: if error.status() == StatusCode::PAYLOAD_TOO_LARGE { "request too large" } else { "invalid" },
        status: error.status(),
        message: error.body_text(),
        retry_after: None,
    })?;
    let receipt = take(app, headers, BodyFormat::LineProtocol { database, precision }, body).await?;
    told(&receipt).map_or(Ok(()), |message| Err(Trouble::invalid(message)))
}

/// What is told of lines that did not land; `None` when all did.
fn told(receipt: &Receipt) -> Option<String> {
    if receipt.parts.is_empty() {
        return None; // all landed, or a repetition of a delivery that was answered before
    }
    let lines: Vec<String> = receipt
        .parts
        .iter()
        .take(TOLD)
        .map(|part| {
            let text = String::from_utf8_lossy(&part.text);
            format!("line {}: {} ({}): '{text}'", part.place, part.detail, part.reason)
        })
        .collect();
    let more = receipt.refused.saturating_sub(lines.len() as u64);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    Some(format!("partial write: {}{more} dropped={}", lines.join("; "), receipt.refused))
}

/// Whether anyone is there, as InfluxDB's clients ask.
#[utoipa::path(get, path = "/ping", tag = "ingest", operation_id = "influx_ping",
    responses((status = 204, description = "Someone is there")))]
pub(crate) async fn ping() -> Response {
    done()
}

/// The health of the service, as InfluxDB's clients ask for it.
#[utoipa::path(get, path = "/health", tag = "ingest", operation_id = "influx_health",
    responses((status = 200, description = "It lives", body = serde_json::Value)))]
pub(crate) async fn health() -> Response {
    let told = serde_json::json!({
        "name": "twinlake", "message": "ready for writes", "status": "pass", "checks": [],
        "version": env!("CARGO_PKG_VERSION"),
    });
    ([(VERSION_HEADER, VERSION)], Json(told)).into_response()
}

/// A statement of InfluxQL.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Statement {
    /// The statement.
    q: Option<String>,
}

/// `CREATE DATABASE`, which clients of InfluxDB 1 send before they write.
///
/// A database needs no making here: its tables come with their first rows. Other statements are refused.
#[utoipa::path(post, path = "/query", tag = "ingest", operation_id = "influx_v1_query",
    params(Statement),
    responses(
        (status = 200, description = "The database may be written to", body = serde_json::Value),
        (status = 400, description = "Another statement", body = V1Error)))]
pub(crate) async fn query_v1(
    query: Result<Query<Statement>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let mut statement = query.ok().and_then(|Query(query)| query.q).unwrap_or_default();
    if statement.is_empty()
        && let Ok(body) = &body
    {
        let form = url::form_urlencoded::parse(body);
        statement = form.into_iter().find(|(name, _)| name == "q").map_or(statement, |(_, q)| q.into_owned());
    }
    if statement.trim().to_ascii_uppercase().starts_with("CREATE DATABASE") {
        let told = serde_json::json!({ "results": [{ "statement_id": 0 }] });
        return ([(VERSION_HEADER, VERSION)], Json(told)).into_response();
    }
    Trouble::invalid("only CREATE DATABASE is known here; queries are asked in SQL at /v1/sql").v1()
}
