//! `st_dwithin_sphere`: whether two geometries are within some metres.

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::common::Result;
use geo::{BoundingRect, Distance, Geometry, Haversine};

use super::degrees::check_degrees;
use crate::call::Call;
use crate::definition::{BOOLEAN, CrsRule, Definition, Kind};
use crate::metric::{METRES_PER_DEGREE, closest_pair};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_dwithin_sphere",
    aliases: &["st_dwithinsphere"],
    summary: "Whether the distance on the mean sphere is at most the metres given; longitude and latitude only; false if one is empty",
    overloads: &[&[("a", Kind::Geometry), ("b", Kind::Geometry), ("distance_m", Kind::Number)]],
    crs: CrsRule::LonLat,
    output: BOOLEAN,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right, limits) = (call.geometries(0)?, call.geometries(1)?, call.numbers(2)?);
    call.rows::<BooleanArray, _>(|row| {
        let (Some(a), Some(b), Some(limit)) = (left.get(row)?, right.get(row)?, limits.get(row)) else {
            return Ok(None);
        };
        check_degrees(call, &a)?;
        check_degrees(call, &b)?;
        if apart(&a, &b, limit) {
            return Ok(Some(false));
        }
        let near = closest_pair(&a, &b).map(|(from, to)| Haversine.distance(from.into(), to.into()) <= limit);
        Ok(Some(near.unwrap_or(false)))
    })
}

/// Whether the bounding boxes alone show that the distance is above the limit: by latitude, which needs no cosine.
fn apart(a: &Geometry, b: &Geometry, limit_m: f64) -> bool {
    let (Some(a), Some(b)) = (a.bounding_rect(), b.bounding_rect()) else { return false };
    let gap_deg = (a.min().y - b.max().y).max(b.min().y - a.max().y);
    gap_deg * METRES_PER_DEGREE > limit_m * (1.0 + 1e-6) + 1e-3
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn compares_metres() {
        check(&[
            ("st_dwithin_sphere(st_point(24.94, 60.17), st_point(24.94, 60.171), 112)", "true"),
            ("st_dwithinsphere(st_point(24.94, 60.17), st_point(24.94, 60.171), 111)", "false"),
            ("st_dwithin_sphere(st_point(24.94, 60.17), st_point(24.942, 60.17), 111)", "true"),
            ("st_dwithin_sphere(st_point(24.94, 60.17), st_geomfromtext('POINT EMPTY'), 111)", "false"),
            ("st_dwithin_sphere(st_point(24.94, 60.17), NULL, 111)", "NULL"),
        ]);
    }
}
