//! `st_lengthspheroid`: length of lines in metres on the WGS 84 ellipsoid (Karney 2013).

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::{Geodesic, Length};

use super::degrees::check_degrees;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};
use crate::geometry::{lines, total};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_lengthspheroid",
    aliases: &["st_length_spheroid"],
    summary: "The length of the lines in metres on the WGS 84 ellipsoid (Karney 2013), from longitude and latitude in degrees; 0 for points and polygons",
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
        Ok(Some(total(lines(&geometry).iter().map(|line| Geodesic.length(*line)))))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn measures_london_to_paris() {
        check(&[
            (
                "abs(st_lengthspheroid(st_geomfromtext('LINESTRING(-0.1278 51.5074,2.3522 48.8566)')) - 343923) < 1",
                "true",
            ),
            ("st_length_spheroid(st_makeenvelope(0, 0, 4, 4))", "0.0"),
            ("st_lengthspheroid(st_geomfromtext('LINESTRING EMPTY'))", "0.0"),
            ("st_lengthspheroid(NULL)", "NULL"),
        ]);
        fails("st_lengthspheroid(st_setcrs(st_point(1, 2), 'EPSG:3879'))", "not EPSG:3879");
        fails(
            "st_lengthspheroid(st_geomfromtext('LINESTRING(1 2,3 6672000)'))",
            "is not longitude and latitude",
        );
    }
}
