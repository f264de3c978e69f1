//! Bodies that clients hand in.

use bytes::Bytes;
use twinlake_contracts::{BodyDecoder, BodyFormat, DecodedBody, Result};

use crate::{arrow_stream, json_rows, line_protocol};

/// Reads bodies: InfluxDB line protocol, rows as JSON, Arrow IPC streams. What each becomes is told in its module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bodies;

impl BodyDecoder for Bodies {
    fn decode(&self, format: &BodyFormat, body: &Bytes, received_at_us: i64) -> Result<DecodedBody> {
        match format {
            BodyFormat::LineProtocol { database, precision } => {
                line_protocol::decode(database, *precision, body, received_at_us)
            }
            BodyFormat::JsonRows { table } => json_rows::decode(table, body),
            BodyFormat::ArrowStream { table } => arrow_stream::decode(table, body),
        }
    }

    fn texts(&self, format: &BodyFormat, body: &Bytes, places: &[u32]) -> Option<Vec<Bytes>> {
        match format {
            BodyFormat::LineProtocol { .. } => Some(line_protocol::texts(body, places)),
            BodyFormat::JsonRows { .. } => json_rows::texts(body, places),
            BodyFormat::ArrowStream { .. } => None,
        }
    }
}
