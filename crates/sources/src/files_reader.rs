//! Reading of files in a blocking thread: paths in order, bytes out, with the token after each message.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use twinlake_contracts::{Error, Result};

use crate::files::Split;

/// One message as it lies in a file.
pub(crate) struct Raw {
    pub(crate) bytes: Bytes,
    pub(crate) path: Arc<str>,
    /// `<path>#<offset of the byte after it>`.
    pub(crate) token: String,
}

fn failed(path: &Path, offset: u64, error: &dyn std::fmt::Display) -> Error {
    Error::permanent(format!("file '{}'", path.display()), format!("at byte {offset}: {error}"))
}

/// Reads `files` (sorted) after `start`; stops when `send` says that nobody listens.
pub(crate) fn read_all(
    files: &[PathBuf],
    start: Option<&(PathBuf, u64)>,
    split: Split,
    limit: u64,
    send: &mut dyn FnMut(Result<Raw>) -> bool,
) -> Result<()> {
    for path in files {
        let offset = match start {
            Some((last, _)) if path < last => continue,
            Some((last, offset)) if path == last => *offset,
            _ => 0,
        };
        let resumed = start.is_some_and(|(last, _)| path == last);
        let mut file = File::open(path).map_err(|error| failed(path, 0, &error))?;
        let length = file.metadata().map_err(|error| failed(path, 0, &error))?.len();
        if length < offset {
            let text = format!("it was read to byte {offset} before, but is shorter now ({length} bytes)");
            return Err(Error::permanent(format!("file '{}'", path.display()), text));
        }
        let go_on = match split {
            Split::Whole if resumed => true,
            Split::Whole => whole(path, file, length, limit, send)?,
            Split::Lines => {
                file.seek(SeekFrom::Start(offset)).map_err(|error| failed(path, offset, &error))?;
                lines(path, file, offset, limit, send)?
            }
        };
        if !go_on {
            break;
        }
    }
    Ok(())
}

fn too_long(path: &Path, offset: u64, what: &str, limit: u64) -> Error {
    failed(path, offset, &format!("{what} is longer than 'max_message_bytes' ({limit})"))
}

fn whole(
    path: &Path,
    file: File,
    length: u64,
    limit: u64,
    send: &mut dyn FnMut(Result<Raw>) -> bool,
) -> Result<bool> {
    let mut bytes = Vec::with_capacity(length.min(limit) as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| failed(path, 0, &error))?;
    if bytes.len() as u64 > limit {
        return Err(too_long(path, 0, "the file", limit));
    }
    let token = format!("{}#{}", path.display(), bytes.len());
    Ok(send(Ok(Raw { bytes: bytes.into(), path: path.to_string_lossy().into(), token })))
}

fn lines(
    path: &Path,
    file: File,
    mut offset: u64,
    limit: u64,
    send: &mut dyn FnMut(Result<Raw>) -> bool,
) -> Result<bool> {
    let name: Arc<str> = path.to_string_lossy().into();
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    loop {
        let mut line = Vec::new();
        // Two more than the limit, for the line end.
        let read = reader
            .by_ref()
            .take(limit.saturating_add(2))
            .read_until(b'\n', &mut line)
            .map_err(|error| failed(path, offset, &error))?;
        if read == 0 {
            return Ok(true);
        }
        let begin = offset;
        offset += read as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() as u64 > limit {
            return Err(too_long(path, begin, "the line", limit));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let raw = Raw { bytes: line.into(), path: Arc::clone(&name), token: format!("{name}#{offset}") };
        if !send(Ok(raw)) {
            return Ok(false);
        }
    }
}
