//! `st_setcrs`: names the reference system of coordinates without changing them.

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::common::{ScalarValue, plan_err};
use datafusion::logical_expr::ReturnFieldArgs;
use twinlake_contracts::{CRS84, geometry_field};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};

pub(crate) static DEFINITION: Definition = Definition {
    name: "st_setcrs",
    aliases: &[],
    summary: "The same coordinates, said to be in the reference system given as a constant: 'EPSG:3879'",
    overloads: &[&[("geometry", Kind::Bytes), ("crs", Kind::Text)]],
    crs: CrsRule::Same,
    output: Output::Field(field),
    body,
};

pub(crate) static SRID: Definition = Definition {
    name: "st_setsrid",
    aliases: &[],
    summary: "The same coordinates, said to be in the reference system with the EPSG number given as a constant",
    overloads: &[&[("geometry", Kind::Bytes), ("srid", Kind::Integer)]],
    crs: CrsRule::Same,
    output: Output::Field(field_of_number),
    body,
};

fn field_of_number(args: &ReturnFieldArgs<'_>) -> Result<Field> {
    match args.scalar_arguments.get(1).copied().flatten() {
        Some(ScalarValue::Int64(Some(4326))) => Ok(geometry_field("st_setsrid", CRS84, true)),
        Some(ScalarValue::Int64(Some(number))) if *number > 0 => {
            Ok(geometry_field("st_setsrid", &format!("EPSG:{number}"), true))
        }
        _ => plan_err!("st_setsrid needs a constant EPSG number, for example 3879"),
    }
}

fn field(args: &ReturnFieldArgs<'_>) -> Result<Field> {
    let named = args.scalar_arguments.get(1).copied().flatten();
    let Some(crs) = named.and_then(|value| value.try_as_str().flatten()) else {
        return plan_err!("st_setcrs needs a constant reference system, for example 'EPSG:3879'");
    };
    let known = crs.split_once(':').is_some_and(|(authority, code)| {
        let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
        word(authority) && word(code)
    }) || matches!(crs, "GCJ-02" | "BD-09");
    if !known {
        return plan_err!("st_setcrs: '{crs}' is not AUTHORITY:CODE, for example EPSG:3879 or OGC:CRS84");
    }
    Ok(geometry_field("st_setcrs", crs, true))
}

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let bytes = call.bytes(0)?;
    call.rows::<BinaryArray, _>(|row| Ok(bytes.get(row).map(<[u8]>::to_vec)))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn names_the_reference_system() {
        check(&[
            ("st_srid(st_setcrs(st_point(25496000, 6672000), 'EPSG:3879'))", "3879"),
            ("st_astext(st_setcrs(st_point(1, 2), 'EPSG:3879'))", "POINT(1 2)"),
            (
                "st_srid(st_setsrid(st_point(1, 2), 3067)), st_srid(st_setsrid(st_point(1, 2), 4326))",
                "3067|4326",
            ),
            ("st_setcrs(NULL, 'EPSG:3879')", "NULL"),
        ]);
        fails("st_setcrs(st_point(1, 2), 'Helsinki')", "is not AUTHORITY:CODE");
        fails(
            "st_distance(st_point(1, 2), st_setcrs(st_point(1, 2), 'EPSG:3879'))",
            "different reference systems",
        );
    }
}
