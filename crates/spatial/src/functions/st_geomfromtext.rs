//! `st_geomfromtext`: geometry from WKT.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::decode;
use crate::shape::Shape;

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
        read(call, text).map(|(shape, _)| Some(shape.encode()))
    })
}

/// Reads WKT or EWKT, checked.
pub(crate) fn read(call: &Call<'_>, text: &str) -> Result<(Shape, Option<u32>)> {
    let (shape, srid) = match Shape::from_wkt(text) {
        Ok(read) => read,
        Err(twinlake_contracts::Error::Data { message, .. }) => {
            return call.error(format!("'{}' is not WKT: {message}", shorten(text)));
        }
        Err(other) => return call.error(other),
    };
    call.data(decode(&shape.encode()))?;
    Ok((shape, srid))
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
            ("st_astext(st_geomfromtext('POINT Z (1 2 3)'))", "POINT Z (1 2 3)"),
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
