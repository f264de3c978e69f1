//! `st_asbinary`: geometry as WKB bytes.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::shape::Flavour;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_asbinary",
    aliases: &["st_aswkb"],
    summary: "The geometry as ISO well-known binary, little-endian or in the byte order given: 'NDR' little, 'XDR' big",
    overloads: &[
        &[("geometry", Kind::Geometry)],
        &[("geometry", Kind::Geometry), ("byte_order", Kind::Text)],
    ],
    crs: CrsRule::Same,
    output: Output::Value(|| arrow::datatypes::DataType::Binary),
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let bytes = call.bytes(0)?;
    let orders = if call.arity() > 1 { Some(call.texts(1)?) } else { None };
    call.rows::<BinaryArray, _>(|row| {
        let Some(bytes) = bytes.get(row) else { return Ok(None) };
        let big = match &orders {
            None => false,
            Some(orders) => match orders.get(row) {
                None => return Ok(None),
                Some(order) => big_endian(call, order)?,
            },
        };
        Ok(Some(call.shape(bytes)?.to_wkb(Flavour::Iso, big)))
    })
}

/// Whether a byte order is big-endian.
pub(crate) fn big_endian(call: &Call<'_>, order: &str) -> Result<bool> {
    match order.to_ascii_uppercase().as_str() {
        "NDR" => Ok(false),
        "XDR" => Ok(true),
        _ => call.error(format!("'{order}' is no byte order: 'NDR' is little-endian, 'XDR' big-endian")),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn writes_bytes() {
        check(&[
            ("encode(st_asbinary(st_point(1, 2)), 'hex')", "0101000000000000000000f03f0000000000000040"),
            ("st_asbinary(NULL)", "NULL"),
        ]);
        for wkt in EVERY_TYPE {
            let expression = format!("st_astext(st_geomfromwkb(st_asbinary(st_geomfromtext('{wkt}'))))");
            assert_eq!(eval(&expression), wkt);
        }
    }
}
