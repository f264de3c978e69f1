//! `st_area`: planar area.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::Area;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_area",
    aliases: &[],
    summary: "The area in squared units of the reference system; 0 for points and lines",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: FLOAT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<Float64Array, _>(|row| Ok(geometries.get(row)?.map(|geometry| geometry.unsigned_area())))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn measures_polygons_only() {
        every_type("st_area", ["0.0", "0.0", "16.0", "0.0", "0.0", "17.0", "0.0"]);
        check(&[
            ("st_area(st_geomfromtext('POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,1 2,2 2,2 1,1 1))'))", "15.0"),
            ("st_area(st_geomfromtext('POLYGON EMPTY'))", "0.0"),
            ("st_area(NULL)", "NULL"),
        ]);
    }
}
