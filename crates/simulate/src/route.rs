//! The operator `route`: the shortest way on the road graph for each pair of nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, ParameterSpec, Parameters, Progress, Result, Snapshot,
    TableShape,
};

use crate::columns::Table;
use crate::parameters::flag;
use crate::routing::asked::{hour, read_nodes, weight_column};
use crate::routing::hierarchy::Weighted;
use crate::routing::labels::distances;
use crate::routing::roads::{Roads, in_units};
use crate::transit::journeys;

/// Shortest ways by customizable contraction hierarchies, exact: the same as Dijkstra's.
///
/// Takes `links`, `demand` (a row a pair, with an hour if wanted) and, if given, `nodes` and `link_times`; gives `routes` (a
/// row a pair, in the same order) and, with `paths = true`, `paths` (a row a link of each way). Weights are rounded to
/// thousandths of their unit. The horizon and the seed change nothing.
pub struct Route;

/// The tables of roads that `route`, `isochrone` and `accessibility` take.
pub(crate) fn road_tables() -> Vec<TableShape> {
    vec![
        TableShape {
            role: "links",
            description: "The directed road graph, a row a link.",
            columns: vec![
                ("link_id", "Int64", "names the link"),
                ("from_node", "Int64", "where it begins"),
                ("to_node", "Int64", "where it ends"),
                ("free_flow_time_s", "Float64", "seconds; or another column that the parameter weight names"),
                ("length_m", "Float64", "metres; only for length_m of the result; may be left out"),
                ("closed", "Boolean", "true: nobody may use it; null or no column: open"),
            ],
        },
        TableShape {
            role: "nodes",
            description: "Optional. Without it the ends of the links are the nodes, all open to through traffic.",
            columns: vec![
                ("node_id", "Int64", "names the node"),
                ("through", "Boolean", "false: ways may begin and end there, but not pass; null: true"),
                ("longitude", "Float64", "degrees; with it a better order of contraction is found"),
                ("latitude", "Float64", "degrees"),
            ],
        },
        TableShape {
            role: "link_times",
            description: "Optional. Links that take another time in an hour than 'links' says.",
            columns: vec![
                ("link_id", "Int64", "the link"),
                ("hour", "Int64", "the hour, or any other number of a period"),
                ("travel_time_s", "Float64", "seconds"),
            ],
        },
    ]
}

/// The parameters of roads that `route`, `isochrone` and `accessibility` take.
pub(crate) fn road_parameters() -> Vec<ParameterSpec> {
    vec![
        ParameterSpec {
            name: "weight",
            description: "the column of 'links' that a way has least of",
            unit: "",
            default: json!("free_flow_time_s"),
        },
        ParameterSpec {
            name: "hour",
            description: "the hour of 'link_times' to use; null: the weights of 'links'",
            unit: "",
            default: Value::Null,
        },
    ]
}

impl Operator for Route {
    fn describe(&self) -> OperatorSpec {
        let mut inputs = road_tables();
        inputs.push(TableShape {
            role: "demand",
            description: "The pairs to find ways for. In the mode transit: origin and destination are stops or stations \
                          (Utf8), or origin_longitude, origin_latitude, destination_longitude, destination_latitude \
                          (Float64, degrees) are places; departure_s (seconds after midnight) may be left out.",
            columns: vec![
                ("origin", "Int64", "node where the way begins"),
                ("destination", "Int64", "node where it ends"),
                ("hour", "Int64", "the hour of 'link_times'; null or no column: the parameter hour"),
            ],
        });
        let mut parameters = road_parameters();
        parameters.push(ParameterSpec {
            name: "paths",
            description: "whether to give the links of each way, too",
            unit: "",
            default: json!(false),
        });
        parameters.extend(journeys::transit_parameters());
        inputs.extend(journeys::timetable_tables());
        OperatorSpec {
            name: "route",
            version: "1",
            description: "The shortest way from node to node on the road graph, by travel time or another weight, in \
                          the hour and the scenario; in the mode transit the journey on foot and by public transport \
                          that arrives first.",
            source: "Customizable contraction hierarchies: Dibbelt, Strasser, Wagner (2016), ACM Journal of \
                     Experimental Algorithmics 21, 1.5; order: inertial flow (Schild, Sommer 2015) by place, else \
                     minimum degree (Tinney, Walker 1967); transit: RAPTOR (Delling, Pajor, Werneck 2015), \
                     Transportation Science 49, 591-604",
            inputs,
            outputs: vec![
                TableShape {
                    role: "routes",
                    description: "A row a pair, in the order of 'demand'.",
                    columns: vec![
                        ("origin", "Int64", "node where the way begins"),
                        ("destination", "Int64", "node where it ends"),
                        ("hour", "Int64", "the hour; null: the weights of 'links'"),
                        (
                            "cost",
                            "Float64",
                            "sum of the weight, in its unit (seconds for times); null: no way",
                        ),
                        (
                            "length_m",
                            "Float64",
                            "metres; null without paths = true or lengths, or when there is no way",
                        ),
                        ("links", "Int64", "how many; null without paths = true, or when there is no way"),
                    ],
                },
                TableShape {
                    role: "paths",
                    description: "A row a link of each way; empty without paths = true.",
                    columns: vec![
                        ("row", "Int64", "which row of 'routes', from 1"),
                        ("sequence", "Int64", "which link of the way, from 1"),
                        ("link_id", "Int64", "the link"),
                        ("from_node", "Int64", "where it begins"),
                        ("to_node", "Int64", "where it ends"),
                        ("cost", "Float64", "the weight from the origin to its end"),
                    ],
                },
                TableShape {
                    role: "journeys",
                    description: "Mode transit: a row a pair, in the order of 'demand'.",
                    columns: vec![
                        ("origin", "Utf8", "stop, or longitude and latitude"),
                        ("destination", "Utf8", "stop, or longitude and latitude"),
                        ("departure_s", "Int64", "seconds after midnight"),
                        ("arrival_s", "Int64", "earliest, seconds after midnight; null: no journey"),
                        ("duration_s", "Int64", "seconds; null: no journey"),
                        ("rides", "Int64", "fewest that arrive then; null: no journey"),
                    ],
                },
                TableShape {
                    role: "legs",
                    description: "Mode transit: a row a walk or ride of each journey.",
                    columns: vec![
                        ("row", "Int64", "which row of 'journeys', from 1"),
                        ("sequence", "Int64", "which leg, from 1"),
                        ("kind", "Utf8", "'walk' or 'ride'"),
                        ("from_stop", "Utf8", "null: the origin"),
                        ("to_stop", "Utf8", "null: the destination"),
                        ("trip_id", "Utf8", "null: on foot"),
                        ("route_id", "Utf8", "null: on foot"),
                        ("departure_s", "Int64", "seconds after midnight"),
                        (
                            "arrival_s",
                            "Int64",
                            "seconds after midnight; of a walk to change: with the time to change",
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
        if journeys::wants_transit(&parameters)? {
            return journeys::route(city, &parameters, progress);
        }
        let roads = Roads::read(city, &weight_column(&parameters)?)?;
        let wants_paths = flag(&parameters, "paths")?;
        let pairs = read_pairs(city.table("demand")?, &roads, hour(&parameters)?)?;
        let mut by_hour: BTreeMap<Option<i64>, Vec<usize>> = BTreeMap::new();
        pairs.iter().enumerate().for_each(|(row, pair)| by_hour.entry(pair.hour).or_default().push(row));
        let mut costs = vec![None; pairs.len()];
        let mut ways: Vec<Option<Way>> = vec![None; pairs.len()];
        let hierarchy = roads.hierarchy();
        for (done, (hour, rows)) in by_hour.iter().enumerate() {
            if !progress(done as f64 / by_hour.len() as f64, "routing") {
                return Err(Error::config("the run was stopped"));
            }
            let weights = roads.arc_weights(*hour);
            let weighted = hierarchy.customize(&weights);
            let ends: Vec<(u32, u32)> =
                rows.iter().map(|row| (roads.start(pairs[*row].origin), pairs[*row].destination)).collect();
            for (row, cost) in rows.iter().zip(distances(&weighted, &ends)) {
                // Either half of a node that may not be passed is the node itself.
                let same = pairs[*row].origin == pairs[*row].destination;
                costs[*row] = in_units(if same { 0 } else { cost });
            }
            if wants_paths {
                let found: Vec<Vec<(usize, Option<Way>)>> = rows
                    .par_chunks(CHUNK)
                    .map(|rows| find_ways(&roads, &weighted, &weights, rows, &pairs))
                    .collect();
                found.into_iter().flatten().for_each(|(row, way)| ways[row] = way);
            }
        }
        report(&roads, &pairs, &costs, &ways, by_hour.len(), hierarchy.size())
    }
}

/// So many pairs are one piece of work.
const CHUNK: usize = 1024;

struct Pair {
    origin: u32,
    destination: u32,
    hour: Option<i64>,
}

/// The rows of the links of a way, and the weight from its origin to the end of each.
#[derive(Clone)]
struct Way {
    rows: Vec<u32>,
    costs: Vec<f64>,
}

fn read_pairs(batch: &RecordBatch, roads: &Roads, hour: Option<i64>) -> Result<Vec<Pair>> {
    let table = Table::new("demand", batch);
    let hours = if table.has("hour") { table.numbers("hour")? } else { vec![None; batch.num_rows()] };
    let ends = read_nodes("demand", batch, "origin", roads)?.into_iter().zip(read_nodes(
        "demand",
        batch,
        "destination",
        roads,
    )?);
    Ok(ends
        .zip(hours)
        .map(|((origin, destination), of_row)| Pair {
            origin,
            destination,
            hour: of_row.map(|hour| hour as i64).or(hour),
        })
        .collect())
}

fn find_ways(
    roads: &Roads,
    weighted: &Weighted,
    weights: &[u32],
    rows: &[usize],
    pairs: &[Pair],
) -> Vec<(usize, Option<Way>)> {
    let ends: Vec<(u32, u32)> =
        rows.iter().map(|row| (roads.start(pairs[*row].origin), pairs[*row].destination)).collect();
    let paths = weighted.paths(&ends);
    let way = |nodes: Vec<u32>| {
        let arcs = roads.arcs_along(&nodes, weights);
        let mut sum = 0_u32;
        let costs = arcs.iter().map(|(_, weight)| {
            sum = sum.saturating_add(*weight);
            in_units(sum).unwrap_or(f64::NAN)
        });
        let costs = costs.collect();
        Way { rows: arcs.into_iter().map(|(row, _)| row).collect(), costs }
    };
    rows.iter()
        .zip(paths)
        .map(|(row, nodes)| {
            let same = pairs[*row].origin == pairs[*row].destination;
            (*row, if same { Some(way(Vec::new())) } else { nodes.map(way) })
        })
        .collect()
}

fn report(
    roads: &Roads,
    pairs: &[Pair],
    costs: &[Option<f64>],
    ways: &[Option<Way>],
    hours: usize,
    shortcuts: usize,
) -> Result<Outcome> {
    let ids = |node: fn(&Pair) -> u32| -> ArrayRef {
        Arc::new(pairs.iter().map(|pair| Some(roads.node_id(node(pair)))).collect::<Int64Array>())
    };
    let length = |way: &Way| -> Option<f64> {
        let sum: f64 = way.rows.iter().map(|row| roads.length_m(*row)).sum();
        sum.is_finite().then_some(sum)
    };
    let lengths: Float64Array = ways.iter().map(|way| way.as_ref().and_then(length)).collect();
    let counts: Int64Array = ways.iter().map(|way| way.as_ref().map(|way| way.rows.len() as i64)).collect();
    let routes = RecordBatch::try_from_iter_with_nullable([
        ("origin", ids(|pair| pair.origin), false),
        ("destination", ids(|pair| pair.destination), false),
        ("hour", Arc::new(pairs.iter().map(|pair| pair.hour).collect::<Int64Array>()) as ArrayRef, true),
        ("cost", Arc::new(costs.iter().copied().collect::<Float64Array>()), true),
        ("length_m", Arc::new(lengths), true),
        ("links", Arc::new(counts), true),
    ])?;
    let steps = || {
        ways.iter().enumerate().flat_map(|(at, way)| {
            way.iter().flat_map(move |way| {
                way.rows
                    .iter()
                    .zip(&way.costs)
                    .enumerate()
                    .map(move |(step, (row, cost))| (at, step, *row, *cost))
            })
        })
    };
    let integers = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let paths = RecordBatch::try_from_iter_with_nullable([
        ("row", integers(steps().map(|step| step.0 as i64 + 1).collect()), false),
        ("sequence", integers(steps().map(|step| step.1 as i64 + 1).collect()), false),
        ("link_id", integers(steps().map(|step| roads.link_id(step.2)).collect()), false),
        ("from_node", integers(steps().map(|step| roads.ends(step.2).0).collect()), false),
        ("to_node", integers(steps().map(|step| roads.ends(step.2).1).collect()), false),
        ("cost", Arc::new(steps().map(|step| Some(step.3)).collect::<Float64Array>()) as ArrayRef, false),
    ])?;
    let reached = costs.iter().filter(|cost| cost.is_some()).count();
    let summary = [
        ("pairs", json!(pairs.len())),
        ("reached", json!(reached)),
        ("unreached", json!(pairs.len() - reached)),
        ("hours", json!(hours)),
        ("nodes", json!(roads.nodes().len())),
        ("arcs_with_shortcuts", json!(shortcuts)),
        ("closed_links", json!(roads.closed_links())),
    ];
    Ok(Outcome {
        tables: BTreeMap::from([("routes".to_owned(), routes), ("paths".to_owned(), paths)]),
        summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
    })
}
