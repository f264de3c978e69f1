//! One message as bytes in a segment.
//!
//! ```text
//! marker u32 | body length u32 | crc32 u32 | body
//! body = sequence u64 | synced u64 | received_at i64 | ordinal u64
//!      | source length u16 | token length u32 | origin length u32 | source | token | origin | payload
//! ```
//! All numbers are little-endian. The checksum covers the segment's salt, the length and the body, so that bytes within
//! a payload that look like a record of some other file are none. `synced` is how many bytes of the segment were on
//! stable storage when the record was written: it tells a torn tail from damage (see `segment.rs`).

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use twinlake_contracts::{LoggedMessage, Message, Position};

/// What every record starts with.
pub(super) const MARKER: [u8; 4] = [0x9e, b'T', b'L', 0x01];
/// Marker, length, checksum.
pub(super) const HEAD_BYTES: u64 = 12;
const FIXED_BYTES: usize = 8 * 4 + 2 + 4 + 4;
/// The largest message that a log takes, all parts together.
pub(super) const BODY_LIMIT: usize = 1 << 30;

/// A record read back.
#[derive(Debug)]
pub(super) struct Frame {
    pub logged: LoggedMessage,
    /// Bytes of the segment that were on stable storage before this record was written.
    pub synced: u64,
    /// How many bytes the record takes in its segment.
    pub bytes: u64,
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub(super) enum Outcome {
    Frame(Box<Frame>),
    /// Nothing: the end.
    End,
    /// No whole record, and why.
    Bad(&'static str),
}

/// The bytes that a message takes as a record's body; `None` when it is too large for a log.
pub(super) fn body_length(source: &str, message: &Message) -> Option<usize> {
    let length = FIXED_BYTES
        .checked_add(source.len())?
        .checked_add(message.position.token.len())?
        .checked_add(message.origin.len())?
        .checked_add(message.payload.len())?;
    (length <= BODY_LIMIT && u16::try_from(source.len()).is_ok()).then_some(length)
}

fn checksum(salt: u32, length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Appends a record to `buffer`. The message was checked with [`body_length`].
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    salt: u32,
    sequence: u64,
    synced: u64,
    source: &str,
    message: &Message,
) {
    let start = buffer.len();
    buffer.extend_from_slice(&MARKER);
    buffer.extend_from_slice(&[0; 8]);
    let body = buffer.len();
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&synced.to_le_bytes());
    buffer.extend_from_slice(&message.received_at_us.to_le_bytes());
    buffer.extend_from_slice(&message.position.ordinal.to_le_bytes());
    buffer.extend_from_slice(&(source.len() as u16).to_le_bytes());
    buffer.extend_from_slice(&(message.position.token.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&(message.origin.len() as u32).to_le_bytes());
    buffer.extend_from_slice(source.as_bytes());
    buffer.extend_from_slice(message.position.token.as_bytes());
    buffer.extend_from_slice(message.origin.as_bytes());
    buffer.extend_from_slice(&message.payload);
    let length = (buffer.len() - body) as u32;
    let crc = checksum(salt, length, &buffer[body..]);
    buffer[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    buffer[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

/// Reads the record at the reader's place, of which at most `remaining` bytes are left.
pub(super) fn read(reader: &mut impl Read, remaining: u64, salt: u32) -> io::Result<Outcome> {
    if remaining == 0 {
        return Ok(Outcome::End);
    }
    if remaining < HEAD_BYTES {
        return Ok(Outcome::Bad("the file ends within a record's head"));
    }
    let mut head = [0; HEAD_BYTES as usize];
    reader.read_exact(&mut head)?;
    if head[..4] != MARKER {
        return Ok(Outcome::Bad("no record starts here"));
    }
    let length = number(&head[4..8]);
    if u64::from(length) > remaining - HEAD_BYTES {
        return Ok(Outcome::Bad("the file ends within a record"));
    }
    let mut body = vec![0; length as usize];
    reader.read_exact(&mut body)?;
    if checksum(salt, length, &body) != number(&head[8..12]) {
        return Ok(Outcome::Bad("the checksum of a record does not match"));
    }
    Ok(decode(body).map_or(Outcome::Bad("a record's parts do not fit its length"), |frame| {
        Outcome::Frame(Box::new(frame))
    }))
}

/// Takes bytes from the front of `rest`.
fn take(rest: &mut Bytes, count: usize) -> Option<Bytes> {
    (count <= rest.len()).then(|| rest.split_to(count))
}

fn decode(body: Vec<u8>) -> Option<Frame> {
    let bytes = HEAD_BYTES + body.len() as u64;
    let mut rest = Bytes::from(body);
    let mut long =
        || take(&mut rest, 8).and_then(|part| Some(u64::from_le_bytes(part.as_ref().try_into().ok()?)));
    let (sequence, synced, received_at, ordinal) = (long()?, long()?, long()?, long()?);
    let source_length = number(&take(&mut rest, 2)?) as usize;
    let token_length = number(&take(&mut rest, 4)?) as usize;
    let origin_length = number(&take(&mut rest, 4)?) as usize;
    let source: Arc<str> = std::str::from_utf8(&take(&mut rest, source_length)?).ok()?.into();
    let token = std::str::from_utf8(&take(&mut rest, token_length)?).ok()?.to_owned();
    let origin: Arc<str> = std::str::from_utf8(&take(&mut rest, origin_length)?).ok()?.into();
    let message = Message {
        payload: rest,
        origin,
        position: Position { ordinal, token },
        received_at_us: received_at as i64,
    };
    Some(Frame { logged: LoggedMessage { sequence, source, message }, synced, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &'static [u8]) -> Message {
        Message {
            payload: Bytes::from_static(payload),
            origin: "hfp/Mäkelänkatu 2".into(),
            position: Position { ordinal: 7, token: "a#12".to_owned() },
            received_at_us: -5,
        }
    }

    #[test]
    fn comes_back_byte_for_byte_and_nothing_else_is_taken_for_a_record() {
        let mut buffer = Vec::new();
        encode(&mut buffer, 42, 3, 100, "hfp", &message(b"\x00\xff"));
        let length = buffer.len() as u64;
        assert_eq!(length, HEAD_BYTES + body_length("hfp", &message(b"\x00\xff")).unwrap() as u64);
        let Outcome::Frame(frame) = read(&mut buffer.as_slice(), length, 42).unwrap() else {
            panic!("no frame")
        };
        assert_eq!((frame.logged.sequence, frame.synced, frame.bytes), (3, 100, length));
        assert_eq!(&*frame.logged.source, "hfp");
        assert_eq!(frame.logged.message, message(b"\x00\xff"));
        assert!(matches!(read(&mut buffer.as_slice(), length, 43).unwrap(), Outcome::Bad(_)), "another salt");
        for cut in 1..length {
            let outcome = read(&mut &buffer[..cut as usize], cut, 42).unwrap();
            assert!(matches!(outcome, Outcome::Bad(_)), "cut at {cut}: {outcome:?}");
        }
        for at in 0..buffer.len() {
            let mut damaged = buffer.clone();
            damaged[at] ^= 0x10;
            let outcome = read(&mut damaged.as_slice(), length, 42).unwrap();
            assert!(matches!(outcome, Outcome::Bad(_)), "damaged at {at}: {outcome:?}");
        }
    }
}
