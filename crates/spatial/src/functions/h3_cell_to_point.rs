//! `h3_cell_to_point`: the centre of a cell as a point.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::Point;
use h3o::LatLng;

use super::cell::cell;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_cell_to_point",
    aliases: &[],
    summary: "The centre of the cell as a point in longitude and latitude",
    overloads: &[&[("cell", Kind::Integer)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let cells = call.integers(0)?;
    call.rows::<BinaryArray, _>(|row| {
        let Some(number) = cells.get(row) else { return Ok(None) };
        let centre = LatLng::from(cell(call, number)?);
        Ok(Some(encode(&Point::new(centre.lng(), centre.lat()).into())))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn gives_the_centre() {
        check(&[
            (
                "st_distancesphere(h3_cell_to_point(h3_latlng_to_cell(60.1699, 24.9384, 12)), st_point(24.9384, 60.1699)) < 15",
                "true",
            ),
            ("h3_cell_to_point(NULL)", "NULL"),
        ]);
    }
}
