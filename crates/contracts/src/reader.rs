//! Large bounded inputs that are read as batches, not as messages: GIS files.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::Result;

/// Where a bounded input lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(pub PathBuf);

/// Batches, one after the other.
pub type BatchIterator = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Reads a bounded input as batches. Blocking: call it off the async runtime. The same file gives the same batches.
pub trait Reader: Send + Sync {
    /// The schema of every batch.
    fn schema(&self) -> SchemaRef;

    /// Opens the input. A damaged file gives an `Err` (at once or as an item) that names the file and the place.
    fn read(&self, at: &Location) -> Result<BatchIterator>;
}
