//! Which of many geometries lies nearest to a position: a packed R-tree with exact distances in metres.

use arrow::array::{Array, BinaryArray};
use geo::coords_iter::CoordsIter;
use geo::{BoundingRect, Contains, Coord, Geometry, LineString, Point};
use geo_index::rtree::sort::HilbertSort;
use geo_index::rtree::{RTree, RTreeBuilder, RTreeIndex};
use twinlake_contracts::{Error, Result};

use crate::geometry;
use crate::metric::{LocalMetres, METRES_PER_DEGREE};

/// The first ring searched; wider rings follow until one holds a hit or the bound is reached.
const FIRST_RADIUS_M: f64 = 50.0;

/// What was found nearest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// The row in the array that the index was built from.
    pub row: usize,
    /// Distance in metres to the closest place of the geometry; 0 inside a polygon.
    pub distance_m: f64,
    /// Where the closest place is along the geometry's lines, as a fraction of their length, 0..=1; 0 for points
    /// and inside polygons.
    pub fraction: f64,
    /// The direction of the line at the closest place, in degrees clockwise from north, 0..360; `None` for points
    /// and inside polygons.
    pub bearing_deg: Option<f64>,
}

/// An index over geometries in longitude and latitude (`OGC:CRS84`).
///
/// Distances are exact from the position to each point, line or ring in the local equirectangular plane at the
/// position (see [`crate::EARTH_MEAN_RADIUS_M`]), so they hold for radii of some kilometres. Equal distances go to the
/// smallest row: the same input always gives the same answer.
pub struct NearestIndex {
    tree: Option<RTree<f64>>,
    /// The row and the geometry of each entry of the tree.
    entries: Vec<(usize, Geometry)>,
}

impl std::fmt::Debug for NearestIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NearestIndex").field("geometries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl NearestIndex {
    /// Builds the index from WKB. Null and empty geometries are never found. Damaged WKB or a latitude beyond ±90°
    /// is an `invalid_geometry` error that names the row.
    pub fn build(geometries: &BinaryArray) -> Result<Self> {
        let mut entries = Vec::with_capacity(geometries.len());
        for row in 0..geometries.len() {
            if geometries.is_null(row) {
                continue;
            }
            let in_row = |error: Error| Error::data("invalid_geometry", format!("row {row}: {error}"));
            let geometry = geometry::decode(geometries.value(row)).map_err(in_row)?;
            if let Some(bad) =
                geometry.coords_iter().find(|coord| coord.y.abs() > 90.0 || coord.x.abs() > 360.0)
            {
                return Err(Error::data(
                    "invalid_geometry",
                    format!("row {row}: ({}, {}) is not longitude and latitude in degrees", bad.x, bad.y),
                ));
            }
            if geometry.coords_iter().next().is_some() {
                entries.push((row, geometry));
            }
        }
        let count = u32::try_from(entries.len())
            .map_err(|_| Error::config("a nearest-neighbour index holds at most 4,294,967,295 geometries"))?;
        if count == 0 {
            return Ok(Self { tree: None, entries });
        }
        let mut builder = RTreeBuilder::<f64>::new(count);
        for (_, geometry) in &entries {
            // Not empty, so it has a bounding box.
            let bounds = geometry.bounding_rect().unwrap_or_else(|| geo::Rect::new((0.0, 0.0), (0.0, 0.0)));
            builder.add(bounds.min().x, bounds.min().y, bounds.max().x, bounds.max().y);
        }
        Ok(Self { tree: Some(builder.finish::<HilbertSort>()), entries })
    }

    /// How many geometries can be found.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The nearest geometry within `max_distance_m` metres; `None` when there is none or the position is not finite.
    pub fn nearest(&self, longitude: f64, latitude: f64, max_distance_m: f64) -> Option<Nearest> {
        let position = Coord { x: longitude, y: latitude };
        if !longitude.is_finite() || !latitude.is_finite() || max_distance_m.is_nan() {
            return None;
        }
        let mut radius = max_distance_m.min(FIRST_RADIUS_M);
        loop {
            let best = self
                .candidates(position, radius)
                .into_iter()
                .filter_map(|entry| self.measure(entry, position))
                .filter(|found| found.distance_m <= radius)
                .min_by(order);
            if best.is_some() || radius >= max_distance_m {
                return best;
            }
            radius = (radius * 4.0).min(max_distance_m);
        }
    }

    /// All geometries within `max_distance_m` metres, nearest first, equal distances by row.
    pub fn within(&self, longitude: f64, latitude: f64, max_distance_m: f64) -> Vec<Nearest> {
        let position = Coord { x: longitude, y: latitude };
        if !longitude.is_finite() || !latitude.is_finite() || max_distance_m.is_nan() {
            return Vec::new();
        }
        let mut found: Vec<Nearest> = self
            .candidates(position, max_distance_m)
            .into_iter()
            .filter_map(|entry| self.measure(entry, position))
            .filter(|found| found.distance_m <= max_distance_m)
            .collect();
        found.sort_by(order);
        found
    }

    /// Entries whose bounding box comes within `radius` metres; complete, since in the local plane a distance is
    /// never shorter than its part along either axis.
    fn candidates(&self, position: Coord, radius: f64) -> Vec<usize> {
        let Some(tree) = &self.tree else { return Vec::new() };
        // A hair wider than asked, so that rounding never loses a geometry at exactly the radius.
        let radius = radius.max(0.0) * (1.0 + 1e-9) + 1e-6;
        let north = radius / METRES_PER_DEGREE;
        let east = (radius / LocalMetres::at(position).metres_per_degree_lon()).min(180.0);
        let mut found: Vec<usize> = Vec::new();
        for turn in [-360.0, 0.0, 360.0] {
            let longitude = position.x + turn;
            let hits =
                tree.search(longitude - east, position.y - north, longitude + east, position.y + north);
            found.extend(hits.into_iter().map(|index| index as usize));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn measure(&self, entry: usize, position: Coord) -> Option<Nearest> {
        let (row, geometry) = &self.entries[entry];
        let mut closest = Closest::new(LocalMetres::at(position));
        closest.add(geometry, position);
        closest.finish(*row)
    }
}

fn order(a: &Nearest, b: &Nearest) -> std::cmp::Ordering {
    a.distance_m.total_cmp(&b.distance_m).then(a.row.cmp(&b.row))
}

/// The closest place met so far, and how many metres of line came before it.
struct Closest {
    plane: LocalMetres,
    travelled_m: f64,
    best: Option<Best>,
}

struct Best {
    distance_m: f64,
    at_m: f64,
    bearing_deg: Option<f64>,
}

impl Closest {
    fn new(plane: LocalMetres) -> Self {
        Self { plane, travelled_m: 0.0, best: None }
    }

    fn offer(&mut self, distance_m: f64, at_m: f64, bearing_deg: Option<f64>) {
        if self.best.as_ref().is_none_or(|known| distance_m < known.distance_m) {
            self.best = Some(Best { distance_m, at_m, bearing_deg });
        }
    }

    fn line(&mut self, line: &LineString) {
        for segment in line.lines() {
            let (distance, along) = self.plane.distance_to_segment(segment.start, segment.end);
            let (a, b) = (self.plane.project(segment.start), self.plane.project(segment.end));
            let (east, north) = (b.x - a.x, b.y - a.y);
            let length = east.hypot(north);
            let bearing = (length > 0.0).then(|| (east.atan2(north).to_degrees() + 360.0) % 360.0);
            self.offer(distance, self.travelled_m + along * length, bearing);
            self.travelled_m += length;
        }
    }

    fn point(&mut self, point: Point) {
        let place = self.plane.project(point.0);
        self.offer(place.x.hypot(place.y), self.travelled_m, None);
    }

    fn add(&mut self, geometry: &Geometry, position: Coord) {
        match geometry {
            Geometry::Point(point) => self.point(*point),
            Geometry::MultiPoint(points) => points.iter().for_each(|point| self.point(*point)),
            Geometry::Line(line) => self.line(&LineString::from(*line)),
            Geometry::LineString(line) => self.line(line),
            Geometry::MultiLineString(lines) => lines.iter().for_each(|line| self.line(line)),
            Geometry::Polygon(polygon) => {
                if polygon.contains(&position) {
                    self.offer(0.0, self.travelled_m, None);
                }
                self.line(polygon.exterior());
                polygon.interiors().iter().for_each(|ring| self.line(ring));
            }
            Geometry::MultiPolygon(polygons) => {
                for polygon in polygons {
                    self.add(&polygon.clone().into(), position);
                }
            }
            Geometry::Rect(rect) => self.add(&rect.to_polygon().into(), position),
            Geometry::Triangle(triangle) => self.add(&triangle.to_polygon().into(), position),
            Geometry::GeometryCollection(members) => {
                members.iter().for_each(|member| self.add(member, position));
            }
        }
    }

    fn finish(self, row: usize) -> Option<Nearest> {
        let best = self.best?;
        let fraction =
            if self.travelled_m > 0.0 { (best.at_m / self.travelled_m).clamp(0.0, 1.0) } else { 0.0 };
        Some(Nearest { row, distance_m: best.distance_m, fraction, bearing_deg: best.bearing_deg })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::encode;
    use geo::{line_string, point, polygon};

    /// A small deterministic generator (Knuth's MMIX constants), so that a failure can be repeated.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    fn array(geometries: &[Geometry]) -> BinaryArray {
        geometries.iter().map(|geometry| Some(encode(geometry))).collect()
    }

    #[test]
    fn agrees_with_holding_the_position_against_every_line() {
        let mut random = Random(7);
        let lines: Vec<Geometry> = (0..2_000)
            .map(|_| {
                let mut at = Coord { x: 24.8 + 0.3 * random.next(), y: 60.1 + 0.15 * random.next() };
                let mut coords = vec![at];
                for _ in 0..4 {
                    at = Coord {
                        x: at.x + 0.004 * (random.next() - 0.5),
                        y: at.y + 0.002 * (random.next() - 0.5),
                    };
                    coords.push(at);
                }
                LineString::new(coords).into()
            })
            .collect();
        let index = NearestIndex::build(&array(&lines)).unwrap();
        for bound in [5.0, 60.0, 2_000.0] {
            for _ in 0..300 {
                let position = Coord { x: 24.75 + 0.4 * random.next(), y: 60.05 + 0.25 * random.next() };
                let expected = (0..lines.len())
                    .filter_map(|entry| index.measure(entry, position))
                    .filter(|found| found.distance_m <= bound)
                    .min_by(order);
                assert_eq!(index.nearest(position.x, position.y, bound), expected);
                assert_eq!(index.within(position.x, position.y, bound).first().copied(), expected);
            }
        }
    }

    #[test]
    fn says_how_far_along_and_in_which_direction() {
        let line = line_string![(x: 24.0, y: 60.0), (x: 24.0, y: 60.01), (x: 24.0, y: 60.04)];
        let index = NearestIndex::build(&array(&[line.into()])).unwrap();
        let found = index.nearest(24.001, 60.02, 100.0).unwrap();
        assert!((found.distance_m - 0.001 * METRES_PER_DEGREE * 60.02_f64.to_radians().cos()).abs() < 1e-6);
        assert!((found.fraction - 0.5).abs() < 1e-9);
        assert_eq!(found.bearing_deg, Some(0.0));
        assert_eq!(index.nearest(24.001, 60.02, 10.0), None);
    }

    #[test]
    fn a_tie_goes_to_the_smallest_row_and_null_or_empty_is_never_found() {
        let there = encode(&line_string![(x: 1.0, y: 1.0), (x: 2.0, y: 1.0)].into());
        let back = encode(&line_string![(x: 2.0, y: 1.0), (x: 1.0, y: 1.0)].into());
        let empty = encode(&LineString::new(Vec::new()).into());
        let rows = [None, Some(empty), Some(back.clone()), Some(there), Some(back)];
        let index = NearestIndex::build(&rows.into_iter().collect()).unwrap();
        assert_eq!(index.len(), 3);
        assert_eq!(index.nearest(1.5, 1.0001, 1_000.0).unwrap().row, 2);
        assert!(NearestIndex::build(&BinaryArray::from(Vec::<Option<&[u8]>>::new())).unwrap().is_empty());
    }

    #[test]
    fn points_and_polygons_are_found_too() {
        let square = polygon![(x: 0.0, y: 0.0), (x: 0.1, y: 0.0), (x: 0.1, y: 0.1), (x: 0.0, y: 0.1)];
        let index = NearestIndex::build(&array(&[square.into(), point! { x: 0.2, y: 0.2 }.into()])).unwrap();
        let inside = index.nearest(0.05, 0.05, 10.0).unwrap();
        assert_eq!((inside.row, inside.distance_m, inside.bearing_deg), (0, 0.0, None));
        assert_eq!(index.nearest(0.2, 0.2001, 100.0).unwrap().row, 1);
    }

    #[test]
    fn sees_across_the_antimeridian() {
        let index = NearestIndex::build(&array(&[point! { x: -179.9999, y: 0.0 }.into()])).unwrap();
        assert!(index.nearest(179.9999, 0.0, 100.0).is_some_and(|found| found.distance_m < 30.0));
    }

    #[test]
    fn names_the_row_at_fault() {
        let rows = [Some(encode(&point! { x: 1.0, y: 2.0 }.into())), Some(vec![1, 2])];
        let error = NearestIndex::build(&rows.into_iter().collect()).unwrap_err().to_string();
        assert!(error.contains("row 1"), "{error}");
        let metres = array(&[point! { x: 25_496_000.0, y: 6_672_000.0 }.into()]);
        assert!(NearestIndex::build(&metres).unwrap_err().to_string().contains("not longitude"));
    }
}
