//! `h3_cell_to_boundary`: the outline of a cell.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::{Coord, LineString, Polygon};

use super::cell::cell;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_cell_to_boundary",
    aliases: &[],
    summary: "The outline of the cell as a polygon in longitude and latitude",
    overloads: &[&[("cell", Kind::Integer)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let cells = call.integers(0)?;
    call.rows::<BinaryArray, _>(|row| {
        let Some(number) = cells.get(row) else { return Ok(None) };
        let boundary = cell(call, number)?.boundary();
        let ring: LineString =
            boundary.iter().map(|vertex| Coord { x: vertex.lng(), y: vertex.lat() }).collect();
        Ok(Some(encode(&Polygon::new(ring, Vec::new()).into())))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn outlines_hold_their_centre() {
        check(&[
            ("st_npoints(h3_cell_to_boundary(h3_latlng_to_cell(60.1699, 24.9384, 9)))", "7"),
            (
                "st_contains(h3_cell_to_boundary(h3_latlng_to_cell(60.1699, 24.9384, 9)), st_point(24.9384, 60.1699))",
                "true",
            ),
            ("h3_cell_to_boundary(NULL)", "NULL"),
        ]);
    }
}
