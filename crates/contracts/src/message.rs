//! A message, its position, and the decoder that reads it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Rejects, Result};

/// A place in a source's stream: enough to go on after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Counts the source's messages from 1 and never goes back, across restarts.
    pub ordinal: u64,
    /// What the source itself needs to resume after this message (for example `path#byte offset`); may be empty.
    pub token: String,
}

/// How far a source has been made durable: `None` before the first message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint(pub Option<Position>);

impl Checkpoint {
    /// The ordinal of the last durable message; 0 before the first.
    pub fn ordinal(&self) -> u64 {
        self.0.as_ref().map_or(0, |position| position.ordinal)
    }
}

/// One reading as it arrived: bytes and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The bytes, unchanged.
    pub payload: Bytes,
    /// The MQTT topic, the file path: what the source calls the place of origin.
    pub origin: Arc<str>,
    /// Where in the source's stream.
    pub position: Position,
    /// When the reading became known here: microseconds since the epoch, UTC.
    pub received_at_us: i64,
}

/// Turns messages into rows. Pure: no I/O, no clock; the same messages always give the same rows.
pub trait Decoder: Send + Sync {
    /// The schema of every batch that [`Decoder::decode`] gives, without the two columns named there.
    fn schema(&self) -> SchemaRef;

    /// Decodes a window of messages. A message may give no row, one, or many; what cannot be decoded is pushed to
    /// `rejects` with the index of its message, and the rest goes on. `rows_of` receives, for each row of the batch,
    /// the index in `window` of the message that it came from.
    fn decode(
        &self,
        window: &[Message],
        rejects: &mut Rejects,
        rows_of: &mut Vec<u32>,
    ) -> Result<RecordBatch>;
}
