//! When a reading became known: on arrival, or as the message itself says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{now_us, parse_us};

/// The MQTT v5 user property (RFC 3339) that a replay sets, so that a capture keeps its own clock.
pub const RECEIVED_AT_PROPERTY: &str = "received_at";

/// Where a message's receipt time comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceivedAt {
    /// The clock of this machine when the message arrives.
    #[default]
    Arrival,
    /// The MQTT v5 user property `received_at` (RFC 3339); on arrival when it is missing or cannot be read.
    /// For replays and bridges that trust their publishers: a publisher can write any time.
    Property,
}

impl ReceivedAt {
    /// The receipt time in microseconds since the epoch, given the value of the property, if there is one.
    pub(crate) fn resolve(self, property: Option<&str>) -> i64 {
        match self {
            Self::Property => property.and_then(parse_us).unwrap_or_else(now_us),
            Self::Arrival => now_us(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_property_counts_only_when_asked_for_and_readable() {
        let stamp = Some("2018-10-09T04:32:53Z");
        assert_eq!(ReceivedAt::Property.resolve(stamp), 1_539_059_573_000_000);
        let before = now_us();
        for (setting, property) in
            [(ReceivedAt::Arrival, stamp), (ReceivedAt::Property, None), (ReceivedAt::Property, Some("soon"))]
        {
            assert!(setting.resolve(property) >= before);
        }
    }
}
