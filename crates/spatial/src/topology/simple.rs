//! Whether a geometry meets itself only where its type allows it (OGC 06-103r4).

use std::collections::HashMap;

use geo::{Coord, Geometry, LineString};

use super::noding::{Segment, clean, node};

/// Whether a geometry is simple: no point twice, no line that meets itself or another line but in end points. Rings
/// of polygons are looked at one by one.
pub(crate) fn is_simple(geometry: &Geometry) -> bool {
    match geometry {
        Geometry::Point(_) | Geometry::Line(_) | Geometry::Rect(_) | Geometry::Triangle(_) => true,
        Geometry::MultiPoint(points) => {
            let mut seen = std::collections::HashSet::new();
            points.iter().all(|p| seen.insert(((p.x() + 0.0).to_bits(), (p.y() + 0.0).to_bits())))
        }
        Geometry::LineString(line) => are_simple(&[line]),
        Geometry::MultiLineString(lines) => are_simple(&lines.iter().collect::<Vec<_>>()),
        Geometry::Polygon(polygon) => {
            std::iter::once(polygon.exterior()).chain(polygon.interiors()).all(|ring| are_simple(&[ring]))
        }
        Geometry::MultiPolygon(polygons) => {
            polygons.iter().all(|polygon| is_simple(&Geometry::Polygon(polygon.clone())))
        }
        Geometry::GeometryCollection(members) => members.iter().all(is_simple),
    }
}

fn are_simple(lines: &[&LineString]) -> bool {
    let key = |c: Coord| (c.x.to_bits(), c.y.to_bits());
    let mut segments = Vec::new();
    let mut points: Vec<Coord> = Vec::new();
    // How often a place is an end of a line, by place.
    let mut ends: HashMap<(u64, u64), u32> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        let coords: Vec<Coord> = line.0.iter().map(|c| clean(*c)).collect();
        let (Some(first), Some(last)) = (coords.first(), coords.last()) else { continue };
        if coords.iter().all(|c| c == first) {
            points.push(*first);
            continue;
        }
        segments.extend(coords.windows(2).map(|w| Segment { a: w[0], b: w[1], source: number as u32 }));
        if first != last {
            *ends.entry(key(*first)).or_default() += 1;
            *ends.entry(key(*last)).or_default() += 1;
        }
    }
    let mut pieces = std::collections::HashSet::new();
    let mut degree: HashMap<(u64, u64), u32> = HashMap::new();
    for piece in node(segments, &mut points, None) {
        let (a, b) = (key(piece.a), key(piece.b));
        if !pieces.insert((a.min(b), a.max(b))) {
            return false;
        }
        *degree.entry(a).or_default() += 1;
        *degree.entry(b).or_default() += 1;
    }
    degree.iter().all(|(place, degree)| {
        let ends = ends.get(place).copied().unwrap_or(0);
        // One line passes through, or lines only end here.
        (*degree == 2 && ends == 0) || *degree == ends
    })
}
