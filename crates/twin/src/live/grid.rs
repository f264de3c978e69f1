//! Where instances are: a grid of cells, each with the slots whose place lies in it.
//!
//! A moving city changes places all the time, so that what counts is the cost of a move: two small vectors are touched. A
//! cell holds what lies in a square of 0.004° (some 300 m of longitude and 450 m of latitude at
//! 50° N), or of 500 units of a projected reference system.

use std::collections::HashMap;

/// The side of a cell in degrees.
const CELL_DEG: f64 = 0.004;
/// The side of a cell in metres, for all other reference systems.
const CELL_M: f64 = 500.0;
/// A box over more cells than this is looked up cell by cell that there is, not cell by cell that it has.
const MANY_CELLS: f64 = 4096.0;

/// A box: least x, least y, greatest x, greatest y.
pub(super) type Extent = [f64; 4];

type Cell = (i32, i32);

/// Slots by place.
#[derive(Debug)]
pub(super) struct Grid {
    side: f64,
    cells: HashMap<Cell, Vec<u32>, ahash::RandomState>,
    /// Slots that are not a point, or lie beyond all cells: they may be anywhere.
    anywhere: Vec<u32>,
}

/// What is known of an instance's place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    /// It has none: no box holds it.
    Nowhere,
    At(f64, f64),
    Anywhere,
}

impl Grid {
    pub(super) fn new(degrees: bool) -> Self {
        let side = if degrees { CELL_DEG } else { CELL_M };
        Self { side, cells: HashMap::default(), anywhere: Vec::new() }
    }

    fn cell(&self, x: f64, y: f64) -> Option<Cell> {
        let index = |value: f64| {
            let cell = (value / self.side).floor();
            (cell.abs() < f64::from(i32::MAX)).then_some(cell as i32)
        };
        Some((index(x)?, index(y)?))
    }

    fn list(&mut self, place: Place) -> Option<&mut Vec<u32>> {
        match place {
            Place::Nowhere => None,
            Place::Anywhere => Some(&mut self.anywhere),
            Place::At(x, y) => match self.cell(x, y) {
                Some(cell) => Some(self.cells.entry(cell).or_default()),
                None => Some(&mut self.anywhere),
            },
        }
    }

    pub(super) fn insert(&mut self, slot: u32, place: Place) {
        if let Some(list) = self.list(place) {
            list.push(slot);
        }
    }

    pub(super) fn shift(&mut self, slot: u32, from: Place, to: Place) {
        if let (Place::At(x, y), Place::At(to_x, to_y)) = (from, to)
            && let (Some(a), Some(b)) = (self.cell(x, y), self.cell(to_x, to_y))
            && a == b
        {
            return;
        }
        if let Some(list) = self.list(from)
            && let Some(at) = list.iter().position(|known| *known == slot)
        {
            list.swap_remove(at);
        }
        self.insert(slot, to);
    }

    /// The slots that may lie in a box, in no order; each once.
    pub(super) fn candidates(&self, extent: Extent) -> Vec<u32> {
        let mut found = self.anywhere.clone();
        let index = |value: f64| (value / self.side).floor();
        let [low_x, low_y, high_x, high_y] = extent.map(index);
        if !(low_x <= high_x && low_y <= high_y) {
            return found;
        }
        if (high_x - low_x + 1.0) * (high_y - low_y + 1.0) > MANY_CELLS {
            let inside = |cell: &Cell| {
                let (x, y) = (f64::from(cell.0), f64::from(cell.1));
                low_x <= x && x <= high_x && low_y <= y && y <= high_y
            };
            found.extend(self.cells.iter().filter(|(cell, _)| inside(cell)).flat_map(|(_, slots)| slots));
            return found;
        }
        for x in low_x as i32..=high_x as i32 {
            for y in low_y as i32..=high_y as i32 {
                found.extend(self.cells.get(&(x, y)).into_iter().flatten());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_finds_what_lies_in_it_wherever_it_moved() {
        let mut grid = Grid::new(true);
        let mut places = Vec::new();
        let mut bits = 7_u64;
        let mut chance = move || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (bits >> 33) as f64 / f64::from(1_u32 << 31)
        };
        for slot in 0..500 {
            let place = match slot % 50 {
                0 => Place::Anywhere,
                1 => Place::Nowhere,
                _ => Place::At(24.9 + chance() / 10.0, 60.1 + chance() / 10.0),
            };
            grid.insert(slot, place);
            places.push(place);
        }
        for _ in 0..2_000 {
            let slot = (chance() * 500.0) as usize;
            let to = Place::At(24.9 + chance() / 10.0, 60.1 + chance() / 10.0);
            grid.shift(slot as u32, places[slot], to);
            places[slot] = to;
        }
        for extent in [
            [24.92, 60.12, 24.93, 60.14],
            [24.9, 60.1, 25.0, 60.2],
            [-180.0, -90.0, 180.0, 90.0],
            [25.0, 60.0, 24.0, 61.0],
            [f64::NEG_INFINITY, 60.15, f64::INFINITY, 60.16],
        ] {
            let mut found = grid.candidates(extent);
            found.sort_unstable();
            let once = found.len();
            found.dedup();
            assert_eq!(found.len(), once);
            for (slot, place) in places.iter().enumerate() {
                let inside = match place {
                    Place::Nowhere => false,
                    Place::Anywhere => true,
                    Place::At(x, y) => {
                        extent[0] <= *x && *x <= extent[2] && extent[1] <= *y && *y <= extent[3]
                    }
                };
                if inside {
                    assert!(found.binary_search(&(slot as u32)).is_ok(), "{slot} {place:?} {extent:?}");
                }
            }
        }
    }
}
