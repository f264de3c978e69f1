//! One connection: its own session and settings, and what each statement does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::Schema;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::pgwire::api::ConnectionManager;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::results::{QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::StoredStatement;
use datafusion_postgres::pgwire::api::store::{MemPortalStore, PortalStore};
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use twinlake_query::Session;

use crate::answer::{Answer, Gate};
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::postgres::command::Command;
use crate::postgres::encode::{Wire, one_text, text_schema};
use crate::postgres::error::{FAILED_TRANSACTION, NO_CURSOR, NOT_SUPPORTED, raise};
use crate::postgres::parameters::{Parameters, declare};
use crate::postgres::parse::StatementParser;
use crate::postgres::settings::{Reports, Settings};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) metrics: Metrics,
    pub(super) parser: StatementParser,
    pub(super) connections: Arc<ConnectionManager>,
}

/// One connection.
#[derive(Clone)]
pub(super) struct Connection(Arc<Inner>);

struct Inner {
    session: Session,
    shared: Arc<Shared>,
    settings: Mutex<Settings>,
    /// Open cursors, and whether each outlives its transaction.
    cursors: Mutex<Vec<(String, bool)>>,
    busy: AtomicUsize,
}

/// A statement that was prepared: its text is planned anew at each execution, so that each sees the newest tables
/// and the tense of its moment.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) statement: Statement,
    pub(super) command: Command,
    /// The plan at the time of preparation, for the description.
    pub(super) plan: Option<LogicalPlan>,
    pub(super) parameters: Parameters,
}

/// What a statement did, and what the client must be told of settings.
pub(super) struct Done {
    pub(super) response: Response,
    pub(super) reports: Reports,
}

impl From<Response> for Done {
    fn from(response: Response) -> Self {
        Self { response, reports: Reports::new() }
    }
}

/// A statement or query is being worked on for as long as it lives.
pub(super) struct Busy(Connection);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub(super) fn new(session: Session, shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner {
            session,
            shared,
            settings: Mutex::default(),
            cursors: Mutex::default(),
            busy: AtomicUsize::new(0),
        }))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        locked(&self.0.settings)
    }

    pub(super) fn session(&self) -> &Session {
        &self.0.session
    }

    pub(super) fn begin_work(&self) -> Busy {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    pub(super) fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::Relaxed) > 0
    }

    /// The statements of a text.
    pub(super) fn parse(&self, text: &str) -> PgWireResult<Vec<Statement>> {
        self.0.shared.parser.parse(text)
    }

    /// Prepares a statement; `declared` are the parameter types that the client names.
    pub(super) async fn prepare(
        &self,
        statement: Statement,
        declared: &[Option<datafusion_postgres::pgwire::api::Type>],
    ) -> PgWireResult<Prepared> {
        let command = Command::of(&statement)?;
        let plan = match planned(&command, &statement) {
            Some(read) => Some(declare(self.plan(&read).await?, declared)?),
            None => None,
        };
        let parameters = plan.as_ref().map(Parameters::of).transpose()?.unwrap_or_default();
        Ok(Prepared { statement, command, plan, parameters })
    }

    /// Plans a statement that reads. Whatever slips through the sorting of statements is refused by the session.
    async fn plan(&self, statement: &Statement) -> Result<LogicalPlan, Failure> {
        Ok(self.0.session.plan(EngineStatement::Statement(Box::new(statement.clone()))).await?)
    }

    /// The columns of a plan on the wire.
    pub(super) fn wire(&self, schema: &Schema, format: &Format) -> PgWireResult<Wire> {
        let (options, zone) = {
            let settings = self.settings();
            (FormatOptions::from_client_metadata(&settings.format_metadata()), settings.zone())
        };
        Wire::new(schema, format, &Arc::new(options), &zone)
    }

    /// Runs a statement that reads. `bind` puts the parameters' values into the plan.
    async fn read(
        &self,
        statement: &Statement,
        format: &Format,
        bind: impl FnOnce(LogicalPlan) -> PgWireResult<LogicalPlan> + Send,
    ) -> PgWireResult<(Wire, Answer)> {
        let total = self.settings().statement_timeout();
        let shared = &self.0.shared;
        let time = shared.gate.time(total);
        let started = async {
            let plan = bind(time.limit(self.plan(statement)).await??)?;
            let schema = Arc::clone(plan.schema());
            let work = async { Ok(self.0.session.context().execute_logical_plan(plan).await?) };
            Ok::<_, PgWireError>((schema, shared.gate.answer(time, work).await?))
        }
        .await;
        shared.metrics.query("postgres", if started.is_ok() { "ok" } else { "error" });
        let (schema, answer) = started?;
        Ok((self.wire(schema.as_arrow(), format)?, answer))
    }

    /// Runs a statement of a simple query.
    pub(super) async fn run<C>(&self, client: &C, statement: &Statement) -> PgWireResult<Done>
    where
        C: ClientInfo + ClientPortalStore + Send + Sync,
        C::PortalStore: PortalStore,
    {
        let command = Command::of(statement)?;
        self.execute(client, statement, &command, &Format::UnifiedText, Ok).await
    }

    /// Runs a prepared statement with the values of its portal.
    pub(super) async fn run_portal<C>(&self, client: &C, portal: &Portal<Prepared>) -> PgWireResult<Done>
    where
        C: ClientInfo + ClientPortalStore + Send + Sync,
        C::PortalStore: PortalStore,
    {
        let stored = &portal.statement;
        let prepared = &stored.statement;
        let bind = |plan: LogicalPlan| {
            let plan = declare(plan, &stored.parameter_types)?;
            let values = Parameters::of(&plan)?.values(portal)?;
            plan.replace_params_with_values(&values).map_err(|error| Failure::from(error).into())
        };
        let format = &portal.result_column_format;
        self.execute(client, &prepared.statement, &prepared.command, format, bind).await
    }

    async fn execute<C>(
        &self,
        client: &C,
        statement: &Statement,
        command: &Command,
        format: &Format,
        bind: impl FnOnce(LogicalPlan) -> PgWireResult<LogicalPlan> + Send,
    ) -> PgWireResult<Done>
    where
        C: ClientInfo + ClientPortalStore + Send + Sync,
        C::PortalStore: PortalStore,
    {
        let aborted = client.transaction_status() == TransactionStatus::Error;
        if aborted && !matches!(command, Command::Commit | Command::Rollback) {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(raise(FAILED_TRANSACTION, message));
        }
        let context = self.0.session.context();
        let told = |word: &str| Response::Execution(Tag::new(word));
        Ok(match command {
            Command::Read => {
                let (wire, answer) = self.read(statement, format, bind).await?;
                Response::Query(wire.response(answer)).into()
            }
            Command::Begin => {
                self.settings().begin();
                Response::TransactionStart(Tag::new("BEGIN")).into()
            }
            Command::Commit | Command::Rollback => {
                let commit = *command == Command::Commit && !aborted;
                self.close_cursors(client, |hold| commit && hold);
                let mut settings = self.settings();
                let reports = if commit { settings.commit(context)? } else { settings.rollback(context)? };
                let word = if commit { "COMMIT" } else { "ROLLBACK" };
                Done { response: Response::TransactionEnd(Tag::new(word)), reports }
            }
            Command::Nothing(word) => told(word).into(),
            Command::Set { name, value, local } => {
                let reports = self.settings().set(context, name, value.clone(), *local)?;
                Done { response: told("SET"), reports }
            }
            Command::Reset(None) => {
                Done { response: told("RESET"), reports: self.settings().reset_all(context)? }
            }
            Command::Reset(Some(name)) => {
                let reports = self.settings().set(context, name, None, false)?;
                Done { response: told("RESET"), reports }
            }
            Command::Show(name) => {
                let value = self.settings().show(name)?;
                Response::Query(one_text(name, &value, format)?).into()
            }
            Command::Discard => {
                self.close_cursors(client, |_| false);
                Done { response: told("DISCARD ALL"), reports: self.settings().reset_all(context)? }
            }
            Command::Declare { name, query, binary, hold } => {
                let read = Statement::Query(query.clone());
                let format = if *binary { Format::UnifiedBinary } else { Format::UnifiedText };
                let (wire, answer) = self.read(&read, &format, bind).await?;
                self.open_cursor(client, name, *hold, read, wire.response(answer)).await?;
                told("DECLARE CURSOR").into()
            }
            Command::Fetch { name, rows } => {
                let fetched = match cursor(client, name) {
                    Some(portal) => portal.fetch(*rows).await?,
                    None => return Err(raise(NO_CURSOR, format!("cursor \"{name}\" does not exist"))),
                };
                let mut response = fetched.response;
                response.set_command_tag("FETCH");
                Response::Query(response).into()
            }
            Command::Close(name) => {
                let name = name.as_deref();
                if let Some(name) = name
                    && cursor(client, name).is_none()
                {
                    return Err(raise(NO_CURSOR, format!("cursor \"{name}\" does not exist")));
                }
                self.close_named_cursors(client, |open| name.is_none_or(|name| name == open));
                told("CLOSE CURSOR").into()
            }
            Command::Deallocate(name) => {
                if let (Some(name), Some(store)) = (name, store(client)) {
                    store.rm_statement(name);
                }
                told("DEALLOCATE").into()
            }
        })
    }

    async fn open_cursor<C>(
        &self,
        client: &C,
        name: &str,
        hold: bool,
        read: Statement,
        rows: QueryResponse,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Send + Sync,
        C::PortalStore: PortalStore,
    {
        let plan = self.plan(&read).await?;
        let prepared = Prepared {
            statement: read,
            command: Command::Read,
            plan: Some(plan),
            parameters: Parameters::default(),
        };
        let portal = Portal::new_cursor(
            name.to_owned(),
            Arc::new(StoredStatement::new(name.to_owned(), prepared, Vec::new())),
        );
        portal.start(rows).await;
        let Some(store) = store(client) else {
            return Err(raise(NOT_SUPPORTED, "cursors are not supported here"));
        };
        store.put_portal(Arc::new(portal));
        locked(&self.0.cursors).push((name.to_owned(), hold));
        Ok(())
    }

    fn close_cursors<C>(&self, client: &C, keep: impl Fn(bool) -> bool)
    where
        C: ClientPortalStore,
        C::PortalStore: PortalStore,
    {
        locked(&self.0.cursors).retain(|(name, hold)| {
            let kept = keep(*hold);
            if !kept && let Some(store) = store(client) {
                store.rm_portal(name);
            }
            kept
        });
    }

    fn close_named_cursors<C>(&self, client: &C, close: impl Fn(&str) -> bool)
    where
        C: ClientPortalStore,
        C::PortalStore: PortalStore,
    {
        locked(&self.0.cursors).retain(|(name, _)| {
            let closed = close(name);
            if closed && let Some(store) = store(client) {
                store.rm_portal(name);
            }
            !closed
        });
    }

    /// The columns that a prepared statement gives; empty when it gives no rows.
    pub(super) fn describe<C>(
        &self,
        client: &C,
        prepared: &Prepared,
        format: &Format,
    ) -> PgWireResult<Option<Wire>>
    where
        C: ClientPortalStore,
        C::PortalStore: PortalStore,
    {
        match (&prepared.command, &prepared.plan) {
            (Command::Read, Some(plan)) => self.wire(plan.schema().as_arrow(), format).map(Some),
            (Command::Show(name), _) => self.wire(&text_schema(name), format).map(Some),
            (Command::Fetch { name, .. }, _) => match cursor(client, name) {
                Some(portal) => match &portal.statement.statement.plan {
                    Some(plan) => self.wire(plan.schema().as_arrow(), format).map(Some),
                    None => Ok(None),
                },
                None => Err(raise(NO_CURSOR, format!("cursor \"{name}\" does not exist"))),
            },
            _ => Ok(None),
        }
    }
}

/// The statement whose plan a prepared statement is described by.
fn planned(command: &Command, statement: &Statement) -> Option<Statement> {
    match command {
        Command::Read => Some(statement.clone()),
        Command::Declare { query, .. } => Some(Statement::Query(query.clone())),
        _ => None,
    }
}

fn store<C>(client: &C) -> Option<&MemPortalStore<Prepared>>
where
    C: ClientPortalStore,
    C::PortalStore: PortalStore,
{
    client.portal_store().as_any().downcast_ref()
}

fn cursor<C>(client: &C, name: &str) -> Option<Arc<Portal<Prepared>>>
where
    C: ClientPortalStore,
    C::PortalStore: PortalStore,
{
    store(client)?.get_portal(name)?.value().cloned()
}
