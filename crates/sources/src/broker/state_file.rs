//! The file that keeps sessions, subscriptions and retained messages over a restart.
//!
//! Records are appended and synced in groups by a thread of its own. Each is framed by its length and a checksum; a
//! torn tail is cut when the file is opened. When the file is mostly history it is written anew beside the old one and
//! renamed over it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use twinlake_contracts::{Error, Result};

use super::kept::{Kept, Record};
use super::link::Link;

/// A file smaller than this is not written anew.
const SMALL_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Default)]
struct Pending {
    records: Vec<Record>,
    appended: u64,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
    synced: AtomicU64,
    waiters: Mutex<Vec<(u64, Arc<Link>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The open file. Dropping it writes what is left.
pub(crate) struct StateFile {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl StateFile {
    /// Opens the file in `folder`, which only one broker may use at a time, and reads what it keeps.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Kept)> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            Error::config(format!("the MQTT broker's state folder '{}' {what}: {error}", folder.display()))
                .with_help("name a folder of its own for each broker process")
        };
        std::fs::create_dir_all(folder).map_err(|error| wrong("cannot be made", &error))?;
        let holder = OpenOptions::new().create(true).write(true).truncate(false).open(folder.join("lock"));
        let holder = holder.map_err(|error| wrong("cannot be locked", &error))?;
        holder.try_lock().map_err(|error| wrong("is in use", &error))?;
        let path = folder.join("sessions.log");
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong("cannot be read", &error)),
        }
        let kept = read(&bytes);
        let file = rewrite(&path, &kept).map_err(|error| wrong("cannot be written", &error))?;
        // The messages themselves are shared by both.
        let mirror = kept.clone();
        let shared = Arc::new(Shared::default());
        let writer = Writer { _holder: holder, path, file, mirror, shared: Arc::clone(&shared) };
        let writer = std::thread::Builder::new()
            .name("mqtt-state".to_owned())
            .spawn(move || writer.run())
            .map_err(Error::internal)?;
        Ok((Self { shared, writer: Mutex::new(Some(writer)) }, kept))
    }

    /// Writes what is left and gives the folder free; what is appended later is not kept.
    pub(crate) fn close(&self) {
        lock(&self.shared.pending).closing = true;
        self.shared.wake.notify_one();
        if let Some(writer) = lock(&self.writer).take() {
            // A writer that panicked has nothing more to say here.
            let _ = writer.join();
        }
    }

    /// Appends a record; returns the number to wait for.
    pub(crate) fn append(&self, record: Record) -> u64 {
        let mut pending = lock(&self.shared.pending);
        pending.records.push(record);
        pending.appended += 1;
        self.shared.wake.notify_one();
        pending.appended
    }

    /// Whether the record with this number is on stable storage; if not, the link is woken when it is.
    pub(crate) fn synced(&self, number: u64, link: &Arc<Link>) -> bool {
        if self.is_synced(number) {
            return true;
        }
        lock(&self.shared.waiters).push((number, Arc::clone(link)));
        // It may have been written between the look and the entry.
        let synced = self.is_synced(number);
        if synced {
            link.waker.wake();
        }
        synced
    }

    /// Whether the record with this number is on stable storage.
    pub(crate) fn is_synced(&self, number: u64) -> bool {
        self.shared.synced.load(Ordering::Acquire) >= number
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    /// Held while the process runs.
    _holder: File,
    path: PathBuf,
    file: File,
    mirror: Kept,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self) {
        let mut length = self.file.metadata().map_or(0, |found| found.len());
        let mut fresh = length;
        loop {
            let (records, upto, closing) = {
                let mut pending = lock(&self.shared.pending);
                while pending.records.is_empty() && !pending.closing {
                    pending = self.shared.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
                }
                (std::mem::take(&mut pending.records), pending.appended, pending.closing)
            };
            let bytes: Vec<u8> = records.iter().flat_map(frame).collect();
            let mut said = false;
            while let Err(error) = self.write(length, &bytes) {
                if !std::mem::replace(&mut said, true) {
                    tracing::error!(path = %self.path.display(), %error, "the MQTT broker's state cannot be written; trying again");
                }
                if closing {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            length += bytes.len() as u64;
            for record in records {
                self.mirror.apply(record);
            }
            self.shared.synced.store(upto, Ordering::Release);
            let mut waiters = lock(&self.shared.waiters);
            waiters.retain(|(number, link)| {
                let waits = *number > upto;
                if !waits {
                    link.waker.wake();
                }
                waits
            });
            drop(waiters);
            if length > SMALL_BYTES && length > 4 * fresh {
                match rewrite(&self.path, &self.mirror) {
                    Ok(file) => {
                        self.file = file;
                        length = self.file.metadata().map_or(0, |found| found.len());
                    }
                    Err(error) => tracing::warn!(%error, "the MQTT broker's state file cannot be shortened"),
                }
                fresh = length;
            }
            if closing && lock(&self.shared.pending).records.is_empty() {
                return;
            }
        }
    }

    /// Appends at `length`, so that a failed attempt leaves nothing behind.
    fn write(&mut self, length: u64, bytes: &[u8]) -> std::io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }
}

fn frame(record: &Record) -> Vec<u8> {
    // Records hold only what serde can write; an empty one would be skipped when read.
    let body = postcard::to_stdvec(record).unwrap_or_default();
    let mut bytes = Vec::with_capacity(8 + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn read(mut bytes: &[u8]) -> Kept {
    let mut kept = Kept::default();
    while let Some((head, rest)) = bytes.split_at_checked(8) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let check = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let Some((body, rest)) = rest.split_at_checked(length) else { break };
        if crc32fast::hash(body) != check {
            break;
        }
        match postcard::from_bytes(body) {
            Ok(record) => kept.apply(record),
            Err(error) => tracing::warn!(%error, "a record of the MQTT broker's state cannot be read"),
        }
        bytes = rest;
    }
    if !bytes.is_empty() {
        tracing::info!(bytes = bytes.len(), "the torn tail of the MQTT broker's state was cut");
    }
    kept
}

/// Writes a state beside the old file and puts it in its place.
fn rewrite(path: &Path, kept: &Kept) -> std::io::Result<File> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&beside)?;
    let mut buffer = std::io::BufWriter::new(&mut file);
    for record in kept.records() {
        buffer.write_all(&frame(&record))?;
    }
    buffer.flush()?;
    drop(buffer);
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(client: &'static str, packet_id: u16) -> Record {
        Record::Recorded { client: client.into(), packet_id }
    }

    fn session(client: &'static str) -> Record {
        Record::Session { client: client.into(), expiry_s: 60, ended_at_us: 7 }
    }

    #[test]
    fn records_survive_and_a_torn_tail_is_cut() {
        let folder = tempfile::tempdir().expect("folder");
        let (file, kept) = StateFile::open(folder.path()).expect("open");
        assert!(kept.sessions.is_empty());
        for record in [session("a"), recorded("a", 5), recorded("a", 6), session("b")] {
            file.append(record);
        }
        file.append(Record::Released { client: "a".into(), packet_id: 5 });
        file.append(Record::Gone { client: "b".into() });
        assert!(StateFile::open(folder.path()).is_err(), "one broker at a time");
        drop(file);
        let path = folder.path().join("sessions.log");
        let mut bytes = std::fs::read(&path).expect("file");
        bytes.extend_from_slice(&frame(&session("torn"))[..9]);
        std::fs::write(&path, bytes).expect("write");
        let (file, kept) = StateFile::open(folder.path()).expect("open");
        assert_eq!(kept.sessions.keys().map(|key| &**key).collect::<Vec<&str>>(), ["a"]);
        let found = &kept.sessions["a"];
        assert_eq!((found.expiry_s, found.ended_at_us), (60, 7));
        assert_eq!(found.recorded.iter().copied().collect::<Vec<_>>(), [6]);
        let link = Arc::new(Link::new(0, 0));
        let number = file.append(recorded("a", 9));
        while !file.synced(number, &link) {
            std::thread::yield_now();
        }
        drop(file);
        assert!(StateFile::open(folder.path()).expect("open").1.sessions["a"].recorded.contains(&9));
    }
}
