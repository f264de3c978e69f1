//! Polygons prepared for many points: position and distance without looking at every edge.
//!
//! Edges lie in buckets of equal height by the span of their y coordinates, so a point meets only the edges beside it
//! (the slab method, Preparata & Shamos 1985, section 2.2, with slabs of equal height). The position is worked out by
//! winding numbers with exact orientation, edge for edge as `geo` does, so the answers are the same to the last bit.

use geo::algorithm::kernels::{Kernel, Orientation, RobustKernel};
use geo::coordinate_position::CoordPos;
use geo::{Coord, Distance, Euclidean, Geometry, Line, LineString, Polygon};

use super::bounds::Bounds;
use super::raster::{Cell, Raster};

/// More entries than this for each edge: then the buckets are made fewer.
const MOST_ENTRIES_PER_EDGE: usize = 4;

/// So many edges are not worth buckets.
const FEW_EDGES: usize = 16;

/// Edges of one or more polygons in buckets.
#[derive(Debug)]
pub(crate) struct AreaIndex {
    bounds: Bounds<2>,
    /// Rings one after the other, each closed.
    coords: Vec<Coord>,
    /// The first coordinate, the first of the next ring, and the role of each ring.
    rings: Vec<Ring>,
    bucket_height: f64,
    /// Where the entries of each bucket start; one more at the end.
    starts: Vec<u32>,
    /// Edges as the number of their first coordinate, in order within a bucket, with the ring that they belong to.
    entries: Vec<(u32, u32)>,
    /// Which places need no look at the edges at all.
    raster: Option<Raster>,
}

#[derive(Debug, Clone, Copy)]
struct Ring {
    polygon: u32,
    hole: bool,
}

impl AreaIndex {
    /// Prepares a polygon or several; `None` for any other geometry and for empty ones.
    pub(crate) fn new(geometry: &Geometry) -> Option<Self> {
        match geometry {
            Geometry::Polygon(polygon) => Self::of(std::slice::from_ref(polygon)),
            Geometry::MultiPolygon(polygons) => Self::of(&polygons.0),
            _ => None,
        }
    }

    fn of(polygons: &[Polygon]) -> Option<Self> {
        let mut coords: Vec<Coord> = Vec::new();
        let mut rings = Vec::new();
        let mut edges: Vec<(u32, u32)> = Vec::new();
        let mut bounds = Bounds::NOTHING;
        for (number, polygon) in polygons.iter().enumerate() {
            let mut add = |ring: &LineString, hole: bool| {
                let first = coords.len();
                coords.extend(&ring.0);
                edges.extend(
                    (first..coords.len().saturating_sub(1)).map(|at| (at as u32, rings.len() as u32)),
                );
                rings.push(Ring { polygon: number as u32, hole });
            };
            add(polygon.exterior(), false);
            polygon.interiors().iter().for_each(|ring| add(ring, true));
        }
        for coord in &coords {
            bounds.add(coord.x, coord.y);
        }
        if edges.is_empty() || u32::try_from(coords.len()).is_err() {
            return None;
        }
        let mut index = Self {
            bounds,
            coords,
            rings,
            bucket_height: 0.0,
            starts: Vec::new(),
            entries: Vec::new(),
            raster: None,
        };
        // Of a few edges all are looked at as quickly as some.
        let mut buckets = if edges.len() <= FEW_EDGES { 1 } else { edges.len() };
        loop {
            index.bucket_height = (bounds.max[1] - bounds.min[1]) / buckets as f64;
            let total: usize =
                edges.iter().map(|edge| index.span(edge.0, buckets)).map(|(a, b)| b - a + 1).sum();
            if buckets == 1 || total <= MOST_ENTRIES_PER_EDGE * edges.len() {
                index.fill(&edges, buckets, total);
                if edges.len() > FEW_EDGES {
                    let lines = edges
                        .iter()
                        .map(|(at, _)| (index.coords[*at as usize], index.coords[*at as usize + 1]));
                    index.raster =
                        Raster::new(&index.bounds, lines, edges.len(), |at| index.exact_position(at));
                }
                return Some(index);
            }
            buckets = buckets.div_ceil(2);
        }
    }

    fn fill(&mut self, edges: &[(u32, u32)], buckets: usize, total: usize) {
        let mut starts = vec![0_u32; buckets + 1];
        for edge in edges {
            let (low, high) = self.span(edge.0, buckets);
            starts[low..=high].iter_mut().for_each(|count| *count += 1);
        }
        let mut sum = 0;
        for start in &mut starts {
            let count = *start;
            *start = sum;
            sum += count;
        }
        let mut next = starts.clone();
        let mut entries = vec![(0, 0); total];
        for edge in edges {
            let (low, high) = self.span(edge.0, buckets);
            for place in &mut next[low..=high] {
                entries[*place as usize] = *edge;
                *place += 1;
            }
        }
        (self.starts, self.entries) = (starts, entries);
    }

    /// The bucket of a y; monotone in y, so that an edge lies in the bucket of every y that it spans.
    fn bucket(&self, y: f64, buckets: usize) -> usize {
        if self.bucket_height > 0.0 {
            (((y - self.bounds.min[1]) / self.bucket_height) as usize).min(buckets - 1)
        } else {
            0
        }
    }

    fn span(&self, edge: u32, buckets: usize) -> (usize, usize) {
        let (a, b) = (self.coords[edge as usize].y, self.coords[edge as usize + 1].y);
        (self.bucket(a.min(b), buckets), self.bucket(a.max(b), buckets))
    }

    fn buckets(&self) -> usize {
        self.starts.len() - 1
    }

    fn entries_of(&self, bucket: usize) -> &[(u32, u32)] {
        &self.entries[self.starts[bucket] as usize..self.starts[bucket + 1] as usize]
    }

    /// How many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.coords.len() * size_of::<Coord>()
            + self.entries.len() * 8
            + self.starts.len() * 4
            + self.rings.len() * 8
            + self.raster.as_ref().map_or(0, Raster::bytes)
    }

    /// Inside when it is inside one of the polygons, on the boundary when on that of one and inside none.
    pub(crate) fn position(&self, at: Coord) -> CoordPos {
        if !self.bounds.meets(&Bounds::point(at.x, at.y)) {
            return CoordPos::Outside;
        }
        match self.raster.as_ref().map(|raster| raster.cell(at)) {
            Some(Cell::Inside) => CoordPos::Inside,
            Some(Cell::Outside) => CoordPos::Outside,
            Some(Cell::Mixed) | None => self.exact_position(at),
        }
    }

    /// The position by the edges beside a point within the bounds.
    fn exact_position(&self, at: Coord) -> CoordPos {
        let mut best = CoordPos::Outside;
        // What the exterior ring of the polygon at hand says, corrected by its holes.
        let mut polygon = u32::MAX;
        let mut standing = CoordPos::Outside;
        let entries = self.entries_of(self.bucket(at.y, self.buckets()));
        for edges in entries.chunk_by(|a, b| a.1 == b.1) {
            let ring = self.rings[edges[0].1 as usize];
            if ring.polygon != polygon {
                if standing == CoordPos::Inside {
                    return CoordPos::Inside;
                }
                if standing == CoordPos::OnBoundary {
                    best = CoordPos::OnBoundary;
                }
                (polygon, standing) = (ring.polygon, CoordPos::Outside);
            }
            if !ring.hole {
                standing = self.position_in_ring(edges, at);
            } else if standing == CoordPos::Inside {
                standing = match self.position_in_ring(edges, at) {
                    CoordPos::Outside => CoordPos::Inside,
                    CoordPos::OnBoundary => CoordPos::OnBoundary,
                    CoordPos::Inside => CoordPos::Outside,
                };
            }
        }
        if standing == CoordPos::Outside { best } else { standing }
    }

    /// The winding number of the edges of one ring around a point. An edge left of the point does not count, one
    /// right of it counts by its direction; only beside its box the orientation is computed.
    fn position_in_ring(&self, edges: &[(u32, u32)], at: Coord) -> CoordPos {
        let mut winding = 0_i32;
        for (edge, _) in edges {
            let (start, end) = (self.coords[*edge as usize], self.coords[*edge as usize + 1]);
            let up = start.y <= at.y;
            let crosses = if up { end.y >= at.y } else { end.y <= at.y };
            if !crosses || start.x.max(end.x) < at.x {
                continue;
            }
            if start.x.min(end.x) > at.x {
                if up && end.y != at.y {
                    winding += 1;
                } else if !up {
                    winding -= 1;
                }
                continue;
            }
            match RobustKernel::orient2d(start, end, at) {
                // Its box holds the point: collinear means on it.
                Orientation::Collinear => return CoordPos::OnBoundary,
                Orientation::CounterClockwise if up && end.y != at.y => winding += 1,
                Orientation::Clockwise if !up => winding -= 1,
                _ => {}
            }
        }
        if winding == 0 { CoordPos::Outside } else { CoordPos::Inside }
    }

    /// The planar distance to a point when it is at most `limit`, else something greater than `limit`.
    pub(crate) fn distance(&self, at: Coord, limit: f64) -> f64 {
        if self.position(at) != CoordPos::Outside {
            return 0.0;
        }
        let buckets = self.buckets();
        let home = self.bucket(at.y, buckets);
        let mut best = f64::INFINITY;
        let mut hold = |bucket: usize| {
            for (edge, _) in self.entries_of(bucket) {
                let line = Line::new(self.coords[*edge as usize], self.coords[*edge as usize + 1]);
                best = best.min(Euclidean.distance(at, &line));
            }
            best
        };
        let mut known = hold(home);
        // Then the buckets below and above, as long as their edge is not farther than what is known; a bucket counts
        // as a little nearer than it is, for the rounding of its edge.
        let (mut below, mut above) = (home, home + 1);
        loop {
            let bound = known.min(limit);
            let edge_y = |bucket: usize| self.bounds.min[1] + bucket as f64 * self.bucket_height;
            let go_down = below > 0 && at.y - edge_y(below) - self.bucket_height * 1e-3 <= bound;
            let go_up = above < buckets && edge_y(above) - at.y - self.bucket_height * 1e-3 <= bound;
            if !go_down && !go_up {
                return known;
            }
            if go_down {
                below -= 1;
                known = hold(below);
            }
            if go_up {
                known = hold(above);
                above += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::testing::{Random, geometry_of};
    use geo::coordinate_position::CoordinatePosition;
    use geo::{Contains, Intersects, MultiPolygon, Point};

    fn star(random: &mut Random, corners: usize, x: f64, y: f64) -> LineString {
        let ring: Vec<Coord> = (0..corners)
            .map(|corner| {
                let angle = corner as f64 / corners as f64 * std::f64::consts::TAU;
                let radius = 1.0 + 4.0 * random.next();
                Coord { x: x + radius * angle.cos(), y: y + radius * angle.sin() }
            })
            .collect();
        Polygon::new(LineString::new(ring), Vec::new()).exterior().clone()
    }

    fn agrees(geometry: &Geometry, at: Coord) {
        let index = AreaIndex::new(geometry).unwrap();
        let position = index.position(at);
        let point = Point(at);
        assert_eq!(position != CoordPos::Outside, geometry.intersects(&point), "{geometry:?} {at:?}");
        assert_eq!(position == CoordPos::Inside, geometry.contains(&point), "{geometry:?} {at:?}");
        let expected = Euclidean.distance(geometry, &Geometry::Point(point));
        for limit in [f64::INFINITY, expected, expected * 0.5] {
            let found = index.distance(at, limit);
            if expected <= limit {
                assert_eq!(found, expected, "{geometry:?} {at:?}");
            } else {
                assert!(found > limit);
            }
        }
    }

    #[test]
    fn agrees_with_geo_on_stars_with_holes() {
        let mut random = Random::new(17);
        for corners in [3, 4, 9, 60, 400] {
            for _ in 0..10 {
                let hole = star(&mut random, corners, 0.0, 0.0);
                let hole = LineString::new(hole.0.iter().map(|coord| *coord * 0.3).collect());
                let one = Polygon::new(star(&mut random, corners, 0.0, 0.0), vec![hole]);
                let other = Polygon::new(star(&mut random, 5, 12.0, 3.0), Vec::new());
                for geometry in [
                    Geometry::Polygon(one.clone()),
                    Geometry::MultiPolygon(MultiPolygon::new(vec![one.clone(), other])),
                ] {
                    for _ in 0..100 {
                        agrees(
                            &geometry,
                            Coord { x: 20.0 * random.next() - 6.0, y: 14.0 * random.next() - 7.0 },
                        );
                    }
                    for coord in &one.exterior().0 {
                        agrees(&geometry, *coord);
                    }
                }
            }
        }
    }

    #[test]
    fn agrees_with_geo_on_a_grid_where_everything_touches() {
        let mut random = Random::new(19);
        for _ in 0..400 {
            let kind = if random.next() < 0.5 { 2 } else { 5 };
            let geometry = geometry_of(&mut random, kind);
            if AreaIndex::new(&geometry).is_none() {
                continue;
            }
            for x in -1..12 {
                for y in -1..12 {
                    agrees(&geometry, Coord { x: f64::from(x), y: f64::from(y) });
                }
            }
        }
    }

    #[test]
    fn a_point_of_a_shared_corner_is_on_the_boundary() {
        let square = |x: f64| {
            Polygon::new(LineString::from(vec![(x, 0.0), (x + 1.0, 0.0), (x + 1.0, 1.0), (x, 1.0)]), vec![])
        };
        let two = Geometry::MultiPolygon(MultiPolygon::new(vec![square(0.0), square(1.0)]));
        let at = Coord { x: 1.0, y: 0.5 };
        assert_eq!(AreaIndex::new(&two).unwrap().position(at), CoordPos::OnBoundary);
        // By the rule of the odd number `geo` calls it outside, though it intersects.
        assert_eq!(two.coordinate_position(&at), CoordPos::Outside);
    }
}
