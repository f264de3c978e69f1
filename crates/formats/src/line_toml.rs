//! A production line in TOML, as the tables of the operator `production_line`.
//!
//! ```toml
//! name = "Two machines"
//!
//! [[sources]]
//! name = "raw parts"                  # no interarrival: a part is always at hand
//! output = "in"
//!
//! [[buffers]]
//! name = "in"
//! capacity = 1
//!
//! [[machines]]
//! name = "press"
//! input = "in"                        # no output: parts leave the line here
//! process = { distribution = "exponential", mean_s = 60 }
//! failure = { clock = "operating", time_to_failure = { distribution = "exponential", mean_s = 3600 }, time_to_repair = { distribution = "gamma", mean_s = 600, deviation_s = 300 } }
//! ```
//!
//! All times are in seconds. `docs/operators/production_line.md` describes every key. This file checks keys and types;
//! what names and numbers mean is checked by the operator, and [`placed`] finds the line of its errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use serde::Deserialize;
use twinlake_contracts::{Error, Result, TomlFile};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineFile {
    name: Option<String>,
    work_in_process_limit: Option<i64>,
    #[serde(default)]
    run: RunTable,
    #[serde(default)]
    products: Vec<ProductTable>,
    #[serde(default)]
    shifts: Vec<ShiftTable>,
    #[serde(default)]
    pools: Vec<PoolTable>,
    #[serde(default)]
    buffers: Vec<BufferTable>,
    #[serde(default)]
    sources: Vec<SourceTable>,
    #[serde(default)]
    machines: Vec<MachineTable>,
    #[serde(default)]
    transports: Vec<TransportTable>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunTable {
    duration_s: Option<f64>,
    warm_up_s: Option<f64>,
    replications: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductTable {
    name: String,
    share: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShiftTable {
    name: String,
    period_s: f64,
    spans_s: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolTable {
    name: String,
    count: Option<i64>,
    shift: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BufferTable {
    name: String,
    capacity: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceTable {
    name: String,
    output: String,
    interarrival: Option<TimeTable>,
    when_full: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineTable {
    name: String,
    input: String,
    output: Option<String>,
    #[serde(default)]
    output_of: BTreeMap<String, String>,
    units: Option<i64>,
    operators: Option<String>,
    shift: Option<String>,
    process: Option<TimeTable>,
    #[serde(default)]
    process_of: BTreeMap<String, TimeTable>,
    setup: Option<TimeTable>,
    #[serde(default)]
    setup_of: Vec<SetupTable>,
    failure: Option<FailureTable>,
    scrap_share: Option<f64>,
    rework: Option<ReworkTable>,
    ideal_cycle_s: Option<f64>,
    in_service: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetupTable {
    from: Option<String>,
    to: String,
    time: TimeTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailureTable {
    clock: String,
    time_to_failure: TimeTable,
    time_to_repair: TimeTable,
    repair_crew: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReworkTable {
    share: f64,
    to: String,
    at_most: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransportTable {
    name: String,
    input: String,
    output: String,
    vehicles: String,
    travel: TimeTable,
    pickup: Option<TimeTable>,
}

/// A distribution; which keys it takes depends on `distribution`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeTable {
    distribution: String,
    value_s: Option<f64>,
    mean_s: Option<f64>,
    deviation_s: Option<f64>,
    min_s: Option<f64>,
    mode_s: Option<f64>,
    max_s: Option<f64>,
    shape: Option<f64>,
    phases: Option<f64>,
}

/// A row of the table `times`.
struct Time {
    element: String,
    purpose: &'static str,
    product: Option<String>,
    previous: Option<String>,
    distribution: TimeTable,
}

/// The tables by role. An unknown key, a wrong type or a missing key is an error with file, line and, where there is one,
/// the nearest known key.
pub fn read_line(text: &str, file: &str) -> Result<BTreeMap<String, RecordBatch>> {
    let toml = TomlFile::new(file, text);
    let line: LineFile = toml.parse()?;
    for (what, missing) in [
        ("sources", line.sources.is_empty()),
        ("buffers", line.buffers.is_empty()),
        ("machines", line.machines.is_empty()),
    ] {
        if missing {
            return Err(toml
                .mistake(format!("the line has no {what}"), "")
                .with_help(format!("add a table [[{what}]] with a name")));
        }
    }
    let times = times_of(&line);
    let mut tables = BTreeMap::new();
    let mut add = |role: &str, columns: Vec<(&str, ArrayRef)>| -> Result<()> {
        // All columns nullable: the operator says what may be left out.
        let columns = columns.into_iter().map(|(name, values)| (name, values, true));
        tables.insert(role.to_owned(), RecordBatch::try_from_iter_with_nullable(columns)?);
        Ok(())
    };
    add(
        "line",
        vec![
            ("line", texts([line.name.clone()])),
            ("work_in_process_limit", integers([line.work_in_process_limit])),
            ("duration_s", numbers([line.run.duration_s])),
            ("warm_up_s", numbers([line.run.warm_up_s])),
            ("replications", integers([line.run.replications])),
        ],
    )?;
    add(
        "products",
        vec![
            ("product", texts(line.products.iter().map(|it| Some(it.name.clone())))),
            ("share", numbers(line.products.iter().map(|it| it.share))),
        ],
    )?;
    let spans = || line.shifts.iter().flat_map(|it| it.spans_s.iter().map(move |span| (it, *span)));
    add(
        "shifts",
        vec![
            ("shift", texts(spans().map(|(it, _)| Some(it.name.clone())))),
            ("period_s", numbers(spans().map(|(it, _)| Some(it.period_s)))),
            ("from_s", numbers(spans().map(|(_, span)| Some(span.0)))),
            ("to_s", numbers(spans().map(|(_, span)| Some(span.1)))),
        ],
    )?;
    add(
        "pools",
        vec![
            ("pool", texts(line.pools.iter().map(|it| Some(it.name.clone())))),
            ("count", integers(line.pools.iter().map(|it| it.count))),
            ("shift", texts(line.pools.iter().map(|it| it.shift.clone()))),
        ],
    )?;
    add(
        "buffers",
        vec![
            ("buffer", texts(line.buffers.iter().map(|it| Some(it.name.clone())))),
            ("capacity", integers(line.buffers.iter().map(|it| it.capacity))),
        ],
    )?;
    add(
        "sources",
        vec![
            ("source", texts(line.sources.iter().map(|it| Some(it.name.clone())))),
            ("output", texts(line.sources.iter().map(|it| Some(it.output.clone())))),
            ("when_full", texts(line.sources.iter().map(|it| it.when_full.clone()))),
        ],
    )?;
    add("machines", machine_columns(&line.machines))?;
    let routes = || line.machines.iter().flat_map(|it| it.output_of.iter().map(move |route| (it, route)));
    add(
        "routes",
        vec![
            ("machine", texts(routes().map(|(it, _)| Some(it.name.clone())))),
            ("product", texts(routes().map(|(_, route)| Some(route.0.clone())))),
            ("output", texts(routes().map(|(_, route)| Some(route.1.clone())))),
        ],
    )?;
    add(
        "transports",
        vec![
            ("transport", texts(line.transports.iter().map(|it| Some(it.name.clone())))),
            ("input", texts(line.transports.iter().map(|it| Some(it.input.clone())))),
            ("output", texts(line.transports.iter().map(|it| Some(it.output.clone())))),
            ("vehicles", texts(line.transports.iter().map(|it| Some(it.vehicles.clone())))),
        ],
    )?;
    let time = |value: fn(&TimeTable) -> Option<f64>| numbers(times.iter().map(|it| value(&it.distribution)));
    add(
        "times",
        vec![
            ("element", texts(times.iter().map(|it| Some(it.element.clone())))),
            ("purpose", texts(times.iter().map(|it| Some(it.purpose.to_owned())))),
            ("product", texts(times.iter().map(|it| it.product.clone()))),
            ("previous_product", texts(times.iter().map(|it| it.previous.clone()))),
            ("distribution", texts(times.iter().map(|it| Some(it.distribution.distribution.clone())))),
            ("value_s", time(|it| it.value_s)),
            ("mean_s", time(|it| it.mean_s)),
            ("deviation_s", time(|it| it.deviation_s)),
            ("min_s", time(|it| it.min_s)),
            ("mode_s", time(|it| it.mode_s)),
            ("max_s", time(|it| it.max_s)),
            ("shape", time(|it| it.shape)),
            ("phases", time(|it| it.phases)),
        ],
    )?;
    Ok(tables)
}

/// Adds to an error of the operator the line of the file that it speaks of: the last of the names that it quotes which
/// the file holds. An error that has a place already, or is no mistake of the file, passes unchanged.
pub fn placed(error: Error, text: &str, file: &str) -> Error {
    let Error::Config(config) = &error else { return error };
    let toml = TomlFile::new(file, text);
    let place = config.message.split('\'').skip(1).step_by(2).collect::<Vec<_>>().into_iter().rev().find_map(
        |name| {
            let place = toml.locate(&format!("\"{name}\""));
            if place.line > 0 { Some(place) } else { Some(toml.locate(name)).filter(|place| place.line > 0) }
        },
    );
    let place = place.unwrap_or_else(|| toml.locate(""));
    error.at(place)
}

fn machine_columns(machines: &[MachineTable]) -> Vec<(&'static str, ArrayRef)> {
    let text = |value: fn(&MachineTable) -> Option<String>| texts(machines.iter().map(value));
    let integer = |value: fn(&MachineTable) -> Option<i64>| integers(machines.iter().map(value));
    let number = |value: fn(&MachineTable) -> Option<f64>| numbers(machines.iter().map(value));
    vec![
        ("machine", text(|it| Some(it.name.clone()))),
        ("input", text(|it| Some(it.input.clone()))),
        ("output", text(|it| it.output.clone())),
        ("units", integer(|it| it.units)),
        ("operators", text(|it| it.operators.clone())),
        ("shift", text(|it| it.shift.clone())),
        ("failure_clock", text(|it| it.failure.as_ref().map(|failure| failure.clock.clone()))),
        ("repair_crew", text(|it| it.failure.as_ref().and_then(|failure| failure.repair_crew.clone()))),
        ("scrap_share", number(|it| it.scrap_share)),
        ("rework_share", number(|it| it.rework.as_ref().map(|rework| rework.share))),
        ("rework_to", text(|it| it.rework.as_ref().map(|rework| rework.to.clone()))),
        ("rework_at_most", integer(|it| it.rework.as_ref().and_then(|rework| rework.at_most))),
        ("ideal_cycle_s", number(|it| it.ideal_cycle_s)),
        ("in_service", Arc::new(machines.iter().map(|it| it.in_service).collect::<BooleanArray>())),
    ]
}

/// All durations of the file, each with whose it is and what for.
fn times_of(line: &LineFile) -> Vec<Time> {
    let mut times = Vec::new();
    let mut add = |element: &str, purpose, products: [Option<&String>; 2], time: &TimeTable| {
        let [product, previous] = products.map(Option::<&String>::cloned);
        times.push(Time {
            element: element.to_owned(),
            purpose,
            product,
            previous,
            distribution: time.clone(),
        });
    };
    for source in &line.sources {
        if let Some(time) = &source.interarrival {
            add(&source.name, "interarrival", [None, None], time);
        }
    }
    for machine in &line.machines {
        let name = machine.name.as_str();
        if let Some(time) = &machine.process {
            add(name, "process", [None, None], time);
        }
        for (product, time) in &machine.process_of {
            add(name, "process", [Some(product), None], time);
        }
        if let Some(time) = &machine.setup {
            add(name, "setup", [None, None], time);
        }
        for setup in &machine.setup_of {
            add(name, "setup", [Some(&setup.to), setup.from.as_ref()], &setup.time);
        }
        if let Some(failure) = &machine.failure {
            add(name, "time_to_failure", [None, None], &failure.time_to_failure);
            add(name, "time_to_repair", [None, None], &failure.time_to_repair);
        }
    }
    for transport in &line.transports {
        add(&transport.name, "travel", [None, None], &transport.travel);
        if let Some(time) = &transport.pickup {
            add(&transport.name, "pickup", [None, None], time);
        }
    }
    times
}

fn texts(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn integers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn numbers(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;

    use super::*;

    const LINE: &str = r#"
[[sources]]
name = "raw"
output = "in"

[[buffers]]
name = "in"
capacity = 1

[[machines]]
name = "press"
input = "in"
process = { distribution = "exponential", mean_s = 60 }
setup_of = [{ to = "b", time = { distribution = "constant", value_s = 5 } }]
"#;

    #[test]
    fn becomes_tables() {
        let tables = read_line(LINE, "line.toml").unwrap();
        let times = &tables["times"];
        assert_eq!(times.num_rows(), 2);
        assert_eq!(times["purpose"].as_string::<i32>().value(1), "setup");
        assert_eq!(times["product"].as_string::<i32>().value(1), "b");
        assert_eq!(times["mean_s"].as_primitive::<Float64Type>().value(0), 60.0);
        assert!(times["mean_s"].is_null(1));
        assert!(tables["machines"]["output"].is_null(0));
    }

    #[test]
    fn a_wrong_key_shows_its_line_and_the_right_one() {
        let shown = read_line(&LINE.replace("capacity", "capacty"), "line.toml").err().unwrap().to_string();
        assert!(shown.contains("line.toml:8:1") && shown.contains("did you mean 'capacity'?"), "{shown}");
        let shown = read_line(&LINE.replace("= 60", "= 'fast'"), "line.toml").err().unwrap().to_string();
        assert!(shown.contains("line.toml:13"), "{shown}");
        let shown = read_line("name = 'x'", "line.toml").err().unwrap().to_string();
        assert!(shown.contains("no sources") && shown.contains("[[sources]]"), "{shown}");
    }

    #[test]
    fn an_error_of_the_operator_gets_the_line_that_it_speaks_of() {
        let error = Error::config("the machine 'press' names the buffer 'in', which the line does not have");
        let shown = placed(error, LINE, "line.toml").to_string();
        assert!(shown.contains("line.toml:4:10"), "{shown}");
    }
}
