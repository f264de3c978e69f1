//! Answers as bodies: JSON or an Arrow IPC stream, sent batch by batch.
//!
//! No limit on rows: at most one batch waits in memory, and a client that reads slowly slows the query. An error
//! after the head has been sent breaks the connection off, so that a truncated answer never looks complete.

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::failure::Failure;
use crate::http::problem::Problem;
use crate::json::{RowStyle, columns, write_rows};

/// The media type of an Arrow IPC stream.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
const JSON: &str = "application/json";

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Arrow,
}

impl Format {
    /// What the `Accept` header prefers; JSON when it has no say.
    pub(crate) fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut ranges: Vec<(f32, String)> = Vec::new();
        for value in headers.get_all(header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default().to_ascii_lowercase();
                let quality = parts
                    .find_map(|part| part.strip_prefix("q="))
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(1.0);
                if !name.is_empty() && quality > 0.0 {
                    ranges.push((quality, name));
                }
            }
        }
        if ranges.is_empty() {
            return Ok(Self::Json);
        }
        ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranges
            .iter()
            .find_map(|(_, name)| match name.as_str() {
                ARROW_STREAM => Some(Self::Arrow),
                JSON | "application/*" | "*/*" | "application/problem+json" => Some(Self::Json),
                _ => None,
            })
            .ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_ACCEPTABLE,
                    "not-acceptable",
                    "no format that Accept names is offered",
                )
                .with_help(format!("{JSON} or {ARROW_STREAM}"))
            })
    }
}

/// An answer as a response. In JSON, `head` comes before `columns`, `rows` and `row_count`.
pub(crate) fn respond(
    format: Format,
    head: Map<String, Value>,
    answer: Answer,
    style: RowStyle,
) -> Result<Response, Problem> {
    match format {
        Format::Json => json(head, answer, style),
        Format::Arrow => arrow(answer),
    }
}

fn broken_off(failure: Failure) -> std::io::Error {
    // The problem's conversion logs what the client is not told.
    let problem = Problem::from(failure);
    tracing::warn!(detail = problem.detail, "an answer was broken off");
    std::io::Error::other(problem.detail)
}

fn json(mut head: Map<String, Value>, answer: Answer, style: RowStyle) -> Result<Response, Problem> {
    let described = serde_json::to_value(columns(answer.schema())).map_err(|error| internal(&error))?;
    head.insert("columns".to_owned(), described);
    let mut opening = serde_json::to_vec(&head).map_err(|error| internal(&error))?;
    opening.pop();
    opening.extend_from_slice(b",\"rows\":[");
    // The state: the rest of the answer (none after the end), the bytes to send first, whether no row was sent, rows.
    let state = (Some(answer), opening, true, 0_usize);
    let body = stream::try_unfold(state, move |(answer, mut bytes, mut first, mut count)| {
        Box::pin(async move {
            let Some(mut answer) = answer else { return Ok(None) };
            let next = answer.next().await.map_err(broken_off)?;
            let rest = if let Some(batch) = next {
                count += batch.num_rows();
                write_rows(&batch, style, &mut first, &mut bytes);
                Some(answer)
            } else {
                bytes.extend_from_slice(format!("],\"row_count\":{count}}}").as_bytes());
                None
            };
            Ok::<_, std::io::Error>(Some((Bytes::from(bytes), (rest, Vec::new(), first, count))))
        })
    });
    Ok(([(header::CONTENT_TYPE, JSON)], Body::from_stream(body)).into_response())
}

fn arrow(answer: Answer) -> Result<Response, Problem> {
    let writer = StreamWriter::try_new(Vec::new(), answer.schema()).map_err(|error| internal(&error))?;
    let state = (Some(answer), writer);
    let body = stream::try_unfold(state, |(answer, mut writer)| {
        Box::pin(async move {
            let Some(mut answer) = answer else { return Ok(None) };
            let rest = if let Some(batch) = answer.next().await.map_err(broken_off)? {
                write_batch(&mut writer, &batch, answer.schema())?;
                Some(answer)
            } else {
                writer.finish().map_err(std::io::Error::other)?;
                None
            };
            let bytes = std::mem::take(writer.get_mut());
            Ok::<_, std::io::Error>(Some((Bytes::from(bytes), (rest, writer))))
        })
    });
    Ok(([(header::CONTENT_TYPE, ARROW_STREAM)], Body::from_stream(body)).into_response())
}

/// Writes a batch under the schema of the stream's head: the engine's batches may differ from it in metadata.
fn write_batch(
    writer: &mut StreamWriter<Vec<u8>>,
    batch: &RecordBatch,
    schema: &arrow::datatypes::SchemaRef,
) -> std::io::Result<()> {
    let batch = if batch.schema_ref() == schema {
        batch.clone()
    } else {
        RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).map_err(std::io::Error::other)?
    };
    writer.write(&batch).map_err(std::io::Error::other)
}

pub(crate) fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::from(twinlake_contracts::Error::internal(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        Format::accepted(&headers).map_err(|problem| problem.status)
    }

    #[test]
    fn accept_chooses_the_format() {
        assert_eq!(accept("*/*"), Ok(Format::Json));
        assert_eq!(accept(ARROW_STREAM), Ok(Format::Arrow));
        assert_eq!(accept("application/json;q=0.5, application/vnd.apache.arrow.stream"), Ok(Format::Arrow));
        assert_eq!(accept("text/html, application/json;q=0.9"), Ok(Format::Json));
        assert_eq!(accept("text/csv"), Err(406));
        assert_eq!(accept("application/json;q=0"), Ok(Format::Json));
        assert_eq!(Format::accepted(&HeaderMap::new()).ok(), Some(Format::Json));
    }
}
