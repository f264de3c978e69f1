//! The operator `power_flow`: voltages and flows of an electrical network in steady state.

mod contingency;
mod dc;
mod describe;
mod grid;
mod layout;
mod limits;
mod newton;
mod report;

use std::sync::LazyLock;

use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, Parameters, Progress, Result, Snapshot,
};

use crate::parameters::{flag, number, word};
use grid::Grid;
use limits::Task;
use newton::{Failure, Limits, Voltages, Work};

/// AC power flow by Newton's method, DC power flow, and the outage of every branch in turn.
///
/// Takes `buses`, `generators`, `branches` and, if given, `system` (base_mva); gives `buses`, `branches`, `generators`, a
/// row for each row taken in the same order, and `contingencies`. Powers are in MW and Mvar, voltages in per unit of the
/// bus's nominal voltage, angles in degrees, impedances in per unit of base_mva. Balanced three-phase operation at
/// constant frequency; loads are of constant power. Static: horizon and seed change nothing. A network without a
/// solution is an error that names the bus; a bus without way to a slack is in the results without numbers.
pub struct PowerFlow;

/// Made once: small networks are solved in less time than it takes.
static SPEC: LazyLock<OperatorSpec> = LazyLock::new(describe::spec);

impl Operator for PowerFlow {
    fn describe(&self) -> OperatorSpec {
        SPEC.clone()
    }

    fn run(
        &self,
        city: &Snapshot,
        _horizon: Horizon,
        _seed: u64,
        parameters: &Parameters,
        progress: Progress<'_>,
    ) -> Result<Outcome> {
        let settings = Settings::read(&SPEC.resolve(parameters)?)?;
        let grid = Grid::read(city, settings.flat_start)?;
        let symbolic = &grid.layout.symbolic;
        let supplied = grid.supplied(None);
        go_on(progress, 0.1, "network read")?;
        if settings.method == Method::Dc {
            let solution =
                dc::solve(&grid, symbolic, &supplied).map_err(|failure| no_solution(&grid, failure))?;
            return report::dc(&grid, &supplied, &solution);
        }
        let start = Voltages {
            vm: grid.buses.iter().map(|bus| bus.vm).collect(),
            va: grid.buses.iter().map(|bus| bus.va).collect(),
        };
        let task = Task {
            grid: &grid,
            symbolic,
            limits: settings.limits,
            enforce_q_limits: settings.enforce_q_limits,
        };
        let mut work = Work::new(&grid, symbolic);
        let base = task
            .solve(&grid.admittance, &supplied, start, &mut work)
            .map_err(|failure| no_solution(&grid, failure))?;
        go_on(progress, 0.2, "base case solved")?;
        let outages =
            if settings.branch_outages { contingency::all(task, &supplied, &base) } else { Vec::new() };
        report::ac(&grid, &supplied, &base, &outages)
    }
}

fn go_on(progress: Progress<'_>, fraction: f64, word: &str) -> Result<()> {
    if progress(fraction, word) {
        Ok(())
    } else {
        Err(Error::permanent("power_flow", format!("stopped on request at {word}")))
    }
}

/// The error for a network that has no solution.
fn no_solution(grid: &Grid, failure: Failure) -> Error {
    let bus = |bus: usize| report::bus_name(grid, bus);
    match failure {
        Failure::Singular { bus: at } => Error::config(format!(
            "the equations are singular at {}: nothing determines its voltage",
            bus(at)
        ))
        .with_help("look for a bus without load, generator and branch in service, or for impedances of 0"),
        Failure::NotConverged { bus: at, mismatch, iterations } => Error::config(format!(
            "the power flow does not converge: after {iterations} iterations {} misses its power by {:.3e} MVA",
            bus(at),
            mismatch * grid.base_mva
        ))
        .with_help(
            "the load may be more than the network can carry, or the start far off: try flat_start = true, a \
             higher max_iterations, and look at demand, tap ratios and impedances near that bus",
        ),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Newton,
    Dc,
}

/// The parameters, checked.
struct Settings {
    method: Method,
    limits: Limits,
    enforce_q_limits: bool,
    flat_start: bool,
    branch_outages: bool,
}

impl Settings {
    fn read(parameters: &Parameters) -> Result<Self> {
        let method = match word(parameters, "method", &["newton", "dc"])? {
            "dc" => Method::Dc,
            _ => Method::Newton,
        };
        let tolerance = number(parameters, "tolerance", "a number above 0 and below 1", |value| {
            value > 0.0 && value < 1.0
        })?;
        let iterations = number(parameters, "max_iterations", "a whole number from 1 to 1000", |value| {
            value.fract() == 0.0 && (1.0..=1000.0).contains(&value)
        })?;
        let branch_outages = word(parameters, "contingencies", &["none", "branches"])? == "branches";
        let enforce_q_limits = flag(parameters, "enforce_q_limits")?;
        if method == Method::Dc && (branch_outages || enforce_q_limits) {
            return Err(Error::config("contingencies and enforce_q_limits need method = newton").with_help(
                "the DC approximation has no reactive power, and outages are computed by Newton's method",
            ));
        }
        Ok(Self {
            method,
            limits: Limits { tolerance, iterations: iterations as u32 },
            enforce_q_limits,
            flat_start: flag(parameters, "flat_start")?,
            branch_outages,
        })
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
