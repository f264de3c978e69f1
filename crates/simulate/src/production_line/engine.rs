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

use std::collections::VecDeque;

use twinlake_contracts::{Error, Result};

use super::agenda::Agenda;
use super::model::{Destination, Line, Station};
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
                    down: false,
                    off: false,
                    asks: false,
                    holds: false,
                    to_failure,
                    last_product: None,
                    state: State::Starved,
                    since: 0.0,
                });
            }
            stations.push(StationState {
                ready: (first_unit..units.len()).rev().collect(),
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
            let failure = self.station(unit).failure.as_ref();
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
                if time.is_infinite() && self.work > 0 {
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

    fn stuck(&self) -> Error {
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

    // Sources.

    fn next_arrival(&mut self, source: usize) {
        match self.line.sources[source].interarrival {
            Some(time) => {
                let wait = time.draw(&mut self.sources[source].arrivals);
                self.agenda.set(source, self.now + wait);
            }
            None => self.arrive(source),
        }
    }

    fn arrive(&mut self, source: usize) {
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
    fn try_source(&mut self, source: usize) {
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

    fn enter(&mut self, product: u16) -> Part {
        self.change_work(1);
        Part { entered: self.now, product, reworks: 0 }
    }

    fn leave(&mut self, part: Part, good: bool) {
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
    fn change_work(&mut self, change: isize) {
        self.tally.work_area += self.work as f64 * (self.now - self.work_since);
        self.work_since = self.now;
        self.work = self.work.wrapping_add_signed(change);
    }

    // Buffers.

    #[inline]
    fn measure(&mut self, buffer: usize) {
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
    fn store(&mut self, buffer: usize, part: Part) {
        self.measure(buffer);
        self.buffers[buffer].parts.push_back(part);
        self.feed(buffer);
    }

    #[inline]
    fn feed(&mut self, buffer: usize) {
        for &taker in &self.buffers[buffer].takers {
            if !self.stations[taker].ready.is_empty() {
                self.todo.push_back(Todo::Station(taker));
            }
        }
    }

    /// The first part of the buffer, or of who waits to put one in; there is one.
    fn take(&mut self, buffer: usize) -> Option<Part> {
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

    // Stations.

    fn station(&self, unit: usize) -> &'a Station {
        &self.line.stations[self.units[unit].station]
    }

    fn available(&self, buffer: usize) -> usize {
        let store = &self.buffers[buffer];
        (store.parts.len() + store.givers.len()).saturating_sub(store.reserved)
    }

    fn could_take(&self, station: usize) -> bool {
        let spec = &self.line.stations[station];
        !self.stations[station].ready.is_empty()
            && !spec.transport
            && spec.pool.is_none_or(|pool| self.pools[pool].free > 0 && self.pools[pool].queue.is_empty())
    }

    /// Starts as many units as it can. `turn`: it is first in the queue of its pool.
    fn try_station(&mut self, station: usize, mut turn: bool) {
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
    fn go_on(&mut self, unit: usize) {
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
    fn pause(&mut self, unit: usize) {
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

    fn phase_ends(&mut self, unit: usize) {
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

    fn idle(&mut self, unit: usize) {
        let it = &mut self.units[unit];
        it.phase = Phase::Idle;
        let station = it.station;
        if !it.down && !it.off {
            self.stations[station].ready.push(unit);
            self.todo.push_back(Todo::Station(station));
        }
        self.account(unit);
    }

    // Failures and shifts.

    fn fail(&mut self, unit: usize) {
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

    fn begin_repair(&mut self, unit: usize) {
        if let Some(failure) = &self.station(unit).failure {
            let time = failure.to_repair.draw(&mut self.stations[self.units[unit].station].repair);
            self.agenda.set(self.failure_alarm(unit), self.now + time);
        }
    }

    fn repaired(&mut self, unit: usize) {
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
    fn turn_shift(&mut self, shift: usize) {
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

    // Operators, crews, vehicles.

    fn change_pool(&mut self, pool: usize, free: i64, busy: i64) {
        let it = &mut self.pools[pool];
        self.tally.pool_busy_s[pool] += it.busy as f64 * (self.now - it.since);
        it.since = self.now;
        it.free += free;
        it.busy += busy;
    }

    /// Whoever the unit holds is free.
    #[inline]
    fn let_go(&mut self, unit: usize) {
        if std::mem::take(&mut self.units[unit].holds)
            && let Some(pool) = self.station(unit).pool
        {
            self.change_pool(pool, 1, -1);
            self.todo.push_back(Todo::Pool(pool));
        }
    }

    fn serve_pool(&mut self, pool: usize) {
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
