//! The way to equilibrium: every origin's bush in turn, until no trip could save more than the gap allows.
//!
//! Each iteration first renews all bushes at the same link costs, which also gives the exact relative gap; origins are
//! independent there and run in parallel. Then it shifts flow, one origin after the other, each seeing the costs that
//! those before it left (Gauss–Seidel). Sums run in the order of the origins, so the number of threads changes nothing.

use rayon::prelude::*;
use twinlake_contracts::{Error, Progress, Result};

use super::bush::{Bush, ImproveScratch, ShiftScratch};
use super::cost::LinkCost;
use super::input::OriginDemand;
use super::link_states::LinkStates;
use super::network::Network;
use super::stride::Footprint;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) relative_gap: f64,
    pub(crate) iterations: u64,
}

/// Link flows and what they are worth.
pub(crate) struct Assignment {
    /// By link of the network.
    pub(crate) flow: Vec<f64>,
    pub(crate) objective: f64,
    /// `(Σ flow · cost − Σ trips · shortest cost) / Σ flow · cost`; 0 where nothing costs anything.
    pub(crate) relative_gap: f64,
    pub(crate) iterations: u64,
    pub(crate) converged: bool,
    /// The largest difference, over all nodes, between what enters or begins and what leaves or ends, as a share of all
    /// assigned trips.
    pub(crate) conservation_residual: f64,
    /// Flow by class and link.
    pub(crate) class_flow: Vec<Vec<f64>>,
    /// Cost by class and link.
    pub(crate) class_cost: Vec<Vec<f64>>,
    /// By class.
    pub(crate) assigned: Vec<f64>,
    pub(crate) unassigned: Unassigned,
}

/// Origins that a thread takes at once: enough to share the memory that their search needs.
const ORIGINS_A_TASK: usize = 8;
/// Sweeps over all origins before the bushes are renewed, at most.
const SWEEPS: u32 = 40;
/// After so many sweeps that did not suffice, one is stretched.
const SWEEPS_A_STRIDE: u32 = 8;
/// Sweeps end when the excess cost within the bushes has fallen to this part of what it was.
const SWEEP_REDUCTION: f64 = 0.02;
/// They end, too, when that excess is this part of what the wanted gap allows: the rest of it is for routes to come.
const SHARE_LEFT: f64 = 0.25;
/// First routes are found for so many parts of the origins, one after the other, each at the costs that those before it left.
const PARTS: usize = 64;
/// Routes are taken for equal when they differ by less than this part of the wanted relative gap.
const ROUTE_TOLERANCE: f64 = 0.01;

/// Assigns the demand to the network. `functions` by link of the network, `surcharge` by class and link.
pub(crate) fn assign(
    network: &Network,
    demand: Vec<OriginDemand>,
    functions: Vec<LinkCost>,
    surcharge: Vec<Vec<f64>>,
    limits: Limits,
    progress: Progress<'_>,
) -> Result<Assignment> {
    let mut links = LinkStates::new(functions, surcharge);
    let (demand, mut bushes, unassigned) = first_routes(network, demand, &mut links, progress)?;
    let mut assigned = vec![0.0; links.cost.len()];
    for origin in &demand {
        origin.destinations.iter().for_each(|(_, flow)| assigned[origin.class] += flow);
    }

    let mut shift = ShiftScratch::default();
    let mut iterations = 0;
    let mut footprint = Footprint::default();
    let mut first_gap = None;
    let (relative_gap, converged) = loop {
        let excess = improve_all(network, &demand, &mut bushes, &links)?;
        links.load(&bushes);
        let total = links.total_cost();
        let relative_gap = if total > 0.0 { excess / total } else { 0.0 };
        if relative_gap <= limits.relative_gap {
            break (relative_gap, true);
        }
        if iterations == limits.iterations {
            break (relative_gap, false);
        }
        let first = *first_gap.get_or_insert(relative_gap);
        let tolerance = ROUTE_TOLERANCE * limits.relative_gap;
        let enough = (SWEEP_REDUCTION * excess).max(SHARE_LEFT * limits.relative_gap * total);
        for sweep in 1..=SWEEPS {
            report(progress, iterations, relative_gap, first, limits)?;
            let strides = sweep % SWEEPS_A_STRIDE == 0;
            if strides {
                footprint.take(&bushes);
            }
            let mut within = 0.0;
            for bush in &mut bushes {
                within += bush.shift_flow(&mut links, &mut shift, tolerance);
            }
            if within <= enough {
                break;
            }
            if strides {
                footprint.stride_on(&mut bushes, &mut links);
            }
        }
        iterations += 1;
    };
    Ok(Assignment {
        objective: links.objective(),
        relative_gap,
        iterations,
        converged,
        conservation_residual: conservation_residual(network, &demand, &links.flow, assigned.iter().sum()),
        assigned,
        unassigned,
        flow: links.flow,
        class_flow: links.class_flow,
        class_cost: links.cost,
    })
}

/// Pairs that no path joins: class, origin, destination, flow.
pub(crate) type Unassigned = Vec<(usize, u32, u32, f64)>;

/// All trips on shortest-path trees: origins with a bush each, and the pairs that no path joins.
fn first_routes(
    network: &Network,
    mut demand: Vec<OriginDemand>,
    links: &mut LinkStates,
    progress: Progress<'_>,
) -> Result<(Vec<OriginDemand>, Vec<Bush>, Unassigned)> {
    let (mut bushes, mut unassigned) = (Vec::new(), Vec::new());
    let count = demand.len();
    let a_part = count.div_ceil(PARTS).max(1);
    for place in (0..count).step_by(a_part) {
        go_on(progress, 0.0, &format!("first routes, origin {} of {count}", place + 1))?;
        let part = &mut demand[place..count.min(place + a_part)];
        let found: Vec<(Option<Bush>, Unassigned)> = part
            .par_iter_mut()
            .map_init(
                || ImproveScratch::new(network),
                |scratch, origin| {
                    scratch.paths.run(network, origin.origin, &links.cost[origin.class]);
                    let unreachable = set_aside_unreachable(origin, scratch);
                    let anyone = !origin.destinations.is_empty();
                    let bush = anyone.then(|| Bush::load_tree(network, origin, scratch)).transpose()?;
                    Ok((bush, unreachable))
                },
            )
            .collect::<Result<_>>()?;
        for (bush, unreachable) in found {
            unassigned.extend(unreachable);
            if let Some(bush) = &bush {
                bush.load_onto(links);
            }
            bushes.extend(bush);
        }
    }
    demand.retain(|origin| !origin.destinations.is_empty());
    Ok((demand, bushes, unassigned))
}

/// Takes the destinations out that no path from the origin reaches.
fn set_aside_unreachable(origin: &mut OriginDemand, scratch: &ImproveScratch) -> Unassigned {
    let mut unassigned = Vec::new();
    origin.destinations.retain(|&(destination, flow)| {
        let reachable = scratch.paths.cost[destination as usize].is_finite();
        if !reachable {
            unassigned.push((origin.class, origin.origin, destination, flow));
        }
        reachable
    });
    unassigned
}

/// Renews all bushes at the present costs; the excess cost of all trips over their shortest paths.
fn improve_all(
    network: &Network,
    demand: &[OriginDemand],
    bushes: &mut [Bush],
    links: &LinkStates,
) -> Result<f64> {
    let excess: Vec<f64> = bushes
        .par_iter_mut()
        .zip(demand)
        .with_min_len(ORIGINS_A_TASK)
        .map_init(
            || ImproveScratch::new(network),
            |scratch, (bush, origin)| {
                let cost = &links.cost[origin.class];
                scratch.paths.run(network, origin.origin, cost);
                bush.improve(network, origin, cost, scratch)
            },
        )
        .collect::<Result<_>>()?;
    Ok(excess.iter().sum())
}

/// Tells how far the gap has come, on a logarithmic scale.
fn report(progress: Progress<'_>, iterations: u64, gap: f64, first_gap: f64, limits: Limits) -> Result<()> {
    let way = (first_gap / limits.relative_gap).ln();
    let fraction = if way > 0.0 { ((first_gap / gap).ln() / way).clamp(0.0, 1.0) } else { 0.0 };
    go_on(progress, fraction, &format!("iteration {iterations}, relative gap {gap:.1e}"))
}

/// Tells `progress`; an error if it wants the run to stop.
fn go_on(progress: Progress<'_>, fraction: f64, word: &str) -> Result<()> {
    if progress(fraction, word) {
        Ok(())
    } else {
        Err(Error::permanent("traffic_assignment", format!("stopped on request at {word}")))
    }
}

fn conservation_residual(network: &Network, demand: &[OriginDemand], flow: &[f64], assigned: f64) -> f64 {
    let mut balance = vec![0.0; network.nodes()];
    for origin in demand {
        for &(destination, trips) in &origin.destinations {
            balance[origin.origin as usize] += trips;
            balance[destination as usize] -= trips;
        }
    }
    for (link, flow) in flow.iter().enumerate() {
        balance[network.tail(link) as usize] -= flow;
        balance[network.head(link) as usize] += flow;
    }
    let largest = balance.iter().fold(0.0_f64, |largest, at| largest.max(at.abs()));
    if assigned > 0.0 { largest / assigned } else { largest }
}
