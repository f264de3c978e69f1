//! GeoJSON geometries (RFC 7946) as WKB: longitude and latitude in degrees on WGS 84; a third coordinate is left out.

use geo_types::{Coord, Geometry, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon};
use serde_json::{Map, Value};
use wkb::writer::{WriteOptions, write_geometry};

type Parsed<T> = Result<T, String>;

/// The WKB of an object that is a geometry; `None` when it is none: without `type` and `coordinates`.
pub(crate) fn wkb(object: &Map<String, Value>) -> Option<Parsed<Vec<u8>>> {
    let kind = object.get("type")?.as_str()?;
    let coordinates = object.get("coordinates")?;
    let geometry = match kind {
        "Point" => point(coordinates).map(|at| Geometry::Point(Point(at))),
        "LineString" => line(coordinates, 2).map(Geometry::LineString),
        "Polygon" => polygon(coordinates).map(Geometry::Polygon),
        "MultiPoint" => {
            each(coordinates, |at| point(at).map(Point)).map(|parts| Geometry::MultiPoint(MultiPoint(parts)))
        }
        "MultiLineString" => each(coordinates, |part| line(part, 2))
            .map(|parts| Geometry::MultiLineString(MultiLineString(parts))),
        "MultiPolygon" => each(coordinates, polygon).map(|parts| Geometry::MultiPolygon(MultiPolygon(parts))),
        _ => return None,
    };
    Some(geometry.and_then(|geometry| {
        let mut bytes = Vec::new();
        write_geometry(&mut bytes, &geometry, &WriteOptions::default()).map_err(|error| error.to_string())?;
        Ok(bytes)
    }))
}

fn each<T>(value: &Value, part: impl Fn(&Value) -> Parsed<T>) -> Parsed<Vec<T>> {
    value.as_array().ok_or("coordinates are an array")?.iter().map(part).collect()
}

fn point(value: &Value) -> Parsed<Coord> {
    let number = |at: usize| value.get(at).and_then(Value::as_f64);
    let (Some(x), Some(y)) = (number(0), number(1)) else {
        return Err("a position is an array of longitude and latitude".to_owned());
    };
    if (-180.0..=180.0).contains(&x) && (-90.0..=90.0).contains(&y) {
        return Ok(Coord { x, y });
    }
    Err(format!("the position {x}, {y} is not in degrees of longitude and latitude"))
}

fn line(value: &Value, least: usize) -> Parsed<LineString> {
    let positions = each(value, point)?;
    if positions.len() < least {
        return Err(format!("{} positions are too few, {least} are needed", positions.len()));
    }
    Ok(LineString(positions))
}

fn polygon(value: &Value) -> Parsed<Polygon> {
    let mut rings = each(value, |ring| line(ring, 4))?.into_iter();
    let outer = rings.next().ok_or("a polygon has a ring")?;
    Ok(Polygon::new(outer, rings.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Parsed<Vec<u8>>> {
        wkb(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap())
    }

    #[test]
    fn geometries_become_wkb_and_other_objects_do_not() {
        for text in [
            r#"{"type":"Point","coordinates":[24.9,60.2,5]}"#,
            r#"{"type":"LineString","coordinates":[[0,0],[1,1]]}"#,
            r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}"#,
            r#"{"type":"MultiPoint","coordinates":[[0,0]]}"#,
            r#"{"type":"MultiLineString","coordinates":[[[0,0],[1,1]]]}"#,
            r#"{"type":"MultiPolygon","coordinates":[[[[0,0],[1,0],[1,1],[0,0]]]]}"#,
        ] {
            let bytes = read(text).unwrap().unwrap();
            assert!(wkb::reader::read_wkb(&bytes).is_ok(), "{text}");
        }
        for text in [
            r#"{"type":"Point","coordinates":[2490000,60]}"#,
            r#"{"type":"Point","coordinates":["a"]}"#,
            r#"{"type":"LineString","coordinates":[[0,0]]}"#,
            r#"{"type":"Polygon","coordinates":[]}"#,
        ] {
            assert!(read(text).unwrap().is_err(), "{text}");
        }
        assert!(read(r#"{"type":"bus","coordinates":[1]}"#).is_none());
        assert!(read(r#"{"x":1}"#).is_none());
    }
}
