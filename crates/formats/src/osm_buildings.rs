//! Layer `buildings`: closed ways and multipolygon relations with `building=*` (not `no`).
//!
//! A multipolygon's member ways are joined end to end into rings; each inner ring is cut out of the smallest outer ring
//! around it. A relation whose rings cannot be closed from the file (an extract cuts them at its edge) gives no
//! building, as a way that is not closed gives none. An outer way of a relation that gave one is not a building again.

use std::collections::{HashMap, HashSet};

use geo::orient::Direction;
use geo::{Area, Contains, Orient};
use geo_types::{Coord, Geometry, LineString, MultiPolygon, Point, Polygon};
use twinlake_contracts::Result;

use crate::osm_file::{OsmFile, Position, Relation, Tags};
use crate::osm_tags::parse_metres;

/// One building.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Building {
    /// `way/<id>` or `relation/<id>`.
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// The value of `building`: `apartments`, `school`, `yes`…
    pub(crate) kind: String,
    pub(crate) levels: Option<f64>,
    pub(crate) height_m: Option<f64>,
    pub(crate) address: Option<String>,
    pub(crate) geometry: Geometry,
}

fn is_building(tags: &Tags) -> bool {
    tags.get("building").is_some_and(|kind| kind != "no")
}

/// Reads the buildings of a file: ways by identifier, then relations by identifier.
pub(crate) fn read(file: &OsmFile) -> Result<Vec<Building>> {
    let relation_wanted =
        |tags: &Tags| is_building(tags) && tags.get("type").is_some_and(|t| t == "multipolygon");
    let (ways, relations) = file.ways_and_relations(&is_building, &relation_wanted)?;
    let members: HashSet<i64> =
        relations.iter().flat_map(|relation| relation.ways.iter().map(|(id, _)| *id)).collect();
    let member_ways = file.ways_by_id(&members)?;
    let nodes: HashSet<i64> =
        ways.iter().map(|way| &way.nodes).chain(member_ways.values()).flatten().copied().collect();
    let positions = file.positions(&nodes)?;

    let mut from_relations = Vec::new();
    let mut outer: HashSet<i64> = HashSet::new();
    for relation in &relations {
        if let Some(geometry) = multipolygon(relation, &member_ways, &positions) {
            outer.extend(relation.ways.iter().filter(|(_, role)| role != "inner").map(|(id, _)| *id));
            from_relations.push(building(format!("relation/{}", relation.id), &relation.tags, geometry));
        }
    }
    let mut buildings = Vec::new();
    for way in ways.iter().filter(|way| !outer.contains(&way.id)) {
        if let Some(ring) = ring(&way.nodes, &positions) {
            let polygon = Polygon::new(ring, vec![]).orient(Direction::Default);
            buildings.push(building(format!("way/{}", way.id), &way.tags, polygon.into()));
        }
    }
    buildings.append(&mut from_relations);
    Ok(buildings)
}

fn building(id: String, tags: &Tags, geometry: Geometry) -> Building {
    let levels = tags.get("building:levels").and_then(|text| text.trim().parse().ok());
    Building {
        id,
        name: tags.get("name").cloned(),
        kind: tags.get("building").cloned().unwrap_or_default(),
        levels: levels.filter(|levels: &f64| levels.is_finite() && (0.0..=1000.0).contains(levels)),
        height_m: tags
            .get("height")
            .or_else(|| tags.get("building:height"))
            .and_then(|text| parse_metres(text)),
        address: address(tags),
        geometry,
    }
}

/// `Mannerheimintie 1, 00100 Helsinki`, as far as the tags go.
fn address(tags: &Tags) -> Option<String> {
    let join = |keys: [&str; 2]| {
        let words: Vec<&str> = keys.iter().filter_map(|key| tags.get(*key)).map(String::as_str).collect();
        words.join(" ")
    };
    tags.get("addr:street")?;
    let parts = [join(["addr:street", "addr:housenumber"]), join(["addr:postcode", "addr:city"])];
    Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "))
}

/// A closed ring of at least three different corners whose nodes are all known.
fn ring(nodes: &[i64], positions: &HashMap<i64, Position>) -> Option<LineString> {
    if nodes.len() < 4 || nodes.first() != nodes.last() {
        return None;
    }
    nodes
        .iter()
        .map(|node| positions.get(node).map(|position| Coord { x: position.longitude, y: position.latitude }))
        .collect::<Option<Vec<_>>>()
        .map(LineString)
}

/// Joins ways end to end into closed rings; `None` when something is left over.
fn rings(ways: Vec<&[i64]>) -> Option<Vec<Vec<i64>>> {
    let mut open: Vec<&[i64]> = ways.into_iter().filter(|way| way.len() > 1).collect();
    let mut rings = Vec::new();
    while !open.is_empty() {
        let mut ring = open.remove(0).to_vec();
        while ring.first() != ring.last() {
            let end = ring.last().copied();
            let next =
                open.iter().position(|way| way.first().copied() == end || way.last().copied() == end)?;
            let way = open.remove(next);
            if way.first().copied() == end {
                ring.extend(&way[1..]);
            } else {
                ring.extend(way.iter().rev().skip(1));
            }
        }
        rings.push(ring);
    }
    Some(rings)
}

fn multipolygon(
    relation: &Relation,
    ways: &HashMap<i64, Vec<i64>>,
    positions: &HashMap<i64, Position>,
) -> Option<Geometry> {
    let of_role = |inner: bool| -> Option<Vec<LineString>> {
        let members = relation.ways.iter().filter(|(_, role)| (role == "inner") == inner);
        let lines = members.map(|(id, _)| ways.get(id).map(Vec::as_slice)).collect::<Option<Vec<_>>>()?;
        rings(lines)?.iter().map(|nodes| ring(nodes, positions)).collect()
    };
    let mut outers: Vec<(Polygon, Vec<LineString>)> =
        of_role(false)?.into_iter().map(|ring| (Polygon::new(ring, vec![]), Vec::new())).collect();
    for inner in of_role(true)? {
        let corner = Point(*inner.0.first()?);
        let around = outers
            .iter_mut()
            .filter(|(outer, _)| outer.contains(&corner))
            .min_by(|(a, _), (b, _)| a.unsigned_area().total_cmp(&b.unsigned_area()));
        if let Some((_, holes)) = around {
            holes.push(inner);
        }
    }
    let mut polygons: Vec<Polygon> = outers
        .into_iter()
        .map(|(outer, holes)| Polygon::new(outer.into_inner().0, holes).orient(Direction::Default))
        .collect();
    match polygons.len() {
        0 => None,
        1 => polygons.pop().map(Geometry::from),
        _ => Some(MultiPolygon(polygons).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grid: node 10·x + y lies at (x, y) thousandths of a degree.
    fn positions() -> HashMap<i64, Position> {
        (0..100)
            .map(|n| {
                let (x, y) = (n / 10, n % 10);
                (n, Position { longitude: 24.0 + x as f64 * 1e-3, latitude: 60.0 + y as f64 * 1e-3 })
            })
            .collect()
    }

    fn relation(members: &[(i64, &str)]) -> Relation {
        let ways = members.iter().map(|(id, role)| (*id, (*role).to_owned())).collect();
        Relation { id: 1, ways, tags: Tags::new() }
    }

    #[test]
    fn rings_are_joined_from_pieces_and_holes_are_cut_out() {
        let ways = HashMap::from([
            (1, vec![0, 50, 55]),
            (2, vec![0, 5, 55]),
            (3, vec![11, 14, 44, 41, 11]),
            (4, vec![60, 65, 95, 90, 60]),
        ]);
        let two = relation(&[(1, "outer"), (2, "outer"), (3, "inner"), (4, "")]);
        let Some(Geometry::MultiPolygon(found)) = multipolygon(&two, &ways, &positions()) else {
            panic!("a multipolygon is expected")
        };
        assert_eq!(found.0.iter().map(|polygon| polygon.interiors().len()).collect::<Vec<_>>(), [1, 0]);
        assert!((found.unsigned_area() - (25.0 - 9.0 + 15.0) * 1e-6).abs() < 1e-12);
        assert!(found.0[0].signed_area() > 0.0, "outer rings run counterclockwise");
        let open = relation(&[(1, "outer")]);
        assert_eq!(multipolygon(&open, &ways, &positions()), None);
        assert_eq!(multipolygon(&relation(&[(9, "outer")]), &ways, &positions()), None);
    }

    #[test]
    fn addresses_and_numbers() {
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let all = tags(&[
            ("addr:street", "Mannerheimintie"),
            ("addr:housenumber", "1"),
            ("addr:city", "Helsinki"),
            ("building:levels", "5"),
            ("height", "18 m"),
        ]);
        let made = building("way/1".into(), &all, Point::new(0.0, 0.0).into());
        assert_eq!(made.address.as_deref(), Some("Mannerheimintie 1, Helsinki"));
        assert_eq!((made.levels, made.height_m), (Some(5.0), Some(18.0)));
        assert_eq!(address(&tags(&[("addr:city", "Helsinki")])), None);
    }
}
