//! Time: microseconds since 1970-01-01T00:00:00Z, UTC, everywhere.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Utc};

/// A clock that gives microseconds since the epoch, UTC. Tests and replays pass their own.
pub trait Clock: Send + Sync {
    /// The present instant in microseconds since the epoch, UTC.
    fn now_us(&self) -> i64;
}

/// The present instant in microseconds since the epoch, UTC.
#[allow(clippy::disallowed_methods, reason = "the one place that asks the system")]
pub fn now_us() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
}

/// The Arrow type of every time stamp: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Reads an RFC 3339 time stamp, `+0000` offsets, a space for `T`, a bare date, or no offset (taken as UTC).
pub fn parse_us(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(parsed) = DateTime::parse_from_rfc3339(text) {
        return Some(parsed.timestamp_micros());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%#z"] {
        if let Ok(parsed) = DateTime::parse_from_str(text, format) {
            return Some(parsed.timestamp_micros());
        }
    }
    let bare = text.strip_suffix('Z').unwrap_or(text);
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(parsed) = NaiveDateTime::parse_from_str(bare, format) {
            return Some(Utc.from_utc_datetime(&parsed).timestamp_micros());
        }
    }
    NaiveDate::parse_from_str(bare, "%Y-%m-%d")
        .ok()
        .and_then(|day| day.and_hms_opt(0, 0, 0))
        .map(|midnight| Utc.from_utc_datetime(&midnight).timestamp_micros())
}

/// Writes microseconds since the epoch as RFC 3339 with `Z`, with as many decimals as are needed.
pub fn format_us(us: i64) -> String {
    DateTime::<Utc>::from_timestamp_micros(us)
        .map_or_else(|| format!("{us}us"), |t| t.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_common_spelling_as_the_same_instant() {
        let expected = Some(1_539_059_573_000_000);
        for text in [
            "2018-10-09T04:32:53Z",
            "2018-10-09T04:32:53+00:00",
            "2018-10-09T04:32:53.000000+0000",
            "2018-10-09 04:32:53",
            "2018-10-09T07:32:53+03:00",
        ] {
            assert_eq!(parse_us(text), expected, "{text}");
        }
        assert_eq!(parse_us("yesterday"), None);
        assert_eq!(format_us(1_539_059_573_000_000), "2018-10-09T04:32:53Z");
    }
}
