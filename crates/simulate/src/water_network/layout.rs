//! What the solver needs of how links join junctions: it does not change from step to step, nor from run to run.

use std::sync::Arc;

use twinlake_contracts::{Error, Result};

use super::model::{Link, Node};
use crate::cholesky::Plan;

pub(super) struct Layout {
    pub(super) plan: Arc<Plan>,
    /// Places of the diagonal by junction, and between both ends by link.
    pub(super) diagonal: Vec<usize>,
    pub(super) between: Vec<Option<usize>>,
    pub(super) valves: Vec<usize>,
    pub(super) emitters: Vec<usize>,
}

impl Layout {
    pub(super) fn new(nodes: &[Node], links: &[Link], junctions: usize) -> Result<Self> {
        let inner = |node: usize| node < junctions;
        let edges = links.iter().filter(|link| inner(link.from) && inner(link.to));
        let plan = Plan::of_graph(junctions, edges.map(|link| (link.from, link.to)).collect())?;
        let missing = || Error::internal("a junction is missing in the pattern");
        let diagonal = (0..junctions).map(|node| plan.place(node, node).ok_or_else(missing));
        let diagonal = diagonal.collect::<Result<_>>()?;
        let between = |link: &Link| {
            if inner(link.from) && inner(link.to) { plan.place(link.from, link.to) } else { None }
        };
        Ok(Self {
            diagonal,
            between: links.iter().map(between).collect(),
            valves: (0..links.len()).filter(|&link| links[link].kind.is_valve()).collect(),
            emitters: (0..junctions).filter(|&node| nodes[node].emitter > 0.0).collect(),
            plan,
        })
    }
}
