//! `st_lineinterpolatepoint`: the place at a fraction of a line.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::{Euclidean, Geometry, InterpolateLine};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_lineinterpolatepoint",
    aliases: &["st_line_interpolate_point"],
    summary: "The point at a fraction (0 to 1) of the planar length of a line; null for an empty line",
    overloads: &[&[("line", Kind::Geometry), ("fraction", Kind::Number)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (geometries, fractions) = (call.geometries(0)?, call.numbers(1)?);
    call.rows::<BinaryArray, _>(|row| {
        let (Some(geometry), Some(fraction)) = (geometries.get(row)?, fractions.get(row)) else {
            return Ok(None);
        };
        if !(0.0..=1.0).contains(&fraction) {
            return call.error(format!("the fraction {fraction} is not in 0..=1"));
        }
        match geometry.as_ref() {
            Geometry::LineString(line) => {
                Ok(Euclidean.point_at_ratio_from_start(line, fraction).map(|point| encode(&point.into())))
            }
            _ => call.error("takes a line"),
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn walks_along() {
        check(&[
            (
                "st_astext(st_lineinterpolatepoint(st_geomfromtext('LINESTRING(0 0,0 4,4 4)'), 0.75))",
                "POINT(2 4)",
            ),
            (
                "st_astext(st_lineinterpolatepoint(st_geomfromtext('LINESTRING(0 0,0 4,4 4)'), 1))",
                "POINT(4 4)",
            ),
            ("st_lineinterpolatepoint(st_geomfromtext('LINESTRING EMPTY'), 0.5)", "NULL"),
            ("st_lineinterpolatepoint(NULL, 0.5)", "NULL"),
        ]);
        fails("st_lineinterpolatepoint(st_geomfromtext('LINESTRING(0 0,0 4)'), 2)", "is not in 0..=1");
        fails("st_lineinterpolatepoint(st_point(0, 0), 0.5)", "takes a line");
    }
}
