//! `st_srid`: the number of the reference system.

use std::collections::HashMap;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ReturnFieldArgs;
use twinlake_contracts::crs_of;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output, is_lon_lat};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_srid",
    aliases: &[],
    summary: "The EPSG number of the reference system: 4326 for OGC:CRS84, 0 for one that is not named or not of EPSG",
    overloads: &[&[("geometry", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: Output::Field(field),
    body,
};

/// The metadata key under which the plan keeps the number until rows are computed.
const NUMBER: &str = "twinlake:srid";

#[allow(clippy::unnecessary_wraps, reason = "the shape that Output::Field asks for")]
fn field(args: &ReturnFieldArgs<'_>) -> Result<Field> {
    let number = match args.arg_fields.first().and_then(|field| crs_of(field)) {
        Some(crs) if is_lon_lat(&crs) => 4326,
        Some(crs) => crs.strip_prefix("EPSG:").and_then(|code| code.parse().ok()).unwrap_or(0),
        None => 0,
    };
    let metadata = HashMap::from([(NUMBER.to_owned(), number.to_string())]);
    Ok(Field::new("st_srid", DataType::Int64, true).with_metadata(metadata))
}

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let number: i64 = call.result.metadata().get(NUMBER).and_then(|text| text.parse().ok()).unwrap_or(0);
    let bytes = call.bytes(0)?;
    call.rows::<Int64Array, _>(|row| Ok(bytes.get(row).map(|_| number)))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn numbers_reference_systems() {
        check(&[
            ("st_srid(st_point(1, 2))", "4326"),
            ("st_srid(st_setcrs(st_point(1, 2), 'EPSG:3879'))", "3879"),
            ("st_srid(st_setcrs(st_point(1, 2), 'IAU:30100'))", "0"),
            ("st_srid(st_asbinary(st_point(1, 2)))", "0"),
            ("st_srid(NULL)", "NULL"),
        ]);
    }
}
