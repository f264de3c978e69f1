//! The operator `isochrone`: what can be reached from a place, and how quickly.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use serde_json::json;
use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, ParameterSpec, Parameters, Progress, Result, Snapshot,
    TableShape,
};

use crate::parameters::flag;
use crate::route::{road_parameters, road_tables};
use crate::routing::asked::{hour, limits, read_nodes, weight_column};
use crate::routing::roads::{Roads, in_units};
use crate::routing::sweep::{LANES, Sweep};
use crate::transit::journeys;

/// Nodes and parts of links within limits of cost from origins, exact.
///
/// Takes `links`, `origins` and, if given, `nodes` and `link_times`; gives `nodes` (a row an origin and node within the
/// largest limit) and `links` (a row an origin and link of which some part is within it).
pub struct Isochrone;

impl Operator for Isochrone {
    fn describe(&self) -> OperatorSpec {
        let parameter = |name, description, unit, default| ParameterSpec { name, description, unit, default };
        let mut inputs = road_tables();
        inputs.push(TableShape {
            role: "origins",
            description: "Where to start, a row a node. In the mode transit: stop_id (Utf8), or longitude and latitude \
                          (Float64, degrees), and departure_s if wanted.",
            columns: vec![("node_id", "Int64", "the node")],
        });
        let mut parameters = road_parameters();
        parameters.push(parameter(
            "limits",
            "the costs that bound the bands, ascending; a node's band is the least limit that it is within",
            "unit of weight",
            json!([300, 600, 900]),
        ));
        parameters.push(parameter(
            "towards",
            "whether to measure ways to the origins instead of from them",
            "",
            json!(false),
        ));
        parameters.extend(journeys::transit_parameters());
        inputs.extend(journeys::timetable_tables());
        OperatorSpec {
            name: "isochrone",
            version: "1",
            description: "Which nodes, and which parts of links, lie within limits of travel time (or another weight) \
                          of each origin.",
            source: "PHAST: Delling, Goldberg, Nowatzyk, Werneck (2013), Journal of Parallel and Distributed \
                     Computing 73, 940-952, on customizable contraction hierarchies: Dibbelt, Strasser, Wagner (2016); transit: RAPTOR (Delling, \
                     Pajor, Werneck 2015)",
            inputs,
            outputs: vec![
                TableShape {
                    role: "nodes",
                    description: "A row an origin and node within the largest limit, by cost.",
                    columns: vec![
                        ("origin", "Int64", "the origin"),
                        ("node_id", "Int64", "the node"),
                        ("cost", "Float64", "least weight of a way between them"),
                        ("band", "Float64", "the least limit not below the cost"),
                    ],
                },
                TableShape {
                    role: "links",
                    description: "A row an origin and link of which some part is within the largest limit.",
                    columns: vec![
                        ("origin", "Int64", "the origin"),
                        ("link_id", "Int64", "the link"),
                        (
                            "share",
                            "Float64",
                            "how much of it is within the largest limit, from its near end: 0 to 1",
                        ),
                    ],
                },
            ],
            parameters,
        }
    }

    fn run(
        &self,
        city: &Snapshot,
        _horizon: Horizon,
        _seed: u64,
        parameters: &Parameters,
        progress: Progress<'_>,
    ) -> Result<Outcome> {
        let parameters = self.describe().resolve(parameters)?;
        let limits = limits(&parameters["limits"])?;
        if journeys::wants_transit(&parameters)? {
            return journeys::isochrone(city, &parameters, &limits);
        }
        let roads = Roads::read(city, &weight_column(&parameters)?)?;
        let towards = flag(&parameters, "towards")?;
        let origins = read_nodes("origins", city.table("origins")?, "node_id", &roads)?;
        let weights = roads.arc_weights(hour(&parameters)?);
        let weighted = roads.hierarchy().customize(&weights);
        let most = limits.last().copied().unwrap_or(0.0);
        let mut found = Found::default();
        let mut sweep = Sweep::new(&weighted);
        for (at, origins) in origins.chunks(LANES).enumerate() {
            if !progress((at * LANES) as f64 / origins.len() as f64, "sweeping") {
                return Err(Error::config("the run was stopped"));
            }
            let starts: Vec<u32> =
                origins.iter().map(|node| if towards { *node } else { roads.start(*node) }).collect();
            sweep.run(&starts, towards);
            for (lane, origin) in origins.iter().enumerate() {
                let cost = |node: u32| in_units(sweep.distance(node, lane)).filter(|cost| *cost <= most);
                let origin_id = roads.node_id(*origin);
                let mut nodes: Vec<(f64, i64)> = (0..roads.nodes().len() as u32)
                    .filter_map(|node| {
                        let cost = if node == *origin {
                            Some(0.0)
                        } else {
                            cost(if towards { roads.start(node) } else { node })
                        };
                        cost.map(|cost| (cost, roads.node_id(node)))
                    })
                    .collect();
                nodes.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
                for (cost, node) in nodes {
                    found.node(origin_id, node, cost, &limits);
                }
                for ((tail, head, row), weight) in roads.arcs().zip(&weights) {
                    // The near end is where the way comes in: the tail, or the head when ways lead to the origin.
                    if let (Some(near), Some(weight)) =
                        (cost(if towards { head } else { tail }), in_units(*weight))
                    {
                        let share = if weight > 0.0 { ((most - near) / weight).min(1.0) } else { 1.0 };
                        if share > 0.0 {
                            found.link(origin_id, roads.link_id(row), share);
                        }
                    }
                }
            }
        }
        let summary = [
            ("origins", json!(origins.len())),
            ("nodes_within", json!(found.node_id.len())),
            ("links_within", json!(found.link_id.len())),
            ("largest_limit", json!(most)),
        ];
        Ok(Outcome {
            tables: found.tables()?,
            summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}

#[derive(Default)]
struct Found {
    node_origin: Vec<i64>,
    node_id: Vec<i64>,
    cost: Vec<f64>,
    band: Vec<f64>,
    link_origin: Vec<i64>,
    link_id: Vec<i64>,
    share: Vec<f64>,
}

impl Found {
    fn node(&mut self, origin: i64, node: i64, cost: f64, limits: &[f64]) {
        self.node_origin.push(origin);
        self.node_id.push(node);
        self.cost.push(cost);
        self.band.push(limits.iter().copied().find(|limit| cost <= *limit).unwrap_or(f64::NAN));
    }

    fn link(&mut self, origin: i64, link: i64, share: f64) {
        self.link_origin.push(origin);
        self.link_id.push(link);
        self.share.push(share);
    }

    fn tables(self) -> Result<BTreeMap<String, RecordBatch>> {
        let integers = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let numbers = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
        let nodes = RecordBatch::try_from_iter([
            ("origin", integers(self.node_origin)),
            ("node_id", integers(self.node_id)),
            ("cost", numbers(self.cost)),
            ("band", numbers(self.band)),
        ])?;
        let links = RecordBatch::try_from_iter([
            ("origin", integers(self.link_origin)),
            ("link_id", integers(self.link_id)),
            ("share", numbers(self.share)),
        ])?;
        Ok(BTreeMap::from([("nodes".to_owned(), nodes), ("links".to_owned(), links)]))
    }
}
