//! The tables and figures of the outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Map, Value, json};
use twinlake_contracts::{Outcome, Result};

use super::Settings;
use super::assignment::Assignment;
use super::classes::UserClass;
use super::cost::{LinkCost, Principle};
use super::elastic::ElasticPair;
use super::input::Links;
use super::network::Network;
use super::shortest_path::ShortestPaths;

/// What was asked.
pub(super) struct Case<'a> {
    pub(super) settings: &'a Settings,
    pub(super) links: &'a Links,
    pub(super) classes: &'a [UserClass],
    /// Vehicles.
    pub(super) intrazonal: f64,
}

fn integers(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn numbers(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn optional(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

impl Case<'_> {
    fn names_classes(&self) -> bool {
        self.classes.iter().any(|class| class.name.is_some())
    }

    /// Flows of the network's links by row of the table.
    fn by_row(&self, network: &Network, flow: &[f64]) -> Vec<f64> {
        let mut rows = vec![0.0; self.links.rows()];
        for (link, &at) in flow.iter().enumerate() {
            if let Some(row) = network.row(link) {
                rows[row] = at;
            }
        }
        rows
    }

    /// Time by row at a flow in passenger-car equivalents; none where closed.
    fn times(&self, flow: &[f64]) -> Vec<Option<f64>> {
        let links = self.links;
        (0..links.rows())
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
            .collect()
    }

    /// The column that names classes, if there are any.
    fn class_column(&self, of_rows: impl Iterator<Item = usize>) -> Option<(&'static str, ArrayRef, bool)> {
        let names = of_rows.map(|class| self.classes[class].name.clone());
        self.names_classes().then(|| ("class", Arc::new(names.collect::<StringArray>()) as ArrayRef, true))
    }
}

/// `pairs` are those of elastic demand.
pub(super) fn report(
    case: &Case<'_>,
    network: &Network,
    assignment: &Assignment,
    pairs: Option<&[ElasticPair]>,
) -> Result<Outcome> {
    let (links, classes) = (case.links, case.classes);
    let equivalents = case.by_row(network, &assignment.flow);
    let time = case.times(&equivalents);
    let of_class: Vec<Vec<f64>> = classes
        .iter()
        .zip(&assignment.class_flow)
        .map(|(class, flow)| {
            let mut vehicles = case.by_row(network, flow);
            for flow in &mut vehicles {
                *flow /= class.pce;
            }
            vehicles
        })
        .collect();
    let flow: Vec<f64> =
        (0..links.rows()).map(|row| of_class.iter().map(|of_class| of_class[row]).sum()).collect();
    let cost_of = |class: &UserClass| -> Vec<Option<f64>> {
        let cost = |(row, time): (usize, &Option<f64>)| {
            time.map(|time| time + Settings::surcharge(class, links, row))
        };
        time.iter().enumerate().map(cost).collect()
    };
    let weights = UserClass::everybody(case.settings.toll_weight, case.settings.distance_weight);
    let ratio: Vec<Option<f64>> = (0..links.rows())
        .map(|row| {
            (!links.closed[row] && links.capacity[row] > 0.0).then(|| equivalents[row] / links.capacity[row])
        })
        .collect();
    let total = |each: &[Option<f64>], flow: &[f64]| -> f64 {
        each.iter().zip(flow).fold(0.0, |sum, (each, flow)| sum + each.unwrap_or(0.0) * flow)
    };
    let vehicles = |class: usize, equivalents: f64| equivalents / classes[class].pce;
    let unassigned = assignment.unassigned.iter().fold(0.0, |sum, pair| sum + vehicles(pair.0, pair.3));
    let generalized: f64 =
        classes.iter().zip(&of_class).map(|(class, flow)| total(&cost_of(class), flow)).sum();
    let mut assigned: f64 = assignment
        .assigned
        .iter()
        .enumerate()
        .map(|(class, equivalents)| vehicles(class, *equivalents))
        .sum();

    let mut tables = BTreeMap::new();
    let mut further: Vec<(&str, Value)> = Vec::new();
    if let Some(pairs) = pairs {
        let (table, made) = demand_table(case, network, assignment, pairs)?;
        tables.insert("demand".to_owned(), table);
        further.push(("demand_forgone", json!(assigned - made)));
        assigned = made;
    }
    let summary: [(&str, Value); 14] = [
        ("objective", json!(assignment.objective)),
        ("relative_gap", json!(assignment.relative_gap)),
        ("iterations", json!(assignment.iterations)),
        ("converged", json!(assignment.converged)),
        ("equilibrium", json!(case.settings.principle.name())),
        ("total_system_travel_time", json!(total(&time, &flow))),
        ("total_generalized_cost", json!(generalized)),
        ("demand_assigned", json!(assigned)),
        ("demand_unassigned", json!(unassigned)),
        ("demand_intrazonal", json!(case.intrazonal)),
        ("unassigned_pairs", json!(assignment.unassigned.len())),
        ("conservation_residual", json!(assignment.conservation_residual)),
        ("links", json!(links.rows())),
        ("closed_links", json!(links.closed.iter().filter(|closed| **closed).count())),
    ];

    if case.names_classes() {
        tables.insert("class_links".to_owned(), class_table(case, &of_class, cost_of)?);
    }
    let link_table = RecordBatch::try_from_iter_with_nullable([
        ("link_id", integers(links.link_id.clone()), false),
        ("from_node", integers(links.from_node.clone()), false),
        ("to_node", integers(links.to_node.clone()), false),
        ("flow_vph", numbers(flow), false),
        ("cost_s", optional(cost_of(&weights)), true),
        ("travel_time_s", optional(time), true),
        ("volume_capacity_ratio", optional(ratio), true),
        ("closed", Arc::new(BooleanArray::from(links.closed.clone())), false),
    ])?;
    tables.insert("links".to_owned(), link_table);
    let none = &assignment.unassigned;
    let mut columns = vec![
        ("origin", integers(none.iter().map(|pair| network.node_id(pair.1)).collect()), false),
        ("destination", integers(none.iter().map(|pair| network.node_id(pair.2)).collect()), false),
        ("flow_vph", numbers(none.iter().map(|pair| vehicles(pair.0, pair.3)).collect()), false),
    ];
    columns.extend(case.class_column(none.iter().map(|pair| pair.0)));
    tables.insert("unassigned".to_owned(), RecordBatch::try_from_iter_with_nullable(columns)?);
    let summary = summary.into_iter().chain(further);
    Ok(Outcome {
        tables,
        summary: summary.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
    })
}

/// A row a class and link.
fn class_table(
    case: &Case<'_>,
    of_class: &[Vec<f64>],
    cost_of: impl Fn(&UserClass) -> Vec<Option<f64>>,
) -> Result<RecordBatch> {
    let rows = case.links.rows();
    let mut columns: Vec<(&str, ArrayRef, bool)> = case
        .class_column((0..of_class.len()).flat_map(|class| std::iter::repeat_n(class, rows)))
        .into_iter()
        .collect();
    columns.extend([
        ("link_id", integers(case.links.link_id.repeat(of_class.len())), false),
        ("flow_vph", numbers(of_class.concat()), false),
        ("cost_s", optional(case.classes.iter().flat_map(cost_of).collect()), true),
    ]);
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// What each pair of elastic demand costs, and how many of its trips are made; also the vehicles of all.
fn demand_table(
    case: &Case<'_>,
    network: &Network,
    assignment: &Assignment,
    pairs: &[ElasticPair],
) -> Result<(RecordBatch, f64)> {
    let mut paths = ShortestPaths::new(network);
    let mut searched = None;
    let (mut made, mut forgone, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    for pair in pairs {
        if searched != Some((pair.class, pair.origin)) {
            paths.run(network, pair.origin, &assignment.class_cost[pair.class]);
            searched = Some((pair.class, pair.origin));
        }
        let pce = case.classes[pair.class].pce;
        let excess = pair.excess_link.map_or(0.0, |link| assignment.flow[link as usize]).min(pair.most);
        made.push((pair.most - excess) / pce);
        forgone.push(excess / pce);
        cost.push(paths.cost[pair.destination as usize]);
    }
    let all = made.iter().sum();
    let mut columns = vec![
        ("origin", integers(pairs.iter().map(|pair| network.node_id(pair.origin)).collect()), false),
        (
            "destination",
            integers(pairs.iter().map(|pair| network.node_id(pair.destination)).collect()),
            false,
        ),
        ("flow_vph", numbers(made), false),
        ("forgone_vph", numbers(forgone), false),
        ("cost_s", numbers(cost), false),
    ];
    columns.extend(case.class_column(pairs.iter().map(|pair| pair.class)));
    Ok((RecordBatch::try_from_iter_with_nullable(columns)?, all))
}
