//! Who wants to travel where: a production-constrained gravity model with exponential deterrence.
//!
//! A. G. Wilson, "A statistical theory of spatial distribution models", Transportation Research 1(3), 253–269, 1967.
//!
//! ```text
//! T_ij = O_i · W_j · exp(−β · c_ij) / Σ_{k ≠ i} W_k · exp(−β · c_ik)      for j ≠ i, T_ii = 0
//! O_i  = T · W_i / Σ_k W_k
//! ```
//!
//! | symbol | meaning | unit |
//! |---|---|---|
//! | T | all trips (`demand_trips_vph`) | veh/h |
//! | T_ij, O_i | trips from zone i to zone j, from zone i | veh/h |
//! | W_i | mass of zone i: floor area of its buildings, and `demand_node_floor_area_m2` for each of its road nodes | m² |
//! | β | deterrence (`demand_deterrence_per_min`) | 1/min |
//! | c_ij | shortest travel time on the empty network between the zones' nodes | min |
//!
//! **Zones** are H3 cells of resolution `demand_zone_resolution` that hold at least one road node of the largest
//! strongly connected component: from such a node every other one can be reached, so every trip has a way on the
//! network as it is. A zone's trips start and end at its road node nearest to the cell's centre.
//!
//! **Floor area** of a building is its footprint (m² on the sphere, Chamberlain & Duquette 2007) times its levels;
//! where the map has no levels, height divided by `demand_storey_height_m`; where it has no height either,
//! `demand_default_levels`. A building belongs to the zone of the road node nearest to its centroid, if that is not
//! farther than 500 m.
//!
//! It is a stated assumption, not a survey: it knows no time of day, no through traffic from outside the map, and
//! counts all trips as cars. What it is good for is a comparison: the same demand on two networks.
//!
//! The same input gives the same bytes: zones are taken in the order of their cells, rows are sorted by origin and
//! destination, sums run in that order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BinaryBuilder, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use geo::{Centroid, ChamberlainDuquetteArea, Geometry, Point};
use h3o::{CellIndex, LatLng, Resolution};
use serde_json::{Map, Value, json};
use twinlake_contracts::{Error, ParameterSpec, Parameters, Result};
use twinlake_spatial::{NearestIndex, decode, encode};

use crate::columns::{bytes, integers, no_null, numbers};
use crate::road_graph::RoadGraph;

/// Changes whenever the same input may give another demand.
pub const VERSION: &str = "1";

/// How far from its road node a building may be.
const BUILDING_WITHIN_M: f64 = 500.0;

/// The parameters of the demand model, as `simulate` takes them.
pub fn parameters() -> Vec<ParameterSpec> {
    let spec = |name, description, unit, default| ParameterSpec { name, description, unit, default };
    vec![
        spec(
            "demand_trips_vph",
            "All trips of the modelled hour: T. The default is about 5 car trips per 1000 m2 of floor in central Helsinki.",
            "veh/h",
            json!(9000.0),
        ),
        spec(
            "demand_deterrence_per_min",
            "How fast trips get rarer with travel time: β.",
            "1/min",
            json!(0.1),
        ),
        spec("demand_zone_resolution", "Resolution of the H3 cells that are zones, 5 to 12.", "", json!(10)),
        spec(
            "demand_default_levels",
            "Levels of a building that the map gives neither levels nor height.",
            "",
            json!(4.0),
        ),
        spec("demand_storey_height_m", "Height of one level, to get levels from a height.", "m", json!(3.3)),
        spec(
            "demand_node_floor_area_m2",
            "Mass of a road node itself, so that a place whose buildings the map lacks still has trips.",
            "m2",
            json!(500.0),
        ),
    ]
}

/// A demand, and the figures that tell whether to believe it.
#[derive(Debug, Clone)]
pub struct Demand {
    /// Columns `origin` Int64, `destination` Int64 (node identifiers), `flow_vph` Float64; sorted, no row is zero.
    pub table: RecordBatch,
    /// Zones, nodes, buildings counted and left out, floor area, trips.
    pub summary: Map<String, Value>,
}

struct Gravity {
    trips_vph: f64,
    deterrence_per_min: f64,
    zone_resolution: Resolution,
    default_levels: f64,
    storey_height_m: f64,
    node_floor_area_m2: f64,
}

impl Gravity {
    fn new(given: &Parameters) -> Result<Self> {
        let number = |name: &'static str, low: f64, high: f64| -> Result<f64> {
            let default = || parameters().into_iter().find(|spec| spec.name == name).map(|spec| spec.default);
            let value = given.get(name).cloned().or_else(default).unwrap_or(Value::Null);
            value.as_f64().filter(|number| *number >= low && *number <= high).ok_or_else(|| {
                Error::config(format!("{name} = {value} is not possible"))
                    .with_help(format!("give a number from {low} to {high}"))
            })
        };
        let resolution = number("demand_zone_resolution", 5.0, 12.0)?;
        let zone_resolution = Resolution::try_from(resolution as u8)
            .ok()
            .filter(|_| resolution.fract() == 0.0)
            .ok_or_else(|| Error::config("demand_zone_resolution must be a whole number from 5 to 12"))?;
        Ok(Self {
            trips_vph: number("demand_trips_vph", 0.0, 1e9)?,
            deterrence_per_min: number("demand_deterrence_per_min", 0.0, 100.0)?,
            zone_resolution,
            default_levels: number("demand_default_levels", 0.0, 200.0)?,
            storey_height_m: number("demand_storey_height_m", 1.0, 20.0)?,
            node_floor_area_m2: number("demand_node_floor_area_m2", 0.0, 1e9)?,
        })
    }
}

/// A zone while it is put together.
struct Zone {
    mass_m2: f64,
    /// The road node nearest to the cell's centre, and how far that is in metres.
    node: usize,
    node_distance_m: f64,
}

/// Makes the demand. `nodes` has `node_id`, `geom` (points in longitude and latitude); `links` has `from_node`,
/// `to_node`, `travel_time_s`; `buildings` has `geom`, `levels`, `height_m`. `given` are checked parameters of
/// [`parameters`]; others are ignored.
pub fn gravity(
    nodes: &RecordBatch,
    links: &RecordBatch,
    buildings: &RecordBatch,
    given: &Parameters,
) -> Result<Demand> {
    let model = Gravity::new(given)?;
    let graph = graph_of(links)?;
    let component = graph.largest_strong_component();
    let places = places_of(nodes)?;
    // A node of the component without a place on the map can be driven through but is in no zone.
    let placed: Vec<(usize, LatLng)> = component
        .iter()
        .filter_map(|node| places.get(&graph.ids[*node]).map(|place| (*node, *place)))
        .collect();
    let mut zones: BTreeMap<CellIndex, Zone> = BTreeMap::new();
    for (node, place) in &placed {
        let cell = place.to_cell(model.zone_resolution);
        let distance = place.distance_m(LatLng::from(cell));
        let zone =
            zones.entry(cell).or_insert(Zone { mass_m2: 0.0, node: *node, node_distance_m: f64::INFINITY });
        zone.mass_m2 += model.node_floor_area_m2;
        if distance < zone.node_distance_m {
            (zone.node, zone.node_distance_m) = (*node, distance);
        }
    }
    let counted = add_buildings(&model, buildings, &placed, &mut zones)?;
    let zones: Vec<Zone> = zones.into_values().collect();
    let (table, trips) = distribute(&model, &graph, &zones)?;
    let mut summary = Map::new();
    summary.insert("demand_trips_vph".into(), json!(trips));
    summary.insert("demand_pairs".into(), json!(table.num_rows()));
    summary.insert("demand_zones".into(), json!(zones.len()));
    summary.insert("demand_nodes_connected".into(), json!(component.len()));
    summary.insert("demand_nodes_left_out".into(), json!(graph.ids.len() - component.len()));
    summary.insert("demand_buildings".into(), json!(counted.buildings));
    summary.insert("demand_buildings_left_out".into(), json!(counted.left_out));
    summary.insert("demand_floor_area_m2".into(), json!(counted.floor_area_m2));
    Ok(Demand { table, summary })
}

fn graph_of(links: &RecordBatch) -> Result<RoadGraph> {
    let from = no_null(integers(links, "demand links", "from_node")?, "demand links", "from_node")?;
    let to = no_null(integers(links, "demand links", "to_node")?, "demand links", "to_node")?;
    let time = no_null(numbers(links, "demand links", "travel_time_s")?, "demand links", "travel_time_s")?;
    let links: Vec<(i64, i64, f64)> =
        (0..links.num_rows()).map(|row| (from.value(row), to.value(row), time.value(row))).collect();
    match links.iter().find(|link| !(link.2.is_finite() && link.2 >= 0.0)) {
        None => Ok(RoadGraph::new(&links)),
        Some((from, to, time)) => {
            Err(Error::data("out_of_range", format!("the link {from} → {to} has a travel time of {time} s")))
        }
    }
}

fn places_of(nodes: &RecordBatch) -> Result<BTreeMap<i64, LatLng>> {
    let ids = no_null(integers(nodes, "demand nodes", "node_id")?, "demand nodes", "node_id")?;
    let geometries = bytes(nodes, "demand nodes", "geom")?;
    let mut places = BTreeMap::new();
    for row in (0..nodes.num_rows()).filter(|row| geometries.is_valid(*row)) {
        if let Geometry::Point(point) = decode(geometries.value(row))? {
            let place = LatLng::new(point.y(), point.x()).map_err(|error| {
                Error::data("invalid_geometry", format!("node {}: {error}", ids.value(row)))
            })?;
            places.insert(ids.value(row), place);
        }
    }
    Ok(places)
}

#[derive(Default)]
struct Counted {
    buildings: usize,
    left_out: usize,
    floor_area_m2: f64,
}

fn add_buildings(
    model: &Gravity,
    buildings: &RecordBatch,
    placed: &[(usize, LatLng)],
    zones: &mut BTreeMap<CellIndex, Zone>,
) -> Result<Counted> {
    let mut points = BinaryBuilder::new();
    for (_, place) in placed {
        points.append_value(encode(&Point::new(place.lng(), place.lat()).into()));
    }
    let index = NearestIndex::build(&points.finish())?;
    let geometries = bytes(buildings, "demand buildings", "geom")?;
    let levels = numbers(buildings, "demand buildings", "levels")?;
    let heights = numbers(buildings, "demand buildings", "height_m")?;
    let positive =
        |array: &Float64Array, row: usize| array.is_valid(row).then(|| array.value(row)).filter(|v| *v > 0.0);
    let mut counted = Counted::default();
    for row in 0..buildings.num_rows() {
        let geometry = geometries.is_valid(row).then(|| decode(geometries.value(row))).transpose()?;
        let near = geometry.as_ref().and_then(|geometry| {
            let centre = geometry.centroid()?;
            index.nearest(centre.x(), centre.y(), BUILDING_WITHIN_M)
        });
        let (Some(geometry), Some(near)) = (geometry, near) else {
            counted.left_out += 1;
            continue;
        };
        let storeys = positive(&levels, row)
            .or_else(|| positive(&heights, row).map(|height| (height / model.storey_height_m).max(1.0)))
            .unwrap_or(model.default_levels);
        let floor_area = geometry.chamberlain_duquette_unsigned_area() * storeys;
        counted.buildings += 1;
        counted.floor_area_m2 += floor_area;
        if let Some(zone) = zones.get_mut(&placed[near.row].1.to_cell(model.zone_resolution)) {
            zone.mass_m2 += floor_area;
        }
    }
    Ok(counted)
}

/// The trips between all zones, sorted by origin and destination node, and their sum.
fn distribute(model: &Gravity, graph: &RoadGraph, zones: &[Zone]) -> Result<(RecordBatch, f64)> {
    let all_mass: f64 = zones.iter().map(|zone| zone.mass_m2).sum();
    let mut rows: Vec<(i64, i64, f64)> = Vec::new();
    for (i, origin) in zones.iter().enumerate() {
        let times = graph.shortest_times(origin.node);
        // Measured from the nearest zone: the quotient is the same, and a strong deterrence cannot make all of it 0.
        let nearest = zones
            .iter()
            .enumerate()
            .filter(|(j, _)| *j != i)
            .map(|(_, zone)| times[zone.node])
            .fold(f64::INFINITY, f64::min);
        let pull: Vec<f64> = zones
            .iter()
            .enumerate()
            .map(|(j, zone)| {
                let minutes = (times[zone.node] - nearest) / 60.0;
                if j == i { 0.0 } else { zone.mass_m2 * (-model.deterrence_per_min * minutes).exp() }
            })
            .collect();
        let all_pull: f64 = pull.iter().sum();
        let trips = model.trips_vph * origin.mass_m2 / all_mass;
        if all_pull > 0.0 && trips > 0.0 {
            rows.extend(zones.iter().zip(&pull).filter_map(|(zone, pull)| {
                let flow = trips * pull / all_pull;
                (flow > 0.0).then(|| (graph.ids[origin.node], graph.ids[zone.node], flow))
            }));
        }
    }
    rows.sort_by_key(|row| (row.0, row.1));
    let trips = rows.iter().map(|row| row.2).sum();
    let schema = Schema::new(vec![
        Field::new("origin", DataType::Int64, false),
        Field::new("destination", DataType::Int64, false),
        Field::new("flow_vph", DataType::Float64, false),
    ]);
    let table = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        ],
    )?;
    Ok((table, trips))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, BinaryArray};
    use geo::polygon;

    /// Five places in a row, 400 m apart, joined in both directions; the sixth can be entered but not left.
    fn town() -> (RecordBatch, RecordBatch) {
        let east = 0.0072;
        let ids: Vec<i64> = (1..=6).collect();
        let points: BinaryArray =
            ids.iter().map(|id| Some(encode(&Point::new(24.9 + east * *id as f64, 60.17).into()))).collect();
        let nodes = RecordBatch::try_from_iter([
            ("node_id", Arc::new(Int64Array::from(ids)) as ArrayRef),
            ("geom", Arc::new(points) as ArrayRef),
        ])
        .unwrap();
        let mut links: Vec<(i64, i64)> =
            (1..5).flat_map(|node| [(node, node + 1), (node + 1, node)]).collect();
        links.push((5, 6));
        let links = RecordBatch::try_from_iter([
            ("from_node", Arc::new(links.iter().map(|l| l.0).collect::<Int64Array>()) as ArrayRef),
            ("to_node", Arc::new(links.iter().map(|l| l.1).collect::<Int64Array>()) as ArrayRef),
            ("travel_time_s", Arc::new(Float64Array::from(vec![60.0; links.len()])) as ArrayRef),
        ])
        .unwrap();
        (nodes, links)
    }

    fn buildings(rows: &[(f64, Option<f64>, Option<f64>)]) -> RecordBatch {
        let side = 0.0005;
        let footprint = |x: f64| -> Geometry {
            polygon![(x: x, y: 60.17), (x: x + side, y: 60.17), (x: x + side, y: 60.17 + side), (x: x, y: 60.17 + side)]
                .into()
        };
        let geometries: BinaryArray = rows.iter().map(|row| Some(encode(&footprint(row.0)))).collect();
        RecordBatch::try_from_iter([
            ("geom", Arc::new(geometries) as ArrayRef),
            ("levels", Arc::new(rows.iter().map(|row| row.1).collect::<Float64Array>()) as ArrayRef),
            ("height_m", Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()) as ArrayRef),
        ])
        .unwrap()
    }

    fn given(pairs: &[(&str, Value)]) -> Parameters {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn flows(demand: &Demand) -> BTreeMap<(i64, i64), f64> {
        let origins = integers(&demand.table, "demand", "origin").unwrap();
        let destinations = integers(&demand.table, "demand", "destination").unwrap();
        let flows = numbers(&demand.table, "demand", "flow_vph").unwrap();
        (0..demand.table.num_rows())
            .map(|row| ((origins.value(row), destinations.value(row)), flows.value(row)))
            .collect()
    }

    #[test]
    fn all_trips_are_distributed_and_none_to_where_no_way_leads_back() {
        let (nodes, links) = town();
        let demand =
            gravity(&nodes, &links, &buildings(&[]), &given(&[("demand_trips_vph", json!(1000.0))])).unwrap();
        let flows = flows(&demand);
        assert_eq!(flows.len(), 20);
        assert!((flows.values().sum::<f64>() - 1000.0).abs() < 1e-9);
        assert!(flows.keys().all(|(origin, destination)| *origin < 6 && *destination < 6));
        assert_eq!(demand.summary["demand_nodes_left_out"], json!(1));
    }

    #[test]
    fn agrees_with_the_equation_and_with_no_deterrence_with_mass_alone() {
        let (nodes, links) = town();
        let beta = 0.3;
        let settings =
            given(&[("demand_deterrence_per_min", json!(beta)), ("demand_trips_vph", json!(500.0))]);
        let flows_at = flows(&gravity(&nodes, &links, &buildings(&[]), &settings).unwrap());
        // Equal masses: each zone starts 100 trips; from node 1 the others are 1, 2, 3 and 4 minutes away.
        let all: f64 = (1..5).map(|minutes| (-beta * f64::from(minutes)).exp()).sum();
        for minutes in 1..5 {
            let expected = 100.0 * (-beta * f64::from(minutes)).exp() / all;
            assert!((flows_at[&(1, 1 + i64::from(minutes))] - expected).abs() < 1e-9);
        }
        let none = given(&[("demand_deterrence_per_min", json!(0.0)), ("demand_trips_vph", json!(500.0))]);
        let even = flows(&gravity(&nodes, &links, &buildings(&[]), &none).unwrap());
        assert!(even.values().all(|flow| (flow - 25.0).abs() < 1e-9));
    }

    #[test]
    fn floor_area_is_footprint_times_levels_or_height_or_the_default() {
        let (nodes, links) = town();
        let near = 24.9 + 0.0072;
        let area = |row| {
            let demand = gravity(&nodes, &links, &buildings(&[row]), &Parameters::new()).unwrap();
            demand.summary["demand_floor_area_m2"].as_f64().unwrap()
        };
        let one = area((near, Some(1.0), Some(99.0)));
        // 0.0005° of longitude and latitude at 60.17°: 27.7 m by 55.6 m.
        assert!((one - 1539.0).abs() < 10.0, "{one}");
        assert!((area((near, None, Some(33.0))) / one - 10.0).abs() < 1e-9);
        assert!((area((near, None, None)) / one - 4.0).abs() < 1e-9);
        let far =
            gravity(&nodes, &links, &buildings(&[(25.9, Some(1.0), None)]), &Parameters::new()).unwrap();
        assert_eq!(far.summary["demand_buildings_left_out"], json!(1));
    }

    #[test]
    fn impossible_parameters_are_refused_and_an_empty_map_has_no_demand() {
        let (nodes, links) = town();
        for (name, value) in [
            ("demand_trips_vph", json!(-1.0)),
            ("demand_zone_resolution", json!(10.5)),
            ("demand_storey_height_m", json!("high")),
        ] {
            let shown =
                gravity(&nodes, &links, &buildings(&[]), &given(&[(name, value)])).unwrap_err().to_string();
            assert!(shown.contains(name), "{shown}");
        }
        let empty =
            gravity(&nodes.slice(0, 0), &links.slice(0, 0), &buildings(&[]), &Parameters::new()).unwrap();
        assert_eq!(empty.table.num_rows(), 0);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let (nodes, links) = town();
        let houses = buildings(&[(24.9072, Some(3.0), None), (24.93, None, None)]);
        let make = || gravity(&nodes, &links, &houses, &Parameters::new()).unwrap().table;
        assert_eq!(make(), make());
    }
}
