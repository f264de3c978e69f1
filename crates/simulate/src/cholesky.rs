//! Sparse LDLᵀ of symmetric matrices in the elimination order of a [`Symbolic`].
//!
//! Only the half from the diagonal on is kept. Pivot by pivot, each row is taken from those after it that it reaches; where each
//! product goes is known from the pattern alone and is listed once ([`Plan`]), so that factoring is one walk over arrays. Values are
//! added straight into the places of the factor, so nothing is copied between setting a matrix up and factoring it.

use std::sync::Arc;

use twinlake_contracts::Result;

use crate::block_lu::{Pattern, Symbolic};
use crate::recent::Recent;

/// The order of elimination of a graph, the places of the factor and where each product goes.
pub(crate) struct Plan {
    nodes: usize,
    edges: Vec<(usize, usize)>,
    order: Vec<u32>,
    step: Vec<u32>,
    /// The places of the row eliminated at step `k` are `starts[k]..starts[k + 1]`, the diagonal first, columns ascending.
    starts: Vec<u32>,
    columns: Vec<u32>,
    /// For each pivot, for each place `i` right of its diagonal and each place `j` from `i` on: the place of the product.
    targets: Vec<u32>,
}

static RECENT: Recent<Plan> = Recent::new();

impl Plan {
    /// The plan of a graph: one that was made before, if it is among the last few, as where a network is run again and again with
    /// other demands. What it says does not depend on that.
    pub(crate) fn of_graph(nodes: usize, edges: Vec<(usize, usize)>) -> Result<Arc<Self>> {
        match RECENT.find(|plan| plan.nodes == nodes && plan.edges == edges) {
            Some(known) => Ok(known),
            None => Ok(RECENT.keep(Self::new(nodes, edges)?)),
        }
    }

    fn new(nodes: usize, edges: Vec<(usize, usize)>) -> Result<Self> {
        let symbolic = Symbolic::new(&Pattern::of_graph(nodes, edges.iter().copied()))?;
        let mut plan = Self {
            nodes,
            edges,
            order: symbolic.order.iter().map(|row| *row as u32).collect(),
            step: vec![0; nodes],
            starts: vec![0],
            columns: Vec::new(),
            targets: Vec::new(),
        };
        for at in 0..nodes {
            plan.step[plan.order[at] as usize] = at as u32;
            let (_, upper) = symbolic.row(at);
            plan.columns.extend(symbolic.columns[upper].iter().map(|column| *column as u32));
            plan.starts.push(plan.columns.len() as u32);
        }
        let mut targets = Vec::new();
        for at in 0..nodes {
            let row = plan.row(at);
            for (place, &below) in (row.start + 1..).zip(&plan.columns[row.start + 1..row.end]) {
                // Row and target ascend together: the elimination made the one a part of the other.
                let mut target = plan.starts[below as usize];
                for &column in &plan.columns[place..row.end] {
                    while plan.columns[target as usize] != column {
                        target += 1;
                    }
                    targets.push(target);
                }
            }
        }
        plan.targets = targets;
        Ok(plan)
    }

    #[inline]
    fn row(&self, at: usize) -> std::ops::Range<usize> {
        self.starts[at] as usize..self.starts[at + 1] as usize
    }

    /// The place of the element of two rows; `None` where the graph joins them by no edge and elimination by none either.
    pub(crate) fn place(&self, one: usize, other: usize) -> Option<usize> {
        let (first, second) = (self.step[one].min(self.step[other]), self.step[one].max(self.step[other]));
        let row = self.row(first as usize);
        self.columns[row.clone()].binary_search(&second).ok().map(|at| row.start + at)
    }
}

/// A symmetric matrix, then its factor, in the same places.
pub(crate) struct Symmetric {
    plan: Arc<Plan>,
    values: Vec<f64>,
    inverse: Vec<f64>,
    rhs: Vec<f64>,
}

impl Symmetric {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            values: vec![0.0; plan.columns.len()],
            inverse: vec![0.0; plan.nodes],
            rhs: vec![0.0; plan.nodes],
            plan,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.values.fill(0.0);
    }

    /// Adds to the value at a place that [`Plan::place`] gave.
    #[inline]
    pub(crate) fn add(&mut self, place: usize, value: f64) {
        self.values[place] += value;
    }

    /// Factors; an error is the row whose pivot is not positive.
    pub(crate) fn factor(&mut self) -> Result<(), usize> {
        let plan = &*self.plan;
        let mut targets = plan.targets.as_slice();
        for at in 0..plan.nodes {
            let row = plan.row(at);
            let (done, later) = self.values.split_at_mut(row.end);
            let own = &done[row.clone()];
            let pivot = own[0];
            if pivot.is_nan() || pivot <= 0.0 {
                return Err(plan.order[at] as usize);
            }
            let inverse = 1.0 / pivot;
            self.inverse[at] = inverse;
            for first in 1..own.len() {
                let factor = own[first] * inverse;
                let (now, rest) = targets.split_at(own.len() - first);
                targets = rest;
                for (&value, &target) in own[first..].iter().zip(now) {
                    later[target as usize - row.end] -= factor * value;
                }
            }
        }
        Ok(())
    }

    /// Solves in place.
    pub(crate) fn solve(&mut self, rhs: &mut [f64]) {
        let plan = &*self.plan;
        for (value, &row) in self.rhs.iter_mut().zip(&plan.order) {
            *value = rhs[row as usize];
        }
        for at in 0..plan.nodes {
            let factor = self.rhs[at] * self.inverse[at];
            let right = plan.row(at).start + 1..plan.row(at).end;
            for (&column, &value) in plan.columns[right.clone()].iter().zip(&self.values[right]) {
                self.rhs[column as usize] -= value * factor;
            }
        }
        for at in (0..plan.nodes).rev() {
            let right = plan.row(at).start + 1..plan.row(at).end;
            let mut value = self.rhs[at];
            for (&column, &of) in plan.columns[right.clone()].iter().zip(&self.values[right]) {
                value -= of * self.rhs[column as usize];
            }
            self.rhs[at] = value * self.inverse[at];
            rhs[plan.order[at] as usize] = self.rhs[at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_grid_and_names_a_pivot_that_is_not_positive() {
        let side = 9;
        let edges: Vec<(usize, usize)> = (0..side * side)
            .flat_map(|node| {
                [(node % side + 1 < side, node + 1), (node + side < side * side, node + side)]
                    .into_iter()
                    .filter(|(there, _)| *there)
                    .map(move |(_, other)| (node, other))
            })
            .collect();
        let plan = Plan::of_graph(side * side, edges.clone()).unwrap();
        assert!(Arc::ptr_eq(&plan, &Plan::of_graph(side * side, edges.clone()).unwrap()));
        let mut matrix = Symmetric::new(Arc::clone(&plan));
        let answer: Vec<f64> = (0..side * side).map(|node| (node as f64 * 0.7).sin()).collect();
        let weight = |edge: usize| 1.0 + (edge % 7) as f64;
        for _ in 0..2 {
            matrix.clear();
            let mut rhs = vec![0.0; side * side];
            for (edge, &(a, b)) in edges.iter().enumerate() {
                for (one, other) in [(a, b), (b, a)] {
                    matrix.add(plan.place(one, one).unwrap(), weight(edge));
                    rhs[one] += weight(edge) * (answer[one] - answer[other]);
                }
                matrix.add(plan.place(a, b).unwrap(), -weight(edge));
            }
            matrix.add(plan.place(0, 0).unwrap(), 1.0);
            rhs[0] += answer[0];
            matrix.factor().unwrap();
            matrix.solve(&mut rhs);
            for (found, expected) in rhs.iter().zip(&answer) {
                assert!((found - expected).abs() < 1e-11);
            }
        }
        matrix.clear();
        assert!(matrix.factor().is_err());
    }
}
