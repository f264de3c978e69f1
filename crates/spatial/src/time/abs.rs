//! `abs`: of numbers as DataFusion has it, and of spans of time.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int64Type, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
};
use datafusion::common::{Result, exec_datafusion_err, internal_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// The function under its one name, in the place of DataFusion's.
pub(crate) fn function() -> ScalarUDF {
    let summary = "The distance from zero: of a number, or of a span of time, such as the difference of two time stamps. \
         An interval is below zero when its months of 30 days, days of 24 hours and time come to less than nothing; then \
         each of them changes its sign";
    ScalarUDF::new_from_impl(Abs {
        numbers: datafusion::functions::math::abs(),
        signature: Signature::user_defined(Volatility::Immutable),
        documentation: Documentation::builder(
            DocSection::default(),
            summary,
            "abs(value number) | abs(value duration) | abs(value interval)",
        )
        .build(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Abs {
    numbers: Arc<ScalarUDF>,
    signature: Signature,
    documentation: Documentation,
}

impl ScalarUDFImpl for Abs {
    fn name(&self) -> &'static str {
        "abs"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [span @ (DataType::Duration(_) | DataType::Interval(_))] => Ok(vec![span.clone()]),
            [number] if number.is_numeric() => Ok(vec![number.clone()]),
            [DataType::Null] => Ok(vec![DataType::Float64]),
            _ => {
                let given: Vec<String> = given.iter().map(ToString::to_string).collect();
                let syntax = self.documentation.syntax_example.replace(" | ", " or ");
                plan_err!("abs does not take ({}); it is {syntax}", given.join(", "))
            }
        }
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        given.first().map_or_else(|| internal_err!("abs takes one argument"), |one| Ok(one.clone()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [value] if is_span(&value.data_type()) => match value {
                ColumnarValue::Array(spans) => Ok(ColumnarValue::Array(of_spans(spans)?)),
                ColumnarValue::Scalar(span) => {
                    let one = of_spans(&span.to_array()?)?;
                    Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&one, 0)?))
                }
            },
            _ => self.numbers.invoke_with_args(args),
        }
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        match input {
            [one] if !is_span(&one.range.data_type()) => self.numbers.output_ordering(input),
            _ => Ok(SortProperties::Unordered),
        }
    }
}

fn is_span(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Duration(_) | DataType::Interval(_))
}

fn of_spans(spans: &ArrayRef) -> Result<ArrayRef> {
    let too_long = || exec_datafusion_err!("abs: the span of time is out of range");
    Ok(match spans.data_type() {
        DataType::Duration(_) => {
            let counts = cast(spans, &DataType::Int64)?;
            let counts = counts.as_primitive::<Int64Type>();
            let positive: PrimitiveArray<Int64Type> =
                counts.try_unary(|count| count.checked_abs().ok_or_else(too_long))?;
            cast(&positive, spans.data_type())?
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            let positive: PrimitiveArray<IntervalYearMonthType> = spans
                .as_primitive::<IntervalYearMonthType>()
                .try_unary(|months| months.checked_abs().ok_or_else(too_long))?;
            Arc::new(positive)
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let positive: PrimitiveArray<IntervalDayTimeType> =
                spans.as_primitive::<IntervalDayTimeType>().try_unary(|span| {
                    let total = i64::from(span.days) * 86_400_000 + i64::from(span.milliseconds);
                    if total >= 0 {
                        return Ok(span);
                    }
                    let (days, milliseconds) = (span.days.checked_neg(), span.milliseconds.checked_neg());
                    days.zip(milliseconds)
                        .map(|(days, milliseconds)| IntervalDayTime { days, milliseconds })
                        .ok_or_else(too_long)
                })?;
            Arc::new(positive)
        }
        _ => {
            let positive: PrimitiveArray<IntervalMonthDayNanoType> =
                spans.as_primitive::<IntervalMonthDayNanoType>().try_unary(|span| {
                    let days = i128::from(span.months) * 30 + i128::from(span.days);
                    if days * 86_400_000_000_000 + i128::from(span.nanoseconds) >= 0 {
                        return Ok(span);
                    }
                    let negative = || {
                        Some(IntervalMonthDayNano {
                            months: span.months.checked_neg()?,
                            days: span.days.checked_neg()?,
                            nanoseconds: span.nanoseconds.checked_neg()?,
                        })
                    };
                    negative().ok_or_else(too_long)
                })?;
            Arc::new(positive)
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, eval, fails, query};

    #[test]
    fn numbers_are_as_before() {
        check(&[
            ("abs(-5)", "5"),
            ("abs(-2.5)", "2.5"),
            ("abs(arrow_cast(3, 'UInt8'))", "3"),
            ("abs(CAST('-1.25' AS DECIMAL(9, 2)))", "1.25"),
            ("abs(NULL)", "NULL"),
        ]);
        fails("abs('x')", "abs does not take (Utf8)");
        fails("abs(true)", "abs does not take (Boolean)");
    }

    #[test]
    fn spans_lose_their_sign() {
        check(&[
            ("abs(TIMESTAMP '2024-01-01T00:00:00' - TIMESTAMP '2024-01-01T00:01:00')", "PT60S"),
            ("abs(INTERVAL '-30 seconds') = INTERVAL '30 seconds'", "true"),
            ("abs(INTERVAL '1 month -29 days') = INTERVAL '1 month -29 days'", "true"),
            ("abs(INTERVAL '1 month -31 days') = INTERVAL '-1 month 31 days'", "true"),
            ("abs(arrow_cast(NULL, 'Duration(µs)'))", "NULL"),
            ("abs(arrow_cast(-3, 'Duration(ns)')) = arrow_cast(3, 'Duration(ns)')", "true"),
        ]);
        assert!(eval("abs(arrow_cast(-9223372036854775808, 'Duration(s)'))").contains("out of range"));
    }

    #[test]
    fn differences_compare_with_intervals() {
        let times = "(VALUES (TIMESTAMP '2024-01-01T00:00:00'), (TIMESTAMP '2024-01-01T00:00:30'), (TIMESTAMP '2024-01-01T00:01:01'))";
        let sql = format!(
            "SELECT count(*) FROM {times} AS a(t), {times} AS b(t) WHERE abs(a.t - b.t) <= INTERVAL '30 seconds'"
        );
        assert_eq!(query(&sql).unwrap(), ["5"]);
    }
}
