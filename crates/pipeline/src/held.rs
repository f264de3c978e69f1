//! Messages whose rows some step holds back: kept until the last of those rows has ended, so that every row lands with
//! the time at which its message became known, every reject with its payload, and no message disappears.
//!
//! Memory: the messages (payload and origin) of all rows that are held back, and no other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use twinlake_contracts::{LoggedMessage, Message, Position, Result, Settlement};

use crate::codec::{Reader, Writer};

const VERSION: u64 = 1;

/// A message with rows held back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    /// How many of its rows are held back, in all steps together.
    rows: u64,
    /// Whether something of it has ended: landed, was refused or absorbed.
    ended: bool,
    /// Filled in at the end of the window that brought it.
    message: Option<LoggedMessage>,
}

/// The messages with rows held back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    entries: BTreeMap<u64, Entry>,
    /// The messages of which a row was let go in the present window.
    changed: BTreeSet<u64>,
    /// When the newest message so far became known.
    newest_received_us: i64,
}

impl Held {
    /// Takes over what a step says.
    pub fn settle(&mut self, settlement: &Settlement) {
        for sequence in &settlement.held {
            self.entries.entry(*sequence).or_default().rows += 1;
        }
        for sequence in &settlement.released {
            if let Some(entry) = self.entries.get_mut(sequence) {
                entry.rows = entry.rows.saturating_sub(1);
                self.changed.insert(*sequence);
            }
        }
    }

    /// At the end of a window: `ended` are the messages of which something ended in it. Gives the messages of this and
    /// earlier windows of which nothing is held back any more and nothing has ever ended.
    pub fn close(&mut self, window: &[LoggedMessage], ended: &BTreeSet<u64>) -> Vec<LoggedMessage> {
        let mut lost = Vec::new();
        for logged in window {
            self.newest_received_us = self.newest_received_us.max(logged.message.received_at_us);
            match self.entries.get_mut(&logged.sequence) {
                Some(entry) => entry.message = Some(logged.clone()),
                None if !ended.contains(&logged.sequence) => lost.push(logged.clone()),
                None => {}
            }
        }
        for sequence in ended {
            if let Some(entry) = self.entries.get_mut(sequence) {
                entry.ended = true;
            }
        }
        let changed = self.changed.iter().filter_map(|sequence| self.entries.get(sequence));
        let over = changed.filter(|entry| entry.rows == 0 && !entry.ended);
        lost.extend(over.filter_map(|entry| entry.message.clone()));
        lost.sort_by_key(|logged| logged.sequence);
        lost
    }

    /// Whether rows of any such message are held back.
    pub fn any(&self, of: impl Fn(u64) -> bool) -> bool {
        self.entries.iter().any(|(sequence, entry)| entry.rows > 0 && of(*sequence))
    }

    /// The message of a row that was held back.
    pub fn message(&self, sequence: u64) -> Option<&LoggedMessage> {
        self.entries.get(&sequence)?.message.as_ref()
    }

    /// Forgets the messages of which nothing is held back any more.
    pub fn forget(&mut self) {
        for sequence in std::mem::take(&mut self.changed) {
            if self.entries.get(&sequence).is_some_and(|entry| entry.rows == 0) {
                self.entries.remove(&sequence);
            }
        }
    }

    /// When the newest message so far became known; 0 before the first.
    pub fn newest_received_us(&self) -> i64 {
        self.newest_received_us
    }

    pub fn write(&self, out: &mut Writer) {
        out.unsigned(VERSION);
        out.signed(self.newest_received_us);
        out.unsigned(self.entries.len() as u64);
        for (sequence, entry) in &self.entries {
            out.unsigned(*sequence);
            out.unsigned(entry.rows);
            out.flag(entry.ended);
            out.option(entry.message.as_ref(), |out, logged| {
                out.bytes(logged.source.as_bytes());
                out.bytes(logged.message.origin.as_bytes());
                out.bytes(&logged.message.payload);
                out.unsigned(logged.message.position.ordinal);
                out.bytes(logged.message.position.token.as_bytes());
                out.signed(logged.message.received_at_us);
            });
        }
    }

    pub fn read(input: &mut Reader<'_>) -> Result<Self> {
        let mut held = Self::default();
        if input.is_empty() || input.unsigned()? != VERSION {
            return Ok(held); // from before steps held rows back
        }
        held.newest_received_us = input.signed()?;
        for _ in 0..input.unsigned()? {
            let sequence = input.unsigned()?;
            let (rows, ended) = (input.unsigned()?, input.flag()?);
            let message = input.option(|input| {
                let source = input.text()?.into();
                let origin = input.text()?.into();
                let payload = Bytes::copy_from_slice(input.bytes()?);
                let position = Position { ordinal: input.unsigned()?, token: input.text()? };
                let received_at_us = input.signed()?;
                let message = Message { payload, origin, position, received_at_us };
                Ok(LoggedMessage { sequence, source, message })
            })?;
            held.entries.insert(sequence, Entry { rows, ended, message });
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(sequence: u64) -> LoggedMessage {
        let message = Message {
            payload: Bytes::from(format!("payload {sequence}")),
            origin: "topic".into(),
            position: Position { ordinal: sequence, token: "t".into() },
            received_at_us: sequence as i64,
        };
        LoggedMessage { sequence, source: "a".into(), message }
    }

    fn sequences(messages: &[LoggedMessage]) -> Vec<u64> {
        messages.iter().map(|logged| logged.sequence).collect()
    }

    #[test]
    fn a_message_is_lost_only_when_nothing_of_it_ended_anywhere() {
        let mut held = Held::default();
        held.settle(&Settlement { held: vec![1, 2, 2, 3], ..Settlement::default() });
        let window: Vec<_> = (1..=4).map(logged).collect();
        assert_eq!(sequences(&held.close(&window, &BTreeSet::from([2]))), [4], "1 to 3 are held back");
        held.forget();
        let mut out = Writer::default();
        held.write(&mut out);
        let mut restored = Held::read(&mut Reader::new(&out.finish())).unwrap();
        assert_eq!(restored, held);
        restored.settle(&Settlement { released: vec![1, 2, 3], ..Settlement::default() });
        let lost = restored.close(&[logged(5)], &BTreeSet::from([1, 5]));
        assert_eq!(sequences(&lost), [3], "1 landed, something of 2 landed before and one row is left");
        assert_eq!(restored.message(1).map(|logged| logged.message.received_at_us), Some(1));
        restored.forget();
        assert!(restored.message(1).is_none() && restored.message(2).is_some());
        assert_eq!(restored.newest_received_us(), 5);
    }
}
