//! N-1: the network with each branch taken out in turn.
//!
//! Every outage starts from the base solution and is independent of the others, so they run on all threads with the same
//! results in the same order. Buses that lose their last way to a slack are named and left without supply; the rest is
//! solved.

use faer::c64;
use rayon::prelude::*;

use super::grid::{BusKind, Grid};
use super::limits::{Solution, Task};
use super::newton::{Failure, Held, Voltages, Work};

/// What one outage leads to.
pub(super) struct Outage {
    /// Row of the branch.
    pub(super) branch: usize,
    /// Buses that had supply before and have none now.
    pub(super) islanded: Vec<usize>,
    /// Their demand, and the generation that was scheduled there, per unit.
    pub(super) demand_lost: f64,
    pub(super) generation_lost: f64,
    pub(super) result: Result<State, Failure>,
}

/// Figures of a solved outage.
pub(super) struct State {
    pub(super) iterations: u32,
    pub(super) losses: f64,
    /// Bus and voltage.
    pub(super) lowest: (usize, f64),
    pub(super) highest: (usize, f64),
    /// Branch and loading as a fraction of its rating.
    pub(super) most_loaded: Option<(usize, f64)>,
    pub(super) overloaded: Vec<usize>,
}

/// Flows into a branch at both ends, per unit.
pub(super) fn branch_flows(grid: &Grid, branch: usize, voltages: &Voltages) -> [c64; 2] {
    let branch = &grid.branches[branch];
    let (from, to) = (voltages.phasor(branch.from), voltages.phasor(branch.to));
    let [ff, ft, tf, tt] = branch.admittance;
    [from * (ff * from + ft * to).conj(), to * (tf * from + tt * to).conj()]
}

/// All outages of branches in service, in the order of the table.
pub(super) fn all(task: Task<'_>, supplied: &[bool], base: &Solution) -> Vec<Outage> {
    let grid = task.grid;
    let candidates: Vec<usize> = (0..grid.branches.len())
        .filter(|&row| grid.branches[row].in_service && supplied[grid.branches[row].from])
        .collect();
    candidates
        .into_par_iter()
        .map_init(
            || (Work::new(grid, task.symbolic), grid.admittance.clone()),
            |(work, admittance), row| {
                let (branch, places) = (&grid.branches[row], grid.layout.places[row]);
                let before = places.map(|place| admittance[place]);
                places.iter().zip(branch.admittance).for_each(|(&place, y)| admittance[place] -= y);
                // What was all of an element leaves exact zero, not a rounding error.
                if !parallel(grid, row) {
                    admittance[places[1]] = c64::new(0.0, 0.0);
                    admittance[places[2]] = c64::new(0.0, 0.0);
                }
                let outage = one(task, row, admittance, supplied, base, work);
                places.iter().zip(before).for_each(|(&place, before)| admittance[place] = before);
                outage
            },
        )
        .collect()
}

fn parallel(grid: &Grid, row: usize) -> bool {
    let places = grid.layout.places[row];
    grid.layout.places.iter().enumerate().any(|(other, at)| {
        other != row && grid.branches[other].in_service && (at[1] == places[1] || at[1] == places[2])
    })
}

fn one(
    task: Task<'_>,
    row: usize,
    admittance: &[c64],
    before: &[bool],
    base: &Solution,
    work: &mut Work,
) -> Outage {
    let grid = task.grid;
    let supplied = grid.supplied(Some(row));
    let islanded: Vec<usize> = (0..grid.buses.len()).filter(|&bus| before[bus] && !supplied[bus]).collect();
    let demand_lost = islanded.iter().fold(0.0, |sum, &bus| sum + grid.buses[bus].demand.re);
    let generation_lost =
        islanded.iter().fold(0.0, |sum, &bus| sum + grid.scheduled(bus).re + grid.buses[bus].demand.re);
    let mut start = base.voltages.clone();
    for (bus, vm) in start.vm.iter_mut().enumerate() {
        if matches!(grid.buses[bus].kind, BusKind::Pv | BusKind::Slack) {
            *vm = grid.buses[bus].vm;
        }
    }
    let result = task.solve(admittance, &supplied, start, work).map(|solution| figures(grid, row, &solution));
    Outage { branch: row, islanded, demand_lost, generation_lost, result }
}

fn figures(grid: &Grid, out: usize, solution: &Solution) -> State {
    let mut state = State {
        iterations: solution.fit.iterations,
        losses: 0.0,
        lowest: (0, f64::INFINITY),
        highest: (0, f64::NEG_INFINITY),
        most_loaded: None,
        overloaded: Vec::new(),
    };
    for (bus, &vm) in solution.voltages.vm.iter().enumerate() {
        if solution.held[bus] == Held::Dead {
            continue;
        }
        if vm < state.lowest.1 {
            state.lowest = (bus, vm);
        }
        if vm > state.highest.1 {
            state.highest = (bus, vm);
        }
    }
    for (row, branch) in grid.branches.iter().enumerate() {
        if row == out || !branch.in_service || solution.held[branch.from] == Held::Dead {
            continue;
        }
        let [from, to] = branch_flows(grid, row, &solution.voltages);
        state.losses += from.re + to.re;
        if let Some(rating) = branch.rating {
            let loading = from.norm().max(to.norm()) / rating;
            if state.most_loaded.is_none_or(|(_, most)| loading > most) {
                state.most_loaded = Some((row, loading));
            }
            if loading > 1.0 {
                state.overloaded.push(row);
            }
        }
    }
    state
}
