//! Who is shared: operators, crews, vehicles.

use super::{Engine, Request, Todo};

impl Engine<'_> {
    pub(super) fn change_pool(&mut self, pool: usize, free: i64, busy: i64) {
        let it = &mut self.pools[pool];
        self.tally.pool_busy_s[pool] += it.busy as f64 * (self.now - it.since);
        it.since = self.now;
        it.free += free;
        it.busy += busy;
    }

    /// Whoever the unit holds is free.
    #[inline]
    pub(super) fn let_go(&mut self, unit: usize) {
        if std::mem::take(&mut self.units[unit].holds)
            && let Some(pool) = self.station(unit).pool
        {
            self.change_pool(pool, 1, -1);
            self.todo.push_back(Todo::Pool(pool));
        }
    }

    pub(super) fn serve_pool(&mut self, pool: usize) {
        while self.pools[pool].free > 0
            && let Some(request) = self.pools[pool].queue.pop_front()
        {
            match request {
                Request::Station(station) => {
                    self.stations[station].queued = false;
                    self.try_station(station, true);
                }
                Request::Resume(unit) if self.units[unit].asks => {
                    self.units[unit].asks = false;
                    self.units[unit].holds = true;
                    self.change_pool(pool, -1, 1);
                    self.go_on(unit);
                }
                Request::Resume(_) => {}
                Request::Repair(unit) => {
                    self.change_pool(pool, -1, 1);
                    self.begin_repair(unit);
                }
            }
        }
    }
}
