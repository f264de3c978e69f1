//! The directed graph of the open links, in arrays that a search walks from front to back.

use std::collections::{BTreeMap, BTreeSet};

use twinlake_contracts::{Error, Result};

use super::input::Links;
use crate::adjacency::first_out;

/// Nodes are numbered by ascending id, links by tail: the links that leave node `i` are
/// `first_out[i]..first_out[i + 1]`. So nothing here depends on the order of the rows, except that parallel links keep
/// theirs.
pub(crate) struct Network {
    node_ids: Vec<i64>,
    through: Vec<bool>,
    first_out: Vec<u32>,
    tail: Vec<u32>,
    head: Vec<u32>,
    row: Vec<u32>,
    /// The node whose trips begin at each node: itself, but for the nodes that [`Network::with_ways_out`] adds.
    home: Vec<u32>,
    /// Where the links end that trips may take out of a node that they may not pass.
    held_end: Vec<u32>,
}

/// The row of a link that is none of the table's.
const NO_ROW: u32 = u32::MAX;

impl Network {
    /// The graph of the links that are not closed. Without a table of nodes, the ends of all links (closed ones too)
    /// are the nodes, and traffic may pass through each.
    pub(crate) fn new(links: &Links, nodes: Option<BTreeMap<i64, bool>>) -> Result<Self> {
        let (node_ids, through): (Vec<i64>, Vec<bool>) = if let Some(nodes) = nodes {
            nodes.into_iter().unzip()
        } else {
            let ends: BTreeSet<i64> = links.from_node.iter().chain(&links.to_node).copied().collect();
            ends.into_iter().map(|id| (id, true)).unzip()
        };
        if u32::try_from(links.rows()).is_err() || u32::try_from(node_ids.len()).is_err() {
            return Err(Error::config("the network has more than 4294967295 links or nodes"));
        }
        let mut network = Self {
            node_ids,
            through,
            first_out: Vec::new(),
            tail: Vec::new(),
            head: Vec::new(),
            row: Vec::new(),
            home: Vec::new(),
            held_end: Vec::new(),
        };
        let mut open: Vec<(u32, u32, u32)> = Vec::with_capacity(links.rows());
        for row in 0..links.rows() {
            let index = |node: i64| {
                network.index_of(node).ok_or_else(|| {
                    Error::config(format!(
                        "{} names node {node}, which 'nodes' does not have",
                        links.name(row)
                    ))
                })
            };
            let (from, to) = (index(links.from_node[row])?, index(links.to_node[row])?);
            // A link from a node to itself is on no shortest path.
            if !links.closed[row] && from != to {
                open.push((from, row as u32, to));
            }
        }
        open.sort_unstable();
        let count = network.nodes() as u32;
        network.home = (0..count).collect();
        network.arrange(&open);
        network.held_end = network.first_out[..network.nodes()].to_vec();
        Ok(network)
    }

    /// Takes the links in the order of their tails: tail, row, head.
    fn arrange(&mut self, links: &[(u32, u32, u32)]) {
        self.first_out = first_out(self.nodes(), links.iter().map(|link| link.0));
        self.tail = links.iter().map(|&(from, _, _)| from).collect();
        self.head = links.iter().map(|&(_, _, to)| to).collect();
        self.row = links.iter().map(|&(_, row, _)| row).collect();
    }

    /// The same network with a second way for some trips: each of `homes` gets a node before it, each of `ends` one behind it,
    /// both joined to it, and each of `ways`, as places in the two lists, becomes a link between the two. Nobody else
    /// can take it: nothing leads to the nodes before, nothing away from those behind. `ends` without repetition.
    ///
    /// Says also which link each of the given links has become, then each of `ways`.
    pub(crate) fn with_ways_out(
        &self,
        homes: &[u32],
        ends: &[u32],
        ways: &[(usize, usize)],
    ) -> (Self, Vec<u32>) {
        let nodes = self.nodes() as u32;
        let (before, behind) = (nodes, nodes + homes.len() as u32);
        // Rank 0 puts the link to a node behind first, where `held_end` lets it be taken.
        let mut links: Vec<(u32, u32, u32, u32)> = Vec::new();
        links.extend(
            (0..self.links()).map(|link| (self.tail[link], 1 + link as u32, self.row[link], self.head[link])),
        );
        links.extend(
            ways.iter()
                .enumerate()
                .map(|(at, way)| (before + way.0 as u32, 1 + at as u32, NO_ROW, behind + way.1 as u32)),
        );
        let given = links.len();
        links.extend(ends.iter().enumerate().map(|(at, &end)| (end, 0, NO_ROW, behind + at as u32)));
        links.extend(homes.iter().enumerate().map(|(at, &home)| (before + at as u32, 0, NO_ROW, home)));
        let mut order: Vec<usize> = (0..links.len()).collect();
        order.sort_unstable_by_key(|&link| (links[link].0, links[link].1));
        let mut place = vec![0; links.len()];
        order.iter().enumerate().for_each(|(at, &link)| place[link] = at as u32);
        place.truncate(given);

        let added = homes.len() + ends.len();
        let mut network = Self {
            node_ids: self.node_ids.clone(),
            through: [self.through.as_slice(), &vec![true; added]].concat(),
            first_out: Vec::new(),
            tail: Vec::new(),
            head: Vec::new(),
            row: Vec::new(),
            home: (0..nodes).chain(homes.iter().copied()).chain(behind..behind + ends.len() as u32).collect(),
            held_end: Vec::new(),
        };
        let sorted: Vec<(u32, u32, u32)> =
            order.iter().map(|&link| (links[link].0, links[link].2, links[link].3)).collect();
        network.arrange(&sorted);
        network.held_end = network.first_out[..network.nodes()].to_vec();
        for &end in ends {
            network.held_end[end as usize] += 1;
        }
        (network, place)
    }

    pub(crate) fn nodes(&self) -> usize {
        self.through.len()
    }

    pub(crate) fn links(&self) -> usize {
        self.head.len()
    }

    /// The number of the node with that id.
    pub(crate) fn index_of(&self, node_id: i64) -> Option<u32> {
        self.node_ids.binary_search(&node_id).ok().map(|index| index as u32)
    }

    pub(crate) fn node_id(&self, node: u32) -> i64 {
        self.node_ids[node as usize]
    }

    /// The links that traffic from `origin` may take out of `node`: where `node` may not be passed through, only those that end
    /// a trip.
    #[inline]
    pub(crate) fn way_out(&self, node: u32, origin: u32) -> std::ops::Range<usize> {
        let first = self.first_out[node as usize] as usize;
        if self.through[node as usize] || node == self.home[origin as usize] {
            first..self.first_out[node as usize + 1] as usize
        } else {
            first..self.held_end[node as usize] as usize
        }
    }

    #[inline]
    pub(crate) fn tail(&self, link: usize) -> u32 {
        self.tail[link]
    }

    #[inline]
    pub(crate) fn head(&self, link: usize) -> u32 {
        self.head[link]
    }

    /// The row of `links` that the link is; `None` for those that [`Network::with_ways_out`] adds.
    pub(crate) fn row(&self, link: usize) -> Option<usize> {
        (self.row[link] != NO_ROW).then_some(self.row[link] as usize)
    }
}
