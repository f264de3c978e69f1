//! A span of time, or of any number, as the third axis of the index.
//!
//! Any comparison between a value of one side and a value of the other bounds one end: `left_low <= right_high` and
//! `left_high >= right_low` together are what it takes for two spans to meet, so `BETWEEN`, two comparisons,
//! `abs(a - b) <= c` and overlapping periods all become the same box. The comparisons are checked again on each pair,
//! exactly; the index only leaves out what cannot hold.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::cast::{as_float64_array, as_int64_array};
use datafusion::common::{JoinSide, Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr};
use datafusion::physical_plan::joins::utils::JoinFilter;

use super::filter::{Expr, comparison, constant, one_sided, turned};

/// One end of a span: a value, moved by a constant in the unit of the axis.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub value: Expr,
    offset: f64,
}

/// The spans of both sides; an end that is missing is infinite.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    left_low: Option<End>,
    left_high: Option<End>,
    right_low: Option<End>,
    right_high: Option<End>,
    text: Vec<String>,
}

impl Window {
    /// The first bounds of a kind found among the conditions; `None` when there are none.
    pub(super) fn recognise(parts: &[Expr], filter: &JoinFilter) -> Option<Self> {
        let mut window = Self::default();
        for part in parts {
            let bounds = bounds(part, filter);
            let mut used = false;
            for bound in bounds {
                used |= window.take(bound);
            }
            if used {
                window.text.push(part.to_string());
            }
        }
        // A bound on one end only leaves out half of the pairs: less than a third axis costs.
        (window.left_low.is_some() && window.left_high.is_some()).then_some(window)
    }

    fn take(&mut self, bound: Bound) -> bool {
        let (left, right) = if bound.left_is_low {
            (&mut self.left_low, &mut self.right_high)
        } else {
            (&mut self.left_high, &mut self.right_low)
        };
        if left.is_some() || right.is_some() {
            return false;
        }
        (*left, *right) = (Some(bound.left), Some(bound.right));
        true
    }

    /// The spans of the rows of one side; a null or missing end is a span that meets nothing.
    pub(super) fn spans(&self, side: JoinSide, batch: &RecordBatch) -> Result<Spans> {
        let (low, high) = match side {
            JoinSide::Left => (&self.left_low, &self.left_high),
            _ => (&self.right_low, &self.right_high),
        };
        Ok(Spans {
            low: low.as_ref().map(|end| end.evaluate(batch, false)).transpose()?,
            high: high.as_ref().map(|end| end.evaluate(batch, true)).transpose()?,
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.join(" AND "))
    }
}

/// The spans of the rows of a batch.
pub(super) struct Spans {
    low: Option<Float64Array>,
    high: Option<Float64Array>,
}

impl Spans {
    /// From and to; `None` when an end is null, so that nothing can meet it.
    #[inline]
    pub(super) fn get(&self, row: usize) -> Option<(f64, f64)> {
        let end = |column: &Option<Float64Array>, missing: f64| match column {
            None => Some(missing),
            Some(column) => column.is_valid(row).then(|| column.value(row)),
        };
        Some((end(&self.low, f64::NEG_INFINITY)?, end(&self.high, f64::INFINITY)?))
    }
}

impl End {
    /// As numbers, moved away from the span by more than roundings come to.
    fn evaluate(&self, batch: &RecordBatch, up: bool) -> Result<Float64Array> {
        let values = self.value.evaluate(batch)?.into_array(batch.num_rows())?;
        let number = |value: f64| {
            let slack = (value.abs() + self.offset.abs()) * (4.0 * f64::EPSILON);
            value + self.offset + if up { slack } else { -slack }
        };
        if let Some(scale) = scale(values.data_type()) {
            let whole = cast(&values, &DataType::Int64)?;
            return Ok(as_int64_array(&whole)?.unary(|value| number(value as f64 * scale)));
        }
        let values = cast(&values, &DataType::Float64)?;
        Ok(as_float64_array(&values)?.unary(|value| {
            // By SQL's order NaN is above everything.
            match (value.is_nan(), up) {
                (true, true) => f64::INFINITY,
                (true, false) => f64::NEG_INFINITY,
                _ => number(value),
            }
        }))
    }
}

/// What a whole number of a type is worth on the axis: times in microseconds; `None` for numbers with fractions.
fn scale(data_type: &DataType) -> Option<f64> {
    match data_type {
        DataType::Timestamp(unit, _) | DataType::Duration(unit) => Some(match unit {
            TimeUnit::Second => 1e6,
            TimeUnit::Millisecond => 1e3,
            TimeUnit::Microsecond => 1.0,
            TimeUnit::Nanosecond => 1e-3,
        }),
        DataType::Date32 => Some(86_400e6),
        DataType::Date64 => Some(1e3),
        _ => None,
    }
}

/// Whether values of a type can lie on the axis.
fn fits(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
        || (data_type.is_numeric() && !matches!(data_type, DataType::Float16))
}

/// `left <= right` or `left >= right`.
struct Bound {
    left_is_low: bool,
    left: End,
    right: End,
}

fn bounds(part: &Expr, filter: &JoinFilter) -> Vec<Bound> {
    if let Some(bounds) = difference(part, filter) {
        return bounds;
    }
    let Some((a, operator, b)) = comparison(part) else { return Vec::new() };
    let Some((left, operator, right)) = by_side(a, operator, b, filter) else { return Vec::new() };
    let make = |left_is_low| Bound {
        left_is_low,
        left: End { value: Arc::clone(&left), offset: 0.0 },
        right: End { value: Arc::clone(&right), offset: 0.0 },
    };
    match operator {
        Operator::Lt | Operator::LtEq => vec![make(true)],
        Operator::Gt | Operator::GtEq => vec![make(false)],
        _ => vec![make(true), make(false)],
    }
}

/// The operands by side, when each is one side's and both lie on the axis.
fn by_side(a: &Expr, operator: Operator, b: &Expr, filter: &JoinFilter) -> Option<(Expr, Operator, Expr)> {
    let schema = filter.schema();
    let (of_a, of_b) = (a.data_type(schema).ok()?, b.data_type(schema).ok()?);
    if of_a != of_b || !fits(&of_a) {
        return None;
    }
    match (one_sided(a, filter)?, one_sided(b, filter)?) {
        ((JoinSide::Left, a), (JoinSide::Right, b)) => Some((a, operator, b)),
        ((JoinSide::Right, a), (JoinSide::Left, b)) => Some((b, turned(operator), a)),
        _ => None,
    }
}

/// `abs(a - b) <= c` and `a - b <= c`, for a constant `c`.
fn difference(part: &Expr, filter: &JoinFilter) -> Option<Vec<Bound>> {
    let (a, operator, b) = comparison(part)?;
    let (value, operator, limit) = match constant(b) {
        Some(limit) => (a, operator, limit),
        None => (b, turned(operator), constant(a)?),
    };
    let value = match value.downcast_ref::<CastExpr>() {
        Some(cast) if widens(&cast.expr().data_type(filter.schema()).ok()?, cast.cast_type()) => cast.expr(),
        _ => value,
    };
    let absolute = value.downcast_ref::<ScalarFunctionExpr>().filter(|call| call.fun().name() == "abs");
    let difference = match absolute {
        Some(call) => call.args().first()?,
        None => value,
    };
    let minus = difference.downcast_ref::<BinaryExpr>().filter(|minus| *minus.op() == Operator::Minus)?;
    let (left, turned_operator, right) = by_side(minus.left(), operator, minus.right(), filter)?;
    let axis = minus.left().data_type(filter.schema()).ok()?;
    // Whole numbers wrap round when their difference is too large.
    if axis.is_integer() {
        return None;
    }
    let axis_is_time = !axis.is_numeric();
    let limit = limit_on_axis(&limit, axis_is_time)?;
    // left - right OP limit, where limit changes sign with the operands.
    let signed = if turned_operator == operator { limit } else { -limit };
    let make = |left_is_low, offset| Bound {
        left_is_low,
        left: End { value: Arc::clone(&left), offset: 0.0 },
        right: End { value: Arc::clone(&right), offset },
    };
    match (absolute.is_some(), operator, turned_operator) {
        (true, Operator::Lt | Operator::LtEq, _) => Some(vec![make(true, limit), make(false, -limit)]),
        (false, _, Operator::Lt | Operator::LtEq) => Some(vec![make(true, signed)]),
        (false, _, Operator::Gt | Operator::GtEq) => Some(vec![make(false, signed)]),
        _ => None,
    }
}

/// Whether a cast loses nothing of a difference.
fn widens(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Duration(from), DataType::Duration(to)) => from <= to,
        (DataType::Duration(_), DataType::Interval(_)) | (DataType::Float32, DataType::Float64) => true,
        _ => from == to,
    }
}

/// A constant difference in the unit of the axis; months have no length of their own.
fn limit_on_axis(limit: &ScalarValue, time: bool) -> Option<f64> {
    const DAY_US: f64 = 86_400e6;
    let value = match limit {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            f64::from(interval.days) * DAY_US + interval.nanoseconds as f64 * 1e-3
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            f64::from(interval.days) * DAY_US + f64::from(interval.milliseconds) * 1e3
        }
        ScalarValue::DurationSecond(Some(value)) => *value as f64 * 1e6,
        ScalarValue::DurationMillisecond(Some(value)) => *value as f64 * 1e3,
        ScalarValue::DurationMicrosecond(Some(value)) => *value as f64,
        ScalarValue::DurationNanosecond(Some(value)) => *value as f64 * 1e-3,
        number if !time => match number.cast_to(&DataType::Float64).ok()? {
            ScalarValue::Float64(Some(number)) if number.is_finite() => return Some(number),
            _ => return None,
        },
        _ => return None,
    };
    time.then_some(value)
}
