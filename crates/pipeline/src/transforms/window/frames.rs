//! Open windows: which ones a row belongs to, and which ones the watermark closes.
//!
//! Tumbling and hopping windows lie at multiples of `hop` from the epoch, moved by `offset`; each is `[start, end)`. A
//! session is as long as the rows of a thing lie less than `gap` apart, and ends `gap` after its last row (Akidau et al.
//! 2015, "The Dataflow Model"). A window is closed when the watermark reaches its end.

use std::collections::{BTreeMap, HashMap};

use twinlake_contracts::Result;

use super::aggregate::{Accumulator, Function};
use crate::codec::{Reader, Writer};

/// How time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Windows of `size`, one every `hop`. With `hop = size` they tumble.
    Fixed { size_us: i64, hop_us: i64, offset_us: i64 },
    /// Sessions of rows less than `gap` apart.
    Session { gap_us: i64 },
}

/// A window's place: end, start, key. In the order in which windows close.
pub(super) type Place = (i64, i64, Box<[u8]>);

/// All open windows.
#[derive(Debug, Default)]
pub(super) struct Frames {
    open: BTreeMap<Place, Vec<Accumulator>>,
    /// The sessions of each thing: start to end.
    sessions: HashMap<Box<[u8]>, BTreeMap<i64, i64>>,
    newest_us: Option<i64>,
    /// Windows that end here or before are closed for good.
    floor_us: Option<i64>,
}

impl Frames {
    /// Up to where windows are closed.
    pub fn watermark(&self, lateness_us: i64) -> Option<i64> {
        self.newest_us.map(|newest| newest.saturating_sub(lateness_us)).max(self.floor_us)
    }

    /// The watermark goes on.
    pub fn advance(&mut self, time_us: i64) {
        self.newest_us = self.newest_us.max(Some(time_us));
    }

    /// Whether a window that ends at `end` takes no rows any more.
    fn closed(&self, end: i64, lateness_us: i64) -> bool {
        self.watermark(lateness_us).is_some_and(|watermark| end <= watermark)
    }

    /// The open windows of a row, new ones if need be; none when the row is late.
    pub fn windows(
        &mut self,
        shape: Shape,
        key: &[u8],
        time_us: i64,
        lateness_us: i64,
        functions: &[Function],
    ) -> Vec<Place> {
        let places: Vec<Place> = match shape {
            Shape::Fixed { size_us, hop_us, offset_us } => {
                let into = time_us.saturating_sub(offset_us).rem_euclid(hop_us);
                let last = time_us.saturating_sub(into);
                let starts = (0..=(size_us - 1) / hop_us).map(|hop| last.saturating_sub(hop * hop_us));
                let places = starts.map(|start| (start.saturating_add(size_us), start, key.into()));
                places.filter(|(end, ..)| *end > time_us && !self.closed(*end, lateness_us)).collect()
            }
            Shape::Session { gap_us } => {
                self.session(key, time_us, gap_us, lateness_us, functions).into_iter().collect()
            }
        };
        for place in &places {
            let start = || functions.iter().map(|function| function.start()).collect();
            self.open.entry(place.clone()).or_insert_with(start);
        }
        places
    }

    /// The session of a row; those that it joins become one.
    fn session(
        &mut self,
        key: &[u8],
        time_us: i64,
        gap_us: i64,
        lateness_us: i64,
        functions: &[Function],
    ) -> Option<Place> {
        let (mut start, mut end) = (time_us, time_us.saturating_add(gap_us));
        let own = self.sessions.get(key);
        let touched: Vec<(i64, i64)> = own
            .into_iter()
            .flat_map(|own| own.range(..end).rev())
            .take_while(|(_, other_end)| **other_end > time_us)
            .map(|(start, end)| (*start, *end))
            .collect();
        if touched.is_empty() && self.closed(end, lateness_us) {
            return None;
        }
        let mut merged: Option<Vec<Accumulator>> = None;
        let own = self.sessions.entry(key.into()).or_default();
        for (other_start, other_end) in touched.into_iter().rev() {
            start = start.min(other_start);
            end = end.max(other_end);
            own.remove(&other_start);
            let Some(accumulators) = self.open.remove(&(other_end, other_start, key.into())) else {
                continue;
            };
            match &mut merged {
                None => merged = Some(accumulators),
                Some(before) => {
                    for ((before, more), function) in before.iter_mut().zip(accumulators).zip(functions) {
                        before.merge(*function, more);
                    }
                }
            }
        }
        own.insert(start, end);
        let place: Place = (end, start, key.into());
        if let Some(merged) = merged {
            self.open.insert(place.clone(), merged);
        }
        Some(place)
    }

    /// The aggregates of a window.
    pub fn get_mut(&mut self, place: &Place) -> Option<&mut Vec<Accumulator>> {
        self.open.get_mut(place)
    }

    /// Takes out the next window that is closed, or that there is no room for.
    pub fn close(&mut self, lateness_us: i64, most: usize) -> Option<(Place, Vec<Accumulator>)> {
        let (end, ..) = self.open.keys().next()?;
        let end = *end;
        if self.closed(end, lateness_us) {
            return self.pop();
        }
        if self.open.len() > most {
            self.floor_us = self.floor_us.max(Some(end));
            return self.pop();
        }
        None
    }

    /// Takes out the window that ends first; it takes no rows any more.
    pub fn end(&mut self) -> Option<(Place, Vec<Accumulator>)> {
        let (end, ..) = self.open.keys().next()?;
        self.floor_us = self.floor_us.max(Some(*end));
        self.pop()
    }

    fn pop(&mut self) -> Option<(Place, Vec<Accumulator>)> {
        let (place, accumulators) = self.open.pop_first()?;
        if let Some(own) = self.sessions.get_mut(&place.2) {
            own.remove(&place.1);
            if own.is_empty() {
                self.sessions.remove(&place.2);
            }
        }
        Some((place, accumulators))
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn write(&self, out: &mut Writer) {
        out.option(self.newest_us, Writer::signed);
        out.option(self.floor_us, Writer::signed);
        out.unsigned(self.open.len() as u64);
        for ((end, start, key), accumulators) in &self.open {
            out.signed(*end);
            out.signed(*start);
            out.bytes(key);
            for accumulator in accumulators {
                accumulator.write(out);
            }
        }
    }

    pub fn read(shape: Shape, functions: &[Function], input: &mut Reader<'_>) -> Result<Self> {
        let mut frames = Self {
            newest_us: input.option(Reader::signed)?,
            floor_us: input.option(Reader::signed)?,
            ..Self::default()
        };
        for _ in 0..input.unsigned()? {
            let (end, start) = (input.signed()?, input.signed()?);
            let key: Box<[u8]> = input.bytes()?.into();
            let accumulators = functions
                .iter()
                .map(|function| Accumulator::read(*function, input))
                .collect::<Result<_>>()?;
            if matches!(shape, Shape::Session { .. }) {
                frames.sessions.entry(key.clone()).or_default().insert(start, end);
            }
            frames.open.insert((end, start, key), accumulators);
        }
        Ok(frames)
    }
}
