//! Newton's method for the AC power flow, in polar voltages.
//!
//! For each bus `S_i = V_i Σ_k conj(Y_ik V_k)`; unknown are the angle θ except at a slack, and the voltage |V| at PQ
//! buses (Tinney and Hart 1967). With `Δ|V| / |V|` for the voltage, the block of a pair is
//! `[Im s, Re s; −Re s, Im s]` with `s = V_i conj(Y_ik V_k)`. Every bus keeps its two rows, those of a fixed unknown
//! being rows of the identity, so the pattern does not change when a bus turns from PV to PQ or loses its supply.

use faer::c64;
use faer::prelude::Solve;
use faer::sparse::{SparseColMat, Triplet};

use super::grid::Grid;
use crate::block_lu::{Block2, Factors, Symbolic};

/// What is fixed at a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Voltage and angle.
    Slack,
    /// Active power and voltage.
    Pv,
    /// Active and reactive power.
    Pq,
    /// Without supply: nothing is computed there.
    Dead,
}

/// A voltage by magnitude (per unit) and angle (radians) at every bus.
#[derive(Debug, Clone)]
pub(super) struct Voltages {
    pub(super) vm: Vec<f64>,
    pub(super) va: Vec<f64>,
}

impl Voltages {
    pub(super) fn phasor(&self, bus: usize) -> c64 {
        c64::from_polar(self.vm[bus], self.va[bus])
    }
}

/// Why no solution was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Failure {
    /// The equations of this bus do not determine its voltage.
    Singular { bus: usize },
    /// After all iterations this bus still has the largest mismatch, per unit.
    NotConverged { bus: usize, mismatch: f64, iterations: u32 },
}

/// How good a solution is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    pub(super) iterations: u32,
    /// The largest difference between given and computed power, per unit.
    pub(super) mismatch: f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest mismatch of active or reactive power, per unit.
    pub(super) tolerance: f64,
    pub(super) iterations: u32,
}

/// Room for the iterations; one for each thread.
pub(super) struct Work {
    jacobian: Vec<Block2>,
    factors: Factors<Block2>,
    rhs: Vec<[f64; 2]>,
    phasors: Vec<c64>,
}

impl Work {
    pub(super) fn new(grid: &Grid, symbolic: &Symbolic) -> Self {
        let buses = grid.buses.len();
        Self {
            jacobian: vec![[0.0; 4]; grid.layout.pattern.columns.len()],
            factors: Factors::new(symbolic, [0.0; 2]),
            rhs: vec![[0.0; 2]; buses],
            phasors: vec![c64::new(0.0, 0.0); buses],
        }
    }
}

/// A problem: the admittances over the grid's pattern, what is held and what is given at each bus.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub(super) grid: &'a Grid,
    pub(super) symbolic: &'a Symbolic,
    pub(super) admittance: &'a [c64],
    pub(super) held: &'a [Held],
    /// Generation minus demand.
    pub(super) given: &'a [c64],
}

impl Problem<'_> {
    /// Improves `voltages` until the mismatch is within the tolerance.
    pub(super) fn solve(
        &self,
        voltages: &mut Voltages,
        work: &mut Work,
        limits: Limits,
    ) -> Result<Fit, Failure> {
        let mut iterations = 0;
        loop {
            let (bus, mismatch) = self.assemble(voltages, work);
            if mismatch <= limits.tolerance {
                return Ok(Fit { iterations, mismatch });
            }
            // A mismatch beyond all networks, or not a number, does not come back.
            if iterations == limits.iterations || mismatch.is_nan() || mismatch > 1e12 {
                return Err(Failure::NotConverged { bus, mismatch, iterations });
            }
            self.step(work)?;
            for (bus, step) in work.rhs.iter().enumerate() {
                voltages.va[bus] += step[0];
                voltages.vm[bus] *= 1.0 + step[1];
            }
            iterations += 1;
        }
    }

    /// The power that flows into the network at each bus.
    pub(super) fn injections(&self, voltages: &Voltages) -> Vec<c64> {
        let phasors: Vec<c64> = (0..self.held.len()).map(|bus| voltages.phasor(bus)).collect();
        (0..self.held.len())
            .map(|bus| {
                let current = self.grid.layout.pattern.row(bus).fold(c64::new(0.0, 0.0), |sum, at| {
                    sum + self.admittance[at] * phasors[self.grid.layout.pattern.columns[at]]
                });
                phasors[bus] * current.conj()
            })
            .collect()
    }

    /// Jacobian and right-hand side at these voltages; the bus of the largest mismatch and its size.
    fn assemble(&self, voltages: &Voltages, work: &mut Work) -> (usize, f64) {
        for (bus, phasor) in work.phasors.iter_mut().enumerate() {
            *phasor = voltages.phasor(bus);
        }
        let pattern = &self.grid.layout.pattern;
        let mut worst = (0, 0.0);
        for bus in 0..self.held.len() {
            let range = pattern.row(bus);
            let phasor = work.phasors[bus];
            let mut power = c64::new(0.0, 0.0);
            let mut diagonal = range.start;
            for at in range {
                let column = pattern.columns[at];
                let part = phasor * (self.admittance[at] * work.phasors[column]).conj();
                power += part;
                work.jacobian[at] = [part.im, part.re, -part.re, part.im];
                if column == bus {
                    diagonal = at;
                }
            }
            let own = &mut work.jacobian[diagonal];
            let (re, im) = (own[1], own[0]);
            *own = [im - power.im, power.re + re, power.re - re, power.im + im];
            let mut mismatch = self.given[bus] - power;
            let held = self.held[bus];
            if held != Held::Pq {
                mismatch.im = 0.0;
                self.fix(work, bus, diagonal, 1);
            }
            if matches!(held, Held::Slack | Held::Dead) {
                mismatch.re = 0.0;
                self.fix(work, bus, diagonal, 0);
            }
            work.rhs[bus] = [mismatch.re, mismatch.im];
            let size = mismatch.re.abs().max(mismatch.im.abs());
            if size > worst.1 || size.is_nan() {
                worst = (bus, size);
            }
        }
        worst
    }

    /// Makes one of the two rows of a bus say that its unknown stays.
    fn fix(&self, work: &mut Work, bus: usize, diagonal: usize, which: usize) {
        for at in self.grid.layout.pattern.row(bus) {
            work.jacobian[at][2 * which] = 0.0;
            work.jacobian[at][2 * which + 1] = 0.0;
        }
        work.jacobian[diagonal][3 * which] = 1.0;
    }

    /// Solves for the step, in place of the right-hand side.
    fn step(&self, work: &mut Work) -> Result<(), Failure> {
        let Err(bus) = work.factors.factor(self.symbolic, &self.grid.layout.pattern, &work.jacobian) else {
            work.factors.solve(self.symbolic, &mut work.rhs);
            return Ok(());
        };
        self.step_by_exchanges(work).ok_or(Failure::Singular { bus })
    }

    /// The same step by an LU that exchanges rows (faer), for the rare matrix that needs it.
    fn step_by_exchanges(&self, work: &mut Work) -> Option<()> {
        let pattern = &self.grid.layout.pattern;
        let size = 2 * self.held.len();
        let entries: Vec<Triplet<usize, usize, f64>> = (0..self.held.len())
            .flat_map(|bus| pattern.row(bus).map(move |at| (bus, at)))
            .flat_map(|(bus, at)| {
                let (column, block) = (pattern.columns[at], work.jacobian[at]);
                [(0, 0), (0, 1), (1, 0), (1, 1)]
                    .map(|(row, of)| Triplet::new(2 * bus + row, 2 * column + of, block[2 * row + of]))
            })
            .filter(|entry| entry.val != 0.0)
            .collect();
        let matrix = SparseColMat::try_new_from_triplets(size, size, &entries).ok()?;
        let mut rhs = faer::Mat::from_fn(size, 1, |row, _| work.rhs[row / 2][row % 2]);
        let original = rhs.clone();
        matrix.sp_lu().ok()?.solve_in_place(&mut rhs);
        // A matrix that is as good as singular gives a solution that does not solve.
        let largest =
            |of: &faer::Mat<f64>| (0..size).fold(0.0, |most: f64, row| most.max(of[(row, 0)].abs()));
        let mut residual = original.clone();
        for entry in &entries {
            residual[(entry.row, 0)] -= entry.val * rhs[(entry.col, 0)];
        }
        let solves =
            (0..size).all(|row| rhs[(row, 0)].is_finite()) && largest(&residual) <= 1e-6 * largest(&original);
        solves.then(|| {
            for (bus, step) in work.rhs.iter_mut().enumerate() {
                *step = [rhs[(2 * bus, 0)], rhs[(2 * bus + 1, 0)]];
            }
        })
    }
}
