//! Bodies that clients hand in.

use bytes::Bytes;
use twinlake_contracts::{BodyDecoder, BodyFormat, DecodedBody, Error, RefusedPart, Result};

use crate::{arrow_stream, json_rows, line_protocol};

/// The most lines or rows of a body that may be at fault: with more, the body is refused as a whole, so that a body that
/// is something else does not fill the memory and `meta.rejects` with its pieces.
const MOST_REFUSED: usize = 10_000;

/// Adds a part at fault, unless there are too many.
pub(crate) fn refuse(refused: &mut Vec<RefusedPart>, part: RefusedPart) -> Result<()> {
    if refused.len() >= MOST_REFUSED {
        let message = format!(
            "more than {MOST_REFUSED} lines or rows are at fault; the last one, {}: {}",
            part.place, part.detail
        );
        return Err(Error::data("too_many_faults", message));
    }
    refused.push(part);
    Ok(())
}

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
