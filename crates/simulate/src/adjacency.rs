//! Arcs side by side by their tails: the arcs of node `i` are `first_out[i]..first_out[i + 1]`.

/// Where the arcs of each node begin, when they are in the order of their tails.
pub(crate) fn first_out(nodes: usize, tails: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut first = vec![0_u32; nodes + 1];
    tails.for_each(|tail| first[tail as usize + 1] += 1);
    for node in 0..nodes {
        first[node + 1] += first[node];
    }
    first
}
