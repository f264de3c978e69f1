//! The operator against closed forms, a Markov chain, conservation laws and the tables of exact results.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::json;
use twinlake_formats::line_toml;

use super::*;

mod exact;
mod painting;
mod rules;

/// Runs a line given as TOML; errors have the place that the command line shows.
pub(super) fn run(toml: &str, set: &[(&str, Value)]) -> Result<Outcome> {
    run_seeded(toml, set, 1)
}

pub(super) fn run_seeded(toml: &str, set: &[(&str, Value)], seed: u64) -> Result<Outcome> {
    let city = Snapshot { tables: line_toml::read_line(toml, "line.toml")? };
    let set: Parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    ProductionLine
        .run(&city, Horizon { from_us: 0, to_us: 0 }, seed, &set, &|_, _| true)
        .map_err(|error| line_toml::placed(error, toml, "line.toml"))
}

/// What an outcome says of the whole line: mean and standard error.
pub(super) fn figure(outcome: &Outcome, name: &str) -> (f64, f64) {
    let table = &outcome.tables["line"];
    let row =
        (0..table.num_rows()).find(|row| table["figure"].as_string::<i32>().value(*row) == name).unwrap();
    let number = |column: &str| table[column].as_primitive::<Float64Type>().value(row);
    (number("mean"), number("standard_error"))
}

/// A number of the row of that name.
pub(super) fn number(outcome: &Outcome, role: &str, name: &str, column: &str) -> f64 {
    let table = &outcome.tables[role];
    let names = table.column(0).as_string::<i32>();
    let row = (0..table.num_rows()).find(|row| names.value(*row) == name).unwrap();
    assert!(table[column].is_valid(row), "{column} of {name} is null");
    table[column].as_primitive::<Float64Type>().value(row)
}

/// A station with arrivals at random: the M/G/c/K queue. `capacity` counts the buffer alone.
pub(super) fn queue(arrivals_mean_s: f64, process: &str, units: usize, capacity: Option<usize>) -> String {
    let limit = capacity.map_or(String::new(), |capacity| format!("capacity = {capacity}"));
    format!(
        r#"
[[sources]]
name = "arrivals"
output = "queue"
interarrival = {{ distribution = "exponential", mean_s = {arrivals_mean_s} }}
when_full = "lost"

[[buffers]]
name = "queue"
{limit}

[[machines]]
name = "server"
input = "queue"
units = {units}
process = {{ {process} }}
"#
    )
}

/// Machines in a row, the first never starved, with buffers of these capacities between them.
pub(super) fn tandem(machines: &[&str], capacities: &[usize]) -> String {
    let mut text =
        String::from("[[sources]]\nname = 'raw'\noutput = 'b0'\n[[buffers]]\nname = 'b0'\ncapacity = 1\n");
    for (at, capacity) in capacities.iter().enumerate() {
        let _ = write!(text, "[[buffers]]\nname = 'b{}'\ncapacity = {capacity}\n", at + 1);
    }
    for (at, machine) in machines.iter().enumerate() {
        let _ = write!(text, "[[machines]]\nname = 'm{at}'\ninput = 'b{at}'\n{machine}\n");
        if at + 1 < machines.len() {
            let _ = writeln!(text, "output = 'b{}'", at + 1);
        }
    }
    text
}

pub(super) const EXPONENTIAL: &str = "process = { distribution = 'exponential', mean_s = 1 }";

/// A long run, warmed up, in replications, without the ranking.
pub(super) fn measured(parts: u64) -> Vec<(&'static str, Value)> {
    vec![
        ("parts", json!(parts)),
        ("warm_up_s", json!(2000)),
        ("replications", json!(20)),
        ("sensitivity", json!(false)),
    ]
}

/// Within 3.5 standard errors (one in two thousand falls outside by chance; seeds are fixed) and within `most`.
pub(super) fn close(what: &str, (mean, standard_error): (f64, f64), exact: f64, most: f64) {
    let error = (mean - exact).abs();
    assert!(standard_error > 0.0, "{what}");
    assert!(error <= 3.5 * standard_error, "{what}: {mean} +- {standard_error}, exact {exact}");
    assert!(error <= most * exact, "{what}: {mean}, exact {exact}, off by {}", error / exact);
}
