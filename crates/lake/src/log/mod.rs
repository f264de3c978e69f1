//! The durable log of a pipeline: segments on the local disk, one writer thread, one lock.

mod disk;
mod frame;
mod reader;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use twinlake_contracts::{
    Checkpoint, Error, LoggedMessage, Message, MessageLog, Position, Result, format_us, now_us,
};

use self::disk::{Disk, LocalDisk};
use self::segment::{Header, Segment, damaged, file_name};
use self::writer::{Active, Request, Writer};
use crate::durable::{create_directory, sync_directory};

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment that has reached this size is closed; released segments are deleted whole.
    pub segment_bytes: u64,
    /// How many callers may wait for the writer before the next one waits outside.
    pub queue: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, queue: 1024 }
    }
}

/// What writer and readers share.
struct Shared {
    state: Mutex<State>,
}

struct State {
    /// All segments, oldest first; there is always one.
    segments: Vec<Segment>,
    last_sequence: u64,
    checkpoints: BTreeMap<String, Position>,
}

/// No promise of these states depends on a thread that died while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The durable log of one pipeline, held by this process.
///
/// Promises beyond [`MessageLog`]: a failed append leaves nothing behind and a later one works again, also when the
/// disk was full; damage to records that were acknowledged is an error on open or on read, never a silent gap;
/// dropping the log waits for its writer and gives the lock free.
pub struct DurableLog {
    system: String,
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    /// Held as long as the log is.
    _lock: File,
}

impl DurableLog {
    /// Opens the log in `directory`, creating it if it is not there. A new log starts after sequence `floor`.
    /// Blocking: call it off the async runtime.
    pub fn open(directory: &Path, pipeline: &str, floor: u64, options: &LogOptions) -> Result<Self> {
        Self::open_on(Box::new(LocalDisk), directory, pipeline, floor, options)
    }

    fn open_on(
        disk: Box<dyn Disk>,
        directory: &Path,
        pipeline: &str,
        floor: u64,
        options: &LogOptions,
    ) -> Result<Self> {
        let system = format!("log of pipeline '{pipeline}' in {}", directory.display());
        let fail = |error: std::io::Error| Error::transient(system.clone(), error);
        create_directory(directory).map_err(fail)?;
        let lock_file = hold(directory, &system)?;
        let (state, torn_bytes) = load(directory, &*disk, floor, &system)?;
        let newest = state.segments.last().ok_or_else(|| Error::internal("a log without a segment"))?;
        let mut file = disk.open(&newest.path).map_err(fail)?;
        if torn_bytes > 0 {
            tracing::warn!(
                log = system,
                torn_bytes,
                after_sequence = state.last_sequence,
                "cut a torn tail: the write was never acknowledged"
            );
            file.truncate(newest.bytes).map_err(fail)?;
        }
        // Whatever an earlier process wrote and did not live to sync is durable before it is served.
        file.sync().map_err(fail)?;
        let active =
            Active { file, bytes: newest.bytes, salt: newest.salt, first_sequence: newest.first_sequence };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let (requests, receiver) = mpsc::channel(options.queue.max(1));
        let writer = Writer {
            system: system.clone(),
            directory: directory.to_owned(),
            disk,
            segment_bytes: options.segment_bytes,
            shared: Arc::clone(&shared),
            active: Some(active),
        };
        let writer = std::thread::Builder::new()
            .name("twinlake-log".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| Error::transient(system.clone(), error))?;
        Ok(Self { system, shared, requests: Some(requests), writer: Some(writer), _lock: lock_file })
    }
}

impl Drop for DurableLog {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has answered nobody; there is nothing to save here.
            let _ = writer.join();
        }
    }
}

/// How often a lock that is held is tried again: a process that ends, or a child between fork and exec, holds the lock a
/// moment longer than the log itself.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock of a log's folder; the error names the holder.
fn hold(directory: &Path, system: &str) -> Result<File> {
    let path = directory.join("lock");
    let fail = |error: std::io::Error| Error::transient(system, error);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
    let mut locked = file.try_lock();
    for _ in 0..LOCK_TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
            return Err(Error::permanent(
                system,
                format!("is held by {holder}; stop it, or give this pipeline another name or lake"),
            ));
        }
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    let holder = format!("process {} since {}\n", std::process::id(), format_us(now_us()));
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(holder.as_bytes()))
        .map_err(fail)?;
    Ok(file)
}

/// Reads what is there; gives the state and how many bytes of the newest segment are torn.
fn load(directory: &Path, disk: &dyn Disk, floor: u64, system: &str) -> Result<(State, u64)> {
    let fail = |error: std::io::Error| Error::transient(system, error);
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => paths.push(path),
            // A segment that never got its name.
            Some("tmp") => std::fs::remove_file(&path).map_err(fail)?,
            _ => {}
        }
    }
    // Twenty digits: the order of the names is the order of the sequences.
    paths.sort();
    let mut headers = Vec::with_capacity(paths.len());
    for path in paths {
        let (header, bytes) = segment::read_header(&path)?;
        if path.file_name().and_then(|name| name.to_str()) != Some(file_name(header.first_sequence).as_str())
        {
            return Err(damaged(&path, 0, "the file's name is not that of its header"));
        }
        headers.push((path, header, bytes));
    }
    let Some((path, header, bytes)) = headers.pop() else {
        let header = Header::new(floor + 1, None, BTreeMap::new());
        let encoded = header.encode()?;
        let path = directory.join(file_name(header.first_sequence));
        disk.create(&path, &encoded).map_err(fail)?;
        let segments = vec![Segment::new(path, &header, encoded.len() as u64)];
        return Ok((State { segments, last_sequence: floor, checkpoints: BTreeMap::new() }, 0));
    };
    let mut segments: Vec<Segment> = Vec::with_capacity(headers.len() + 1);
    let counted = headers.iter().skip(1).map(|(_, header, _)| header.previous_bytes);
    let counted: Vec<Option<u64>> = counted.chain([header.previous_bytes]).collect();
    for ((path, header, header_bytes), counted) in headers.into_iter().zip(counted) {
        let length = std::fs::metadata(&path).map_err(fail)?.len();
        let bytes = counted.filter(|bytes| (header_bytes..=length).contains(bytes)).ok_or_else(|| {
            damaged(&path, length, "the file is shorter than it was when the next segment was started")
        })?;
        let mut segment = Segment::new(path, &header, header_bytes);
        segment.bytes = bytes;
        segments.push(segment);
    }
    let scan = segment::scan(&path, header, bytes)?;
    segments.push(scan.segment);
    let state = State { segments, last_sequence: scan.last_sequence, checkpoints: scan.checkpoints };
    Ok((state, scan.torn_bytes))
}

#[async_trait]
impl MessageLog for DurableLog {
    async fn append(&self, source: &str, messages: Vec<Message>) -> Result<u64> {
        if messages.is_empty() {
            return Ok(self.last_sequence());
        }
        if let Some(large) = messages.iter().find(|message| frame::body_length(source, message).is_none()) {
            let bytes = large.payload.len();
            return Err(Error::data(
                "too_large",
                format!("a message of {bytes} bytes is too large for the log"),
            ));
        }
        let gone = || Error::internal(format!("the writer of the {} has ended", self.system));
        let (reply, answer) = oneshot::channel();
        let request = Request { source: source.into(), messages, reply };
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn read(&self, after: u64, limit: usize) -> Result<Vec<LoggedMessage>> {
        if limit == 0 || after >= self.last_sequence() {
            return Ok(Vec::new());
        }
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || reader::read(&shared, after, limit))
            .await
            .map_err(Error::internal)?
    }

    fn last_sequence(&self) -> u64 {
        lock(&self.shared.state).last_sequence
    }

    fn checkpoint(&self, source: &str) -> Checkpoint {
        Checkpoint(lock(&self.shared.state).checkpoints.get(source).cloned())
    }

    async fn release(&self, upto: u64) -> Result<()> {
        let released: Vec<PathBuf> = {
            let mut state = lock(&self.shared.state);
            // A segment ends where the next begins; the newest stays.
            let whole =
                state.segments.windows(2).take_while(|pair| pair[1].first_sequence <= upto.saturating_add(1));
            let count = whole.count();
            state.segments.drain(..count).map(|segment| segment.path).collect()
        };
        if released.is_empty() {
            return Ok(());
        }
        let system = self.system.clone();
        let delete = move || -> std::io::Result<()> {
            // Oldest first: what an interruption leaves is still a log without gaps.
            for path in &released {
                std::fs::remove_file(path)?;
            }
            released.first().and_then(|path| path.parent()).map_or(Ok(()), sync_directory)
        };
        tokio::task::spawn_blocking(delete)
            .await
            .map_err(Error::internal)?
            .map_err(|error| Error::transient(system, format!("cannot delete released segments: {error}")))
    }
}
