//! Aggregates that take one row at a time, can be merged, and can be stored.
//!
//! Numbers that are null or NaN are passed over, as SQL passes over nulls. Sums are compensated (Neumaier 1974), standard
//! deviations are those of a sample (Welford 1962; merged as in Chan, Golub & LeVeque 1979), percentiles interpolate
//! between the two nearest values (type 7 of Hyndman & Fan 1996). Rows are taken in the order in which they come.

use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result};

use crate::codec::{Reader, Writer};

/// What is made of the rows of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Function {
    /// How many rows; with `column`, how many with a value in it.
    Count,
    /// The sum, a double.
    Sum,
    /// The arithmetic mean, a double.
    Mean,
    /// The least value, of the column's type.
    Min,
    /// The greatest value, of the column's type.
    Max,
    /// The value with the earliest event time; of several the one that came first.
    First,
    /// The value with the latest event time; of several the one that came last.
    Last,
    /// The standard deviation of a sample, a double; null for a single value.
    Stddev,
    /// A percentile, a double: `percent` says which. Keeps all values of a window in memory.
    Percentile,
}

impl Function {
    /// Whether it works on numbers only.
    pub fn takes_numbers(self) -> bool {
        matches!(self, Self::Sum | Self::Mean | Self::Stddev | Self::Percentile)
    }

    /// Whether its result is a value of its column.
    pub fn gives_a_value(self) -> bool {
        matches!(self, Self::Min | Self::Max | Self::First | Self::Last)
    }

    /// The aggregate of no rows.
    pub fn start(self) -> Accumulator {
        match self {
            Self::Count => Accumulator::Count(0),
            Self::Sum | Self::Mean => Accumulator::Sum { count: 0, sum: 0.0, lost: 0.0 },
            Self::Stddev => Accumulator::Moments { count: 0, mean: 0.0, squares: 0.0 },
            Self::Min | Self::Max | Self::First | Self::Last => Accumulator::Value(None),
            Self::Percentile => Accumulator::Values(Vec::new()),
        }
    }
}

/// What a row brings to an aggregate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'a> {
    pub time_us: i64,
    /// The value as bytes in its order; `None` when it is null or NaN.
    pub bytes: Option<&'a [u8]>,
    /// The value as a number; `None` when it is null, NaN or none.
    pub number: Option<f64>,
}

/// An aggregate at work.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Accumulator {
    Count(u64),
    /// `lost` is what the sum has lost to rounding.
    Sum {
        count: u64,
        sum: f64,
        lost: f64,
    },
    /// `squares` is the sum of squared deviations from the mean.
    Moments {
        count: u64,
        mean: f64,
        squares: f64,
    },
    /// A value with its event time.
    Value(Option<(i64, Box<[u8]>)>),
    Values(Vec<f64>),
}

/// What came out of an aggregate.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Count(i64),
    Number(Option<f64>),
    Bytes(Option<Box<[u8]>>),
}

impl Accumulator {
    /// Takes a row.
    pub fn take(&mut self, function: Function, cell: Cell<'_>) {
        match self {
            Self::Count(count) => *count += u64::from(cell.bytes.is_some()),
            Self::Sum { count, sum, lost } => {
                if let Some(number) = cell.number {
                    *count += 1;
                    add(sum, lost, number);
                }
            }
            Self::Moments { count, mean, squares } => {
                if let Some(number) = cell.number {
                    *count += 1;
                    let before = number - *mean;
                    *mean += before / *count as f64;
                    *squares += before * (number - *mean);
                }
            }
            Self::Value(best) => {
                if let Some(bytes) = cell.bytes
                    && best
                        .as_ref()
                        .is_none_or(|(time, own)| better(function, (cell.time_us, bytes), (*time, own)))
                {
                    *best = Some((cell.time_us, bytes.into()));
                }
            }
            Self::Values(values) => values.extend(cell.number),
        }
    }

    /// Takes all rows of another, which come after its own.
    pub fn merge(&mut self, function: Function, other: Self) {
        match (self, other) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Sum { count, sum, lost }, Self::Sum { count: more, sum: other, lost: other_lost }) => {
                *count += more;
                add(sum, lost, other);
                *lost += other_lost;
            }
            (
                Self::Moments { count, mean, squares },
                Self::Moments { count: more, mean: other, squares: other_squares },
            ) => {
                let (own, all) = (*count as f64, (*count + more) as f64);
                if more > 0 {
                    let apart = other - *mean;
                    *mean += apart * (more as f64 / all);
                    *squares += other_squares + apart * apart * (own * more as f64 / all);
                    *count += more;
                }
            }
            (Self::Value(best), Self::Value(other)) => {
                if let Some((time, bytes)) = other
                    && best
                        .as_ref()
                        .is_none_or(|(own, value)| better(function, (time, &bytes), (*own, value)))
                {
                    *best = Some((time, bytes));
                }
            }
            (Self::Values(values), Self::Values(more)) => values.extend(more),
            _ => {}
        }
    }

    /// What has come out.
    pub fn finish(self, function: Function, percent: f64) -> Outcome {
        match self {
            Self::Count(count) => Outcome::Count(count as i64),
            Self::Sum { count, sum, lost } => {
                let total = if sum.is_finite() { sum + lost } else { sum };
                let divisor = if function == Function::Mean { count as f64 } else { 1.0 };
                Outcome::Number((count > 0).then_some(total / divisor))
            }
            Self::Moments { count, squares, .. } => {
                Outcome::Number((count > 1).then(|| (squares / (count - 1) as f64).sqrt()))
            }
            Self::Value(best) => Outcome::Bytes(best.map(|(_, bytes)| bytes)),
            Self::Values(values) => Outcome::Number(percentile(values, percent)),
        }
    }

    pub fn write(&self, out: &mut Writer) {
        match self {
            Self::Count(count) => out.unsigned(*count),
            Self::Sum { count, sum, lost } => {
                out.unsigned(*count);
                out.number(*sum);
                out.number(*lost);
            }
            Self::Moments { count, mean, squares } => {
                out.unsigned(*count);
                out.number(*mean);
                out.number(*squares);
            }
            Self::Value(best) => out.option(best.as_ref(), |out, (time, bytes)| {
                out.signed(*time);
                out.bytes(bytes);
            }),
            Self::Values(values) => {
                out.unsigned(values.len() as u64);
                for value in values {
                    out.number(*value);
                }
            }
        }
    }

    pub fn read(function: Function, input: &mut Reader<'_>) -> Result<Self> {
        Ok(match function.start() {
            Self::Count(_) => Self::Count(input.unsigned()?),
            Self::Sum { .. } => {
                Self::Sum { count: input.unsigned()?, sum: input.number()?, lost: input.number()? }
            }
            Self::Moments { .. } => {
                Self::Moments { count: input.unsigned()?, mean: input.number()?, squares: input.number()? }
            }
            Self::Value(_) => {
                Self::Value(input.option(|input| Ok((input.signed()?, input.bytes()?.into())))?)
            }
            Self::Values(_) => {
                let count = input.unsigned()?;
                Self::Values((0..count).map(|_| input.number()).collect::<Result<_>>()?)
            }
        })
    }
}

/// Whether a value takes the place of another.
fn better(function: Function, (time, bytes): (i64, &[u8]), (own_time, own): (i64, &[u8])) -> bool {
    match function {
        Function::Min => bytes < own,
        Function::Max => bytes > own,
        Function::First => time < own_time,
        _ => time >= own_time,
    }
}

/// Adds to a sum and to what it has lost.
fn add(sum: &mut f64, lost: &mut f64, number: f64) {
    let total = *sum + number;
    if total.is_finite() {
        *lost += if sum.abs() >= number.abs() { (*sum - total) + number } else { (number - total) + *sum };
    }
    *sum = total;
}

/// The value below which `percent` of the values lie.
fn percentile(mut values: Vec<f64>, percent: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let place = percent / 100.0 * values.len().checked_sub(1)? as f64;
    let below = values.get(place.floor() as usize).copied()?;
    let above = values.get(place.ceil() as usize).copied()?;
    Some(if below == above { below } else { below + (above - below) * place.fract() })
}

/// Checks `percent`.
pub(super) fn check_percent(name: &str, function: Function, percent: Option<f64>) -> Result<f64> {
    match (function, percent) {
        (Function::Percentile, Some(percent)) if (0.0..=100.0).contains(&percent) => Ok(percent),
        (Function::Percentile, _) => {
            Err(Error::config(format!("the percentile '{name}' has no 'percent' from 0 to 100"))
                .with_help(format!("{name} = {{ function = \"percentile\", column = \"…\", percent = 95 }}")))
        }
        (_, Some(_)) => {
            Err(Error::config(format!("'percent' of '{name}' belongs to function = \"percentile\"")))
        }
        (_, None) => Ok(0.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(function: Function, values: &[f64]) -> Accumulator {
        let mut accumulator = function.start();
        for (time_us, value) in (0..).zip(values) {
            let number = Some(*value).filter(|value| !value.is_nan());
            let bytes = value.to_bits().to_be_bytes();
            accumulator.take(function, Cell { time_us, bytes: number.map(|_| &bytes[..]), number });
        }
        accumulator
    }

    fn number(function: Function, values: &[f64], percent: f64) -> Option<f64> {
        match of(function, values).finish(function, percent) {
            Outcome::Number(number) => number,
            Outcome::Count(count) => Some(count as f64),
            Outcome::Bytes(bytes) => {
                bytes.map(|b| f64::from_bits(u64::from_be_bytes((*b).try_into().unwrap())))
            }
        }
    }

    #[test]
    fn known_values() {
        let values = [2.0, 4.0, 4.0, 4.0, f64::NAN, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(number(Function::Count, &values, 0.0), Some(8.0));
        assert_eq!(number(Function::Sum, &values, 0.0), Some(40.0));
        assert_eq!(number(Function::Mean, &values, 0.0), Some(5.0));
        let stddev = number(Function::Stddev, &values, 0.0).unwrap();
        assert!((stddev - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(number(Function::Percentile, &values, 50.0), Some(4.5));
        assert_eq!(number(Function::Percentile, &values, 100.0), Some(9.0));
        assert_eq!(number(Function::Percentile, &[1.0, 2.0, 3.0, 4.0], 40.0), Some(2.2));
        assert_eq!(number(Function::Min, &values, 0.0), Some(2.0));
        assert_eq!(number(Function::Max, &values, 0.0), Some(9.0));
        assert_eq!(number(Function::First, &values, 0.0), Some(2.0));
        assert_eq!(number(Function::Last, &values, 0.0), Some(9.0));
        assert_eq!(number(Function::Sum, &[1.0, 1e100, 1.0, -1e100], 0.0), Some(2.0), "compensated");
        assert_eq!(number(Function::Sum, &[1.0, f64::INFINITY], 0.0), Some(f64::INFINITY));
        for function in [
            Function::Sum,
            Function::Mean,
            Function::Stddev,
            Function::Min,
            Function::Last,
            Function::Percentile,
        ] {
            assert_eq!(number(function, &[], 50.0), None, "{function:?} of nothing");
        }
        assert_eq!(number(Function::Stddev, &[1.0], 0.0), None);
    }

    proptest! {
        #[test]
        fn merged_parts_are_the_whole(left in proptest::collection::vec(-1e3..1e3, 0..20), right in proptest::collection::vec(-1e3..1e3, 0..20)) {
            let all: Vec<f64> = left.iter().chain(&right).copied().collect();
            for function in [Function::Count, Function::Sum, Function::Mean, Function::Stddev, Function::Percentile, Function::Max] {
                let mut merged = of(function, &left);
                merged.merge(function, of(function, &right));
                let (merged, whole) = (merged.finish(function, 30.0), of(function, &all).finish(function, 30.0));
                match (merged, whole) {
                    (Outcome::Number(Some(merged)), Outcome::Number(Some(whole))) => {
                        prop_assert!((merged - whole).abs() <= 1e-9 * whole.abs().max(1.0), "{:?}: {} and {}", function, merged, whole);
                    }
                    (merged, whole) => prop_assert_eq!(merged, whole),
                }
            }
        }
    }
}
