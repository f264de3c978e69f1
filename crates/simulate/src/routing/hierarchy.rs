//! Customizable contraction hierarchies (Dibbelt, Strasser, Wagner 2016, ACM Journal of Experimental Algorithmics 21).
//!
//! Three steps: an order of the nodes and the shortcuts that it needs (once a graph), the shortcuts' weights for a set of
//! link weights (*customization*, quick: a scenario or an hour each), and queries. Orders and shortcuts do not depend on
//! weights, so the last few graphs are kept; a closed link has an infinite weight and is still of the graph.

use std::sync::Arc;

use cch::graph::Graph;
use cch::{Cch, Metric};

use super::order::minimum_degree;
use super::perfect::{Upward, needed};
use super::tree::Tree;
use crate::recent::Recent;

/// No way. Larger than every weight of a way that can be told.
pub(crate) const INFINITE: u32 = cch::INF_WEIGHT;

/// A directed graph: the arcs that leave node `i` are `first_out[i]..first_out[i + 1]`. Places, if known, as longitude and
/// latitude by node; they only help to find a good order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Topology {
    pub(crate) first_out: Vec<u32>,
    pub(crate) head: Vec<u32>,
    pub(crate) places: Option<(Vec<f32>, Vec<f32>)>,
}

/// The order and the shortcuts of a graph.
pub(crate) struct Hierarchy {
    topology: Topology,
    cch: Cch,
    tree: Tree,
}

static RECENT: Recent<Hierarchy> = Recent::new();

impl Hierarchy {
    /// The hierarchy of the graph: one that was built before, if it is among the last few. What it answers does not
    /// depend on that.
    pub(crate) fn of(topology: Topology) -> Arc<Self> {
        RECENT.find(|known| known.topology == topology).unwrap_or_else(|| RECENT.keep(Self::build(topology)))
    }

    /// Always anew.
    pub(crate) fn build(topology: Topology) -> Self {
        let nodes = topology.first_out.len() - 1;
        let tail: Vec<u32> = (0..nodes)
            .flat_map(|node| {
                let arcs = topology.first_out[node + 1] - topology.first_out[node];
                std::iter::repeat_n(node as u32, arcs as usize)
            })
            .collect();
        let order = match &topology.places {
            Some((longitude, latitude)) => {
                cch::inertial_order(nodes as u32, &tail, &topology.head, latitude, longitude)
            }
            None => minimum_degree(nodes, &tail, &topology.head),
        };
        let graph = Graph {
            first_out: topology.first_out.clone(),
            head: topology.head.clone(),
            weight: vec![0; topology.head.len()],
        };
        let cch = Cch::build(&graph, &order);
        let tree = Tree::new(cch.elimination_tree_parent.clone());
        Self { topology, cch, tree }
    }

    /// The hierarchy with these weights by arc; [`INFINITE`] closes an arc.
    pub(crate) fn customize(self: &Arc<Self>, weights: &[u32]) -> Weighted {
        let metric = self.cch.customize(weights);
        let (up, down) = needed(&self.cch, &metric);
        Weighted { metric, up, down, hierarchy: Arc::clone(self) }
    }

    /// Shortcuts and arcs together, each counted once for both directions.
    pub(crate) fn size(&self) -> usize {
        self.cch.up_head.len()
    }
}

/// A hierarchy with weights: answers queries.
pub(crate) struct Weighted {
    hierarchy: Arc<Hierarchy>,
    /// All shortcuts, from which ways are unpacked.
    metric: Metric,
    /// The arcs upwards that searches need, and those downwards, kept at their lower end.
    pub(super) up: Upward,
    pub(super) down: Upward,
}

impl Weighted {
    pub(super) fn cch(&self) -> &Cch {
        &self.hierarchy.cch
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.hierarchy.tree
    }

    /// The nodes of the shortest way, both ends included; `None` when there is no way.
    pub(crate) fn paths(&self, pairs: &[(u32, u32)]) -> Vec<Option<Vec<u32>>> {
        let (view, metric) = (self.cch().view(), self.metric.view());
        let mut query = cch::PathQuery::new(&view);
        pairs.iter().map(|(from, to)| query.path(&metric, *from, *to)).collect()
    }
}
