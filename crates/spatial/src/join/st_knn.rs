//! `st_knn`, `st_knn_sphere`: the condition of a join that finds the nearest.

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{BOOLEAN, CrsRule, Definition, Kind};

const PARAMETERS: &[&[(&str, Kind)]] =
    &[&[("a", Kind::Geometry), ("b", Kind::Geometry), ("k", Kind::Integer)]];

pub(crate) static PLANAR: Definition = Definition {
    name: "st_knn",
    aliases: &[],
    summary: "In the ON of a join: whether b is one of the k nearest to a, by planar distance; k is a constant, equal distances in no set order; conditions on b alone are met by all k, others are checked on the k found",
    overloads: PARAMETERS,
    crs: CrsRule::Same,
    output: BOOLEAN,
    body,
};

pub(crate) static SPHERE: Definition = Definition {
    name: "st_knn_sphere",
    aliases: &[],
    summary: "As st_knn, by distance in metres on the mean sphere; longitude and latitude only",
    overloads: PARAMETERS,
    crs: CrsRule::LonLat,
    output: BOOLEAN,
    body,
};

/// What a lateral subquery becomes (`super::lateral`); not for SQL, so it is not registered. As `st_knn`, but rows of b whose
/// distance is null, for a null or empty geometry, follow those that have one until there are k.
pub(super) static ROWS: Definition = Definition {
    name: "st_knn_rows",
    aliases: &[],
    summary: "As st_knn, filled up with rows whose distance is null",
    overloads: PARAMETERS,
    crs: CrsRule::Same,
    output: BOOLEAN,
    body,
};

/// The same by distance in metres on the mean sphere.
pub(super) static ROWS_SPHERE: Definition = Definition {
    name: "st_knn_sphere_rows",
    aliases: &[],
    summary: "As st_knn_sphere, filled up with rows whose distance is null",
    overloads: PARAMETERS,
    crs: CrsRule::LonLat,
    output: BOOLEAN,
    body,
};

/// Of two geometries alone nobody can tell whether a third is nearer.
fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (a, b, counts) = (call.geometries(0)?, call.geometries(1)?, call.integers(2)?);
    call.rows::<BooleanArray, _>(|row| {
        if a.get(row)?.is_none() || b.get(row)?.is_none() || counts.get(row).is_none() {
            return Ok(None);
        }
        call.error(
            "it needs the whole of b: use it in the ON of a join, without equal keys, with a constant k of at least 1",
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn says_where_it_belongs() {
        fails("st_knn(st_point(0, 0), st_point(1, 1), 3)", "use it in the ON of a join");
        fails("st_knn_sphere(st_point(0, 0), st_point(1, 1), 3)", "use it in the ON of a join");
        check(&[("st_knn(st_point(0, 0), NULL, 3)", "NULL")]);
    }
}
