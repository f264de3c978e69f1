//! Work stops and goes on: failures, repairs, shifts.

use super::{Engine, Phase, Request, Todo};

impl Engine<'_> {
    pub(super) fn fail(&mut self, unit: usize) {
        self.tally.stations[self.units[unit].station].failures += 1;
        self.pause(unit);
        self.units[unit].down = true;
        self.withdraw(unit);
        self.account(unit);
        match self.station(unit).failure.as_ref().and_then(|failure| failure.crew) {
            Some(crew) => {
                self.pools[crew].queue.push_back(Request::Repair(unit));
                self.todo.push_back(Todo::Pool(crew));
            }
            None => self.begin_repair(unit),
        }
    }

    pub(super) fn begin_repair(&mut self, unit: usize) {
        if let Some(failure) = &self.station(unit).failure {
            let time = failure.to_repair.draw(&mut self.stations[self.units[unit].station].repair);
            self.agenda.set(self.failure_alarm(unit), self.now + time);
        }
    }

    pub(super) fn repaired(&mut self, unit: usize) {
        self.units[unit].down = false;
        if let Some(failure) = &self.station(unit).failure {
            if let Some(crew) = failure.crew {
                self.change_pool(crew, 1, -1);
                self.todo.push_back(Todo::Pool(crew));
            }
            let time = failure.to_failure.draw(&mut self.stations[self.units[unit].station].failure);
            self.units[unit].to_failure = time;
            if failure.calendar {
                self.agenda.set(self.failure_alarm(unit), self.now + time);
            }
        }
        self.wake(unit);
    }

    /// The unit is no longer among those that could take a part.
    fn withdraw(&mut self, unit: usize) {
        self.units[unit].asks = false;
        let station = self.units[unit].station;
        self.stations[station].ready.retain(|other| *other != unit);
    }

    /// Goes on after a failure or a pause, unless the other still holds.
    fn wake(&mut self, unit: usize) {
        let it = &self.units[unit];
        if it.down || it.off {
            self.account(unit);
            return;
        }
        match self.units[unit].phase {
            Phase::Idle => self.idle(unit),
            Phase::Blocked => self.account(unit),
            Phase::Pickup | Phase::Setup | Phase::Process => match self.station(unit).pool {
                Some(pool) => {
                    self.units[unit].asks = true;
                    self.account(unit);
                    self.pools[pool].queue.push_back(Request::Resume(unit));
                    self.todo.push_back(Todo::Pool(pool));
                }
                None => self.go_on(unit),
            },
        }
    }

    /// A shift begins or ends, now; sets the alarm for the next time.
    pub(super) fn turn_shift(&mut self, shift: usize) {
        let spec = &self.line.shifts[shift];
        // Half a microsecond forgives what adding periods has rounded.
        let round = ((self.now + 5e-7) / spec.period).floor();
        let phase = self.now - round * spec.period + 5e-7;
        let on = spec.spans.iter().any(|(from, to)| (*from..*to).contains(&phase));
        let next = spec.spans.iter().flat_map(|(from, to)| [*from, *to]).find(|edge| *edge > phase);
        let next = next.unwrap_or(spec.period + spec.spans.first().map_or(0.0, |span| span.0));
        // A span from the start of the period to its end is always on: nothing ever turns.
        let always = spec.spans.first().is_some_and(|span| *span == (0.0, spec.period));
        let alarm = self.sources.len() + 2 * self.units.len() + shift;
        if !always {
            self.agenda.set(alarm, round * spec.period + next);
        }
        if on == self.shift_on[shift] {
            return;
        }
        self.shift_on[shift] = on;
        for pool in 0..self.pools.len() {
            if self.line.pools[pool].shift == Some(shift) {
                let count = self.line.pools[pool].count as i64;
                self.change_pool(pool, if on { count } else { -count }, 0);
                self.todo.push_back(Todo::Pool(pool));
            }
        }
        for unit in 0..self.units.len() {
            if self.station(unit).shift == Some(shift) {
                self.units[unit].off = !on;
                if on {
                    self.wake(unit);
                } else {
                    self.pause(unit);
                    self.withdraw(unit);
                    self.account(unit);
                }
            }
        }
    }
}
