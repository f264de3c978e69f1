//! `st_length`: planar length of lines.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::{Euclidean, Length};

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
    let geometries = call.geometries(0)?;
    call.rows::<Float64Array, _>(|row| {
        Ok(geometries
            .get(row)?
            .map(|geometry| total(lines(&geometry).iter().map(|line| Euclidean.length(*line)))))
    })
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
