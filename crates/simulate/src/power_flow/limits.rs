//! The AC solution of one state of the network, with the reactive limits of generators if wanted.
//!
//! A PV bus whose generators would have to give more reactive power than they can is solved as a PQ bus at the limit;
//! it turns back to PV when at the limit its voltage passes the set point on the side that the limit does not explain
//! (above it at the upper limit, below it at the lower). The states agree when no bus wants to change.

use faer::c64;

use super::grid::{BusKind, Grid};
use super::newton::{Failure, Fit, Held, Limits, Problem, Voltages, Work};
use crate::block_lu::Symbolic;

/// At which limit the generators of a bus are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtLimit {
    Most,
    Least,
}

/// A solved state.
pub(super) struct Solution {
    pub(super) voltages: Voltages,
    pub(super) held: Vec<Held>,
    pub(super) at_limit: Vec<Option<AtLimit>>,
    /// Generation minus demand at each bus, per unit.
    pub(super) injections: Vec<c64>,
    pub(super) fit: Fit,
    /// Rounds of changes between PV and PQ.
    pub(super) limit_rounds: u32,
    /// Buses that went back and forth too often and were left at their limit.
    pub(super) unsettled: Vec<usize>,
}

/// Which state is asked for.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) grid: &'a Grid,
    pub(super) symbolic: &'a Symbolic,
    pub(super) limits: Limits,
    pub(super) enforce_q_limits: bool,
}

/// How far beyond a limit (per unit of power) or a set point (per unit of voltage) is beyond.
const MARGIN: f64 = 1e-7;
/// A bus may turn back to PV so often.
const MOST_RETURNS: u8 = 3;
const MOST_ROUNDS: u32 = 100;

impl Task<'_> {
    /// Solves with these admittances and supplied buses, from `start`.
    pub(super) fn solve(
        &self,
        admittance: &[c64],
        supplied: &[bool],
        start: Voltages,
        work: &mut Work,
    ) -> Result<Solution, Failure> {
        let grid = self.grid;
        let mut held: Vec<Held> = grid
            .buses
            .iter()
            .zip(supplied)
            .map(|(bus, supplied)| match (bus.kind, supplied) {
                (_, false) | (BusKind::Isolated, _) => Held::Dead,
                (BusKind::Slack, _) => Held::Slack,
                (BusKind::Pv, _) => Held::Pv,
                (BusKind::Pq, _) => Held::Pq,
            })
            .collect();
        let mut given: Vec<c64> = (0..grid.buses.len()).map(|bus| grid.scheduled(bus)).collect();
        let mut at_limit = vec![None; held.len()];
        let mut returns = vec![0_u8; held.len()];
        let mut voltages = start;
        let (mut iterations, mut limit_rounds) = (0, 0);
        loop {
            let problem = Problem { grid, symbolic: self.symbolic, admittance, held: &held, given: &given };
            let fit = problem.solve(&mut voltages, work, self.limits)?;
            iterations += fit.iterations;
            let injections = problem.injections(&voltages);
            let wishes = if self.enforce_q_limits {
                wishes(grid, &held, &at_limit, &injections, &voltages)
            } else {
                Vec::new()
            };
            let (mut changed, mut unsettled) = (false, Vec::new());
            for (bus, change) in wishes {
                let back = change.is_none();
                if limit_rounds == MOST_ROUNDS || (back && returns[bus] == MOST_RETURNS) {
                    unsettled.push(bus);
                    continue;
                }
                returns[bus] += u8::from(back);
                changed = true;
                at_limit[bus] = change;
                let (least, most) = grid.reactive_limits(bus);
                match change {
                    None => {
                        held[bus] = Held::Pv;
                        voltages.vm[bus] = grid.buses[bus].vm;
                    }
                    Some(limit) => {
                        held[bus] = Held::Pq;
                        let q = if limit == AtLimit::Most { most } else { least };
                        given[bus].im = q - grid.buses[bus].demand.im;
                    }
                }
            }
            if !changed {
                let fit = Fit { iterations, ..fit };
                return Ok(Solution { voltages, held, at_limit, injections, fit, limit_rounds, unsettled });
            }
            limit_rounds += 1;
        }
    }
}

/// Which buses want to go to a limit, or back (None).
fn wishes(
    grid: &Grid,
    held: &[Held],
    at_limit: &[Option<AtLimit>],
    injections: &[c64],
    voltages: &Voltages,
) -> Vec<(usize, Option<AtLimit>)> {
    let wish = |bus: usize| match (held[bus], at_limit[bus]) {
        (Held::Pv, _) => {
            let (least, most) = grid.reactive_limits(bus);
            let q = injections[bus].im + grid.buses[bus].demand.im;
            if q > most + MARGIN {
                Some(Some(AtLimit::Most))
            } else if q < least - MARGIN {
                Some(Some(AtLimit::Least))
            } else {
                None
            }
        }
        (Held::Pq, Some(AtLimit::Most)) => (voltages.vm[bus] > grid.buses[bus].vm + MARGIN).then_some(None),
        (Held::Pq, Some(AtLimit::Least)) => (voltages.vm[bus] < grid.buses[bus].vm - MARGIN).then_some(None),
        _ => None,
    };
    (0..held.len()).filter_map(|bus| wish(bus).map(|wish| (bus, wish))).collect()
}
