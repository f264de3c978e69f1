//! The PostgreSQL door: each connection has a session and settings of its own.

mod catalog;
mod command;
mod connection;
mod descriptions;
mod encode;
mod error;
mod handlers;
mod parameters;
mod parse;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::ConnectionManager;
use datafusion_postgres::pgwire::tokio::process_socket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twinlake_contracts::Result;
use twinlake_query::{Engine, SessionSettings};

use crate::answer::Gate;
use crate::metrics::Metrics;
use crate::postgres::catalog::PgCatalog;
use crate::postgres::connection::{Connection, Shared};
use crate::postgres::handlers::{Full, Handlers};
use crate::postgres::parse::StatementParser;

/// The PostgreSQL version that clients are told: they choose by it what they ask of `pg_catalog`.
const SERVER_VERSION: &str = "15.14";
/// The same as one number.
const SERVER_VERSION_NUMBER: &str = "150014";
/// How often a closing connection looks whether its query has ended.
const CLOSING_PAUSE: Duration = Duration::from_millis(20);
/// The pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The door, ready to listen.
pub(crate) struct Postgres {
    engine: Arc<Engine>,
    catalog: PgCatalog,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

impl Postgres {
    /// Prepares the door for at most `connections` connections at a time.
    pub(crate) fn new(engine: Arc<Engine>, gate: Gate, metrics: Metrics, connections: usize) -> Result<Self> {
        let catalog = PgCatalog::new(&engine)?;
        let shared = Arc::new(Shared {
            gate,
            metrics,
            parser: StatementParser::new(),
            connections: Arc::new(ConnectionManager::new()),
        });
        let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { engine, catalog, shared, places })
    }

    /// Serves until `stop`; then takes no more connections, closes idle ones, and lets queries end. Returns when all
    /// connections are closed.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let door = Arc::new(self);
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    tasks.spawn(Arc::clone(&door).connection(socket, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    async fn connection(self: Arc<Self>, socket: TcpStream, stop: CancellationToken) {
        let ended = match Arc::clone(&self.places).try_acquire_owned() {
            Err(_) => process_socket(socket, None, Full).await,
            Ok(_place) => {
                let _count = self.shared.metrics.connection();
                match self.open() {
                    Ok(connection) => {
                        let closing = async {
                            stop.cancelled().await;
                            while connection.is_busy() {
                                tokio::time::sleep(CLOSING_PAUSE).await;
                            }
                        };
                        tokio::select! {
                            ended = process_socket(socket, None, Handlers(connection.clone())) => ended,
                            () = closing => Ok(()),
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "no session could be opened for a PostgreSQL connection");
                        return;
                    }
                }
            }
        };
        if let Err(error) = ended {
            // A client that goes away is no fault of ours.
            tracing::debug!(%error, "a PostgreSQL connection ended");
        }
    }

    fn open(&self) -> Result<Connection> {
        let session = self.engine.session(SessionSettings { local_files: false })?;
        self.catalog.install(session.context())?;
        Ok(Connection::new(session, Arc::clone(&self.shared)))
    }
}
