//! Lengths of time as people write them: `500ms`, `10s`, `5m`, `2h`, `1d`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// A length of time in microseconds, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Microseconds(pub i64);

impl Microseconds {
    /// Reads a number with a unit (`us`, `ms`, `s`, `m`, `h`, `d`).
    pub fn parse(text: &str) -> Option<Self> {
        let split = text.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = text[..split].parse().ok()?;
        let unit = match text[split..].trim() {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" | "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        number.checked_mul(unit).map(Self)
    }
}

/// Reads a length of time such as `10m` (units us, ms, s, m, h, d): microseconds.
pub fn parse_duration_us(text: &str) -> Option<i64> {
    Microseconds::parse(text).map(|length| length.0)
}

impl<'de> Deserialize<'de> for Microseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "'{text}' is not a length of time, expected a number with a unit: 10m"
            ))
        })
    }
}

impl JsonSchema for Microseconds {
    fn schema_name() -> Cow<'static, str> {
        "LengthOfTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time: a number with us, ms, s, m, h or d.",
            "pattern": "^[0-9]+ *(us|ms|s|m|min|h|d)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        assert_eq!(Microseconds::parse("10m"), Some(Microseconds(600_000_000)));
        assert_eq!(Microseconds::parse("250 ms"), Some(Microseconds(250_000)));
        assert_eq!(Microseconds::parse("10"), None);
        assert_eq!(Microseconds::parse("ten minutes"), None);
    }
}
