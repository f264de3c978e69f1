//! Elastic demand: how many trips are made depends on what they cost.
//!
//! The excess-demand formulation (Gartner 1980; Sheffi 1985, chapter 6): of the most trips `D̄ = D(u_min)` that a pair can have, those
//! that are not made are on a link of their own from origin to destination, whose cost at flow `e` is what the marginal trip is
//! worth, `D⁻¹(D̄ − e)`. The equilibrium of fixed demand `D̄` on that network is the equilibrium of elastic demand: where
//! trips are made, their cost `u` is that of the excess link, hence `d = D̄ − e = D(u)`. It minimises
//! `Σ ∫₀ᵛ c(s) ds + Σ ∫₀ᵉ D⁻¹(D̄ − s) ds`. `u_min` is the cost at free flow, below which no cost can be.
//!
//! With reference trips `q`, reference cost `u₀` and elasticity `ε` (share of trips lost for a share of cost gained, at `u₀`):
//!
//! | form | `D(u)` | cost of the excess link |
//! |---|---|---|
//! | linear | `q max(0, 1 − ε (u/u₀ − 1))` | `u_min + e u₀ / (ε q)` |
//! | exponential | `q exp(−ε (u/u₀ − 1))` | `u_min − (u₀/ε) ln(1 − e/D̄)` |
//! | power | `q (u/u₀)^(−ε)` | `u_min (1 − e/D̄)^(−1/ε)` |

use std::collections::BTreeSet;

use twinlake_contracts::{Error, Result};

use super::cost::{LinkCost, Principle};
use super::input::{Demand, OriginDemand};
use super::network::Network;
use super::shortest_path::ShortestPaths;

/// How trips depend on their cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Linear,
    Exponential,
    Power,
}

impl Form {
    pub(crate) const ALL: [Self; 3] = [Self::Linear, Self::Exponential, Self::Power];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Exponential => "exponential",
            Self::Power => "power",
        }
    }
}

/// The demand function of all pairs, but for their reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elasticity {
    pub(crate) form: Form,
    pub(crate) elasticity: f64,
}

impl Elasticity {
    /// `D(cost)`.
    pub(crate) fn trips(self, at_reference: f64, reference: f64, cost: f64) -> f64 {
        let ratio = cost / reference;
        at_reference
            * match self.form {
                Form::Linear => (1.0 - self.elasticity * (ratio - 1.0)).max(0.0),
                Form::Exponential => (-self.elasticity * (ratio - 1.0)).exp(),
                Form::Power => ratio.powf(-self.elasticity),
            }
    }

    /// The cost of the excess link of a pair with at most `most` trips, those at the cost `least`.
    fn excess_cost(self, at_reference: f64, reference: f64, least: f64, most: f64) -> LinkCost {
        let fall = reference / self.elasticity;
        match self.form {
            Form::Linear => {
                LinkCost::new(least, fall * most / at_reference, most, 1.0, Principle::UserEquilibrium)
            }
            Form::Exponential => LinkCost::logarithm(least, fall, most),
            Form::Power => LinkCost::hyperbola(least, self.elasticity.recip(), most),
        }
    }
}

/// What became of a pair whose trips depend on their cost; flows in passenger-car equivalents.
pub(crate) struct ElasticPair {
    pub(crate) class: usize,
    pub(crate) origin: u32,
    pub(crate) destination: u32,
    /// The most trips there can be.
    pub(crate) most: f64,
    /// The link of the trips that are not made; `None` where trips cost nothing and all are made.
    pub(crate) excess_link: Option<u32>,
}

/// Fewer of a pair's trips than this part are none.
const NEGLIGIBLE: f64 = 1e-12;

/// A problem of fixed demand that has the same solution.
pub(crate) struct Stretched {
    pub(crate) network: Network,
    pub(crate) functions: Vec<LinkCost>,
    /// By class and link.
    pub(crate) surcharge: Vec<Vec<f64>>,
    pub(crate) demand: Vec<OriginDemand>,
    pub(crate) pairs: Vec<ElasticPair>,
    /// Pairs without a path: class, origin, destination, trips at the reference.
    pub(crate) unassigned: Vec<(usize, u32, u32, f64)>,
}

impl Stretched {
    /// All trips that there can be.
    pub(crate) fn most(&self) -> f64 {
        self.pairs.iter().fold(0.0, |sum, pair| sum + pair.most)
    }
}

/// Stretches the network by a way out for the trips that are not made.
pub(crate) fn stretch(
    network: &Network,
    demand: &Demand,
    elasticity: Elasticity,
    functions: &[LinkCost],
    surcharge: &[Vec<f64>],
) -> Result<Stretched> {
    let mut paths = ShortestPaths::new(network);
    let free_flow: Vec<Vec<f64>> = surcharge
        .iter()
        .map(|of_class| functions.iter().zip(of_class).map(|(time, over)| time.at(0.0).cost + over).collect())
        .collect();
    let ends: BTreeSet<u32> =
        demand.origins.iter().flat_map(|origin| origin.destinations.iter().map(|(end, _)| *end)).collect();
    let ends: Vec<u32> = ends.into_iter().collect();
    let place_of = |end: u32| ends.binary_search(&end).unwrap_or_default();
    let before = network.nodes() as u32;
    let behind = before + demand.origins.len() as u32;

    let (mut pairs, mut unassigned, mut origins) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ways, mut excess_costs) = (Vec::new(), Vec::new());
    for (at, origin) in demand.origins.iter().enumerate() {
        paths.run(network, origin.origin, &free_flow[origin.class]);
        let mut destinations = Vec::with_capacity(origin.destinations.len());
        for &(end, trips) in &origin.destinations {
            let least = paths.cost[end as usize];
            if !least.is_finite() {
                unassigned.push((origin.class, origin.origin, end, trips));
                continue;
            }
            let key = (origin.class, origin.origin, end);
            let reference = demand.references.get(&key).copied().unwrap_or(least);
            let (mut most, mut excess_link) = (trips, None);
            // A pair that costs nothing has nothing to compare a cost with.
            if reference > 0.0 {
                most = elasticity.trips(trips, reference, least);
                if !most.is_finite() || most > 1e15 {
                    return Err(Error::config(format!(
                        "from {} to {} there would be {most} trips at the cost of free flow, {least}",
                        network.node_id(origin.origin),
                        network.node_id(end)
                    ))
                    .with_help("its reference_cost_s is too far above that cost for this elasticity"));
                }
                if most < NEGLIGIBLE * trips {
                    most = 0.0;
                }
                excess_link = (most > 0.0).then(|| {
                    ways.push((at, place_of(end)));
                    excess_costs.push(elasticity.excess_cost(trips, reference, least, most));
                    ways.len() as u32 - 1
                });
            }
            if most > 0.0 {
                destinations.push((behind + place_of(end) as u32, most));
            }
            pairs.push(ElasticPair {
                class: origin.class,
                origin: origin.origin,
                destination: end,
                most,
                excess_link,
            });
        }
        origins.push(OriginDemand { origin: before + at as u32, class: origin.class, destinations });
    }

    let homes: Vec<u32> = demand.origins.iter().map(|origin| origin.origin).collect();
    let (stretched, place) = network.with_ways_out(&homes, &ends, &ways);
    let mut all = vec![LinkCost::free(); stretched.links()];
    let mut over = vec![vec![0.0; stretched.links()]; surcharge.len()];
    for (link, function) in functions.iter().chain(&excess_costs).enumerate() {
        all[place[link] as usize] = function.clone();
    }
    for (over, given) in over.iter_mut().zip(surcharge) {
        given.iter().enumerate().for_each(|(link, value)| over[place[link] as usize] = *value);
    }
    for pair in &mut pairs {
        pair.excess_link = pair.excess_link.map(|way| place[functions.len() + way as usize]);
    }
    Ok(Stretched { network: stretched, functions: all, surcharge: over, demand: origins, pairs, unassigned })
}
