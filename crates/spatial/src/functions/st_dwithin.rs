//! `st_dwithin`: whether two geometries are near each other in the plane.

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{BOOLEAN, CrsRule, Definition, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_dwithin",
    aliases: &[],
    summary: "Whether the distance is at most the one given in units of the reference system (degrees in OGC:CRS84; st_dwithin_sphere takes metres); false if one is empty",
    overloads: &[&[("a", Kind::Geometry), ("b", Kind::Geometry), ("distance", Kind::Number)]],
    crs: CrsRule::Same,
    output: BOOLEAN,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let limits = call.numbers(2)?;
    call.prepared_pairs::<BooleanArray, _>(|a, b, row| {
        let Some(limit) = limits.get(row) else { return Ok(None) };
        Ok(Some(a.planar_distance(b, limit).is_some_and(|distance| distance <= limit)))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn compares_with_the_limit() {
        check(&[
            ("st_dwithin(st_point(0, 0), st_point(3, 4), 5)", "true"),
            ("st_dwithin(st_point(0, 0), st_point(3, 4), 4.99)", "false"),
            ("st_dwithin(st_point(0, 0), st_geomfromtext('POINT EMPTY'), 5)", "false"),
            ("st_dwithin(st_point(0, 0), st_point(3, 4), NULL)", "NULL"),
        ]);
    }
}
