//! The operator `accessibility`: how much of what people need is within reach of each place.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use rayon::prelude::*;
use serde_json::json;
use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, ParameterSpec, Parameters, Progress, Result, Snapshot,
    TableShape,
};

use crate::columns::Table;
use crate::parameters::number;
use crate::route::{road_parameters, road_tables};
use crate::routing::asked::{hour, limits, read_nodes, weight_column};
use crate::routing::hierarchy::{INFINITE, Weighted};
use crate::routing::roads::{Roads, in_units};
use crate::routing::sweep::{LANES, Sweep};

/// Origins whose sums a thread adds to at once.
const ROWS_A_TASK: usize = 512;

/// Opportunities within limits of cost of each node, and the cost of the nearest, exact.
///
/// Takes `links`, `opportunities` and, if given, `origins` (without it: all nodes), `nodes` and `link_times`; gives
/// `accessibility`, a row an origin and limit.
pub struct Accessibility;

impl Operator for Accessibility {
    fn describe(&self) -> OperatorSpec {
        let parameter = |name, description, unit, default| ParameterSpec { name, description, unit, default };
        let mut inputs = road_tables();
        inputs.push(TableShape {
            role: "opportunities",
            description: "What people want to reach: jobs, schools, shops.",
            columns: vec![
                ("node_id", "Int64", "the node where it is"),
                ("amount", "Float64", "how much of it; null or no column: 1"),
            ],
        });
        inputs.push(TableShape {
            role: "origins",
            description: "Optional. For which nodes to compute; without it for all.",
            columns: vec![("node_id", "Int64", "the node")],
        });
        let mut parameters = road_parameters();
        parameters.push(parameter(
            "limits",
            "the costs within which to count, ascending",
            "unit of weight",
            json!([900]),
        ));
        parameters.push(parameter(
            "decay",
            "beta of the gravity measure, sum of amount exp(-beta cost) over what is within the limit; 0 counts all alike",
            "1 / unit of weight",
            json!(0.0),
        ));
        OperatorSpec {
            name: "accessibility",
            version: "1",
            description: "For each node: the opportunities within limits of travel time (or another weight), weighted \
                          by distance if wanted, and the cost of the nearest one.",
            source: "Cumulative opportunities and gravity measure: Hansen (1959), Journal of the American Institute of \
                     Planners 25, 73-76; distances: Delling, Goldberg, Nowatzyk, Werneck (2013) on customizable \
                     contraction hierarchies: Dibbelt, Strasser, Wagner (2016)",
            inputs,
            outputs: vec![TableShape {
                role: "accessibility",
                description: "A row an origin and limit, in the order of 'origins', else by node.",
                columns: vec![
                    ("node_id", "Int64", "the origin"),
                    ("limit", "Float64", "the limit"),
                    ("amount", "Float64", "what is within it, weighted by distance if decay is not 0"),
                    ("count", "Int64", "rows of 'opportunities' within it"),
                    (
                        "nearest_cost",
                        "Float64",
                        "of the nearest one, within the limit or not; null: none can be reached",
                    ),
                ],
            }],
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
        let roads = Roads::read(city, &weight_column(&parameters)?)?;
        let limits = limits(&parameters["limits"])?;
        let decay = number(&parameters, "decay", "a number, not negative", |decay| decay >= 0.0)?;
        let opportunities = read_opportunities(city.table("opportunities")?, &roads)?;
        let origins: Vec<u32> = match city.tables.get("origins") {
            Some(batch) => read_nodes("origins", batch, "node_id", &roads)?,
            None => (0..roads.nodes().len() as u32).collect(),
        };
        if !progress(0.0, "customizing") {
            return Err(Error::config("the run was stopped"));
        }
        let weighted = roads.weighted(hour(&parameters)?);
        let measure = Measure { limits: &limits, decay };
        // As many sweeps as there are ends on the smaller side.
        let rows = if opportunities.len() < origins.len() {
            towards_opportunities(&roads, &weighted, &opportunities, &origins, measure, progress)?
        } else {
            from_origins(&roads, &weighted, &opportunities, &origins, measure)
        };
        report(&roads, &origins, &rows, &limits)
    }
}

/// How what is reached counts.
#[derive(Clone, Copy)]
struct Measure<'a> {
    limits: &'a [f64],
    decay: f64,
}

/// What one origin reaches: amount and count by limit, and the cost of the nearest.
struct Reach {
    within: Vec<(f64, i64)>,
    nearest: u32,
}

impl Reach {
    fn nothing(measure: Measure<'_>) -> Self {
        Self { within: vec![(0.0, 0); measure.limits.len()], nearest: INFINITE }
    }

    /// One opportunity more, so far away.
    fn add(&mut self, amount: f64, thousandths: u32, measure: Measure<'_>) {
        self.nearest = self.nearest.min(thousandths);
        let Some(cost) = in_units(thousandths) else { return };
        let first = measure.limits.partition_point(|limit| *limit < cost);
        let Some(held) = self.within.get_mut(first..).filter(|held| !held.is_empty()) else { return };
        let weighted = if measure.decay > 0.0 { amount * (-measure.decay * cost).exp() } else { amount };
        // The limits ascend: from the first that holds it, all do.
        for slot in held {
            slot.0 += weighted;
            slot.1 += 1;
        }
    }
}

/// Sweeps from the origins.
fn from_origins(
    roads: &Roads,
    weighted: &Weighted,
    opportunities: &[(u32, f64)],
    origins: &[u32],
    measure: Measure<'_>,
) -> Vec<Reach> {
    // A sweep's memory is as large as the graph: one a thread.
    let piece = origins.len().div_ceil(rayon::current_num_threads()).next_multiple_of(LANES).max(LANES);
    let rows = origins.par_chunks(piece).flat_map_iter(|origins| {
        let mut sweep = Sweep::new(weighted);
        let mut rows = Vec::with_capacity(origins.len());
        for origins in origins.chunks(LANES) {
            let starts: Vec<u32> = origins.iter().map(|node| roads.start(*node)).collect();
            sweep.run(&starts, false);
            for (lane, origin) in origins.iter().enumerate() {
                let mut row = Reach::nothing(measure);
                for (node, amount) in opportunities {
                    let cost = if node == origin { 0 } else { sweep.distance(*node, lane) };
                    row.add(*amount, cost, measure);
                }
                rows.push(row);
            }
        }
        rows
    });
    rows.collect()
}

/// Sweeps towards the opportunities. Each origin meets them in the same order as above, so that sums are the same to the last bit.
fn towards_opportunities(
    roads: &Roads,
    weighted: &Weighted,
    opportunities: &[(u32, f64)],
    origins: &[u32],
    measure: Measure<'_>,
    progress: Progress<'_>,
) -> Result<Vec<Reach>> {
    let starts: Vec<u32> = origins.iter().map(|node| roads.start(*node)).collect();
    let mut rows: Vec<Reach> = origins.iter().map(|_| Reach::nothing(measure)).collect();
    let mut sweeps: Vec<Sweep<'_>> =
        (0..rayon::current_num_threads()).map(|_| Sweep::new(weighted)).collect();
    let a_round = LANES * sweeps.len();
    for (at, round) in opportunities.chunks(a_round).enumerate() {
        if !progress((at * a_round) as f64 / opportunities.len() as f64, "sweeping") {
            return Err(Error::config("the run was stopped"));
        }
        sweeps.par_iter_mut().zip(round.par_chunks(LANES)).for_each(|(sweep, part)| {
            let ends: Vec<u32> = part.iter().map(|(node, _)| *node).collect();
            sweep.run(&ends, true);
        });
        rows.par_iter_mut().zip(origins).zip(&starts).with_min_len(ROWS_A_TASK).for_each(
            |((row, origin), start)| {
                for (sweep, part) in sweeps.iter().zip(round.chunks(LANES)) {
                    for (lane, (node, amount)) in part.iter().enumerate() {
                        let cost = if node == origin { 0 } else { sweep.distance(*start, lane) };
                        row.add(*amount, cost, measure);
                    }
                }
            },
        );
    }
    Ok(rows)
}

fn read_opportunities(batch: &RecordBatch, roads: &Roads) -> Result<Vec<(u32, f64)>> {
    let table = Table::new("opportunities", batch);
    let nodes = read_nodes("opportunities", batch, "node_id", roads)?;
    let amounts = if table.has("amount") { table.numbers("amount")? } else { vec![None; batch.num_rows()] };
    nodes
        .into_iter()
        .zip(amounts)
        .enumerate()
        .map(|(row, (node, amount))| match amount.unwrap_or(1.0) {
            amount if amount.is_finite() => Ok((node, amount)),
            amount => Err(Error::config(format!("row {} of 'opportunities' has amount {amount}", row + 1))),
        })
        .collect()
}

fn report(roads: &Roads, origins: &[u32], rows: &[Reach], limits: &[f64]) -> Result<Outcome> {
    let each = || {
        origins.iter().zip(rows).flat_map(|(origin, row)| (0..limits.len()).map(move |at| (origin, row, at)))
    };
    let table = RecordBatch::try_from_iter_with_nullable([
        (
            "node_id",
            Arc::new(each().map(|(origin, ..)| Some(roads.node_id(*origin))).collect::<Int64Array>())
                as ArrayRef,
            false,
        ),
        ("limit", Arc::new(each().map(|(.., at)| Some(limits[at])).collect::<Float64Array>()), false),
        (
            "amount",
            Arc::new(each().map(|(_, row, at)| Some(row.within[at].0)).collect::<Float64Array>()),
            false,
        ),
        ("count", Arc::new(each().map(|(_, row, at)| Some(row.within[at].1)).collect::<Int64Array>()), false),
        (
            "nearest_cost",
            Arc::new(each().map(|(_, row, _)| in_units(row.nearest)).collect::<Float64Array>()),
            true,
        ),
    ])?;
    let summary = [("origins", json!(origins.len())), ("limits", json!(limits))];
    Ok(Outcome {
        tables: BTreeMap::from([("accessibility".to_owned(), table)]),
        summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}
