//! The SQL engine as pipelines see it; `query` implements it with DataFusion.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::{ColumnEdge, Error, Result};

/// Plans and runs SQL over named in-memory inputs, with all of Twinlake's functions.
#[async_trait]
pub trait SqlEngine: Send + Sync {
    /// The result schema of `sql` over inputs of these names and schemas. Errors are `Error::Config` with the
    /// engine's message and, where one is near, a suggestion.
    async fn plan(&self, sql: &str, inputs: &[(String, SchemaRef)]) -> Result<SchemaRef>;

    /// Whether each result row stands for exactly one input row of a single input (a projection or filter), so that
    /// a hidden column may ride along.
    async fn is_row_wise(&self, sql: &str, inputs: &[(String, SchemaRef)]) -> Result<bool>;

    /// Runs `sql` over the inputs. `carry` names a column of the single input of a row-wise query that is added to
    /// the end of the result.
    async fn run(
        &self,
        sql: &str,
        inputs: &[(String, SchemaRef, Vec<RecordBatch>)],
        carry: Option<&str>,
    ) -> Result<Vec<RecordBatch>>;

    /// All rows of a query over the tables of the lake behind this engine, as they are at the moment. An engine without
    /// tables refuses.
    async fn read_tables(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let message = format!("there are no tables here to ask: {sql}");
        Err(Error::config(message).with_help("run the pipeline on a lake, or give the table as a file"))
    }

    /// Which columns of the result come from which columns of the inputs; found in the engine's plan. `None` when this
    /// engine cannot tell.
    async fn column_lineage(
        &self,
        sql: &str,
        inputs: &[(String, SchemaRef)],
    ) -> Result<Option<Vec<ColumnEdge>>> {
        let _ = (sql, inputs);
        Ok(None)
    }

    /// The same for a query over the tables of the lake behind this engine. `None` when there is no lake, or when a table
    /// is not there yet.
    async fn table_lineage(&self, sql: &str) -> Result<Option<Vec<ColumnEdge>>> {
        let _ = sql;
        Ok(None)
    }
}
