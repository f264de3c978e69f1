//! Health, readiness, metrics, the OpenAPI document and the front page.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::body::internal;
use crate::http::problem::Problem;
use crate::http::{App, openapi};
use crate::metrics::CONTENT_TYPE;

/// Whether the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    status: &'static str,
    /// Twinlake's version.
    version: &'static str,
}

/// Whether the process is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// Whether every condition is met.
    ready: bool,
    /// The conditions, for example `lake` and `pipelines`.
    conditions: BTreeMap<String, bool>,
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "status", operation_id = "health",
    responses((status = 200, description = "It lives", body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Whether the lake is open and the pipelines run.
#[utoipa::path(get, path = "/readyz", tag = "status", operation_id = "ready",
    responses(
        (status = 200, description = "Ready for work", body = Ready),
        (status = 503, description = "Not yet, or no longer", body = Ready)))]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let ready = Ready { ready: app.readiness.is_ready(), conditions: app.readiness.conditions() };
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "status", operation_id = "metrics",
    responses((status = 200, description = "OpenMetrics text", body = String,
        content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.metrics.render().map_err(|error| internal(&error))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "status", operation_id = "openapi",
    responses((status = 200, description = "The OpenAPI document", body = serde_json::Value)))]
pub(crate) async fn openapi_json() -> Response {
    let json = openapi::document_json().map_err(|error| internal(&error));
    match json {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// A page for people: where to ask.
#[utoipa::path(get, path = "/", tag = "status", operation_id = "front_page",
    responses((status = 200, description = "Addresses", body = String, content_type = "text/html")))]
pub(crate) async fn front_page(State(app): State<App>) -> Html<String> {
    let postgres = app.postgres.map_or_else(String::new, |address| {
        format!(
            "<dt><code>psql -h {} -p {} twinlake</code><dd>SQL over the PostgreSQL protocol",
            address.ip(),
            address.port()
        )
    });
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Twinlake</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}\
         dt{{margin-top:1rem}}pre,code{{background:#8882;padding:.1em .3em}}pre{{padding:1em;overflow:auto}}</style>\
         <h1>Twinlake {}</h1><dl>\
         <dt><a href=/v1/twins>/v1/twins</a><dd>the twin models, and below each its state\
         <dt><code>POST /v1/sql</code><dd>SQL, answered in JSON or Arrow\
         <dt><code>POST /v1/simulations</code><dd>what would be\
         {postgres}\
         <dt><a href=/openapi.json>/openapi.json</a><dd>all addresses with their schemas\
         <dt><a href=/healthz>/healthz</a>, <a href=/readyz>/readyz</a>, <a href=/metrics>/metrics</a><dd>for operators\
         </dl><pre>curl -H 'content-type: text/plain' -d 'SELECT * FROM meta.datasets' \\\n  'http://ADDRESS/v1/sql'</pre>",
        env!("CARGO_PKG_VERSION")
    ))
}
