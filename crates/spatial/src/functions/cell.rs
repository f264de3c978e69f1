//! H3 cells as 64-bit integers: Delta tables have no unsigned type, and a cell's first bit is always 0.

use datafusion::common::Result;
use h3o::{CellIndex, Resolution};

use crate::call::Call;

/// The cell of an integer, or an error that names the function.
pub(crate) fn cell(call: &Call<'_>, number: i64) -> Result<CellIndex> {
    u64::try_from(number)
        .ok()
        .and_then(|bits| CellIndex::try_from(bits).ok())
        .map_or_else(|| call.error(format!("{number} is not an H3 cell")), Ok)
}

/// The resolution of an integer, or an error that names the function.
pub(crate) fn resolution(call: &Call<'_>, number: i64) -> Result<Resolution> {
    u8::try_from(number)
        .ok()
        .and_then(|small| Resolution::try_from(small).ok())
        .map_or_else(|| call.error(format!("the resolution {number} is not in 0..=15")), Ok)
}

/// The integer of a cell.
pub(crate) fn to_integer(cell: CellIndex) -> i64 {
    u64::from(cell) as i64
}
