//! `st_length`: planar length of lines.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::{Coord, Distance, Euclidean, Length};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};
use crate::geometry::{lines, total};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_length",
    aliases: &[],
    summary: "The length of the lines in units of the reference system (degrees in OGC:CRS84); 0 for points and polygons",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: FLOAT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (bytes, geometries) = (call.bytes(0)?, call.geometries(0)?);
    call.rows::<Float64Array, _>(|row| {
        if let Some([from, to]) = bytes.get(row).and_then(line_of_two) {
            return Ok(Some(total(std::iter::once(Euclidean.distance(from, to)))));
        }
        Ok(geometries
            .get(row)?
            .map(|geometry| total(lines(&geometry).iter().map(|line| Euclidean.length(*line)))))
    })
}

/// The ends of a little-endian line of two finite places in the plane.
fn line_of_two(bytes: &[u8]) -> Option<[Coord; 2]> {
    let bytes: &[u8; 41] = bytes.try_into().ok()?;
    if bytes[..9] != [1, 2, 0, 0, 0, 2, 0, 0, 0] {
        return None;
    }
    let number = |at: usize| f64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let [a, b, c, d] = [number(9), number(17), number(25), number(33)];
    let ends = [Coord { x: a, y: b }, Coord { x: c, y: d }];
    [a, b, c, d].iter().all(|number| number.is_finite()).then_some(ends)
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn measures_lines_only() {
        every_type("st_length", ["0.0", "5.0", "0.0", "0.0", "10.0", "0.0", "5.0"]);
        check(&[("st_length(st_geomfromtext('LINESTRING EMPTY'))", "0.0"), ("st_length(NULL)", "NULL")]);
    }
}
