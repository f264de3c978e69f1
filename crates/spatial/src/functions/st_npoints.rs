//! `st_npoints`: how many points a geometry is made of.

use arrow::array::{ArrayRef, Int64Array};
use datafusion::common::Result;
use geo::coords_iter::CoordsIter;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, INT64, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_npoints",
    aliases: &[],
    summary: "The number of points of the geometry; the last point of a ring, equal to its first, counts",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: INT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<Int64Array, _>(|row| Ok(geometries.get(row)?.map(|geometry| geometry.coords_count() as i64)))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn counts_points() {
        every_type("st_npoints", ["1", "2", "5", "2", "4", "10", "3"]);
        check(&[("st_numpoints(st_geomfromtext('LINESTRING EMPTY'))", "0"), ("st_npoints(NULL)", "NULL")]);
    }
}
