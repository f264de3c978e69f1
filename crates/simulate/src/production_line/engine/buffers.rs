//! Parts between machines: stored, handed over, and taken; the level over time.

use super::{Engine, Giver, Part, Todo};

impl Engine<'_> {
    #[inline]
    pub(super) fn measure(&mut self, buffer: usize) {
        let store = &mut self.buffers[buffer];
        let (level, seconds) = (store.parts.len(), self.now - store.since);
        store.since = self.now;
        let tally = &mut self.tally.buffers[buffer];
        tally.area += level as f64 * seconds;
        tally.most = tally.most.max(level);
        if level >= store.capacity {
            tally.full_s += seconds;
        }
    }

    #[inline]
    pub(super) fn store(&mut self, buffer: usize, part: Part) {
        self.measure(buffer);
        self.buffers[buffer].parts.push_back(part);
        self.feed(buffer);
    }

    #[inline]
    pub(super) fn feed(&mut self, buffer: usize) {
        for &taker in &self.buffers[buffer].takers {
            if !self.stations[taker].ready.is_empty() {
                self.todo.push_back(Todo::Station(taker));
            }
        }
    }

    /// The first part of the buffer, or of who waits to put one in; there is one.
    #[inline]
    pub(super) fn take(&mut self, buffer: usize) -> Option<Part> {
        self.tally.buffers[buffer].parts += 1;
        self.measure(buffer);
        let Some(part) = self.buffers[buffer].parts.pop_front() else {
            return self.take_over(buffer);
        };
        if !self.buffers[buffer].givers.is_empty()
            && let Some(next) = self.take_over(buffer)
        {
            self.buffers[buffer].parts.push_back(next);
        }
        Some(part)
    }

    /// The part of the first that waits to put one in, who is free then.
    fn take_over(&mut self, buffer: usize) -> Option<Part> {
        match self.buffers[buffer].givers.pop_front()? {
            Giver::Source(source) => {
                let product = self.sources[source].held.take()?;
                self.todo.push_back(Todo::Source(source));
                Some(self.enter(product))
            }
            Giver::Unit(unit) => {
                let part = self.units[unit].part;
                self.let_go(unit);
                self.idle(unit);
                Some(part)
            }
        }
    }
}
