//! SQL over batches in memory, for pipelines: planned once, run for every micro-batch.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use twinlake_contracts::{ColumnEdge, Error, Result, SqlEngine};

use crate::aggregates;
use crate::engine::Engine;
use crate::lineage::column_lineage;
use crate::row_wise::{carry, is_row_wise, unrepeatable};
use crate::session::SessionSettings;
use crate::statement::parse;
use crate::{CATALOG, DEFAULT_SCHEMA};

/// How many planned queries are kept.
const KEPT: usize = 256;
/// The carried column's name while the query runs; no SQL text can name it.
const HIDDEN: &str = "\u{1}carried";

/// SQL over batches in memory without a lake behind it: what checking and testing a pipeline needs. Keeps the queries
/// planned so far.
pub struct MicroBatches {
    runtime: Arc<RuntimeEnv>,
    prepared: Mutex<Vec<Arc<Prepared>>>,
}

/// A query over inputs of given schemas, planned and optimised.
struct Prepared {
    sql: String,
    inputs: Vec<(String, SchemaRef)>,
    carried: Option<String>,
    row_wise: bool,
    /// What comes out, the carried column last.
    schema: SchemaRef,
    state: SessionState,
    plan: LogicalPlan,
    slots: Vec<Arc<Slot>>,
    /// One run at a time puts its rows into the slots and turns the plan into a physical one.
    planning: tokio::sync::Mutex<()>,
}

impl Default for MicroBatches {
    /// Without bounds on memory.
    fn default() -> Self {
        Self::new(Arc::new(RuntimeEnv::default()))
    }
}

impl MicroBatches {
    pub(crate) fn new(runtime: Arc<RuntimeEnv>) -> Self {
        Self { runtime, prepared: Mutex::default() }
    }

    async fn prepared(
        &self,
        sql: &str,
        inputs: Vec<(String, SchemaRef)>,
        carried: Option<&str>,
    ) -> Result<Arc<Prepared>> {
        {
            let mut known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = known.iter().position(|one| one.answers(sql, &inputs, carried)) {
                // The most recently used ones are last.
                let found = known.remove(at);
                known.push(Arc::clone(&found));
                return Ok(found);
            }
        }
        let prepared = Prepared::new(sql, inputs, carried, &self.runtime).await.map_err(as_config)?;
        let prepared = Arc::new(prepared);
        let mut known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.remove(0);
        }
        known.push(Arc::clone(&prepared));
        Ok(prepared)
    }
}

/// A mistake in a pipeline's query is the author's, whatever it was.
fn as_config(error: Error) -> Error {
    match error {
        Error::NotFound { what, name, hint } => {
            let hint = hint.trim_start_matches([',', ' ']).to_owned();
            let error = Error::config(format!("{what} '{name}' not found"));
            if hint.is_empty() { error } else { error.with_help(hint) }
        }
        Error::Data { message, .. } => Error::config(message),
        other => other,
    }
}

impl Prepared {
    fn answers(&self, sql: &str, inputs: &[(String, SchemaRef)], carried: Option<&str>) -> bool {
        let same = |(known, given): (&(String, SchemaRef), &(String, SchemaRef))| {
            known.0 == given.0 && (Arc::ptr_eq(&known.1, &given.1) || known.1 == given.1)
        };
        self.sql == sql
            && self.carried.as_deref() == carried
            && self.inputs.len() == inputs.len()
            && self.inputs.iter().zip(inputs).all(same)
    }

    async fn new(
        sql: &str,
        inputs: Vec<(String, SchemaRef)>,
        carried: Option<&str>,
        runtime: &Arc<RuntimeEnv>,
    ) -> Result<Self> {
        let names: Vec<String> = inputs.iter().map(|(name, _)| name.clone()).collect();
        let failed = |error| crate::to_error(error, &names);
        let context = context(runtime).map_err(failed)?;
        let mut slots = Vec::with_capacity(inputs.len());
        for (name, schema) in &inputs {
            let visible = match carried {
                Some(carried) => without(schema, carried),
                None => Arc::clone(schema),
            };
            let slot = Arc::new(Slot { schema: visible, rows: Mutex::default() });
            context
                .register_table(TableReference::bare(name.as_str()), Arc::clone(&slot) as _)
                .map_err(failed)?;
            slots.push(slot);
        }
        let state = context.state();
        let mut plan = aggregates::plan(&state, query(sql)?).await.map_err(failed)?;
        if let Some(function) = unrepeatable(&plan).map_err(failed)? {
            return Err(Error::config(format!(
                "{function}() differs from run to run, but a pipeline must give the same rows again"
            ))
            .with_help("take the time from the message, or let the table's _ingested_at tell it"));
        }
        let row_wise = is_row_wise(&plan);
        if let Some(carried) = carried {
            let ([(name, schema)], true) = (inputs.as_slice(), row_wise) else {
                return Err(Error::internal(format!(
                    "the column '{carried}' cannot be carried: not row-wise"
                )));
            };
            let position = schema
                .index_of(carried)
                .map_err(|_| Error::internal(format!("the input '{name}' has no column '{carried}'")))?;
            let slot = Arc::new(Slot { schema: with_hidden(schema, position), rows: Mutex::default() });
            let source = provider_as_source(Arc::clone(&slot) as _);
            plan = carry(&plan, &source, HIDDEN).map_err(failed)?;
            slots = vec![slot];
        }
        let schema = output_schema(&plan, carried)?;
        let plan = state.optimize(&plan).map_err(failed)?;
        let planning = tokio::sync::Mutex::default();
        let carried = carried.map(str::to_owned);
        Ok(Self { sql: sql.to_owned(), inputs, carried, row_wise, schema, state, plan, slots, planning })
    }

    async fn run(&self, inputs: &[(String, SchemaRef, Vec<RecordBatch>)]) -> Result<Vec<RecordBatch>> {
        let failed = |error| crate::to_error(error, &[]);
        let physical = {
            let _planning = self.planning.lock().await;
            for (slot, (name, _, batches)) in self.slots.iter().zip(inputs) {
                let rows =
                    batches.iter().map(|batch| self.fit(slot, name, batch)).collect::<Result<Vec<_>>>()?;
                slot.put(rows);
            }
            let planned = self.state.query_planner().create_physical_plan(&self.plan, &self.state).await;
            self.slots.iter().for_each(|slot| slot.put(Vec::new()));
            planned.map_err(failed)?
        };
        let batches =
            datafusion::physical_plan::collect(physical, self.state.task_ctx()).await.map_err(failed)?;
        batches
            .into_iter()
            .map(|batch| {
                let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows).map_err(|error| {
                    Error::internal(format!("the query gave other columns than planned: {error}"))
                })
            })
            .collect()
    }

    /// The batch with the columns in the order of the slot: the carried one last, under its hidden name.
    fn fit(&self, slot: &Slot, name: &str, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        if let Some(carried) = &self.carried {
            let position = batch
                .schema_ref()
                .index_of(carried)
                .map_err(|_| Error::internal(format!("a batch of '{name}' has no column '{carried}'")))?;
            let column = columns.remove(position);
            columns.push(column);
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&slot.schema), columns, &rows)
            .map_err(|error| Error::internal(format!("a batch of '{name}' does not fit its schema: {error}")))
    }
}

/// One partition, so that rows keep their order; no settings from outside.
fn context(runtime: &Arc<RuntimeEnv>) -> datafusion::common::Result<SessionContext> {
    let config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_target_partitions(1)
        .set_str("datafusion.execution.time_zone", "UTC");
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(runtime))
        .with_default_features();
    let context = SessionContext::new_with_state(twinlake_spatial::time::configure(builder).build());
    crate::timestamps::register(&context);
    twinlake_spatial::register(&context)?;
    Ok(context)
}

/// The one query of a text.
fn query(sql: &str) -> Result<Statement> {
    let mut statements = parse(sql)?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(Statement::Statement(statement)), true) if matches!(*statement, ast::Statement::Query(_)) => {
            let mut statement = Statement::Statement(statement);
            twinlake_spatial::time::mark_asof_joins(&mut statement);
            Ok(statement)
        }
        _ => Err(Error::config("a pipeline's SQL is one SELECT statement")),
    }
}

fn without(schema: &SchemaRef, name: &str) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().filter(|field| field.name() != name).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn with_hidden(schema: &SchemaRef, position: usize) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    let carried = fields.remove(position);
    fields.push(Arc::new(carried.as_ref().clone().with_name(HIDDEN)));
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The plan's columns without the names of their tables; two of one name would overwrite each other further on.
fn output_schema(plan: &LogicalPlan, carried: Option<&str>) -> Result<SchemaRef> {
    let mut seen = BTreeSet::new();
    let mut fields: Vec<Arc<Field>> = plan.schema().fields().iter().cloned().collect();
    if let (Some(carried), Some(last)) = (carried, fields.last_mut()) {
        *last = Arc::new(last.as_ref().clone().with_name(carried));
    }
    let visible = fields.len() - usize::from(carried.is_some());
    for field in &fields[..visible] {
        if !seen.insert(field.name().clone()) {
            return Err(Error::config(format!("two columns of the result are named '{}'", field.name()))
                .with_help("give one another name with AS"));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A table whose rows are put in for each run.
struct Slot {
    schema: SchemaRef,
    rows: Mutex<Vec<RecordBatch>>,
}

impl Slot {
    fn put(&self, rows: Vec<RecordBatch>) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Slot {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(MemorySourceConfig::try_new_exec(&[rows], self.schema(), projection.cloned())?)
    }
}

fn schemas(inputs: &[(String, SchemaRef, Vec<RecordBatch>)]) -> Vec<(String, SchemaRef)> {
    inputs.iter().map(|(name, schema, _)| (name.clone(), Arc::clone(schema))).collect()
}

#[async_trait]
impl SqlEngine for MicroBatches {
    async fn column_lineage(
        &self,
        sql: &str,
        inputs: &[(String, SchemaRef)],
    ) -> Result<Option<Vec<ColumnEdge>>> {
        let names: Vec<String> = inputs.iter().map(|(name, _)| name.clone()).collect();
        let failed = |error| as_config(crate::to_error(error, &names));
        let context = context(&self.runtime).map_err(failed)?;
        for (name, schema) in inputs {
            let slot = Arc::new(Slot { schema: Arc::clone(schema), rows: Mutex::default() });
            context.register_table(TableReference::bare(name.as_str()), slot as _).map_err(failed)?;
        }
        let plan = aggregates::plan(&context.state(), query(sql)?).await.map_err(failed)?;
        column_lineage(&plan).map(Some).map_err(failed)
    }

    async fn plan(&self, sql: &str, inputs: &[(String, SchemaRef)]) -> Result<SchemaRef> {
        let prepared = self.prepared(sql, inputs.to_vec(), None).await?;
        Ok(Arc::clone(&prepared.schema))
    }

    async fn is_row_wise(&self, sql: &str, inputs: &[(String, SchemaRef)]) -> Result<bool> {
        Ok(self.prepared(sql, inputs.to_vec(), None).await?.row_wise)
    }

    async fn run(
        &self,
        sql: &str,
        inputs: &[(String, SchemaRef, Vec<RecordBatch>)],
        carry: Option<&str>,
    ) -> Result<Vec<RecordBatch>> {
        self.prepared(sql, schemas(inputs), carry).await?.run(inputs).await
    }
}

/// The same, with the engine's memory bounds.
#[async_trait]
impl SqlEngine for Engine {
    async fn plan(&self, sql: &str, inputs: &[(String, SchemaRef)]) -> Result<SchemaRef> {
        self.micro_batches.plan(sql, inputs).await
    }

    async fn is_row_wise(&self, sql: &str, inputs: &[(String, SchemaRef)]) -> Result<bool> {
        self.micro_batches.is_row_wise(sql, inputs).await
    }

    async fn run(
        &self,
        sql: &str,
        inputs: &[(String, SchemaRef, Vec<RecordBatch>)],
        carry: Option<&str>,
    ) -> Result<Vec<RecordBatch>> {
        self.micro_batches.run(sql, inputs, carry).await
    }

    async fn column_lineage(
        &self,
        sql: &str,
        inputs: &[(String, SchemaRef)],
    ) -> Result<Option<Vec<ColumnEdge>>> {
        self.micro_batches.column_lineage(sql, inputs).await
    }

    async fn table_lineage(&self, sql: &str) -> Result<Option<Vec<ColumnEdge>>> {
        let engine = self.itself.upgrade().ok_or_else(|| Error::internal("the engine is being closed"))?;
        let session = engine.session(SessionSettings { local_files: false })?;
        let mut statements = parse(sql)?;
        let Some(statement) = statements.pop_front() else { return Ok(None) };
        match session.plan(statement).await {
            Ok(plan) => column_lineage(&plan).map(Some).map_err(|error| session.error(error)),
            // A table that another pipeline is going to make.
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_tables(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let engine = self.itself.upgrade().ok_or_else(|| Error::internal("the engine is being closed"))?;
        engine.session(SessionSettings { local_files: false })?.collect(sql).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{engine, lines};
    use arrow::array::{BinaryArray, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::DataType;
    use twinlake_contracts::{CRS84, crs_of, geometry_field};

    fn input() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("vehicle", DataType::Utf8, true),
            Field::new("speed", DataType::Float64, true),
            Field::new("_row", DataType::Int64, false),
            geometry_field("geom", CRS84, true),
        ]);
        let geometry = twinlake_spatial::encode(&geo_point(24.94, 60.17));
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])),
                Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None])),
                Arc::new(Int64Array::from(vec![10, 11, 12])),
                Arc::new(BinaryArray::from(vec![Some(geometry.as_slice()), None, None])),
            ],
        )
        .unwrap()
    }

    fn geo_point(x: f64, y: f64) -> twinlake_spatial::Geometry {
        twinlake_spatial::from_geojson(&serde_json::json!({"type": "Point", "coordinates": [x, y]})).unwrap()
    }

    fn inputs() -> Vec<(String, SchemaRef)> {
        vec![("input".to_owned(), input().schema())]
    }

    async fn run(sql: &str, carry: Option<&str>) -> Result<Vec<RecordBatch>> {
        let (_folder, engine) = engine().await;
        let batch = input();
        engine.run(sql, &[("input".to_owned(), batch.schema(), vec![batch])], carry).await
    }

    #[tokio::test]
    async fn a_carried_column_rides_along() {
        for (sql, expected) in [
            ("SELECT vehicle, speed * 2 AS double FROM input WHERE vehicle IS NOT NULL", "a|2.0|10\nc||12"),
            ("SELECT x.v FROM (SELECT vehicle AS v, speed FROM input) AS x WHERE x.speed > 1.5", "|11"),
            (
                "WITH named AS (SELECT vehicle FROM input AS i) SELECT n.vehicle FROM named n",
                "a|10\n|11\nc|12",
            ),
            ("SELECT st_x(geom) AS lon FROM input WHERE geom IS NOT NULL", "24.94|10"),
        ] {
            let rows = run(sql, Some("_row")).await.unwrap();
            assert_eq!(lines(&rows), expected, "{sql}");
            assert_eq!(rows[0].schema().fields().last().unwrap().name(), "_row");
        }
        let star = run("SELECT * FROM input WHERE vehicle = 'a'", Some("_row")).await.unwrap();
        let names: Vec<String> = star[0].schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["vehicle", "speed", "geom", "_row"]);
    }

    #[tokio::test]
    async fn knows_row_wise_queries() {
        let (_folder, engine) = engine().await;
        for (sql, expected) in [
            ("SELECT * FROM input", true),
            ("SELECT upper(vehicle) AS v FROM input WHERE speed > 1", true),
            ("WITH a AS (SELECT * FROM input) SELECT speed FROM a", true),
            ("SELECT CASE WHEN speed > 1 THEN 1 ELSE 0 END AS x FROM input AS i", true),
            ("SELECT count(*) FROM input", false),
            ("SELECT DISTINCT vehicle FROM input", false),
            ("SELECT vehicle, avg(speed) FROM input GROUP BY vehicle", false),
            ("SELECT row_number() OVER (ORDER BY speed) AS n FROM input", false),
            ("SELECT * FROM input LIMIT 1", false),
            ("SELECT * FROM input ORDER BY speed", false),
            ("SELECT vehicle FROM input UNION ALL SELECT vehicle FROM input", false),
            ("SELECT a.vehicle FROM input a JOIN input b ON a.vehicle = b.vehicle", false),
            ("SELECT vehicle FROM input WHERE speed > (SELECT avg(speed) FROM input)", false),
            ("SELECT vehicle FROM input WHERE vehicle IN (SELECT vehicle FROM input)", false),
            ("SELECT unnest(make_array(1, 2)) AS x FROM input", false),
            ("SELECT 1 AS one", false),
        ] {
            assert_eq!(engine.is_row_wise(sql, &inputs()).await.unwrap(), expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn plans_names_types_and_reference_systems() {
        let (_folder, engine) = engine().await;
        let sql = "SELECT vehicle, st_centroid(geom) AS geom, to_timestamp('2018-10-09T04:32:53Z') AS ts FROM input";
        let schema = engine.plan(sql, &inputs()).await.unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
        assert_eq!(crs_of(schema.field(1)).as_deref(), Some(CRS84));
        let batch = input();
        let rows = engine.run(sql, &[("input".to_owned(), batch.schema(), vec![batch])], None).await.unwrap();
        assert_eq!(rows[0].schema(), schema);
    }

    #[tokio::test]
    async fn mistakes_are_the_authors_and_suggest_the_way_out() {
        let (_folder, engine) = engine().await;
        for (sql, part) in [
            ("SELECT speeed FROM input", "did you mean 'speed'?"),
            ("SELECT speed FROM imput", "did you mean 'input'?"),
            ("SELECT st_xx(geom) FROM input", "st_x"),
            ("SELECT now() AS t FROM input", "now() differs from run to run"),
            ("SELECT random() AS t FROM input", "random() differs from run to run"),
            ("DELETE FROM input", "one SELECT statement"),
            ("SELECT 1; SELECT 2", "one SELECT statement"),
            ("SELECT vehicle AS a, speed AS a FROM input", "a"),
            ("SELECT speed FROM meta.datasets", "not found"),
        ] {
            let error = engine.plan(sql, &inputs()).await.unwrap_err();
            assert!(matches!(error, Error::Config(_)), "{sql}: {error:?}");
            assert!(error.to_string().contains(part), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn a_value_at_fault_is_a_data_error() {
        let error = run("SELECT CAST(vehicle AS BIGINT) AS n FROM input", Some("_row")).await.unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
        let error = run("SELECT st_point(speed / 0.0, 1) AS n FROM input", None).await.unwrap_err();
        assert!(error.to_string().contains("st_point: the coordinate (inf, 1) is not finite"), "{error}");
    }

    #[tokio::test]
    async fn runs_at_the_same_time_do_not_mix() {
        let (_folder, engine) = engine().await;
        let tasks = (0..16i64).map(|task| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
                let rows = RecordBatch::try_new(
                    Arc::clone(&schema),
                    vec![Arc::new(Int64Array::from_iter_values(std::iter::repeat_n(task, 100)))],
                );
                let input = [("input".to_owned(), schema, vec![rows.unwrap()])];
                let result = engine.run("SELECT x + 1 AS y FROM input", &input, None).await.unwrap();
                let distinct: BTreeSet<String> = lines(&result).lines().map(str::to_owned).collect();
                assert_eq!(distinct, BTreeSet::from([(task + 1).to_string()]));
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(engine.micro_batches.prepared.lock().unwrap().len(), 1);
    }
}
