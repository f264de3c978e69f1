//! The directed graph of the open links, in arrays that a search walks from front to back.

use std::collections::{BTreeMap, BTreeSet};

use twinlake_contracts::{Error, Result};

use crate::input::Links;

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
}

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
        let mut first_out = vec![0_u32; network.nodes() + 1];
        for &(from, _, _) in &open {
            first_out[from as usize + 1] += 1;
        }
        for node in 0..network.nodes() {
            first_out[node + 1] += first_out[node];
        }
        network.first_out = first_out;
        network.tail = open.iter().map(|&(from, _, _)| from).collect();
        network.head = open.iter().map(|&(_, _, to)| to).collect();
        network.row = open.iter().map(|&(_, row, _)| row).collect();
        Ok(network)
    }

    pub(crate) fn nodes(&self) -> usize {
        self.node_ids.len()
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

    /// The links that traffic from `origin` may take out of `node`: none where `node` may not be passed through.
    #[inline]
    pub(crate) fn way_out(&self, node: u32, origin: u32) -> std::ops::Range<usize> {
        let first = self.first_out[node as usize] as usize;
        if self.through[node as usize] || node == origin {
            first..self.first_out[node as usize + 1] as usize
        } else {
            first..first
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

    /// The row of `links` that the link is.
    pub(crate) fn row(&self, link: usize) -> usize {
        self.row[link] as usize
    }
}
