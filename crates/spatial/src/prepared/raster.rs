//! A coarse picture of an area: cells that lie wholly inside or outside decide a point without any edge.

use geo::Coord;
use geo::coordinate_position::CoordPos;

use super::bounds::Bounds;

/// What is known of all points of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// An edge may pass through it.
    Mixed,
    Inside,
    Outside,
}

/// Square many cells over the bounds of an area, two bits each.
#[derive(Debug)]
pub(crate) struct Raster {
    min: Coord,
    /// Cells to the unit along each axis.
    scale: Coord,
    side: usize,
    bits: Vec<u64>,
}

/// Cells along each side: few for few edges; beyond the last, more cells fall out of the processor's cache.
const SIDES: [(usize, usize); 3] = [(64, 32), (2_048, 64), (usize::MAX, 128)];
const CELLS_PER_WORD: usize = 32;

impl Raster {
    /// Draws all edges, then asks for the position of one point of each run of cells that none of them touches.
    /// `None` for bounds so narrow that cells could not be told apart.
    pub(crate) fn new(
        bounds: &Bounds<2>,
        edges: impl Iterator<Item = (Coord, Coord)>,
        count: usize,
        position: impl Fn(Coord) -> CoordPos,
    ) -> Option<Self> {
        let side = SIDES.iter().find(|(most, _)| count <= *most).map_or(128, |(_, side)| *side);
        let (width, height) = (bounds.max[0] - bounds.min[0], bounds.max[1] - bounds.min[1]);
        let farthest = |axis: usize| bounds.min[axis].abs().max(bounds.max[axis].abs());
        let distinct = |extent: f64, farthest: f64| extent.is_finite() && extent > farthest * 1e-9;
        if !distinct(width, farthest(0)) || !distinct(height, farthest(1)) {
            return None;
        }
        let mut raster = Self {
            min: Coord { x: bounds.min[0], y: bounds.min[1] },
            scale: Coord { x: side as f64 / width, y: side as f64 / height },
            side,
            bits: vec![0; (side * side).div_ceil(CELLS_PER_WORD)],
        };
        let mut touched = vec![false; side * side];
        for (a, b) in edges {
            raster.draw(a, b, &mut touched);
        }
        for row in 0..side {
            let mut known = None;
            for column in 0..side {
                if touched[row * side + column] {
                    known = None;
                    continue;
                }
                // Neighbours without an edge between them lie alike.
                let cell = *known.get_or_insert_with(|| {
                    let middle = Coord {
                        x: raster.min.x + (column as f64 + 0.5) / raster.scale.x,
                        y: raster.min.y + (row as f64 + 0.5) / raster.scale.y,
                    };
                    if position(middle) == CoordPos::Inside { Cell::Inside } else { Cell::Outside }
                });
                raster.set(row * side + column, cell);
            }
        }
        Some(raster)
    }

    /// Marks the cells that an edge may pass through, and one more on each side for roundings.
    fn draw(&self, a: Coord, b: Coord, touched: &mut [bool]) {
        let (low, high) = if a.y <= b.y { (a, b) } else { (b, a) };
        let last = self.side - 1;
        let first_row = self.row(low.y).saturating_sub(1);
        let last_row = (self.row(high.y) + 1).min(last);
        let slope = (high.x - low.x) / (high.y - low.y);
        for row in first_row..=last_row {
            let edge_y = |row: f64| self.min.y + row / self.scale.y;
            // Where it enters and leaves the row; a level edge, or one whose slope overflows, all along.
            let at = |y: f64| low.x + (y.clamp(low.y, high.y) - low.y) * slope;
            let (mut from, mut to) = (at(edge_y(row as f64 - 0.01)), at(edge_y(row as f64 + 1.01)));
            if !from.is_finite() || !to.is_finite() {
                (from, to) = (low.x, high.x);
            }
            let (from, to) = (from.min(to), from.max(to));
            let (from, to) = (self.column(from).saturating_sub(1), (self.column(to) + 1).min(last));
            touched[row * self.side + from..=row * self.side + to].fill(true);
        }
    }

    fn column(&self, x: f64) -> usize {
        (((x - self.min.x) * self.scale.x) as usize).min(self.side - 1)
    }

    fn row(&self, y: f64) -> usize {
        (((y - self.min.y) * self.scale.y) as usize).min(self.side - 1)
    }

    fn set(&mut self, cell: usize, value: Cell) {
        let value = match value {
            Cell::Mixed => 0,
            Cell::Inside => 1,
            Cell::Outside => 2,
        };
        self.bits[cell / CELLS_PER_WORD] |= value << (2 * (cell % CELLS_PER_WORD));
    }

    /// What is known of the cell of a point within the bounds.
    #[inline]
    pub(crate) fn cell(&self, at: Coord) -> Cell {
        let cell = self.row(at.y) * self.side + self.column(at.x);
        match self.bits[cell / CELLS_PER_WORD] >> (2 * (cell % CELLS_PER_WORD)) & 3 {
            1 => Cell::Inside,
            2 => Cell::Outside,
            _ => Cell::Mixed,
        }
    }

    /// How many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bits.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_cells_of_a_plain_area_decide() {
        let corners: Vec<Coord> = (0..=200)
            .map(|i| f64::from(i % 200) / 200.0 * std::f64::consts::TAU)
            .map(|angle| Coord { x: 10.0 + angle.cos(), y: 50.0 + angle.sin() })
            .collect();
        let bounds = Bounds { min: [9.0, 49.0], max: [11.0, 51.0] };
        let inside = |at: Coord| (at.x - 10.0).hypot(at.y - 50.0) < 1.0;
        let edges = corners.windows(2).map(|pair| (pair[0], pair[1]));
        let raster =
            Raster::new(
                &bounds,
                edges,
                200,
                |at| {
                    if inside(at) { CoordPos::Inside } else { CoordPos::Outside }
                },
            );
        let raster = raster.unwrap();
        let mut mixed = 0;
        for i in 0..200 {
            for j in 0..200 {
                let at = Coord { x: 9.0 + f64::from(i) / 100.0, y: 49.0 + f64::from(j) / 100.0 };
                match raster.cell(at) {
                    Cell::Mixed => mixed += 1,
                    cell => assert_eq!(cell == Cell::Inside, inside(at), "{at:?}"),
                }
            }
        }
        assert!(mixed < 8_000, "{mixed}");
    }

    #[test]
    fn an_area_too_narrow_has_none() {
        let bounds = Bounds { min: [1e9, 0.0], max: [1e9 + 1e-3, 1.0] };
        assert!(Raster::new(&bounds, std::iter::empty(), 100, |_| CoordPos::Outside).is_none());
    }
}
