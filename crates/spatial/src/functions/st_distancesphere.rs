//! `st_distancesphere`: distance in metres on the mean sphere.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::{Distance, Haversine};

use super::degrees::check_degrees;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};
use crate::metric::closest_pair;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_distancesphere",
    aliases: &["st_distance_sphere"],
    summary: "The distance in metres on the mean sphere between the closest places of two geometries in longitude and latitude; null if one is empty",
    overloads: &[&[("a", Kind::Geometry), ("b", Kind::Geometry)]],
    crs: CrsRule::LonLat,
    output: FLOAT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right) = (call.geometries(0)?, call.geometries(1)?);
    call.rows::<Float64Array, _>(|row| {
        let (Some(a), Some(b)) = (left.get(row)?, right.get(row)?) else { return Ok(None) };
        check_degrees(call, &a)?;
        check_degrees(call, &b)?;
        Ok(closest_pair(&a, &b).map(|(from, to)| Haversine.distance(from.into(), to.into())))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn measures_metres() {
        check(&[
            (
                "abs(st_distancesphere(st_point(-0.1278, 51.5074), st_point(2.3522, 48.8566)) - 343557) < 1",
                "true",
            ),
            ("st_distance_sphere(st_point(1, 2), st_point(1, 2))", "0.0"),
            ("st_distancesphere(st_point(1, 1), st_makeenvelope(0, 0, 4, 4))", "0.0"),
            (
                "round(st_distancesphere(st_point(0.5, 0.001), st_geomfromtext('LINESTRING(0 0,1 0)')))",
                "111.0",
            ),
            ("st_distancesphere(st_point(1, 2), st_geomfromtext('POINT EMPTY'))", "NULL"),
            ("st_distancesphere(st_point(1, 2), NULL)", "NULL"),
        ]);
        fails(
            "st_distancesphere(st_point(1, 2), st_point(25496000, 6672000))",
            "is not longitude and latitude",
        );
    }

    #[test]
    fn is_zero_to_itself_for_every_type() {
        for wkt in EVERY_TYPE {
            let expression = format!("st_distancesphere(st_geomfromtext('{wkt}'), st_geomfromtext('{wkt}'))");
            assert_eq!(eval(&expression), "0.0", "{wkt}");
        }
    }
}
