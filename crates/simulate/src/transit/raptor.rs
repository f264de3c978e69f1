//! Earliest arrivals by number of rides (RAPTOR: Delling, Pajor, Werneck 2015, Transportation Science 49(3), 591-604).
//!
//! A journey walks to a stop, rides, walks at most once between two rides, and walks to its end. Round `k` finds the
//! earliest arrival at every stop with `k` rides from those with `k - 1`: each pattern that calls where something became
//! better is ridden once, from its first such stop.

use super::timetable::Timetable;

/// Never.
pub(super) const NEVER: i32 = i32::MAX;

/// How a stop was reached in a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ride {
    pub(super) pattern: u32,
    /// Which trip of the pattern.
    pub(super) trip: u32,
    pub(super) board: u32,
    pub(super) alight: u32,
}

/// How one came to stand ready at a stop.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready {
    Never,
    /// From the origin.
    Origin,
    /// After alighting at that stop in that round.
    Change(u32),
}

#[derive(Clone)]
pub(super) struct Round {
    /// Earliest arrival by a ride of this round, or of an earlier one if that is no later.
    pub(super) arrival: Vec<i32>,
    /// Of this round alone.
    pub(super) ride: Vec<Option<Ride>>,
    /// Earliest time at which one can board.
    pub(super) ready: Vec<i32>,
    pub(super) came: Vec<Ready>,
}

/// All rounds of a search from access stops with the times at which they are reached.
pub(super) fn search(table: &Timetable, access: &[(u32, i32)], rides: usize) -> Vec<Round> {
    let stops = table.stops.len();
    let mut first = Round {
        arrival: vec![NEVER; stops],
        ride: vec![None; stops],
        ready: vec![NEVER; stops],
        came: vec![Ready::Never; stops],
    };
    let mut marked = Vec::new();
    for (stop, time) in access {
        if *time < first.ready[*stop as usize] {
            first.ready[*stop as usize] = *time;
            first.came[*stop as usize] = Ready::Origin;
            marked.push(*stop);
        }
    }
    let mut rounds = vec![first];
    // The first position at which each pattern may be boarded in this round.
    let mut from = vec![u32::MAX; table.patterns.len()];
    for _ in 0..rides {
        let Some(before) = rounds.last() else { break };
        let mut patterns = Vec::new();
        for stop in marked.drain(..) {
            for (pattern, at) in &table.calls[stop as usize] {
                let slot = &mut from[*pattern as usize];
                if *slot == u32::MAX {
                    patterns.push(*pattern);
                }
                *slot = (*slot).min(*at);
            }
        }
        let mut next = Round {
            arrival: before.arrival.clone(),
            ride: vec![None; stops],
            ready: before.ready.clone(),
            came: vec![Ready::Never; stops],
        };
        let mut better = Vec::new();
        patterns.sort_unstable();
        for pattern in patterns {
            let first = std::mem::replace(&mut from[pattern as usize], u32::MAX);
            ride(table, pattern, first as usize, before, &mut next, &mut better);
        }
        if better.is_empty() {
            break;
        }
        better.sort_unstable();
        better.dedup();
        for stop in better {
            for (other, seconds) in &table.changes[stop as usize] {
                let time = next.arrival[stop as usize].saturating_add(*seconds);
                if time < next.ready[*other as usize] {
                    next.ready[*other as usize] = time;
                    next.came[*other as usize] = Ready::Change(stop);
                    marked.push(*other);
                }
            }
        }
        rounds.push(next);
    }
    rounds
}

/// Rides a pattern from a position on: always on the earliest trip that can be had.
fn ride(
    table: &Timetable,
    pattern: u32,
    from: usize,
    before: &Round,
    next: &mut Round,
    better: &mut Vec<u32>,
) {
    let it = &table.patterns[pattern as usize];
    let count = it.trips.len();
    let mut aboard: Option<(usize, usize)> = None;
    for at in from..it.stops.len() {
        let stop = it.stops[at] as usize;
        if let Some((trip, board)) = aboard
            && it.drop_off[at]
        {
            let time = it.arrival(trip, at);
            if time < next.arrival[stop] {
                next.arrival[stop] = time;
                next.ride[stop] =
                    Some(Ride { pattern, trip: trip as u32, board: board as u32, alight: at as u32 });
                better.push(stop as u32);
            }
        }
        let ready = before.ready[stop];
        if ready == NEVER || !it.pickup[at] {
            continue;
        }
        // The first trip that departs when one is ready, or later; trips of a pattern are in the order of departure.
        let last = aboard.map_or(count, |(trip, _)| trip);
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = low.midpoint(high);
            if it.departure(middle, at) >= ready {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if low < last {
            aboard = Some((low, at));
        }
    }
}
