//! Reading messages back: from the segment that holds them, up to what is on stable storage.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Seek, SeekFrom};

use twinlake_contracts::{Error, LoggedMessage, Result};

use super::frame::{self, Outcome};
use super::segment::{Segment, damaged};
use super::{Shared, lock};

/// A read stops after this many bytes, however many messages are asked for.
const READ_BYTES: u64 = 32 << 20;

/// Reads up to `limit` messages after `after`, fewer when they are large or the log ends.
pub(super) fn read(shared: &Shared, after: u64, limit: usize) -> Result<Vec<LoggedMessage>> {
    let mut found = Vec::new();
    let mut next = after.saturating_add(1);
    let mut bytes = 0;
    while found.len() < limit && bytes < READ_BYTES {
        let Some((segment, end)) = locate(shared, next) else { break };
        next = next.max(segment.first_sequence);
        let before = found.len();
        match read_segment(&segment, &mut next, end, limit, &mut bytes, &mut found) {
            Ok(offset) => {
                let mut state = lock(&shared.state);
                let known = state.segments.iter_mut().find(|known| known.path == segment.path);
                if let Some(known) = known {
                    known.note_read(next, offset);
                }
            }
            // Released between finding and opening it: look again. Gone without a release: damage.
            Err(ReadError::Gone) => {
                if lock(&shared.state).segments.iter().any(|known| known.path == segment.path) {
                    return Err(damaged(&segment.path, 0, "the file is gone"));
                }
                continue;
            }
            Err(ReadError::Failed(error)) => return Err(error),
        }
        if found.len() == before {
            break;
        }
    }
    Ok(found)
}

enum ReadError {
    Gone,
    Failed(Error),
}

/// The segment that holds `sequence` or, when that one was released, the oldest; with the sequence after its last.
fn locate(shared: &Shared, sequence: u64) -> Option<(Segment, u64)> {
    let state = lock(&shared.state);
    if sequence > state.last_sequence {
        return None;
    }
    let after = state.segments.partition_point(|segment| segment.first_sequence <= sequence);
    let at = after.saturating_sub(1);
    let end = state.segments.get(at + 1).map_or(state.last_sequence + 1, |segment| segment.first_sequence);
    state.segments.get(at).map(|segment| (segment.clone(), end))
}

/// Reads from `next` on, up to before `end`; gives the offset after the last record read.
fn read_segment(
    segment: &Segment,
    next: &mut u64,
    end: u64,
    limit: usize,
    bytes: &mut u64,
    found: &mut Vec<LoggedMessage>,
) -> Result<u64, ReadError> {
    let fail = |error: std::io::Error| {
        ReadError::Failed(Error::transient(format!("log segment {}", segment.path.display()), error))
    };
    let mut file = match File::open(&segment.path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ReadError::Gone),
        opened => opened.map_err(fail)?,
    };
    let (mut sequence, mut offset) = segment.place(*next);
    file.seek(SeekFrom::Start(offset)).map_err(fail)?;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    while sequence < end && found.len() < limit && *bytes < READ_BYTES {
        match frame::read(&mut reader, segment.bytes.saturating_sub(offset), segment.salt).map_err(fail)? {
            Outcome::Frame(frame) if frame.logged.sequence == sequence => {
                offset += frame.bytes;
                sequence += 1;
                if frame.logged.sequence >= *next {
                    *bytes += frame.bytes;
                    *next = sequence;
                    found.push(frame.logged);
                }
            }
            Outcome::Frame(_) => return Err(wrong(segment, offset, "a record is out of order")),
            Outcome::End => return Err(wrong(segment, offset, "records are missing at the end")),
            Outcome::Bad(what) => return Err(wrong(segment, offset, what)),
        }
    }
    Ok(offset)
}

fn wrong(segment: &Segment, offset: u64, what: &str) -> ReadError {
    ReadError::Failed(damaged(&segment.path, offset, what))
}
