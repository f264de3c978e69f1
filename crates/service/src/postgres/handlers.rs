//! The messages of the protocol: startup, simple queries, extended queries, cancellation.
//!
//! Rows are sent as they come: a statement's rows are sent before the next statement of the same text runs, and at
//! most one batch waits in memory. A cancel request ends a query in any phase.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use datafusion_postgres::pgwire::api::portal::{Format, Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::{
    ExtendedQueryHandler, SimpleQueryHandler, send_execution_response, send_query_response,
    send_ready_for_query,
};
use datafusion_postgres::pgwire::api::results::{
    DescribePortalResponse, DescribeStatementResponse, FieldInfo, Response,
};
use datafusion_postgres::pgwire::api::stmt::{QueryParser, StoredStatement};
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionGuard, ConnectionHandle, DEFAULT_NAME, PgWireConnectionState,
    PgWireServerHandlers, PidSecretKeyGenerator, RandomPidSecretKeyGenerator, Type,
};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::extendedquery::Execute;
use datafusion_postgres::pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use datafusion_postgres::pgwire::messages::simplequery::Query;
use datafusion_postgres::pgwire::messages::startup::ParameterStatus;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::future::{Either, select};
use futures::{Sink, SinkExt};

use crate::postgres::connection::{Connection, Done, Prepared};
use crate::postgres::error::{SYNTAX, TOO_MANY_CONNECTIONS, raise};

/// Numbers connections over the whole process.
static NUMBERS: std::sync::LazyLock<RandomPidSecretKeyGenerator> =
    std::sync::LazyLock::new(RandomPidSecretKeyGenerator::default);

/// The handlers of one connection.
pub(super) struct Handlers(pub(super) Connection);

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::new(self.0.clone())
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::new(self.0.clone())
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::new(self.0.clone())
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::new(DefaultCancelHandler::new(Arc::clone(&self.0.shared().connections)))
    }
}

/// The handlers of a connection that finds no place: it is told so, and closed.
pub(super) struct Full;

impl PgWireServerHandlers for Full {
    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::new(Self)
    }
}

#[async_trait]
impl StartupHandler for Full {
    async fn on_startup<C>(&self, _client: &mut C, _message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(PgWireError::UserError(Box::new(ErrorInfo::new(
            "FATAL".to_owned(),
            TOO_MANY_CONNECTIONS.to_owned(),
            "sorry, too many clients already".to_owned(),
        ))))
    }
}

#[async_trait]
impl StartupHandler for Connection {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let PgWireFrontendMessage::Startup(ref startup) = message else { return Ok(()) };
        protocol_negotiation(client, startup).await?;
        save_startup_parameters_to_metadata(client, startup);
        let (pid, secret) = NUMBERS.generate(client);
        client.set_pid_and_secret_key(pid, secret.clone());
        let (handle, guard) = self.shared().connections.register(pid, secret);
        client.session_extensions().insert::<Arc<ConnectionHandle>>(handle);
        client.session_extensions().insert::<ConnectionGuard>(guard);
        for (name, value) in asked_at_startup(client.metadata()) {
            // As in PostgreSQL, a wrong setting at startup ends the connection.
            self.settings().set(self.session().context(), &name, Some(value), false).map_err(fatal)?;
        }
        let mut told = DefaultServerParameterProvider::default();
        super::SERVER_VERSION.clone_into(&mut told.server_version);
        told.default_transaction_read_only = true;
        told.is_superuser = false;
        told.time_zone = self.settings().zone();
        told.date_style = self.settings().get("datestyle").unwrap_or_default();
        told.search_path = self.settings().get("search_path").unwrap_or_default();
        finish_authentication(client, &told).await
    }
}

fn fatal(error: PgWireError) -> PgWireError {
    let mut info = ErrorInfo::from(error);
    "FATAL".clone_into(&mut info.severity);
    PgWireError::UserError(Box::new(info))
}

/// The settings in a startup message: named by themselves, or in `options=-c name=value`.
fn asked_at_startup(metadata: &std::collections::HashMap<String, String>) -> Vec<(String, String)> {
    let mut asked = Vec::new();
    for (name, value) in metadata {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => {
                let mut words = value.split_whitespace();
                while let Some(word) = words.next() {
                    let setting = match word {
                        "-c" => words.next().unwrap_or_default(),
                        _ => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).unwrap_or_default(),
                    };
                    if let Some((name, value)) = setting.split_once('=') {
                        asked.push((name.replace('-', "_").to_ascii_lowercase(), value.to_owned()));
                    }
                }
            }
            _ if name.starts_with("_pq_.") => {}
            _ => asked.push((name, value.clone())),
        }
    }
    asked.sort();
    asked
}

/// Runs `work` until it ends or the client cancels it.
async fn cancellable<T>(
    handle: Option<Arc<ConnectionHandle>>,
    work: impl Future<Output = PgWireResult<T>> + Send,
) -> PgWireResult<T> {
    let Some(handle) = handle else { return work.await };
    let cancelled = handle.start_query().await;
    match select(pin!(work), cancelled).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(PgWireError::QueryCanceled),
    }
}

fn cancel_handle<C: ClientInfo>(client: &C) -> Option<Arc<ConnectionHandle>> {
    client.session_extensions().get::<Arc<ConnectionHandle>>().map(|handle| Arc::clone(handle.as_ref()))
}

/// Sends what a statement did.
async fn send<C>(client: &mut C, done: Done, describe: bool) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    for (name, value) in done.reports {
        client.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value))).await?;
    }
    let status = client.transaction_status();
    match done.response {
        Response::Query(rows) => send_query_response(client, rows, describe).await?,
        Response::Execution(tag) => send_execution_response(client, tag).await?,
        Response::TransactionStart(tag) => {
            send_execution_response(client, tag).await?;
            client.set_transaction_status(match status {
                TransactionStatus::Idle => TransactionStatus::Transaction,
                other => other,
            });
        }
        Response::TransactionEnd(tag) => {
            send_execution_response(client, tag).await?;
            client.set_transaction_status(TransactionStatus::Idle);
        }
        Response::Error(error) => return Err(PgWireError::UserError(error)),
        _ => client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?,
    }
    Ok(())
}

#[async_trait]
impl SimpleQueryHandler for Connection {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        let _busy = self.begin_work();
        client.set_state(PgWireConnectionState::QueryInProgress);
        let handle = cancel_handle(client);
        Box::pin(cancellable(handle, async {
            let statements = self.parse(&query.query)?;
            if statements.is_empty() {
                client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
            }
            for statement in statements {
                let done = self.run(&*client, &statement).await?;
                send(client, done, true).await?;
            }
            Ok(())
        }))
        .await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        for statement in self.parse(query)? {
            responses.push(self.run(&*client, &statement).await?.response);
        }
        Ok(responses)
    }
}

#[async_trait]
impl QueryParser for Connection {
    type Statement = Prepared;

    async fn parse_sql<C>(
        &self,
        _client: &C,
        sql: &str,
        types: &[Option<Type>],
    ) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = self.parse(sql)?;
        match statements.pop() {
            None => Ok(None),
            Some(_) if !statements.is_empty() => {
                Err(raise(SYNTAX, "cannot insert multiple commands into a prepared statement"))
            }
            Some(statement) => Box::pin(self.prepare(statement, types)).await.map(Some),
        }
    }

    fn get_parameter_types(&self, statement: &Self::Statement) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameters.wire().to_vec())
    }

    fn get_result_schema(
        &self,
        statement: &Self::Statement,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        match &statement.plan {
            Some(plan) => {
                let format = format.unwrap_or(&Format::UnifiedText);
                self.wire(plan.schema().as_arrow(), format).map(|wire| wire.fields().clone())
            }
            None => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Connection {
    type Statement = Prepared;
    type QueryParser = Connection;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        Arc::new(self.clone())
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let _busy = self.begin_work();
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let Some(Entry::Value(portal)) = client.portal_store().get_portal(name) else {
            return self._on_execute(client, message).await;
        };
        let initial = matches!(&*portal.state().lock().await, PortalExecutionState::Initial);
        let all = message.max_rows <= 0;
        let rows = matches!(portal.statement.statement.command, super::command::Command::Read);
        if !initial || (rows && !all) {
            // A part of the rows at a time: pgwire keeps the rest of the stream in the portal.
            return self._on_execute(client, message).await;
        }
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let handle = cancel_handle(client);
        Box::pin(cancellable(handle, async {
            let done = self.run_portal(&*client, portal.as_ref()).await?;
            send(client, done, false).await
        }))
        .await?;
        *portal.state().lock().await = PortalExecutionState::Finished;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn do_describe_statement<C>(
        &self,
        client: &mut C,
        target: &StoredStatement<Self::Statement>,
    ) -> PgWireResult<DescribeStatementResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let declared = &target.parameter_types;
        let parameters = target
            .statement
            .parameters
            .wire()
            .iter()
            .enumerate()
            .map(|(index, inferred)| {
                declared.get(index).cloned().flatten().unwrap_or_else(|| inferred.clone())
            })
            .collect();
        let wire = self.describe(&*client, &target.statement, &Format::UnifiedText)?;
        let fields = wire.map(|wire| wire.fields().clone()).unwrap_or_default();
        Ok(DescribeStatementResponse::new(parameters, fields))
    }

    async fn do_describe_portal<C>(
        &self,
        client: &mut C,
        target: &Portal<Self::Statement>,
    ) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let wire = self.describe(&*client, &target.statement.statement, &target.result_column_format)?;
        Ok(DescribePortalResponse::new(wire.map(|wire| wire.fields().clone()).unwrap_or_default()))
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let done = self.run_portal(&*client, portal).await?;
        for (name, value) in done.reports {
            client.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value))).await?;
        }
        Ok(done.response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_ride_on_the_startup_message() {
        let metadata = [
            ("user", "anna"),
            ("database", "twinlake"),
            ("application_name", "psql"),
            ("twin.scenario", "bridge-closed"),
            ("options", "-c twin.as_of=2018-10-09T04:32:53Z --statement-timeout=5s"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let asked = asked_at_startup(&metadata);
        let asked: Vec<(&str, &str)> = asked.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            asked,
            [
                ("application_name", "psql"),
                ("statement_timeout", "5s"),
                ("twin.as_of", "2018-10-09T04:32:53Z"),
                ("twin.scenario", "bridge-closed"),
            ]
        );
    }
}
