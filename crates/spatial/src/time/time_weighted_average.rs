//! `time_weighted_average`: the mean of a signal over time, whatever the spacing of its readings.

use arrow::datatypes::DataType;
use datafusion::common::plan_err;

use super::aggregate::Aggregate;
use super::series::{self, Fold, Series};

pub(crate) static TIME_WEIGHTED_AVERAGE: Aggregate = Aggregate {
    name: "time_weighted_average",
    summary: "The mean over time: the area under the readings divided by the time from the first to the last. Between two readings the value is taken to go in a straight line ('linear', when nothing is said) or to stay that of the earlier one ('locf'). Of a single moment it is the mean of its values; rows where the value or the time is null do not count. Holds every reading of a group in memory, 24 bytes each",
    syntax: "time_weighted_average(value number, ts timestamp) | time_weighted_average(value number, ts timestamp, method text)",
    accept: |given| match given {
        [value, time] => series::accept(&[value.clone(), time.clone()]),
        [value, time, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View] => {
            let mut types = series::accept(&[value.clone(), time.clone()])?;
            types.push(DataType::Utf8);
            Some(types)
        }
        _ => None,
    },
    result: series::number,
    state: series::state,
    make: |arguments| {
        let method: Fold = match arguments.constants.as_slice() {
            [_, _] => linear,
            [_, _, Some(method)] => match method.try_as_str().flatten() {
                Some("linear") => linear,
                Some("locf") => locf,
                _ => {
                    return plan_err!(
                        "time_weighted_average: the method must be 'linear' or 'locf', not {method}"
                    );
                }
            },
            _ => {
                return plan_err!("time_weighted_average: the method must be a constant, 'linear' or 'locf'");
            }
        };
        Ok(Box::new(Series::new(method)))
    },
};

/// The area of trapezoids.
fn linear(readings: &[(i64, f64)]) -> Option<f64> {
    mean(readings, f64::midpoint)
}

/// The area of rectangles: each value lasts until the next reading.
fn locf(readings: &[(i64, f64)]) -> Option<f64> {
    mean(readings, |from, _| from)
}

fn mean(readings: &[(i64, f64)], height: impl Fn(f64, f64) -> f64) -> Option<f64> {
    let ((start, _), (end, _)) = (readings.first()?, readings.last()?);
    let total = end.wrapping_sub(*start) as f64;
    if total == 0.0 {
        return Some(readings.iter().map(|(_, value)| value).sum::<f64>() / readings.len() as f64);
    }
    // Weights that sum to one: no area grows beyond the range of a float, and constants stay what they are.
    let area: f64 = readings
        .windows(2)
        .map(|pair| height(pair[0].1, pair[1].1) * (pair[1].0.wrapping_sub(pair[0].0) as f64 / total))
        .sum();
    Some(area)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{linear, locf};
    use crate::testing::query;

    fn of(rows: &str, call: &str) -> String {
        query(&format!(
            "SELECT {call} FROM (SELECT v, to_timestamp(s) AS ts FROM (VALUES {rows}) AS t(s, v))"
        ))
        .map_or_else(|error| error, |rows| rows.join(" "))
    }

    #[test]
    fn weighs_by_time() {
        let rows = "(0, 10), (10, 20), (40, 0)";
        assert_eq!(of(rows, "time_weighted_average(v, ts)"), "11.25");
        assert_eq!(of(rows, "time_weighted_average(v, ts, 'linear')"), "11.25");
        assert_eq!(of(rows, "time_weighted_average(v, ts, 'locf')"), "17.5");
        // Order of the rows does not matter, null rows do not count.
        let rows = "(40, 0), (NULL, 5), (0, 10), (20, NULL), (10, 20)";
        assert_eq!(of(rows, "time_weighted_average(v, ts)"), "11.25");
        assert_eq!(of("(5, 1), (5, 2)", "time_weighted_average(v, ts)"), "1.5");
        assert_eq!(of("(5, NULL)", "time_weighted_average(v, ts)"), "NULL");
    }

    #[test]
    fn names_a_wrong_method() {
        let message = of("(0, 10)", "time_weighted_average(v, ts, 'cubic')");
        assert!(message.contains("must be 'linear' or 'locf', not cubic"), "{message}");
        let message = of("(0, 10)", "time_weighted_average(v, ts, v::text)");
        assert!(message.contains("must be a constant"), "{message}");
    }

    proptest! {
        #[test]
        fn a_constant_stays_and_the_mean_stays_in_range(
            mut times in proptest::collection::vec(-1_000_000_i64..1_000_000, 1..40),
            values in proptest::collection::vec(-1e6..1e6_f64, 40),
        ) {
            times.sort_unstable();
            let constant: Vec<_> = times.iter().map(|time| (*time, 7.25)).collect();
            let varied: Vec<_> = times.iter().copied().zip(values.iter().copied()).collect();
            let (low, high) = varied.iter().fold((f64::MAX, f64::MIN), |(l, h), (_, v)| (l.min(*v), h.max(*v)));
            for method in [linear, locf] {
                prop_assert!((method(&constant).unwrap() - 7.25).abs() < 1e-9);
                let mean = method(&varied).unwrap();
                prop_assert!(mean >= low - 1e-6 && mean <= high + 1e-6);
            }
        }
    }
}
