//! Distances from one node to all: upwards from the node, then down over all nodes in order (PHAST: Delling, Goldberg,
//! Nowatzyk, Werneck 2013, Journal of Parallel and Distributed Computing 73).

use super::hierarchy::{INFINITE, Weighted};

/// So many origins are swept at once: their distances lie side by side, and one addition does several.
pub(crate) const LANES: usize = 16;

/// The memory of a sweep.
pub(crate) struct Sweep<'a> {
    weighted: &'a Weighted,
    /// By rank.
    distance: Vec<[u32; LANES]>,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(weighted: &'a Weighted) -> Self {
        Self { weighted, distance: vec![[INFINITE; LANES]; weighted.cch().node_count()] }
    }

    /// Computes the distances from up to [`LANES`] origins to all nodes, or, `towards`, from all nodes to them.
    pub(crate) fn run(&mut self, origins: &[u32], towards: bool) {
        let cch = self.weighted.cch();
        let (up, down) = if towards {
            (&self.weighted.down, &self.weighted.up)
        } else {
            (&self.weighted.up, &self.weighted.down)
        };
        self.distance.fill([INFINITE; LANES]);
        for (lane, origin) in origins.iter().take(LANES).enumerate() {
            let mut node = cch.rank[*origin as usize];
            self.distance[node as usize][lane] = 0;
            while node != u32::MAX {
                let here = self.distance[node as usize][lane];
                if here < INFINITE {
                    for &(head, weight) in up.arcs(node) {
                        let slot = &mut self.distance[head as usize][lane];
                        *slot = (*slot).min(here.wrapping_add(weight));
                    }
                }
                node = cch.elimination_tree_parent[node as usize];
            }
        }
        for node in (0..self.distance.len()).rev() {
            let (below, above) = self.distance.split_at_mut(node + 1);
            let here = &mut below[node];
            for &(head, weight) in down.arcs(node as u32) {
                // Every head is above its tail.
                let there = &above[head as usize - node - 1];
                for (here, there) in here.iter_mut().zip(there) {
                    // Both are below 2^31: the sum does not wrap, and sixteen are added at once.
                    *here = (*here).min(there.wrapping_add(weight));
                }
            }
        }
    }

    /// The distance of a node from (or to) the origin of a lane; [`INFINITE`] when there is no way.
    #[inline]
    pub(crate) fn distance(&self, node: u32, lane: usize) -> u32 {
        self.distance[self.weighted.cch().rank[node as usize] as usize][lane]
    }
}
