//! Runs a SQL expression with all functions, for the tests beside them.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;

/// The first row of `SELECT {expressions}`, columns joined by `|`, null as `NULL`; an error as its message.
pub(crate) fn eval(expressions: &str) -> String {
    query(&format!("SELECT {expressions}")).map_or_else(|error| error, |rows| rows.join("\n"))
}

/// All rows of a query, or of the last one of several statements.
pub(crate) fn query(sql: &str) -> Result<Vec<String>, String> {
    rows_of(sql, context(SessionConfig::new(), Arc::default()))
}

/// All rows of a query that has so much memory, two partitions, and files for what does not fit.
pub(crate) fn query_with(bytes: usize, sql: &str) -> Result<Vec<String>, String> {
    query_in(bytes, DiskManagerMode::OsTmpDirectory, sql)
}

/// The same; it is an error when nothing went to files.
pub(crate) fn query_within(bytes: usize, sql: &str) -> Result<Vec<String>, String> {
    if query_in(bytes, DiskManagerMode::Disabled, sql).is_ok() {
        return Err("it fits into memory".to_owned());
    }
    query_with(bytes, sql)
}

fn query_in(bytes: usize, files: DiskManagerMode, sql: &str) -> Result<Vec<String>, String> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(files))
        .build_arc()
        .map_err(|error| error.to_string())?;
    let config = SessionConfig::new()
        .with_target_partitions(2)
        .with_batch_size(512)
        .with_sort_spill_reservation_bytes(bytes / 64);
    rows_of(sql, context(config, runtime))
}

fn rows_of(sql: &str, context: SessionContext) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime
        .block_on(async {
            crate::register(&context)?;
            let mut rows = Vec::new();
            for statement in parse(sql)? {
                let plan = context.state().statement_to_plan(statement).await?;
                rows = context.execute_logical_plan(plan).await?.collect().await?;
            }
            Ok::<_, datafusion::common::DataFusionError>(rows)
        })
        .map_err(|error| error.to_string())
        .and_then(|batches| {
            let options = arrow::util::display::FormatOptions::default().with_null("NULL");
            let mut rows = Vec::new();
            for batch in batches {
                let columns = batch
                    .columns()
                    .iter()
                    .map(|column| arrow::util::display::ArrayFormatter::try_new(column, &options))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| error.to_string())?;
                for row in 0..batch.num_rows() {
                    let cells: Vec<String> =
                        columns.iter().map(|column| column.value(row).to_string()).collect();
                    rows.push(cells.join("|"));
                }
            }
            Ok(rows)
        })
}

fn context(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let builder =
        SessionStateBuilder::new().with_default_features().with_config(config).with_runtime_env(runtime);
    SessionContext::new_with_state(crate::time::configure(builder).build())
}

fn parse(sql: &str) -> datafusion::common::Result<Vec<Statement>> {
    let dialect = GenericDialect {};
    let tokens =
        crate::time::tokens_with_asof(&dialect, sql).map_err(|error| exec_datafusion_err!("{error}"))?;
    let parsed = DFParserBuilder::new(tokens).with_dialect(&dialect).build()?.parse_statements()?;
    let mut statements: Vec<Statement> = parsed.into();
    statements.iter_mut().for_each(crate::time::mark_asof_joins);
    Ok(statements)
}

/// Asserts a table of expressions and their values.
pub(crate) fn check(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(eval(expression), *expected, "{expression}");
    }
}

/// Asserts that an expression fails with a message that contains `part`.
pub(crate) fn fails(expression: &str, part: &str) {
    let result = query(&format!("SELECT {expression}"));
    let message = result.expect_err(expression);
    assert!(message.contains(part), "{expression}: {message}");
}

/// One geometry of every type, with its WKT.
pub(crate) const EVERY_TYPE: [&str; 7] = [
    "POINT(1 2)",
    "LINESTRING(0 0,3 4)",
    "POLYGON((0 0,4 0,4 4,0 4,0 0))",
    "MULTIPOINT((1 2),(3 4))",
    "MULTILINESTRING((0 0,3 4),(10 0,10 5))",
    "MULTIPOLYGON(((0 0,4 0,4 4,0 4,0 0)),((10 10,11 10,11 11,10 11,10 10)))",
    "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,3 4))",
];

/// Asserts the value of `function(geometry)` for one geometry of every type, in the order of [`EVERY_TYPE`].
pub(crate) fn every_type(function: &str, expected: [&str; 7]) {
    for (wkt, expected) in EVERY_TYPE.iter().zip(expected) {
        let expression = format!("{function}(st_geomfromtext('{wkt}'))");
        assert_eq!(eval(&expression), expected, "{expression}");
    }
}

/// Calls a function with constants, without planning a query.
pub(crate) fn invoke(name: &str, arguments: &[ScalarValue]) -> Result<ScalarValue, String> {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    static ALL: LazyLock<HashMap<String, datafusion::logical_expr::ScalarUDF>> = LazyLock::new(|| {
        crate::functions().into_iter().map(|function| (function.name().to_owned(), function)).collect()
    });
    let function = ALL.get(name).ok_or_else(|| format!("{name} is not known"))?;
    let fields: Vec<_> =
        arguments.iter().map(|value| Arc::new(Field::new("a", value.data_type(), true))).collect();
    let scalars: Vec<Option<&ScalarValue>> = arguments.iter().map(Some).collect();
    let planned = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars };
    let return_field = function.return_field_from_args(planned).map_err(|error| error.to_string())?;
    let result = function.invoke_with_args(ScalarFunctionArgs {
        args: arguments.iter().cloned().map(ColumnarValue::Scalar).collect(),
        arg_fields: fields,
        number_rows: 1,
        return_field,
        config_options: Arc::default(),
    });
    match result.map_err(|error| error.to_string())? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(_) => Err("an array".to_owned()),
    }
}
