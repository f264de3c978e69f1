//! `h3_string`: the usual hexadecimal spelling of a cell.

use arrow::array::{ArrayRef, StringArray};
use datafusion::common::Result;

use super::cell::cell;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, UTF8};

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_string",
    aliases: &["h3_cell_to_string"],
    summary: "The cell in its usual hexadecimal spelling",
    overloads: &[&[("cell", Kind::Integer)]],
    crs: CrsRule::Same,
    output: UTF8,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let cells = call.integers(0)?;
    call.rows::<StringArray, _>(|row| {
        cells.get(row).map(|number| Ok(cell(call, number)?.to_string())).transpose()
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn spells_cells() {
        check(&[("h3_string(617700169958293503)", "8928308280fffff"), ("h3_string(NULL)", "NULL")]);
        fails("h3_string(0)", "h3_string: 0 is not an H3 cell");
    }
}
