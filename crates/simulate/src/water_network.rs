//! The operator `water_network`: heads, flows and water quality of a distribution network over time.

mod describe;
mod headloss;
mod kept;
mod layout;
mod leakage;
mod model;
mod options;
mod period;
mod quality;
mod read;
mod read_links;
mod report;
mod rules;
mod solver;
mod state;
mod status;
mod warnings;

use std::sync::LazyLock;

use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, Parameters, Progress, Result, Snapshot,
};

use model::Model;

/// Hydraulics and quality of a water distribution network over an extended period.
///
/// Takes the tables of an EPANET network in SI units (`junctions`, `pipes` and at least one of `reservoirs` and `tanks`;
/// all others may be left out); gives `nodes` and `links`, a row for each element and report time, and `warnings`.
/// Heads are metres above the datum of the elevations, pressures metres of water, flows m³/s. `ts` is the horizon's start
/// plus `time_s`; a horizon longer than 0 sets the duration. The seed changes nothing. A junction that no open link joins
/// to a tank or reservoir is in the results without head, and every pressure below 0 is named in `warnings`.
pub struct WaterNetwork;

/// Made once: small networks are balanced in less time than it takes.
static SPEC: LazyLock<OperatorSpec> = LazyLock::new(describe::spec);

impl Operator for WaterNetwork {
    fn describe(&self) -> OperatorSpec {
        SPEC.clone()
    }

    fn run(
        &self,
        city: &Snapshot,
        horizon: Horizon,
        _seed: u64,
        parameters: &Parameters,
        progress: Progress<'_>,
    ) -> Result<Outcome> {
        let mut options = kept::options(city, parameters, &SPEC)?;
        if horizon.to_us < horizon.from_us {
            return Err(Error::config("the horizon ends before it begins"));
        }
        if horizon.to_us > horizon.from_us {
            options.times.duration = (horizon.to_us - horizon.from_us) / 1_000_000;
        }
        let model = Model { network: kept::network(city, &options)?, options };
        let course = period::run(&model, progress)?;
        report::outcome(&model, &course, horizon)
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
