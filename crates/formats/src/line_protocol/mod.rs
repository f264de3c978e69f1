//! InfluxDB line protocol: `measurement[,tag=value…] field=value[,field=value…] [time]`.
//!
//! What is read is what InfluxData's own decoder reads (`influxdata/line-protocol`, its corpus is this module's test):
//! - Spaces, commas and equals signs in names and tag values are escaped with `\`; text values stand in double quotes,
//!   with `\"`, `\\`, `\n`, `\r`, `\t`, and may go over several lines. Other backslashes stand for themselves.
//! - Numbers are floats; `5i` is a signed, `5u` an unsigned integer; `t`, `T`, `true`, `True`, `TRUE` and the same of
//!   false are booleans. Infinite numbers and NaN are refused.
//! - A tag that is there twice refuses the line; of a field that is there twice, the last one counts.
//! - Lines that start with `#` and empty lines say nothing.
//!
//! A line at fault is refused with its number and its text, and the next line goes on. A text whose closing quote is
//! missing refuses its own line only: the next line is read as a line again.
//!
//! Columns: `ts` (microseconds, UTC; nanoseconds are cut off, downwards), then tags as text, fields as Float64, Int64,
//! Boolean or text, in the order in which the body names them. Unsigned integers land as Int64; one above 2⁶³-1 refuses
//! the line (`out_of_range`). A line without a time has the time at which the body was received, cut to the body's
//! precision. Times beyond what 64 bits of nanoseconds hold (1677 to 2262) are refused.

mod parser;
mod scan;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use twinlake_contracts::{DecodedBody, Precision, RefusedPart, Result, RowsFor, TableRows};

use self::parser::{Fault, Line, Parser, Value};
use crate::bodies::refuse;
use crate::sheets::{Named, Role, Sheets};
use crate::values::{Cell, shown};

/// The column of the time stamp.
const TIME: &str = "ts";

/// Decodes a body: the rows of each measurement, and the lines at fault.
pub(crate) fn decode(
    database: &str,
    precision: Precision,
    body: &Bytes,
    received_at_us: i64,
) -> Result<DecodedBody> {
    let database: Arc<str> = database.into();
    let mut sheets = Sheets::new(false);
    let mut refused = Vec::new();
    let mut parser = Parser::new(body);
    let mut line = Line::default();
    let mut cells: Vec<Named<'_>> = Vec::new();
    let unit = precision.nanoseconds();
    let default = received_at_us.saturating_mul(1_000);
    let default = default - default.rem_euclid(unit);
    while let Some(result) = parser.next(&mut line) {
        cells.clear();
        let outcome = result.and_then(|()| {
            row(&mut line, unit, default, &mut cells).map_err(|detail| Fault {
                number: line.number,
                reason: "out_of_range",
                detail,
                text: line.text.clone(),
            })
        });
        match outcome {
            Ok(()) => sheets.push(&line.measurement, line.number, &mut cells),
            Err(fault) => refuse(&mut refused, part(body, fault))?,
        }
    }
    let tables = sheets.finish()?.into_iter().map(|(measurement, rows, places)| TableRows {
        table: RowsFor::Measurement { database: Arc::clone(&database), measurement: measurement.into() },
        rows,
        places,
    });
    Ok(DecodedBody { tables: tables.collect(), refused })
}

/// The values of a line, or what is out of range.
fn row<'a>(
    line: &mut Line<'a>,
    unit: i64,
    default: i64,
    cells: &mut Vec<Named<'a>>,
) -> std::result::Result<(), String> {
    let nanoseconds = match line.time {
        None => default,
        Some(count) => count
            .checked_mul(unit)
            .ok_or_else(|| format!("the time {count} is beyond 64 bits of nanoseconds"))?,
    };
    let time = Cell::Timestamp(nanoseconds.div_euclid(1_000));
    cells.push(Named { role: Role::Plain, name: Cow::Borrowed(TIME), cell: time });
    let tags = line.tags.drain(..);
    cells.extend(tags.map(|(name, value)| Named { role: Role::Tag, name, cell: Cell::Utf8(value) }));
    for (name, value) in line.fields.drain(..) {
        let cell = match value {
            Value::Float(value) => Cell::Float64(value),
            Value::Integer(value) => Cell::Int64(value),
            Value::Boolean(value) => Cell::Boolean(value),
            Value::Text(value) => Cell::Utf8(value),
            Value::Unsigned(value) => Cell::Int64(i64::try_from(value).map_err(|_| {
                format!("the field '{}' is {value}u: a table holds 64 bits with a sign", shown(&name))
            })?),
        };
        cells.push(Named { role: Role::Field, name, cell });
    }
    Ok(())
}

fn part(body: &Bytes, fault: Fault) -> RefusedPart {
    RefusedPart {
        place: fault.number.into(),
        reason: fault.reason.into(),
        detail: fault.detail,
        text: body.slice(fault.text),
    }
}

/// The texts of lines, by their numbers from 1, rising.
pub(crate) fn texts(body: &Bytes, numbers: &[u32]) -> Vec<Bytes> {
    let mut found = Vec::with_capacity(numbers.len());
    let mut wanted = numbers.iter().peekable();
    let mut start = 0;
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        while wanted.next_if_eq(&&number).is_some() {
            let length = line.strip_suffix(b"\r").unwrap_or(line).len();
            found.push(body.slice(start..start + length));
        }
        if wanted.peek().is_none() {
            break;
        }
        start += line.len() + 1;
    }
    found.resize(numbers.len(), Bytes::new());
    found
}
