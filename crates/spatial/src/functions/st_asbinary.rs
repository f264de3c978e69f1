//! `st_asbinary`: geometry as plain bytes.

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::DataType;
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode_any;

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_asbinary",
    aliases: &["st_aswkb"],
    summary: "The geometry as little-endian ISO well-known binary",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: Output::Value(|| DataType::Binary),
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<BinaryArray, _>(|row| Ok(geometries.wkb(row)?.map(|read| encode_any(&read))))
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
