//! The operator `traffic_assignment`: which way everybody drives when nobody can gain by another way.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch};
use serde_json::{Map, Value, json};
use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, ParameterSpec, Parameters, Progress, Result, Snapshot,
    TableShape,
};

use crate::assignment::{Assignment, Limits, assign};
use crate::cost::{LinkCost, Principle};
use crate::input::{BprDefaults, Demand, Links, read_nodes};
use crate::network::Network;

/// Static traffic assignment with BPR link costs by Algorithm B (Dial 2006).
///
/// Takes `links`, `demand` and, if given, `nodes`; gives `links` (a row for each row taken, in the same order) and
/// `unassigned` (the demand that has no path). Times and costs are in the unit of `free_flow_time_s`, whatever that is
/// in the input: seconds, or the file's own unit for TNTP files. Static: horizon and seed change nothing.
pub struct TrafficAssignment;

impl Operator for TrafficAssignment {
    fn describe(&self) -> OperatorSpec {
        let parameter = |name, description, unit, default| ParameterSpec { name, description, unit, default };
        OperatorSpec {
            name: "traffic_assignment",
            version: "1",
            description: "Static traffic assignment: link flows at which no trip can lower its cost by another \
                          route (user equilibrium), or at which the total cost is least (system optimum). Link \
                          travel time is t = t0 (1 + b (v/k)^p); generalized cost adds weighted toll and length.",
            source: "Equilibrium: Wardrop (1952); objective: Beckmann, McGuire, Winsten (1956), sum over links of \
                     the integral of cost from 0 to v; link time: Bureau of Public Roads (1964); method: Dial \
                     (2006), Algorithm B, Transportation Research Part B 40(10), 917-936",
            inputs: vec![
                TableShape {
                    role: "links",
                    description: "The directed road graph, a row a link.",
                    columns: vec![
                        ("link_id", "Int64", "names the link, unique"),
                        ("from_node", "Int64", "where it begins"),
                        ("to_node", "Int64", "where it ends"),
                        ("capacity_vph", "Float64", "k, vehicles an hour"),
                        ("length_m", "Float64", "metres"),
                        ("free_flow_time_s", "Float64", "t0, seconds (or the file's own unit)"),
                        ("b", "Float64", "b, a pure number; without the column the parameter b"),
                        ("power", "Float64", "p, a pure number; without the column the parameter power"),
                        (
                            "toll",
                            "Float64",
                            "in the unit that toll_weight expects; null or no column: no toll",
                        ),
                        ("closed", "Boolean", "true: nobody may use it; null or no column: open"),
                    ],
                },
                TableShape {
                    role: "demand",
                    description: "Trips, a row a pair of nodes; rows of the same pair are added up.",
                    columns: vec![
                        ("origin", "Int64", "node where the trips begin"),
                        ("destination", "Int64", "node where they end"),
                        ("flow_vph", "Float64", "vehicles an hour"),
                    ],
                },
                TableShape {
                    role: "nodes",
                    description: "Optional. Without it the ends of the links are the nodes, all open to through \
                                  traffic.",
                    columns: vec![
                        ("node_id", "Int64", "names the node, unique"),
                        (
                            "through",
                            "Boolean",
                            "false: trips may begin and end there, but not pass; null: true",
                        ),
                    ],
                },
            ],
            outputs: vec![
                TableShape {
                    role: "links",
                    description: "A row for each link taken, in the same order.",
                    columns: vec![
                        ("link_id", "Int64", "the link"),
                        ("from_node", "Int64", "where it begins"),
                        ("to_node", "Int64", "where it ends"),
                        ("flow_vph", "Float64", "v, vehicles an hour; 0 where closed"),
                        ("cost_s", "Float64", "generalized cost at v, in the unit of t0; null where closed"),
                        ("travel_time_s", "Float64", "t at v, in the unit of t0; null where closed"),
                        ("volume_capacity_ratio", "Float64", "v/k; null where closed or where k is 0"),
                        ("closed", "Boolean", "whether it was closed"),
                    ],
                },
                TableShape {
                    role: "unassigned",
                    description: "Trips that no path of open links joins; a row a pair, empty when there is none.",
                    columns: vec![
                        ("origin", "Int64", "node where the trips begin"),
                        ("destination", "Int64", "node where they end"),
                        ("flow_vph", "Float64", "vehicles an hour"),
                    ],
                },
            ],
            parameters: vec![
                parameter(
                    "relative_gap",
                    "stop when (sum of v c(v) - sum of trips at their cheapest route) / sum of v c(v) is not above it",
                    "",
                    json!(1e-6),
                ),
                parameter(
                    "max_iterations",
                    "stop after so many iterations, converged or not",
                    "",
                    json!(1000),
                ),
                parameter(
                    "toll_weight",
                    "weight of the toll in the generalized cost",
                    "t0 unit per toll unit",
                    json!(0.0),
                ),
                parameter(
                    "distance_weight",
                    "weight of length_m in the generalized cost",
                    "t0 unit per length unit",
                    json!(0.0),
                ),
                parameter(
                    "objective",
                    "'user_equilibrium' or 'system_optimum'",
                    "",
                    json!(Principle::UserEquilibrium.name()),
                ),
                parameter("b", "b of links in a table without a column b", "", json!(0.15)),
                parameter("power", "p of links in a table without a column power", "", json!(4.0)),
            ],
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
        let settings = Settings::read(&self.describe().resolve(parameters)?)?;
        let links = Links::read(city.table("links")?, settings.defaults)?;
        let nodes = city.tables.get("nodes").map(read_nodes).transpose()?;
        let network = Network::new(&links, nodes)?;
        let demand = Demand::read(city.table("demand")?, &network)?;
        let functions = settings.cost_functions(&links, &network, demand.total())?;
        let intrazonal = demand.intrazonal;
        let assignment = assign(&network, demand, functions, settings.limits, progress)?;
        report(&settings, &links, &network, &assignment, intrazonal)
    }
}

/// The parameters, checked.
struct Settings {
    limits: Limits,
    toll_weight: f64,
    distance_weight: f64,
    principle: Principle,
    defaults: BprDefaults,
}

impl Settings {
    fn read(parameters: &Parameters) -> Result<Self> {
        let not_negative =
            |name: &str| number(parameters, name, "a number, not negative", |value| value >= 0.0);
        let gap = number(parameters, "relative_gap", "a number above 0 and below 1", |v| v > 0.0 && v < 1.0)?;
        let iterations = number(parameters, "max_iterations", "a whole number from 1 to 1000000", |value| {
            value.fract() == 0.0 && (1.0..=1e6).contains(&value)
        })?;
        let principle = match &parameters["objective"] {
            Value::String(name) if name == Principle::UserEquilibrium.name() => Principle::UserEquilibrium,
            Value::String(name) if name == Principle::SystemOptimum.name() => Principle::SystemOptimum,
            other => {
                return Err(Error::config(format!("parameter objective = {other} is unknown"))
                    .with_help("write 'user_equilibrium' or 'system_optimum'"));
            }
        };
        Ok(Self {
            limits: Limits { relative_gap: gap, iterations: iterations as u64 },
            toll_weight: number(parameters, "toll_weight", "a finite number", |_| true)?,
            distance_weight: number(parameters, "distance_weight", "a finite number", |_| true)?,
            principle,
            defaults: BprDefaults { b: not_negative("b")?, power: not_negative("power")? },
        })
    }

    /// What a link costs beside its travel time.
    fn surcharge(&self, links: &Links, row: usize) -> f64 {
        self.toll_weight * links.toll[row] + self.distance_weight * links.length[row]
    }

    /// The cost functions by link of the network. A cost that is negative, or that is beyond all numbers if all trips
    /// took every link, is refused, so that no sum of costs met later can be.
    fn cost_functions(&self, links: &Links, network: &Network, trips: f64) -> Result<Vec<LinkCost>> {
        let mut most = 0.0;
        (0..network.links())
            .map(|link| {
                let row = network.row(link);
                let fixed = links.free_flow_time[row] + self.surcharge(links, row);
                if fixed < 0.0 {
                    return Err(Error::config(format!(
                        "{} has the negative cost {fixed} at free flow, with its toll and length weighted",
                        links.name(row)
                    )));
                }
                let cost = LinkCost::new(
                    fixed,
                    links.congestion(row),
                    links.capacity[row],
                    links.power[row],
                    self.principle,
                );
                let full = cost.at(trips);
                most += full.cost.max(full.cost * trips);
                if !most.is_finite() || (trips > 0.0 && !full.slope.is_finite()) {
                    return Err(Error::config(format!(
                        "{} has a cost too large to compute with if all {trips} trips take it",
                        links.name(row)
                    ))
                    .with_help("look at its free_flow_time_s, capacity_vph, b and power"));
                }
                Ok(cost)
            })
            .collect()
    }
}

impl Principle {
    fn name(self) -> &'static str {
        match self {
            Self::UserEquilibrium => "user_equilibrium",
            Self::SystemOptimum => "system_optimum",
        }
    }
}

/// A number given as a number or, as command lines do, as text.
fn number(parameters: &Parameters, name: &str, wanted: &str, allowed: impl Fn(f64) -> bool) -> Result<f64> {
    let value = &parameters[name];
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number: &f64| number.is_finite() && allowed(*number))
        .ok_or_else(|| Error::config(format!("parameter {name} = {value} must be {wanted}")))
}

/// The tables and figures of the outcome.
fn report(
    settings: &Settings,
    links: &Links,
    network: &Network,
    assignment: &Assignment,
    intrazonal: f64,
) -> Result<Outcome> {
    let mut flow = vec![0.0; links.rows()];
    for (link, &at) in assignment.flow.iter().enumerate() {
        flow[network.row(link)] = at;
    }
    let time: Vec<Option<f64>> = (0..links.rows())
        .map(|row| {
            let function = LinkCost::new(
                links.free_flow_time[row],
                links.congestion(row),
                links.capacity[row],
                links.power[row],
                Principle::UserEquilibrium,
            );
            (!links.closed[row]).then(|| function.at(flow[row]).cost)
        })
        .collect();
    let cost: Vec<Option<f64>> = time
        .iter()
        .enumerate()
        .map(|(row, time)| time.map(|time| time + settings.surcharge(links, row)))
        .collect();
    let ratio: Vec<Option<f64>> = (0..links.rows())
        .map(|row| (!links.closed[row] && links.capacity[row] > 0.0).then(|| flow[row] / links.capacity[row]))
        .collect();
    let total = |each: &[Option<f64>]| -> f64 {
        each.iter().zip(&flow).fold(0.0, |sum, (each, flow)| sum + each.unwrap_or(0.0) * flow)
    };
    let unassigned: f64 = assignment.unassigned.iter().fold(0.0, |sum, (_, _, flow)| sum + flow);
    let summary: [(&str, Value); 14] = [
        ("objective", json!(assignment.objective)),
        ("relative_gap", json!(assignment.relative_gap)),
        ("iterations", json!(assignment.iterations)),
        ("converged", json!(assignment.converged)),
        ("equilibrium", json!(settings.principle.name())),
        ("total_system_travel_time", json!(total(&time))),
        ("total_generalized_cost", json!(total(&cost))),
        ("demand_assigned", json!(assignment.assigned)),
        ("demand_unassigned", json!(unassigned)),
        ("demand_intrazonal", json!(intrazonal)),
        ("unassigned_pairs", json!(assignment.unassigned.len())),
        ("conservation_residual", json!(assignment.conservation_residual)),
        ("links", json!(links.rows())),
        ("closed_links", json!(links.closed.iter().filter(|closed| **closed).count())),
    ];

    let integers = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let link_table = RecordBatch::try_from_iter_with_nullable([
        ("link_id", integers(links.link_id.clone()), false),
        ("from_node", integers(links.from_node.clone()), false),
        ("to_node", integers(links.to_node.clone()), false),
        ("flow_vph", Arc::new(Float64Array::from(flow)) as ArrayRef, false),
        ("cost_s", Arc::new(Float64Array::from(cost)), true),
        ("travel_time_s", Arc::new(Float64Array::from(time)), true),
        ("volume_capacity_ratio", Arc::new(Float64Array::from(ratio)), true),
        ("closed", Arc::new(BooleanArray::from(links.closed.clone())), false),
    ])?;
    let pairs = &assignment.unassigned;
    let unassigned_table = RecordBatch::try_from_iter_with_nullable([
        ("origin", integers(pairs.iter().map(|pair| network.node_id(pair.0)).collect()), false),
        ("destination", integers(pairs.iter().map(|pair| network.node_id(pair.1)).collect()), false),
        ("flow_vph", Arc::new(pairs.iter().map(|pair| pair.2).collect::<Float64Array>()) as ArrayRef, false),
    ])?;
    Ok(Outcome {
        tables: BTreeMap::from([
            ("links".to_owned(), link_table),
            ("unassigned".to_owned(), unassigned_table),
        ]),
        summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
    })
}

#[cfg(test)]
mod published_optima;
#[cfg(test)]
mod tests;
