//! A session: settings of its own over the shared lake; reads only.

use std::sync::Arc;

use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use twinlake_contracts::{Error, Result};

use crate::aggregates;
use crate::catalog::LakeCatalog;
use crate::engine::Engine;
use crate::settings::Tense;
use crate::statement::{parse, prepare_statement};

/// What a session may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionSettings {
    /// Whether `SELECT … FROM 'trips.parquet'` and `CREATE EXTERNAL TABLE` may read files of this machine. For the
    /// command line, not for doors to the network.
    pub local_files: bool,
}

/// One session. Its `SET`s are seen by no other; a clone of the `Arc` from [`Session::context`] shares them.
pub struct Session {
    context: Arc<SessionContext>,
    engine: Arc<Engine>,
    catalog: Arc<LakeCatalog>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.context.session_id()).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(context: Arc<SessionContext>, engine: Arc<Engine>, catalog: Arc<LakeCatalog>) -> Self {
        Self { context, engine, catalog }
    }

    /// DataFusion's context behind the session, with its catalog, functions and settings.
    pub fn context(&self) -> &Arc<SessionContext> {
        &self.context
    }

    /// The tense that the session is in.
    pub fn tense(&self) -> Result<Tense> {
        Tense::from(self.context.state().config().options())
    }

    /// Plans one statement, and carries out `SET` and `RESET`. Tables are resolved to their newest version here; the
    /// rows are read when the result is.
    pub async fn sql(&self, sql: &str) -> Result<DataFrame> {
        let mut statements = parse(sql)?;
        match (statements.pop_front(), statements.is_empty()) {
            (Some(statement), true) => self.statement(statement).await,
            (Some(_), false) => {
                Err(Error::config("more than one statement was given")
                    .with_help("send them one after the other"))
            }
            (None, _) => Err(Error::config("no statement was given")),
        }
    }

    /// As [`Session::sql`], for a statement that was parsed already.
    pub async fn statement(&self, statement: Statement) -> Result<DataFrame> {
        let plan = self.plan(statement).await?;
        self.context.execute_logical_plan(plan).await.map_err(|error| self.error(error))
    }

    /// Plans a statement and checks that it only reads.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        // A file under a name of this session alone: nothing is written.
        let names_a_file =
            self.catalog.reads_files() && matches!(statement, Statement::CreateExternalTable(_));
        let statement = if names_a_file { statement } else { prepare_statement(statement)? };
        self.engine.refresh().await?;
        let state = self.context.state();
        let plan = aggregates::plan(&state, statement).await.map_err(|error| self.error(error))?;
        SQLOptions::new()
            .with_allow_ddl(names_a_file)
            .with_allow_dml(false)
            .verify_plan(&plan)
            .map_err(|error| self.error(error))?;
        Ok(plan)
    }

    /// Plans one statement and starts it.
    pub async fn execute(&self, sql: &str) -> Result<SendableRecordBatchStream> {
        let frame = self.sql(sql).await?;
        frame.execute_stream().await.map_err(|error| self.error(error))
    }

    /// Plans and runs one statement to its end.
    pub async fn collect(&self, sql: &str) -> Result<Vec<arrow::array::RecordBatch>> {
        let frame = self.sql(sql).await?;
        frame.collect().await.map_err(|error| self.error(error))
    }

    /// Runtime and settings for executing a physical plan of this session.
    pub fn task_context(&self) -> Arc<TaskContext> {
        self.context.task_ctx()
    }

    /// Sorts an error of a query of this session, with suggestions for names.
    pub fn error(&self, error: datafusion::error::DataFusionError) -> Error {
        crate::to_error(error, &self.catalog.table_names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{engine, lines, vehicle_table, vehicles};
    use crate::{Arguments, Extension};
    use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
    use datafusion::datasource::MemTable;
    use twinlake_contracts::WriteMode;
    use twinlake_lake::{Lake, LakeOptions};

    async fn ask(session: &Session, sql: &str) -> String {
        match session.collect(sql).await {
            Ok(rows) => lines(&rows),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn each_query_sees_the_newest_version_and_fresh_rows() {
        let (folder, engine) = engine().await;
        let session = engine.session(SessionSettings::default()).unwrap();
        let count = "SELECT count(*) FROM traffic.vehicle_position";
        assert!(ask(&session, count).await.contains("not found"));
        let table = vehicle_table(engine.lake()).await;
        assert_eq!(ask(&session, count).await, "0");
        table.add_fresh("p/s", vehicles(&["a", "b"])).await.unwrap();
        assert_eq!(ask(&session, count).await, "2");
        table.commit("p/s", 2, WriteMode::Append).await.unwrap();
        assert_eq!(ask(&session, count).await, "2");
        // Another process on the same lake.
        let path = folder.path().to_str().unwrap();
        let options = LakeOptions { local_dir: folder.path().to_owned(), ..LakeOptions::default() };
        let other = Lake::open(path, options).await.unwrap();
        let theirs = vehicle_table(&other).await;
        theirs.add_fresh("q/s", vehicles(&["c"])).await.unwrap();
        theirs.commit("q/s", 1, WriteMode::Append).await.unwrap();
        assert_eq!(ask(&session, count).await, "3");
        assert_eq!(ask(&session, "SELECT name, rows FROM meta.datasets").await, "traffic.vehicle_position|3");
    }

    #[tokio::test]
    async fn settings_stay_in_their_session() {
        let (_folder, engine) = engine().await;
        let one = engine.session(SessionSettings::default()).unwrap();
        let other = engine.session(SessionSettings::default()).unwrap();
        one.sql("SET twin.as_of TO '2018-10-09T04:32:53Z'").await.unwrap();
        one.sql("SET twin.scenario = 'bridge-closed'").await.unwrap();
        assert_eq!(one.tense().unwrap().as_of_us, Some(1_539_059_573_000_000));
        assert_eq!(ask(&one, "SHOW twin.scenario").await, "twin.scenario|bridge-closed");
        assert_eq!(other.tense().unwrap(), Tense::default());
        one.sql("RESET twin.as_of").await.unwrap();
        one.sql("SET twin.scenario = ''").await.unwrap();
        assert_eq!(one.tense().unwrap(), Tense::default());
        assert!(ask(&one, "SET twin.as_off = '2018-10-09'").await.contains("did you mean 'twin.as_of'?"));
        assert!(ask(&one, "SET twin.as_of = 'soon'").await.contains("'soon' is not a time stamp"));
    }

    #[tokio::test]
    async fn files_are_tables_only_where_allowed() {
        let (folder, engine) = engine().await;
        let file = folder.path().join("trips.csv");
        std::fs::write(&file, "line,riders\n550,12\n551,7\n").unwrap();
        let sql = format!("SELECT sum(riders) FROM '{}'", file.display());
        let allowed = engine.session(SessionSettings { local_files: true }).unwrap();
        assert_eq!(ask(&allowed, &sql).await, "19");
        assert_eq!(
            ask(&allowed, "SELECT * FROM 'missing.parquet'").await,
            "file 'missing.parquet' not found"
        );
        let refused = engine.session(SessionSettings::default()).unwrap();
        let message = ask(&refused, &sql).await;
        assert!(message.contains("cannot be read here"), "{message}");
        let named = format!(
            "CREATE EXTERNAL TABLE trip STORED AS CSV LOCATION '{}' OPTIONS (format.has_header true)",
            file.display()
        );
        assert_eq!(ask(&allowed, &named).await, "");
        assert_eq!(ask(&allowed, "SELECT sum(riders) FROM trip").await, "19");
        let again = ask(&allowed, &named).await;
        assert!(again.contains("already exists"), "{again}");
        assert!(ask(&refused, &named).await.contains("CREATE EXTERNAL TABLE is refused"));
        let writing = ask(&allowed, "COPY (SELECT 1) TO 'out.csv'").await;
        assert!(writing.contains("COPY is refused"), "{writing}");
    }

    #[tokio::test]
    async fn a_file_keeps_the_reference_system_of_its_geometry() {
        let (folder, engine) = engine().await;
        let rows = vehicles(&["a"]);
        let geometry = twinlake_contracts::geometry_field("geom", "EPSG:3879", true);
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![geometry]));
        let rows = arrow::array::RecordBatch::try_new(schema, vec![Arc::clone(rows.column(3))]).unwrap();
        let file = folder.path().join("x.parquet");
        let writer = std::fs::File::create(&file).unwrap();
        crate::output::write(crate::output::Format::Parquet, &rows.schema(), &[rows], writer).unwrap();
        let session = engine.session(SessionSettings { local_files: true }).unwrap();
        let from = format!("FROM '{}'", file.display());
        assert_eq!(ask(&session, &format!("SELECT st_srid(geom), st_x(geom) {from}")).await, "3879|24.94");
        let mixed = ask(&session, &format!("SELECT st_distance(geom, st_point(1, 2)) {from}")).await;
        assert!(mixed.contains("different reference systems"), "{mixed}");
    }

    #[derive(Debug)]
    struct Echo;

    impl TableFunctionImpl for Echo {
        fn call_with_args(
            &self,
            arguments: TableFunctionArgs,
        ) -> datafusion::common::Result<Arc<dyn TableProvider>> {
            let mut given = Arguments::parse("echo", arguments.exprs())?;
            given.name_positional(&["model", "at"])?;
            given.only(&["model", "at", "scenario", "seed"])?;
            let names: Vec<String> = vec![
                given.text("model")?.unwrap_or_default(),
                given.instant_us("at")?.unwrap_or_default().to_string(),
                given.text("scenario")?.unwrap_or_default(),
                given.integer("seed")?.unwrap_or_default().to_string(),
            ];
            let rows = vehicles(&names.iter().map(String::as_str).collect::<Vec<_>>());
            Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))
        }
    }

    struct Example;

    impl Extension for Example {
        fn register(&self, context: &SessionContext) -> datafusion::common::Result<()> {
            context.register_udtf("echo", Arc::new(Echo));
            let rows = vehicles(&["from an extension"]);
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
            context.register_table("meta.twin_models", Arc::new(table))?;
            Ok(())
        }
    }

    #[tokio::test]
    async fn extensions_bring_tables_and_functions_with_named_arguments() {
        let (_folder, engine) = engine().await;
        engine.extend(Arc::new(Example));
        let session = engine.session(SessionSettings::default()).unwrap();
        assert_eq!(ask(&session, "SELECT vehicle_id FROM meta.twin_models").await, "from an extension");
        for (sql, expected) in [
            (
                "SELECT vehicle_id FROM echo('road', TIMESTAMP '2018-10-09T04:32:53Z', scenario => 'x', seed => 1)",
                "road\n1539059573000000\nx\n1",
            ),
            ("SELECT e.vehicle_id FROM echo('road', seed => 1 + 1) AS e WHERE e.line = 553", "2"),
            (
                "SELECT echo.vehicle_id FROM echo(model => 'road', at => '1970-01-01T00:00:01Z') LIMIT 2",
                "road\n1000000",
            ),
            ("SELECT echo.vehicle_id FROM echo('road') LIMIT 1", "road"),
        ] {
            assert_eq!(ask(&session, sql).await, expected, "{sql}");
        }
        for (sql, part) in [
            ("SELECT * FROM echo('road', sead => 1)", "did you mean 'seed'?"),
            ("SELECT * FROM echo('road', seed => 'x')", "'seed' must be a whole number"),
            ("SELECT * FROM echo('road', at => 'soon')", "'at' must be a time stamp"),
            ("SELECT * FROM echo('road', seed => 1, seed => 2)", "given twice"),
            ("SELECT * FROM echo(seed => 1, 'road')", "without a name follows"),
            ("SELECT * FROM ecco('road', seed => 1)", "ecco"),
        ] {
            let message = ask(&session, sql).await;
            assert!(message.contains(part), "{sql}: {message}");
        }
    }

    #[tokio::test]
    async fn meta_tables_stand_before_anything_ran() {
        let (_folder, engine) = engine().await;
        let session = engine.session(SessionSettings::default()).unwrap();
        for table in ["runs", "rejects", "lineage", "datasets", "quality", "definitions"] {
            assert_eq!(ask(&session, &format!("SELECT count(*) FROM meta.{table}")).await, "0", "{table}");
        }
        let listed =
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'meta' ORDER BY 1";
        assert_eq!(ask(&session, listed).await, "datasets\ndefinitions\nlineage\nquality\nrejects\nruns");
    }

    #[tokio::test]
    async fn names_are_suggested_and_writes_refused() {
        let (_folder, engine) = engine().await;
        let _table = vehicle_table(engine.lake()).await;
        let session = engine.session(SessionSettings::default()).unwrap();
        for (sql, part) in [
            ("SELECT * FROM vehicle_position", "did you mean 'traffic.vehicle_position'?"),
            ("SELECT * FROM traffic.vehicle_positions", "did you mean 'traffic.vehicle_position'?"),
            ("SELECT vehicle FROM traffic.vehicle_position", "no column named 'vehicle'"),
            ("INSERT INTO traffic.vehicle_position VALUES (1)", "INSERT is refused"),
            ("SELECT 1; SELECT 2", "more than one statement"),
            ("", "no statement"),
        ] {
            let message = ask(&session, sql).await;
            assert!(message.contains(part), "{sql}: {message}");
        }
    }

    #[tokio::test]
    async fn memory_has_a_bound_when_one_is_set() {
        let (_folder, engine) = engine().await;
        let options = crate::EngineOptions { memory_limit_bytes: Some(100_000), ..Default::default() };
        let small = Engine::with_options(Arc::clone(engine.lake()), options).unwrap();
        let session = small.session(SessionSettings::default()).unwrap();
        let sql = "SELECT array_agg(value) FROM generate_series(1, 10000000) AS t(value)";
        let error = session.collect(sql).await.unwrap_err();
        assert!(matches!(error, Error::External { .. }), "{error:?}");
    }
}
