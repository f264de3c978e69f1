//! Layers `stops` and `transit_lines`: where public transport calls, and which lines there are.
//!
//! A stop is a node with `railway=tram_stop`, `highway=bus_stop`, `railway=station` or `halt` (metro where `station=subway`
//! or `subway=yes`), or `amenity=ferry_terminal`. Platforms and stop positions beside a stop are parts of it and no stops of
//! their own. A line is what the relations `type=route` of one mode have in common that carry the same `ref`: its two
//! directions and their variants. It calls at the stops among their members.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use twinlake_contracts::Result;

use crate::osm_file::{OsmFile, Position, Route, Tags};

/// One stop.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stop {
    pub(crate) id: i64,
    pub(crate) code: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) mode: &'static str,
    /// The lines that call there, separated by a comma and a space.
    pub(crate) lines: Option<String>,
    pub(crate) position: Position,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransitLine {
    /// `<mode>/<line>`.
    pub(crate) id: String,
    pub(crate) line: String,
    pub(crate) mode: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) operator: Option<String>,
    pub(crate) routes: i64,
    pub(crate) stops: i64,
}

pub(crate) struct Transit {
    /// By identifier.
    pub(crate) stops: Vec<Stop>,
    /// By identifier.
    pub(crate) lines: Vec<TransitLine>,
}

fn is(tags: &Tags, key: &str, value: &str) -> bool {
    tags.get(key).is_some_and(|found| found == value)
}

/// The mode of a stop; `None` when the node is none.
fn stop_mode(tags: &Tags) -> Option<&'static str> {
    // Where both call, the rails say where the stop is.
    if is(tags, "railway", "tram_stop") {
        return Some("tram");
    }
    if is(tags, "highway", "bus_stop") {
        return Some("bus");
    }
    if is(tags, "railway", "station") || is(tags, "railway", "halt") {
        let metro = is(tags, "station", "subway") || is(tags, "subway", "yes");
        return Some(if metro { "metro" } else { "train" });
    }
    is(tags, "amenity", "ferry_terminal").then_some("ferry")
}

/// The mode of a line; `None` when the relation is none, or says no line.
fn line_mode(tags: &Tags) -> Option<&'static str> {
    if !is(tags, "type", "route") || tags.get("ref").is_none_or(|line| line.trim().is_empty()) {
        return None;
    }
    match tags.get("route")?.as_str() {
        "bus" | "trolleybus" => Some("bus"),
        "tram" | "light_rail" => Some("tram"),
        "train" => Some("train"),
        "subway" => Some("metro"),
        "ferry" => Some("ferry"),
        _ => None,
    }
}

/// Reads stops and lines of a file.
pub(crate) fn read(file: &OsmFile) -> Result<Transit> {
    let (nodes, routes) =
        file.nodes_and_routes(&|tags| stop_mode(tags).is_some(), &|tags| line_mode(tags).is_some())?;
    let mut of_lines: BTreeMap<(&'static str, String), Vec<&Route>> = BTreeMap::new();
    for route in &routes {
        if let (Some(mode), Some(line)) = (line_mode(&route.tags), route.tags.get("ref")) {
            of_lines.entry((mode, line.trim().to_owned())).or_default().push(route);
        }
    }
    let stops: HashMap<i64, &'static str> =
        nodes.iter().filter_map(|node| Some((node.id, stop_mode(&node.tags)?))).collect();
    let mut calls: HashMap<i64, BTreeSet<&str>> = HashMap::new();
    let mut lines = Vec::with_capacity(of_lines.len());
    for ((mode, line), routes) in &of_lines {
        let members = routes.iter().flat_map(|route| &route.nodes);
        let called: BTreeSet<i64> = members.copied().filter(|node| stops.contains_key(node)).collect();
        for stop in &called {
            calls.entry(*stop).or_default().insert(line);
        }
        // Routes are in the order of their identifiers: the oldest one names the line.
        let of_first = |key: &str| routes.iter().find_map(|route| route.tags.get(key).cloned());
        lines.push(TransitLine {
            id: format!("{mode}/{line}"),
            line: line.clone(),
            mode,
            name: of_first("name"),
            operator: of_first("operator"),
            routes: routes.len() as i64,
            stops: called.len() as i64,
        });
    }
    lines.sort_by(|a, b| a.id.cmp(&b.id));
    let stops = nodes.into_iter().filter_map(|node| {
        let lines = calls.get(&node.id).map(|lines| lines.iter().copied().collect::<Vec<_>>().join(", "));
        Some(Stop {
            id: node.id,
            code: node.tags.get("ref").cloned(),
            name: node.tags.get("name").cloned(),
            mode: stop_mode(&node.tags)?,
            lines,
            position: node.position,
        })
    });
    Ok(Transit { stops: stops.collect(), lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn modes_are_those_of_passengers() {
        for (pairs, mode) in [
            (&[("highway", "bus_stop")][..], Some("bus")),
            (&[("railway", "tram_stop"), ("highway", "bus_stop")], Some("tram")),
            (&[("railway", "station")], Some("train")),
            (&[("railway", "station"), ("station", "subway")], Some("metro")),
            (&[("amenity", "ferry_terminal")], Some("ferry")),
            (&[("public_transport", "platform")], None),
        ] {
            assert_eq!(stop_mode(&tags(pairs)), mode, "{pairs:?}");
        }
        for (pairs, mode) in [
            (&[("type", "route"), ("route", "subway"), ("ref", "M1")][..], Some("metro")),
            (&[("type", "route"), ("route", "bicycle"), ("ref", "1")], None),
            (&[("type", "route"), ("route", "bus"), ("ref", " ")], None),
            (&[("type", "route_master"), ("route", "bus"), ("ref", "1")], None),
        ] {
            assert_eq!(line_mode(&tags(pairs)), mode, "{pairs:?}");
        }
    }
}
