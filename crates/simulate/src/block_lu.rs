//! Sparse LU of matrices whose pattern is symmetric and known before their values, by blocks of a fixed size.
//!
//! The order of elimination is the approximate minimum degree order (Amestoy, Davis, Duff 1996; as faer has it) of the
//! pattern, and fill-in follows from the elimination tree, so one [`Symbolic`] serves any number of factorisations: all
//! iterations of Newton's method, and all outages of a contingency analysis, where a missing branch is a zero in the
//! same pattern. Pivots are the diagonal blocks in that order. That is stable for the matrices of power networks, whose
//! pivots stay away from zero once a bus's two unknowns are eliminated together; a pivot that does not is reported, and
//! the caller then takes a method that exchanges rows.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::sparse::SymbolicSparseColMatRef;
use faer::sparse::linalg::amd;
use twinlake_contracts::{Error, Result};

/// A square block and the vector that goes with it.
pub(crate) trait Block: Copy + Send + Sync {
    /// A part of a right-hand side.
    type Vector: Copy + Send + Sync;
    const ZERO: Self;
    fn times(self, other: Self) -> Self;
    /// `self -= left · right`.
    fn subtract_product(&mut self, left: Self, right: Self);
    fn apply(self, vector: Self::Vector) -> Self::Vector;
    /// `vector -= self · other`.
    fn subtract_applied(self, vector: &mut Self::Vector, other: Self::Vector);
    /// None if the block is singular, or as good as.
    fn inverse(self) -> Option<Self>;
}

impl Block for f64 {
    type Vector = f64;
    const ZERO: Self = 0.0;

    #[inline]
    fn times(self, other: Self) -> Self {
        self * other
    }

    #[inline]
    fn subtract_product(&mut self, left: Self, right: Self) {
        *self -= left * right;
    }

    #[inline]
    fn apply(self, vector: f64) -> f64 {
        self * vector
    }

    #[inline]
    fn subtract_applied(self, vector: &mut f64, other: f64) {
        *vector -= self * other;
    }

    #[inline]
    fn inverse(self) -> Option<Self> {
        let inverse = 1.0 / self;
        inverse.is_finite().then_some(inverse)
    }
}

/// A block of 2 × 2 by rows.
pub(crate) type Block2 = [f64; 4];

/// The determinant of a pivot relative to the squares of its elements, below which it is taken for singular.
const SMALLEST_PIVOT: f64 = 1e-13;

impl Block for Block2 {
    type Vector = [f64; 2];
    const ZERO: Self = [0.0; 4];

    #[inline]
    fn times(self, other: Self) -> Self {
        let [top, bottom] = [[self[0], self[1]], [self[2], self[3]]];
        let element = |row: [f64; 2], column: usize| row[0] * other[column] + row[1] * other[column + 2];
        [element(top, 0), element(top, 1), element(bottom, 0), element(bottom, 1)]
    }

    #[inline]
    fn subtract_product(&mut self, left: Self, right: Self) {
        let product = left.times(right);
        self.iter_mut().zip(product).for_each(|(value, product)| *value -= product);
    }

    #[inline]
    fn apply(self, v: [f64; 2]) -> [f64; 2] {
        [self[0] * v[0] + self[1] * v[1], self[2] * v[0] + self[3] * v[1]]
    }

    #[inline]
    fn subtract_applied(self, vector: &mut [f64; 2], other: [f64; 2]) {
        let product = self.apply(other);
        vector[0] -= product[0];
        vector[1] -= product[1];
    }

    #[inline]
    fn inverse(self) -> Option<Self> {
        let [a, b, c, d] = self;
        let determinant = a * d - b * c;
        let size = (a * d).abs() + (b * c).abs();
        let usable = determinant.is_finite() && determinant.abs() > SMALLEST_PIVOT * size;
        usable.then(|| [d / determinant, -b / determinant, -c / determinant, a / determinant])
    }
}

/// A square pattern by rows: the columns of row `i` are `columns[starts[i]..starts[i + 1]]`, ascending, the diagonal and
/// every mirrored place included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pattern {
    pub(crate) starts: Vec<usize>,
    pub(crate) columns: Vec<usize>,
}

impl Pattern {
    /// The pattern of a graph: the diagonal, and both places of each pair.
    pub(crate) fn of_graph(nodes: usize, edges: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut rows: Vec<Vec<usize>> = (0..nodes).map(|node| vec![node]).collect();
        for (one, other) in edges {
            rows[one].push(other);
            rows[other].push(one);
        }
        let mut pattern = Self { starts: vec![0], columns: Vec::new() };
        for mut row in rows {
            row.sort_unstable();
            row.dedup();
            pattern.columns.extend(row);
            pattern.starts.push(pattern.columns.len());
        }
        pattern
    }

    pub(crate) fn size(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn row(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row]..self.starts[row + 1]
    }

    /// Where the value of that row and column stands.
    pub(crate) fn place(&self, row: usize, column: usize) -> Option<usize> {
        let range = self.row(row);
        self.columns[range.clone()].binary_search(&column).ok().map(|at| range.start + at)
    }
}

/// Order of elimination and the pattern of the factors.
#[derive(Debug, Clone)]
pub(crate) struct Symbolic {
    /// Which row is eliminated at each step, and the step of each row.
    pub(crate) order: Vec<usize>,
    step: Vec<usize>,
    /// Factor rows by step: columns (steps) ascending; L before `diagonal`, U after it.
    pub(crate) starts: Vec<usize>,
    diagonal: Vec<usize>,
    pub(crate) columns: Vec<usize>,
}

impl Symbolic {
    pub(crate) fn new(pattern: &Pattern) -> Result<Self> {
        let size = pattern.size();
        let (mut order, mut step) = (vec![0_usize; size], vec![0_usize; size]);
        let entries = pattern.columns.len();
        let matrix =
            SymbolicSparseColMatRef::new_checked(size, size, &pattern.starts, None, &pattern.columns);
        let mut memory = MemBuffer::new(amd::order_maybe_unsorted_scratch::<usize>(size, entries));
        amd::order_maybe_unsorted(
            &mut order,
            &mut step,
            matrix,
            amd::Control::default(),
            MemStack::new(&mut memory),
        )
        .map_err(|error| Error::internal(format!("minimum degree order: {error:?}")))?;

        // A row of U is the row of the matrix and the rows of U of its children in the elimination tree.
        let mut upper: Vec<Vec<usize>> = Vec::with_capacity(size);
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); size];
        let mut seen = vec![usize::MAX; size];
        for at in 0..size {
            let mut row = Vec::new();
            let mut add = |column: usize| {
                if column > at && seen[column] != at {
                    seen[column] = at;
                    row.push(column);
                }
            };
            pattern.columns[pattern.row(order[at])].iter().for_each(|&column| add(step[column]));
            for &child in &children[at] {
                let child: &Vec<usize> = &upper[child];
                for &column in child {
                    add(column);
                }
            }
            row.sort_unstable();
            if let Some(&parent) = row.first() {
                children[parent].push(at);
            }
            upper.push(row);
        }
        let mut lower: Vec<Vec<usize>> = vec![Vec::new(); size];
        for (at, row) in upper.iter().enumerate() {
            for &column in row {
                lower[column].push(at);
            }
        }
        let mut symbolic =
            Self { order, step, starts: vec![0], diagonal: Vec::with_capacity(size), columns: Vec::new() };
        for (at, (lower, upper)) in lower.iter().zip(&upper).enumerate() {
            symbolic.columns.extend(lower);
            symbolic.diagonal.push(symbolic.columns.len());
            symbolic.columns.push(at);
            symbolic.columns.extend(upper);
            symbolic.starts.push(symbolic.columns.len());
        }
        Ok(symbolic)
    }

    /// Places left of the diagonal, and from the diagonal on, of the row eliminated at a step.
    #[inline]
    pub(crate) fn row(&self, at: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        (self.starts[at]..self.diagonal[at], self.diagonal[at]..self.starts[at + 1])
    }
}

/// The factors, and room to compute them again and again.
#[derive(Debug, Clone)]
pub(crate) struct Factors<B: Block> {
    values: Vec<B>,
    row: Vec<B>,
    rhs: Vec<B::Vector>,
}

impl<B: Block> Factors<B> {
    pub(crate) fn new(symbolic: &Symbolic, zero: B::Vector) -> Self {
        Self {
            values: vec![B::ZERO; symbolic.columns.len()],
            row: vec![B::ZERO; symbolic.order.len()],
            rhs: vec![zero; symbolic.order.len()],
        }
    }

    /// Factors the matrix with these values, in the order of the pattern that `symbolic` was made of. An error is the
    /// row whose pivot is singular.
    pub(crate) fn factor(
        &mut self,
        symbolic: &Symbolic,
        pattern: &Pattern,
        values: &[B],
    ) -> Result<(), usize> {
        for at in 0..symbolic.order.len() {
            let range = symbolic.starts[at]..symbolic.starts[at + 1];
            let columns = &symbolic.columns[range.clone()];
            for &column in columns {
                self.row[column] = B::ZERO;
            }
            let given = pattern.row(symbolic.order[at]);
            for (&column, &value) in pattern.columns[given.clone()].iter().zip(&values[given]) {
                self.row[symbolic.step[column]] = value;
            }
            let lower = symbolic.diagonal[at] - range.start;
            for &before in &columns[..lower] {
                let pivot = symbolic.diagonal[before];
                let factor = self.row[before].times(self.values[pivot]);
                self.row[before] = factor;
                let upper = pivot + 1..symbolic.starts[before + 1];
                for (&column, &value) in symbolic.columns[upper.clone()].iter().zip(&self.values[upper]) {
                    self.row[column].subtract_product(factor, value);
                }
            }
            // The inverse of a pivot is what is needed of it.
            self.row[at] = self.row[at].inverse().ok_or(symbolic.order[at])?;
            for (&column, value) in columns.iter().zip(&mut self.values[range]) {
                *value = self.row[column];
            }
        }
        Ok(())
    }

    /// Solves in place.
    pub(crate) fn solve(&mut self, symbolic: &Symbolic, rhs: &mut [B::Vector]) {
        let size = symbolic.order.len();
        for at in 0..size {
            let mut value = rhs[symbolic.order[at]];
            let lower = symbolic.starts[at]..symbolic.diagonal[at];
            for (&column, factor) in symbolic.columns[lower.clone()].iter().zip(&self.values[lower]) {
                factor.subtract_applied(&mut value, self.rhs[column]);
            }
            self.rhs[at] = value;
        }
        for at in (0..size).rev() {
            let mut value = self.rhs[at];
            let pivot = symbolic.diagonal[at];
            let upper = pivot + 1..symbolic.starts[at + 1];
            for (&column, factor) in symbolic.columns[upper.clone()].iter().zip(&self.values[upper]) {
                factor.subtract_applied(&mut value, self.rhs[column]);
            }
            self.rhs[at] = self.values[pivot].apply(value);
            rhs[symbolic.order[at]] = self.rhs[at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring with chords: fill-in happens, and the answer is known by multiplication.
    fn ring(size: usize) -> Pattern {
        let chords = (0..size / 3).map(|node| (node, (node * 7 + size / 2) % size));
        Pattern::of_graph(size, (0..size).map(|node| (node, (node + 1) % size)).chain(chords))
    }

    fn noise(at: usize) -> f64 {
        ((at * 2_654_435_761) % 1009) as f64 / 1009.0 - 0.5
    }

    #[test]
    fn solves_what_multiplication_gave_for_numbers_and_blocks() {
        let pattern = ring(60);
        let symbolic = Symbolic::new(&pattern).unwrap();
        let diagonal = |row: usize, at: usize| pattern.columns[at] == row;
        let numbers: Vec<f64> = (0..60)
            .flat_map(|row| pattern.row(row).map(move |at| (row, at)))
            .map(|(row, at)| noise(at) + if diagonal(row, at) { 4.0 } else { 0.0 })
            .collect();
        let blocks: Vec<Block2> = (0..60)
            .flat_map(|row| pattern.row(row).map(move |at| (row, at)))
            .map(|(row, at)| {
                // The first diagonal element is zero: the block must be eliminated as a whole.
                let strong = if diagonal(row, at) { 5.0 } else { 0.0 };
                [
                    noise(4 * at) * 0.1,
                    noise(4 * at + 1) + strong,
                    noise(4 * at + 2) - strong,
                    noise(4 * at + 3),
                ]
            })
            .collect();
        let mut factors = Factors::<f64>::new(&symbolic, 0.0);
        let mut twos = Factors::<Block2>::new(&symbolic, [0.0; 2]);
        factors.factor(&symbolic, &pattern, &numbers).unwrap();
        twos.factor(&symbolic, &pattern, &blocks).unwrap();
        let mut rhs = vec![0.0; 60];
        let mut rhs2 = vec![[0.0; 2]; 60];
        for row in 0..60 {
            for at in pattern.row(row) {
                let column = pattern.columns[at];
                rhs[row] += numbers[at] * noise(column + 900);
                let product = blocks[at].apply([noise(column), noise(column + 300)]);
                rhs2[row] = [rhs2[row][0] + product[0], rhs2[row][1] + product[1]];
            }
        }
        factors.solve(&symbolic, &mut rhs);
        twos.solve(&symbolic, &mut rhs2);
        for row in 0..60 {
            assert!((rhs[row] - noise(row + 900)).abs() < 1e-12);
            assert!(
                (rhs2[row][0] - noise(row)).abs() < 1e-12 && (rhs2[row][1] - noise(row + 300)).abs() < 1e-12
            );
        }
    }

    #[test]
    fn names_the_row_of_a_singular_pivot() {
        let pattern = Pattern::of_graph(3, [(0, 1)].into_iter());
        let symbolic = Symbolic::new(&pattern).unwrap();
        let mut factors = Factors::<f64>::new(&symbolic, 0.0);
        let error = factors.factor(&symbolic, &pattern, &[2.0, 1.0, 1.0, 2.0, 0.0]);
        assert_eq!(error, Err(2));
    }
}
