//! `st_isempty`: whether there is nothing in it.

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::common::Result;
use geo::HasDimensions;

use crate::call::Call;
use crate::definition::{BOOLEAN, CrsRule, Definition, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_isempty",
    aliases: &[],
    summary: "Whether the geometry has no point at all",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: BOOLEAN,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<BooleanArray, _>(|row| Ok(geometries.get(row)?.map(|geometry| geometry.is_empty())))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn knows_empty_from_full() {
        every_type("st_isempty", ["false"; 7]);
        for empty in [
            "POINT EMPTY",
            "LINESTRING EMPTY",
            "POLYGON EMPTY",
            "MULTIPOINT EMPTY",
            "GEOMETRYCOLLECTION EMPTY",
        ] {
            assert_eq!(eval(&format!("st_isempty(st_geomfromtext('{empty}'))")), "true", "{empty}");
        }
        check(&[("st_isempty(NULL)", "NULL")]);
    }
}
