//! One call of one function, made from bytes: what the fuzz target in `fuzz/` and a test run again and again.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, IntervalMonthDayNano};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};

use crate::definition::{Definition, Kind};
use crate::register::definitions;

/// Bytes that are taken one after the other; zeros when there are none left.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count.min(self.0.len()));
        self.0 = tail;
        head
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    fn short(&mut self) -> usize {
        let taken = self.take(2);
        taken.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    }

    fn chunk(&mut self) -> &'a [u8] {
        let length = self.short() % 512;
        self.take(length)
    }

    /// A small number as often as one of any bits.
    fn float(&mut self) -> f64 {
        match self.short() {
            small if small.is_multiple_of(2) => (small as f64 - 30_000.0) / 100.0,
            _ => f64::from_bits(self.number()),
        }
    }
}

fn value(kind: Kind, bytes: &mut Bytes<'_>) -> Option<ScalarValue> {
    if bytes.take(1).first().is_some_and(|byte| *byte == 255) {
        return match kind {
            Kind::Geometry | Kind::Bytes => Some(ScalarValue::Binary(None)),
            Kind::Number => Some(ScalarValue::Float64(None)),
            Kind::Integer => Some(ScalarValue::Int64(None)),
            Kind::Text | Kind::TextOrInteger => Some(ScalarValue::Utf8(None)),
            _ => None,
        };
    }
    let text = |bytes: &mut Bytes<'_>| String::from_utf8_lossy(bytes.chunk()).into_owned();
    Some(match kind {
        Kind::Geometry | Kind::Bytes => ScalarValue::Binary(Some(bytes.chunk().to_vec())),
        Kind::Number => ScalarValue::Float64(Some(bytes.float())),
        // Sizes and depths: a large one may take long, which is no defect.
        Kind::Integer => ScalarValue::Int64(Some(bytes.short() as i64 % 64 - 8)),
        Kind::Text | Kind::TextOrInteger => ScalarValue::Utf8(Some(text(bytes))),
        Kind::Timestamp => {
            ScalarValue::TimestampMicrosecond(Some(bytes.number() as i64 >> 12), Some("UTC".into()))
        }
        Kind::Interval => {
            let nanoseconds = (bytes.number() >> 24) as i64;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, nanoseconds)))
        }
        Kind::Boolean => ScalarValue::Boolean(Some(bytes.short().is_multiple_of(2))),
        Kind::Geometries => {
            let items: Vec<ScalarValue> =
                (0..bytes.short() % 4).map(|_| ScalarValue::Binary(Some(bytes.chunk().to_vec()))).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&items, &arrow::datatypes::DataType::Binary))
        }
        Kind::Crs => ScalarValue::Utf8(Some(
            ["OGC:CRS84", "EPSG:3857", "EPSG:3879", "EPSG:4490", "GCJ-02", "EPSG:32650"][bytes.short() % 6]
                .to_owned(),
        )),
        Kind::Integers | Kind::Struct => return None,
    })
}

/// Calls one function with arguments, all made from `data`; gives its error, if it has one. Where a geometry library panicked, the
/// error says that it is a defect.
pub fn exercise(data: &[u8]) -> Option<String> {
    static ALL: LazyLock<Vec<(&'static Definition, ScalarUDF)>> =
        LazyLock::new(|| definitions().map(|definition| (definition, definition.udf())).collect());
    let mut bytes = Bytes(data);
    let (definition, function) = ALL.get(bytes.short() % ALL.len())?;
    let overload = definition.overloads.get(bytes.short() % definition.overloads.len().max(1))?;
    let arguments: Vec<ScalarValue> =
        overload.iter().map(|(_, kind)| value(*kind, &mut bytes)).collect::<Option<_>>()?;
    let fields: Vec<_> =
        arguments.iter().map(|value| Arc::new(Field::new("a", value.data_type(), true))).collect();
    let scalars: Vec<Option<&ScalarValue>> = arguments.iter().map(Some).collect();
    let planned = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars };
    let return_field = match function.return_field_from_args(planned) {
        Ok(field) => field,
        Err(error) => return Some(error.to_string()),
    };
    let called = function.invoke_with_args(ScalarFunctionArgs {
        args: arguments.iter().cloned().map(ColumnarValue::Scalar).collect(),
        arg_fields: fields,
        number_rows: 1,
        return_field,
        config_options: Arc::default(),
    });
    Some(called.err()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::testing::{Random, geometry};

    /// Geometries whole and damaged, in every function.
    #[test]
    fn no_function_panics_on_bytes_made_by_chance() {
        let mut random = Random::new(4711);
        let (mut answered, mut defects) = (0, Vec::new());
        for _ in 0..30_000 {
            let mut data: Vec<u8> = (0..4).map(|_| random.below(256) as u8).collect();
            for _ in 0..3 {
                let mut wkb = crate::encode(&geometry(&mut random));
                wkb.truncate(511);
                if random.below(3) == 0 && !wkb.is_empty() {
                    let place = random.below(wkb.len());
                    wkb[place] = random.below(256) as u8;
                }
                if random.below(9) == 0 {
                    wkb.truncate(random.below(wkb.len() + 1));
                }
                data.push(0);
                data.extend((wkb.len() as u16).to_be_bytes());
                data.extend(wkb);
            }
            match exercise(&data) {
                None => answered += 1,
                Some(error) if error.contains("a defect") => defects.push(error),
                Some(_) => {}
            }
        }
        assert!(answered > 10_000, "most calls are to have an answer: {answered}");
        assert!(defects.is_empty(), "panics of geometry libraries: {defects:?}");
    }
}
