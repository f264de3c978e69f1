//! What OpenStreetMap's road tags mean for a car: access, direction, lanes, speed, capacity.
//!
//! | class | car lanes a direction | speed limit, km/h | vehicles a lane and hour | free flow / limit |
//! |---|---|---|---|---|
//! | motorway | 2 | 120 | 2000 | 1.0 |
//! | motorway_link | 1 | 80 | 1500 | 1.0 |
//! | trunk | 2 if one-way, else 1 | 80 | 2000 | 1.0 |
//! | trunk_link | 1 | 50 | 1500 | 1.0 |
//! | primary | 1 | 50 | 1500 | 0.9 |
//! | primary_link | 1 | 50 | 1500 | 0.9 |
//! | secondary, secondary_link | 1 | 50 | 1000 | 0.9 |
//! | tertiary, tertiary_link | 1 | 40 | 600 | 0.9 |
//! | unclassified, road | 1 | 40 | 600 | 0.8 |
//! | residential | 1 | 30 | 600 | 0.8 |
//! | living_street | 1 | 20 | 300 | 0.8 |
//! | service | 1 | 20 | 300 | 0.8 |
//!
//! Other classes (track, path, pedestrian, busway, …) are not for cars. Lane capacities are the defaults of MATSim's
//! OpenStreetMap network reader (M. Zilske, A. Neumann, K. Nagel, "OpenStreetMap for Traffic Simulation", 2011), which
//! agree with the Highway Capacity Manual: about 2,000 and more vehicles an hour on a lane without interruptions, and a
//! saturation flow of 1,900 times the share of green on streets with signals. Limits where no tag gives one are those
//! common in Finnish cities. The ratio of free-flow speed to the limit stands for the delay at junctions; it is an
//! assumption to be calibrated, not a measurement.

use crate::osm_file::Tags;

/// A road class for cars, with its defaults for one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RoadClass {
    pub(crate) lanes: f64,
    pub(crate) lanes_if_oneway: f64,
    pub(crate) speed_kmh: f64,
    pub(crate) lane_capacity_vph: f64,
    pub(crate) free_flow_ratio: f64,
}

/// The class of a `highway` value; `None` when it is not for cars.
pub(crate) fn road_class(highway: &str) -> Option<RoadClass> {
    let class = |lanes, lanes_if_oneway, speed_kmh, lane_capacity_vph, free_flow_ratio| {
        Some(RoadClass { lanes, lanes_if_oneway, speed_kmh, lane_capacity_vph, free_flow_ratio })
    };
    match highway {
        "motorway" => class(2.0, 2.0, 120.0, 2000.0, 1.0),
        "motorway_link" => class(1.0, 1.0, 80.0, 1500.0, 1.0),
        "trunk" => class(1.0, 2.0, 80.0, 2000.0, 1.0),
        "trunk_link" => class(1.0, 1.0, 50.0, 1500.0, 1.0),
        "primary" | "primary_link" => class(1.0, 1.0, 50.0, 1500.0, 0.9),
        "secondary" | "secondary_link" => class(1.0, 1.0, 50.0, 1000.0, 0.9),
        "tertiary" | "tertiary_link" => class(1.0, 1.0, 40.0, 600.0, 0.9),
        "unclassified" | "road" => class(1.0, 1.0, 40.0, 600.0, 0.8),
        "residential" => class(1.0, 1.0, 30.0, 600.0, 0.8),
        "living_street" | "service" => class(1.0, 1.0, 20.0, 300.0, 0.8),
        _ => None,
    }
}

/// Whether a car may use the way: the most specific of the tags motorcar, motor_vehicle, vehicle, access decides;
/// areas (`area=yes`) are not links.
pub(crate) fn is_for_cars(tags: &Tags) -> bool {
    let Some(highway) = tags.get("highway") else { return false };
    if road_class(highway).is_none() || tags.get("area").is_some_and(|area| area == "yes") {
        return false;
    }
    let specific = ["motorcar", "motor_vehicle", "vehicle", "access"].iter().find_map(|key| tags.get(*key));
    !specific.is_some_and(|access| {
        ["no", "private", "agricultural", "forestry", "military", "emergency"].contains(&access.as_str())
    })
}

/// In which directions of the way a car may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Both,
    Forward,
    Backward,
}

/// The direction: the tag `oneway` (`yes`, `true`, `1`, `-1`, `reverse`, `no`…), or else one-way on motorways and
/// roundabouts. `reversible` and `alternating` count as both.
pub(crate) fn direction(tags: &Tags) -> Direction {
    let stated = ["oneway:motorcar", "oneway:motor_vehicle", "oneway"].iter().find_map(|key| tags.get(*key));
    let implied = tags.get("highway").is_some_and(|highway| highway == "motorway")
        || tags.get("junction").is_some_and(|junction| junction == "roundabout" || junction == "circular");
    match stated.map(String::as_str) {
        Some("yes" | "true" | "1") => Direction::Forward,
        Some("-1" | "reverse") => Direction::Backward,
        None if implied => Direction::Forward,
        Some(_) | None => Direction::Both,
    }
}

/// Lanes in one direction (`forward` along the way): `lanes:forward` or `lanes:backward`, or else `lanes`, of which a
/// two-way road has half in each direction (so a single track counts half a lane), or else the class's default.
pub(crate) fn lanes(tags: &Tags, class: &RoadClass, direction: Direction, forward: bool) -> f64 {
    let count = |key: &str| {
        tags.get(key).and_then(|text| text.trim().parse::<f64>().ok()).filter(|n| *n > 0.0 && *n <= 20.0)
    };
    let own = count(if forward { "lanes:forward" } else { "lanes:backward" });
    own.or_else(|| count("lanes").map(|all| if direction == Direction::Both { all / 2.0 } else { all }))
        .unwrap_or(if direction == Direction::Both { class.lanes } else { class.lanes_if_oneway })
}

/// The speed limit in one direction in km/h: `maxspeed:forward` or `maxspeed:backward`, `maxspeed`, then the zone tags
/// `maxspeed:type`, `source:maxspeed`, `zone:maxspeed`; `None` when no tag says.
pub(crate) fn speed_limit_kmh(tags: &Tags, forward: bool) -> Option<f64> {
    let own = if forward { "maxspeed:forward" } else { "maxspeed:backward" };
    [own, "maxspeed", "maxspeed:type", "source:maxspeed", "zone:maxspeed"]
        .iter()
        .find_map(|key| tags.get(*key).and_then(|text| parse_speed_kmh(text)))
}

/// Reads `50`, `50 km/h`, `30 mph`, `5 knots`, `walk`, `none` (130), the least of `50;30`, and zones as `FI:urban`,
/// `DE:zone30`, `GB:nsl_dual`.
pub(crate) fn parse_speed_kmh(text: &str) -> Option<f64> {
    let text = text.trim().to_ascii_lowercase();
    if text.contains(';') {
        return text.split(';').filter_map(parse_speed_kmh).reduce(f64::min);
    }
    match text.as_str() {
        "none" => return Some(130.0),
        "walk" => return Some(7.0),
        _ => {}
    }
    if let Some((country, zone)) = text.split_once(':') {
        return zone_speed_kmh(country, zone);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let kmh = match text[digits..].trim() {
        "" | "km/h" | "kmh" | "kph" => number,
        "mph" => number * 1.609_344,
        "knots" => number * 1.852,
        _ => return None,
    };
    (kmh > 0.0 && kmh <= 300.0).then_some(kmh)
}

/// The general limits of some countries; elsewhere 50 in towns, 80 outside, 120 on motorways.
fn zone_speed_kmh(country: &str, zone: &str) -> Option<f64> {
    let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
    if zone.starts_with("zone") || zone.chars().all(|c| c.is_ascii_digit()) {
        return digits.parse().ok().filter(|kmh| *kmh > 0.0 && *kmh <= 130.0);
    }
    match (country, zone) {
        ("gb", "nsl_single") => Some(60.0 * 1.609_344),
        ("gb", "nsl_dual" | "motorway") => Some(70.0 * 1.609_344),
        ("gb", "nsl_restricted" | "urban") => Some(30.0 * 1.609_344),
        ("de" | "at", "rural") | (_, "trunk") => Some(100.0),
        ("de" | "at" | "fr" | "it" | "nl", "motorway") => Some(130.0),
        ("se", "rural") => Some(70.0),
        (_, "urban") => Some(50.0),
        (_, "rural") => Some(80.0),
        (_, "motorway") => Some(120.0),
        (_, "living_street") => Some(20.0),
        (_, "walk") => Some(7.0),
        (_, "bicycle_road") => Some(30.0),
        _ => None,
    }
}

/// Reads a height or length in metres: `12`, `12.5 m`, `40 ft`, `40'`, `5'6"`.
pub(crate) fn parse_metres(text: &str) -> Option<f64> {
    const FOOT_M: f64 = 0.3048;
    let text = text.trim();
    let metres = if let Some((feet, inches)) = text.split_once('\'') {
        let inches = inches.trim().trim_end_matches('"');
        let inches: f64 = if inches.is_empty() { 0.0 } else { inches.trim().parse().ok()? };
        (feet.trim().parse::<f64>().ok()? + inches / 12.0) * FOOT_M
    } else if let Some(feet) = text.strip_suffix("ft") {
        feet.trim().parse::<f64>().ok()? * FOOT_M
    } else {
        text.strip_suffix('m').unwrap_or(text).trim().parse().ok()?
    };
    (metres.is_finite() && (0.0..=10_000.0).contains(&metres)).then_some(metres)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn speeds_in_every_spelling() {
        for (text, expected) in [
            ("50", Some(50.0)),
            ("50 km/h", Some(50.0)),
            ("30 mph", Some(48.280_32)),
            ("FI:urban", Some(50.0)),
            ("fi:rural", Some(80.0)),
            ("DE:motorway", Some(130.0)),
            ("FI:zone30", Some(30.0)),
            ("DE:zone:30", Some(30.0)),
            ("FI:40", Some(40.0)),
            ("none", Some(130.0)),
            ("walk", Some(7.0)),
            ("60;40", Some(40.0)),
            ("signals", None),
            ("0", None),
            ("-5", None),
            ("1e5", None),
            ("", None),
            ("50 furlongs", None),
        ] {
            assert_eq!(parse_speed_kmh(text), expected, "{text}");
        }
        let both = tags(&[("maxspeed", "40"), ("maxspeed:backward", "30")]);
        assert_eq!((speed_limit_kmh(&both, true), speed_limit_kmh(&both, false)), (Some(40.0), Some(30.0)));
        assert_eq!(
            speed_limit_kmh(&tags(&[("maxspeed", "signals"), ("source:maxspeed", "FI:urban")]), true),
            Some(50.0)
        );
    }

    #[test]
    fn directions_stated_and_implied() {
        for (pairs, expected) in [
            (&[("highway", "primary")][..], Direction::Both),
            (&[("highway", "motorway")], Direction::Forward),
            (&[("highway", "motorway"), ("oneway", "no")], Direction::Both),
            (&[("highway", "residential"), ("junction", "roundabout")], Direction::Forward),
            (&[("highway", "residential"), ("oneway", "yes")], Direction::Forward),
            (&[("highway", "residential"), ("oneway", "-1")], Direction::Backward),
            (&[("highway", "residential"), ("oneway", "reversible")], Direction::Both),
        ] {
            assert_eq!(direction(&tags(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn lanes_of_one_direction() {
        let class = road_class("trunk").expect("class");
        for (pairs, way, forward, expected) in [
            (&[][..], Direction::Both, true, 1.0),
            (&[], Direction::Forward, true, 2.0),
            (&[("lanes", "4")], Direction::Both, true, 2.0),
            (&[("lanes", "3")], Direction::Forward, true, 3.0),
            (&[("lanes", "3"), ("lanes:forward", "2"), ("lanes:backward", "1")], Direction::Both, true, 2.0),
            (&[("lanes", "3"), ("lanes:forward", "2"), ("lanes:backward", "1")], Direction::Both, false, 1.0),
            (&[("lanes", "many")], Direction::Both, true, 1.0),
            (&[("lanes", "-2")], Direction::Both, true, 1.0),
        ] {
            assert_eq!(lanes(&tags(pairs), &class, way, forward), expected, "{pairs:?}");
        }
    }

    #[test]
    fn only_roads_open_to_cars() {
        for (pairs, expected) in [
            (&[("highway", "residential")][..], true),
            (&[("highway", "residential"), ("access", "no")], false),
            (&[("highway", "residential"), ("access", "no"), ("motor_vehicle", "yes")], true),
            (&[("highway", "residential"), ("motor_vehicle", "no")], false),
            (&[("highway", "service"), ("access", "destination")], true),
            (&[("highway", "footway")], false),
            (&[("highway", "pedestrian")], false),
            (&[("highway", "service"), ("area", "yes")], false),
            (&[("building", "yes")], false),
        ] {
            assert_eq!(is_for_cars(&tags(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn heights_in_metres_and_feet() {
        for (text, expected) in
            [("12", Some(12.0)), ("12.5 m", Some(12.5)), ("10 ft", Some(3.048)), ("tall", None), ("-1", None)]
        {
            assert_eq!(parse_metres(text), expected, "{text}");
        }
        assert!((parse_metres("5'6\"").expect("height") - 1.6764).abs() < 1e-12);
    }
}
