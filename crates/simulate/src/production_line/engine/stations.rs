//! Work at the machines: taking a part, setup, processing, blocking, and what becomes of a finished part.

use super::{Engine, Giver, Phase, Request, Todo};
use crate::production_line::model::{Destination, Station};

impl<'a> Engine<'a> {
    #[inline]
    pub(super) fn station(&self, unit: usize) -> &'a Station {
        &self.line.stations[self.units[unit].station]
    }

    fn available(&self, buffer: usize) -> usize {
        let store = &self.buffers[buffer];
        (store.parts.len() + store.givers.len()).saturating_sub(store.reserved)
    }

    #[inline]
    pub(super) fn could_take(&self, station: usize) -> bool {
        let spec = &self.line.stations[station];
        !self.stations[station].ready.is_empty()
            && !spec.transport
            && spec.pool.is_none_or(|pool| self.pools[pool].free > 0 && self.pools[pool].queue.is_empty())
    }

    /// Starts as many units as it can. `turn`: it is first in the queue of its pool.
    #[inline]
    pub(super) fn try_station(&mut self, station: usize, mut turn: bool) {
        let spec = &self.line.stations[station];
        let mut short = false;
        while !self.stations[station].ready.is_empty() && self.available(spec.input) > 0 {
            if let Some(pool) = spec.pool {
                if self.pools[pool].free <= 0 || !(turn || self.pools[pool].queue.is_empty()) {
                    short = true;
                    if !self.stations[station].queued {
                        self.stations[station].queued = true;
                        self.pools[pool].queue.push_back(Request::Station(station));
                        if self.pools[pool].free > 0 {
                            self.todo.push_back(Todo::Pool(pool));
                        }
                    }
                    break;
                }
                self.change_pool(pool, -1, 1);
                turn = false;
            }
            let Some(unit) = self.stations[station].ready.pop() else { break };
            self.units[unit].holds = spec.pool.is_some();
            self.start(unit);
        }
        if short != self.stations[station].short {
            self.stations[station].short = short;
            for at in 0..self.stations[station].ready.len() {
                self.account(self.stations[station].ready[at]);
            }
        }
    }

    fn start(&mut self, unit: usize) {
        let station = self.units[unit].station;
        let spec = &self.line.stations[station];
        if let Some(pickup) = spec.pickup {
            self.buffers[spec.input].reserved += 1;
            let time = pickup.draw(&mut self.stations[station].pickup);
            self.begin_phase(unit, Phase::Pickup, time);
            return;
        }
        let Some(part) = self.take(spec.input) else { return };
        self.units[unit].part = part;
        let before = self.units[unit].last_product;
        let setup = before.and_then(|before| spec.setup[usize::from(part.product)][usize::from(before)]);
        if let Some(setup) = setup {
            self.tally.stations[station].setups += 1;
            let time = setup.draw(&mut self.stations[station].setup);
            self.begin_phase(unit, Phase::Setup, time);
        } else {
            self.begin_process(unit);
        }
    }

    #[inline]
    fn begin_process(&mut self, unit: usize) {
        let station = self.units[unit].station;
        let product = self.units[unit].part.product;
        self.units[unit].last_product = Some(product);
        let time = self.line.stations[station].process[usize::from(product)]
            .draw(&mut self.stations[station].process);
        self.begin_phase(unit, Phase::Process, time);
    }

    #[inline]
    fn begin_phase(&mut self, unit: usize, phase: Phase, time: f64) {
        self.units[unit].phase = phase;
        self.units[unit].remaining = time;
        self.go_on(unit);
    }

    /// Starts the clock of the phase for what is left of it.
    #[inline]
    pub(super) fn go_on(&mut self, unit: usize) {
        let now = self.now;
        let it = &mut self.units[unit];
        it.started = now;
        it.running = true;
        let operating_failure = it.phase == Phase::Process && it.to_failure < it.remaining;
        let (remaining, to_failure) = (it.remaining, it.to_failure);
        let fails =
            operating_failure && self.station(unit).failure.as_ref().is_some_and(|failure| !failure.calendar);
        if fails {
            self.agenda.set(self.failure_alarm(unit), now + to_failure);
        } else {
            self.agenda.set(self.work_alarm(unit), now + remaining);
        }
        self.account(unit);
    }

    /// Stops the clock; the operator goes.
    #[inline]
    pub(super) fn pause(&mut self, unit: usize) {
        if !self.units[unit].running {
            return;
        }
        self.wear(unit);
        let it = &mut self.units[unit];
        it.remaining = (it.remaining - (self.now - it.started)).max(0.0);
        it.running = false;
        self.agenda.clear(self.work_alarm(unit));
        if self.station(unit).failure.as_ref().is_some_and(|failure| !failure.calendar) {
            self.agenda.clear(self.failure_alarm(unit));
        }
        self.let_go(unit);
    }

    /// Processing uses up the time to failure.
    #[inline]
    fn wear(&mut self, unit: usize) {
        let it = &mut self.units[unit];
        if it.phase == Phase::Process {
            it.to_failure = (it.to_failure - (self.now - it.started)).max(0.0);
        }
    }

    #[inline]
    pub(super) fn phase_ends(&mut self, unit: usize) {
        self.wear(unit);
        self.units[unit].running = false;
        match self.units[unit].phase {
            Phase::Pickup => {
                let input = self.station(unit).input;
                self.buffers[input].reserved -= 1;
                if let Some(part) = self.take(input) {
                    self.units[unit].part = part;
                    self.begin_process(unit);
                }
            }
            Phase::Setup => self.begin_process(unit),
            Phase::Process => self.finish(unit),
            Phase::Idle | Phase::Blocked => {}
        }
    }

    fn finish(&mut self, unit: usize) {
        let station = self.units[unit].station;
        let spec = &self.line.stations[station];
        let mut part = self.units[unit].part;
        let tally = &mut self.tally.stations[station];
        tally.parts += 1;
        tally.planned_s += spec.ideal[usize::from(part.product)];
        if !spec.transport {
            self.let_go(unit);
        }
        let mut output: Destination = spec.output[usize::from(part.product)];
        let mut good = true;
        if spec.scrap_share + spec.rework_share > 0.0 {
            let uniform = self.stations[station].quality.uniform();
            let tally = &mut self.tally.stations[station];
            if uniform < spec.scrap_share {
                good = false;
            } else if uniform < spec.scrap_share + spec.rework_share {
                if part.reworks < spec.rework_at_most {
                    part.reworks += 1;
                    tally.rework += 1;
                    output = spec.rework_to;
                } else {
                    good = false;
                }
            } else {
                tally.good += 1;
            }
        } else {
            self.tally.stations[station].good += 1;
        }
        if !good {
            self.tally.stations[station].scrap += 1;
            output = None;
        }
        self.units[unit].part = part;
        match output {
            None => {
                self.leave(part, good);
                self.let_go(unit);
                self.idle(unit);
            }
            Some(buffer) => {
                let store = &self.buffers[buffer];
                if store.givers.is_empty() && store.parts.len() < store.capacity {
                    self.store(buffer, part);
                    self.let_go(unit);
                    self.idle(unit);
                } else {
                    self.units[unit].phase = Phase::Blocked;
                    self.account(unit);
                    self.buffers[buffer].givers.push_back(Giver::Unit(unit));
                    self.feed(buffer);
                }
            }
        }
    }

    #[inline]
    pub(super) fn idle(&mut self, unit: usize) {
        let it = &mut self.units[unit];
        it.phase = Phase::Idle;
        let station = it.station;
        if !it.down && !it.off {
            self.stations[station].ready.push(unit);
            self.todo.push_back(Todo::Station(station));
        }
        self.account(unit);
    }
}
