//! `h3_latlng_to_cell`: the H3 cell of a position.

use arrow::array::{ArrayRef, Int64Array};
use datafusion::common::Result;
use h3o::LatLng;

use super::cell::{resolution, to_integer};
use crate::call::Call;
use crate::definition::{CrsRule, Definition, INT64, Kind};

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_latlng_to_cell",
    aliases: &[],
    summary: "The H3 cell, as a 64-bit integer, at a latitude and longitude in degrees and a resolution 0 to 15",
    overloads: &[&[("latitude", Kind::Number), ("longitude", Kind::Number), ("resolution", Kind::Integer)]],
    crs: CrsRule::Same,
    output: INT64,
    body,
};

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (latitudes, longitudes, resolutions) = (call.numbers(0)?, call.numbers(1)?, call.integers(2)?);
    call.rows::<Int64Array, _>(|row| {
        let (Some(latitude), Some(longitude), Some(number)) =
            (latitudes.get(row), longitudes.get(row), resolutions.get(row))
        else {
            return Ok(None);
        };
        if !(-90.0..=90.0).contains(&latitude) || !(-360.0..=360.0).contains(&longitude) {
            return call
                .error(format!("latitude {latitude}, longitude {longitude} are not degrees on the earth"));
        }
        let resolution = resolution(call, number)?;
        match LatLng::new(latitude, longitude) {
            Ok(position) => Ok(Some(to_integer(position.to_cell(resolution)))),
            Err(error) => call.error(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn finds_cells() {
        check(&[
            // The example of the H3 documentation.
            ("h3_string(h3_latlng_to_cell(37.3615593, -122.0553238, 7))", "87283472bffffff"),
            ("h3_latlng_to_cell(60.1699, 24.9384, NULL)", "NULL"),
            ("h3_latlng_to_cell(NULL, 24.9384, 9)", "NULL"),
        ]);
        fails("h3_latlng_to_cell(60, 24, 16)", "h3_latlng_to_cell: the resolution 16 is not in 0..=15");
        fails("h3_latlng_to_cell(95, 24, 9)", "are not degrees");
        fails("h3_latlng_to_cell(CAST('NaN' AS DOUBLE), 24, 9)", "are not degrees");
    }
}
