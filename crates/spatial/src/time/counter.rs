//! `delta`, `increase` and `rate`: how much a reading changed.
//!
//! `increase` and `rate` read a counter that only grows and starts at zero when its device does: a reading below the
//! one before it is a reset, and counts with its whole value, as in Prometheus (`rate`, `increase`) and TimescaleDB
//! (`counter_agg`). Unlike Prometheus, nothing is extrapolated to the edges of the window: what is given is what was
//! counted between the first reading and the last, as TimescaleDB's `delta` and `rate` give it.

use super::aggregate::Aggregate;
use super::series::{self, Series};

pub(crate) static DELTA: Aggregate = Aggregate {
    name: "delta",
    summary: "How much a gauge changed: the value at the latest time less the value at the earliest; null when there are not two moments. Rows where the value or the time is null do not count",
    syntax: "delta(value number, ts timestamp)",
    accept: series::accept,
    result: series::number,
    state: series::state,
    make: |_| Ok(Box::new(Series::new(delta))),
};

pub(crate) static INCREASE: Aggregate = Aggregate {
    name: "increase",
    summary: "How much a counter grew between its first reading and its last. A reading below the one before it is a reset, after which the counter started at zero; nothing is extrapolated. Null when there are not two moments. Rows where the value or the time is null do not count",
    syntax: "increase(value number, ts timestamp)",
    accept: series::accept,
    result: series::number,
    state: series::state,
    make: |_| Ok(Box::new(Series::new(increase))),
};

pub(crate) static RATE: Aggregate = Aggregate {
    name: "rate",
    summary: "How fast a counter grew, a second: its increase (resets included) divided by the seconds between its first reading and its last. Null when there are not two moments. Rows where the value or the time is null do not count",
    syntax: "rate(value number, ts timestamp)",
    accept: series::accept,
    result: series::number,
    state: series::state,
    make: |_| Ok(Box::new(Series::new(rate))),
};

/// The seconds from the first reading to the last; `None` when that is one moment.
fn seconds(readings: &[(i64, f64)]) -> Option<f64> {
    let span = readings.last()?.0.wrapping_sub(readings.first()?.0);
    (span > 0).then(|| span as f64 / 1e6)
}

fn delta(readings: &[(i64, f64)]) -> Option<f64> {
    seconds(readings)?;
    Some(readings.last()?.1 - readings.first()?.1)
}

fn increase(readings: &[(i64, f64)]) -> Option<f64> {
    seconds(readings)?;
    let step = |pair: &[(i64, f64)]| if pair[1].1 < pair[0].1 { pair[1].1 } else { pair[1].1 - pair[0].1 };
    Some(readings.windows(2).map(step).sum())
}

fn rate(readings: &[(i64, f64)]) -> Option<f64> {
    Some(increase(readings)? / seconds(readings)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{delta, increase, rate};
    use crate::testing::{query, query_within};

    #[test]
    fn counts_through_resets_in_any_order_of_rows() {
        let table = "(VALUES ('a', 30, 3), ('a', 0, 10), ('a', 10, 15), ('a', 20, 1), ('a', NULL, 99), \
             ('b', 0, 5), ('c', 0, NULL)) AS t(k, s, v)";
        let sql = format!(
            "SELECT k, delta(v, ts), increase(v, ts), rate(v, ts) FROM (SELECT k, v, \
             to_timestamp(s) AS ts FROM {table}) GROUP BY k ORDER BY k"
        );
        assert_eq!(
            query(&sql).unwrap(),
            ["a|-7.0|8.0|0.26666666666666666", "b|NULL|NULL|NULL", "c|NULL|NULL|NULL"]
        );
        let error = query("SELECT rate('x', TIMESTAMP '2024-01-01')").unwrap_err();
        assert!(error.contains("rate does not take"), "{error}");
    }

    proptest! {
        #[test]
        fn without_resets_the_increase_is_the_delta(steps in proptest::collection::vec(0..1_000_u32, 2..50)) {
            let mut value = 0.0;
            let readings: Vec<(i64, f64)> = steps.iter().enumerate().map(|(at, step)| {
                value += f64::from(*step);
                (at as i64 * 1_000_000, value)
            }).collect();
            prop_assert_eq!(increase(&readings), delta(&readings));
            let seconds = (readings.len() - 1) as f64;
            prop_assert_eq!(rate(&readings).unwrap(), increase(&readings).unwrap() / seconds);
        }

        #[test]
        fn the_whole_is_the_sum_of_its_parts(values in proptest::collection::vec(0..1_000_u32, 3..50), cut in 1..49_usize) {
            let readings: Vec<(i64, f64)> =
                values.iter().enumerate().map(|(at, value)| (at as i64, f64::from(*value))).collect();
            let cut = cut.min(readings.len() - 2).max(1);
            let parts = increase(&readings[..=cut]).unwrap() + increase(&readings[cut..]).unwrap();
            prop_assert!((parts - increase(&readings).unwrap()).abs() < 1e-9);
        }
    }

    /// The readings of a group are held until it is complete; those of many groups go to files.
    #[test]
    fn what_does_not_fit_into_memory_goes_to_files() {
        let sql = "SELECT count(*), sum(d), sum(i), sum(r), sum(w) FROM (SELECT k, delta(v, ts) AS d, increase(v, ts) AS i, rate(v, ts) AS r, \
             time_weighted_average(v, ts) AS w FROM (SELECT i * 7919 % 5003 AS k, arrow_cast(i * 104729 % 400009 * 1000000, 'Timestamp(µs, \"UTC\")') AS ts, \
             CAST(i % 1000 AS DOUBLE) AS v FROM generate_series(0, 199999) AS g(i)) GROUP BY k)";
        let numbers = |rows: Vec<String>| -> Vec<f64> {
            rows[0].split('|').map(|value| value.parse().unwrap()).collect()
        };
        let expected = numbers(query(sql).unwrap());
        assert_eq!(expected[0], 5003.0);
        for (found, expected) in numbers(query_within(40 << 20, sql).unwrap()).iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} {expected}");
        }
    }
}
