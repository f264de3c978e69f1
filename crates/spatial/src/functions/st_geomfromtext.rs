//! `st_geomfromtext`: geometry from WKT.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use std::str::FromStr;

use wkt::Wkt;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::{decode, encode_any};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_geomfromtext",
    aliases: &["st_geometryfromtext"],
    summary: "A geometry from well-known text",
    overloads: &[&[("wkt", Kind::Text)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.rows::<BinaryArray, _>(|row| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        let parsed = match Wkt::<f64>::from_str(text) {
            Ok(parsed) => parsed,
            Err(error) => return call.error(format!("'{}' is not WKT: {error}", shorten(text))),
        };
        let bytes = encode_any(&parsed);
        match decode(&bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) => call.error(error),
        }
    })
}

/// The first characters of a text, for a message.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn reads_every_type() {
        every_type("st_astext", EVERY_TYPE);
        check(&[
            ("st_astext(st_geomfromtext('POINT EMPTY'))", "POINT EMPTY"),
            ("st_astext(st_geomfromtext('LINESTRING EMPTY'))", "LINESTRING EMPTY"),
            ("st_astext(st_geomfromtext('POINT Z (1 2 3)'))", "POINT Z(1 2 3)"),
            ("st_geomfromtext(NULL)", "NULL"),
        ]);
    }

    #[test]
    fn refuses_what_is_no_geometry() {
        fails("st_geomfromtext('PINT(1 2)')", "st_geomfromtext: 'PINT(1 2)' is not WKT");
        fails("st_geomfromtext('LINESTRING(1 2)')", "two points");
        fails("st_geomfromtext(7)", "st_geomfromtext does not take (Int64)");
    }
}
