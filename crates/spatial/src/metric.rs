//! Metres between longitudes and latitudes: a local equirectangular plane at a point, and closest pairs.
//!
//! Lines between two positions are straight in longitude and latitude, as RFC 7946 section 3.1.1 defines them.

use geo::coords_iter::CoordsIter;
use geo::lines_iter::LinesIter;
use geo::{Coord, Geometry, Intersects, Line};

/// The mean radius of the earth in metres (IUGG 1980, Moritz 2000: (2a + b) / 3).
pub const EARTH_MEAN_RADIUS_M: f64 = 6_371_008.8;

/// Metres in one degree of latitude on the mean sphere.
pub(crate) const METRES_PER_DEGREE: f64 = EARTH_MEAN_RADIUS_M * std::f64::consts::PI / 180.0;

/// The plane that touches the sphere at an origin: x metres east, y metres north (equirectangular projection,
/// Snyder 1987, p. 90). Distances from the origin are good to a part in 10,000 up to a few kilometres.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalMetres {
    origin: Coord,
    metres_per_degree_lon: f64,
}

impl LocalMetres {
    pub(crate) fn at(origin: Coord) -> Self {
        Self { origin, metres_per_degree_lon: METRES_PER_DEGREE * origin.y.to_radians().cos().max(0.0) }
    }

    /// Metres per degree of longitude at the origin.
    pub(crate) fn metres_per_degree_lon(self) -> f64 {
        self.metres_per_degree_lon
    }

    /// The place in metres from the origin; the shorter way round the earth.
    pub(crate) fn project(self, coord: Coord) -> Coord {
        let mut degrees = coord.x - self.origin.x;
        if degrees > 180.0 {
            degrees -= 360.0;
        } else if degrees < -180.0 {
            degrees += 360.0;
        }
        Coord { x: degrees * self.metres_per_degree_lon, y: (coord.y - self.origin.y) * METRES_PER_DEGREE }
    }

    /// Distance in metres from the origin to a segment, and how far along the segment (0..=1) the closest place is.
    pub(crate) fn distance_to_segment(self, start: Coord, end: Coord) -> (f64, f64) {
        let (a, b) = (self.project(start), self.project(end));
        let (dx, dy) = (b.x - a.x, b.y - a.y);
        let squared = dx * dx + dy * dy;
        let along = if squared > 0.0 { (-(a.x * dx + a.y * dy) / squared).clamp(0.0, 1.0) } else { 0.0 };
        ((a.x + along * dx).hypot(a.y + along * dy), along)
    }
}

/// The closest places of two geometries in longitude and latitude; equal places where they intersect, `None` when
/// one is empty. The closest place lies at a vertex of one of them, so every vertex is held against every segment.
pub(crate) fn closest_pair(a: &Geometry, b: &Geometry) -> Option<(Coord, Coord)> {
    if let (Geometry::Point(a), Geometry::Point(b)) = (a, b) {
        return Some((a.0, b.0));
    }
    let anywhere = a.coords_iter().next()?;
    b.coords_iter().next()?;
    if a.intersects(b) {
        return Some((anywhere, anywhere));
    }
    let (segments_a, segments_b) = (segments(a), segments(b));
    let mut best: Option<(f64, Coord, Coord)> = None;
    let mut hold = |vertex: Coord, segment: &Line, swapped: bool| {
        let (distance, along) = LocalMetres::at(vertex).distance_to_segment(segment.start, segment.end);
        if best.is_none_or(|(known, ..)| distance < known) {
            let place = segment.start + segment.delta() * along;
            best = Some(if swapped { (distance, place, vertex) } else { (distance, vertex, place) });
        }
    };
    for vertex in a.coords_iter() {
        for segment in &segments_b {
            hold(vertex, segment, false);
        }
    }
    for vertex in b.coords_iter() {
        for segment in &segments_a {
            hold(vertex, segment, true);
        }
    }
    best.map(|(_, from, to)| (from, to))
}

/// Lines and rings as segments; a point as a segment of no length.
pub(crate) fn segments(geometry: &Geometry) -> Vec<Line> {
    match geometry {
        Geometry::Point(point) => vec![Line::new(point.0, point.0)],
        Geometry::MultiPoint(points) => points.iter().map(|point| Line::new(point.0, point.0)).collect(),
        Geometry::Line(line) => vec![*line],
        Geometry::LineString(line) => line.lines().collect(),
        Geometry::MultiLineString(lines) => lines.lines_iter().collect(),
        Geometry::Polygon(polygon) => polygon.lines_iter().collect(),
        Geometry::MultiPolygon(polygons) => polygons.lines_iter().collect(),
        Geometry::Rect(rect) => rect.lines_iter().collect(),
        Geometry::Triangle(triangle) => triangle.lines_iter().collect(),
        Geometry::GeometryCollection(members) => members.iter().flat_map(segments).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::{Distance, Haversine, line_string, point};

    #[test]
    fn a_local_plane_agrees_with_the_sphere_nearby() {
        let helsinki = Coord { x: 24.9384, y: 60.1699 };
        let plane = LocalMetres::at(helsinki);
        for (dx, dy) in [(0.01, 0.0), (0.0, 0.01), (-0.02, 0.015)] {
            let there = Coord { x: helsinki.x + dx, y: helsinki.y + dy };
            let sphere = Haversine.distance(helsinki.into(), there.into());
            let flat = plane.project(there).x.hypot(plane.project(there).y);
            assert!((flat - sphere).abs() / sphere < 3e-4, "{flat} {sphere}");
        }
    }

    #[test]
    fn crosses_the_antimeridian() {
        let plane = LocalMetres::at(Coord { x: 179.999, y: 0.0 });
        assert!((plane.project(Coord { x: -179.999, y: 0.0 }).x - 0.002 * METRES_PER_DEGREE).abs() < 1e-6);
    }

    #[test]
    fn finds_the_foot_on_a_line() {
        let line = line_string![(x: 0.0, y: 0.0), (x: 1.0, y: 0.0)].into();
        let (from, to) = closest_pair(&point! { x: 0.25, y: 0.001 }.into(), &line).unwrap();
        assert_eq!(from, Coord { x: 0.25, y: 0.001 });
        assert!((to.x - 0.25).abs() < 1e-12 && to.y == 0.0);
    }
}
