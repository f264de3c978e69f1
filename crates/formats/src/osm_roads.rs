//! Layers `road_links` and `road_nodes`: a directed graph for cars from OpenStreetMap ways.
//!
//! Ways are cut at every node that two ways share, that a way passes twice, or at which a way ends; each piece is a
//! link from its first node to its last, and a second one back unless it is one-way. A piece that comes back to its
//! own start is cut in the middle, so that no link leads from a node to itself. Where an extract has cut a way (nodes
//! that the file lacks) the rest goes on as a piece of its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use geo::{Geodesic, Length};
use geo_types::{Coord, LineString};
use twinlake_contracts::{Error, Result};

use crate::osm_file::{OsmFile, Position, Way};
use crate::osm_tags::{Direction, direction, is_for_cars, lanes, road_class, speed_limit_kmh};

/// One directed link.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RoadLink {
    pub(crate) link_id: i64,
    pub(crate) way_id: i64,
    pub(crate) from_node: i64,
    pub(crate) to_node: i64,
    pub(crate) name: Option<String>,
    pub(crate) highway: String,
    pub(crate) lanes: f64,
    pub(crate) speed_kmh: f64,
    pub(crate) free_flow_speed_kmh: f64,
    pub(crate) length_m: f64,
    pub(crate) free_flow_time_s: f64,
    pub(crate) capacity_vph: f64,
    pub(crate) oneway: bool,
    pub(crate) line: LineString,
}

/// The graph: links sorted by `link_id`, nodes by identifier.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RoadGraph {
    pub(crate) links: Vec<RoadLink>,
    pub(crate) nodes: BTreeMap<i64, Position>,
}

/// `way · 4096 + piece · 2 + direction` (0 along the way, 1 against it): the same as long as the way is cut the same.
/// A way has at most 2,000 nodes, so a piece fits into 11 bits; the whole stays below 2^53 for ways below 2^41.
fn link_id(way: i64, piece: usize, backward: bool) -> Result<i64> {
    let piece = i64::try_from(piece).ok().filter(|piece| *piece < 2048);
    piece.and_then(|piece| way.checked_mul(4096)?.checked_add(piece * 2 + i64::from(backward))).ok_or_else(
        || Error::data("out_of_range", format!("way {way} has more than 2048 pieces, or too large a number")),
    )
}

/// Reads the graph of a file.
pub(crate) fn read(file: &OsmFile) -> Result<RoadGraph> {
    let (ways, _) = file.ways_and_relations(&is_for_cars, &|_| false)?;
    let wanted: HashSet<i64> = ways.iter().flat_map(|way| way.nodes.iter().copied()).collect();
    let positions = file.positions(&wanted)?;
    build(&ways, &positions)
}

/// The stretches of a way whose nodes are all known, without repeated neighbours.
fn stretches(way: &Way, positions: &HashMap<i64, Position>) -> Vec<Vec<i64>> {
    let mut all = vec![Vec::new()];
    for node in &way.nodes {
        if positions.contains_key(node) {
            if let Some(last) = all.last_mut()
                && last.last() != Some(node)
            {
                last.push(*node);
            }
        } else {
            all.push(Vec::new());
        }
    }
    all.retain(|nodes| nodes.len() > 1);
    all
}

fn build(ways: &[Way], positions: &HashMap<i64, Position>) -> Result<RoadGraph> {
    let cut: Vec<(&Way, Vec<Vec<i64>>)> = ways.iter().map(|way| (way, stretches(way, positions))).collect();
    let mut uses: HashMap<i64, u32> = HashMap::new();
    for nodes in cut.iter().flat_map(|(_, stretches)| stretches) {
        for node in nodes {
            *uses.entry(*node).or_default() += 1;
        }
        // An end is a junction even if nothing else is there.
        for end in [nodes.first(), nodes.last()].into_iter().flatten() {
            *uses.entry(*end).or_default() += 1;
        }
    }
    let mut graph = RoadGraph { links: Vec::new(), nodes: BTreeMap::new() };
    for (way, stretches) in cut {
        let mut piece = 0;
        for nodes in stretches {
            let mut start = 0;
            for end in 1..nodes.len() {
                if uses.get(&nodes[end]).is_some_and(|count| *count > 1) {
                    for part in without_loop(&nodes[start..=end]) {
                        add_piece(&mut graph, way, piece, part, positions)?;
                        piece += 1;
                    }
                    start = end;
                }
            }
        }
    }
    graph.links.sort_by_key(|link| link.link_id);
    Ok(graph)
}

/// The piece, or its two halves when it ends where it starts.
fn without_loop(nodes: &[i64]) -> Vec<&[i64]> {
    if nodes.first() == nodes.last() && nodes.len() > 2 {
        let middle = nodes.len() / 2;
        vec![&nodes[..=middle], &nodes[middle..]]
    } else {
        vec![nodes]
    }
}

fn add_piece(
    graph: &mut RoadGraph,
    way: &Way,
    piece: usize,
    nodes: &[i64],
    positions: &HashMap<i64, Position>,
) -> Result<()> {
    let Some(highway) = way.tags.get("highway") else { return Ok(()) };
    let Some(class) = road_class(highway) else { return Ok(()) };
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else { return Ok(()) };
    let line: LineString = nodes
        .iter()
        .filter_map(|node| positions.get(node))
        .map(|position| Coord { x: position.longitude, y: position.latitude })
        .collect();
    let length_m = Geodesic.length(&line);
    let way_direction = direction(&way.tags);
    for forward in [true, false] {
        if way_direction == (if forward { Direction::Backward } else { Direction::Forward }) {
            continue;
        }
        let lanes = lanes(&way.tags, &class, way_direction, forward);
        let speed_kmh = speed_limit_kmh(&way.tags, forward).unwrap_or(class.speed_kmh);
        let free_flow_speed_kmh = speed_kmh * class.free_flow_ratio;
        let mut line = line.clone();
        if !forward {
            line.0.reverse();
        }
        let (from_node, to_node) = if forward { (*first, *last) } else { (*last, *first) };
        graph.links.push(RoadLink {
            link_id: link_id(way.id, piece, !forward)?,
            way_id: way.id,
            from_node,
            to_node,
            name: way.tags.get("name").or_else(|| way.tags.get("ref")).cloned(),
            highway: highway.clone(),
            lanes,
            speed_kmh,
            free_flow_speed_kmh,
            length_m,
            free_flow_time_s: length_m / (free_flow_speed_kmh / 3.6),
            capacity_vph: lanes * class.lane_capacity_vph,
            oneway: way_direction != Direction::Both,
            line,
        });
    }
    for node in [first, last] {
        if let Some(position) = positions.get(node) {
            graph.nodes.insert(*node, *position);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(id: i64, nodes: &[i64], tags: &[(&str, &str)]) -> Way {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Way { id, nodes: nodes.to_vec(), tags }
    }

    /// Nodes 1..=9 on a line, 0.001° of longitude apart.
    fn positions() -> HashMap<i64, Position> {
        (1..=9).map(|n| (n, Position { longitude: 24.9 + n as f64 * 0.001, latitude: 60.17 })).collect()
    }

    fn ends(graph: &RoadGraph) -> Vec<(i64, i64, i64)> {
        graph.links.iter().map(|link| (link.link_id, link.from_node, link.to_node)).collect()
    }

    #[test]
    fn ways_are_cut_at_shared_nodes_and_go_both_ways() {
        let ways = [
            way(1, &[1, 2, 3], &[("highway", "primary"), ("name", "Mannerheimintie"), ("lanes", "3")]),
            way(2, &[4, 2], &[("highway", "residential"), ("oneway", "-1")]),
        ];
        let graph = build(&ways, &positions()).expect("graph");
        assert_eq!(ends(&graph), [(4096, 1, 2), (4097, 2, 1), (4098, 2, 3), (4099, 3, 2), (8193, 2, 4)]);
        assert_eq!(graph.nodes.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
        let (along, back) = (&graph.links[0], &graph.links[1]);
        // 0.001° of longitude at 60.17° N on WGS 84.
        assert!((along.length_m - 55.5).abs() < 0.1, "{}", along.length_m);
        assert_eq!(along.length_m, back.length_m);
        assert_eq!((along.lanes, along.capacity_vph, along.oneway), (1.5, 2250.0, false));
        assert_eq!((along.speed_kmh, along.free_flow_speed_kmh), (50.0, 45.0));
        assert!((along.free_flow_time_s - along.length_m / 12.5).abs() < 1e-9);
        assert_eq!(along.line.0.first(), back.line.0.last());
        assert!(graph.links[4].oneway);
    }

    #[test]
    fn loops_gaps_and_repeats_leave_no_link_to_itself() {
        let ways = [
            way(1, &[1, 2, 3, 4, 1], &[("highway", "residential"), ("junction", "roundabout")]),
            way(2, &[5, 99, 6, 6, 7, 98], &[("highway", "residential"), ("oneway", "yes")]),
            way(3, &[8], &[("highway", "residential")]),
            way(4, &[8, 9, 8], &[("highway", "residential"), ("oneway", "yes")]),
        ];
        let graph = build(&ways, &positions()).expect("graph");
        assert_eq!(
            ends(&graph),
            [(4096, 1, 3), (4098, 3, 1), (8192, 6, 7), (16384, 8, 9), (16386, 9, 8)],
            "5 is alone: its neighbour is not in the file"
        );
        assert!(graph.links.iter().all(|link| link.from_node != link.to_node));
    }

    #[test]
    fn identifiers_do_not_overflow_silently() {
        assert_eq!(link_id(1_400_000_000, 3, true).expect("id"), 5_734_400_000_007);
        assert!(link_id(i64::MAX, 0, false).is_err());
        assert!(link_id(1, 2048, false).is_err());
    }
}
