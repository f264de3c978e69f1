//! A directed graph of travel times: its largest strongly connected component, and shortest times from a node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A directed graph over the nodes 0..n, which stand for `ids` in ascending order.
#[derive(Debug)]
pub(crate) struct RoadGraph {
    /// The identifier of each node, ascending.
    pub(crate) ids: Vec<i64>,
    /// For each node, the nodes that links lead to, with their travel time.
    forward: Vec<Vec<(usize, f64)>>,
}

impl RoadGraph {
    /// Builds the graph from links `(from, to, travel time)`; the caller has checked that times are finite and not
    /// negative.
    pub(crate) fn new(links: &[(i64, i64, f64)]) -> Self {
        let mut ids: Vec<i64> = links.iter().flat_map(|link| [link.0, link.1]).collect();
        ids.sort_unstable();
        ids.dedup();
        let index: BTreeMap<i64, usize> = ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let mut forward = vec![Vec::new(); ids.len()];
        for (from, to, time) in links {
            forward[index[from]].push((index[to], *time));
        }
        Self { ids, forward }
    }

    /// The nodes of the largest strongly connected component, ascending; of equally large ones, the one with the
    /// smallest node. Kosaraju's algorithm (Sharir 1981): components are the trees of a depth-first search over
    /// reversed links, roots taken in the order in which a forward search finishes last.
    pub(crate) fn largest_strong_component(&self) -> Vec<usize> {
        let mut backward = vec![Vec::new(); self.ids.len()];
        for (from, links) in self.forward.iter().enumerate() {
            for (to, _) in links {
                backward[*to].push(from);
            }
        }
        let mut seen = vec![false; self.ids.len()];
        let mut component_seen = seen.clone();
        let mut finished = Vec::with_capacity(self.ids.len());
        for root in 0..self.ids.len() {
            search(
                root,
                &mut seen,
                |node, next| self.forward[node].get(next).map(|(to, _)| *to),
                &mut finished,
            );
        }
        let mut best: Vec<usize> = Vec::new();
        for root in finished.into_iter().rev() {
            let mut component = Vec::new();
            search(root, &mut component_seen, |node, next| backward[node].get(next).copied(), &mut component);
            component.sort_unstable();
            let better = component.len() > best.len()
                || (component.len() == best.len() && component.first() < best.first());
            if better {
                best = component;
            }
        }
        best
    }

    /// The shortest travel time from `origin` to every node; infinite where there is no way (Dijkstra 1959).
    pub(crate) fn shortest_times(&self, origin: usize) -> Vec<f64> {
        let mut times = vec![f64::INFINITY; self.ids.len()];
        let mut queue = BinaryHeap::new();
        times[origin] = 0.0;
        queue.push(Reverse((0_u64, origin)));
        while let Some(Reverse((bits, node))) = queue.pop() {
            // Times are not negative, so their bits are ordered as they are.
            let time = f64::from_bits(bits);
            if time > times[node] {
                continue;
            }
            for (to, step) in &self.forward[node] {
                let arrival = time + step;
                if arrival < times[*to] {
                    times[*to] = arrival;
                    queue.push(Reverse((arrival.to_bits(), *to)));
                }
            }
        }
        times
    }
}

/// Depth-first search from `root` over unseen nodes, without recursion; nodes are pushed as they finish.
fn search(
    root: usize,
    seen: &mut [bool],
    neighbour: impl Fn(usize, usize) -> Option<usize>,
    finished: &mut Vec<usize>,
) {
    if std::mem::replace(&mut seen[root], true) {
        return;
    }
    let mut path = vec![(root, 0)];
    while let Some((node, next)) = path.last_mut() {
        if let Some(to) = neighbour(*node, *next) {
            *next += 1;
            if !std::mem::replace(&mut seen[to], true) {
                path.push((to, 0));
            }
        } else {
            finished.push(*node);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_end_that_cannot_be_left_is_not_in_the_component() {
        let graph =
            RoadGraph::new(&[(1, 2, 1.0), (2, 3, 1.0), (3, 1, 1.0), (3, 9, 1.0), (7, 8, 1.0), (8, 7, 1.0)]);
        let component: Vec<i64> =
            graph.largest_strong_component().into_iter().map(|node| graph.ids[node]).collect();
        assert_eq!(component, [1, 2, 3]);
    }

    #[test]
    fn equally_large_components_go_to_the_smallest_node() {
        let graph = RoadGraph::new(&[(5, 6, 1.0), (6, 5, 1.0), (2, 3, 1.0), (3, 2, 1.0)]);
        assert_eq!(graph.largest_strong_component(), [0, 1]);
    }

    #[test]
    fn the_shortest_way_is_not_the_one_of_fewest_links() {
        let graph = RoadGraph::new(&[(1, 4, 10.0), (1, 2, 1.0), (2, 3, 1.0), (3, 4, 1.5), (4, 5, 0.0)]);
        assert_eq!(graph.shortest_times(0), [0.0, 1.0, 2.0, 3.5, 3.5]);
        assert_eq!(graph.shortest_times(4)[0], f64::INFINITY);
    }
}
