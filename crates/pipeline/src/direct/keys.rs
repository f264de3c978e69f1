//! The names that clients gave to their deliveries, so that one that comes again lands nothing.
//!
//! Bound: the last `limit` names are remembered, in the order of the log; an older one is new again. They are part of the
//! state that goes with each commit, so that they are the same after a restart.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twinlake_contracts::{IntakeError, Receipt, Result};

use crate::codec::{Reader, Writer};

/// What is known of a delivery by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Its place in the log.
    pub sequence: u64,
    /// A fingerprint of its body and format.
    pub fingerprint: u64,
    pub rows: u64,
    pub refused: u64,
}

impl Known {
    /// The answer to a delivery that has the same key.
    pub fn answer(&self, fingerprint: u64) -> Result<Receipt, IntakeError> {
        if fingerprint == self.fingerprint {
            return Ok(Receipt { rows: self.rows, refused: self.refused, parts: Vec::new(), repeated: true });
        }
        Err(IntakeError::refused("key_reused", "another body was delivered under this key before"))
    }
}

/// The keys, known to the worker and to those who ask before they bring a delivery.
#[derive(Debug, Clone)]
pub(super) struct SharedKeys(Arc<Mutex<Keys>>);

impl SharedKeys {
    pub fn new(keys: Keys) -> Self {
        Self(Arc::new(Mutex::new(keys)))
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &str) -> Option<Known> {
        self.lock().get(key)
    }

    pub fn insert(&self, key: String, known: Known) {
        self.lock().insert(key, known);
    }

    pub fn write(&self, out: &mut Writer) {
        self.lock().write(out);
    }
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    limit: usize,
    known: HashMap<String, Known>,
    order: VecDeque<String>,
}

impl Keys {
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub fn get(&self, key: &str) -> Option<Known> {
        self.known.get(key).copied()
    }

    /// Remembers a delivery, and forgets the oldest one beyond the bound.
    pub fn insert(&mut self, key: String, known: Known) {
        if self.limit == 0 {
            return;
        }
        if self.known.insert(key.clone(), known).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    pub fn write(&self, out: &mut Writer) {
        out.unsigned(self.order.len() as u64);
        for (key, known) in self.order.iter().filter_map(|key| Some((key, self.known.get(key)?))) {
            out.bytes(key.as_bytes());
            for number in [known.sequence, known.fingerprint, known.rows, known.refused] {
                out.unsigned(number);
            }
        }
    }

    pub fn read(limit: usize, input: &mut Reader<'_>) -> Result<Self> {
        let mut keys = Self::new(limit);
        for _ in 0..input.unsigned()? {
            let key = String::from_utf8_lossy(input.bytes()?).into_owned();
            let known = Known {
                sequence: input.unsigned()?,
                fingerprint: input.unsigned()?,
                rows: input.unsigned()?,
                refused: input.unsigned()?,
            };
            keys.insert(key, known);
        }
        Ok(keys)
    }
}

/// A fingerprint of bytes (FNV-1a, 64 bits): tells bodies apart, is no proof against an attacker.
pub(super) fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.iter().chain(&[0xff])) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_the_rest_survives_a_restart() {
        let mut keys = Keys::new(2);
        for sequence in 1..=3 {
            let known = Known { sequence, fingerprint: u64::MAX, rows: 5, refused: 1 };
            keys.insert(format!("key {sequence}"), known);
        }
        assert_eq!(keys.get("key 1"), None);
        let mut out = Writer::default();
        keys.write(&mut out);
        let bytes = out.finish();
        let read = Keys::read(2, &mut Reader::new(&bytes)).unwrap();
        assert_eq!(read.get("key 3"), keys.get("key 3"));
        assert_eq!(read.get("key 2").unwrap().answer(u64::MAX).unwrap().rows, 5);
        assert!(read.get("key 2").unwrap().answer(7).is_err(), "another body");
        assert!(Keys::read(2, &mut Reader::new(&bytes[..bytes.len() - 1])).is_err());
    }
}
