//! Shortest paths from one origin to all nodes (Dijkstra 1959).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::network::Network;

/// No link: of the origin, and of what cannot be reached.
pub(crate) const NO_LINK: u32 = u32::MAX;

/// The shortest-path tree of one origin, and the memory to compute the next one.
pub(crate) struct ShortestPaths {
    /// Cost from the origin by node; infinite where there is no path.
    pub(crate) cost: Vec<f64>,
    /// Last link of the path by node.
    pub(crate) last_link: Vec<u32>,
    /// The reachable nodes, from near to far, the origin first; a node's predecessor comes before it.
    pub(crate) order: Vec<u32>,
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    done: Vec<bool>,
}

impl ShortestPaths {
    pub(crate) fn new(network: &Network) -> Self {
        Self {
            cost: vec![f64::INFINITY; network.nodes()],
            last_link: vec![NO_LINK; network.nodes()],
            order: Vec::with_capacity(network.nodes()),
            heap: BinaryHeap::new(),
            done: vec![false; network.nodes()],
        }
    }

    /// Computes the tree at the given link costs, none negative or NaN. Equal costs are settled by node number, so
    /// the tree is the same on every run.
    pub(crate) fn run(&mut self, network: &Network, origin: u32, link_cost: &[f64]) {
        self.cost.fill(f64::INFINITY);
        self.last_link.fill(NO_LINK);
        self.done.fill(false);
        self.order.clear();
        self.heap.clear();
        self.cost[origin as usize] = 0.0;
        self.heap.push(Reverse((0, origin)));
        while let Some(Reverse((_, node))) = self.heap.pop() {
            if std::mem::replace(&mut self.done[node as usize], true) {
                continue;
            }
            self.order.push(node);
            let here = self.cost[node as usize];
            for link in network.way_out(node, origin) {
                let head = network.head(link) as usize;
                let there = here + link_cost[link];
                if there < self.cost[head] {
                    self.cost[head] = there;
                    self.last_link[head] = link as u32;
                    // The bit patterns of non-negative numbers are in the order of the numbers.
                    self.heap.push(Reverse((there.to_bits(), head as u32)));
                }
            }
        }
    }
}
