//! What happens to rows between decoding and landing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::{Rejects, Result};

/// Rows on their way through a pipeline, with the log sequence that each came from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// For each row the log sequence of the message that made it: the one that it was decoded from, or, for a row made of
    /// several (an aggregate), the one whose arrival completed it. `None` when the rows come from no message (a
    /// reader's batches, what is left over at the end of the input).
    pub sequences: Option<Vec<u64>>,
}

/// What has become of rows that a step neither passed on nor refused in the call that brought them. With it each
/// message can be followed to its end, also through steps that hold rows back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// The messages of rows that went into something larger (an aggregate, a grid): they have ended there.
    pub absorbed: Vec<u64>,
    /// The messages of rows that are held back from now on, an entry a row.
    pub held: Vec<u64>,
    /// The messages of rows that were held back and are not any more (passed on, refused or absorbed), an entry a row.
    pub released: Vec<u64>,
    /// Rows that were held back and are refused now.
    pub refused: Vec<HeldReject>,
}

/// The refusal of a row that came in an earlier batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldReject {
    /// The log sequence of its message, if it has one.
    pub sequence: Option<u64>,
    /// A short, stable code in snake case.
    pub reason: Arc<str>,
    /// What is wrong, for a person.
    pub detail: String,
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

    /// Takes over what has become, since the last call, of rows that [`Transform::process`] and [`Transform::finish`]
    /// neither gave nor refused at once. Steps that hold nothing back and absorb nothing have nothing to say.
    fn settle(&mut self) -> Settlement {
        Settlement::default()
    }

    /// Whether [`Transform::finish`] has anything to give: rows held back, open windows.
    fn holds_rows(&self) -> bool {
        false
    }

    /// Whether what comes out of a row depends on rows before it. Rows of a pipeline in which nothing remembers can be made
    /// again from any message on.
    fn remembers(&self) -> bool {
        true
    }

    /// From now on rows may be so many microseconds later than the settings allow. Called before the first row, for a
    /// reprocessing that takes in what came too late. Steps that know no lateness have nothing to do.
    fn tolerate(&mut self, more_us: i64) {
        let _ = more_us;
    }

    /// After [`Transform::tolerate`]: gives what is held back and, by the settings, would have gone on by now.
    async fn catch_up(&mut self) -> Result<Vec<Batch>> {
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
