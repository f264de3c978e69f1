//! The DC approximation: voltages of 1 p.u., no losses, angles small enough that their sine is themselves.
//!
//! `P_ft = (θ_f − θ_t − φ) / (x · ratio)`, and at each bus the flows out balance generation minus demand minus the
//! active part of the shunt (Stott, Jardim, Alsaç 2009). Linear: one solution, no iterations.

use super::grid::Grid;
use super::newton::Failure;
use crate::block_lu::{Factors, Symbolic};

/// Angles in radians, and what each branch carries from its from end, per unit.
pub(super) struct DcSolution {
    pub(super) va: Vec<f64>,
    pub(super) flows: Vec<f64>,
    /// Generation minus demand at each bus, per unit.
    pub(super) injections: Vec<f64>,
}

/// Solves the buses that are `supplied`; all others keep angle 0 and no injection.
pub(super) fn solve(grid: &Grid, symbolic: &Symbolic, supplied: &[bool]) -> Result<DcSolution, Failure> {
    let size = grid.buses.len();
    let slack = |bus: usize| grid.buses[bus].kind == super::grid::BusKind::Slack;
    let free = |bus: usize| supplied[bus] && !slack(bus);
    let mut values = vec![0.0; grid.layout.pattern.columns.len()];
    let mut rhs = vec![0.0; size];
    let mut va = vec![0.0; size];
    for bus in 0..size {
        if free(bus) {
            rhs[bus] = grid.scheduled(bus).re - grid.buses[bus].shunt.re;
        } else if slack(bus) {
            va[bus] = grid.buses[bus].va;
        }
    }
    for (branch, places) in grid.branches.iter().zip(&grid.layout.places) {
        if !(branch.in_service && supplied[branch.from]) {
            continue;
        }
        let y = branch.susceptance;
        // The known angle of a slack goes to the right-hand side.
        if free(branch.from) {
            values[places[0]] += y;
            rhs[branch.from] += y * branch.shift;
            if free(branch.to) { values[places[1]] -= y } else { rhs[branch.from] += y * va[branch.to] }
        }
        if free(branch.to) {
            values[places[3]] += y;
            rhs[branch.to] -= y * branch.shift;
            if free(branch.from) { values[places[2]] -= y } else { rhs[branch.to] += y * va[branch.from] }
        }
    }
    for bus in 0..size {
        if !free(bus) {
            values[grid.layout.diagonal[bus]] = 1.0;
            rhs[bus] = va[bus];
        }
    }
    let mut factors = Factors::<f64>::new(symbolic, 0.0);
    factors.factor(symbolic, &grid.layout.pattern, &values).map_err(|bus| Failure::Singular { bus })?;
    factors.solve(symbolic, &mut rhs);
    if let Some(bus) = rhs.iter().position(|angle| !angle.is_finite()) {
        return Err(Failure::Singular { bus });
    }
    let flow = |branch: &super::grid::Branch| {
        let carries = branch.in_service && supplied[branch.from];
        if carries { branch.susceptance * (rhs[branch.from] - rhs[branch.to] - branch.shift) } else { 0.0 }
    };
    let flows: Vec<f64> = grid.branches.iter().map(flow).collect();
    let mut injections: Vec<f64> =
        (0..size).map(|bus| if supplied[bus] { grid.buses[bus].shunt.re } else { 0.0 }).collect();
    for (branch, flow) in grid.branches.iter().zip(&flows) {
        injections[branch.from] += flow;
        injections[branch.to] -= flow;
    }
    Ok(DcSolution { va: rhs, flows, injections })
}
