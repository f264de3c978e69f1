//! Random geometries on a small grid, so that corners, edges and whole shapes often touch.

use geo::{
    Coord, Geometry, GeometryCollection, LineString, MultiLineString, MultiPoint, MultiPolygon, Point,
    Polygon,
};

/// A small deterministic generator (Knuth's MMIX constants), so that a failure can be repeated.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// In 0..1.
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In 0..below.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        (self.next() * below as f64) as usize
    }
}

fn coord(random: &mut Random) -> Coord {
    Coord { x: random.below(11) as f64, y: random.below(11) as f64 }
}

fn line(random: &mut Random) -> LineString {
    let count = 2 + random.below(3);
    let mut coords = vec![coord(random)];
    while coords.len() < count {
        let next = coord(random);
        if coords.last() != Some(&next) {
            coords.push(next);
        }
    }
    LineString::new(coords)
}

/// A rectangle or a triangle, sometimes with a hole; always valid.
fn polygon(random: &mut Random, from: Coord, size: f64) -> Polygon {
    let (w, h) = (1.0 + random.below(size as usize) as f64, 1.0 + random.below(size as usize) as f64);
    let at = |dx: f64, dy: f64| Coord { x: from.x + dx, y: from.y + dy };
    let ring = if random.next() < 0.3 {
        vec![at(0.0, 0.0), at(w, 0.0), at(0.0, h)]
    } else {
        vec![at(0.0, 0.0), at(w, 0.0), at(w, h), at(0.0, h)]
    };
    let holes = if ring.len() == 4 && w >= 3.0 && h >= 3.0 && random.next() < 0.5 {
        vec![LineString::new(vec![at(1.0, 1.0), at(2.0, 1.0), at(2.0, 2.0), at(1.0, 2.0)])]
    } else {
        Vec::new()
    };
    Polygon::new(LineString::new(ring), holes)
}

/// A geometry of one kind: point, line, polygon, then several of each, a collection, and last an empty one.
pub(crate) fn geometry_of(random: &mut Random, kind: usize) -> Geometry {
    match kind {
        0 => Point(coord(random)).into(),
        1 => line(random).into(),
        2 => {
            let from = coord(random);
            polygon(random, from, 5.0).into()
        }
        3 => {
            let count = 1 + random.below(3);
            MultiPoint::new((0..count).map(|_| Point(coord(random))).collect()).into()
        }
        4 => {
            let count = 1 + random.below(2);
            MultiLineString::new((0..count).map(|_| line(random)).collect()).into()
        }
        5 => {
            // Far enough apart to stay valid, close enough to touch.
            let count = 1 + random.below(3);
            let y = random.below(8) as f64;
            let polygons = (0..count).map(|i| polygon(random, Coord { x: 4.0 * i as f64, y }, 4.0)).collect();
            MultiPolygon::new(polygons).into()
        }
        6 => {
            let members = vec![geometry_of(random, 0), geometry_of(random, 1)];
            Geometry::GeometryCollection(GeometryCollection::new_from(members))
        }
        _ => match random.below(3) {
            0 => MultiPoint::new(Vec::new()).into(),
            1 => LineString::new(Vec::new()).into(),
            _ => Polygon::new(LineString::new(Vec::new()), Vec::new()).into(),
        },
    }
}

/// A geometry of any kind; one in sixteen is empty.
pub(crate) fn geometry(random: &mut Random) -> Geometry {
    let kind = random.below(16);
    geometry_of(random, if kind < 14 { kind % 7 } else { kind - 8 })
}
