//! `h3_cell_to_parent`: the coarser cell around a cell.

use arrow::array::{ArrayRef, Int64Array};
use datafusion::common::Result;

use super::cell::{cell, resolution, to_integer};
use crate::call::Call;
use crate::definition::{CrsRule, Definition, INT64, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_cell_to_parent",
    aliases: &[],
    summary: "The cell of a coarser resolution that holds the cell",
    overloads: &[&[("cell", Kind::Integer), ("resolution", Kind::Integer)]],
    crs: CrsRule::Same,
    output: INT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (cells, resolutions) = (call.integers(0)?, call.integers(1)?);
    call.rows::<Int64Array, _>(|row| {
        let (Some(number), Some(wanted)) = (cells.get(row), resolutions.get(row)) else { return Ok(None) };
        let (cell, wanted) = (cell(call, number)?, resolution(call, wanted)?);
        match cell.parent(wanted) {
            Some(parent) => Ok(Some(to_integer(parent))),
            None => {
                call.error(format!("a cell of resolution {} has no parent of {wanted}", cell.resolution()))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn finds_parents() {
        check(&[
            ("h3_string(h3_cell_to_parent(h3_from_string('8928308280fffff'), 9))", "8928308280fffff"),
            (
                "h3_cell_to_parent(h3_latlng_to_cell(60.1, 24.9, 9), 5) = h3_latlng_to_cell(60.1, 24.9, 5)",
                "true",
            ),
            ("h3_cell_to_parent(NULL, 5)", "NULL"),
        ]);
        fails(
            "h3_cell_to_parent(h3_latlng_to_cell(60.1, 24.9, 5), 9)",
            "a cell of resolution 5 has no parent of 9",
        );
        fails("h3_cell_to_parent(1, 5)", "1 is not an H3 cell");
    }
}
