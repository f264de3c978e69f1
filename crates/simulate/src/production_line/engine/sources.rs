//! Parts enter and leave: arrivals, the limit of parts in the line, and what is counted of a part that leaves.

use super::{Engine, Giver, Part, Todo};

impl Engine<'_> {
    #[inline]
    pub(super) fn next_arrival(&mut self, source: usize) {
        match self.line.sources[source].interarrival {
            Some(time) => {
                let wait = time.draw(&mut self.sources[source].arrivals);
                self.agenda.set(source, self.now + wait);
            }
            None => self.arrive(source),
        }
    }

    #[inline]
    pub(super) fn arrive(&mut self, source: usize) {
        self.tally.arrived += 1;
        let product = self.draw_product(source);
        let buffer = self.line.sources[source].output;
        if self.line.sources[source].loses {
            let limited = self.line.work_in_process_limit.is_some_and(|limit| self.committed >= limit);
            let store = &self.buffers[buffer];
            let room = store.parts.len() < store.capacity
                || (store.capacity == 0 && store.takers.iter().any(|taker| self.could_take(*taker)));
            if limited || !room {
                self.tally.lost += 1;
            } else {
                self.committed += 1;
                let part = self.enter(product);
                self.store(buffer, part);
            }
            self.next_arrival(source);
            return;
        }
        self.sources[source].held = Some(product);
        self.todo.push_back(Todo::Source(source));
    }

    fn draw_product(&mut self, source: usize) -> u16 {
        let products = &self.line.products;
        if products.len() == 1 {
            return 0;
        }
        let uniform = self.sources[source].mix.uniform();
        let mut sum = 0.0;
        for (at, product) in products.iter().enumerate() {
            sum += product.share;
            if uniform < sum {
                return at as u16;
            }
        }
        (products.len() - 1) as u16
    }

    /// A part that waits at its source tries to come in.
    #[inline]
    pub(super) fn try_source(&mut self, source: usize) {
        let Some(product) = self.sources[source].held else {
            // It has come in meanwhile: the next one sets out.
            self.next_arrival(source);
            return;
        };
        if self.line.work_in_process_limit.is_some_and(|limit| self.committed >= limit) {
            self.sources[source].limited = true;
            return;
        }
        self.committed += 1;
        let buffer = self.line.sources[source].output;
        let store = &self.buffers[buffer];
        if store.givers.is_empty() && store.parts.len() < store.capacity {
            self.sources[source].held = None;
            let part = self.enter(product);
            self.store(buffer, part);
            self.todo.push_back(Todo::Source(source));
        } else {
            self.buffers[buffer].givers.push_back(Giver::Source(source));
            self.feed(buffer);
        }
    }

    #[inline]
    pub(super) fn enter(&mut self, product: u16) -> Part {
        self.change_work(1);
        Part { entered: self.now, product, reworks: 0 }
    }

    #[inline]
    pub(super) fn leave(&mut self, part: Part, good: bool) {
        if good {
            self.tally.left += 1;
            self.tally.lead_s += self.now - part.entered;
        } else {
            self.tally.scrapped += 1;
        }
        self.change_work(-1);
        self.committed -= 1;
        if self.line.work_in_process_limit.is_some() {
            for source in 0..self.sources.len() {
                if std::mem::take(&mut self.sources[source].limited) {
                    self.todo.push_back(Todo::Source(source));
                }
            }
        }
    }

    #[inline]
    pub(super) fn change_work(&mut self, change: isize) {
        self.tally.work_area += self.work as f64 * (self.now - self.work_since);
        self.work_since = self.now;
        self.work = self.work.wrapping_add_signed(change);
    }
}
