//! `st_geomfromgeojson`: geometry from GeoJSON.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::{encode, from_geojson};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_geomfromgeojson",
    aliases: &[],
    summary: "A geometry from a GeoJSON geometry object (RFC 7946)",
    overloads: &[&[("geojson", Kind::Text)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.rows::<BinaryArray, _>(|row| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        let parsed: serde_json::Value = match serde_json::from_str(text) {
            Ok(parsed) => parsed,
            Err(error) => return call.error(format!("invalid JSON: {error}")),
        };
        match from_geojson(&parsed) {
            Ok(geometry) => Ok(Some(encode(&geometry))),
            Err(twinlake_contracts::Error::Data { message, .. }) => call.error(message),
            Err(error) => call.error(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn gives_back_every_type() {
        for wkt in EVERY_TYPE {
            let expression = format!("st_astext(st_geomfromgeojson(st_asgeojson(st_geomfromtext('{wkt}'))))");
            assert_eq!(eval(&expression), wkt);
        }
        check(&[("st_geomfromgeojson(NULL)", "NULL")]);
    }

    #[test]
    fn refuses_what_is_no_geometry() {
        fails("st_geomfromgeojson('{')", "st_geomfromgeojson: invalid JSON");
        fails(r#"st_geomfromgeojson('{"type":"Feature"}')"#, "\"Feature\" is not a geometry");
        fails(r#"st_geomfromgeojson('{"type":"Point","coordinates":["a",1]}')"#, "two numbers");
    }
}
