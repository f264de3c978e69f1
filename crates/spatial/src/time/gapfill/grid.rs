//! The buckets that are to be filled.

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Months, Utc};
use datafusion::common::{Result, plan_err};

use crate::functions::time_bucket::bucket;

/// The buckets of every series, or of each its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) width: IntervalMonthDayNano,
    /// The first bucket; without one, a series begins with its own first.
    pub(crate) first: Option<i64>,
    /// The end of the last bucket, exclusive; without one, a series ends with its own last.
    pub(crate) end: Option<i64>,
}

impl Grid {
    pub(super) fn new(width: IntervalMonthDayNano, start: Option<i64>, end: Option<i64>) -> Result<Self> {
        // Also checks the width, with any time.
        let first = bucket(width, start.unwrap_or(0), None);
        match first {
            Ok(first) => Ok(Self { width, first: start.map(|_| first), end }),
            Err(message) => plan_err!("time_bucket_gapfill: {message}"),
        }
    }

    /// The bucket after one; `None` at the end of time.
    pub(super) fn after(&self, start: i64) -> Option<i64> {
        if self.width.months != 0 {
            let months = Months::new(self.width.months.unsigned_abs());
            let start = DateTime::<Utc>::from_timestamp_micros(start)?;
            return Some(start.checked_add_months(months)?.timestamp_micros());
        }
        start.checked_add(i64::from(self.width.days) * 86_400_000_000 + self.width.nanoseconds / 1_000)
    }
}
