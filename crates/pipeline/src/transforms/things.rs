//! What a transform remembers of each thing (a value of `key`), with a bound on how many it remembers.

use std::collections::{BTreeMap, HashMap};

use twinlake_contracts::Result;

use crate::codec::{Reader, Writer};

/// A state that can be stored.
pub(super) trait Stored: Sized {
    fn write(&self, out: &mut Writer);
    fn read(input: &mut Reader<'_>) -> Result<Self>;
}

/// Things by key; the one that has not been touched for the longest is forgotten first. Which one that is depends on the
/// rows alone, never on the cut into batches.
pub(super) struct Things<T> {
    most: usize,
    touches: u64,
    by_key: HashMap<Box<[u8]>, (u64, T)>,
    /// The keys by the touch that came last.
    order: BTreeMap<u64, Box<[u8]>>,
}

impl<T: Default + Stored> Things<T> {
    /// Remembers `most` things.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), touches: 0, by_key: HashMap::new(), order: BTreeMap::new() }
    }

    /// The thing with this key, new if it is not remembered; with it the one that had to be forgotten.
    pub fn touch(&mut self, key: &[u8]) -> (&mut T, Option<T>) {
        self.touches += 1;
        let touch = self.touches;
        let mut forgotten = None;
        if let Some((last, _)) = self.by_key.get_mut(key) {
            let own = self.order.remove(last).unwrap_or_else(|| key.into());
            *last = touch;
            self.order.insert(touch, own);
        } else {
            if self.by_key.len() >= self.most
                && let Some((_, oldest)) = self.order.pop_first()
            {
                forgotten = self.by_key.remove(&oldest).map(|(_, thing)| thing);
            }
            self.order.insert(touch, key.into());
        }
        let entry = self.by_key.entry(key.into()).or_insert_with(|| (touch, T::default()));
        (&mut entry.1, forgotten)
    }

    /// All things, those touched last at the end.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.order.values().filter_map(|key| self.by_key.get(key)).map(|(_, thing)| thing)
    }

    /// Changes all things, those touched last at the end.
    pub fn for_each(&mut self, mut change: impl FnMut(&mut T)) {
        for key in self.order.values() {
            if let Some((_, thing)) = self.by_key.get_mut(key) {
                change(thing);
            }
        }
    }

    pub fn clear(&mut self) {
        self.by_key.clear();
        self.order.clear();
        self.touches = 0;
    }

    pub fn write(&self, out: &mut Writer) {
        out.unsigned(self.touches);
        out.unsigned(self.order.len() as u64);
        let mut before = 0;
        for (touch, key) in &self.order {
            out.unsigned(touch - before);
            before = *touch;
            out.bytes(key);
            if let Some((_, thing)) = self.by_key.get(key) {
                thing.write(out);
            }
        }
    }

    pub fn read(&mut self, input: &mut Reader<'_>) -> Result<()> {
        self.clear();
        self.touches = input.unsigned()?;
        let mut touch = 0;
        for _ in 0..input.unsigned()? {
            touch += input.unsigned()?;
            let key: Box<[u8]> = input.bytes()?.into();
            let thing = T::read(input)?;
            self.order.insert(touch, key.clone());
            self.by_key.insert(key, (touch, thing));
        }
        Ok(())
    }
}
