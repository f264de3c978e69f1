//! `st_point`: a point from two coordinates.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::Point;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_point",
    aliases: &[],
    summary: "A point from x (longitude in degrees for OGC:CRS84) and y (latitude)",
    overloads: &[&[("x", Kind::Number), ("y", Kind::Number)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (xs, ys) = (call.numbers(0)?, call.numbers(1)?);
    call.rows::<BinaryArray, _>(|row| {
        let (Some(x), Some(y)) = (xs.get(row), ys.get(row)) else { return Ok(None) };
        if !x.is_finite() || !y.is_finite() {
            return call.error(format!("the coordinate ({x}, {y}) is not finite"));
        }
        Ok(Some(encode(&Point::new(x, y).into())))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn makes_points() {
        check(&[
            ("st_astext(st_point(24.94, 60.17))", "POINT(24.94 60.17)"),
            ("st_astext(st_makepoint(1, -2))", "POINT(1 -2)"),
            ("st_point(NULL, 60.17)", "NULL"),
            ("st_point(24.94, CAST(NULL AS DOUBLE))", "NULL"),
            ("encode(st_point(0, 1), 'hex')", "01010000000000000000000000000000000000f03f"),
        ]);
    }

    #[test]
    fn refuses_what_is_no_coordinate() {
        fails("st_point(CAST('NaN' AS DOUBLE), 1)", "st_point: the coordinate (NaN, 1) is not finite");
        fails("st_point('24.9', 1)", "st_point does not take (Utf8");
        fails("st_point(1)", "it is st_point(x number, y number)");
    }
}
