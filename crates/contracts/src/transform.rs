//! What happens to rows between decoding and landing.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::{Rejects, Result};

/// Rows on their way through a pipeline, with the log sequence that each came from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// For each row the log sequence of its message; `None` when rows no longer stand for single messages
    /// (aggregates) or never did (a reader's batches).
    pub sequences: Option<Vec<u64>>,
}

/// One step over rows. Deterministic: the same rows in the same order give the same rows, however they are cut into
/// batches. State lives in memory and is saved with each commit.
#[async_trait]
pub trait Transform: Send {
    /// The schema of what comes out, given what goes in; checked for the whole pipeline before anything runs.
    fn output_schema(&self) -> SchemaRef;

    /// Takes the next batch of input number `input`. Rows that the step refuses go to `rejects` by their index in `batch`.
    async fn process(&mut self, input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>>;

    /// The input has ended: gives what is held back.
    async fn finish(&mut self, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        let _ = rejects;
        Ok(Vec::new())
    }

    /// The state, to be stored with a commit; empty when there is none.
    fn state(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Takes back a state that [`Transform::state`] gave.
    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let _ = state;
        Ok(())
    }
}
