//! A segment: a file of records with a header, and how its tail is judged when it is opened again.
//!
//! ```text
//! "TWLKLOG1" | header length u32 | crc32 u32 | header (JSON) | record | record | …
//! ```
//! A segment gets its name only after its header is on stable storage. The header holds the checkpoints of all sources
//! as of its first record, so that deleting older segments forgets nothing, and how many bytes of the segment before
//! it count: what a failed write left behind there is not read.
//!
//! The judgement of a bad record in the newest segment: a group of records is written only after the group before it
//! was synced, and each record says how many bytes were synced at that time. So when a whole record further on says
//! that the bad place was already synced, acknowledged data is damaged: an error. Otherwise the bad record belongs to
//! the last group, which nobody was told is safe: it is cut off.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Position, Result, now_us};

use super::frame::{self, HEAD_BYTES, MARKER, Outcome};

const MAGIC: &[u8; 8] = b"TWLKLOG1";
const HEADER_LIMIT: u32 = 64 << 20;
/// Distance of the entries of a segment's index.
const INDEX_BYTES: u64 = 64 << 10;

/// What a segment's header says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    /// The sequence of its first record.
    pub first_sequence: u64,
    /// How many bytes of the segment before count; `None` for the first segment of a log.
    pub previous_bytes: Option<u64>,
    /// Goes into every checksum of the segment.
    pub salt: u32,
    /// The last position of every source, as of before the first record.
    pub checkpoints: BTreeMap<String, Position>,
}

impl Header {
    pub(super) fn new(
        first_sequence: u64,
        previous_bytes: Option<u64>,
        checkpoints: BTreeMap<String, Position>,
    ) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&now_us().to_le_bytes());
        hasher.update(&std::process::id().to_le_bytes());
        hasher.update(&first_sequence.to_le_bytes());
        Self { first_sequence, previous_bytes, salt: hasher.finalize(), checkpoints }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(Error::internal)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= HEADER_LIMIT);
        let length = length.ok_or_else(|| Error::internal("a log's checkpoints take more than 64 MiB"))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
        bytes.extend_from_slice(&json);
        Ok(bytes)
    }
}

/// The name of a segment's file.
pub(super) fn file_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.log")
}

/// What is known of a segment in memory.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub path: PathBuf,
    pub first_sequence: u64,
    pub salt: u32,
    /// Bytes that count: header and whole records on stable storage.
    pub bytes: u64,
    /// Sequence and byte offset of some records, in order; the first record always.
    index: Vec<(u64, u64)>,
    /// Where the last read ended: readers go forward.
    cursor: (u64, u64),
}

impl Segment {
    pub(super) fn new(path: PathBuf, header: &Header, header_bytes: u64) -> Self {
        let start = (header.first_sequence, header_bytes);
        Self {
            path,
            first_sequence: header.first_sequence,
            salt: header.salt,
            bytes: header_bytes,
            index: vec![start],
            cursor: start,
        }
    }

    /// Notes where a record lies; callers go forward.
    pub(super) fn note(&mut self, sequence: u64, offset: u64) {
        if self.index.last().is_none_or(|last| offset >= last.1 + INDEX_BYTES && sequence > last.0) {
            self.index.push((sequence, offset));
        }
    }

    /// Notes where a read ended.
    pub(super) fn note_read(&mut self, sequence: u64, offset: u64) {
        self.cursor = (sequence, offset);
        self.note(sequence, offset);
    }

    /// The nearest known place at or before `sequence`.
    pub(super) fn place(&self, sequence: u64) -> (u64, u64) {
        let after = self.index.partition_point(|entry| entry.0 <= sequence);
        let near = self.index[after.saturating_sub(1)];
        if self.cursor.0 <= sequence && self.cursor.0 > near.0 { self.cursor } else { near }
    }
}

/// Damage that cannot be mended by cutting: acknowledged messages may be lost, so a person decides.
pub(super) fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    Error::permanent(
        format!("log segment {}", path.display()),
        format!(
            "damaged at byte {offset}: {what}. Messages that were acknowledged may be gone; restore the file from a copy, \
             or move its folder away to start a new log without them"
        ),
    )
}

/// Reads a segment's header; gives it with its length in bytes.
pub(super) fn read_header(path: &Path) -> Result<(Header, u64)> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, 0, "the file ends within its header"),
        _ => Error::transient(format!("log segment {}", path.display()), error),
    };
    let mut file = File::open(path).map_err(fail)?;
    let mut start = [0; 16];
    file.read_exact(&mut start).map_err(fail)?;
    let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
    let (length, crc) = (number(8), number(12));
    if &start[..8] != MAGIC || length > HEADER_LIMIT {
        return Err(damaged(path, 0, "this is not a log segment"));
    }
    let mut json = vec![0; length as usize];
    file.read_exact(&mut json).map_err(fail)?;
    if crc32fast::hash(&json) != crc {
        return Err(damaged(path, 16, "the checksum of the header does not match"));
    }
    let header = serde_json::from_slice(&json).map_err(|error| damaged(path, 16, &error.to_string()))?;
    Ok((header, 16 + u64::from(length)))
}

/// What the newest segment holds, found by reading it whole.
#[derive(Debug)]
pub(super) struct Scan {
    pub segment: Segment,
    pub last_sequence: u64,
    pub checkpoints: BTreeMap<String, Position>,
    /// Bytes after the last whole record, to be cut off.
    pub torn_bytes: u64,
}

/// Reads the newest segment to its end and judges what stands there.
pub(super) fn scan(path: &Path, header: Header, header_bytes: u64) -> Result<Scan> {
    let system = || format!("log segment {}", path.display());
    let fail = |error: io::Error| Error::transient(system(), error);
    let mut file = File::open(path).map_err(fail)?;
    let total = file.metadata().map_err(fail)?.len();
    file.seek(SeekFrom::Start(header_bytes)).map_err(fail)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut segment = Segment::new(path.to_owned(), &header, header_bytes);
    let mut checkpoints = header.checkpoints;
    let mut next = header.first_sequence;
    let bad = loop {
        match frame::read(&mut reader, total - segment.bytes, segment.salt).map_err(fail)? {
            Outcome::End => break None,
            Outcome::Bad(what) => break Some(what),
            Outcome::Frame(frame) if frame.logged.sequence != next => break Some("a record is out of order"),
            Outcome::Frame(frame) => {
                segment.note(next, segment.bytes);
                segment.bytes += frame.bytes;
                next += 1;
                checkpoints.insert(frame.logged.source.to_string(), frame.logged.message.position);
            }
        }
    };
    if let Some(what) = bad
        && acknowledged_after(path, segment.bytes, segment.salt).map_err(fail)?
    {
        return Err(damaged(path, segment.bytes, what));
    }
    let torn_bytes = total - segment.bytes;
    Ok(Scan { segment, last_sequence: next - 1, checkpoints, torn_bytes })
}

/// Whether a whole record after `offset` says that the bytes at `offset` were synced.
fn acknowledged_after(path: &Path, offset: u64, salt: u32) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    for at in 1..tail.len().saturating_sub(HEAD_BYTES as usize) {
        if tail[at..].starts_with(&MARKER)
            && let Outcome::Frame(frame) = frame::read(&mut &tail[at..], (tail.len() - at) as u64, salt)?
            && frame.synced > offset
        {
            return Ok(true);
        }
    }
    Ok(false)
}
