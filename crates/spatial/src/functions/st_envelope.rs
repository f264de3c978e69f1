//! `st_envelope`: the bounding box as a polygon.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::{BoundingRect, Geometry, LineString, Point};

use super::st_makeenvelope::rectangle;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_envelope",
    aliases: &[],
    summary: "The bounding box: a polygon, the point itself for a point, a line where it has no width or no height; an empty geometry as it is",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<BinaryArray, _>(|row| {
        let Some(geometry) = geometries.get(row)? else { return Ok(None) };
        let Some(bounds) = geometry.bounding_rect() else { return Ok(Some(encode(&geometry))) };
        let (min, max) = (bounds.min(), bounds.max());
        let envelope: Geometry = match (min.x == max.x, min.y == max.y) {
            (true, true) => Point(min).into(),
            (false, false) => rectangle(min.x, min.y, max.x, max.y).into(),
            _ => LineString::new(vec![min, max]).into(),
        };
        Ok(Some(encode(&envelope)))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn boxes_every_type() {
        check(&[
            (
                "st_astext(st_envelope(st_geomfromtext('LINESTRING(0 4,3 0)')))",
                "POLYGON((0 0,3 0,3 4,0 4,0 0))",
            ),
            ("st_astext(st_envelope(st_geomfromtext('LINESTRING(0 4,0 0)')))", "LINESTRING(0 0,0 4)"),
            ("st_astext(st_envelope(st_geomfromtext('MULTIPOINT(1 2)')))", "POINT(1 2)"),
            (
                "st_astext(st_envelope(st_geomfromtext('GEOMETRYCOLLECTION(POINT(1 2),POINT(3 4))')))",
                "POLYGON((1 2,3 2,3 4,1 4,1 2))",
            ),
            ("st_astext(st_envelope(st_geomfromtext('LINESTRING EMPTY')))", "LINESTRING EMPTY"),
            ("st_envelope(NULL)", "NULL"),
        ]);
    }
}
