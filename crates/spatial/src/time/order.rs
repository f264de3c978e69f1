//! Ordered values as whole numbers that sort the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type};
use datafusion::common::{Result, plan_err};
use twinlake_contracts::timestamp_type;

/// The type that a time is cast to before [`ordinals`], so that two sides count in the same unit; `None` for values
/// that are no time and no number.
pub(crate) fn order_type(given: &DataType) -> Option<DataType> {
    match given {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Some(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => {
            Some(timestamp_type())
        }
        DataType::UInt64 => Some(DataType::UInt64),
        integer if integer.is_integer() => Some(DataType::Int64),
        float if float.is_floating() => Some(DataType::Float64),
        _ => None,
    }
}

/// The values as numbers that compare as they do: times as their count of units, floats by the total order of
/// IEEE 754 (2008, 5.10), with one zero. Null stays null.
pub(crate) fn ordinals(column: &ArrayRef) -> Result<Int64Array> {
    let Some(wanted) = order_type(column.data_type()) else {
        return plan_err!("{} is neither a time nor a number", column.data_type());
    };
    let column = if *column.data_type() == wanted {
        Arc::clone(column)
    } else {
        arrow::compute::cast(column, &wanted)?
    };
    Ok(match wanted {
        DataType::Float64 => column.as_primitive::<Float64Type>().unary(float_ordinal),
        DataType::UInt64 => {
            column.as_primitive::<UInt64Type>().unary(|value| (value ^ (1 << 63)).cast_signed())
        }
        _ => {
            let data = column.to_data();
            let values = data.buffers()[0].clone();
            let values = arrow::buffer::ScalarBuffer::<i64>::new(values, data.offset(), data.len());
            PrimitiveArray::<Int64Type>::new(values, data.nulls().cloned())
        }
    })
}

fn float_ordinal(value: f64) -> i64 {
    let bits = (value + 0.0).to_bits().cast_signed();
    // Negative numbers sort the other way round by their bits.
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Float64Array, Int16Array, StringArray, UInt64Array};

    use super::*;

    fn sorted(column: impl Array + 'static) -> bool {
        let column: ArrayRef = Arc::new(column);
        let found = ordinals(&column).unwrap();
        found.values().windows(2).all(|pair| pair[0] < pair[1])
    }

    #[test]
    fn numbers_keep_their_order() {
        let floats =
            vec![f64::NEG_INFINITY, -1e300, -1.0, -f64::MIN_POSITIVE, 0.0, 1e-300, 1.0, f64::INFINITY];
        assert!(sorted(Float64Array::from(floats)));
        assert!(sorted(UInt64Array::from(vec![0, 1, 1 << 63, u64::MAX])));
        assert!(sorted(Int16Array::from(vec![-3, 0, 7])));
        assert!(sorted(Date32Array::from(vec![-3, 0, 7])));
        assert_eq!(float_ordinal(-0.0), float_ordinal(0.0));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        assert!(ordinals(&text).is_err());
    }

    #[test]
    fn slices_and_nulls_are_kept() {
        let column = Int64Array::from(vec![Some(1), None, Some(3)]);
        let sliced: ArrayRef = Arc::new(column.slice(1, 2));
        assert_eq!(ordinals(&sliced).unwrap(), Int64Array::from(vec![None, Some(3)]));
    }
}
