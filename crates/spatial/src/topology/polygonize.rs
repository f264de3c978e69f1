//! Areas and lines back from an arrangement: polygons of chosen faces, lines of chosen edges.

use std::collections::HashMap;

use geo::{Coord, LineString, Polygon};

use super::arrangement::{Arrangement, Sets, doubled_area};

/// The polygons that the chosen faces make, each with a connected inside; shells counter-clockwise, holes clockwise,
/// every ring from its smallest coordinate, polygons in the order of those.
pub(crate) fn polygons(plane: &Arrangement, chosen: &[bool]) -> Vec<Polygon> {
    let labels: Vec<u32> = chosen.iter().map(|chosen| u32::from(*chosen)).collect();
    labelled(plane, &labels)
}

/// The polygons of every bounded face by itself for which `wanted` holds.
pub(crate) fn faces(plane: &Arrangement, wanted: impl Fn(u32) -> bool) -> Vec<Polygon> {
    let labels: Vec<u32> =
        (0..plane.faces() as u32).map(|face| if face > 0 && wanted(face) { face } else { 0 }).collect();
    labelled(plane, &labels)
}

/// Neighbouring faces of one label make a polygon; label 0 is left out.
fn labelled(plane: &Arrangement, labels: &[u32]) -> Vec<Polygon> {
    let halves = plane.edges.len() as u32 * 2;
    let label = |half: u32| labels[plane.face(half) as usize];
    let bounds = |half: u32| label(half) != 0 && label(half) != label(half ^ 1);
    let mut regions = Sets::new(plane.faces());
    for half in (0..halves).step_by(2) {
        if label(half) != 0 && label(half) == label(half ^ 1) {
            regions.join(plane.face(half), plane.face(half ^ 1));
        }
    }
    let mut seen = vec![false; halves as usize];
    let mut shells: HashMap<u32, Vec<LineString>> = HashMap::new();
    let mut holes: HashMap<u32, Vec<LineString>> = HashMap::new();
    for start in 0..halves {
        if seen[start as usize] || !bounds(start) {
            continue;
        }
        // Around the inside, so that areas which touch in a node stay apart; the ring is then cut where it meets
        // itself, so that a hole which touches its shell comes off.
        let region = regions.find(plane.face(start));
        let mut ring: Vec<u32> = Vec::new();
        let mut half = start;
        while !seen[half as usize] {
            seen[half as usize] = true;
            let node = plane.origin(half);
            if !plane.nodes[node as usize].passed {
                ring.push(node);
            }
            let Some(next) = plane.next_where(half, bounds) else { break };
            half = next;
        }
        for simple in cut_where_repeated(&ring) {
            let mut coords: Vec<Coord> = simple.iter().map(|node| plane.at(*node)).collect();
            start_at_smallest(&mut coords);
            let area = doubled_area(&coords);
            let list = if area > 0.0 { &mut shells } else { &mut holes };
            list.entry(region).or_default().push(LineString::new(coords));
        }
    }
    let mut result: Vec<Polygon> = Vec::new();
    for (region, mut outer) in shells {
        let mut inner = holes.remove(&region).unwrap_or_default();
        inner.sort_by(compare);
        outer.sort_by(compare);
        // A region has one shell; that rounding made a second one of no extent is possible, it stands alone.
        let mut outer = outer.into_iter();
        if let Some(shell) = outer.next() {
            result.push(Polygon::new(shell, inner));
        }
        result.extend(outer.map(|shell| Polygon::new(shell, Vec::new())));
    }
    result.sort_by(|a, b| compare(a.exterior(), b.exterior()));
    result
}

fn cut_where_repeated(ring: &[u32]) -> Vec<Vec<u32>> {
    let mut result = Vec::new();
    let mut stack: Vec<u32> = Vec::new();
    let mut place: HashMap<u32, usize> = HashMap::new();
    for node in ring {
        if let Some(from) = place.get(node).copied() {
            let loop_: Vec<u32> = stack.drain(from..).collect();
            for gone in &loop_ {
                place.remove(gone);
            }
            result.push(loop_);
        }
        place.insert(*node, stack.len());
        stack.push(*node);
    }
    result.push(stack);
    result
}

/// Turns a ring that is not closed yet so that its smallest coordinate is first, and closes it.
fn start_at_smallest(coords: &mut Vec<Coord>) {
    let smallest = (0..coords.len()).min_by(|a, b| order(&coords[*a], &coords[*b])).unwrap_or(0);
    coords.rotate_left(smallest);
    coords.extend(coords.first().copied());
}

pub(crate) fn order(a: &Coord, b: &Coord) -> std::cmp::Ordering {
    a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y))
}

pub(crate) fn compare(a: &LineString, b: &LineString) -> std::cmp::Ordering {
    a.0.iter()
        .zip(&b.0)
        .map(|(a, b)| order(a, b))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.0.len().cmp(&b.0.len()))
}

/// The chosen edges joined to lines. With `keep_nodes`, lines end wherever edges of the arrangement meet or a line
/// of the input ends; without, wherever not exactly two chosen edges meet.
pub(crate) fn lines(plane: &Arrangement, chosen: &[bool], keep_nodes: bool) -> Vec<LineString> {
    let used = |half: &u32| chosen[(half / 2) as usize];
    let is_end: Vec<bool> = (0..plane.nodes.len())
        .map(|node| {
            let around = &plane.around[node];
            let degree = around.iter().filter(|half| used(half)).count();
            degree != 2
                || (keep_nodes
                    && !plane.nodes[node].passed
                    && (around.len() != 2
                        || plane.nodes[node].ends != [0; 2]
                        || around.iter().any(|half| {
                            let edge = &plane.edges[(half / 2) as usize];
                            edge.lines.iter().sum::<u32>() + edge.rings.iter().sum::<u32>() > 1
                        })))
        })
        .collect();
    let mut seen = vec![false; plane.edges.len()];
    let mut result = Vec::new();
    let mut follow = |start: u32, seen: &mut Vec<bool>| {
        let mut coords = vec![plane.at(plane.origin(start))];
        let mut half = start;
        let mut along = 0_i64;
        loop {
            seen[(half / 2) as usize] = true;
            along += if plane.edges[(half / 2) as usize].forward == half.is_multiple_of(2) { 1 } else { -1 };
            let head = plane.origin(half ^ 1);
            if is_end[head as usize] {
                coords.push(plane.at(head));
                break;
            }
            if !plane.nodes[head as usize].passed {
                coords.push(plane.at(head));
            }
            let Some(next) = plane.around[head as usize].iter().find(|h| used(h) && **h != half ^ 1) else {
                break;
            };
            if seen[(next / 2) as usize] {
                break;
            }
            half = *next;
        }
        // In the direction in which most of it was drawn.
        if along < 0 {
            coords.reverse();
        }
        result.push(LineString::new(coords));
    };
    for node in (0..plane.nodes.len()).filter(|node| is_end[*node]) {
        for half in &plane.around[node] {
            if used(half) && !seen[(half / 2) as usize] {
                follow(*half, &mut seen);
            }
        }
    }
    for edge in 0..plane.edges.len() {
        if chosen[edge] && !seen[edge] {
            follow(edge as u32 * 2, &mut seen);
        }
    }
    result
}
