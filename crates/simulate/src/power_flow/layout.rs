//! What of a network follows from which buses its branches join: the pattern of its matrices, the order of elimination, and
//! where each branch stands in them.

use std::sync::Arc;

use twinlake_contracts::{Error, Result};

use crate::block_lu::{Pattern, Symbolic};
use crate::recent::Recent;

pub(super) struct Layout {
    nodes: usize,
    /// The buses of each branch, by row.
    edges: Vec<(usize, usize)>,
    pub(super) pattern: Pattern,
    pub(super) symbolic: Symbolic,
    /// Where each bus stands on the diagonal.
    pub(super) diagonal: Vec<usize>,
    /// Where each branch stands: ff, ft, tf, tt.
    pub(super) places: Vec<[usize; 4]>,
}

static RECENT: Recent<Layout> = Recent::new();

impl Layout {
    /// The layout of a graph: one that was made before, if it is among the last few, as where a network is solved again and
    /// again with other loads. What it says does not depend on that.
    pub(super) fn of_graph(nodes: usize, edges: Vec<(usize, usize)>) -> Result<Arc<Self>> {
        match RECENT.find(|layout| layout.nodes == nodes && layout.edges == edges) {
            Some(known) => Ok(known),
            None => Ok(RECENT.keep(Self::new(nodes, edges)?)),
        }
    }

    fn new(nodes: usize, edges: Vec<(usize, usize)>) -> Result<Self> {
        let pattern = Pattern::of_graph(nodes, edges.iter().copied());
        let symbolic = Symbolic::new(&pattern)?;
        let place = |row, column| {
            pattern.place(row, column).ok_or_else(|| Error::internal("a branch is missing in the pattern"))
        };
        let diagonal = (0..nodes).map(|row| place(row, row)).collect::<Result<_>>()?;
        let places = edges
            .iter()
            .map(|&(from, to)| Ok([place(from, from)?, place(from, to)?, place(to, from)?, place(to, to)?]));
        let places = places.collect::<Result<_>>()?;
        Ok(Self { nodes, edges, pattern, symbolic, diagonal, places })
    }
}
