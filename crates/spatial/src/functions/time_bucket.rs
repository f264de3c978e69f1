//! `time_bucket`: the start of the interval that a time stamp falls into.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Datelike, Months, Utc};
use datafusion::common::Result;
use twinlake_contracts::timestamp_type;

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, TIMESTAMP};

pub(crate) static DEFINITION: Definition = Definition {
    name: "time_bucket",
    aliases: &[],
    summary: "The start of the bucket that the time stamp falls into, UTC; buckets count from Monday 2000-01-03 (of months: from 2000-01-01) or from the origin given",
    overloads: &[
        &[("width", Kind::Interval), ("ts", Kind::Timestamp)],
        &[("width", Kind::Interval), ("ts", Kind::Timestamp), ("origin", Kind::Timestamp)],
    ],
    crs: CrsRule::Same,
    output: TIMESTAMP,
    body,
};

/// 2000-01-03T00:00:00Z, a Monday.
const MONDAY_US: i64 = 946_857_600_000_000;
/// 2000-01-01T00:00:00Z.
const MILLENNIUM_US: i64 = 946_684_800_000_000;

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let (widths, times) = (call.intervals(0)?, call.timestamps(1)?);
    let origins = (call.arity() == 3).then(|| call.timestamps(2)).transpose()?;
    if let (None, Some(width)) = (&origins, widths.constant())
        && let Some(starts) = starts(width, times.array())
    {
        return Ok(Arc::new(starts));
    }
    let buckets = call.rows::<TimestampMicrosecondArray, _>(|row| {
        let (Some(width), Some(time)) = (widths.get(row), times.get(row)) else { return Ok(None) };
        let origin = match &origins {
            Some(origins) => match origins.get(row) {
                Some(origin) => Some(origin),
                None => return Ok(None),
            },
            None => None,
        };
        bucket(width, time, origin).map_or_else(|message| call.error(message), |start| Ok(Some(start)))
    })?;
    Ok(arrow::compute::cast(&buckets, &timestamp_type())?)
}

/// The starts of all buckets of a constant width of days and time, the usual case without the checks of each row;
/// `None` for any other width, and when the first bucket would begin before the beginning of time.
fn starts(
    width: IntervalMonthDayNano,
    times: &TimestampMicrosecondArray,
) -> Option<TimestampMicrosecondArray> {
    let width_us = i64::from(width.days) * 86_400_000_000 + width.nanoseconds / 1_000;
    if width.months != 0 || width.nanoseconds % 1_000 != 0 || width_us <= 0 {
        return None;
    }
    let earliest = i64::MIN.checked_add(MONDAY_US)?.checked_add(width_us)?;
    if times.values().iter().any(|time| *time < earliest) {
        return None;
    }
    // Neighbours are often in one bucket; then there is nothing to divide.
    let mut start = MONDAY_US;
    let mut starts = Vec::with_capacity(times.len());
    for &time in times.values() {
        if !(start..start.saturating_add(width_us)).contains(&time) {
            start = time - (time - MONDAY_US).rem_euclid(width_us);
        }
        starts.push(start);
    }
    let starts = TimestampMicrosecondArray::new(starts.into(), times.nulls().cloned());
    Some(starts.with_data_type(timestamp_type()))
}

/// The start of a bucket, in microseconds; months count from the origin, whole days are 24 hours, since times are UTC.
pub(crate) fn bucket(width: IntervalMonthDayNano, time: i64, origin: Option<i64>) -> Result<i64, String> {
    if width.months != 0 {
        if width.days != 0 || width.nanoseconds != 0 || width.months < 0 {
            return Err("the width must be positive months alone, or days and time alone".to_owned());
        }
        return months(i64::from(width.months), time, origin.unwrap_or(MILLENNIUM_US))
            .ok_or_else(|| "the time stamp is out of range".to_owned());
    }
    if width.nanoseconds % 1_000 != 0 {
        return Err("the width must be whole microseconds".to_owned());
    }
    let width_us = i64::from(width.days) * 86_400_000_000 + width.nanoseconds / 1_000;
    if width_us <= 0 {
        return Err("the width must be positive".to_owned());
    }
    let origin = origin.unwrap_or(MONDAY_US);
    time.checked_sub(origin)
        .and_then(|since| since.div_euclid(width_us).checked_mul(width_us))
        .and_then(|start| start.checked_add(origin))
        .ok_or_else(|| "the time stamp is out of range".to_owned())
}

fn months(width: i64, time: i64, origin: i64) -> Option<i64> {
    let origin = DateTime::<Utc>::from_timestamp_micros(origin)?;
    let at = DateTime::<Utc>::from_timestamp_micros(time)?;
    let count = |t: &DateTime<Utc>| i64::from(t.year()) * 12 + i64::from(t.month0());
    let start = |number: i64| -> Option<DateTime<Utc>> {
        let shift = Months::new(u32::try_from((number * width).unsigned_abs()).ok()?);
        if number < 0 { origin.checked_sub_months(shift) } else { origin.checked_add_months(shift) }
    };
    let number = (count(&at) - count(&origin)).div_euclid(width);
    // The origin's day and hour may lie later in the month than the time stamp's.
    let found = start(number)?;
    Some(if found > at { start(number - 1)? } else { found }.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn finds_starts() {
        check(&[
            ("time_bucket(INTERVAL '5 minutes', TIMESTAMP '2018-10-09T04:32:53Z')", "2018-10-09T04:30:00Z"),
            ("time_bucket('1 hour', '2018-10-09T04:32:53Z')", "2018-10-09T04:00:00Z"),
            ("time_bucket(INTERVAL '1 week', TIMESTAMP '2018-10-09T04:32:53Z')", "2018-10-08T00:00:00Z"),
            ("time_bucket(INTERVAL '1 month', TIMESTAMP '2018-10-09T04:32:53Z')", "2018-10-01T00:00:00Z"),
            ("time_bucket(INTERVAL '1 month', TIMESTAMP '1998-12-31T04:32:53Z')", "1998-12-01T00:00:00Z"),
            ("time_bucket(INTERVAL '1 day', TIMESTAMP '1969-12-31T23:00:00Z')", "1969-12-31T00:00:00Z"),
            (
                "time_bucket(INTERVAL '1 month', TIMESTAMP '2018-10-09T04:32:53Z', TIMESTAMP '2000-01-15T00:00:00Z')",
                "2018-09-15T00:00:00Z",
            ),
            (
                "time_bucket(INTERVAL '1 hour', TIMESTAMP '2018-10-09T04:32:53Z', TIMESTAMP '2000-01-01T00:40:00Z')",
                "2018-10-09T03:40:00Z",
            ),
            ("time_bucket(INTERVAL '1 hour', NULL)", "NULL"),
            ("time_bucket(NULL, TIMESTAMP '2018-10-09T04:32:53Z')", "NULL"),
        ]);
    }

    #[test]
    fn a_column_is_as_one_by_one() {
        let times = "'2018-10-09T04:32:53Z', '1969-12-31T23:00:00Z', '2018-10-09T04:33:00Z', '2018-10-09T04:35:00Z', '0001-01-01T00:00:00Z'";
        let rows = query(&format!(
            "SELECT count(*), count(DISTINCT time_bucket('5 minutes', t)), bool_and(time_bucket('5 minutes', t) = \
             time_bucket('5 minutes', t, TIMESTAMP '2000-01-03')) FROM (SELECT arrow_cast(unnest([{times}, NULL]), 'Timestamp(µs, \"UTC\")') AS t)"
        ));
        assert_eq!(rows.unwrap(), ["6|4|true"]);
    }

    #[test]
    fn refuses_widths_without_meaning() {
        fails(
            "time_bucket(INTERVAL '0 hours', TIMESTAMP '2018-10-09T04:32:53Z')",
            "time_bucket: the width must be positive",
        );
        fails("time_bucket(INTERVAL '1 month 1 day', TIMESTAMP '2018-10-09T04:32:53Z')", "alone");
    }
}
