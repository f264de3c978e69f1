//! `st_geometrytype`: which kind of geometry it is.

use arrow::array::{ArrayRef, StringArray};
use datafusion::common::Result;
use wkb::reader::GeometryType;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, UTF8};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_geometrytype",
    aliases: &[],
    summary: "The type, spelled as PostGIS spells it: 'ST_Point', 'ST_LineString', …",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: UTF8,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<StringArray, _>(|row| {
        Ok(geometries.wkb(row)?.map(|read| match read.geometry_type() {
            GeometryType::Point => "ST_Point",
            GeometryType::LineString => "ST_LineString",
            GeometryType::Polygon => "ST_Polygon",
            GeometryType::MultiPoint => "ST_MultiPoint",
            GeometryType::MultiLineString => "ST_MultiLineString",
            GeometryType::MultiPolygon => "ST_MultiPolygon",
            _ => "ST_GeometryCollection",
        }))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn names_every_type() {
        every_type(
            "st_geometrytype",
            [
                "ST_Point",
                "ST_LineString",
                "ST_Polygon",
                "ST_MultiPoint",
                "ST_MultiLineString",
                "ST_MultiPolygon",
                "ST_GeometryCollection",
            ],
        );
        check(&[
            ("st_geometrytype(st_geomfromtext('POINT EMPTY'))", "ST_Point"),
            ("st_geometrytype(NULL)", "NULL"),
        ]);
    }
}
