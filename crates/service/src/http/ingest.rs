//! `POST /v1/ingest/{table}`: rows as JSON or Arrow into a table.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use twinlake_contracts::{BodyFormat, Delivery, IntakeError, Receipt, TableName};
use utoipa::ToSchema;

use crate::http::App;
use crate::http::body::ARROW_STREAM;
use crate::http::problem::Problem;
use crate::http::sql::read_body;

/// The header with the client's own name of a delivery.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What became of the rows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ingested {
    /// Rows that landed: durable, and seen by every query from now on.
    rows: u64,
    /// Rows that were refused; each is a row of `meta.rejects`.
    refused: u64,
    /// The first of them.
    parts: Vec<Refused>,
    /// Whether a delivery with this `Idempotency-Key` had landed before, so that this one landed nothing.
    repeated: bool,
}

/// A row that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Refused {
    /// Its number in the body, from 1.
    row: u64,
    /// A short, stable code.
    reason: String,
    /// What is wrong.
    detail: String,
}

impl From<Receipt> for Ingested {
    fn from(receipt: Receipt) -> Self {
        let parts = receipt.parts.into_iter().map(|part| Refused {
            row: part.place,
            reason: part.reason.to_string(),
            detail: part.detail,
        });
        Self {
            rows: receipt.rows,
            refused: receipt.refused,
            parts: parts.collect(),
            repeated: receipt.repeated,
        }
    }
}

/// Adds rows to a table.
///
/// JSON (an array of objects, one object, or one object a line) or an Arrow IPC stream, plain or with
/// `Content-Encoding: gzip`. A table that is not there is created; columns that are new are added. When the answer
/// comes, the rows are durable and every query sees them.
#[utoipa::path(
    post, path = "/v1/ingest/{table}", tag = "ingest", operation_id = "ingest",
    params(
        ("table" = String, Path, description = "`schema.table`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The client's own name of this delivery: a repetition lands nothing")),
    request_body(content(
        (serde_json::Value = "application/json"), (String = "application/x-ndjson"),
        (Vec<u8> = "application/vnd.apache.arrow.stream"))),
    responses(
        (status = 200, description = "At least one row landed, or none was given", body = Ingested),
        (status = 400, description = "The body or the name of the table is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither JSON nor Arrow", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every row was refused", body = Ingested),
        (status = 429, description = "Too much waits to be stored: come again after `Retry-After`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The rows could not be stored", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ingest(
    State(app): State<App>,
    Path(table): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let table = TableName::parse(&table)?;
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let format = match media.as_str() {
        "application/json" | "application/x-ndjson" | "application/jsonl" => BodyFormat::JsonRows { table },
        ARROW_STREAM => BodyFormat::ArrowStream { table },
        other => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                format!("a body of type '{other}' is not understood"),
            )
            .with_help(format!("application/json, application/x-ndjson or {ARROW_STREAM}")));
        }
    };
    let receipt = take(&app, &headers, format, read_body(body)?).await?;
    let none = receipt.rows == 0 && receipt.refused > 0;
    let status = if none { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Ok((status, Json(Ingested::from(receipt))).into_response())
}

/// Hands a body in.
pub(crate) async fn take(
    app: &App,
    headers: &HeaderMap,
    format: BodyFormat,
    body: Bytes,
) -> Result<Receipt, Untaken> {
    let intake = app.intake.as_ref().ok_or(Untaken::Closed)?;
    let key = headers.get(IDEMPOTENCY_KEY).map(HeaderValue::to_str).transpose();
    let key = key.map_err(|_| {
        Untaken::Intake(IntakeError::refused("invalid_key", "the Idempotency-Key is not ASCII text"))
    })?;
    let delivery = Delivery { body, format, key: key.map(str::to_owned) };
    intake.take(delivery).await.map_err(Untaken::Intake)
}

/// Why a body was not taken.
pub(crate) enum Untaken {
    /// This process takes no bodies.
    Closed,
    /// The intake says why.
    Intake(IntakeError),
}

impl From<Untaken> for Problem {
    fn from(untaken: Untaken) -> Self {
        match untaken {
            Untaken::Closed => Self::new(StatusCode::NOT_FOUND, "no-ingest", "this process takes no rows")
                .with_help("twinlake serve takes rows"),
            Untaken::Intake(IntakeError::Busy { retry_after }) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "too much waits to be stored")
                    .retry_after(retry_after)
            }
            Untaken::Intake(IntakeError::Refused { reason, message }) => {
                Self::new(StatusCode::BAD_REQUEST, &reason.replace('_', "-"), message)
            }
            Untaken::Intake(IntakeError::Failed(error)) => error.into(),
        }
    }
}
