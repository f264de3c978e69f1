//! `GET /v1/events`, `/v1/events/stream` and `POST /v1/events/{event_id}/acknowledge`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use twinlake_contracts::Error;
use twinlake_twin::{EventStep, Events};
use utoipa::ToSchema;

use crate::http::App;
use crate::http::problem::Problem;
use crate::http::sql::{read_body, read_json};

/// A step of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Step {
    /// Names the event: the same for all its steps.
    event_id: String,
    /// The rule that raised it.
    rule: String,
    /// `info`, `warning` or `critical`.
    severity: String,
    /// The twin model.
    model: String,
    /// The twin's key.
    id: String,
    /// `raised`, `acknowledged` or `cleared`.
    change: String,
    /// When it happened, RFC 3339: the time of the reading, or of the end of patience.
    at: String,
    /// When it was recorded, RFC 3339.
    recorded_at: String,
    /// Who acknowledged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    /// What that one says.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl From<EventStep> for Step {
    fn from(step: EventStep) -> Self {
        let EventStep { event_id, rule, severity, model, id, change, at, recorded_at, who, note } = step;
        Self { event_id, rule, severity, model, id, change, at, recorded_at, who, note }
    }
}

/// The events that are open.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenEvents {
    /// The last step of each, in the order of their identifiers.
    events: Vec<Step>,
}

/// Who knows of an event.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acknowledgement {
    /// Who it is.
    who: Option<String>,
    /// What there is to say.
    note: Option<String>,
}

fn watched(app: &App) -> Result<Arc<Events>, Problem> {
    app.twins.events().ok_or_else(|| {
        Problem::from(Error::not_found("address", "/v1/events", []))
            .with_help("no rules are watched: put them into schemas/events and serve anew")
    })
}

/// The events that are open.
///
/// All steps of all events are in the table `meta.events`.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "events_open",
    responses(
        (status = 200, description = "The last step of each event that is raised and not cleared", body = OpenEvents),
        (status = 404, description = "No rules are watched", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn open(State(app): State<App>) -> Result<Json<OpenEvents>, Problem> {
    let events = watched(&app)?.open().await;
    Ok(Json(OpenEvents { events: events.into_iter().map(Step::from).collect() }))
}

/// Steps of events as they come.
///
/// Server-sent events: `event` is `raised`, `acknowledged` or `cleared`, `id` the event, `data` the step as JSON. A listener that
/// is too slow is told `missed` with how many steps; they are in the table `meta.events`.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events", operation_id = "events_stream",
    responses(
        (status = 200, description = "Steps as they come", body = String, content_type = "text/event-stream"),
        (status = 404, description = "No rules are watched", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn stream(
    State(app): State<App>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let told = watched(&app)?.listen();
    let steps = futures::stream::unfold(told, |mut told| async move {
        let event = match told.recv().await {
            Ok(step) => {
                let event = Event::default().event(step.change.clone()).id(step.event_id.clone());
                let json = serde_json::to_string(&Step::from(step)).unwrap_or_default();
                event.data(json)
            }
            Err(RecvError::Lagged(missed)) => Event::default().event("missed").data(missed.to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), told))
    });
    Ok(Sse::new(steps).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// Says that somebody knows of an event.
///
/// The event stays open until its twin clears it.
#[utoipa::path(post, path = "/v1/events/{event_id}/acknowledge", tag = "events", operation_id = "events_acknowledge",
    params(("event_id" = String, Path, description = "The event")),
    request_body(content = Acknowledgement, description = "Who, and a note; may be empty"),
    responses(
        (status = 200, description = "The new step", body = Step),
        (status = 400, description = "The body cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such event is open, or no rules are watched", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn acknowledge(
    State(app): State<App>,
    Path(event_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Step>, Problem> {
    let body = read_body(body)?;
    let said: Acknowledgement = if body.is_empty() { Acknowledgement::default() } else { read_json(&body)? };
    let step = watched(&app)?.acknowledge(&event_id, said.who, said.note).await?;
    Ok(Json(step.into()))
}
