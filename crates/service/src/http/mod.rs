//! The HTTP door: routes, limits, and what every handler shares.

mod body;
mod events;
mod influx;
mod ingest;
pub(crate) mod openapi;
mod problem;
mod scenarios;
mod simulations;
mod sql;
mod status;
mod twins;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::trace::TraceLayer;
use twinlake_contracts::{Error, Intake, Result};
use twinlake_query::{Engine, Session, SessionSettings};
use twinlake_twin::Twins;

use crate::answer::Gate;
use crate::failure::Failure;
use crate::http::problem::Problem;
use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// The largest body of rows, in bytes, unpacked.
const LARGEST_BODY_BYTES: usize = 32 << 20;

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) twins: Arc<Twins>,
    pub(crate) gate: Gate,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) postgres: Option<SocketAddr>,
    pub(crate) intake: Option<Arc<dyn Intake>>,
}

impl App {
    /// A session for one request. Files of the machine are no tables here.
    pub(crate) fn session(&self) -> std::result::Result<Session, Failure> {
        Ok(self.engine.session(SessionSettings { local_files: false })?)
    }
}

/// One route: the router and the test of the OpenAPI document are made from the same list.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    handler: MethodRouter<App>,
}

/// All routes.
pub(crate) fn routes() -> Vec<Route> {
    let route = |method, path, handler| Route { method, path, handler };
    vec![
        route("POST", "/v1/sql", post(sql::sql)),
        route("GET", "/v1/twins", get(twins::models)),
        route("GET", "/v1/twins/{model}", get(twins::states)),
        route("GET", "/v1/twins/{model}/{*key}", get(twins::state)),
        route("GET", "/v1/events", get(events::open)),
        route("GET", "/v1/events/stream", get(events::stream)),
        route("POST", "/v1/events/{event_id}/acknowledge", post(events::acknowledge)),
        route("GET", "/v1/scenarios", get(scenarios::list)),
        route("GET", "/v1/scenarios/{name}", get(scenarios::show)),
        route("PUT", "/v1/scenarios/{name}", bodies(put(scenarios::put))),
        route("DELETE", "/v1/scenarios/{name}", delete(scenarios::delete)),
        route("POST", "/v1/scenarios/{name}/runs", post(scenarios::run)),
        route("GET", "/v1/scenarios/{name}/runs/{execution_id}", get(scenarios::execution)),
        route("POST", "/v1/simulations", post(simulations::submit)),
        route("GET", "/v1/simulations/{run_id}", get(simulations::run)),
        route("GET", "/v1/simulations/{run_id}/result", get(simulations::result)),
        route("POST", "/v1/ingest/{table}", bodies(post(ingest::ingest))),
        route("POST", "/api/v2/write", bodies(post(influx::write_v2))),
        route("POST", "/write", bodies(post(influx::write_v1))),
        route("POST", "/query", post(influx::query_v1)),
        route("GET", "/ping", get(influx::ping)),
        route("GET", "/health", get(influx::health)),
        route("GET", "/healthz", get(status::healthz)),
        route("GET", "/readyz", get(status::readyz)),
        route("GET", "/metrics", get(status::metrics)),
        route("GET", "/openapi.json", get(status::openapi_json)),
        route("GET", "/", get(status::front_page)),
    ]
}

/// A route for large bodies, also packed ones: `limit` counts the bytes unpacked.
fn bodies(route: MethodRouter<App>) -> MethodRouter<App> {
    route
        .layer::<_, Infallible>(DefaultBodyLimit::max(LARGEST_BODY_BYTES))
        .layer(RequestDecompressionLayer::new())
}

/// The router with its limits. `origins`: web pages that may read answers (CORS); none by default.
pub(crate) fn router(app: App, body_limit: usize, origins: &[String]) -> Result<Router> {
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.handler);
    }
    let mut router = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(middleware::from_fn_with_state(Arc::<[String]>::from(origins), known_origin))
        .layer(middleware::from_fn_with_state(app.clone(), measure))
        .layer(TraceLayer::new_for_http());
    if !origins.is_empty() {
        let allowed = origins
            .iter()
            .map(|origin| {
                HeaderValue::from_str(origin)
                    .map_err(|_| Error::config(format!("'{origin}' is no web origin")))
            })
            .collect::<Result<Vec<_>>>()?;
        router = router.layer(
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(allowed))
                .allow_methods([Method::GET, Method::POST])
                .allow_headers([header::CONTENT_TYPE, header::ACCEPT]),
        );
    }
    Ok(router.with_state(app))
}

async fn not_found(request: Request) -> Problem {
    let path = request.uri().path().to_owned();
    let known = routes();
    Error::not_found("address", path, known.iter().map(|route| route.path)).into()
}

async fn method_not_allowed(request: Request) -> Problem {
    let path = request.uri().path();
    let matched = request.extensions().get::<MatchedPath>().map_or(path, MatchedPath::as_str);
    let known = routes();
    let taken: Vec<&str> =
        known.iter().filter(|route| route.path == matched).map(|route| route.method).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        format!("{path} takes {}, not {}", taken.join(", "), request.method()),
    )
}

/// Web pages of other origins may not send what does something: a statement of SQL may create, run and drop scenarios, and a browser
/// sends a text to any address without asking first. Who is no browser sends no `Origin`.
async fn known_origin(State(origins): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match foreign_origin(&origins, &request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn foreign_origin(origins: &[String], request: &Request) -> Option<Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("null"));
    let origin = text(header::ORIGIN)?;
    let own = origin.split_once("://").map(|(_, host)| host);
    let known = origins.iter().any(|known| known == origin) || (own.is_some() && own == text(header::HOST));
    (!known).then(|| {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("a page of {origin} may not send this"))
            .with_help("send it from a page of this address, or from a program that is no browser")
    })
}

/// Counts and times every request under its route, not its path: a key never becomes a label.
async fn measure(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await.into_response();
    let route = route.as_deref().unwrap_or("unknown");
    app.metrics.request(method.as_str(), route, response.status().as_u16(), started.elapsed());
    response
}
