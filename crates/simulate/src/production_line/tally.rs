//! What is counted while the line runs: one tally a window, a window being a replication or a batch.

/// What a unit of a machine is doing; every instant of it is exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum State {
    /// Works on a part (a transport: is on its way with one).
    Processing,
    /// Is being set up for another product (a transport: is on its way to a part).
    Setup,
    /// Has a finished part that finds no room.
    Blocked,
    /// Has nothing to work on.
    Starved,
    /// Could work, but nobody is there to do it.
    WaitingForOperator,
    /// Has failed: waits for repair or is in repair.
    Down,
    /// Is not planned to work.
    OffShift,
}

/// How many states there are.
pub(super) const STATES: usize = 7;

/// Of one machine or transport, over all its units.
#[derive(Debug, Clone, Default)]
pub(super) struct StationTally {
    /// Unit-seconds by state.
    pub(super) seconds: [f64; STATES],
    /// Parts done.
    pub(super) parts: u64,
    /// Of these, good at their first visit.
    pub(super) good: u64,
    pub(super) rework: u64,
    pub(super) scrap: u64,
    /// Planned run time of the parts done.
    pub(super) planned_s: f64,
    pub(super) failures: u64,
    pub(super) setups: u64,
}

/// Of one buffer.
#[derive(Debug, Clone, Default)]
pub(super) struct BufferTally {
    /// Part-seconds in store.
    pub(super) area: f64,
    pub(super) full_s: f64,
    pub(super) parts: u64,
    pub(super) most: usize,
}

/// A window's figures.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) seconds: f64,
    pub(super) stations: Vec<StationTally>,
    pub(super) buffers: Vec<BufferTally>,
    /// Person- or vehicle-seconds at work, by pool.
    pub(super) pool_busy_s: Vec<f64>,
    /// Parts that came, also those lost.
    pub(super) arrived: u64,
    pub(super) lost: u64,
    /// Good parts that left.
    pub(super) left: u64,
    pub(super) scrapped: u64,
    /// Sum over good parts of the time from entry to exit, seconds.
    pub(super) lead_s: f64,
    /// Part-seconds in the line.
    pub(super) work_area: f64,
}

impl Tally {
    pub(super) fn new(stations: usize, buffers: usize, pools: usize) -> Self {
        Self {
            stations: vec![StationTally::default(); stations],
            buffers: vec![BufferTally::default(); buffers],
            pool_busy_s: vec![0.0; pools],
            ..Self::default()
        }
    }

    /// Good parts an hour.
    pub(super) fn throughput_per_h(&self) -> f64 {
        self.left as f64 / self.seconds * 3600.0
    }
}
