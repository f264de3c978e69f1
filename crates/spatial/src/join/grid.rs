//! Cutting the plane into cells that hold about as many boxes each.

use crate::prepared::bounds::Bounds;

/// Upright slabs, each cut across; the cells are half-open and cover the whole plane.
#[derive(Debug)]
pub(super) struct Grid {
    /// Where the slabs are cut.
    slabs: Vec<f64>,
    /// Where each slab is cut across.
    across: Vec<Vec<f64>>,
}

/// Slabs, and cells in each.
const SIDE: usize = 8;

impl Grid {
    /// Cuts by the middles of some boxes, which stand for all.
    pub(super) fn new(mut sample: Vec<Bounds<2>>) -> Self {
        let cuts = |sorted: &[Bounds<2>], axis: usize| -> Vec<f64> {
            (1..SIDE)
                .filter_map(|part| sorted.get(part * sorted.len() / SIDE))
                .map(|bounds| bounds.middle(axis) / 2.0)
                .filter(|cut| !cut.is_nan())
                .collect()
        };
        sample.sort_by(|a, b| a.middle(0).total_cmp(&b.middle(0)));
        let slabs = cuts(&sample, 0);
        let mut across = vec![Vec::new(); slabs.len() + 1];
        let mut members: Vec<Vec<Bounds<2>>> = vec![Vec::new(); slabs.len() + 1];
        for bounds in sample {
            members[slabs.partition_point(|cut| *cut <= bounds.middle(0) / 2.0)].push(bounds);
        }
        for (cut, mut slab) in across.iter_mut().zip(members) {
            slab.sort_by(|a, b| a.middle(1).total_cmp(&b.middle(1)));
            *cut = cuts(&slab, 1);
        }
        Self { slabs, across }
    }

    /// How many cells there are.
    pub(super) fn cells(&self) -> usize {
        self.across.len() * SIDE
    }

    /// Adds the cells that a box meets to a list, in ascending order.
    pub(super) fn add_cells(&self, bounds: &Bounds<2>, cells: &mut Vec<u32>) {
        let range = |cuts: &[f64], axis: usize| {
            let first = cuts.partition_point(|cut| *cut <= bounds.min[axis]);
            first..=cuts.partition_point(|cut| *cut <= bounds.max[axis]).max(first)
        };
        for slab in range(&self.slabs, 0) {
            for cell in range(&self.across[slab], 1) {
                cells.push((slab * SIDE + cell) as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::testing::Random;

    #[test]
    fn boxes_that_meet_share_a_cell() {
        let mut random = Random::new(71);
        let mut boxes = || -> Vec<Bounds<2>> {
            (0..400)
                .map(|_| {
                    let min = [random.below(30) as f64, random.next() * 30.0];
                    Bounds { min, max: [min[0] + random.below(3) as f64, min[1] + random.next()] }
                })
                .collect()
        };
        let (left, right) = (boxes(), boxes());
        for sample in [Vec::new(), left[..1].to_vec(), left.clone()] {
            let grid = Grid::new(sample);
            let cells = |bounds: &Bounds<2>| {
                let mut cells = Vec::new();
                grid.add_cells(bounds, &mut cells);
                assert!(!cells.is_empty() && cells.iter().all(|cell| (*cell as usize) < grid.cells()));
                cells
            };
            for a in &left {
                for b in &right {
                    if a.meets(b) {
                        assert!(cells(a).iter().any(|cell| cells(b).contains(cell)), "{a:?} {b:?}");
                    }
                }
            }
        }
    }
}
