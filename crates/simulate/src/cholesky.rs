//! Sparse LDLᵀ of symmetric matrices in the elimination order of a [`Symbolic`].
//!
//! Row by row: what earlier pivots take from row `i` is taken from the part right of the diagonal alone, since the rest
//! is its mirror image. Values are added straight into the places of the factor, so nothing is copied between setting a
//! matrix up and factoring it.

use crate::block_lu::Symbolic;

/// A symmetric matrix, then its factor, in the same places.
pub(crate) struct Symmetric {
    values: Vec<f64>,
    row: Vec<f64>,
    /// Of each earlier row, the place from which it still reaches on.
    next: Vec<usize>,
    inverse: Vec<f64>,
    rhs: Vec<f64>,
}

impl Symmetric {
    pub(crate) fn new(symbolic: &Symbolic) -> Self {
        let size = symbolic.size();
        Self {
            values: vec![0.0; symbolic.places()],
            row: vec![0.0; size],
            next: vec![0; size],
            inverse: vec![0.0; size],
            rhs: vec![0.0; size],
        }
    }

    pub(crate) fn clear(&mut self) {
        self.values.fill(0.0);
    }

    /// Adds to the value at a place that [`Symbolic::symmetric_place`] gave.
    #[inline]
    pub(crate) fn add(&mut self, place: usize, value: f64) {
        self.values[place] += value;
    }

    /// Factors; an error is the row whose pivot is not positive.
    pub(crate) fn factor(&mut self, symbolic: &Symbolic) -> Result<(), usize> {
        for at in 0..symbolic.size() {
            let (lower, upper) = symbolic.row(at);
            let columns = &symbolic.columns[upper.clone()];
            for (&column, &value) in columns.iter().zip(&self.values[upper.clone()]) {
                self.row[column] = value;
            }
            for &before in &symbolic.columns[lower] {
                let from = self.next[before];
                self.next[before] = from + 1;
                let range = from..symbolic.starts[before + 1];
                let factor = self.values[from] * self.inverse[before];
                for (&column, &value) in symbolic.columns[range.clone()].iter().zip(&self.values[range]) {
                    self.row[column] -= factor * value;
                }
            }
            let pivot = self.row[at];
            if pivot.is_nan() || pivot <= 0.0 {
                return Err(symbolic.order[at]);
            }
            self.inverse[at] = 1.0 / pivot;
            self.next[at] = upper.start + 1;
            for (&column, value) in columns.iter().zip(&mut self.values[upper]) {
                *value = self.row[column];
            }
        }
        Ok(())
    }

    /// Solves in place.
    pub(crate) fn solve(&mut self, symbolic: &Symbolic, rhs: &mut [f64]) {
        let size = symbolic.size();
        for at in 0..size {
            self.rhs[at] = rhs[symbolic.order[at]];
        }
        for at in 0..size {
            let (_, upper) = symbolic.row(at);
            let factor = self.rhs[at] * self.inverse[at];
            let right = upper.start + 1..upper.end;
            for (&column, &value) in symbolic.columns[right.clone()].iter().zip(&self.values[right]) {
                self.rhs[column] -= value * factor;
            }
        }
        for at in (0..size).rev() {
            let (_, upper) = symbolic.row(at);
            let right = upper.start + 1..upper.end;
            let mut value = self.rhs[at];
            for (&column, &of) in symbolic.columns[right.clone()].iter().zip(&self.values[right]) {
                value -= of * self.rhs[column];
            }
            self.rhs[at] = value * self.inverse[at];
            rhs[symbolic.order[at]] = self.rhs[at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_lu::Pattern;

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
        let pattern = Pattern::of_graph(side * side, edges.iter().copied());
        let symbolic = Symbolic::new(&pattern).unwrap();
        let mut matrix = Symmetric::new(&symbolic);
        let answer: Vec<f64> = (0..side * side).map(|node| (node as f64 * 0.7).sin()).collect();
        let weight = |edge: usize| 1.0 + (edge % 7) as f64;
        for _ in 0..2 {
            matrix.clear();
            let mut rhs = vec![0.0; side * side];
            for (edge, &(a, b)) in edges.iter().enumerate() {
                for (one, other) in [(a, b), (b, a)] {
                    matrix.add(symbolic.symmetric_place(one, one).unwrap(), weight(edge));
                    rhs[one] += weight(edge) * (answer[one] - answer[other]);
                }
                matrix.add(symbolic.symmetric_place(a, b).unwrap(), -weight(edge));
            }
            matrix.add(symbolic.symmetric_place(0, 0).unwrap(), 1.0);
            rhs[0] += answer[0];
            matrix.factor(&symbolic).unwrap();
            matrix.solve(&symbolic, &mut rhs);
            for (found, expected) in rhs.iter().zip(&answer) {
                assert!((found - expected).abs() < 1e-11);
            }
        }
        matrix.clear();
        assert!(matrix.factor(&symbolic).is_err());
    }
}
