//! `h3_cell_to_latlng`: the centre of a cell as numbers.

use arrow::array::{ArrayRef, Float64Array, StructArray};
use datafusion::common::Result;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use h3o::LatLng;

use super::cell::cell;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};

pub(crate) static DEFINITION: Definition = Definition {
    name: "h3_cell_to_latlng",
    aliases: &[],
    summary: "The centre of the cell as a struct of latitude and longitude in degrees",
    overloads: &[&[("cell", Kind::Integer)]],
    crs: CrsRule::Same,
    output: Output::Value(data_type),
    body,
};

fn data_type() -> DataType {
    let degrees = |name: &str| Field::new(name, DataType::Float64, true);
    DataType::Struct(vec![degrees("latitude"), degrees("longitude")].into())
}

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let cells = call.integers(0)?;
    let mut latitudes = Vec::with_capacity(call.rows);
    let mut longitudes = Vec::with_capacity(call.rows);
    let mut valid = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let centre = cells.get(row).map(|number| cell(call, number)).transpose()?.map(LatLng::from);
        latitudes.push(centre.map(LatLng::lat));
        longitudes.push(centre.map(LatLng::lng));
        valid.push(centre.is_some());
    }
    let DataType::Struct(fields) = data_type() else { return call.error("its type is not a struct") };
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Float64Array::from(latitudes)), Arc::new(Float64Array::from(longitudes))];
    Ok(Arc::new(StructArray::try_new(fields, columns, Some(valid.into()))?))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn gives_the_centre() {
        check(&[
            (
                "round(h3_cell_to_latlng(h3_latlng_to_cell(60.1699, 24.9384, 12))['latitude'] * 1000)",
                "60170.0",
            ),
            (
                "round(h3_cell_to_latlng(h3_latlng_to_cell(60.1699, 24.9384, 12))['longitude'] * 1000)",
                "24938.0",
            ),
            ("h3_cell_to_latlng(NULL)", "NULL"),
        ]);
        fails("h3_cell_to_latlng(7)", "h3_cell_to_latlng: 7 is not an H3 cell");
    }
}
