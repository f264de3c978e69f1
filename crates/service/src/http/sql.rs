//! `POST /v1/sql`.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use datafusion::prelude::DataFrame;
use serde::Deserialize;
use serde_json::Map;
use twinlake_query::Session;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::failure::Failure;
use crate::http::App;
use crate::http::body::{Format, respond};
use crate::http::problem::Problem;
use crate::json::{Column, RowStyle};
use crate::options::with_options;

/// When, as known when, and in which scenario: the three tenses of a question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Tense {
    /// The instant asked about, RFC 3339; now, if absent.
    pub(crate) as_of: Option<String>,
    /// Only what was known at this instant, RFC 3339; all that is known now, if absent.
    pub(crate) known_at: Option<String>,
    /// The scenario; the city as it is, if absent.
    pub(crate) scenario: Option<String>,
}

impl Tense {
    /// Sets the session's `twin.*` settings.
    fn apply(&self, session: &Session) -> Result<(), Failure> {
        let settings = [
            ("twin.as_of", &self.as_of),
            ("twin.known_at", &self.known_at),
            ("twin.scenario", &self.scenario),
        ];
        with_options(session.context(), |options| {
            for (name, value) in settings {
                if let Some(value) = value {
                    options.set(name, value)?;
                }
            }
            Ok(())
        })
    }

    /// What is given here, and where nothing is, what `other` gives.
    fn or(self, other: Self) -> Self {
        Self {
            as_of: self.as_of.or(other.as_of),
            known_at: self.known_at.or(other.known_at),
            scenario: self.scenario.or(other.scenario),
        }
    }

    /// The members of a JSON answer that say in which tense it holds; those that were not given are absent.
    pub(crate) fn head(&self) -> Map<String, serde_json::Value> {
        [("as_of", &self.as_of), ("known_at", &self.known_at), ("scenario", &self.scenario)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?.into())))
            .collect()
    }
}

/// A query.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"sql": "SELECT vehicle_id, speed_mps, geom FROM twin.vehicle", "as_of": "2018-10-09T04:32:53Z"}))]
pub(crate) struct SqlRequest {
    /// One SQL statement that reads.
    sql: String,
    /// The instant asked about, RFC 3339; now, if absent.
    as_of: Option<String>,
    /// Only what was known at this instant, RFC 3339; all that is known now, if absent.
    known_at: Option<String>,
    /// The scenario; the city as it is, if absent.
    scenario: Option<String>,
}

/// The rows of a query. No limit on their number: they are sent as they come.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "the shape of a streamed answer, for the OpenAPI document")]
pub(crate) struct SqlAnswer {
    /// The columns, in order.
    columns: Vec<Column>,
    /// One array a row, in the order of the columns. Geometry is GeoJSON, a time stamp an RFC 3339 string, a decimal
    /// a string, other binary a hexadecimal string.
    rows: Vec<Vec<serde_json::Value>>,
    /// How many rows there were. It is the last member: an answer that has it is complete.
    row_count: u64,
}

/// Asks in SQL.
///
/// The statement reads; what it may change are scenarios, by their functions (`scenario_create`, `scenario_run`,
/// `scenario_drop`), so pages of other origins than `cors_origins` are refused (403). Its rows are sent as they come; an answer broken off by an error ends without
/// `row_count` (JSON) or end-of-stream mark (Arrow), and the connection is closed.
#[utoipa::path(
    post, path = "/v1/sql", tag = "sql", operation_id = "sql",
    params(Tense),
    request_body(content((SqlRequest = "application/json"), (String = "text/plain"))),
    responses(
        (status = 200, description = "The rows", content(
            (SqlAnswer = "application/json"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        (status = 400, description = "The statement cannot be run", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "A page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 406, description = "No such format", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither JSON nor text", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too busy, or a system behind failed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The query took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn sql(
    State(app): State<App>,
    query: Result<Query<Tense>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let format = Format::accepted(&headers)?;
    let Query(given) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let (sql, tense) = read_request(&headers, &read_body(body)?)?;
    let tense = tense.or(given);
    let answer = app.ask(&tense, |session| async move { Ok(session.sql(&sql).await?) }).await?;
    respond(format, Map::new(), answer, RowStyle::Array)
}

/// The body, or why it could not be read.
pub(crate) fn read_body(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|error| {
        let status = error.status();
        let word = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "bad-request" };
        Problem::new(status, word, error.body_text())
    })
}

fn read_request(headers: &HeaderMap, body: &Bytes) -> Result<(String, Tense), Problem> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/json" => {
            let request: SqlRequest = read_json(body)?;
            let tense =
                Tense { as_of: request.as_of, known_at: request.known_at, scenario: request.scenario };
            Ok((request.sql, tense))
        }
        "text/plain" | "application/sql" | "" => {
            let sql = String::from_utf8(body.to_vec())
                .map_err(|_| Problem::bad_request("the body is not UTF-8 text"))?;
            Ok((sql, Tense::default()))
        }
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            format!("a body of type '{other}' is not understood"),
        )
        .with_help("application/json with {\"sql\": …}, or text/plain")),
    }
}

/// Reads a JSON body; the problem names line and column.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

impl App {
    /// Opens a session in a tense and runs the query that `make` gives.
    pub(crate) async fn ask<F>(
        &self,
        tense: &Tense,
        make: impl FnOnce(Session) -> F + Send,
    ) -> Result<Answer, Problem>
    where
        F: Future<Output = Result<DataFrame, Failure>> + Send,
    {
        let work = async {
            let session = self.session()?;
            tense.apply(&session)?;
            make(session).await
        };
        let answer = self.gate.answer(self.gate.time(None), work).await;
        self.metrics.query("http", if answer.is_ok() { "ok" } else { "error" });
        answer.map_err(Problem::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        headers
    }

    #[test]
    fn reads_json_and_text() {
        let body = Bytes::from_static(br#"{"sql": "SELECT 1", "as_of": "2018-10-09T04:32:53Z"}"#);
        let (sql, tense) = read_request(&headers("application/json; charset=utf-8"), &body).unwrap();
        assert_eq!((sql.as_str(), tense.as_of.as_deref()), ("SELECT 1", Some("2018-10-09T04:32:53Z")));
        let (sql, tense) = read_request(&headers("text/plain"), &Bytes::from_static(b"SELECT 2")).unwrap();
        assert_eq!((sql.as_str(), tense), ("SELECT 2", Tense::default()));
    }

    #[test]
    fn says_what_is_wrong_with_a_body() {
        let problem =
            read_request(&headers("application/json"), &Bytes::from_static(b"{\"slq\": 1}")).unwrap_err();
        assert!(
            problem.detail.contains("unknown field `slq`") && problem.detail.contains("line 1"),
            "{problem:?}"
        );
        assert_eq!(read_request(&headers("image/png"), &Bytes::new()).unwrap_err().status, 415);
        assert_eq!(
            read_request(&headers("text/plain"), &Bytes::from_static(b"\xff")).unwrap_err().status,
            400
        );
    }
}
