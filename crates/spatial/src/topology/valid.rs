//! Validity of geometries (OGC 06-103r4) and repair.

use geo::{Contains, Coord, Geometry, LineString, MultiPolygon, Polygon};

use super::arrangement::{Arrangement, Parts};
use super::overlay::{assemble, members, type_dimension};
use super::polygonize::{lines, polygons};

/// Why a geometry is not valid, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub reason: &'static str,
    pub at: Option<Coord>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            Some(at) => write!(f, "{}[{} {}]", self.reason, at.x, at.y),
            None => f.write_str(self.reason),
        }
    }
}

fn fault(reason: &'static str, at: Option<Coord>) -> Result<(), Fault> {
    Err(Fault { reason, at })
}

/// Checks a geometry; the error is the first fault.
pub(crate) fn check(geometry: &Geometry) -> Result<(), Fault> {
    match geometry {
        Geometry::Line(line) if line.start == line.end => {
            fault("Too few points in geometry component", Some(line.start))
        }
        Geometry::LineString(line) => check_line(line),
        Geometry::MultiLineString(lines) => lines.iter().try_for_each(check_line),
        Geometry::Polygon(polygon) => check_polygon(polygon),
        Geometry::MultiPolygon(polygons) => check_polygons(polygons),
        Geometry::GeometryCollection(members) => members.iter().try_for_each(check),
        _ => Ok(()),
    }
}

fn check_line(line: &LineString) -> Result<(), Fault> {
    match line.0.first() {
        Some(first) if line.0.iter().all(|c| c == first) => {
            fault("Too few points in geometry component", Some(*first))
        }
        _ => Ok(()),
    }
}

fn rings(polygon: &Polygon) -> impl Iterator<Item = &LineString> {
    std::iter::once(polygon.exterior()).chain(polygon.interiors()).filter(|ring| !ring.0.is_empty())
}

fn check_polygon(polygon: &Polygon) -> Result<(), Fault> {
    if polygon.exterior().0.is_empty() {
        return match polygon.interiors().iter().find_map(|hole| hole.0.first()) {
            Some(at) => fault("Hole lies outside shell", Some(*at)),
            None => Ok(()),
        };
    }
    for ring in rings(polygon) {
        check_ring(ring)?;
        check_self_touch(ring)?;
    }
    let mut parts = Parts::default();
    parts.add(&Geometry::Polygon(polygon.clone()), 0);
    let plane = parts.arrange(None);
    check_edges(&plane)?;
    check_windings(&plane, Some(polygon.exterior()))?;
    let inside: Vec<u32> = (0..plane.faces() as u32).filter(|face| plane.winding(*face)[0] == 1).collect();
    if inside.len() > 1 {
        let at = (0..plane.edges.len() as u32 * 2)
            .find(|half| plane.face(*half) == inside[1])
            .map(|half| plane.at(plane.origin(half)));
        return fault("Interior is disconnected", at);
    }
    Ok(())
}

/// Enough different points, and no place passed twice.
fn check_ring(ring: &LineString) -> Result<(), Fault> {
    let mut distinct = ring.0.clone();
    distinct.dedup();
    let first = ring.0.first().copied();
    if distinct.len() < 4 {
        return fault("Too few points in geometry component", first);
    }
    if !ring.is_closed() {
        return fault("Ring is not closed", first);
    }
    Ok(())
}

/// No edge is part of two rings or twice of one.
fn check_edges(plane: &Arrangement) -> Result<(), Fault> {
    match plane.edges.iter().find(|edge| edge.rings[0] > 1) {
        Some(edge) => fault("Self-intersection", Some(plane.at(edge.from))),
        None => Ok(()),
    }
}

/// Inside once or outside: whatever else there is comes from rings that cross or lie in the wrong place.
fn check_windings(plane: &Arrangement, shell: Option<&LineString>) -> Result<(), Fault> {
    let wrong = (0..plane.edges.len() as u32 * 2)
        .find(|half| !(0..=1).contains(&plane.winding(plane.face(*half))[0]));
    if let Some(half) = wrong {
        // A node where four or more edges meet is where rings cross.
        let crossing = (0..plane.nodes.len())
            .find(|node| {
                plane.around[*node].len() > 2
                    && plane.around[*node]
                        .iter()
                        .any(|half| !(0..=1).contains(&plane.winding(plane.face(*half))[0]))
            })
            .map(|node| plane.nodes[node].at);
        let place = plane.at(plane.origin(half));
        return match (crossing, shell) {
            (Some(at), _) => fault("Self-intersection", Some(at)),
            (None, None) => fault("Nested shells", Some(place)),
            (None, Some(shell)) if Polygon::new(shell.clone(), Vec::new()).contains(&place) => {
                fault("Holes are nested", Some(place))
            }
            (None, Some(_)) => fault("Hole lies outside shell", Some(place)),
        };
    }
    Ok(())
}

/// A ring may not pass a place twice, also not without crossing itself.
fn check_self_touch(ring: &LineString) -> Result<(), Fault> {
    let mut parts = Parts::default();
    parts.ring(ring, 0, 1);
    let plane = parts.arrange(None);
    let Some(node) = (0..plane.nodes.len()).find(|node| plane.around[*node].len() != 2) else {
        return Ok(());
    };
    // A ring that crosses itself is inside out somewhere or inside twice; one that only touches itself is not.
    let crosses = (0..plane.faces() as u32).any(|face| !(0..=1).contains(&plane.winding(face)[0]))
        || plane.edges.iter().any(|edge| edge.rings[0] > 1);
    fault(if crosses { "Self-intersection" } else { "Ring Self-intersection" }, Some(plane.nodes[node].at))
}

fn check_polygons(polygons: &MultiPolygon) -> Result<(), Fault> {
    polygons.iter().try_for_each(check_polygon)?;
    if polygons.0.len() < 2 {
        return Ok(());
    }
    let mut parts = Parts::default();
    parts.add(&Geometry::MultiPolygon(polygons.clone()), 0);
    let plane = parts.arrange(None);
    check_edges(&plane)?;
    check_windings(&plane, None)
}

/// Makes a geometry valid without dropping places: rings become areas by the even-odd rule, what of them has no area
/// becomes lines, lines without length become points. A valid geometry comes back as it is.
pub(crate) fn repair(geometry: &Geometry) -> Geometry {
    if check(geometry).is_ok() {
        return geometry.clone();
    }
    if let Geometry::GeometryCollection(members) = geometry {
        return Geometry::GeometryCollection(members.iter().map(repair).collect());
    }
    let mut parts = Parts::default();
    for part in members(geometry.clone()) {
        match part {
            Geometry::Polygon(polygon) => {
                for ring in rings(&polygon) {
                    let mut ring = ring.clone();
                    ring.close();
                    if ring.0.iter().all(|c| Some(c) == ring.0.first()) {
                        parts.line(&ring, 0);
                    } else {
                        parts.ring(&ring, 0, 1);
                    }
                }
            }
            other => parts.add(&other, 0),
        }
    }
    let plane = parts.arrange(None);
    let odd: Vec<bool> =
        (0..plane.faces() as u32).map(|face| plane.winding(face)[0].rem_euclid(2) == 1).collect();
    let bare: Vec<bool> = (0..plane.edges.len() as u32)
        .map(|edge| !odd[plane.face(edge * 2) as usize] && !odd[plane.face(edge * 2 + 1) as usize])
        .collect();
    let alone = plane
        .nodes
        .iter()
        .enumerate()
        .filter(|(index, node)| node.point[0] && plane.around[*index].is_empty());
    let points = alone.map(|(_, node)| node.at.into()).collect();
    assemble(points, lines(&plane, &bare, false), polygons(&plane, &odd), type_dimension(geometry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::{Area, wkt};

    fn reason(geometry: impl Into<Geometry>) -> String {
        check(&geometry.into()).map_or_else(|fault| fault.to_string(), |()| "valid".to_owned())
    }

    #[test]
    fn names_the_fault_and_its_place() {
        assert_eq!(reason(wkt! { POLYGON((0. 0.,4. 0.,4. 4.,0. 4.,0. 0.)) }), "valid");
        assert_eq!(reason(wkt! { POLYGON((0. 0.,2. 2.,2. 0.,0. 2.,0. 0.)) }), "Self-intersection[1 1]");
        assert_eq!(
            reason(wkt! { POLYGON((0. 0.,4. 0.,4. 4.,0. 4.,0. 0.),(5. 5.,6. 5.,6. 6.,5. 5.)) }),
            "Hole lies outside shell[5 5]"
        );
        assert_eq!(
            reason(wkt! { MULTIPOLYGON(((0. 0.,4. 0.,4. 4.,0. 4.,0. 0.)),((1. 1.,2. 1.,2. 2.,1. 1.))) }),
            "Nested shells[1 1]"
        );
        assert_eq!(
            reason(wkt! { POLYGON((0. 0.,4. 0.,4. 4.,0. 4.,0. 0.),(2. 0.,3. 2.,2. 4.,1. 2.,2. 0.)) }),
            "Interior is disconnected[2 0]"
        );
        assert_eq!(reason(wkt! { LINESTRING(1. 1.,1. 1.) }), "Too few points in geometry component[1 1]");
    }

    #[test]
    fn repairs_a_bow_tie_to_its_wings() {
        let bow_tie: Geometry = wkt! { POLYGON((0. 0.,2. 2.,2. 0.,0. 2.,0. 0.)) }.into();
        let repaired = repair(&bow_tie);
        assert!(check(&repaired).is_ok());
        assert_eq!(repaired.unsigned_area(), 2.0);
    }
}
