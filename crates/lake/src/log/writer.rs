//! The writer of a log: one thread that gathers what callers bring, writes it, and syncs once for all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use twinlake_contracts::{Error, Message, Position, Result};

use super::disk::{Disk, SegmentFile};
use super::frame;
use super::segment::{Header, Segment, file_name};
use super::{Shared, lock};

/// Stop gathering at this many bytes: callers of a group wait for the whole group.
const GROUP_BYTES: usize = 8 << 20;

/// A caller of `append`, waiting.
pub(super) struct Request {
    pub source: Arc<str>,
    pub messages: Vec<Message>,
    pub reply: oneshot::Sender<Result<u64>>,
}

impl Request {
    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.payload.len() + message.origin.len() + 64).sum()
    }
}

/// The newest segment as the writer sees it.
pub(super) struct Active {
    pub file: Box<dyn SegmentFile>,
    /// Bytes on stable storage.
    pub bytes: u64,
    pub salt: u32,
    pub first_sequence: u64,
}

/// The writer's state; it lives on its thread.
pub(super) struct Writer {
    pub system: String,
    pub directory: PathBuf,
    pub disk: Box<dyn Disk>,
    pub segment_bytes: u64,
    pub shared: Arc<Shared>,
    /// `None` after a failure that leaves the newest segment in doubt: the next append starts another one.
    pub active: Option<Active>,
}

impl Writer {
    /// Serves until all callers are gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while bytes < GROUP_BYTES
                && let Ok(next) = requests.try_recv()
            {
                bytes += next.bytes();
                group.push(next);
            }
            let sources: Vec<(Arc<str>, Vec<Message>)> = group
                .iter_mut()
                .map(|request| (Arc::clone(&request.source), std::mem::take(&mut request.messages)))
                .collect();
            let result = self.append(&sources);
            // A caller that went away has its messages in the log all the same; its source asks where it stood.
            match result {
                Ok(last_sequences) => {
                    for (request, sequence) in group.into_iter().zip(last_sequences) {
                        let _ = request.reply.send(Ok(sequence));
                    }
                }
                Err(error) => {
                    for request in group {
                        let _ = request.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Writes and syncs a group; gives for each caller the sequence of its last message. On an error nothing of the
    /// group is in the log.
    fn append(&mut self, group: &[(Arc<str>, Vec<Message>)]) -> Result<Vec<u64>> {
        let (mut sequence, mut checkpoints) = {
            let state = lock(&self.shared.state);
            (state.last_sequence, BTreeMap::<String, Position>::new())
        };
        let first = sequence + 1;
        let system = self.system.clone();
        let segment_bytes = self.segment_bytes;
        let full = self
            .active
            .as_ref()
            .is_none_or(|active| active.bytes >= segment_bytes && active.first_sequence < first);
        if full {
            self.start_segment(first)?;
        }
        let active = self.active.as_mut().ok_or_else(|| Error::internal("a log without a segment"))?;

        let mut buffer = Vec::new();
        let mut places = Vec::new();
        let mut last_sequences = Vec::with_capacity(group.len());
        for (source, messages) in group {
            for message in messages {
                sequence += 1;
                places.push((sequence, active.bytes + buffer.len() as u64));
                frame::encode(&mut buffer, active.salt, sequence, active.bytes, source, message);
            }
            if let Some(last) = messages.last() {
                checkpoints.insert(source.to_string(), last.position.clone());
            }
            last_sequences.push(sequence);
        }

        if let Err(error) = active.file.write_at(active.bytes, &buffer) {
            // What was written of the group is cut off again, and the segment goes on from there.
            if active.file.truncate(active.bytes).is_err() {
                self.active = None;
            }
            return Err(Error::transient(system, format!("cannot write: {error}; nothing was acknowledged")));
        }
        if let Err(error) = active.file.sync() {
            // After a failed sync the kernel may have dropped the pages and call them clean: syncing again would
            // claim what is not so. The segment ends at the last successful sync and another file takes over.
            let _ = active.file.truncate(active.bytes);
            self.active = None;
            return Err(Error::transient(system, format!("cannot sync: {error}; nothing was acknowledged")));
        }

        active.bytes += buffer.len() as u64;
        let mut state = lock(&self.shared.state);
        state.last_sequence = sequence;
        state.checkpoints.append(&mut checkpoints);
        if let Some(segment) = state.segments.last_mut() {
            for (sequence, offset) in places {
                segment.note(sequence, offset);
            }
            segment.bytes = active.bytes;
        }
        Ok(last_sequences)
    }

    /// Starts the segment whose first record is `first`.
    fn start_segment(&mut self, first: u64) -> Result<()> {
        let (header, replaced) = {
            let state = lock(&self.shared.state);
            // A segment that holds no record yet has the name of the one that takes its place: what counts before it
            // is then what counted before the replaced one.
            let replaced = state.segments.last().is_some_and(|segment| segment.first_sequence == first);
            let before = if replaced { state.segments.iter().rev().nth(1) } else { state.segments.last() };
            (Header::new(first, before.map(|segment| segment.bytes), state.checkpoints.clone()), replaced)
        };
        let encoded = header.encode()?;
        let path = self.directory.join(file_name(first));
        let file = self.disk.create(&path, &encoded).map_err(|error| {
            Error::transient(
                self.system.clone(),
                format!("cannot start {}: {error}; nothing was acknowledged", path.display()),
            )
        })?;
        let bytes = encoded.len() as u64;
        self.active = Some(Active { file, bytes, salt: header.salt, first_sequence: first });
        let mut state = lock(&self.shared.state);
        if replaced {
            state.segments.pop();
        }
        state.segments.push(Segment::new(path, &header, bytes));
        Ok(())
    }
}
