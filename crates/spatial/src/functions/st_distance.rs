//! `st_distance`: planar distance.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::{Distance, Euclidean, Geometry, HasDimensions};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_distance",
    aliases: &[],
    summary: "The shortest distance in units of the reference system (degrees in OGC:CRS84; st_distancesphere gives metres); null if one is empty",
    overloads: &[&[("a", Kind::Geometry), ("b", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: FLOAT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    call.prepared_pairs::<Float64Array, _>(|a, b, _| Ok(a.planar_distance(b, f64::INFINITY)))
}

/// The Euclidean distance; `None` when one is empty.
pub(crate) fn planar_distance(a: &Geometry, b: &Geometry) -> Option<f64> {
    match (a, b) {
        _ if a.is_empty() || b.is_empty() => None,
        // The distance of collections counts an empty member as 0.
        (Geometry::GeometryCollection(_), _) | (_, Geometry::GeometryCollection(_)) => {
            super::measures::nearest(a, b).map(|(from, to)| (from.x - to.x).hypot(from.y - to.y))
        }
        _ => Some(Euclidean.distance(a, b)),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn measures_in_units_of_the_plane() {
        check(&[
            ("st_distance(st_point(0, 0), st_point(3, 4))", "5.0"),
            ("st_distance(st_point(5, 2), st_makeenvelope(0, 0, 4, 4))", "1.0"),
            ("st_distance(st_point(1, 1), st_makeenvelope(0, 0, 4, 4))", "0.0"),
            ("st_distance(st_point(0, 0), st_geomfromtext('POINT EMPTY'))", "NULL"),
            ("st_distance(NULL, st_point(0, 0))", "NULL"),
        ]);
        for wkt in EVERY_TYPE {
            assert_eq!(
                eval(&format!("st_distance(st_geomfromtext('{wkt}'), st_geomfromtext('{wkt}'))")),
                "0.0"
            );
        }
    }
}
