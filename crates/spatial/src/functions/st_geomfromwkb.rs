//! `st_geomfromwkb`: geometry from WKB bytes.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_geomfromwkb",
    aliases: &["st_geometryfromwkb"],
    summary: "A geometry from well-known binary (ISO or EWKB, either byte order), checked",
    overloads: &[&[("wkb", Kind::Bytes)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (geometries, bytes) = (call.geometries(0)?, call.bytes(0)?);
    call.rows::<BinaryArray, _>(|row| {
        let Some(bytes) = bytes.get(row) else { return Ok(None) };
        geometries.get(row)?;
        Ok(Some(call.shape(bytes)?.encode()))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn reads_both_byte_orders() {
        check(&[
            ("st_astext(st_geomfromwkb(st_asbinary(st_point(1, 2))))", "POINT(1 2)"),
            (
                "st_astext(st_geomfromwkb(decode('00000000013ff00000000000004000000000000000', 'hex')))",
                "POINT(1 2)",
            ),
            ("st_geomfromwkb(NULL)", "NULL"),
        ]);
    }

    #[test]
    fn refuses_damaged_bytes() {
        fails("st_geomfromwkb(decode('0101', 'hex'))", "st_geomfromwkb: invalid WKB");
        fails("st_geomfromwkb('POINT(1 2)')", "st_geomfromwkb does not take (Utf8)");
    }
}
