//! `h3_grid_disk`: a cell and the cells around it.

use arrow::array::{ArrayRef, Int64Builder, ListBuilder};
use datafusion::common::Result;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

use super::cell::{cell, to_integer};
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_grid_disk",
    aliases: &[],
    summary: "The cells within k steps of the cell, itself included, in ascending order, as a list",
    overloads: &[&[("cell", Kind::Integer), ("k", Kind::Integer)]],
    crs: CrsRule::Same,
    output: Output::Value(data_type),
    body,
};

/// More would be a slip: 3,003,001 cells.
const MAX_STEPS: i64 = 1_000;

fn data_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))
}

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (cells, steps) = (call.integers(0)?, call.integers(1)?);
    let mut lists = ListBuilder::new(Int64Builder::new());
    for row in 0..call.rows {
        let (Some(number), Some(k)) = (cells.get(row), steps.get(row)) else {
            lists.append_null();
            continue;
        };
        let centre = cell(call, number)?;
        let k = match u32::try_from(k) {
            Ok(small) if k <= MAX_STEPS => small,
            _ => return call.error(format!("k = {k} is not in 0..={MAX_STEPS}")),
        };
        let mut disk: Vec<i64> = centre.grid_disk_safe(k).map(to_integer).collect();
        disk.sort_unstable();
        lists.append_value(disk.into_iter().map(Some));
    }
    Ok(Arc::new(lists.finish()))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn spreads_out() {
        check(&[
            ("array_length(h3_grid_disk(h3_latlng_to_cell(60.1, 24.9, 9), 2))", "19"),
            (
                "h3_grid_disk(h3_latlng_to_cell(60.1, 24.9, 9), 0)[1] = h3_latlng_to_cell(60.1, 24.9, 9)",
                "true",
            ),
            ("h3_grid_disk(NULL, 1)", "NULL"),
        ]);
        fails("h3_grid_disk(h3_latlng_to_cell(60.1, 24.9, 9), -1)", "k = -1 is not in 0..=1000");
    }
}
