//! `h3_from_string`: a cell from its hexadecimal spelling.

use arrow::array::{ArrayRef, Int64Array};
use datafusion::common::Result;
use std::str::FromStr;

use h3o::CellIndex;

use super::cell::to_integer;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, INT64, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_from_string",
    aliases: &["h3_string_to_cell"],
    summary: "The cell of a hexadecimal spelling",
    overloads: &[&[("text", Kind::Text)]],
    crs: CrsRule::Same,
    output: INT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.rows::<Int64Array, _>(|row| match texts.get(row).map(|text| (text, CellIndex::from_str(text))) {
        None => Ok(None),
        Some((_, Ok(cell))) => Ok(Some(to_integer(cell))),
        Some((text, Err(_))) => call.error(format!("'{text}' is not an H3 cell")),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn reads_spellings() {
        check(&[
            ("h3_from_string('8928308280fffff')", "617700169958293503"),
            ("h3_from_string(NULL)", "NULL"),
        ]);
        fails("h3_from_string('zzz')", "h3_from_string: 'zzz' is not an H3 cell");
    }
}
