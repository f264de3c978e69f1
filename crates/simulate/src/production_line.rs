//! The operator `production_line`: what a line of machines and buffers makes, and which factor limits it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::{Value, json};
use twinlake_contracts::{
    Error, Horizon, Operator, OperatorSpec, Outcome, ParameterSpec, Parameters, Progress, Result, Snapshot,
    TableShape,
};

mod agenda;
mod distribution;
mod engine;
mod estimate;
mod model;
mod report;
mod sensitivity;
mod streams;
mod tables;
mod tally;

use self::engine::Engine;
use self::model::Line;
use self::report::Gain;
use self::tables::{Rows, optional};
use self::tally::Tally;
use crate::parameters::flag;

/// Discrete-event simulation of a production line: blocking after service, failures by operating or calendar time,
/// shifts, setups, scrap and rework, operators, repair crews and vehicles.
///
/// Takes the tables of a line (see `describe()`; `twinlake simulate production_line --network line.toml` makes them from
/// a file); gives `machines` (OEE and shares of time), `buffers`, `pools`, `line` (throughput, work in process, lead time
/// with confidence intervals) and `sensitivity` (factors ranked by what a change of each adds to the throughput). All times
/// are seconds from the start of the run. The same input and seed give the same bytes on any number of threads.
pub struct ProductionLine;

impl Operator for ProductionLine {
    fn describe(&self) -> OperatorSpec {
        OperatorSpec {
            name: "production_line",
            version: "2",
            description: "Discrete-event simulation of a production line: throughput, work in process, lead time, OEE \
                          of each machine, and the factors that limit output, ranked by the gain of changing each.",
            source: "Blocking after service: Dallery, Gershwin (1992), Queueing Systems 12, 3-94; OEE: ISO 22400-2 \
                     (2014); common random numbers and replications: Law (2015), Simulation Modeling and Analysis, \
                     5th edition, chapters 9 and 11; batch means: Schmeiser (1982), Operations Research 30, 556-568",
            inputs: inputs(),
            outputs: outputs(),
            parameters: parameters(),
        }
    }

    fn run(
        &self,
        city: &Snapshot,
        horizon: Horizon,
        seed: u64,
        parameters: &Parameters,
        progress: Progress<'_>,
    ) -> Result<Outcome> {
        let parameters = self.describe().resolve(parameters)?;
        let line = Line::read(city)?;
        let settings = Settings::read(&parameters, city, horizon)?;
        let changes =
            if settings.sensitivity { sensitivity::changes(&line, settings.step) } else { Vec::new() };
        let lines: Vec<&Line> =
            std::iter::once(&line).chain(changes.iter().map(|change| &change.line)).collect();
        let runs = settings.replications;
        let jobs: Vec<(usize, usize)> =
            (0..lines.len()).flat_map(|line| (0..runs).map(move |run| (line, run))).collect();
        let (done, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let keep_on = || {
            let fraction = done.load(Ordering::Relaxed) as f64 / jobs.len() as f64;
            let go = !stopped.load(Ordering::Relaxed) && progress(fraction, "simulating");
            if !go {
                stopped.store(true, Ordering::Relaxed);
            }
            go
        };
        let tallies: Vec<Vec<Tally>> = jobs
            .par_iter()
            .map(|(at, run)| {
                if stopped.load(Ordering::Relaxed) {
                    return Err(Error::config("the run was stopped"));
                }
                let windows = settings.simulate(lines[*at], seed, *run as u64, &keep_on);
                done.fetch_add(1, Ordering::Relaxed);
                keep_on();
                windows
            })
            .collect::<Result<_>>()?;
        let mut by_line = tallies.chunks(runs).map(<[Vec<Tally>]>::concat);
        let base = by_line.next().unwrap_or_default();
        let gains = changes.into_iter().zip(by_line).map(|(change, windows)| {
            let pairs = windows.iter().zip(&base);
            let gains = pairs.map(|(more, base)| more.throughput_per_h() - base.throughput_per_h()).collect();
            Gain { change, gains }
        });
        let gains = gains.collect();
        report::report(&line, &base, gains, settings.confidence)
    }
}

/// How long, how often.
struct Settings {
    warm_up_s: f64,
    duration_s: f64,
    /// Ends a window after so many parts, instead of after the duration.
    parts: Option<u64>,
    replications: usize,
    /// Windows of one replication, when there is only one.
    batches: usize,
    confidence: f64,
    sensitivity: bool,
    step: f64,
}

impl Settings {
    /// A parameter that is not given is what the table `line` says, then what is usual.
    fn read(parameters: &Parameters, city: &Snapshot, horizon: Horizon) -> Result<Self> {
        let of_line = |name: &str| -> Result<Option<f64>> {
            match optional(city, "line") {
                Some(batch) => Ok(Rows::new("line", batch).numbers(name)?.first().copied().flatten()),
                None => Ok(None),
            }
        };
        let number = |name: &str, usual: f64, wanted: &str, fits: &dyn Fn(f64) -> bool| -> Result<f64> {
            let given = match &parameters[name] {
                Value::Null => of_line(name)?.unwrap_or(usual),
                Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
                Value::String(text) => text.trim().parse().unwrap_or(f64::NAN),
                _ => f64::NAN,
            };
            if given.is_finite() && fits(given) {
                return Ok(given);
            }
            let shown = match &parameters[name] {
                Value::Null => given.to_string(),
                value => value.to_string(),
            };
            Err(Error::config(format!("parameter {name} = {shown} must be {wanted}")))
        };
        let whole = |least: f64| move |value: f64| value.fract() == 0.0 && (least..=1e12).contains(&value);
        let planned = (horizon.to_us - horizon.from_us) as f64 / 1e6;
        let usual = if planned > 0.0 { planned } else { 30.0 * 86_400.0 };
        let parts = match &parameters["parts"] {
            Value::Null => None,
            _ => Some(number("parts", 0.0, "a whole number from 1", &whole(1.0))? as u64),
        };
        let sensitivity = flag(parameters, "sensitivity")?;
        let share = |value: f64| value > 0.0 && value < 1.0;
        Ok(Self {
            warm_up_s: number("warm_up_s", 86_400.0, "a number, not negative", &|value| value >= 0.0)?,
            duration_s: number("duration_s", usual, "a number above 0", &|value| value > 0.0)?,
            parts,
            replications: number("replications", 10.0, "a whole number from 1", &whole(1.0))? as usize,
            batches: number("batches", 20.0, "a whole number from 2", &whole(2.0))? as usize,
            confidence: number("confidence", 0.95, "a number above 0 and below 1", &share)?,
            sensitivity,
            step: number("step", 0.1, "a number above 0 and below 1", &share)?,
        })
    }

    /// One replication: a window, or as many as there are batches when it is the only one.
    fn simulate(
        &self,
        line: &Line,
        seed: u64,
        replication: u64,
        keep_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Tally>> {
        let mut engine = Engine::new(line, seed, replication);
        engine.run(self.warm_up_s, u64::MAX, keep_on)?;
        engine.close_window();
        let windows = if self.replications == 1 { self.batches } else { 1 };
        (0..windows)
            .map(|_| {
                match self.parts {
                    Some(parts) => engine.run(f64::INFINITY, (parts / windows as u64).max(1), keep_on)?,
                    None => engine.run(engine.now() + self.duration_s / windows as f64, u64::MAX, keep_on)?,
                }
                Ok(engine.close_window())
            })
            .collect()
    }
}

fn parameters() -> Vec<ParameterSpec> {
    let parameter = |name, description, unit, default| ParameterSpec { name, description, unit, default };
    vec![
        parameter(
            "duration_s",
            "time measured in each replication; null: the table 'line', else the horizon, else 30 days",
            "s",
            Value::Null,
        ),
        parameter(
            "warm_up_s",
            "time before it that is not measured; null: the table 'line', else a day",
            "s",
            Value::Null,
        ),
        parameter(
            "parts",
            "measure until so many good parts have left, instead of duration_s",
            "",
            Value::Null,
        ),
        parameter("replications", "independent runs; null: the table 'line', else 10", "", Value::Null),
        parameter("batches", "batches of the run when there is one replication", "", json!(20)),
        parameter("confidence", "of the intervals", "", json!(0.95)),
        parameter(
            "sensitivity",
            "whether to change every factor and rank them by their gain",
            "",
            json!(true),
        ),
        parameter("step", "relative size of the change; counts change by one at least", "", json!(0.1)),
    ]
}

fn inputs() -> Vec<TableShape> {
    let shape = |role, description, columns| TableShape { role, description, columns };
    vec![
        shape(
            "machines",
            "A row a machine. It takes from one buffer, and hands on to one or out of the line.",
            vec![
                ("machine", "Utf8", "names it, unique among machines and transports"),
                ("input", "Utf8", "the buffer it takes from"),
                ("output", "Utf8", "the buffer it gives to; null: out of the line"),
                ("units", "Int64", "alike, side by side; null: 1"),
                (
                    "operators",
                    "Utf8",
                    "pool of which one must be there during setup and processing; null: none",
                ),
                ("shift", "Utf8", "when it works; null: always"),
                ("failure_clock", "Utf8", "'operating' or 'calendar'; null: never fails"),
                ("repair_crew", "Utf8", "pool of which one repairs it; null: repair begins at once"),
                ("scrap_share", "Float64", "share of parts that leave as scrap; null: 0"),
                ("rework_share", "Float64", "share of parts that go to rework_to; null: 0"),
                ("rework_to", "Utf8", "buffer for rework"),
                ("rework_at_most", "Int64", "a part reworked so often is scrap the next time; null: never"),
                ("ideal_cycle_s", "Float64", "planned time a part, seconds; null: mean of its process time"),
                ("in_service", "Boolean", "optional; false: it is down for the whole run; null: true"),
            ],
        ),
        shape(
            "buffers",
            "A row a place between machines.",
            vec![
                ("buffer", "Utf8", "names it"),
                ("capacity", "Int64", "parts; 0 hands over from machine to machine; null: no limit"),
            ],
        ),
        shape(
            "sources",
            "A row a place where parts come in.",
            vec![
                ("source", "Utf8", "names it"),
                ("output", "Utf8", "the buffer it gives to"),
                ("when_full", "Utf8", "'wait' (null) or 'lost'"),
            ],
        ),
        shape(
            "times",
            "A row a duration: process, setup, time_to_failure, time_to_repair of a machine, interarrival of a source, \
             travel and pickup of a transport.",
            vec![
                ("element", "Utf8", "machine, source or transport"),
                ("purpose", "Utf8", "which time"),
                ("product", "Utf8", "for that product; null: for all"),
                ("previous_product", "Utf8", "setup: after that product; null: after any other"),
                (
                    "distribution",
                    "Utf8",
                    "constant, exponential, uniform, triangular, lognormal, gamma, erlang, weibull",
                ),
                ("value_s", "Float64", "constant, seconds"),
                ("mean_s", "Float64", "exponential, lognormal, gamma, erlang, weibull, seconds"),
                ("deviation_s", "Float64", "lognormal, gamma: standard deviation, seconds"),
                ("min_s", "Float64", "uniform, triangular, seconds"),
                ("mode_s", "Float64", "triangular, seconds"),
                ("max_s", "Float64", "uniform, triangular, seconds"),
                ("shape", "Float64", "weibull"),
                ("phases", "Float64", "erlang"),
            ],
        ),
        shape(
            "products",
            "Optional. The mix; without it all parts are alike.",
            vec![
                ("product", "Utf8", "names it"),
                ("share", "Float64", "of the parts, relative to the others"),
            ],
        ),
        shape(
            "routes",
            "Optional. Where a machine gives parts of one product, instead of its output.",
            vec![
                ("machine", "Utf8", "the machine"),
                ("product", "Utf8", "the product"),
                ("output", "Utf8", "the buffer"),
            ],
        ),
        shape(
            "pools",
            "Optional. Operators, repair crews, vehicles.",
            vec![
                ("pool", "Utf8", "names it"),
                ("count", "Int64", "how many; null: 1"),
                ("shift", "Utf8", "when they are there; null: always. Who is at work finishes it"),
            ],
        ),
        shape(
            "transports",
            "Optional. A row a way of vehicles from one buffer to another.",
            vec![
                ("transport", "Utf8", "names it"),
                ("input", "Utf8", "the buffer it takes from"),
                ("output", "Utf8", "the buffer it brings to"),
                ("vehicles", "Utf8", "the pool"),
            ],
        ),
        shape(
            "shifts",
            "Optional. A row a span of working time; a shift may have several.",
            vec![
                ("shift", "Utf8", "names it"),
                ("period_s", "Float64", "after which it repeats, seconds"),
                ("from_s", "Float64", "begin of the span in its period, seconds"),
                ("to_s", "Float64", "its end, seconds"),
            ],
        ),
        shape(
            "line",
            "Optional, one row: limits and the usual length of a run.",
            vec![
                ("line", "Utf8", "its name"),
                ("work_in_process_limit", "Int64", "parts between entry and exit; null: none"),
                ("duration_s", "Float64", "when the parameter is null, seconds"),
                ("warm_up_s", "Float64", "when the parameter is null, seconds"),
                ("replications", "Int64", "when the parameter is null"),
            ],
        ),
    ]
}

fn outputs() -> Vec<TableShape> {
    let shape = |role, description, columns| TableShape { role, description, columns };
    vec![
        shape(
            "machines",
            "A row a machine or transport, in the order of the tables. Null: nothing to measure.",
            vec![
                ("machine", "Utf8", "the machine or transport"),
                ("kind", "Utf8", "'machine' or 'transport'"),
                ("parts_per_h", "Float64", "parts done, with scrap and rework, an hour"),
                ("oee", "Float64", "availability x performance x quality; 0 where it never worked"),
                ("oee_half_width", "Float64", "of its confidence interval"),
                ("availability", "Float64", "actual production time by planned busy time (ISO 22400-2)"),
                (
                    "performance",
                    "Float64",
                    "planned run time of the parts by actual production time (effectiveness)",
                ),
                ("quality", "Float64", "parts good at this visit by parts done (quality ratio)"),
                ("processing_share", "Float64", "of all time; the seven shares add up to 1"),
                ("setup_share", "Float64", "of all time; transports: on the way to a part"),
                ("blocked_share", "Float64", "of all time"),
                ("starved_share", "Float64", "of all time"),
                ("waiting_for_operator_share", "Float64", "of all time"),
                ("down_share", "Float64", "of all time: waiting for repair and in repair"),
                ("off_shift_share", "Float64", "of all time"),
                ("rework_share", "Float64", "of the parts done"),
                ("scrap_share", "Float64", "of the parts done"),
            ],
        ),
        shape(
            "buffers",
            "A row a buffer.",
            vec![
                ("buffer", "Utf8", "the buffer"),
                ("capacity", "Int64", "parts; null: no limit"),
                ("mean_level", "Float64", "parts"),
                ("mean_level_half_width", "Float64", "of its confidence interval"),
                ("full_share", "Float64", "of all time"),
                ("wait_s", "Float64", "mean time of a part in it, seconds"),
                ("parts_per_h", "Float64", "parts that passed an hour"),
                ("most", "Float64", "highest level, mean over the replications"),
            ],
        ),
        shape(
            "pools",
            "A row a pool.",
            vec![
                ("pool", "Utf8", "the pool"),
                ("count", "Int64", "how many"),
                ("busy_share", "Float64", "of all time, of all of them"),
                ("mean_busy", "Float64", "how many are at work"),
            ],
        ),
        shape(
            "line",
            "A row a figure of the whole line.",
            vec![
                ("figure", "Utf8", "its name"),
                ("unit", "Utf8", "its unit"),
                ("mean", "Float64", "over replications or batches"),
                ("standard_error", "Float64", "of the mean"),
                ("low", "Float64", "of the confidence interval"),
                ("high", "Float64", "of the confidence interval"),
            ],
        ),
        shape(
            "sensitivity",
            "A row a factor, by falling gain; empty without the parameter sensitivity.",
            vec![
                ("rank", "Int64", "from 1"),
                ("element", "Utf8", "machine, buffer, pool, transport, source or line"),
                ("factor", "Utf8", "what was changed"),
                ("unit", "Utf8", "of the values"),
                ("value", "Float64", "as it is (mean of a time)"),
                ("changed_value", "Float64", "as it was changed"),
                ("gain_per_h", "Float64", "good parts an hour more, on common random numbers"),
                ("gain_half_width", "Float64", "of its confidence interval"),
                ("gain_share", "Float64", "gain by throughput"),
                ("significant", "Boolean", "whether the interval is above 0"),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests;
