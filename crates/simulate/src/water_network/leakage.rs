//! Leaks along pipes: fixed and variable area discharge (FAVAD; May 1994, van Zyl and Cassa 2014), as EPANET 2.3 has it.
//!
//! `q = 0.6 √(2g) (A + m h) √h` for a pipe whose leaks have the area `A` at pressure 0 and grow by `m` with each metre of it.
//! Half of a pipe leaks at the pressure of each end, all of it at the junction where the other end is a tank or reservoir.
//! For the heads the leaks of a junction are two openings turned around, `h = a q²` and `h = b q^(2/3)`.

use super::model::{Link, M_PER_FT, Model};
use super::state::State;

/// `0.6 √(2g)` in feet and seconds, as EPANET rounds it.
const ORIFICE: f64 = 4.814_976_6;
/// A flow to start from, ft³/s.
pub(super) const START_FLOW: f64 = 0.001;
/// The largest difference between the leakage found and that of the pressure found, ft³/s.
const TOLERANCE: f64 = 1e-4;

/// The leaks of a junction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leak {
    pub(super) node: usize,
    /// `h = fixed q²`, `h = variable q^(2/3)`; 0 for none.
    pub(super) fixed: f64,
    pub(super) variable: f64,
}

/// Coefficients of a pipe, ft³/s at 1 ft: of its fixed area, and of the area that grows.
pub(super) fn coefficients(area_m2: f64, expansion_m2_per_m: f64) -> [f64; 2] {
    [ORIFICE * area_m2 / (M_PER_FT * M_PER_FT), ORIFICE * expansion_m2_per_m / M_PER_FT]
}

/// The share of a pipe that leaks at each of its ends.
fn shares(link: &Link, junctions: usize) -> [f64; 2] {
    match (link.from < junctions, link.to < junctions) {
        (true, true) => [0.5, 0.5],
        (true, false) => [1.0, 0.0],
        (false, true) => [0.0, 1.0],
        (false, false) => [0.0, 0.0],
    }
}

/// The leaks of all junctions that have any, in their order.
pub(super) fn of_links(links: &[Link], junctions: usize) -> Vec<Leak> {
    let mut sums = vec![[0.0; 2]; junctions];
    for link in links.iter().filter(|link| link.leak != [0.0; 2]) {
        for (node, share) in [link.from, link.to].into_iter().zip(shares(link, junctions)) {
            if share > 0.0 {
                sums[node][0] += share * link.leak[0];
                sums[node][1] += share * link.leak[1];
            }
        }
    }
    let leaks = sums.iter().enumerate().filter(|(_, sum)| **sum != [0.0; 2]);
    leaks
        .map(|(node, [fixed, variable])| Leak {
            node,
            fixed: if *fixed > 0.0 { 1.0 / (fixed * fixed) } else { 0.0 },
            variable: if *variable > 0.0 { 1.0 / variable.powf(2.0 / 3.0) } else { 0.0 },
        })
        .collect()
}

/// What leaks out of a link at these heads, ft³/s.
pub(super) fn link_flow(model: &Model, head: &[f64], link: &Link) -> f64 {
    let at = |node: usize| (head[node] - model.nodes[node].elevation).max(0.0);
    let ends = [link.from, link.to].into_iter().zip(shares(link, model.junctions));
    ends.filter(|(_, share)| *share > 0.0)
        .map(|(node, share)| share * (link.leak[0] + link.leak[1] * at(node)) * at(node).sqrt())
        .sum()
}

impl Leak {
    /// Head loss and slope of both kinds at their present flows; a slope of 0 where there is no such leak.
    pub(super) fn losses(&self, flows: [f64; 2]) -> [(f64, f64); 2] {
        [loss(flows[0], self.fixed, 2.0), loss(flows[1], self.variable, 2.0 / 3.0)]
    }

    /// Whether the flows are those of the pressure.
    fn agrees(&self, pressure: f64, flows: [f64; 2]) -> bool {
        let mut expected = 0.0;
        if pressure > 0.0 && self.fixed > 0.0 {
            expected += (pressure / self.fixed).sqrt();
        }
        if pressure > 0.0 && self.variable > 0.0 {
            expected += (pressure / self.variable).powf(1.5);
        }
        (expected - flows[0] - flows[1]).abs() <= TOLERANCE
    }
}

/// Whether all leaks are those of the pressures.
pub(super) fn agree(model: &Model, state: &State) -> bool {
    let pressure = |node: usize| state.head[node] - model.nodes[node].elevation;
    model.leaks.iter().zip(&state.leaked).all(|(leak, flows)| leak.agrees(pressure(leak.node), *flows))
}

/// `h = c qⁿ` with a barrier below 0: nothing leaks in.
fn loss(flow: f64, coefficient: f64, power: f64) -> (f64, f64) {
    if coefficient == 0.0 {
        return (0.0, 0.0);
    }
    let slope = power * coefficient * flow.abs().powf(power - 1.0);
    let loss = slope * flow / power;
    let a = 1e9 * flow;
    let b = (a * a + 1e-6).sqrt();
    (loss + (a - b) / 2.0, slope + 0.5e9 * (1.0 - a / b))
}
