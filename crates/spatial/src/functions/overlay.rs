//! Set operations, validity, repair, and what lines enclose. Sources and rules: `topology`.

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, StringArray};
use datafusion::common::Result;
use geo::{
    BoundingRect, Coord, Geometry, GeometryCollection, LineString, MultiLineString, MultiPoint, Point,
    Polygon,
};

use super::construct::shapes_of;
use super::st_makeenvelope::rectangle;
use crate::call::Call;
use crate::definition::{BOOLEAN, Definition, Kind, Output, Parameter, UTF8};
use crate::geometry::{encode, lines as lines_of};
use crate::topology::arrangement::Parts;
use crate::topology::overlay::{Operation, assemble, empty_of, overlay, union_all};
use crate::topology::polygonize;
use crate::topology::simple::is_simple;
use crate::topology::valid;

const ONE: &[&[Parameter]] = &[&[("geometry", Kind::Geometry)]];
const A: Parameter = ("a", Kind::Geometry);
const B: Parameter = ("b", Kind::Geometry);
const GRID: Parameter = ("grid_size", Kind::Number);

pub(crate) static INTERSECTION: Definition = Definition::new(
    "st_intersection",
    "What a and b have in common; with a grid size its coordinates are multiples of that",
    &[&[A, B], &[A, B, GRID]],
    Output::Geometry,
    |call| combine(call, Operation::Intersection),
);

pub(crate) static DIFFERENCE: Definition = Definition::new(
    "st_difference",
    "What of a is not in b; with a grid size its coordinates are multiples of that",
    &[&[A, B], &[A, B, GRID]],
    Output::Geometry,
    |call| combine(call, Operation::Difference),
);

pub(crate) static SYM_DIFFERENCE: Definition = Definition::new(
    "st_symdifference",
    "What is in one of a and b but not in both; with a grid size its coordinates are multiples of that",
    &[&[A, B], &[A, B, GRID]],
    Output::Geometry,
    |call| combine(call, Operation::SymDifference),
);

pub(crate) static UNION: Definition = Definition::new(
    "st_union",
    "All that is in a or b, without borders between; of a list all its members; over a group it is the aggregate st_union_agg",
    &[&[("geometries", Kind::Geometries)], &[A, B], &[A, B, GRID]],
    Output::Geometry,
    |call| {
        if call.arity() > 1 {
            return combine(call, Operation::Union);
        }
        let lists = call.lists(0)?;
        call.rows::<BinaryArray, _>(|row| {
            let Some(items) = lists.get(row) else { return Ok(None) };
            let members: Vec<Geometry> =
                shapes_of(call, &items)?.iter().map(crate::shape::Shape::to_plane).collect();
            if members.is_empty() {
                return Ok(None);
            }
            finish(call, union_all(&members, None))
        })
    },
);

pub(crate) static UNARY_UNION: Definition = Definition::new(
    "st_unaryunion",
    "The union of a geometry's own members: areas without borders between, lines cut where they meet",
    &[&[("geometry", Kind::Geometry)], &[("geometry", Kind::Geometry), GRID]],
    Output::Geometry,
    |call| {
        let geometries = call.geometries(0)?;
        let grids = if call.arity() > 1 { Some(call.numbers(1)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let Some(geometry) = geometries.get(row)? else { return Ok(None) };
            let grid = match &grids {
                Some(grids) => match grids.get(row) {
                    Some(grid) => grid_size(call, grid)?,
                    None => return Ok(None),
                },
                None => None,
            };
            finish(call, union_all([&*geometry], grid))
        })
    },
);

fn grid_size(call: &Call<'_>, grid: f64) -> Result<Option<f64>> {
    match grid {
        grid if grid.is_finite() && grid > 0.0 => Ok(Some(grid)),
        // PostGIS writes -1 for none.
        grid if grid == 0.0 || grid == -1.0 => Ok(None),
        other => call.error(format!("the grid size {other} is not a length")),
    }
}

fn combine(call: &Call<'_>, operation: Operation) -> Result<ArrayRef> {
    let (left, right) = (call.geometries(0)?, call.geometries(1)?);
    let grids = if call.arity() > 2 { Some(call.numbers(2)?) } else { None };
    call.rows::<BinaryArray, _>(|row| {
        let (Some(a), Some(b)) = (left.get(row)?, right.get(row)?) else { return Ok(None) };
        let grid = match &grids {
            Some(grids) => match grids.get(row) {
                Some(grid) => grid_size(call, grid)?,
                None => return Ok(None),
            },
            None => None,
        };
        finish(call, overlay(&a, &b, operation, grid))
    })
}

fn finish(
    call: &Call<'_>,
    result: std::result::Result<Geometry, crate::topology::overlay::Invalid>,
) -> Result<Option<Vec<u8>>> {
    match result {
        Ok(geometry) => Ok(Some(encode(&geometry))),
        Err(invalid) => call.error(invalid),
    }
}

pub(crate) static CLIP: Definition = Definition::new(
    "st_clipbybox2d",
    "What of a geometry lies in the bounding box of another one",
    &[&[("geometry", Kind::Geometry), ("box", Kind::Geometry)]],
    Output::Geometry,
    |call| {
        call.pairs::<BinaryArray, _>(|geometry, bounds| {
            let Some(bounds) = bounds.bounding_rect() else { return Ok(Some(encode(&empty_of(-1)))) };
            let (min, max) = (bounds.min(), bounds.max());
            if geometry.bounding_rect().is_some_and(|r| {
                r.min().x >= min.x && r.min().y >= min.y && r.max().x <= max.x && r.max().y <= max.y
            }) {
                return Ok(Some(encode(geometry)));
            }
            let window = rectangle(min.x, min.y, max.x, max.y).into();
            finish(call, overlay(geometry, &window, Operation::Intersection, None))
        })
    },
);

pub(crate) static IS_VALID: Definition = Definition::new(
    "st_isvalid",
    "Whether a geometry is valid: rings closed and without crossings, holes inside, members of a multi-polygon apart (OGC 06-103r4)",
    ONE,
    BOOLEAN,
    |call| faults(call, |fault| fault.is_none()),
);

fn faults(call: &Call<'_>, say: fn(Option<String>) -> bool) -> Result<ArrayRef> {
    let bytes = call.bytes(0)?;
    call.rows::<BooleanArray, _>(|row| {
        Ok(match bytes.get(row) {
            Some(bytes) => Some(say(fault(call, bytes)?)),
            None => None,
        })
    })
}

/// Why WKB is not a valid geometry; also what other functions refuse to read.
fn fault(call: &Call<'_>, bytes: &[u8]) -> Result<Option<String>> {
    let shape = call.shape(bytes)?;
    if shape.positions().iter().any(|p| !p[0].is_finite() || !p[1].is_finite()) {
        return Ok(Some("Invalid Coordinate".to_owned()));
    }
    Ok(valid::check(&shape.to_plane()).err().map(|fault| fault.to_string()))
}

pub(crate) static IS_VALID_REASON: Definition = Definition::new(
    "st_isvalidreason",
    "'Valid Geometry', or what is wrong first and where",
    ONE,
    UTF8,
    |call| {
        let bytes = call.bytes(0)?;
        call.rows::<StringArray, _>(|row| match bytes.get(row) {
            Some(bytes) => Ok(Some(fault(call, bytes)?.unwrap_or_else(|| "Valid Geometry".to_owned()))),
            None => Ok(None),
        })
    },
);

pub(crate) static MAKE_VALID: Definition = Definition::new(
    "st_makevalid",
    "A valid geometry over the same coordinates: areas by the even-odd rule, what has no area as lines, what has no length as points",
    ONE,
    Output::Geometry,
    |call| {
        let bytes = call.bytes(0)?;
        call.rows::<BinaryArray, _>(|row| {
            let Some(bytes) = bytes.get(row) else { return Ok(None) };
            let shape = call.shape(bytes)?;
            if shape.positions().iter().any(|p| !p[0].is_finite() || !p[1].is_finite()) {
                return call.error("a coordinate is not finite");
            }
            let geometry = shape.to_plane();
            if valid::check(&geometry).is_ok() {
                return Ok(Some(shape.encode()));
            }
            Ok(Some(encode(&valid::repair(&geometry))))
        })
    },
);

pub(crate) static IS_SIMPLE: Definition = Definition::new(
    "st_issimple",
    "Whether a geometry meets itself nowhere but at the ends of lines, and has no point twice",
    ONE,
    BOOLEAN,
    |call| call.each_shape::<BooleanArray, _>(|shape| Ok(Some(is_simple(&shape.to_plane())))),
);

pub(crate) static BOUNDARY: Definition = Definition::new(
    "st_boundary",
    "The ends of lines (those of an odd number of lines), the rings of areas; empty for points; collections are refused",
    ONE,
    Output::Geometry,
    |call| {
        call.each::<BinaryArray, _>(|geometry| match boundary(geometry) {
            Some(boundary) => Ok(Some(encode(&boundary))),
            None => call.error("a collection has no boundary of its own"),
        })
    },
);

fn boundary(geometry: &Geometry) -> Option<Geometry> {
    Some(match geometry {
        Geometry::GeometryCollection(members) if !members.0.is_empty() => return None,
        Geometry::LineString(_) | Geometry::MultiLineString(_) => {
            let mut ends: Vec<Coord> = lines_of(geometry)
                .into_iter()
                .filter_map(|line| Some([*line.0.first()?, *line.0.last()?]))
                .flatten()
                .collect();
            ends.sort_by(polygonize::order);
            let odd: Vec<Point> = ends
                .chunk_by(|a, b| a == b)
                .filter(|same| same.len() % 2 == 1)
                .map(|same| Point(same[0]))
                .collect();
            if odd.is_empty() {
                MultiPoint::new(odd).into()
            } else {
                assemble(odd, Vec::new(), Vec::new(), 0)
            }
        }
        Geometry::Polygon(polygon) => ring_lines([polygon]),
        Geometry::MultiPolygon(polygons) => ring_lines(polygons),
        _ => Geometry::GeometryCollection(GeometryCollection::default()),
    })
}

fn ring_lines<'a>(polygons: impl IntoIterator<Item = &'a Polygon>) -> Geometry {
    let mut rings: Vec<LineString> = polygons
        .into_iter()
        .flat_map(|polygon| std::iter::once(polygon.exterior()).chain(polygon.interiors()).cloned())
        .filter(|ring| !ring.0.is_empty())
        .collect();
    match rings.len() {
        0 => empty_of(1),
        1 => rings.remove(0).into(),
        _ => MultiLineString::new(rings).into(),
    }
}

pub(crate) static NODE: Definition = Definition::new(
    "st_node",
    "Lines cut where they meet each other, each part once",
    ONE,
    Output::Geometry,
    |call| {
        call.each::<BinaryArray, _>(|geometry| {
            let noded = arranged_lines(geometry, true);
            Ok(Some(encode(&if noded.is_empty() { empty_of(1) } else { MultiLineString::new(noded).into() })))
        })
    },
);

fn arranged_lines(geometry: &Geometry, keep_nodes: bool) -> Vec<LineString> {
    let mut parts = Parts::default();
    for line in lines_of(geometry) {
        parts.line(line, 0);
    }
    let plane = parts.arrange(None);
    let all = vec![true; plane.edges.len()];
    polygonize::lines(&plane, &all, keep_nodes)
}

pub(crate) static LINE_MERGE: Definition = Definition::new(
    "st_linemerge",
    "Lines joined where exactly two of them end, without cutting any; what is not a line is left out",
    ONE,
    Output::Geometry,
    |call| {
        call.each::<BinaryArray, _>(|geometry| Ok(Some(encode(&assemble_lines(merge(lines_of(geometry)))))))
    },
);

fn assemble_lines(mut lines: Vec<LineString>) -> Geometry {
    match lines.len() {
        0 => Geometry::GeometryCollection(GeometryCollection::default()),
        1 => lines.remove(0).into(),
        _ => MultiLineString::new(lines).into(),
    }
}

/// Joins lines end to end; a place where three or more end stays an end.
fn merge(lines: Vec<&LineString>) -> Vec<LineString> {
    use std::collections::HashMap;
    let key = |c: &Coord| ((c.x + 0.0).to_bits(), (c.y + 0.0).to_bits());
    let lines: Vec<&LineString> =
        lines.into_iter().filter(|line| line.0.windows(2).any(|w| w[0] != w[1])).collect();
    let mut ends: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        for end in [line.0.first(), line.0.last()].into_iter().flatten() {
            ends.entry(key(end)).or_default().push(index);
        }
    }
    let mut used = vec![false; lines.len()];
    let mut merged = Vec::new();
    // From loose ends first, then what is left are circles.
    let mut starts: Vec<usize> = (0..lines.len())
        .filter(|i| {
            [lines[*i].0.first(), lines[*i].0.last()].into_iter().flatten().any(|c| ends[&key(c)].len() != 2)
        })
        .collect();
    starts.extend(0..lines.len());
    for start in starts {
        if used[start] {
            continue;
        }
        used[start] = true;
        let mut coords = lines[start].0.clone();
        if coords.first().is_some_and(|c| ends[&key(c)].len() == 2)
            && coords.last().is_some_and(|c| ends[&key(c)].len() != 2)
        {
            coords.reverse();
        }
        while let Some(tail) = coords.last().copied() {
            let here = &ends[&key(&tail)];
            if here.len() != 2 {
                break;
            }
            let Some(next) = here.iter().find(|i| !used[**i]).copied() else { break };
            used[next] = true;
            let mut more = lines[next].0.clone();
            if more.first() != Some(&tail) {
                more.reverse();
            }
            coords.extend(more.into_iter().skip(1));
        }
        merged.push(LineString::new(coords));
    }
    merged
}

pub(crate) static POLYGONIZE: Definition = Definition::new(
    "st_polygonize",
    "The areas that lines and rings enclose, as a collection of polygons; lines are cut where they meet",
    ONE,
    Output::Geometry,
    |call| {
        call.each::<BinaryArray, _>(|geometry| {
            let mut parts = Parts::default();
            for line in lines_of(geometry) {
                parts.line(line, 0);
            }
            if let Geometry::Polygon(_) | Geometry::MultiPolygon(_) = geometry {
                parts.add(geometry, 0);
            }
            let plane = parts.arrange(None);
            let faces = polygonize::faces(&plane, |_| true).into_iter().map(Geometry::from).collect();
            Ok(Some(encode(&Geometry::GeometryCollection(GeometryCollection::new_from(faces)))))
        })
    },
);

pub(crate) static SPLIT: Definition = Definition::new(
    "st_split",
    "A line or polygon cut by a line, or a line cut at points, as a collection of the parts",
    &[&[("geometry", Kind::Geometry), ("blade", Kind::Geometry)]],
    Output::Geometry,
    |call| {
        call.pairs::<BinaryArray, _>(|geometry, blade| {
            let mut parts = Parts::default();
            parts.add(geometry, 0);
            parts.add(blade, 1);
            let plane = parts.arrange(None);
            let members: Vec<Geometry> = match geometry {
                Geometry::Polygon(_) | Geometry::MultiPolygon(_) => {
                    polygonize::faces(&plane, |face| plane.face_in(face, 0))
                        .into_iter()
                        .map(Geometry::from)
                        .collect()
                }
                Geometry::LineString(_) | Geometry::MultiLineString(_) => lines_of(geometry)
                    .into_iter()
                    .flat_map(|line| cut_line(line, blade))
                    .map(Geometry::from)
                    .collect(),
                _ => return call.error("takes a line or a polygon"),
            };
            Ok(Some(encode(&Geometry::GeometryCollection(GeometryCollection::new_from(members)))))
        })
    },
);

/// A line cut wherever the blade meets it, in its direction; it may cross itself.
fn cut_line(line: &LineString, blade: &Geometry) -> Vec<LineString> {
    let mut result = Vec::new();
    let mut current: Vec<Coord> = line.0.first().copied().into_iter().collect();
    for part in line.lines() {
        let piece: Geometry = LineString::new(vec![part.start, part.end]).into();
        let mut places: Vec<Coord> = match overlay(&piece, blade, Operation::Intersection, None) {
            Ok(common) => geo::CoordsIter::coords_iter(&common).collect(),
            Err(_) => Vec::new(),
        };
        let along = |c: &Coord| (c.x - part.start.x) * part.delta().x + (c.y - part.start.y) * part.delta().y;
        places.sort_by(|a, b| along(a).total_cmp(&along(b)));
        for place in places {
            if current.last() != Some(&place) {
                current.push(place);
            }
            if current.len() > 1 {
                result.push(LineString::new(std::mem::replace(&mut current, vec![place])));
            }
        }
        if current.last() != Some(&part.end) {
            current.push(part.end);
        }
    }
    if current.len() > 1 {
        result.push(LineString::new(current));
    }
    result
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn text(call: &str) -> String {
        eval(&format!("st_astext({call})"))
    }

    #[test]
    fn combines_areas_lines_and_points() {
        let (a, b) = ("st_makeenvelope(0,0,2,2)", "st_makeenvelope(1,1,3,3)");
        assert_eq!(text(&format!("st_intersection({a}, {b})")), "POLYGON((1 1,2 1,2 2,1 2,1 1))");
        assert_eq!(text(&format!("st_union({a}, {b})")), "POLYGON((0 0,2 0,2 1,3 1,3 3,1 3,1 2,0 2,0 0))");
        assert_eq!(text(&format!("st_difference({a}, {b})")), "POLYGON((0 0,2 0,2 1,1 1,1 2,0 2,0 0))");
        assert_eq!(eval(&format!("st_area(st_symdifference({a}, {b}))")), "6.0");
        assert_eq!(text("st_intersection(st_point(1, 1), st_point(2, 2))"), "POINT EMPTY");
        assert_eq!(
            text(&format!("st_intersection({a}, st_geomfromtext('LINESTRING(-1 1,5 1)'))")),
            "LINESTRING(0 1,2 1)"
        );
        assert_eq!(
            text(&format!("st_union(make_array({a}, {b}, st_point(9, 9)))")),
            "GEOMETRYCOLLECTION(POINT(9 9),POLYGON((0 0,2 0,2 1,3 1,3 3,1 3,1 2,0 2,0 0)))"
        );
        fails(
            "st_union(st_geomfromtext('POLYGON((0 0,2 2,2 0,0 2,0 0))'), st_point(0, 0))",
            "st_makevalid repairs it",
        );
    }

    #[test]
    fn judges_and_repairs() {
        check(&[
            ("st_isvalid(st_geomfromtext('POLYGON((0 0,2 2,2 0,0 2,0 0))'))", "false"),
            ("st_isvalidreason(st_geomfromtext('POLYGON((0 0,2 2,2 0,0 2,0 0))'))", "Self-intersection[1 1]"),
            ("st_isvalidreason(st_point(1, 1))", "Valid Geometry"),
            (
                "st_astext(st_makevalid(st_geomfromtext('POLYGON((0 0,2 2,2 0,0 2,0 0))')))",
                "MULTIPOLYGON(((0 0,1 1,0 2,0 0)),((1 1,2 0,2 2,1 1)))",
            ),
            ("st_issimple(st_geomfromtext('LINESTRING(0 0,2 2,2 0,0 2)'))", "false"),
        ]);
        every_type("st_isvalid", ["true"; 7]);
    }

    #[test]
    fn works_on_lines() {
        check(&[
            ("st_astext(st_boundary(st_geomfromtext('LINESTRING(0 0,3 4)')))", "MULTIPOINT((0 0),(3 4))"),
            ("st_astext(st_boundary(st_makeenvelope(0,0,1,1)))", "LINESTRING(0 0,1 0,1 1,0 1,0 0)"),
            (
                "st_astext(st_linemerge(st_geomfromtext('MULTILINESTRING((0 0,1 1),(2 2,1 1))')))",
                "LINESTRING(0 0,1 1,2 2)",
            ),
            ("st_numgeometries(st_node(st_geomfromtext('MULTILINESTRING((0 0,2 2),(0 2,2 0))')))", "4"),
            (
                "st_astext(st_polygonize(st_geomfromtext('MULTILINESTRING((0 0,2 0,2 2),(2 2,0 2,0 0))')))",
                "GEOMETRYCOLLECTION(POLYGON((0 0,2 0,2 2,0 2,0 0)))",
            ),
            (
                "st_astext(st_split(st_geomfromtext('LINESTRING(0 0,4 0)'), st_point(1, 0)))",
                "GEOMETRYCOLLECTION(LINESTRING(0 0,1 0),LINESTRING(1 0,4 0))",
            ),
            (
                "st_numgeometries(st_split(st_makeenvelope(0,0,2,2), st_geomfromtext('LINESTRING(1 -1,1 3)')))",
                "2",
            ),
        ]);
    }
}
