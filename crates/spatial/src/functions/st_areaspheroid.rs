//! `st_areaspheroid`: area in square metres on the ellipsoid.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::orient::{Direction, Orient};
use geo::{GeodesicArea, Geometry};

use super::degrees::check_degrees;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};
use crate::geometry::total;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_areaspheroid",
    aliases: &["st_area_spheroid"],
    summary: "The area in square metres on the WGS 84 ellipsoid (Karney 2013), from longitude and latitude in degrees; 0 for points and lines",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::LonLat,
    output: FLOAT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<Float64Array, _>(|row| {
        let Some(geometry) = geometries.get(row)? else { return Ok(None) };
        check_degrees(call, &geometry)?;
        Ok(Some(area_m2(&geometry)))
    })
}

/// A ring's direction says on which side its inside is; rings are taken the way round that gives the smaller side.
fn area_m2(geometry: &Geometry) -> f64 {
    total(std::iter::once(match geometry {
        Geometry::Polygon(polygon) => polygon.orient(Direction::Default).geodesic_area_unsigned(),
        Geometry::MultiPolygon(polygons) => polygons.orient(Direction::Default).geodesic_area_unsigned(),
        Geometry::GeometryCollection(members) => total(members.iter().map(area_m2)),
        _ => 0.0,
    }))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn measures_square_metres() {
        check(&[
            // One degree at the equator: 110.574 km by 111.320 km less the narrowing.
            ("abs(st_areaspheroid(st_makeenvelope(0, 0, 1, 1)) / 12308778361.0 - 1) < 1e-6", "true"),
            (
                "st_areaspheroid(st_geomfromtext('POLYGON((0 0,0 1,1 1,1 0,0 0))')) = st_areaspheroid(st_makeenvelope(0, 0, 1, 1))",
                "true",
            ),
            ("st_area_spheroid(st_geomfromtext('LINESTRING(0 0,1 1)'))", "0.0"),
            ("st_areaspheroid(st_geomfromtext('POLYGON EMPTY'))", "0.0"),
            ("st_areaspheroid(NULL)", "NULL"),
        ]);
    }
}
