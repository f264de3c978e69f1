//! Opens the doors, and closes them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use twinlake_contracts::{Error, Intake, Result};
use twinlake_query::Engine;
use twinlake_twin::Twins;

use crate::answer::Gate;
use crate::http::{App, router};
use crate::metrics::Metrics;
use crate::postgres::Postgres;
use crate::readiness::Readiness;

/// Where the doors are and what may pass them.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// The HTTP address. Port 0: any free one.
    pub http: SocketAddr,
    /// The PostgreSQL address. Port 0: any free one.
    pub postgres: SocketAddr,
    /// How many queries may run at a time, over both doors; more wait some seconds, then are turned away.
    pub concurrent_queries: usize,
    /// How long a query may give no row before it is ended.
    pub query_timeout: Duration,
    /// The largest HTTP body, in bytes.
    pub body_limit_bytes: usize,
    /// How many PostgreSQL connections may be open at a time.
    pub postgres_connections: usize,
    /// The origins of web pages that may read HTTP answers (CORS). None by default.
    pub cors_origins: Vec<String>,
    /// How long [`Running::shutdown`] waits for work that is under way.
    pub shutdown_grace: Duration,
    /// Answers `/readyz`; whoever opens the lake and runs the pipelines sets it.
    pub readiness: Readiness,
    /// Answers `/metrics`; whoever has gauges adds them ([`Metrics::report`]).
    pub metrics: Metrics,
}

impl Default for ServiceSettings {
    /// This machine only, 127.0.0.1:8080 and 127.0.0.1:5433: there is no authentication yet, so another address must
    /// be asked for.
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            postgres: SocketAddr::from(([127, 0, 0, 1], 5433)),
            concurrent_queries: 32,
            query_timeout: Duration::from_mins(1),
            body_limit_bytes: 1 << 20,
            postgres_connections: 100,
            cors_origins: Vec::new(),
            shutdown_grace: Duration::from_secs(10),
            readiness: Readiness::new(),
            metrics: Metrics::new(),
        }
    }
}

/// The HTTP and PostgreSQL doors over one engine.
#[derive(Debug)]
pub struct Service;

impl Service {
    /// Binds both addresses and serves until [`Running::shutdown`]. An address that is taken is an error that names
    /// it and the option that moves it; then neither door is open.
    ///
    /// Extensions must be registered with the engine before. `intake` takes the rows that clients hand in; without one
    /// the addresses for them answer 404.
    pub async fn start(
        settings: ServiceSettings,
        engine: Arc<Engine>,
        twins: Arc<Twins>,
        intake: Option<Arc<dyn Intake>>,
    ) -> Result<Running> {
        let http = bind(settings.http, "HTTP", "--http").await?;
        let postgres = bind(settings.postgres, "PostgreSQL", "--postgres").await?;
        let addresses = (local(&http)?, local(&postgres)?);
        for (address, door) in [(addresses.0, "HTTP"), (addresses.1, "PostgreSQL")] {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "the {door} door is open to other machines, without authentication");
            }
        }
        let gate = Gate::new(settings.concurrent_queries, settings.query_timeout)?;
        let metrics = settings.metrics;
        let door =
            Postgres::new(Arc::clone(&engine), gate.clone(), metrics.clone(), settings.postgres_connections)?;
        let app = App {
            engine,
            twins,
            gate,
            metrics: metrics.clone(),
            readiness: settings.readiness.clone(),
            postgres: Some(addresses.1),
            intake,
        };
        let router = router(app, settings.body_limit_bytes, &settings.cors_origins)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let http = tokio::spawn(async move {
            let served = axum::serve(http, router).with_graceful_shutdown(stopped).await;
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP door closed");
            }
        });
        let postgres = tokio::spawn(door.serve(postgres, stop.clone()));
        tracing::info!(http = %addresses.0, postgres = %addresses.1, "the doors are open");
        Ok(Running {
            http: addresses.0,
            postgres: addresses.1,
            readiness: settings.readiness,
            metrics,
            stop,
            grace: settings.shutdown_grace,
            doors: [http, postgres],
        })
    }

    /// The OpenAPI document of the HTTP door, as pretty JSON with a final newline.
    pub fn openapi() -> Result<String> {
        crate::http::openapi::document_json().map_err(Error::internal)
    }
}

async fn bind(address: SocketAddr, door: &str, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!("the {door} address {address} is in use"),
            _ => format!("the {door} address {address} cannot be opened: {error}"),
        };
        Error::config(why).with_help(format!(
            "stop what listens there, or move the door, for example {option} {}:{}",
            address.ip(),
            address.port().checked_add(1).unwrap_or(0)
        ))
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(Error::internal)
}

/// Doors that are open. Dropping it leaves them open; [`Running::shutdown`] closes them.
#[derive(Debug)]
pub struct Running {
    http: SocketAddr,
    postgres: SocketAddr,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
    grace: Duration,
    doors: [JoinHandle<()>; 2],
}

impl Running {
    /// The HTTP address that is listened on.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// The PostgreSQL address that is listened on.
    pub fn postgres_addr(&self) -> SocketAddr {
        self.postgres
    }

    /// What `/readyz` answers.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// What `/metrics` answers.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes no more requests, lets those under way end, and closes the doors; what has not ended when the grace is
    /// over is broken off.
    pub async fn shutdown(self) {
        self.readiness.set("running", false);
        self.stop.cancel();
        let deadline = tokio::time::Instant::now() + self.grace;
        for mut door in self.doors {
            if tokio::time::timeout_at(deadline, &mut door).await.is_err() {
                tracing::warn!("requests were still under way at shutdown and are broken off");
                door.abort();
            }
        }
    }
}
