//! What texts are: numbers, times, booleans, identifiers, geometries.

use serde::Serialize;
use twinlake_contracts::parse_us;

/// A type that texts may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextType {
    /// `true`, `false`, `yes`, `no`.
    Boolean,
    /// A whole number without leading zeros.
    Int64,
    /// A number.
    Float64,
    /// A day, as in 2026-01-31.
    Date,
    /// An instant, as in 2026-01-31T12:00:00Z; without a zone it is taken as UTC.
    Timestamp,
    /// A universally unique identifier.
    Uuid,
    /// A geometry as well-known text.
    Wkt,
    /// A geometry as GeoJSON.
    Geojson,
    /// A JSON object or list.
    Json,
}

/// Types from the narrowest to the widest.
const ALL: [TextType; 9] = [
    TextType::Boolean,
    TextType::Int64,
    TextType::Float64,
    TextType::Date,
    TextType::Timestamp,
    TextType::Uuid,
    TextType::Wkt,
    TextType::Geojson,
    TextType::Json,
];
/// The part of texts that must have the type.
const NEEDED: f64 = 0.99;

impl TextType {
    fn fits(self, text: &str) -> bool {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Boolean => {
                ["true", "false", "yes", "no", "t", "f"].iter().any(|word| text.eq_ignore_ascii_case(word))
            }
            Self::Int64 => {
                let number = text.strip_prefix('-').unwrap_or(text);
                // A leading zero is that of a code: 0022 is not 22.
                digits(number) && (number == "0" || !number.starts_with('0')) && text.parse::<i64>().is_ok()
            }
            Self::Float64 => {
                let number = text.trim_start_matches(['-', '+']);
                let code = number.len() > 1 && number.starts_with('0') && !number.starts_with("0.");
                number.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                    && !code
                    && text.parse::<f64>().is_ok_and(f64::is_finite)
            }
            Self::Date => {
                let parts: Vec<&str> = text.split('-').collect();
                matches!(parts.as_slice(), [year, month, day]
                    if year.len() == 4 && month.len() == 2 && day.len() == 2 && parse_us(&format!("{text}T00:00:00Z")).is_some())
            }
            Self::Timestamp => {
                let dated = text.len() >= 16
                    && text.as_bytes().get(4) == Some(&b'-')
                    && matches!(text.as_bytes().get(10), Some(b'T' | b' '));
                let iso = text.replacen(' ', "T", 1);
                dated
                    && (parse_us(&iso).is_some()
                        || parse_us(&format!("{iso}Z")).is_some()
                        || parse_us(&format!("{iso}:00Z")).is_some())
            }
            Self::Uuid => {
                let groups: Vec<&str> = text.split('-').collect();
                groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
                    && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
            }
            Self::Wkt => {
                let upper = text.trim_start().to_ascii_uppercase();
                let word = [
                    "POINT",
                    "LINESTRING",
                    "POLYGON",
                    "MULTIPOINT",
                    "MULTILINESTRING",
                    "MULTIPOLYGON",
                    "GEOMETRYCOLLECTION",
                ];
                word.iter().any(|word| {
                    upper.strip_prefix(word).is_some_and(|rest| {
                        rest.trim_start().trim_start_matches(['Z', 'M']).trim_start().starts_with(['(', 'E'])
                    })
                })
            }
            Self::Geojson => {
                Self::Json.fits(text)
                    && serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| {
                        value.get("type").is_some_and(serde_json::Value::is_string)
                            && (value.get("coordinates").is_some() || value.get("geometries").is_some())
                    })
            }
            Self::Json => {
                text.starts_with(['{', '[']) && serde_json::from_str::<serde_json::Value>(text).is_ok()
            }
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Uuid => "uuid",
            Self::Wkt => "wkt",
            Self::Geojson => "geojson",
            Self::Json => "json",
        }
    }
}

/// Counts texts by type.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextTypes {
    texts: u64,
    fitting: [u64; ALL.len()],
}

impl TextTypes {
    pub(crate) fn add(&mut self, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        self.texts += 1;
        for (count, kind) in self.fitting.iter_mut().zip(ALL) {
            *count += u64::from(kind.fits(text));
        }
    }

    /// The narrowest type that nearly all texts have, and how many have it not.
    pub(crate) fn proposal(&self) -> Option<(TextType, u64)> {
        if self.texts == 0 {
            return None;
        }
        let enough = |count: u64| count as f64 >= NEEDED * self.texts as f64;
        ALL.into_iter()
            .zip(self.fitting)
            .find(|(_, count)| enough(*count))
            .map(|(kind, count)| (kind, self.texts - count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_types() {
        for (texts, expected) in [
            (vec!["1", "-20", "0"], Some(TextType::Int64)),
            (vec!["1.5", "2", "-3e4"], Some(TextType::Float64)),
            (vec!["0022", "0018"], None), // codes
            (vec!["true", "False"], Some(TextType::Boolean)),
            (vec!["2026-01-31", "2024-02-29"], Some(TextType::Date)),
            (vec!["2026-02-30", "2024-02-29"], None),
            (
                vec!["2018-10-09T04:32:52Z", "2018-10-09 04:32:52", "2018-10-09T04:32:52.5+03:00"],
                Some(TextType::Timestamp),
            ),
            (vec!["9b2e2b1c-0d3f-4c55-8f0e-1f2a3b4c5d6e"], Some(TextType::Uuid)),
            (vec!["POINT (24.9 60.1)", "POLYGON ((0 0, 1 1, 1 0, 0 0))"], Some(TextType::Wkt)),
            (vec![r#"{"type":"Point","coordinates":[1,2]}"#], Some(TextType::Geojson)),
            (vec![r#"{"a":1}"#, "[1,2]"], Some(TextType::Json)),
            (vec!["Helsinki", "Espoo"], None),
            (vec!["NaN", "inf"], None),
            (vec!["POINTLESS"], None),
        ] {
            let mut types = TextTypes::default();
            for text in &texts {
                types.add(text);
            }
            assert_eq!(types.proposal().map(|(kind, _)| kind), expected, "{texts:?}");
        }
    }
}
