//! `pg_catalog` for every connection: the tables and functions that psql and drivers ask for.
//!
//! It is built once, over a session of its own, and lent to each connection: building it reads some megabytes, and
//! object identifiers stay the same over all connections.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableFunctionImpl};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::generate_series_arg_coercion::CoerceIntArgsToBigInt;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use twinlake_contracts::{Error, Result};
use twinlake_query::{CATALOG, Engine, SessionSettings};

use super::descriptions::Descriptions;

/// The schema that clients ask.
pub(super) const PG_CATALOG: &str = "pg_catalog";

/// What a connection is lent.
#[derive(Debug)]
pub(super) struct PgCatalog {
    schema: Arc<dyn SchemaProvider>,
    functions: Vec<ScalarUDF>,
    table_functions: Vec<(String, Arc<dyn TableFunctionImpl>)>,
}

impl PgCatalog {
    /// Builds it over the engine's catalog.
    pub(super) fn new(engine: &Arc<Engine>) -> Result<Self> {
        let session = engine.session(SessionSettings { local_files: false })?;
        let context = session.context();
        let state = context.state();
        let functions: HashSet<String> = state.scalar_functions().keys().cloned().collect();
        let table_functions: HashSet<String> = state.table_functions().keys().cloned().collect();
        setup_pg_catalog(context, CATALOG, EmptyContextProvider).map_err(|error| Error::internal(&error))?;
        let schema = own_catalog(context)?
            .schema(PG_CATALOG)
            .ok_or_else(|| Error::internal("pg_catalog was not registered"))?;
        let state = context.state();
        let mut lent: Vec<ScalarUDF> = state
            .scalar_functions()
            .iter()
            .filter(|(name, _)| !functions.contains(*name))
            .map(|(_, function)| function.as_ref().clone())
            .collect();
        lent.extend(own_functions());
        lent.extend(Descriptions::new(engine, Arc::clone(&schema)).functions());
        let lent_tables = state
            .table_functions()
            .iter()
            .filter(|(name, _)| !table_functions.contains(*name))
            .map(|(name, function)| (name.clone(), Arc::clone(function.function())))
            .collect();
        Ok(Self { schema, functions: lent, table_functions: lent_tables })
    }

    /// Lends it to a connection's session.
    pub(super) fn install(&self, context: &SessionContext) -> Result<()> {
        own_catalog(context)?
            .register_schema(PG_CATALOG, Arc::clone(&self.schema))
            .map_err(|error| Error::internal(&error))?;
        for function in &self.functions {
            context.register_udf(function.clone());
        }
        for (name, function) in &self.table_functions {
            context.register_udtf(name, Arc::clone(function));
        }
        // Types such as `regclass` in casts.
        let state = context.state_ref();
        let planned = SessionStateBuilder::new_from_existing(state.read().clone())
            .with_type_planner(Arc::new(PgOidTypePlanner))
            .build();
        *state.write() = planned;
        CoerceIntArgsToBigInt::widen(context);
        Ok(())
    }
}

fn own_catalog(context: &SessionContext) -> Result<Arc<dyn CatalogProvider>> {
    context.catalog(CATALOG).ok_or_else(|| Error::internal("a session without its catalog"))
}

/// Functions that clients call and that neither the engine nor `pg_catalog` has.
fn own_functions() -> Vec<ScalarUDF> {
    // Clients read the version number behind the word PostgreSQL.
    let version = format!("PostgreSQL {} (Twinlake {})", super::SERVER_VERSION, env!("CARGO_PKG_VERSION"));
    vec![
        text_constant("version", vec![], Some(version)),
        text_constant("shobj_description", vec![DataType::Int32, DataType::Utf8], None),
    ]
}

fn text_constant(name: &str, arguments: Vec<DataType>, value: Option<String>) -> ScalarUDF {
    create_udf(
        name,
        arguments,
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value.clone())))),
    )
}
