//! WKB, WKT and GeoJSON to and from `geo`, with every coordinate checked.

use geo::coords_iter::CoordsIter;
use geo::{
    Coord, Geometry, GeometryCollection, LineString, MultiLineString, MultiPoint, MultiPolygon, Point,
    Polygon,
};
use geo_traits::to_geo::ToGeoGeometry;
use geo_traits::{GeometryCollectionTrait, GeometryTrait, GeometryType, MultiPointTrait};
use serde_json::{Value, json};
use twinlake_contracts::{Error, Result};
use wkb::reader::Wkb;
use wkb::writer::{WriteOptions, geometry_wkb_size, write_geometry};

use crate::shape::{Dimensions, Form, Shape};

fn invalid(message: impl Into<String>) -> Error {
    Error::data("invalid_geometry", message)
}

/// Reads the structure of WKB (ISO or EWKB, either byte order); coordinates are not looked at.
pub(crate) fn read(bytes: &[u8]) -> Result<Wkb<'_>> {
    let read = Wkb::try_new(bytes).map_err(|error| invalid(format!("invalid WKB: {error}")))?;
    if read.buf().len() != bytes.len() {
        return Err(invalid(format!(
            "invalid WKB: {} bytes follow the geometry",
            bytes.len() - read.buf().len()
        )));
    }
    check_members(&read)?;
    Ok(read)
}

/// The points of a multipoint are read later, each by itself, and with the byte order of the whole: a point that says that it
/// is written otherwise cannot be read.
fn check_members(geometry: &Wkb<'_>) -> Result<()> {
    const SRID: u32 = 0x2000_0000;
    match geometry.as_type() {
        GeometryType::MultiPoint(points) => {
            let bytes = geometry.buf();
            let number = |bytes: &[u8]| {
                let code: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
                Some(if geometry.buf().first() == Some(&0) {
                    u32::from_be_bytes(code)
                } else {
                    u32::from_le_bytes(code)
                })
            };
            let code = number(bytes).unwrap_or_default();
            let members = bytes.get(if code & SRID == 0 { 9 } else { 13 }..).unwrap_or_default();
            let size = members.len() / points.num_points().max(1);
            // A point is type 1, a multipoint type 4, whatever their dimensions are called.
            let point = (code & !SRID) - 3;
            let fits = |member: &[u8]| member.first() == bytes.first() && number(member) == Some(point);
            if size > 0 && !members.chunks(size).all(fits) {
                return Err(invalid(
                    "invalid WKB: a point of a multipoint has another byte order, other dimensions or an SRID of its own",
                ));
            }
            Ok(())
        }
        GeometryType::GeometryCollection(members) => members.geometries().try_for_each(check_members),
        _ => Ok(()),
    }
}

/// The place of a little-endian point in the plane, finite: nearly all points there are.
#[inline]
pub(crate) fn plain_point(bytes: &[u8]) -> Option<Coord> {
    let bytes: &[u8; 21] = bytes.try_into().ok()?;
    if bytes[..5] != [1, 1, 0, 0, 0] {
        return None;
    }
    let number = |at: usize| f64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let (x, y) = (number(5), number(13));
    (x.is_finite() && y.is_finite()).then_some(Coord { x, y })
}

/// Decodes WKB. `POINT EMPTY` becomes an empty `MultiPoint`, since `geo` has no empty point. A third coordinate is
/// dropped. A coordinate that is not finite, a line of one point or a ring of fewer than three points is an
/// `invalid_geometry` error.
pub fn decode(bytes: &[u8]) -> Result<Geometry> {
    if let Some(at) = plain_point(bytes) {
        return Ok(Geometry::Point(Point(at)));
    }
    let geometry = match read(bytes)?.try_to_geometry() {
        Some(geometry) => geometry,
        // An empty point, alone or as a member.
        None => Shape::from_wkb(bytes)?.0.to_plane(),
    };
    let geometry = without_empty_members(geometry);
    check(&geometry)?;
    Ok(geometry)
}

/// An empty member of a multi-part geometry says nothing, and some algorithms of `geo` take it for a place.
fn without_empty_members(geometry: Geometry) -> Geometry {
    match geometry {
        Geometry::MultiLineString(mut many) => {
            many.0.retain(|line| !line.0.is_empty());
            many.into()
        }
        Geometry::MultiPolygon(mut many) => {
            many.0.retain(|polygon| !polygon.exterior().0.is_empty());
            many.into()
        }
        other => other,
    }
}

/// Encodes as little-endian ISO WKB; the same geometry gives the same bytes. A `MultiPoint` of nothing, which stands
/// for the empty point that `geo` does not have, becomes `POINT EMPTY`.
pub fn encode(geometry: &Geometry) -> Vec<u8> {
    if matches!(geometry, Geometry::MultiPoint(points) if points.0.is_empty()) {
        return Shape::new(Form::Point(None), Dimensions::default()).encode();
    }
    let mut bytes = Vec::with_capacity(geometry_wkb_size(geometry));
    // Writing to a Vec cannot fail, and every dimension that can be read can be written.
    let written = write_geometry(&mut bytes, geometry, &WriteOptions::default());
    debug_assert!(written.is_ok());
    bytes
}

fn check(geometry: &Geometry) -> Result<()> {
    for coord in geometry.coords_iter() {
        if !coord.x.is_finite() || !coord.y.is_finite() {
            return Err(invalid(format!("the coordinate ({}, {}) is not finite", coord.x, coord.y)));
        }
    }
    check_sizes(geometry)
}

fn check_sizes(geometry: &Geometry) -> Result<()> {
    let line = |line: &LineString| match line.0.len() {
        1 => Err(invalid("a line needs at least two points, it has one")),
        _ => Ok(()),
    };
    let polygon = |polygon: &Polygon| {
        std::iter::once(polygon.exterior()).chain(polygon.interiors()).try_for_each(|ring| {
            match ring.0.len() {
                1..=3 => Err(invalid("a ring needs at least three different points")),
                _ => Ok(()),
            }
        })
    };
    match geometry {
        Geometry::LineString(one) => line(one),
        Geometry::MultiLineString(many) => many.iter().try_for_each(line),
        Geometry::Polygon(one) => polygon(one),
        Geometry::MultiPolygon(many) => many.iter().try_for_each(polygon),
        Geometry::GeometryCollection(many) => many.iter().try_for_each(check_sizes),
        _ => Ok(()),
    }
}

/// Every line of a geometry: line strings only, not the rings of polygons.
pub(crate) fn lines(geometry: &Geometry) -> Vec<&LineString> {
    match geometry {
        Geometry::LineString(line) => vec![line],
        Geometry::MultiLineString(many) => many.iter().collect(),
        Geometry::GeometryCollection(many) => many.iter().flat_map(lines).collect(),
        _ => Vec::new(),
    }
}

/// The sum; of nothing it is 0, where `Iterator::sum` gives -0.
pub(crate) fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// WKB as WKT, coordinates in the shortest form that reads back as the same number.
pub fn to_wkt(bytes: &[u8]) -> Result<String> {
    Ok(Shape::from_wkb(bytes)?.0.to_wkt(None))
}

/// A geometry as a GeoJSON geometry object (RFC 7946). The coordinates must be longitude and latitude for the result
/// to be what the standard means.
pub fn to_geojson(geometry: &Geometry) -> Value {
    let position = |coord: &Coord| json!([coord.x, coord.y]);
    let line = |line: &LineString| line.0.iter().map(position).collect::<Value>();
    let rings = |polygon: &Polygon| {
        if polygon.exterior().0.is_empty() {
            return json!([]);
        }
        std::iter::once(polygon.exterior()).chain(polygon.interiors()).map(line).collect::<Value>()
    };
    let (kind, coordinates): (_, Value) = match geometry {
        Geometry::Point(point) => ("Point", position(&point.0)),
        Geometry::LineString(one) => ("LineString", line(one)),
        Geometry::Line(one) => ("LineString", line(&LineString::from(*one))),
        Geometry::Polygon(one) => ("Polygon", rings(one)),
        Geometry::Rect(one) => ("Polygon", rings(&one.to_polygon())),
        Geometry::Triangle(one) => ("Polygon", rings(&one.to_polygon())),
        Geometry::MultiPoint(many) => ("MultiPoint", many.iter().map(|point| position(&point.0)).collect()),
        Geometry::MultiLineString(many) => ("MultiLineString", many.iter().map(line).collect()),
        Geometry::MultiPolygon(many) => ("MultiPolygon", many.iter().map(rings).collect()),
        Geometry::GeometryCollection(many) => {
            let members: Value = many.iter().map(to_geojson).collect();
            return json!({"type": "GeometryCollection", "geometries": members});
        }
    };
    json!({"type": kind, "coordinates": coordinates})
}

/// Reads a GeoJSON geometry object; a third coordinate is dropped.
pub fn from_geojson(value: &Value) -> Result<Geometry> {
    let kind =
        value.get("type").and_then(Value::as_str).ok_or_else(|| invalid("GeoJSON without a \"type\""))?;
    if kind == "GeometryCollection" {
        let members = items(value.get("geometries").unwrap_or(&Value::Null), "geometries")?;
        let members: Vec<Geometry> = members.iter().map(from_geojson).collect::<Result<_>>()?;
        return Ok(Geometry::GeometryCollection(GeometryCollection::new_from(members)));
    }
    let coordinates = value
        .get("coordinates")
        .ok_or_else(|| invalid(format!("the GeoJSON type \"{kind}\" is not a geometry with coordinates")))?;
    let geometry: Geometry = match kind {
        "Point" if items(coordinates, "coordinates")?.is_empty() => MultiPoint::new(Vec::new()).into(),
        "Point" => Point(position(coordinates)?).into(),
        "LineString" => line(coordinates)?.into(),
        "Polygon" => polygon(coordinates)?.into(),
        "MultiPoint" => MultiPoint::new(each(coordinates, |item| position(item).map(Point))?).into(),
        "MultiLineString" => MultiLineString::new(each(coordinates, line)?).into(),
        "MultiPolygon" => MultiPolygon::new(each(coordinates, polygon)?).into(),
        _ => return Err(invalid(format!("\"{kind}\" is not a GeoJSON geometry type"))),
    };
    check(&geometry)?;
    Ok(geometry)
}

fn items<'a>(value: &'a Value, what: &str) -> Result<&'a [Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| invalid(format!("GeoJSON {what} must be an array")))
}

fn each<T>(value: &Value, read: impl Fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    items(value, "coordinates")?.iter().map(read).collect()
}

fn position(value: &Value) -> Result<Coord> {
    match items(value, "position")? {
        [x, y, ..] if x.is_number() && y.is_number() => {
            Ok(Coord { x: x.as_f64().unwrap_or(f64::NAN), y: y.as_f64().unwrap_or(f64::NAN) })
        }
        _ => Err(invalid("a GeoJSON position needs two numbers")),
    }
}

fn line(value: &Value) -> Result<LineString> {
    Ok(LineString::new(each(value, position)?))
}

fn polygon(value: &Value) -> Result<Polygon> {
    let mut rings = each(value, line)?.into_iter();
    Ok(Polygon::new(rings.next().unwrap_or_else(|| LineString::new(Vec::new())), rings.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::{line_string, point, polygon};

    fn all_types() -> Vec<Geometry> {
        let square = polygon![(x: 0.0, y: 0.0), (x: 2.0, y: 0.0), (x: 2.0, y: 2.0), (x: 0.0, y: 0.0)];
        let line = line_string![(x: 0.5, y: 0.25), (x: -1.0, y: 1e-7)];
        vec![
            point! { x: 24.94, y: 60.17 }.into(),
            line.clone().into(),
            square.clone().into(),
            MultiPoint::new(vec![point! { x: 1.0, y: 2.0 }]).into(),
            MultiLineString::new(vec![line.clone()]).into(),
            MultiPolygon::new(vec![square]).into(),
            Geometry::GeometryCollection(GeometryCollection::new_from(vec![line.into()])),
        ]
    }

    #[test]
    fn a_point_written_otherwise_than_its_multipoint_is_refused() {
        let points = MultiPoint::new(vec![point! { x: 1.0, y: 2.0 }, point! { x: 3.0, y: 4.0 }]);
        let bytes = encode(&points.into());
        let second = 9 + 21;
        for (place, value) in [(0, 0), (1, 2), (2, 4), (3, 4), (4, 0x20), (4, 0x80)] {
            let mut bytes = bytes.clone();
            bytes[second + place] = value;
            assert!(decode(&bytes).is_err(), "byte {place} of a member as {value}");
        }
        let inside = GeometryCollection::new_from(vec![decode(&bytes).unwrap()]);
        let mut collected = encode(&Geometry::GeometryCollection(inside));
        decode(&collected).unwrap();
        collected[9 + second] = 0;
        assert!(decode(&collected).unwrap_err().to_string().contains("a point of a multipoint"));
    }

    #[test]
    fn wkb_and_geojson_give_back_every_type() {
        for geometry in all_types() {
            assert_eq!(decode(&encode(&geometry)).unwrap(), geometry);
            assert_eq!(from_geojson(&to_geojson(&geometry)).unwrap(), geometry);
        }
    }

    #[test]
    fn refuses_what_cannot_be_computed_with() {
        let nan = encode(&line_string![(x: 0.0, y: f64::NAN), (x: 1.0, y: 1.0)].into());
        assert!(decode(&nan).unwrap_err().to_string().contains("not finite"));
        let short = encode(&line_string![(x: 0.0, y: 0.0)].into());
        assert!(decode(&short).unwrap_err().to_string().contains("two points"));
        let mut long = encode(&point! { x: 1.0, y: 2.0 }.into());
        long.push(0);
        assert!(decode(&long).unwrap_err().to_string().contains("1 bytes follow"));
        for cut in 0..21 {
            assert!(decode(&long[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn an_empty_point_is_empty() {
        let mut empty = vec![1, 1, 0, 0, 0];
        empty.extend(f64::NAN.to_le_bytes());
        empty.extend(f64::NAN.to_le_bytes());
        assert_eq!(decode(&empty).unwrap(), MultiPoint::new(Vec::new()).into());
        assert_eq!(to_wkt(&empty).unwrap(), "POINT EMPTY");
    }
}
