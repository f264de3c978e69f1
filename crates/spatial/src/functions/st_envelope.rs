//! `st_envelope`: the bounding box as a polygon.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::BoundingRect;

use super::st_makeenvelope::rectangle;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_envelope",
    aliases: &[],
    summary: "The bounding box as a polygon (without area for a point or a level line); null for an empty geometry",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<BinaryArray, _>(|row| {
        let bounds = geometries.get(row)?.and_then(|geometry| geometry.bounding_rect());
        Ok(bounds.map(|b| encode(&rectangle(b.min().x, b.min().y, b.max().x, b.max().y).into())))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn boxes_every_type() {
        for wkt in EVERY_TYPE {
            assert_eq!(eval(&format!("st_npoints(st_envelope(st_geomfromtext('{wkt}')))")), "5", "{wkt}");
        }
        check(&[
            (
                "st_astext(st_envelope(st_geomfromtext('LINESTRING(0 4,3 0)')))",
                "POLYGON((0 0,3 0,3 4,0 4,0 0))",
            ),
            ("st_envelope(st_geomfromtext('POINT EMPTY'))", "NULL"),
            ("st_envelope(NULL)", "NULL"),
        ]);
    }
}
