//! `st_makeenvelope`: a rectangle from its bounds.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::Polygon;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_makeenvelope",
    aliases: &[],
    summary: "A rectangle as a polygon from its smallest and largest x and y",
    overloads: &[&[
        ("xmin", Kind::Number),
        ("ymin", Kind::Number),
        ("xmax", Kind::Number),
        ("ymax", Kind::Number),
    ]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let bounds = [call.numbers(0)?, call.numbers(1)?, call.numbers(2)?, call.numbers(3)?];
    call.rows::<BinaryArray, _>(|row| {
        let [Some(xmin), Some(ymin), Some(xmax), Some(ymax)] =
            [0, 1, 2, 3].map(|i: usize| bounds[i].get(row))
        else {
            return Ok(None);
        };
        if ![xmin, ymin, xmax, ymax].iter().all(|bound| bound.is_finite()) || xmin > xmax || ymin > ymax {
            return call.error(format!("({xmin}, {ymin}) to ({xmax}, {ymax}) are not bounds"));
        }
        Ok(Some(encode(&rectangle(xmin, ymin, xmax, ymax).into())))
    })
}

/// Counter-clockwise from the lower left corner, as RFC 7946 wants exterior rings.
pub(crate) fn rectangle(xmin: f64, ymin: f64, xmax: f64, ymax: f64) -> Polygon {
    // Closed here: a rectangle without extent would seem closed already after four points.
    let ring = [(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax), (xmin, ymin)];
    Polygon::new(ring.into_iter().collect(), Vec::new())
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn makes_rectangles() {
        check(&[
            ("st_astext(st_makeenvelope(0, 1, 2, 3))", "POLYGON((0 1,2 1,2 3,0 3,0 1))"),
            ("st_makeenvelope(0, 1, NULL, 3)", "NULL"),
        ]);
        fails("st_makeenvelope(3, 0, 1, 1)", "st_makeenvelope: (3, 0) to (1, 1) are not bounds");
    }
}
