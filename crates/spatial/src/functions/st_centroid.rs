//! `st_centroid`: the centre of mass.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::Centroid;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_centroid",
    aliases: &[],
    summary: "The centre of mass in the plane of the coordinates; null for an empty geometry",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<BinaryArray, _>(|row| {
        Ok(geometries.get(row)?.and_then(|geometry| geometry.centroid()).map(|point| encode(&point.into())))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn finds_centres() {
        check(&[
            ("st_astext(st_centroid(st_point(1, 2)))", "POINT(1 2)"),
            ("st_astext(st_centroid(st_geomfromtext('LINESTRING(0 0,3 4)')))", "POINT(1.5 2)"),
            ("st_astext(st_centroid(st_makeenvelope(0, 0, 4, 4)))", "POINT(2 2)"),
            ("st_astext(st_centroid(st_geomfromtext('MULTIPOINT((0 0),(2 2))')))", "POINT(1 1)"),
            ("st_centroid(st_geomfromtext('LINESTRING EMPTY'))", "NULL"),
            ("st_centroid(NULL)", "NULL"),
        ]);
    }
}
