//! EWKB and EWKT: bytes and text of PostGIS that carry the number of the reference system with every value.

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ReturnFieldArgs;
use twinlake_contracts::{CRS84, crs_of, geometry_field};

use super::construct::field_of_number;
use super::st_asbinary::big_endian;
use super::st_geomfromtext::read;
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output, is_lon_lat};
use crate::shape::{Flavour, Shape};

/// The metadata key under which the plan keeps the number of the reference system until rows are computed.
const NUMBER: &str = "twinlake:srid";

fn number_of(args: &ReturnFieldArgs<'_>) -> u32 {
    match args.arg_fields.first().and_then(|field| crs_of(field)) {
        Some(crs) if is_lon_lat(&crs) => 4326,
        Some(crs) => crs.strip_prefix("EPSG:").and_then(|code| code.parse().ok()).unwrap_or(0),
        None => 0,
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the shape that Output::Field asks for")]
fn field(name: &str, data_type: DataType, args: &ReturnFieldArgs<'_>) -> Result<Field> {
    let metadata = std::collections::HashMap::from([(NUMBER.to_owned(), number_of(args).to_string())]);
    Ok(Field::new(name, data_type, true).with_metadata(metadata))
}

/// The number that the plan found; `None` for a reference system without one.
fn planned(call: &Call<'_>) -> Option<u32> {
    call.result.metadata().get(NUMBER).and_then(|text| text.parse().ok()).filter(|number| *number > 0)
}

pub(crate) static AS_EWKB: Definition = Definition {
    name: "st_asewkb",
    aliases: &[],
    summary: "The geometry as EWKB with the EPSG number of its reference system, little-endian or in the byte order given: 'NDR', 'XDR'",
    overloads: &[
        &[("geometry", Kind::Geometry)],
        &[("geometry", Kind::Geometry), ("byte_order", Kind::Text)],
    ],
    crs: CrsRule::Same,
    output: Output::Field(|args| field("st_asewkb", DataType::Binary, args)),
    body: |call| bytes::<BinaryArray, _>(call, |bytes| bytes),
};

pub(crate) static AS_HEX_EWKB: Definition = Definition {
    name: "st_ashexewkb",
    aliases: &[],
    summary: "The geometry as EWKB in hexadecimal digits, as PostGIS shows it",
    overloads: &[
        &[("geometry", Kind::Geometry)],
        &[("geometry", Kind::Geometry), ("byte_order", Kind::Text)],
    ],
    crs: CrsRule::Same,
    output: Output::Field(|args| field("st_ashexewkb", DataType::Utf8, args)),
    body: |call| bytes::<StringArray, _>(call, |bytes| hexadecimal(&bytes)),
};

/// Two upper-case digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

fn bytes<C, T>(call: &Call<'_>, write: impl Fn(Vec<u8>) -> T) -> Result<ArrayRef>
where
    C: FromIterator<Option<T>> + arrow::array::Array + 'static,
{
    let column = call.bytes(0)?;
    let orders = if call.arity() > 1 { Some(call.texts(1)?) } else { None };
    let flavour = Flavour::Extended { srid: planned(call) };
    call.rows::<C, T>(|row| {
        let Some(value) = column.get(row) else { return Ok(None) };
        let big = match &orders {
            None => false,
            Some(orders) => match orders.get(row) {
                Some(order) => big_endian(call, order)?,
                None => return Ok(None),
            },
        };
        Ok(Some(write(call.shape(value)?.to_wkb(flavour, big))))
    })
}

pub(crate) static AS_EWKT: Definition = Definition {
    name: "st_asewkt",
    aliases: &[],
    summary: "The geometry as text with the EPSG number of its reference system: SRID=4326;POINT(1 2); with at most as many decimals as given",
    overloads: &[
        &[("geometry", Kind::Geometry)],
        &[("geometry", Kind::Geometry), ("decimals", Kind::Integer)],
    ],
    crs: CrsRule::Same,
    output: Output::Field(|args| field("st_asewkt", DataType::Utf8, args)),
    body: |call| {
        let column = call.bytes(0)?;
        let decimals = if call.arity() > 1 { Some(call.integers(1)?) } else { None };
        let number = planned(call);
        call.rows::<StringArray, _>(|row| {
            let Some(value) = column.get(row) else { return Ok(None) };
            let digits = match &decimals {
                None => None,
                Some(decimals) => match decimals.get(row) {
                    None => return Ok(None),
                    Some(count @ 0..=15) => Some(count as usize),
                    Some(other) => return call.error(format!("{other} decimals are not in 0..=15")),
                },
            };
            let text = call.shape(value)?.to_wkt(digits);
            Ok(Some(match number {
                Some(number) => format!("SRID={number};{text}"),
                None => text,
            }))
        })
    },
};

/// The reference system that the result is said to be in: that of the constant, else longitude and latitude.
fn field_from(name: &str, args: &ReturnFieldArgs<'_>) -> Result<Field> {
    if args.arg_fields.len() > 1 {
        field_of_number(name, 1, args)
    } else {
        Ok(geometry_field(name, CRS84, true))
    }
}

/// A value may name the reference system of the column or none; another one is an error.
fn check_number(call: &Call<'_>, shape: &Shape, srid: Option<u32>) -> Result<Vec<u8>> {
    let crs = crs_of(call.result).unwrap_or_else(|| CRS84.to_owned());
    let wanted = if is_lon_lat(&crs) { "4326" } else { crs.strip_prefix("EPSG:").unwrap_or(&crs) };
    match srid {
        Some(number) if number != 0 && number.to_string() != wanted => call.error(format!(
            "the value has SRID {number}, the column {wanted}: give the number as a constant, {}(value, {number})",
            call.name
        )),
        _ => Ok(shape.encode()),
    }
}

pub(crate) static FROM_EWKB: Definition = Definition {
    name: "st_geomfromewkb",
    aliases: &[],
    summary: "A geometry from EWKB; its reference system is longitude and latitude, or that of an EPSG number given as a constant, and a value that names another one is an error",
    overloads: &[&[("ewkb", Kind::Bytes)], &[("ewkb", Kind::Bytes), ("srid", Kind::Integer)]],
    crs: CrsRule::Same,
    output: Output::Field(|args| field_from("st_geomfromewkb", args)),
    body: |call| {
        let (geometries, column) = (call.geometries(0)?, call.bytes(0)?);
        call.rows::<BinaryArray, _>(|row| {
            let Some(value) = column.get(row) else { return Ok(None) };
            geometries.get(row)?;
            let (shape, srid) = call.data(Shape::from_wkb(value))?;
            check_number(call, &shape, srid).map(Some)
        })
    },
};

pub(crate) static FROM_EWKT: Definition = Definition {
    name: "st_geomfromewkt",
    aliases: &[],
    summary: "A geometry from text with or without SRID=number; its reference system is longitude and latitude, or that of an EPSG number given as a constant, and a value that names another one is an error",
    overloads: &[&[("ewkt", Kind::Text)], &[("ewkt", Kind::Text), ("srid", Kind::Integer)]],
    crs: CrsRule::Same,
    output: Output::Field(|args| field_from("st_geomfromewkt", args)),
    body: |call| {
        let texts = call.texts(0)?;
        call.rows::<BinaryArray, _>(|row| {
            let Some(text) = texts.get(row) else { return Ok(None) };
            let (shape, srid) = read(call, text)?;
            check_number(call, &shape, srid).map(Some)
        })
    },
};

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn carries_the_number() {
        check(&[
            ("st_asewkt(st_point(1, 2))", "SRID=4326;POINT(1 2)"),
            ("st_asewkt(st_setsrid(st_point(1.23456, 2), 3879), 2)", "SRID=3879;POINT(1.23 2)"),
            ("st_ashexewkb(st_point(1, 2))", "0101000020E6100000000000000000F03F0000000000000040"),
            ("st_ashexewkb(st_point(1, 2), 'XDR')", "0020000001000010E63FF00000000000004000000000000000"),
            ("st_asewkt(st_geomfromewkb(st_asewkb(st_point(1, 2))))", "SRID=4326;POINT(1 2)"),
            ("st_asewkt(st_geomfromewkt('SRID=3879;POINT(1 2)', 3879))", "SRID=3879;POINT(1 2)"),
            ("st_geomfromewkt(NULL), st_asewkb(NULL)", "NULL|NULL"),
        ]);
        fails("st_geomfromewkt('SRID=3879;POINT(1 2)')", "the value has SRID 3879, the column 4326");
        fails("st_geomfromewkb(st_point(1, 2), 0)", "st_geomfromewkb needs a constant EPSG number");
    }
}
