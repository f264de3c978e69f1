//! `obj_description` and `col_description`: what `meta.datasets` and `meta.columns` say, as tools ask for comments.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use twinlake_query::{CATALOG, Engine, SessionSettings};

use super::catalog::PG_CATALOG;

/// Where identifiers and descriptions come from.
pub(super) struct Descriptions {
    engine: Weak<Engine>,
    /// `pg_catalog`, which hands out the identifiers of tables.
    identifiers: Arc<dyn SchemaProvider>,
}

/// The description of a table by its identifier, or of a column by that and its number.
type Found = HashMap<(i64, i64), String>;

impl Descriptions {
    pub(super) fn new(engine: &Arc<Engine>, identifiers: Arc<dyn SchemaProvider>) -> Arc<Self> {
        Arc::new(Self { engine: Arc::downgrade(engine), identifiers })
    }

    /// The two functions.
    pub(super) fn functions(self: &Arc<Self>) -> [ScalarUDF; 2] {
        let of_table = vec![DataType::Int32, DataType::Utf8];
        let of_column = vec![DataType::Int32, DataType::Int32];
        [("obj_description", of_table, false), ("col_description", of_column, true)].map(
            |(name, arguments, columns)| {
                let signature = Signature::new(
                    TypeSignature::OneOf(vec![TypeSignature::Exact(arguments), TypeSignature::Any(1)]),
                    Volatility::Stable,
                );
                let function = Describe { name, signature, columns, descriptions: Arc::clone(self) };
                AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf()
            },
        )
    }

    /// All descriptions there are now; tables have the number 0.
    async fn find(&self) -> twinlake_contracts::Result<Found> {
        let Some(engine) = self.engine.upgrade() else { return Ok(Found::new()) };
        let session = engine.session(SessionSettings { local_files: false })?;
        let context = session.context();
        if let Some(catalog) = context.catalog(CATALOG) {
            let registered = catalog.register_schema(PG_CATALOG, Arc::clone(&self.identifiers));
            registered.map_err(|error| session.error(error))?;
        }
        let classes = session
            .collect(
                "SELECT CAST(c.oid AS BIGINT) AS id, concat(n.nspname, '.', c.relname) AS name FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON c.relnamespace = n.oid",
            )
            .await?;
        let mut ids: HashMap<String, i64> = HashMap::new();
        each(&classes, |id, name| {
            ids.insert(name, id);
        })?;
        let mut found = Found::new();
        for sql in [
            "SELECT CAST(0 AS BIGINT) AS id, name, description FROM meta.datasets WHERE description <> ''",
            "SELECT CAST(0 AS BIGINT) AS id, concat('twin.', name) AS name, description FROM meta.twin_models",
            "SELECT CAST(0 AS BIGINT) AS id, concat('twin.', name, '_history') AS name, \
             concat('Every reading of: ', description) AS description FROM meta.twin_models WHERE kind = 'telemetry'",
            "SELECT CAST(0 AS BIGINT) AS id, 'twin.relations' AS name, \
             concat('The edges between all twins: ', string_agg(DISTINCT concat(model, '.', name), ', ')) AS description \
             FROM meta.twin_relations HAVING count(*) > 0",
            "SELECT CAST(0 AS BIGINT) AS id, concat('twin.', name) AS name, description FROM meta.twin_views",
            "SELECT position AS id, table_name AS name, concat(coalesce(description, ''), \
             CASE WHEN unit IS NULL THEN '' ELSE concat(' [', unit, ']') END) AS description FROM meta.columns \
             WHERE description IS NOT NULL OR unit IS NOT NULL",
        ] {
            // Without a catalog or twins their tables are not there.
            let Ok(rows) = session.collect(sql).await else { continue };
            for batch in &rows {
                let texts = cast(batch.column(2), &DataType::Utf8)?;
                let texts = texts.as_string::<i32>();
                let mut row = 0;
                each(std::slice::from_ref(batch), |number, name| {
                    if let Some(id) = ids.get(&name)
                        && texts.is_valid(row)
                    {
                        found.insert((*id, number), texts.value(row).trim().to_owned());
                    }
                    row += 1;
                })?;
            }
        }
        Ok(found)
    }
}

/// Goes over rows of a number and a text.
fn each(batches: &[RecordBatch], mut take: impl FnMut(i64, String)) -> twinlake_contracts::Result<()> {
    for batch in batches {
        let (numbers, texts) =
            (cast(batch.column(0), &DataType::Int64)?, cast(batch.column(1), &DataType::Utf8)?);
        let (numbers, texts) = (numbers.as_primitive::<Int64Type>(), texts.as_string::<i32>());
        for row in 0..batch.num_rows() {
            let text = if texts.is_valid(row) { texts.value(row) } else { "" };
            take(if numbers.is_valid(row) { numbers.value(row) } else { -1 }, text.to_owned());
        }
    }
    Ok(())
}

struct Describe {
    name: &'static str,
    signature: Signature,
    columns: bool,
    descriptions: Arc<Descriptions>,
}

impl fmt::Debug for Describe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Describe").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Describe {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.descriptions, &other.descriptions)
    }
}

impl Eq for Describe {}

impl Hash for Describe {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Describe {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("{}() is asked asynchronously", self.name)
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Describe {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let number = |at: usize| -> Result<ArrayRef> {
            let array = arguments.args[at].clone().into_array(rows)?;
            Ok(cast(&array, &DataType::Int64)?)
        };
        let ids = number(0)?;
        let ids = ids.as_primitive::<Int64Type>();
        let positions = if self.columns && arguments.args.len() > 1 { Some(number(1)?) } else { None };
        let positions = positions.as_ref().map(AsArray::as_primitive::<Int64Type>);
        // Nothing to ask for: psql also asks about relations that nobody describes.
        let found = if ids.null_count() == rows {
            Found::new()
        } else {
            self.descriptions.find().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "descriptions cannot be found");
                Found::new()
            })
        };
        let described: StringArray = (0..rows)
            .map(|row| {
                let id = ids.is_valid(row).then(|| ids.value(row))?;
                let position = positions.map_or(0, |positions| positions.value(row));
                found.get(&(id, position)).map(String::as_str)
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(described)))
    }
}
