//! In which order to contract the nodes of a graph whose places are not known.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Minimum degree (Tinney, Walker 1967): always the node with the fewest neighbours left, which then become neighbours of
/// each other. Good on road networks; nested dissection by place is better, where there are places.
pub(super) fn minimum_degree(nodes: usize, tail: &[u32], head: &[u32]) -> Vec<u32> {
    let mut neighbours: Vec<Vec<u32>> = vec![Vec::new(); nodes];
    for (&tail, &head) in tail.iter().zip(head) {
        if tail != head {
            neighbours[tail as usize].push(head);
            neighbours[head as usize].push(tail);
        }
    }
    for list in &mut neighbours {
        list.sort_unstable();
        list.dedup();
    }
    let mut queue: BinaryHeap<Reverse<(usize, u32)>> =
        neighbours.iter().enumerate().map(|(node, list)| Reverse((list.len(), node as u32))).collect();
    let mut order = Vec::with_capacity(nodes);
    let mut done = vec![false; nodes];
    while let Some(Reverse((degree, node))) = queue.pop() {
        // An entry from before the node's neighbours changed.
        if done[node as usize] || degree != neighbours[node as usize].len() {
            continue;
        }
        done[node as usize] = true;
        order.push(node);
        let around = std::mem::take(&mut neighbours[node as usize]);
        for &other in &around {
            let merged = union_without(&neighbours[other as usize], &around, [node, other]);
            queue.push(Reverse((merged.len(), other)));
            neighbours[other as usize] = merged;
        }
    }
    order
}

/// What is in either of two ascending lists, but not those two.
fn union_without(one: &[u32], other: &[u32], without: [u32; 2]) -> Vec<u32> {
    let mut merged = Vec::with_capacity(one.len() + other.len());
    let (mut i, mut j) = (0, 0);
    while i < one.len() || j < other.len() {
        let next = match (one.get(i), other.get(j)) {
            (Some(a), Some(b)) => *a.min(b),
            (Some(a), None) => *a,
            (None, Some(b)) => *b,
            (None, None) => break,
        };
        i += usize::from(one.get(i) == Some(&next));
        j += usize::from(other.get(j) == Some(&next));
        if !without.contains(&next) {
            merged.push(next);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_leaves_first_and_every_node_once() {
        // A star with a tail: 0 in the middle of 1, 2, 3; 3 - 4.
        let order = minimum_degree(5, &[0, 0, 0, 3], &[1, 2, 3, 4]);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4]);
        assert_eq!(&order[..2], &[1, 2]);
    }
}
