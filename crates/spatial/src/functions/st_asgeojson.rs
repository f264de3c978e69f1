//! `st_asgeojson`: geometry as GeoJSON.

use arrow::array::{ArrayRef, StringArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, UTF8};
use crate::geometry::to_geojson;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_asgeojson",
    aliases: &[],
    summary: "The geometry as a GeoJSON geometry object (RFC 7946); longitude and latitude only",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::LonLat,
    output: UTF8,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<StringArray, _>(|row| {
        Ok(geometries.get(row)?.map(|geometry| to_geojson(&geometry).to_string()))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn writes_geometry_objects() {
        check(&[
            ("st_asgeojson(st_point(24.94, 60.17))", r#"{"type":"Point","coordinates":[24.94,60.17]}"#),
            (
                "st_asgeojson(st_geomfromtext('POLYGON((0 0,1 0,1 1,0 0))'))",
                r#"{"type":"Polygon","coordinates":[[[0.0,0.0],[1.0,0.0],[1.0,1.0],[0.0,0.0]]]}"#,
            ),
            ("st_asgeojson(st_geomfromtext('POLYGON EMPTY'))", r#"{"type":"Polygon","coordinates":[]}"#),
            ("st_asgeojson(NULL)", "NULL"),
        ]);
        fails("st_asgeojson(st_setcrs(st_point(1, 2), 'EPSG:3879'))", "not EPSG:3879");
    }
}
