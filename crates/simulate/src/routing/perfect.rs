//! Perfect customization: which arcs of a hierarchy no shortest way needs (Dibbelt, Strasser, Wagner 2016, section 4.4).
//!
//! Customized weights are upper bounds of distances. Seen from the highest node down, the triangles above an arc lower its
//! weight to the distance itself; an arc whose weight fell is on no shortest way, and searches go without it.

use cch::{Cch, Metric};

use super::hierarchy::INFINITE;

/// Arcs from each node upwards: head and weight.
pub(super) struct Upward {
    first: Vec<u32>,
    arcs: Vec<(u32, u32)>,
}

impl Upward {
    #[inline]
    pub(super) fn arcs(&self, node: u32) -> &[(u32, u32)] {
        &self.arcs[self.first[node as usize] as usize..self.first[node as usize + 1] as usize]
    }

    fn of(cch: &Cch, weights: &[u32], exact: &[u32]) -> Self {
        let mut first = Vec::with_capacity(cch.up_first_out.len());
        let mut arcs = Vec::new();
        first.push(0);
        for node in 0..cch.rank.len() {
            for arc in cch.up_first_out[node] as usize..cch.up_first_out[node + 1] as usize {
                if weights[arc] < INFINITE && weights[arc] == exact[arc] {
                    arcs.push((cch.up_head[arc], weights[arc]));
                }
            }
            first.push(arcs.len() as u32);
        }
        Self { first, arcs }
    }
}

/// The arcs that searches need: those that lead up, and those that lead down (kept at their lower end).
pub(super) fn needed(cch: &Cch, metric: &Metric) -> (Upward, Upward) {
    let (mut up, mut down) = (metric.forward.clone(), metric.backward.clone());
    let range = |node: usize| cch.up_first_out[node] as usize..cch.up_first_out[node + 1] as usize;
    // The arc from the node at hand to each of its neighbours above.
    let mut arc_to = vec![u32::MAX; cch.rank.len()];
    for low in (0..cch.rank.len()).rev() {
        for arc in range(low) {
            arc_to[cch.up_head[arc] as usize] = arc as u32;
        }
        for to_middle in range(low) {
            let middle = cch.up_head[to_middle] as usize;
            for across in range(middle) {
                let to_high = arc_to[cch.up_head[across] as usize];
                if to_high == u32::MAX {
                    continue;
                }
                let to_high = to_high as usize;
                // Every weight is below 2^31, so that no sum overflows.
                up[to_high] = up[to_high].min(up[to_middle] + up[across]);
                up[to_middle] = up[to_middle].min(up[to_high] + down[across]);
                down[to_high] = down[to_high].min(down[across] + down[to_middle]);
                down[to_middle] = down[to_middle].min(up[across] + down[to_high]);
            }
        }
        for arc in range(low) {
            arc_to[cch.up_head[arc] as usize] = u32::MAX;
        }
    }
    (Upward::of(cch, &metric.forward, &up), Upward::of(cch, &metric.backward, &down))
}
