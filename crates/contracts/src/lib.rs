//! The nouns and promises shared by every Twinlake crate.
//!
//! A reading travels `Source → MessageLog → Decoder → Transform → TableWriter`; this crate holds the types on
//! that way and the traits at each joint, and nothing else: no network, no runtime, no query engine.

mod component;
mod error;
mod geometry;
mod guard;
mod intake;
mod lineage;
mod log;
mod message;
mod operator;
mod reader;
mod reject;
mod revision;
mod source;
mod sql;
mod table;
mod time;
mod toml_file;
mod transform;

pub use component::{Component, ComponentDoc, Registry};
pub use error::{ConfigError, Error, Place, Result, Retry, suggest};
pub use geometry::{
    CRS84, EXTENSION_METADATA, EXTENSION_NAME, GEOMETRY_COLUMN, WKB_EXTENSION, crs_of, geometry_field,
    is_geometry,
};
pub use guard::{RowGuard, Verdict};
pub use intake::{
    BodyDecoder, BodyFormat, COLUMN_ROLE, DATABASE, DecodedBody, Delivery, Intake, IntakeError, MEASUREMENT,
    ORIGINAL_NAME, Precision, Receipt, RefusedPart, RowsFor, TableRows,
};
pub use lineage::{ColumnEdge, Dependency};
pub use log::{LoggedMessage, MessageLog};
pub use message::{Checkpoint, Decoder, Message, Position};
pub use operator::{
    Horizon, Operator, OperatorRegistry, OperatorSpec, Outcome, ParameterSpec, Parameters, Progress,
    Snapshot, TableShape,
};
pub use reader::{BatchIterator, Location, Reader};
pub use reject::{Reject, Rejects};
pub use revision::{Revised, Revision, Sequences, StagedFile};
pub use source::{MessageStream, Source};
pub use sql::SqlEngine;
pub use table::{INGESTED_AT, SEQUENCE, TableName, TableSpec, TableStore, TableWriter, WriteMode};
pub use time::{Clock, format_us, now_us, parse_us, timestamp_type};
pub use toml_file::{TomlFile, is_word};
pub use transform::{Batch, HeldReject, Settlement, Transform};
