//! Units, proposed from a column's name and the range of its values.

use serde::Serialize;

/// A proposed unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnitProposal {
    /// The unit.
    pub unit: String,
    /// What speaks for it.
    pub because: String,
}

/// Endings of names that say a unit by themselves.
const ENDINGS: &[(&str, &str)] = &[
    ("mps2", "m/s²"),
    ("mps", "m/s"),
    ("ms2", "m/s²"),
    ("kmh", "km/h"),
    ("kph", "km/h"),
    ("mph", "mi/h"),
    ("knots", "kn"),
    ("deg", "deg"),
    ("degrees", "deg"),
    ("rad", "rad"),
    ("rpm", "1/min"),
    ("hz", "Hz"),
    ("khz", "kHz"),
    ("km", "km"),
    ("mm", "mm"),
    ("cm", "cm"),
    ("m", "m"),
    ("m2", "m²"),
    ("m3", "m³"),
    ("m3s", "m³/s"),
    ("m3h", "m³/h"),
    ("s", "s"),
    ("sec", "s"),
    ("seconds", "s"),
    ("min", "min"),
    ("minutes", "min"),
    ("h", "h"),
    ("ms", "ms"),
    ("us", "µs"),
    ("ns", "ns"),
    ("kg", "kg"),
    ("g", "g"),
    ("t", "t"),
    ("l", "l"),
    ("litres", "l"),
    ("c", "°C"),
    ("degc", "°C"),
    ("celsius", "°C"),
    ("k", "K"),
    ("kelvin", "K"),
    ("f", "°F"),
    ("fahrenheit", "°F"),
    ("pa", "Pa"),
    ("hpa", "hPa"),
    ("kpa", "kPa"),
    ("bar", "bar"),
    ("mbar", "hPa"),
    ("v", "V"),
    ("mv", "mV"),
    ("kv", "kV"),
    ("a", "A"),
    ("ma", "mA"),
    ("w", "W"),
    ("kw", "kW"),
    ("mw", "MW"),
    ("wh", "Wh"),
    ("kwh", "kWh"),
    ("mwh", "MWh"),
    ("j", "J"),
    ("n", "N"),
    ("nm", "N·m"),
    ("lux", "lx"),
    ("db", "dB"),
    ("ppm", "ppm"),
    ("ppb", "ppb"),
    ("ugm3", "µg/m³"),
    ("vph", "veh/h"),
    ("percent", "%"),
    ("pct", "%"),
    ("bytes", "B"),
];
/// Endings of one letter are units only behind a word that they are a unit of.
const MEASURED: &[(&str, &[&str])] = &[
    (
        "m",
        &[
            "length",
            "width",
            "height",
            "depth",
            "distance",
            "altitude",
            "elevation",
            "moved",
            "radius",
            "range",
            "accuracy",
            "off",
            "level",
            "odometer",
            "road",
        ],
    ),
    (
        "s",
        &[
            "time",
            "duration",
            "delay",
            "age",
            "interval",
            "period",
            "headway",
            "dwell",
            "freshness",
            "cpu",
            "wall",
            "travel",
            "flow",
        ],
    ),
    ("h", &["time", "duration", "age", "hours"]),
    ("c", &["temp", "temperature", "dewpoint", "dew", "air", "water", "oil"]),
    ("k", &["temp", "temperature", "color", "colour"]),
    ("f", &["temp", "temperature"]),
    ("v", &["voltage", "battery", "supply"]),
    ("a", &["current", "load"]),
    ("w", &["power", "load"]),
    ("j", &["energy"]),
    ("n", &["force"]),
    ("g", &["mass", "weight", "acceleration"]),
    ("t", &["mass", "weight", "load"]),
    ("l", &["volume", "fuel", "tank"]),
];

/// What numbers of a column look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) median: f64,
}

/// The unit that a column of numbers seems to have.
pub(crate) fn propose(column: &str, range: Range) -> Option<UnitProposal> {
    let lower = column.to_lowercase();
    let parts: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let within = |low: f64, high: f64| range.min >= low && range.max <= high;
    let proposal = |unit: &str, because: String| Some(UnitProposal { unit: unit.to_owned(), because });
    let has = |words: &[&str]| words.iter().any(|word| parts.contains(word));
    if has(&["lon", "lng", "long", "longitude"]) && within(-180.0, 180.0) {
        return proposal("deg", "a longitude by its name, within ±180".to_owned());
    }
    if has(&["lat", "latitude"]) && within(-90.0, 90.0) {
        return proposal("deg", "a latitude by its name, within ±90".to_owned());
    }
    if let [front @ .., last] = parts.as_slice()
        && !front.is_empty()
        && let Some((ending, unit)) = ENDINGS.iter().find(|(ending, _)| ending == last)
    {
        let measured = MEASURED.iter().find(|(short, _)| short == ending);
        if measured.is_none_or(|(_, words)| front.iter().any(|word| words.contains(word))) {
            return proposal(unit, format!("the name ends in _{ending}"));
        }
    }
    let shown = || format!("{} to {}", range.min, range.max);
    if has(&["temp", "temperature"]) {
        return match range.median {
            median if within(180.0, 340.0) && median > 200.0 => {
                proposal("K", format!("a temperature of {}", shown()))
            }
            // Above what air and water reach in °C, and yet no K.
            median if within(-60.0, 135.0) && median > 45.0 => {
                proposal("°F", format!("a temperature of {}", shown()))
            }
            _ if within(-90.0, 60.0) => proposal("°C", format!("a temperature of {}", shown())),
            _ => None,
        };
    }
    if has(&["pressure", "barometer"]) {
        return match () {
            () if within(850.0, 1100.0) => proposal("hPa", format!("a pressure of {}", shown())),
            () if within(85_000.0, 110_000.0) => proposal("Pa", format!("a pressure of {}", shown())),
            () if within(85.0, 110.0) => proposal("kPa", format!("a pressure of {}", shown())),
            () => None,
        };
    }
    if has(&["humidity", "rh", "soc"]) {
        return match () {
            () if within(0.0, 1.0) => proposal("1", format!("a part of {}", shown())),
            () if within(0.0, 100.0) => proposal("%", format!("a part of {}", shown())),
            () => None,
        };
    }
    if has(&["heading", "bearing", "azimuth", "course", "hdg"]) && within(-180.0, 360.0) && range.max > 7.0 {
        return proposal("deg", format!("a direction of {}", shown()));
    }
    if has(&["speed", "velocity", "spd"]) && range.median > 0.0 && within(0.0, 400.0) && range.max > 75.0 {
        return proposal("km/h", format!("a speed up to {}: too fast for m/s on roads", range.max));
    }
    let of_time =
        has(&["time", "timestamp", "ts", "at", "epoch", "created", "updated", "date", "tst", "tsi"]);
    if of_time {
        for (factor, unit) in [(1.0, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")] {
            // From 1990 to 2100.
            if within(631_152_000.0 * factor, 4_102_444_800.0 * factor) {
                return proposal(unit, "an instant, counted since 1970-01-01T00:00:00Z".to_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_from_names_and_ranges() {
        for (column, min, max, median, expected) in [
            ("speed_mps", 0.0, 30.0, 8.0, Some("m/s")),
            ("temp", -25.0, 31.0, 12.0, Some("°C")),
            ("temp", 250.0, 305.0, 285.0, Some("K")),
            ("air_temperature", 20.0, 101.0, 68.0, Some("°F")),
            ("lon", 24.0, 25.5, 24.9, Some("deg")),
            ("lat", 6_600_000.0, 6_700_000.0, 6_650_000.0, None),
            ("pressure", 990.0, 1031.0, 1012.0, Some("hPa")),
            ("pressure", 98_000.0, 103_100.0, 101_200.0, Some("Pa")),
            ("humidity", 0.2, 0.98, 0.7, Some("1")),
            ("humidity", 20.0, 98.0, 70.0, Some("%")),
            ("hdg", 0.0, 359.0, 180.0, Some("deg")),
            ("length_m", 1.0, 900.0, 50.0, Some("m")),
            ("delay_s", -100.0, 900.0, 20.0, Some("s")),
            ("created_at", 1.7e12, 1.71e12, 1.705e12, Some("ms")),
            // No units: a letter at the end, a count, an identifier.
            ("class_a", 1.0, 5.0, 2.0, None),
            ("vehicle_s", 1.0, 5.0, 2.0, None),
            ("veh", 1.0, 1500.0, 700.0, None),
            ("m", 1.0, 5.0, 2.0, None),
            ("speed", 0.0, 30.0, 8.0, None),
        ] {
            let found = propose(column, Range { min, max, median }).map(|proposal| proposal.unit);
            assert_eq!(found.as_deref(), expected, "{column} {min} {max}");
        }
    }
}
