//! The line in motion: discrete events, each changing one unit, one source or one shift.
//!
//! The rules, in one place:
//! - A unit takes the first part of its input when it is up, on shift, idle, and its operator is free. It keeps the
//!   operator for setup and processing, not while blocked. A vehicle is kept until the part is delivered.
//! - A finished part that finds its next buffer full stays on the machine (blocking after service) and moves, in the order
//!   of finishing, when there is room. A buffer of capacity 0 hands parts from machine to machine.
//! - A failure or the end of a shift stops the work; afterwards it goes on where it was (preemptive resume), when an
//!   operator is free again. A blocked part may move on while its machine is down.
//! - Whoever waits for an operator, a crew or a vehicle is served in the order of asking.

mod buffers;
mod interruptions;
mod pools;
mod sources;
mod stations;

use std::collections::VecDeque;

use twinlake_contracts::{Error, Result};

use super::agenda::Agenda;
use super::model::Line;
use super::streams::Stream;
use super::tally::{State, Tally};

/// A part on its way.
#[derive(Debug, Clone, Copy)]
struct Part {
    entered: f64,
    product: u16,
    reworks: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Pickup,
    Setup,
    Process,
    Blocked,
}

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own; most pairs of them occur")]
struct Unit {
    station: usize,
    phase: Phase,
    part: Part,
    /// Seconds of the phase left when it was last started.
    remaining: f64,
    started: f64,
    running: bool,
    down: bool,
    off: bool,
    /// Whether it stands in the queue of its pool to go on with its work.
    asks: bool,
    holds: bool,
    /// Seconds of processing to the next failure, when failures run by operating time.
    to_failure: f64,
    last_product: Option<u16>,
    state: State,
    since: f64,
}

struct StationState {
    /// Units that could take a part at once.
    ready: Vec<usize>,
    /// Whether it stands in the queue of its pool.
    queued: bool,
    /// Whether parts and units are there and only the operator is missing.
    short: bool,
    process: Stream,
    setup: Stream,
    pickup: Stream,
    failure: Stream,
    repair: Stream,
    quality: Stream,
}

#[derive(Debug, Clone, Copy)]
enum Giver {
    Unit(usize),
    Source(usize),
}

struct BufferState {
    capacity: usize,
    parts: VecDeque<Part>,
    /// Who holds a part for which there is no room.
    givers: VecDeque<Giver>,
    /// Parts that a vehicle is on its way to.
    reserved: usize,
    takers: Vec<usize>,
    since: f64,
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Station(usize),
    Resume(usize),
    Repair(usize),
}

struct PoolState {
    /// Below 0 when a shift has ended while more are at work than the next one has.
    free: i64,
    busy: i64,
    since: f64,
    queue: VecDeque<Request>,
}

struct SourceState {
    arrivals: Stream,
    mix: Stream,
    /// The part that waits for room.
    held: Option<u16>,
    /// Whether it waits for the work in process to go down.
    limited: bool,
}

#[derive(Debug, Clone, Copy)]
enum Todo {
    Station(usize),
    Pool(usize),
    Source(usize),
}

/// A run in progress.
pub(super) struct Engine<'a> {
    line: &'a Line,
    now: f64,
    window_from: f64,
    agenda: Agenda,
    units: Vec<Unit>,
    stations: Vec<StationState>,
    buffers: Vec<BufferState>,
    pools: Vec<PoolState>,
    sources: Vec<SourceState>,
    shift_on: Vec<bool>,
    /// Parts in the line.
    work: usize,
    work_since: f64,
    /// Parts in the line or let in by the limit.
    committed: usize,
    todo: VecDeque<Todo>,
    tally: Tally,
}

/// So many events without a part leaving the line mean that none ever will.
const PATIENCE: u64 = 50_000_000;

impl<'a> Engine<'a> {
    /// The empty line at time 0, all machines up, at work from then on.
    pub(super) fn new(line: &'a Line, seed: u64, replication: u64) -> Self {
        let mut units = Vec::new();
        let mut stations = Vec::new();
        for (at, station) in line.stations.iter().enumerate() {
            let stream = |purpose| Stream::new(seed, replication, &station.name, purpose);
            let first_unit = units.len();
            let mut failure = stream("time_to_failure");
            for _ in 0..station.units {
                let to_failure =
                    station.failure.as_ref().map_or(f64::INFINITY, |it| it.to_failure.draw(&mut failure));
                units.push(Unit {
                    station: at,
                    phase: Phase::Idle,
                    part: Part { entered: 0.0, product: 0, reworks: 0 },
                    remaining: 0.0,
                    started: 0.0,
                    running: false,
                    // Nobody repairs what is not in service.
                    down: !station.in_service,
                    off: false,
                    asks: false,
                    holds: false,
                    to_failure,
                    last_product: None,
                    state: if station.in_service { State::Starved } else { State::Down },
                    since: 0.0,
                });
            }
            stations.push(StationState {
                ready: (first_unit..units.len()).rev().filter(|_| station.in_service).collect(),
                queued: false,
                short: false,
                process: stream("process"),
                setup: stream("setup"),
                pickup: stream("pickup"),
                failure,
                repair: stream("time_to_repair"),
                quality: stream("quality"),
            });
        }
        let buffers = line.buffers.iter().enumerate().map(|(at, buffer)| BufferState {
            capacity: buffer.capacity.unwrap_or(usize::MAX),
            parts: VecDeque::new(),
            givers: VecDeque::new(),
            reserved: 0,
            takers: (0..line.stations.len()).filter(|taker| line.stations[*taker].input == at).collect(),
            since: 0.0,
        });
        let sources = line.sources.iter().map(|source| SourceState {
            arrivals: Stream::new(seed, replication, &source.name, "interarrival"),
            mix: Stream::new(seed, replication, &source.name, "product"),
            held: None,
            limited: false,
        });
        let pools = line.pools.iter().map(|pool| PoolState {
            free: pool.count as i64,
            busy: 0,
            since: 0.0,
            queue: VecDeque::new(),
        });
        let alarms = line.sources.len() + 2 * units.len() + line.shifts.len();
        let mut engine = Self {
            line,
            now: 0.0,
            window_from: 0.0,
            agenda: Agenda::new(alarms),
            units,
            stations,
            buffers: buffers.collect(),
            pools: pools.collect(),
            sources: sources.collect(),
            shift_on: vec![true; line.shifts.len()],
            work: 0,
            work_since: 0.0,
            committed: 0,
            todo: VecDeque::new(),
            tally: Tally::new(line.stations.len(), line.buffers.len(), line.pools.len()),
        };
        engine.open();
        engine
    }

    fn open(&mut self) {
        for shift in 0..self.line.shifts.len() {
            self.turn_shift(shift);
        }
        for unit in 0..self.units.len() {
            let station = self.station(unit);
            let failure = station.failure.as_ref().filter(|_| station.in_service);
            if failure.is_some_and(|failure| failure.calendar) {
                self.agenda.set(self.failure_alarm(unit), self.units[unit].to_failure);
            }
        }
        for source in 0..self.line.sources.len() {
            self.next_arrival(source);
        }
        self.settle();
    }

    /// Runs until that time or until so many good parts have left since the last [`Engine::close_window`], whichever
    /// is first. `keep_on` is asked now and then.
    pub(super) fn run(&mut self, until: f64, parts: u64, keep_on: &dyn Fn() -> bool) -> Result<()> {
        let mut idle_events = 0_u64;
        let mut left = self.tally.left + self.tally.scrapped;
        let mut events = 0_u64;
        while self.tally.left < parts {
            let (alarm, time) = self.agenda.next();
            if time > until {
                // A line whose machines are out of service may well stand still; any other has been built wrongly.
                if time.is_infinite() && self.work > 0 && self.out_of_service().next().is_none() {
                    return Err(self.stuck());
                }
                self.now = until;
                return Ok(());
            }
            if time.is_infinite() {
                return Err(self.stuck());
            }
            self.now = time;
            self.ring(alarm);
            self.settle();
            idle_events += 1;
            if self.tally.left + self.tally.scrapped != left {
                left = self.tally.left + self.tally.scrapped;
                idle_events = 0;
            } else if idle_events > PATIENCE {
                return Err(self.stuck());
            }
            events += 1;
            if events.is_multiple_of(1 << 20) && !keep_on() {
                return Err(Error::config("the run was stopped"));
            }
        }
        Ok(())
    }

    /// Now.
    pub(super) fn now(&self) -> f64 {
        self.now
    }

    /// Ends the window: its figures, and the next one begins.
    pub(super) fn close_window(&mut self) -> Tally {
        for unit in 0..self.units.len() {
            self.account(unit);
        }
        for buffer in 0..self.buffers.len() {
            self.measure(buffer);
        }
        for pool in 0..self.pools.len() {
            self.change_pool(pool, 0, 0);
        }
        self.change_work(0);
        let fresh = Tally::new(self.stations.len(), self.buffers.len(), self.pools.len());
        let mut tally = std::mem::replace(&mut self.tally, fresh);
        tally.seconds = self.now - self.window_from;
        self.window_from = self.now;
        tally
    }

    fn out_of_service(&self) -> impl Iterator<Item = &str> {
        let out = self.line.stations.iter().filter(|station| !station.in_service);
        out.map(|station| station.name.as_str())
    }

    fn stuck(&self) -> Error {
        let out: Vec<&str> = self.out_of_service().collect();
        if !out.is_empty() {
            return Error::config(format!(
                "the line stands still {:.0} s after its start: out of service: '{}'",
                self.now,
                out.join("', '")
            ))
            .with_help("measure for a time (duration_s) rather than for a number of parts");
        }
        let mut names: Vec<&str> = Vec::new();
        for unit in &self.units {
            let name = self.line.stations[unit.station].name.as_str();
            if matches!(unit.state, State::Blocked | State::WaitingForOperator) && !names.contains(&name) {
                names.push(name);
            }
        }
        Error::config(format!(
            "the line stands still {:.0} s after its start with {} parts in it; blocked or waiting: {}",
            self.now,
            self.work,
            if names.is_empty() { "nobody".to_owned() } else { format!("'{}'", names.join("', '")) }
        ))
        .with_help("parts, buffers or vehicles wait for each other in a circle: give the circle more room, or limit the work in process")
    }

    // Alarms.

    fn work_alarm(&self, unit: usize) -> usize {
        self.sources.len() + 2 * unit
    }

    fn failure_alarm(&self, unit: usize) -> usize {
        self.sources.len() + 2 * unit + 1
    }

    #[inline]
    fn ring(&mut self, alarm: usize) {
        self.agenda.clear(alarm);
        let sources = self.sources.len();
        if alarm < sources {
            self.arrive(alarm);
        } else if alarm < sources + 2 * self.units.len() {
            let unit = (alarm - sources) / 2;
            if (alarm - sources).is_multiple_of(2) {
                self.phase_ends(unit);
            } else if self.units[unit].down {
                self.repaired(unit);
            } else {
                self.fail(unit);
            }
        } else {
            self.turn_shift(alarm - sources - 2 * self.units.len());
        }
    }

    /// Does what the event has made possible, all of it at this instant.
    #[inline]
    fn settle(&mut self) {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Station(station) => self.try_station(station, false),
                Todo::Pool(pool) => self.serve_pool(pool),
                Todo::Source(source) => self.try_source(source),
            }
        }
    }

    /// Books the time since the last change under the state until now, and finds the state from now on.
    #[inline]
    fn account(&mut self, unit: usize) {
        let it = &mut self.units[unit];
        self.tally.stations[it.station].seconds[it.state as usize] += self.now - it.since;
        it.since = self.now;
        it.state = if it.off {
            State::OffShift
        } else if it.down {
            State::Down
        } else {
            match it.phase {
                Phase::Idle if self.stations[it.station].short => State::WaitingForOperator,
                Phase::Idle => State::Starved,
                Phase::Blocked => State::Blocked,
                _ if !it.running => State::WaitingForOperator,
                Phase::Process => State::Processing,
                Phase::Pickup | Phase::Setup => State::Setup,
            }
        };
    }
}
