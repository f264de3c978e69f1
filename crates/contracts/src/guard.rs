//! Rules of tables that rows are held to before they land.

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::{Rejects, Result, TableName};

/// What became of a batch on its way into a table.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Rows that may not land, by their index in the batch, each with reason and detail; a row may stand here once only.
    pub rejects: Rejects,
}

/// Holds rows to the rules of the table that they are about to enter.
///
/// The same rows get the same verdict, however they are cut into batches: a stretch of the stream that is processed again
/// after a crash gives the same rows.
#[async_trait]
pub trait RowGuard: Send + Sync {
    /// Judges rows that a sink is about to give to a table. An error stops the pipeline before the commit.
    async fn judge(&self, table: &TableName, rows: &RecordBatch) -> Result<Verdict>;

    /// Judges the rows that are about to take the place of all rows of these tables, each table as a whole. An error stops
    /// the pipeline before the commit; all tables stay as they are.
    async fn judge_all(&self, tables: &[(TableName, Vec<RecordBatch>)]) -> Result<()>;
}
