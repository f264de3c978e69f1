//! Errors as RFC 9457 problem documents.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use datafusion::error::DataFusionError;
use serde::Serialize;
use twinlake_contracts::{Error, Retry};
use utoipa::ToSchema;

use crate::failure::{Failure, engine_message};

/// What a client should wait before it tries again, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// A problem document (RFC 9457), content type `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem, as a stable identifier: `urn:twinlake:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// The way out, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line of the body at fault, from 1, if the body is a text of lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<usize>)]
    pub line: Option<u32>,
    /// The column in that line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<usize>)]
    pub column: Option<u32>,
    /// In seconds.
    #[serde(skip)]
    #[schema(ignore)]
    retry: Option<u32>,
}

impl Problem {
    /// A problem of that status; `word` ends its type.
    pub(crate) fn new(status: StatusCode, word: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:twinlake:problem:{word}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            help: None,
            line: None,
            column: None,
            retry: None,
        }
    }

    /// A request that its author must change.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn retry_later(mut self) -> Self {
        self.retry = Some(RETRY_AFTER_S);
        self
    }

    /// The client may come again after this time.
    #[must_use]
    pub(crate) fn retry_after(mut self, pause: std::time::Duration) -> Self {
        self.retry = Some(u32::try_from(pause.as_secs()).unwrap_or(u32::MAX).max(1));
        self
    }

    /// A defect: logged in full, told without details, since those may hold what the client must not see.
    fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        let detail = "something inside Twinlake failed; its log says what";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// A system behind us failed: logged in full, told without addresses.
    fn unavailable(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        let detail = "a system that Twinlake depends on failed; its log says which";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(config) => {
                let mut problem = Self::bad_request(config.message.clone());
                problem.help = config.help;
                if let Some(place) = config.place.filter(|place| place.line > 0) {
                    problem.line = u32::try_from(place.line).ok();
                    problem.column = u32::try_from(place.column).ok().filter(|column| *column > 0);
                }
                problem
            }
            Error::Data { reason, message } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, &reason.replace('_', "-"), message)
            }
            Error::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "not-found", error.to_string()),
            Error::External { retry, .. } => {
                let problem = Self::unavailable(&error);
                if retry == Retry::Backoff { problem.retry_later() } else { problem }
            }
            error => Self::internal(&error),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Error(error) => error.into(),
            Failure::TimedOut(limit) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                format!("the query gave no row for {} s and was ended", limit.as_secs_f64()),
            )
            .with_help("ask for less, or raise the service's query timeout"),
            Failure::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many queries are running; try again soon",
            )
            .retry_later(),
            Failure::Engine(error) => match error.find_root() {
                DataFusionError::Internal(_)
                | DataFusionError::ExecutionJoin(_)
                | DataFusionError::Ffi(_) => Self::internal(&error),
                DataFusionError::ObjectStore(_)
                | DataFusionError::IoError(_)
                | DataFusionError::ParquetError(_)
                | DataFusionError::External(_) => Self::unavailable(&error).retry_later(),
                DataFusionError::ResourcesExhausted(_) => {
                    Self::new(StatusCode::SERVICE_UNAVAILABLE, "resources", engine_message(&error))
                        .retry_later()
                }
                _ => Self::new(StatusCode::BAD_REQUEST, "sql", engine_message(&error)),
            },
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = self.retry;
        let mut response = (status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_status() {
        let cases = [
            (Problem::from(Error::config("bad")), 400),
            (Problem::from(Error::not_found("twin model", "vehicel", ["vehicle"])), 404),
            (Problem::from(Error::data("no_such_key", "x")), 422),
            (Problem::from(Error::transient("s3://key:secret@bucket", "refused")), 503),
            (Problem::from(Error::internal("password=secret")), 500),
            (Problem::from(Failure::Busy), 503),
            (Problem::from(Failure::from(DataFusionError::Plan("no such table".to_owned()))), 400),
            (Problem::from(Failure::from(DataFusionError::Internal("secret".to_owned()))), 500),
        ];
        for (problem, status) in cases {
            assert_eq!(problem.status, status, "{problem:?}");
            assert!(!problem.detail.contains("secret"), "{problem:?}");
        }
        let problem = Problem::from(Error::not_found("twin model", "vehicel", ["vehicle"]));
        assert_eq!(problem.detail, "twin model 'vehicel' not found, did you mean 'vehicle'?");
    }

    #[test]
    fn what_may_pass_says_when_to_come_back() {
        let response = Problem::from(Error::transient("broker", "gone")).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let response = Problem::from(Error::config("bad")).into_response();
        assert!(response.headers().get(header::RETRY_AFTER).is_none());
    }
}
