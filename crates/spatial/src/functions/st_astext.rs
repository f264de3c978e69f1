//! `st_astext`: geometry as WKT.

use arrow::array::{ArrayRef, StringArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, UTF8};
use crate::geometry::to_wkt;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_astext",
    aliases: &["st_aswkt"],
    summary: "The geometry as well-known text",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: UTF8,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let bytes = call.bytes(0)?;
    call.rows::<StringArray, _>(|row| match bytes.get(row).map(to_wkt) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(twinlake_contracts::Error::Data { message, .. })) => call.error(message),
        Some(Err(error)) => call.error(error),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn writes_every_type() {
        every_type("st_astext", EVERY_TYPE);
        check(&[
            ("st_astext(NULL)", "NULL"),
            ("st_astext(st_point(0.1, 1e-7))", "POINT(0.1 0.0000001)"),
            ("st_astext(st_geomfromtext('POLYGON EMPTY'))", "POLYGON EMPTY"),
        ]);
        fails("st_astext(decode('01', 'hex'))", "st_astext: invalid WKB");
        fails("st_astext('POINT(1 2)')", "it is st_astext(geometry geometry)");
    }
}
