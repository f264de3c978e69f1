//! `time_bucket_gapfill`, `interpolate` and `locf`: names that the plan is rewritten by; they compute nothing themselves.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, DocSection, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use twinlake_contracts::timestamp_type;

/// Which of the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Marker {
    /// `time_bucket_gapfill`
    Bucket,
    /// `interpolate`
    Interpolate,
    /// `locf`
    Locf,
}

impl Marker {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bucket => "time_bucket_gapfill",
            Self::Interpolate => "interpolate",
            Self::Locf => "locf",
        }
    }

    fn documentation(self) -> Documentation {
        let (summary, syntax) = match self {
            Self::Bucket => (
                "In GROUP BY: the start of the bucket that the time stamp falls into, as time_bucket gives it, with a row for each bucket from start to before finish and each combination of the other GROUP BY columns that has any row. Aggregates of a bucket without rows are null. What start and finish do not say is read from comparisons of the time stamp with constants in WHERE; without those, each combination begins and ends with its own first and last bucket. start and finish do not filter",
                "time_bucket_gapfill(width interval, ts timestamp) | time_bucket_gapfill(width interval, ts timestamp, start timestamp, finish timestamp)",
            ),
            Self::Interpolate => (
                "Over an aggregate of a query with time_bucket_gapfill: its value, or where it is null the value on the straight line between the last one before and the first one after, by time; null when either is missing",
                "interpolate(value number)",
            ),
            Self::Locf => (
                "Over an aggregate of a query with time_bucket_gapfill: its value, or where it is null the last one before (last observation carried forward)",
                "locf(value any)",
            ),
        };
        Documentation::builder(DocSection::default(), summary, syntax).build()
    }

    /// The function of an expression, and its arguments.
    pub(crate) fn of(expression: &Expr) -> Option<(Self, &[Expr])> {
        let Expr::ScalarFunction(call) = expression else { return None };
        let function = call.func.inner().as_ref() as &dyn std::any::Any;
        Some((function.downcast_ref::<Function>()?.marker, &call.args))
    }
}

/// All of them.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    [Marker::Bucket, Marker::Interpolate, Marker::Locf]
        .map(|marker| {
            ScalarUDF::new_from_impl(Function {
                marker,
                signature: Signature::user_defined(Volatility::Immutable),
                documentation: marker.documentation(),
            })
        })
        .to_vec()
}

#[derive(Debug)]
struct Function {
    marker: Marker,
    signature: Signature,
    documentation: Documentation,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.marker == other.marker
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.marker.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.marker.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let text =
            |given: &DataType| matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let time = |given: &DataType| {
            let fits = matches!(given, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
            fits || given.is_null() || text(given)
        };
        match (self.marker, given) {
            (Marker::Locf, [value]) => return Ok(vec![value.clone()]),
            (Marker::Interpolate, [value]) if value.is_numeric() || value.is_null() => {
                return Ok(vec![DataType::Float64]);
            }
            (Marker::Bucket, [width, times @ ..])
                if (matches!(width, DataType::Interval(_)) || width.is_null() || text(width))
                    && matches!(times.len(), 1 | 3)
                    && times.iter().all(time) =>
            {
                let width = DataType::Interval(IntervalUnit::MonthDayNano);
                return Ok([vec![width], vec![timestamp_type(); times.len()]].concat());
            }
            _ => {}
        }
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        let syntax = self.documentation.syntax_example.replace(" | ", " or ");
        plan_err!("{} does not take ({}); it is {syntax}", self.name(), given.join(", "))
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(match self.marker {
            Marker::Bucket => timestamp_type(),
            Marker::Interpolate => DataType::Float64,
            Marker::Locf => given.first().cloned().unwrap_or(DataType::Null),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let (Marker::Locf, [field]) = (self.marker, args.arg_fields) {
            return Ok(Arc::new(field.as_ref().clone().with_name(self.name()).with_nullable(true)));
        }
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.marker {
            Marker::Bucket => {
                exec_err!("time_bucket_gapfill belongs into GROUP BY, alone or as one of its columns")
            }
            other => exec_err!(
                "{} belongs over an aggregate in the SELECT of a query that groups by time_bucket_gapfill",
                other.name()
            ),
        }
    }
}
