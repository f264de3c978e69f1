//! Tables and figures of a solved power flow.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Map, Value, json};
use twinlake_contracts::{Outcome, Result};

use super::contingency::{Outage, branch_flows};
use super::dc::DcSolution;
use super::grid::{BusKind, Grid};
use super::limits::{AtLimit, Solution};
use super::newton::{Failure, Held};

/// How messages call a bus.
pub(super) fn bus_name(grid: &Grid, bus: usize) -> String {
    let id = grid.buses[bus].id;
    match &grid.names {
        Some(names) if names.is_valid(bus) => format!("bus {id} ({})", names.value(bus)),
        _ => format!("bus {id}"),
    }
}

fn numbers(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, !name.ends_with("_id"))),
    )?)
}

fn ids(grid: &Grid, buses: impl IntoIterator<Item = usize>) -> Vec<i64> {
    buses.into_iter().map(|bus| grid.buses[bus].id).collect()
}

fn joined(ids: &[i64]) -> Option<String> {
    (!ids.is_empty()).then(|| ids.iter().map(i64::to_string).collect::<Vec<_>>().join(" "))
}

/// What of the network is without supply, for the summary.
fn unsupplied(grid: &Grid, supplied: &[bool]) -> Vec<i64> {
    ids(grid, (0..supplied.len()).filter(|&bus| !supplied[bus] && grid.buses[bus].kind != BusKind::Isolated))
}

fn states(grid: &Grid, supplied: &[bool]) -> ArrayRef {
    texts(grid.buses.iter().zip(supplied).map(|(bus, &supplied)| {
        Some(match (bus.kind, supplied) {
            (BusKind::Isolated, _) => "isolated",
            (_, true) => "supplied",
            (_, false) => "unsupplied",
        })
    }))
}

/// Flows in per unit at both ends, None where nothing flows by definition.
fn branch_table(grid: &Grid, flows: &[Option<[faer::c64; 2]>], with_reactive: bool) -> Result<RecordBatch> {
    let base = grid.base_mva;
    let part = |of: fn(&[faer::c64; 2]) -> f64| {
        numbers(flows.iter().map(|flow| flow.as_ref().map(|f| of(f) * base)))
    };
    let reactive = |of: fn(&[faer::c64; 2]) -> f64| {
        if with_reactive { part(of) } else { numbers(flows.iter().map(|_| None)) }
    };
    let loading = grid.branches.iter().zip(flows).map(|(branch, flow)| {
        let [from, to] = (*flow)?;
        Some(from.norm().max(to.norm()) / branch.rating? * 100.0)
    });
    table(vec![
        ("branch_id", integers(grid.branches.iter().map(|branch| branch.id))),
        ("from_bus", integers(grid.branches.iter().map(|branch| grid.buses[branch.from].id))),
        ("to_bus", integers(grid.branches.iter().map(|branch| grid.buses[branch.to].id))),
        ("p_from_mw", part(|[from, _]| from.re)),
        ("q_from_mvar", reactive(|[from, _]| from.im)),
        ("p_to_mw", part(|[_, to]| to.re)),
        ("q_to_mvar", reactive(|[_, to]| to.im)),
        ("loss_mw", part(|[from, to]| from.re + to.re)),
        ("loading_percent", numbers(loading)),
    ])
}

/// Active power of each generator: the first at a slack takes what the others leave.
fn active_power(grid: &Grid, supplied: &[bool], injections: &dyn Fn(usize) -> f64) -> Vec<Option<f64>> {
    let mut power: Vec<Option<f64>> = grid
        .generators
        .iter()
        .map(|generator| (generator.in_service && supplied[generator.bus]).then_some(generator.p))
        .collect();
    for (row, bus) in grid.buses.iter().enumerate() {
        if bus.kind == BusKind::Slack
            && let Some((&first, others)) = bus.generators.split_first()
        {
            let others = others.iter().fold(0.0, |sum, &other| sum + grid.generators[other].p);
            power[first] = Some(injections(row) + bus.demand.re - others);
        }
    }
    power
}

/// Reactive power of each generator: shared at a bus by their ranges, equally where a range is infinite or none.
fn reactive_power(grid: &Grid, solution: &Solution) -> Vec<Option<f64>> {
    let mut power: Vec<Option<f64>> = vec![None; grid.generators.len()];
    for (row, bus) in grid.buses.iter().enumerate() {
        if solution.held[row] == Held::Dead {
            continue;
        }
        let given = solution.held[row] == Held::Pq && solution.at_limit[row].is_none();
        let total = solution.injections[row].im + bus.demand.im;
        let (least, most) = grid.reactive_limits(row);
        let range = most - least;
        for &generator in &bus.generators {
            let of = &grid.generators[generator];
            power[generator] = Some(if given {
                of.q
            } else if range.is_finite() && range > 0.0 {
                of.q_min + (total - least) / range * (of.q_max - of.q_min)
            } else {
                total / bus.generators.len() as f64
            });
        }
    }
    power
}

fn generator_table(grid: &Grid, active: Vec<Option<f64>>, reactive: Vec<Option<f64>>) -> Result<RecordBatch> {
    let base = grid.base_mva;
    // What Newton's tolerance leaves is no violation.
    let margin = 1e-7;
    let beyond: BooleanArray = grid
        .generators
        .iter()
        .zip(&reactive)
        .map(|(generator, q)| q.map(|q| q > generator.q_max + margin || q < generator.q_min - margin))
        .collect();
    table(vec![
        ("generator_id", integers(grid.generators.iter().map(|generator| generator.id))),
        ("bus_id", integers(grid.generators.iter().map(|generator| grid.buses[generator.bus].id))),
        ("p_mw", numbers(active.into_iter().map(|p| p.map(|p| p * base)))),
        ("q_mvar", numbers(reactive.into_iter().map(|q| q.map(|q| q * base)))),
        ("q_beyond_limits", Arc::new(beyond)),
    ])
}

/// Tables and summary of the DC approximation.
pub(super) fn dc(grid: &Grid, supplied: &[bool], solution: &DcSolution) -> Result<Outcome> {
    let base = grid.base_mva;
    let only = |values: &[f64], factor: f64| {
        numbers(values.iter().zip(supplied).map(|(value, &on)| on.then_some(value * factor)))
    };
    let nothing = || numbers(supplied.iter().map(|_| None));
    let buses = table(vec![
        ("bus_id", integers(grid.buses.iter().map(|bus| bus.id))),
        ("state", states(grid, supplied)),
        ("kind", kinds(grid, |row| supplied[row].then_some(grid.buses[row].kind))),
        ("vm_pu", nothing()),
        ("va_deg", only(&solution.va, 1.0_f64.to_degrees())),
        ("p_mw", only(&solution.injections, base)),
        ("q_mvar", nothing()),
        ("q_limit", texts::<&str>(supplied.iter().map(|_| None))),
    ])?;
    let flows: Vec<Option<[faer::c64; 2]>> = grid
        .branches
        .iter()
        .zip(&solution.flows)
        .map(|(branch, &flow)| {
            let carries = branch.in_service && supplied[branch.from];
            carries.then(|| [faer::c64::new(flow, 0.0), faer::c64::new(-flow, 0.0)])
        })
        .collect();
    let active = active_power(grid, supplied, &|bus| solution.injections[bus]);
    let reactive = vec![None; grid.generators.len()];
    let summary = [
        ("method", json!("dc")),
        ("converged", json!(true)),
        ("buses", json!(grid.buses.len())),
        ("branches", json!(grid.branches.len())),
        ("generators", json!(grid.generators.len())),
        ("unsupplied_buses", json!(unsupplied(grid, supplied))),
    ];
    Ok(outcome(
        [
            ("buses", buses),
            ("branches", branch_table(grid, &flows, false)?),
            ("generators", generator_table(grid, active, reactive)?),
            ("contingencies", contingency_table(grid, &[])?),
        ],
        summary,
    ))
}

fn kinds(grid: &Grid, solved: impl Fn(usize) -> Option<BusKind>) -> ArrayRef {
    texts((0..grid.buses.len()).map(|row| {
        solved(row).map(|kind| match kind {
            BusKind::Slack => "slack",
            BusKind::Pv => "pv",
            BusKind::Pq => "pq",
            BusKind::Isolated => "isolated",
        })
    }))
}

/// Tables and summary of an AC solution and its outages.
pub(super) fn ac(grid: &Grid, supplied: &[bool], solution: &Solution, outages: &[Outage]) -> Result<Outcome> {
    let base = grid.base_mva;
    let live = |row: usize| solution.held[row] != Held::Dead;
    let only =
        |of: &dyn Fn(usize) -> f64| numbers((0..grid.buses.len()).map(|row| live(row).then(|| of(row))));
    let solved_kind = |row: usize| match solution.held[row] {
        Held::Slack => Some(BusKind::Slack),
        Held::Pv => Some(BusKind::Pv),
        Held::Pq => Some(BusKind::Pq),
        Held::Dead => None,
    };
    let at_limit = solution.at_limit.iter().map(|limit| {
        limit.map(|limit| match limit {
            AtLimit::Most => "max",
            AtLimit::Least => "min",
        })
    });
    let buses = table(vec![
        ("bus_id", integers(grid.buses.iter().map(|bus| bus.id))),
        ("state", states(grid, supplied)),
        ("kind", kinds(grid, solved_kind)),
        ("vm_pu", only(&|row| solution.voltages.vm[row])),
        ("va_deg", only(&|row| solution.voltages.va[row].to_degrees())),
        ("p_mw", only(&|row| solution.injections[row].re * base)),
        ("q_mvar", only(&|row| solution.injections[row].im * base)),
        ("q_limit", texts(at_limit)),
    ])?;
    let flows: Vec<Option<[faer::c64; 2]>> = (0..grid.branches.len())
        .map(|row| {
            let branch = &grid.branches[row];
            (branch.in_service && live(branch.from)).then(|| branch_flows(grid, row, &solution.voltages))
        })
        .collect();
    let losses = flows.iter().flatten().fold(0.0, |sum, [from, to]| sum + from.re + to.re) * base;
    let lowest = (0..grid.buses.len())
        .filter(|&row| live(row))
        .min_by(|&a, &b| solution.voltages.vm[a].total_cmp(&solution.voltages.vm[b]));
    let active = active_power(grid, supplied, &|bus| solution.injections[bus].re);
    let reactive = reactive_power(grid, solution);
    let at_limits = ids(grid, (0..grid.buses.len()).filter(|&bus| solution.at_limit[bus].is_some()));
    let failed = |outage: &&Outage| outage.result.is_err();
    let summary = [
        ("method", json!("newton")),
        ("converged", json!(solution.unsettled.is_empty())),
        ("iterations", json!(solution.fit.iterations)),
        ("mismatch_pu", json!(solution.fit.mismatch)),
        ("buses", json!(grid.buses.len())),
        ("branches", json!(grid.branches.len())),
        ("generators", json!(grid.generators.len())),
        ("loss_mw", json!(losses)),
        ("vm_min_pu", json!(lowest.map(|row| solution.voltages.vm[row]))),
        ("vm_min_bus", json!(lowest.map(|row| grid.buses[row].id))),
        ("unsupplied_buses", json!(unsupplied(grid, supplied))),
        ("q_limit_rounds", json!(solution.limit_rounds)),
        ("q_limited_buses", json!(at_limits)),
        ("q_limits_unsettled_buses", json!(ids(grid, solution.unsettled.iter().copied()))),
        ("contingencies", json!(outages.len())),
        ("contingencies_not_converged", json!(outages.iter().filter(failed).count())),
        (
            "contingencies_with_islands",
            json!(outages.iter().filter(|outage| !outage.islanded.is_empty()).count()),
        ),
    ];
    Ok(outcome(
        [
            ("buses", buses),
            ("branches", branch_table(grid, &flows, true)?),
            ("generators", generator_table(grid, active, reactive)?),
            ("contingencies", contingency_table(grid, outages)?),
        ],
        summary,
    ))
}

fn contingency_table(grid: &Grid, outages: &[Outage]) -> Result<RecordBatch> {
    let base = grid.base_mva;
    let branch = |row: usize| &grid.branches[row];
    let of = |state: &dyn Fn(&super::contingency::State) -> Option<f64>| {
        numbers(outages.iter().map(|outage| outage.result.as_ref().ok().and_then(state)))
    };
    let id_of = |state: &dyn Fn(&super::contingency::State) -> Option<i64>| -> ArrayRef {
        let ids = outages.iter().map(|outage| outage.result.as_ref().ok().and_then(state));
        Arc::new(ids.collect::<Int64Array>())
    };
    let failures = outages.iter().map(|outage| {
        outage.result.as_ref().err().map(|failure| match failure {
            Failure::Singular { bus } => format!("singular at {}", bus_name(grid, *bus)),
            Failure::NotConverged { bus, mismatch, iterations } => format!(
                "not converged after {iterations} iterations: {:.3e} MVA at {}",
                mismatch * base,
                bus_name(grid, *bus)
            ),
        })
    });
    let converged: BooleanArray = outages.iter().map(|outage| Some(outage.result.is_ok())).collect();
    let overloaded = outages.iter().map(|outage| {
        let state = outage.result.as_ref().ok()?;
        joined(&state.overloaded.iter().map(|&row| branch(row).id).collect::<Vec<_>>())
    });
    table(vec![
        ("branch_id", integers(outages.iter().map(|outage| branch(outage.branch).id))),
        ("from_bus", integers(outages.iter().map(|outage| grid.buses[branch(outage.branch).from].id))),
        ("to_bus", integers(outages.iter().map(|outage| grid.buses[branch(outage.branch).to].id))),
        ("converged", Arc::new(converged)),
        ("iterations", id_of(&|state| Some(i64::from(state.iterations)))),
        (
            "islanded_buses",
            texts(outages.iter().map(|outage| joined(&ids(grid, outage.islanded.iter().copied())))),
        ),
        ("demand_lost_mw", numbers(outages.iter().map(|outage| Some(outage.demand_lost * base)))),
        ("generation_lost_mw", numbers(outages.iter().map(|outage| Some(outage.generation_lost * base)))),
        ("loss_mw", of(&|state| Some(state.losses * base))),
        ("vm_min_pu", of(&|state| Some(state.lowest.1))),
        ("vm_min_bus", id_of(&|state| Some(grid.buses[state.lowest.0].id))),
        ("vm_max_pu", of(&|state| Some(state.highest.1))),
        ("vm_max_bus", id_of(&|state| Some(grid.buses[state.highest.0].id))),
        ("loading_max_percent", of(&|state| state.most_loaded.map(|(_, loading)| loading * 100.0))),
        ("loading_max_branch", id_of(&|state| state.most_loaded.map(|(row, _)| branch(row).id))),
        ("overloaded_branches", texts(overloaded)),
        ("failure", texts(failures)),
    ])
}

fn outcome<const N: usize>(tables: [(&str, RecordBatch); 4], summary: [(&str, Value); N]) -> Outcome {
    Outcome {
        tables: tables.into_iter().map(|(role, table)| (role.to_owned(), table)).collect::<BTreeMap<_, _>>(),
        summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
    }
}
