//! Geometries from coordinates and from other geometries; third coordinates and measures are kept.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray};
use arrow::datatypes::Field;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::ReturnFieldArgs;
use geo::{RemoveRepeatedPoints, Winding};
use twinlake_contracts::{CRS84, geometry_field};

use super::accessors::singles;
use crate::call::Call;
use crate::definition::{BOOLEAN, Definition, Kind, Output, Parameter};
use crate::geometry::{encode, plain_point};
use crate::shape::{Dimensions, Form, Position, Shape};
use crate::topology::polygonize::{compare, order};

const G: &[&[Parameter]] = &[&[("geometry", Kind::Geometry)]];
const XY: Dimensions = Dimensions { z: false, m: false };
const XYZ: Dimensions = Dimensions { z: true, m: false };
const XYM: Dimensions = Dimensions { z: false, m: true };
const XYZM: Dimensions = Dimensions { z: true, m: true };

const X: Parameter = ("x", Kind::Number);
const Y: Parameter = ("y", Kind::Number);
const Z: Parameter = ("z", Kind::Number);
const M: Parameter = ("m", Kind::Number);

pub(crate) static MAKE_POINT: Definition = Definition::new(
    "st_makepoint",
    "A point from two, three (z) or four (z, m) coordinates",
    &[&[X, Y], &[X, Y, Z], &[X, Y, Z, M]],
    Output::Geometry,
    |call| {
        let dimensions = match call.arity() {
            2 => XY,
            3 => XYZ,
            _ => XYZM,
        };
        point(call, dimensions)
    },
);

pub(crate) static POINT_Z: Definition = Definition::new(
    "st_pointz",
    "A point with a third coordinate",
    &[&[X, Y, Z]],
    Output::Geometry,
    |call| point(call, XYZ),
);

pub(crate) static POINT_M: Definition =
    Definition::new("st_pointm", "A point with a measure", &[&[X, Y, M]], Output::Geometry, |call| {
        point(call, XYM)
    })
    .also(&["st_makepointm"]);

pub(crate) static POINT_ZM: Definition = Definition::new(
    "st_pointzm",
    "A point with a third coordinate and a measure",
    &[&[X, Y, Z, M]],
    Output::Geometry,
    |call| point(call, XYZM),
);

fn point(call: &Call<'_>, dimensions: Dimensions) -> Result<ArrayRef> {
    let numbers = (0..call.arity()).map(|index| call.numbers(index)).collect::<Result<Vec<_>>>()?;
    call.rows::<BinaryArray, _>(|row| {
        let Some(values) = numbers.iter().map(|column| column.get(row)).collect::<Option<Vec<f64>>>() else {
            return Ok(None);
        };
        if values.iter().any(|value| !value.is_finite()) {
            return call.error(format!("the coordinate {values:?} is not finite"));
        }
        let mut position = [values[0], values[1], 0.0, 0.0];
        let mut rest = values[2..].iter();
        if dimensions.z {
            position[2] = rest.next().copied().unwrap_or(0.0);
        }
        if dimensions.m {
            position[3] = rest.next().copied().unwrap_or(0.0);
        }
        Ok(Some(Shape::new(Form::Point(Some(position)), dimensions).encode()))
    })
}

/// Lines of two places, byte by byte, when all geometries are plain points: what most are.
fn lines_of_two(call: &Call<'_>) -> Result<Option<ArrayRef>> {
    const LINE_OF_TWO: [u8; 9] = [1, 2, 0, 0, 0, 2, 0, 0, 0];
    let (from, to) = (call.bytes(0)?, call.bytes(1)?);
    let mut lines = BinaryBuilder::with_capacity(call.rows, call.rows * 41);
    for row in 0..call.rows {
        let (Some(a), Some(b)) = (from.get(row), to.get(row)) else {
            lines.append_null();
            continue;
        };
        if plain_point(a).is_none() || plain_point(b).is_none() {
            return Ok(None);
        }
        let mut line = [0; 41];
        line[..9].copy_from_slice(&LINE_OF_TWO);
        line[9..25].copy_from_slice(&a[5..]);
        line[25..].copy_from_slice(&b[5..]);
        lines.append_value(line);
    }
    Ok(Some(Arc::new(lines.finish())))
}

pub(crate) static MAKE_LINE: Definition = Definition::new(
    "st_makeline",
    "A line through points and along lines in their order, from two geometries or a list; null for fewer than two places",
    &[&[("a", Kind::Geometry), ("b", Kind::Geometry)], &[("geometries", Kind::Geometries)]],
    Output::Geometry,
    |call| {
        if call.arity() == 2
            && let Some(lines) = lines_of_two(call)?
        {
            return Ok(lines);
        }
        gathered(call, |call, shapes| {
            let dimensions = shapes.iter().fold(XY, |all, one| all.or(one.dimensions));
            let mut positions: Vec<Position> = Vec::new();
            for shape in &shapes {
                match &shape.form {
                    Form::Point(_) | Form::MultiPoint(_) => positions.extend(shape.positions()),
                    // A line that goes on where the one before it ended does not repeat the place.
                    Form::Line(line) => {
                        let skip =
                            usize::from(positions.last().is_some() && positions.last() == line.first());
                        positions.extend(&line[skip..]);
                    }
                    _ => return call.error("takes points and lines"),
                }
            }
            Ok((positions.len() > 1).then(|| Shape::new(Form::Line(positions), dimensions)))
        })
    },
);

pub(crate) static LINE_FROM_MULTIPOINT: Definition = Definition::new(
    "st_linefrommultipoint",
    "A line through the points of a MULTIPOINT",
    G,
    Output::Geometry,
    |call| {
        call.each_shape::<BinaryArray, _>(|shape| match &shape.form {
            Form::MultiPoint(_) => {
                let positions = shape.positions();
                Ok((positions.len() != 1)
                    .then(|| Shape::new(Form::Line(positions), shape.dimensions).encode()))
            }
            _ => call.error("takes a MULTIPOINT"),
        })
    },
);

pub(crate) static MAKE_POLYGON: Definition = Definition::new(
    "st_makepolygon",
    "A polygon from a closed line as its shell and a list of closed lines as its holes",
    &[&[("shell", Kind::Geometry)], &[("shell", Kind::Geometry), ("holes", Kind::Geometries)]],
    Output::Geometry,
    |call| {
        let shells = call.bytes(0)?;
        let holes = if call.arity() > 1 { Some(call.lists(1)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let Some(shell) = shells.get(row) else { return Ok(None) };
            let mut rings = vec![call.shape(shell)?];
            if let Some(holes) = &holes {
                let Some(items) = holes.get(row) else { return Ok(None) };
                rings.extend(shapes_of(call, &items)?);
            }
            let dimensions = rings[0].dimensions;
            let rings = rings.iter().map(|ring| closed(call, ring)).collect::<Result<Vec<_>>>()?;
            Ok(Some(Shape::new(Form::Polygon(rings), dimensions).encode()))
        })
    },
);

pub(crate) static POLYGON: Definition = Definition {
    name: "st_polygon",
    aliases: &[],
    summary: "A polygon from a closed line, in the reference system of the EPSG number given as a constant",
    overloads: &[&[("shell", Kind::Bytes), ("srid", Kind::Integer)]],
    crs: crate::definition::CrsRule::Same,
    output: Output::Field(|args| field_of_number("st_polygon", 1, args)),
    body: |call| {
        let shells = call.bytes(0)?;
        call.rows::<BinaryArray, _>(|row| {
            let Some(shell) = shells.get(row) else { return Ok(None) };
            let shell = call.shape(shell)?;
            Ok(Some(Shape::new(Form::Polygon(vec![closed(call, &shell)?]), shell.dimensions).encode()))
        })
    },
};

/// The geometry field of a constant EPSG number.
pub(crate) fn field_of_number(name: &str, index: usize, args: &ReturnFieldArgs<'_>) -> Result<Field> {
    match args.scalar_arguments.get(index).copied().flatten() {
        Some(ScalarValue::Int64(Some(4326))) => Ok(geometry_field(name, CRS84, true)),
        Some(ScalarValue::Int64(Some(number))) if *number > 0 => {
            Ok(geometry_field(name, &format!("EPSG:{number}"), true))
        }
        Some(value) if value.is_null() => Ok(geometry_field(name, CRS84, true)),
        _ => plan_err!("{name} needs a constant EPSG number, for example 3879"),
    }
}

fn closed(call: &Call<'_>, shape: &Shape) -> Result<Vec<Position>> {
    match &shape.form {
        Form::Line(line)
            if line.len() >= 4 && line.first().map(|p| &p[..2]) == line.last().map(|p| &p[..2]) =>
        {
            Ok(line.clone())
        }
        Form::Line(_) => call.error("a ring is a closed line of four points or more"),
        _ => call.error("takes lines"),
    }
}

pub(crate) static COLLECT: Definition = Definition::new(
    "st_collect",
    "Geometries put together as they are, from two geometries or a list: a multi-part geometry when all are points, lines or polygons, else a collection",
    &[&[("a", Kind::Geometry), ("b", Kind::Geometry)], &[("geometries", Kind::Geometries)]],
    Output::Geometry,
    |call| gathered(call, |_, shapes| Ok((!shapes.is_empty()).then(|| Shape::collect(shapes)))),
);

/// The geometries of a row from two arguments or a list.
fn gathered(
    call: &Call<'_>,
    put: impl Fn(&Call<'_>, Vec<Shape>) -> Result<Option<Shape>>,
) -> Result<ArrayRef> {
    if call.arity() == 2 {
        let (left, right) = (call.bytes(0)?, call.bytes(1)?);
        return call.rows::<BinaryArray, _>(|row| {
            let (Some(a), Some(b)) = (left.get(row), right.get(row)) else { return Ok(None) };
            Ok(put(call, vec![call.shape(a)?, call.shape(b)?])?.map(|shape| shape.encode()))
        });
    }
    let lists = call.lists(0)?;
    call.rows::<BinaryArray, _>(|row| {
        let Some(items) = lists.get(row) else { return Ok(None) };
        Ok(put(call, shapes_of(call, &items)?)?.map(|shape| shape.encode()))
    })
}

/// The geometries of a list; nulls are left out.
pub(crate) fn shapes_of(call: &Call<'_>, items: &ArrayRef) -> Result<Vec<Shape>> {
    let items = items.as_binary::<i32>();
    (0..items.len()).filter(|i| items.is_valid(*i)).map(|i| call.shape(items.value(i))).collect()
}

macro_rules! of_shape {
    ($name:literal, $summary:literal, $change:expr) => {
        Definition::new($name, $summary, G, Output::Geometry, |call| {
            let change: fn(&Shape) -> Shape = $change;
            call.each_shape::<BinaryArray, _>(|shape| Ok(Some(change(shape).encode())))
        })
    };
}

pub(crate) static MULTI: Definition =
    of_shape!("st_multi", "The multi-part geometry with this one as its only member", |shape| shape
        .clone()
        .multi());

pub(crate) static FORCE_2D: Definition =
    of_shape!("st_force2d", "Without third coordinates and measures", |shape| shape.with_dimensions(XY));
pub(crate) static FORCE_3D: Definition = of_shape!(
    "st_force3d",
    "With a third coordinate, 0 where there was none, and without measures",
    |shape| shape.with_dimensions(XYZ)
)
.also(&["st_force3dz"]);
pub(crate) static FORCE_3DM: Definition = of_shape!(
    "st_force3dm",
    "With measures, 0 where there were none, and without third coordinates",
    |shape| shape.with_dimensions(XYM)
);
pub(crate) static FORCE_4D: Definition =
    of_shape!("st_force4d", "With third coordinates and measures, 0 where there were none", |shape| shape
        .with_dimensions(XYZM));

pub(crate) static FORCE_COLLECTION: Definition =
    of_shape!("st_forcecollection", "A collection of the geometry or of its members", |shape| {
        let members = match shape.members() {
            Some(members) => members.to_vec(),
            None => vec![shape.clone()],
        };
        Shape::new(Form::Collection(members), shape.dimensions)
    });

pub(crate) static HOMOGENIZE: Definition = of_shape!(
    "st_collectionhomogenize",
    "The simplest geometry with the same members: one alone, a multi-part one of equal types, else a collection",
    |shape| {
        let mut parts = Vec::new();
        singles(shape, &mut parts);
        parts.retain(|part| !part.is_empty());
        match parts.len() {
            0 => shape.clone(),
            1 => parts.remove(0),
            _ => Shape::collect(parts),
        }
    }
);

pub(crate) static REVERSE: Definition =
    of_shape!("st_reverse", "Lines and rings in the other direction", |shape| shape
        .map_lists(&mut |list| list.iter().rev().copied().collect()));

pub(crate) static FLIP: Definition =
    of_shape!("st_flipcoordinates", "x and y exchanged", |shape| shape.map(|[x, y, z, m]| [y, x, z, m]));

pub(crate) static FORCE_CCW: Definition = of_shape!(
    "st_forcepolygonccw",
    "Shells of polygons counter-clockwise, holes clockwise; other geometries as they are",
    |shape| turn(shape, false)
);
pub(crate) static FORCE_CW: Definition = of_shape!(
    "st_forcepolygoncw",
    "Shells of polygons clockwise, holes counter-clockwise; other geometries as they are",
    |shape| turn(shape, true)
)
.also(&["st_forcerhr"]);

fn ring_turns_right(ring: &[Position]) -> bool {
    let line: geo::LineString = ring.iter().map(|p| geo::Coord { x: p[0], y: p[1] }).collect();
    line.is_cw()
}

fn turn(shape: &Shape, shells_right: bool) -> Shape {
    let form = match &shape.form {
        Form::Polygon(rings) => Form::Polygon(
            rings
                .iter()
                .enumerate()
                .map(|(index, ring)| {
                    let wanted = shells_right == (index == 0);
                    if ring_turns_right(ring) == wanted {
                        ring.clone()
                    } else {
                        ring.iter().rev().copied().collect()
                    }
                })
                .collect(),
        ),
        Form::MultiPolygon(members) => {
            Form::MultiPolygon(members.iter().map(|member| turn(member, shells_right)).collect())
        }
        Form::Collection(members) => {
            Form::Collection(members.iter().map(|member| turn(member, shells_right)).collect())
        }
        other => other.clone(),
    };
    Shape::new(form, shape.dimensions)
}

fn all_turn(shape: &Shape, shells_right: bool) -> bool {
    match (&shape.form, shape.members()) {
        (Form::Polygon(rings), _) => rings
            .iter()
            .enumerate()
            .all(|(index, ring)| ring_turns_right(ring) == (shells_right == (index == 0))),
        (_, Some(members)) => members.iter().all(|member| all_turn(member, shells_right)),
        _ => true,
    }
}

pub(crate) static IS_CCW: Definition = Definition::new(
    "st_ispolygonccw",
    "Whether all shells turn counter-clockwise and all holes clockwise",
    G,
    BOOLEAN,
    |call| call.each_shape::<BooleanArray, _>(|shape| Ok(Some(all_turn(shape, false)))),
);
pub(crate) static IS_CW: Definition = Definition::new(
    "st_ispolygoncw",
    "Whether all shells turn clockwise and all holes counter-clockwise",
    G,
    BOOLEAN,
    |call| call.each_shape::<BooleanArray, _>(|shape| Ok(Some(all_turn(shape, true)))),
);

pub(crate) static COLLECTION_EXTRACT: Definition = Definition::new(
    "st_collectionextract",
    "The members of one type (1 points, 2 lines, 3 polygons) as a multi-part geometry; without a type those of the largest dimension; a single geometry of that type stays as it is",
    &[&[("geometry", Kind::Geometry)], &[("geometry", Kind::Geometry), ("type", Kind::Integer)]],
    Output::Geometry,
    |call| {
        let bytes = call.bytes(0)?;
        let types = if call.arity() > 1 { Some(call.integers(1)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let Some(bytes) = bytes.get(row) else { return Ok(None) };
            let shape = call.shape(bytes)?;
            let mut parts = Vec::new();
            singles(&shape, &mut parts);
            let wanted = match &types {
                Some(types) => match types.get(row) {
                    None => return Ok(None),
                    Some(one @ 1..=3) => one as u32,
                    Some(other) => {
                        return call
                            .error(format!("the type {other} is not 1 (points), 2 (lines) or 3 (polygons)"));
                    }
                },
                None => parts.iter().map(Shape::code).max().unwrap_or(1),
            };
            if shape.code() == wanted {
                return Ok(Some(bytes.to_vec()));
            }
            parts.retain(|part| part.code() == wanted && !part.is_empty());
            let form = match (wanted, shape.members().is_some()) {
                (1, false) => Form::Point(None),
                (2, false) => Form::Line(Vec::new()),
                (_, false) => Form::Polygon(Vec::new()),
                (1, true) => Form::MultiPoint(parts),
                (2, true) => Form::MultiLine(parts),
                (_, true) => Form::MultiPolygon(parts),
            };
            Ok(Some(Shape::new(form, shape.dimensions).encode()))
        })
    },
);

const LINE_POINT_AT: &[&[Parameter]] = &[
    &[("line", Kind::Geometry), ("point", Kind::Geometry)],
    &[("line", Kind::Geometry), ("point", Kind::Geometry), ("position", Kind::Integer)],
];

pub(crate) static ADD_POINT: Definition = Definition::new(
    "st_addpoint",
    "A line with a point put before the position given, from 0, or at the end",
    LINE_POINT_AT,
    Output::Geometry,
    |call| {
        edit(call, |call, line, point, position| {
            let at = match position {
                None | Some(-1) => line.len(),
                Some(at) => match usize::try_from(at) {
                    Ok(at) if at <= line.len() => at,
                    _ => return call.error(format!("the line has no position {at}")),
                },
            };
            line.insert(at, point);
            Ok(())
        })
    },
);

pub(crate) static SET_POINT: Definition = Definition::new(
    "st_setpoint",
    "A line with the point at a position, from 0, or from the end when negative, replaced",
    &[&[("line", Kind::Geometry), ("position", Kind::Integer), ("point", Kind::Geometry)]],
    Output::Geometry,
    |call| {
        let (lines, positions, points) = (call.bytes(0)?, call.integers(1)?, call.bytes(2)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(line), Some(at), Some(point)) = (lines.get(row), positions.get(row), points.get(row))
            else {
                return Ok(None);
            };
            let (mut line, point) = (call.shape(line)?, call.shape(point)?);
            let (Form::Line(list), Form::Point(Some(point))) = (&mut line.form, &point.form) else {
                return call.error("takes a line and a point");
            };
            let index = if at < 0 { at + list.len() as i64 } else { at };
            match usize::try_from(index).ok().and_then(|index| list.get_mut(index)) {
                Some(place) => *place = *point,
                None => return call.error(format!("the line has no position {at}")),
            }
            Ok(Some(line.encode()))
        })
    },
);

pub(crate) static REMOVE_POINT: Definition = Definition::new(
    "st_removepoint",
    "A line without the point at a position, from 0",
    &[&[("line", Kind::Geometry), ("position", Kind::Integer)]],
    Output::Geometry,
    |call| {
        let (lines, positions) = (call.bytes(0)?, call.integers(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(line), Some(at)) = (lines.get(row), positions.get(row)) else { return Ok(None) };
            let mut line = call.shape(line)?;
            let Form::Line(list) = &mut line.form else { return call.error("takes a line") };
            match usize::try_from(at) {
                Ok(index) if index < list.len() && list.len() > 2 => list.remove(index),
                Ok(index) if index < list.len() => return call.error("a line needs at least two points"),
                _ => return call.error(format!("the line has no position {at}")),
            };
            Ok(Some(line.encode()))
        })
    },
);

fn edit(
    call: &Call<'_>,
    change: impl Fn(&Call<'_>, &mut Vec<Position>, Position, Option<i64>) -> Result<()>,
) -> Result<ArrayRef> {
    let (lines, points) = (call.bytes(0)?, call.bytes(1)?);
    let positions = if call.arity() > 2 { Some(call.integers(2)?) } else { None };
    call.rows::<BinaryArray, _>(|row| {
        let (Some(line), Some(point)) = (lines.get(row), points.get(row)) else { return Ok(None) };
        let at = match &positions {
            Some(positions) => match positions.get(row) {
                Some(at) => Some(at),
                None => return Ok(None),
            },
            None => None,
        };
        let (mut line, point) = (call.shape(line)?, call.shape(point)?);
        match (&mut line.form, &point.form) {
            (Form::Line(list), Form::Point(Some(point))) => change(call, list, *point, at)?,
            _ => return call.error("takes a line and a point"),
        }
        Ok(Some(line.encode()))
    })
}

pub(crate) static REMOVE_REPEATED: Definition = Definition::new(
    "st_removerepeatedpoints",
    "Without points that are equal to the one before them",
    G,
    Output::Geometry,
    |call| call.each::<BinaryArray, _>(|geometry| Ok(Some(encode(&geometry.remove_repeated_points())))),
);

pub(crate) static NORMALIZE: Definition = Definition::new(
    "st_normalize",
    "The same geometry in one fixed order: rings from their smallest point, shells clockwise, lines from their smaller end, members sorted from large to small",
    G,
    Output::Geometry,
    |call| call.each::<BinaryArray, _>(|geometry| Ok(Some(encode(&normal(geometry))))),
);

/// The canonical form of a geometry (the order is that of GEOS).
pub(crate) fn normal(geometry: &geo::Geometry) -> geo::Geometry {
    use geo::Geometry as G;
    match geometry {
        G::LineString(line) => normal_line(line).into(),
        G::Polygon(polygon) => normal_polygon(polygon).into(),
        G::MultiPoint(points) => {
            let mut points = points.0.clone();
            points.sort_by(|a, b| order(&b.0, &a.0));
            geo::MultiPoint::new(points).into()
        }
        G::MultiLineString(lines) => {
            let mut lines: Vec<_> = lines.iter().map(normal_line).collect();
            lines.sort_by(|a, b| by_size(b, a));
            geo::MultiLineString::new(lines).into()
        }
        G::MultiPolygon(polygons) => {
            let mut polygons: Vec<_> = polygons.iter().map(normal_polygon).collect();
            polygons.sort_by(|a, b| by_size(b.exterior(), a.exterior()));
            geo::MultiPolygon::new(polygons).into()
        }
        G::GeometryCollection(members) => {
            let mut members: Vec<_> = members.iter().map(normal).collect();
            members.sort_by(|a, b| {
                let kind = |g: &G| Shape::of(g).code();
                kind(b).cmp(&kind(a)).then_with(|| {
                    let coords = |g: &G| geo::LineString::new(geo::CoordsIter::coords_iter(g).collect());
                    by_size(&coords(b), &coords(a))
                })
            });
            G::GeometryCollection(geo::GeometryCollection::new_from(members))
        }
        other => other.clone(),
    }
}

/// More points are larger; else the coordinates decide.
fn by_size(a: &geo::LineString, b: &geo::LineString) -> std::cmp::Ordering {
    a.0.len().cmp(&b.0.len()).then_with(|| compare(a, b))
}

fn normal_line(line: &geo::LineString) -> geo::LineString {
    let backwards: geo::LineString = line.0.iter().rev().copied().collect();
    if line.is_closed() {
        return line.clone();
    }
    if compare(&backwards, line).is_lt() { backwards } else { line.clone() }
}

fn normal_polygon(polygon: &geo::Polygon) -> geo::Polygon {
    let ring = |ring: &geo::LineString, right: bool| {
        let mut coords = ring.0.clone();
        coords.pop();
        let smallest = (0..coords.len()).min_by(|a, b| order(&coords[*a], &coords[*b])).unwrap_or(0);
        coords.rotate_left(smallest);
        coords.extend(coords.first().copied());
        let mut line = geo::LineString::new(coords);
        if line.is_cw() != right {
            line.0.reverse();
        }
        line
    };
    let mut holes: Vec<_> = polygon.interiors().iter().map(|hole| ring(hole, false)).collect();
    holes.sort_by(|a, b| by_size(b, a));
    geo::Polygon::new(ring(polygon.exterior(), true), holes)
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn puts_together_and_changes() {
        check(&[
            ("st_astext(st_makepoint(1, 2, 3))", "POINT Z (1 2 3)"),
            ("st_astext(st_pointm(1, 2, 3))", "POINT M (1 2 3)"),
            ("st_astext(st_makeline(st_point(1, 2), st_point(3, 4)))", "LINESTRING(1 2,3 4)"),
            (
                "st_astext(st_makeline(make_array(st_point(1, 2), st_point(3, 4), st_point(5, 6))))",
                "LINESTRING(1 2,3 4,5 6)",
            ),
            (
                "st_astext(st_makepolygon(st_geomfromtext('LINESTRING(0 0,1 0,1 1,0 0)')))",
                "POLYGON((0 0,1 0,1 1,0 0))",
            ),
            ("st_srid(st_polygon(st_geomfromtext('LINESTRING(0 0,1 0,1 1,0 0)'), 3879))", "3879"),
            ("st_astext(st_collect(st_point(1, 2), st_point(3, 4)))", "MULTIPOINT((1 2),(3 4))"),
            (
                "st_astext(st_collect(st_point(1, 2), st_geomfromtext('LINESTRING(0 0,1 1)')))",
                "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))",
            ),
            ("st_astext(st_multi(st_point(1, 2)))", "MULTIPOINT((1 2))"),
            ("st_astext(st_force3d(st_point(1, 2)))", "POINT Z (1 2 0)"),
            ("st_astext(st_reverse(st_geomfromtext('LINESTRING(0 0,1 1,2 0)')))", "LINESTRING(2 0,1 1,0 0)"),
            ("st_astext(st_flipcoordinates(st_point(1, 2)))", "POINT(2 1)"),
            (
                "st_astext(st_addpoint(st_geomfromtext('LINESTRING(0 0,1 1)'), st_point(5, 5), 1))",
                "LINESTRING(0 0,5 5,1 1)",
            ),
            (
                "st_astext(st_setpoint(st_geomfromtext('LINESTRING(0 0,1 1)'), -1, st_point(5, 5)))",
                "LINESTRING(0 0,5 5)",
            ),
            (
                "st_astext(st_removepoint(st_geomfromtext('LINESTRING(0 0,1 1,2 2)'), 1))",
                "LINESTRING(0 0,2 2)",
            ),
            ("st_ispolygonccw(st_forcepolygonccw(st_geomfromtext('POLYGON((0 0,0 1,1 1,0 0))')))", "true"),
        ]);
        fails(
            "st_makepolygon(st_geomfromtext('LINESTRING(0 0,1 0,1 1)'))",
            "st_makepolygon: a ring is a closed line",
        );
        fails("st_removepoint(st_geomfromtext('LINESTRING(0 0,1 1)'), 0)", "at least two points");
    }
}
