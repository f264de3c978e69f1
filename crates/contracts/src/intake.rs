//! Bodies handed in by clients (over HTTP): what they are, who takes them in, who reads them.
//!
//! A body travels `Intake::take → BodyDecoder → MessageLog → TableWriter`. Whoever speaks a protocol (the service) makes
//! a [`Delivery`] and answers with the [`Receipt`]; it knows neither the log nor the tables.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Error, TableName};

/// The field metadata key of the name that a column has in the client's own words: a tag, a field, a JSON path.
pub const ORIGINAL_NAME: &str = "twinlake.name";
/// The field metadata key of what a column is in line protocol: `tag` or `field`. Columns of other bodies have none.
pub const COLUMN_ROLE: &str = "twinlake.role";
/// The field metadata key, at the column `ts`, of the database or bucket whose measurement the table holds.
pub const DATABASE: &str = "twinlake.database";
/// The field metadata key, at the column `ts`, of the measurement that the table holds.
pub const MEASUREMENT: &str = "twinlake.measurement";

/// The unit of the numeric time stamps in a line protocol body, counted from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Minutes.
    #[serde(rename = "m")]
    Minutes,
    /// Hours.
    #[serde(rename = "h")]
    Hours,
}

impl Precision {
    /// Reads the spellings of both InfluxDB interfaces (`ns` and `n`, `us`, `u` and `µ`, `ms`, `s`, `m`, `h`).
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ns" | "n" => Self::Nanoseconds,
            "us" | "u" | "µ" | "µs" | "μ" | "μs" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => return None,
        })
    }

    /// How many nanoseconds one unit has.
    pub fn nanoseconds(self) -> i64 {
        match self {
            Self::Nanoseconds => 1,
            Self::Microseconds => 1_000,
            Self::Milliseconds => 1_000_000,
            Self::Seconds => 1_000_000_000,
            Self::Minutes => 60_000_000_000,
            Self::Hours => 3_600_000_000_000,
        }
    }
}

/// What a body is and where its rows go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum BodyFormat {
    /// InfluxDB line protocol: each measurement becomes a table of its own.
    LineProtocol {
        /// The database (with its retention policy, if the client named one) or bucket, in the client's own words.
        database: String,
        /// The unit of the time stamps.
        precision: Precision,
    },
    /// Rows as JSON: an array of objects, one object, or one object a line.
    JsonRows {
        /// The table that takes the rows.
        table: TableName,
    },
    /// Rows as an Arrow IPC stream.
    ArrowStream {
        /// The table that takes the rows.
        table: TableName,
    },
}

/// A body as a client handed it in.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The bytes, already unpacked (no gzip).
    pub body: Bytes,
    /// What they are.
    pub format: BodyFormat,
    /// The client's own name of this delivery (HTTP: `Idempotency-Key`), at most [`Delivery::KEY_BYTES`] long: a second
    /// delivery with the same name and body lands nothing and is answered like the first. How many names are
    /// remembered is up to the [`Intake`].
    pub key: Option<String>,
}

impl Delivery {
    /// The longest [`Delivery::key`].
    pub const KEY_BYTES: usize = 256;
}

/// A part of a body that did not land, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPart {
    /// The line of the body (line protocol) or the row (JSON, Arrow), from 1; 0 for the body as a whole.
    pub place: u64,
    /// A short, stable code in snake case: `invalid_line`, `type_conflict`, `out_of_range`, …
    pub reason: Arc<str>,
    /// What is wrong, for a person.
    pub detail: String,
    /// The text of the line or row. In a [`Receipt`] it is cut short.
    pub text: Bytes,
}

/// What became of a delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Rows that landed: they are on stable storage and every query that starts now sees them.
    pub rows: u64,
    /// How many parts were refused; each is a row of `meta.rejects`.
    pub refused: u64,
    /// The first of them ([`Receipt::PARTS`] at most), in the order of the body.
    pub parts: Vec<RefusedPart>,
    /// Whether a delivery of this name had landed before, so that this one landed nothing; `rows` and `refused` are
    /// those of the first, `parts` is empty.
    pub repeated: bool,
}

impl Receipt {
    /// The most parts that a receipt names.
    pub const PARTS: usize = 100;
    /// The longest text of a part in a receipt, in bytes.
    pub const TEXT_BYTES: usize = 200;
}

/// Why a delivery was not taken in. Nothing of it was confirmed.
#[derive(Debug, Clone)]
pub enum IntakeError {
    /// Too much waits already (HTTP 429): nothing was taken; the client may come again after the pause.
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The request itself is wrong (HTTP 400): the same one will always be refused. Nothing was taken.
    Refused {
        /// A short, stable code in snake case, for example `invalid_json`.
        reason: Arc<str>,
        /// What is wrong, for a person.
        message: String,
    },
    /// It failed on this side (HTTP 503 when [`Error::retry`] says that trying again can help, 500 otherwise). It is not
    /// known whether the rows will land; a client that must not land them twice gives a [`Delivery::key`].
    Failed(Error),
}

impl IntakeError {
    /// A refusal.
    pub fn refused(reason: &str, message: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), message: message.into() }
    }
}

impl fmt::Display for IntakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { retry_after } => {
                write!(f, "too much waits to be stored; come again in {} s", retry_after.as_secs().max(1))
            }
            Self::Refused { reason, message } => write!(f, "{reason}: {message}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for IntakeError {}

/// Takes bodies in.
///
/// Promise: when [`Intake::take`] gives a receipt, every row that it counts is on stable storage, lands exactly once
/// through any crash and restart, and is visible to every query of this process that starts from now on; every refused
/// part is a row of `meta.rejects`. Memory is bounded: above the bound callers get [`IntakeError::Busy`]. A caller that
/// goes away in between takes nothing back.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Takes one body in.
    async fn take(&self, delivery: Delivery) -> Result<Receipt, IntakeError>;
}

/// The table that decoded rows are for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RowsFor {
    /// A table by its name.
    Table(TableName),
    /// A measurement in the client's own words; how it becomes a table's name is up to the [`Intake`].
    Measurement {
        /// The database or bucket.
        database: Arc<str>,
        /// The measurement.
        measurement: Arc<str>,
    },
}

/// Rows of a body for one table.
#[derive(Debug, Clone)]
pub struct TableRows {
    /// The table.
    pub table: RowsFor,
    /// The rows. Columns have the names that the client gave them, with [`COLUMN_ROLE`] where there is a role.
    pub rows: RecordBatch,
    /// For each row its line or number in the body, from 1.
    pub places: Vec<u32>,
}

/// What a body holds.
#[derive(Debug, Clone, Default)]
pub struct DecodedBody {
    /// Rows, in the order of the first row of each. A table is there more than once when values of one column have more
    /// than one type: what comes first has the right of way.
    pub tables: Vec<TableRows>,
    /// What could not be read, in the order of the body.
    pub refused: Vec<RefusedPart>,
}

/// Reads bodies. Pure: no I/O, no clock; the same body and time give the same rows, today and after a restart.
pub trait BodyDecoder: Send + Sync {
    /// Decodes a body. `received_at_us` (microseconds since the epoch, UTC) is the time of rows that name none. An error
    /// is about the body as a whole ([`Error::Data`]); parts at fault are in [`DecodedBody::refused`], and the rest goes
    /// on.
    fn decode(&self, format: &BodyFormat, body: &Bytes, received_at_us: i64) -> crate::Result<DecodedBody>;

    /// The texts of the rows at these places (as in [`TableRows::places`], rising), for `meta.rejects`; `None` when the
    /// body is no text whose rows can be found by their place.
    fn texts(&self, format: &BodyFormat, body: &Bytes, places: &[u32]) -> Option<Vec<Bytes>>;
}
