//! Set operations on geometries of any type: every node, edge and face of the common arrangement is in the result or
//! not, and the result is what the chosen cells close over.

use geo::{
    Geometry, GeometryCollection, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon,
};

use super::arrangement::{Location, Parts};
use super::polygonize::{compare, lines, order, polygons};
use super::relate::dimension;

/// A set operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Intersection,
    Union,
    Difference,
    SymDifference,
}

impl Operation {
    fn holds(self, a: bool, b: bool) -> bool {
        match self {
            Self::Intersection => a && b,
            Self::Union => a || b,
            Self::Difference => a && !b,
            Self::SymDifference => a != b,
        }
    }
}

/// The input was not valid where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid;

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "a polygon is not valid: its rings cross (st_isvalidreason says where, st_makevalid repairs it)",
        )
    }
}

/// Two geometries joined by a set operation. With `grid`, all coordinates of the result are multiples of it.
///
/// Shells turn counter-clockwise. What is left of lines beside areas and of points beside lines is kept in a
/// collection. An empty result has the type that it would have had. Overlapping members of a collection count as
/// their union; a polygon whose rings cross is refused.
pub(crate) fn overlay(
    a: &Geometry,
    b: &Geometry,
    operation: Operation,
    grid: Option<f64>,
) -> Result<Geometry, Invalid> {
    let empty = |a: i8, b: i8| match operation {
        Operation::Intersection => a.min(b),
        Operation::Difference => a,
        Operation::Union | Operation::SymDifference => a.max(b),
    };
    let mut parts = Parts::default();
    parts.add(a, 0);
    parts.add(b, 1);
    unite(parts, operation, grid, empty(type_dimension(a), type_dimension(b)))
}

/// The union of many geometries.
pub(crate) fn union_all<'a>(
    geometries: impl IntoIterator<Item = &'a Geometry>,
    grid: Option<f64>,
) -> Result<Geometry, Invalid> {
    let mut parts = Parts::default();
    let mut largest = -1;
    for geometry in geometries {
        largest = largest.max(type_dimension(geometry));
        parts.add(geometry, 0);
    }
    unite(parts, Operation::Union, grid, largest)
}

fn unite(
    parts: Parts,
    operation: Operation,
    grid: Option<f64>,
    empty_dimension: i8,
) -> Result<Geometry, Invalid> {
    let plane = parts.arrange(grid);
    if grid.is_none() && plane.turned_inside_out() {
        return Err(Invalid);
    }
    let faces: Vec<bool> = (0..plane.faces() as u32)
        .map(|face| operation.holds(plane.face_in(face, 0), plane.face_in(face, 1)))
        .collect();
    let mut on_area = vec![false; plane.nodes.len()];
    let mut edges = vec![false; plane.edges.len()];
    for (index, edge) in plane.edges.iter().enumerate() {
        let half = index as u32 * 2;
        if faces[plane.face(half) as usize] || faces[plane.face(half ^ 1) as usize] {
            on_area[edge.from as usize] = true;
            on_area[edge.to as usize] = true;
            continue;
        }
        let inside = |input| plane.edge_location(index, input) != Location::Exterior;
        edges[index] = operation.holds(inside(0), inside(1));
    }
    let mut points: Vec<Point> = Vec::new();
    for (index, node) in plane.nodes.iter().enumerate() {
        let inside = |input| plane.node_location(index, input) != Location::Exterior;
        let covered = on_area[index]
            || plane.around[index].iter().any(|half| edges[(half / 2) as usize])
            || (plane.around[index].is_empty()
                && plane.node_area(index).is_some_and(|[a, b]| operation.holds(a, b)));
        if !covered && operation.holds(inside(0), inside(1)) {
            points.push(Point(node.at));
        }
    }
    let areas = polygons(&plane, &faces);
    let strings = lines(&plane, &edges, operation == Operation::Union);
    Ok(assemble(points, strings, areas, empty_dimension))
}

/// The smallest type for what is there: one, many of a kind, or a collection.
pub(crate) fn assemble(
    mut points: Vec<Point>,
    mut strings: Vec<LineString>,
    mut areas: Vec<Polygon>,
    empty_dimension: i8,
) -> Geometry {
    points.sort_by(|a, b| order(&a.0, &b.0));
    points.dedup();
    strings.sort_by(compare);
    let mut kinds: Vec<Geometry> = Vec::new();
    if !points.is_empty() {
        kinds.push(if points.len() == 1 { points.remove(0).into() } else { MultiPoint::new(points).into() });
    }
    if !strings.is_empty() {
        kinds.push(if strings.len() == 1 {
            strings.remove(0).into()
        } else {
            MultiLineString::new(strings).into()
        });
    }
    if !areas.is_empty() {
        kinds.push(if areas.len() == 1 { areas.remove(0).into() } else { MultiPolygon::new(areas).into() });
    }
    if kinds.len() > 1 {
        let members = kinds.into_iter().flat_map(members).collect();
        return Geometry::GeometryCollection(GeometryCollection::new_from(members));
    }
    kinds.pop().unwrap_or_else(|| empty_of(empty_dimension))
}

/// The geometry itself or the members of a multi-part one.
pub(crate) fn members(geometry: Geometry) -> Vec<Geometry> {
    match geometry {
        Geometry::MultiPoint(many) => many.into_iter().map(Into::into).collect(),
        Geometry::MultiLineString(many) => many.into_iter().map(Into::into).collect(),
        Geometry::MultiPolygon(many) => many.into_iter().map(Into::into).collect(),
        Geometry::GeometryCollection(many) => many.into_iter().collect(),
        one => vec![one],
    }
}

/// Nothing, of a dimension; an empty point is a `MultiPoint`, since `geo` has no other.
pub(crate) fn empty_of(dimension: i8) -> Geometry {
    match dimension {
        0 => MultiPoint::new(Vec::new()).into(),
        1 => LineString::new(Vec::new()).into(),
        2 => Polygon::new(LineString::new(Vec::new()), Vec::new()).into(),
        _ => Geometry::GeometryCollection(GeometryCollection::default()),
    }
}

/// The dimension of a type, also when the geometry is empty.
pub(crate) fn type_dimension(geometry: &Geometry) -> i8 {
    match geometry {
        Geometry::Point(_) | Geometry::MultiPoint(_) => 0,
        Geometry::Line(_) | Geometry::LineString(_) | Geometry::MultiLineString(_) => 1,
        Geometry::Polygon(_) | Geometry::MultiPolygon(_) | Geometry::Rect(_) | Geometry::Triangle(_) => 2,
        Geometry::GeometryCollection(members) => {
            members.iter().map(type_dimension).max().unwrap_or_else(|| dimension(geometry))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::{Area, wkt};

    #[test]
    fn keeps_coordinates_and_dimensions() {
        let a: Geometry = wkt! { POLYGON((0. 0.,2. 0.,2. 2.,0. 2.,0. 0.)) }.into();
        let b: Geometry = wkt! { POLYGON((2. 0.,4. 0.,4. 2.,2. 2.,2. 0.)) }.into();
        let edge = overlay(&a, &b, Operation::Intersection, None).unwrap();
        assert_eq!(edge, wkt! { LINESTRING(2. 0.,2. 2.) }.into());
        let both = overlay(&a, &b, Operation::Union, None).unwrap();
        assert_eq!(both.unsigned_area(), 8.0);
        let line: Geometry = wkt! { LINESTRING(-1. 1.,5. 1.) }.into();
        assert_eq!(
            overlay(&line, &both, Operation::Difference, None).unwrap(),
            wkt! { MULTILINESTRING((-1. 1.,0. 1.),(4. 1.,5. 1.)) }.into()
        );
        let point: Geometry = wkt! { POINT(1. 1.) }.into();
        assert_eq!(overlay(&point, &a, Operation::Difference, None).unwrap(), empty_of(0));
        assert_eq!(overlay(&a, &point, Operation::Union, None).unwrap(), a);
    }

    #[test]
    fn a_hole_that_touches_its_shell_stays_a_ring() {
        let a: Geometry = wkt! { POLYGON((0. 0.,4. 0.,4. 4.,0. 4.,0. 0.)) }.into();
        let b: Geometry = wkt! { POLYGON((0. 0.,2. 1.,1. 2.,0. 0.)) }.into();
        let Geometry::Polygon(rest) = overlay(&a, &b, Operation::Difference, None).unwrap() else { panic!() };
        assert_eq!((rest.exterior().0.len(), rest.interiors().len()), (5, 1));
    }

    #[test]
    fn refuses_crossed_rings() {
        let bow_tie: Geometry = wkt! { POLYGON((0. 0.,2. 2.,2. 0.,0. 2.,0. 0.)) }.into();
        assert!(overlay(&bow_tie, &bow_tie, Operation::Union, None).is_err());
    }
}
