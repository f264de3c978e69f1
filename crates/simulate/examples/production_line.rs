//! Validation and benchmark of the operator `production_line` against exact results of queueing theory.
//!
//! `cargo xtask bench production_line` runs it with `validate`: every case of `simulation/factory/exact_queue_tables.json` in the
//! folder that `TWINLAKE_TESTDATA` names, 1e7 parts each in 20 replications; ours, exact, the difference in per cent and in
//! standard errors. With `speed` it runs 1e6 parts through a queue and through three machines in a row, as its peer does.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod figures;

use std::fmt::Write as _;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use serde_json::{Value, json};
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::line_toml;
use twinlake_simulate::ProductionLine;

/// Random numbers start here in every case.
const SEED: u64 = 0;
const REPLICATIONS: u64 = 20;

const PAINTING: &str = include_str!("../../../schemas/lines/car-painting.toml");
/// What limits it: element, factor, how the file says it, and the same with times a tenth less.
const TOP_COAT: (&str, &str, &str, &str) = (
    "top coat",
    "process_time",
    "process = { distribution = \"triangular\", min_s = 62, mode_s = 70, max_s = 90 }",
    "process = { distribution = \"triangular\", min_s = 55.8, mode_s = 63, max_s = 81 }",
);
/// Parts through each line that is compared with exact results.
const PARTS: f64 = 1e7;

fn main() -> Result<()> {
    if figures::asked(
        || {
            figures::section("painting", painting)?;
            figures::section("validation", validate)
        },
        speed,
    )? {
        return Ok(());
    }
    Err(Error::config("write 'validate' or 'speed FOLDER'"))
}

fn speed(_folder: &Path) -> Result<()> {
    let lines = [
        ("M/M/1 at 80 % load, 1e6 parts", queue(0.8, 1.0, 1, None)),
        ("three machines, buffers of 2, 1e6 parts", tandem(&[1.0; 3], &[2, 2])),
    ];
    for (name, line) in lines {
        figures::measure(name, 3, || {
            let outcome = solve(&line, 1e6, 0.0)?;
            Ok(format!("{:.4} parts a second of the line", of_line(&outcome, "throughput_per_h").0 / 3600.0))
        })?;
    }
    Ok(())
}

/// Without the rounding of products in binary.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// The paint shop: what limits it by the ranking, then that factor changed in the file itself, run on random numbers of its
/// own, and what is gained.
fn painting() -> Result<()> {
    let city = |text: &str| -> Result<Snapshot> {
        Ok(Snapshot { tables: line_toml::read_line(text, "car-painting.toml")? })
    };
    let run = |city: &Snapshot, set: &Parameters, seed: u64| {
        ProductionLine.run(city, Horizon { from_us: 0, to_us: 0 }, seed, set, &|_, _| true)
    };
    let before = run(&city(PAINTING)?, &Parameters::new(), 0)?;
    let ranking = &before.tables["sensitivity"];
    let text = |column: &str, row: usize| ranking[column].as_string::<i32>().value(row).to_owned();
    let number = |column: &str, row: usize| ranking[column].as_primitive::<Float64Type>().value(row);
    println!(
        "| rank | element | factor | value | changed to | gain, parts/h | ± |\n|---:|---|---|---:|---:|---:|---:|"
    );
    for row in 0..ranking.num_rows().min(5) {
        println!(
            "| {} | {} | {} | {} | {} | {:+.3} | {:.3} |",
            row + 1,
            text("element", row),
            text("factor", row),
            rounded(number("value", row)),
            rounded(number("changed_value", row)),
            number("gain_per_h", row),
            number("gain_half_width", row)
        );
    }
    let (element, factor) = (text("element", 0), text("factor", 0));
    if (element.as_str(), factor.as_str()) != (TOP_COAT.0, TOP_COAT.1) || !PAINTING.contains(TOP_COAT.2) {
        return Err(Error::config(format!(
            "{factor} of {element} limits the line: write here how to change it"
        )));
    }
    let set = Parameters::from([("sensitivity".to_owned(), json!(false))]);
    let after = run(&city(&PAINTING.replace(TOP_COAT.2, TOP_COAT.3))?, &set, 99)?;
    let (old, new) = (of_line(&before, "throughput_per_h"), of_line(&after, "throughput_per_h"));
    println!(
        "\nWith the {} of the {} a tenth less in the file (`{}`), on random numbers of its own: {:.3} parts an hour instead \
         of {:.3}, {:+.3} where {:+.3} was promised.",
        factor.replace('_', " "),
        element,
        TOP_COAT.3,
        new.0,
        old.0,
        new.0 - old.0,
        number("gain_per_h", 0)
    );
    Ok(())
}

fn validate() -> Result<()> {
    let data = std::env::var("TWINLAKE_TESTDATA")
        .map_err(|_| Error::config("TWINLAKE_TESTDATA is not set: there is nothing to compare with"))?;
    let parts = PARTS;
    let file = Path::new(&data).join("simulation/factory/exact_queue_tables.json");
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Error::permanent(file.display().to_string(), error))?;
    let exact: Value = serde_json::from_str(&text).map_err(|error| Error::config(error.to_string()))?;
    println!("| case | figure | ours | standard error | exact | difference | standard errors |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    let mut score = Score::default();
    for (name, value) in exact.as_object().into_iter().flatten() {
        if let Some(inside) = name.strip_prefix("([").and_then(|rest| rest.strip_suffix("])")) {
            let (machines, buffers) = inside.split_once("], [").unwrap_or((inside, ""));
            let means: Vec<f64> = machines.split(", ").filter_map(|mean| mean.parse().ok()).collect();
            let capacities: Vec<usize> = buffers.split(", ").filter_map(|room| room.parse().ok()).collect();
            let case = format!("tandem line, rates {machines}, buffers {buffers}");
            let outcome = solve(&tandem(&means, &capacities), parts, 5e3)?;
            score.row(&case, "throughput", &outcome, value.as_f64());
        }
    }
    for kind in ["MMc", "MMcK"] {
        for case in exact[kind].as_array().into_iter().flatten() {
            let of = |name: &str| case[name].as_f64().unwrap_or(f64::NAN);
            let servers = of("c") as usize;
            let room = case["K"].as_u64().map(|room| room as usize - servers);
            let limit = case["K"].as_u64().map_or(String::new(), |room| format!("/{room}"));
            let name = format!("M/M/{servers}{limit}, arrivals {}", of("lam"));
            let outcome = solve(&queue(of("lam"), of("mu"), servers, room), parts, 2e4)?;
            score.row(&name, "W", &outcome, case["W"].as_f64());
            score.row(&name, "L", &outcome, case["L"].as_f64());
            if room.is_some() {
                score.row(&name, "lost share", &outcome, case["Pblock"].as_f64());
                score.row(&name, "throughput", &outcome, case["thru"].as_f64());
            }
        }
    }
    let demands = [0.5, 0.8, 0.3, 0.6];
    let outcome = solve(&closed(&demands, 20), parts, 5e3)?;
    let case = &exact["MVA D=[.5,.8,.3,.6] K=20"];
    score.row("closed network, 20 parts", "throughput", &outcome, case["X"].as_f64());
    for (at, demand) in demands.into_iter().enumerate() {
        let level = case["Q"][at].as_f64().zip(case["X"].as_f64()).map(|(level, rate)| level - rate * demand);
        score.row("closed network, 20 parts", &format!("queue {at}"), &outcome, level);
    }
    println!(
        "\n{} figures: {} within 0.5 %, {} within 3 standard errors; worst {:.3} % and {:.2} standard errors",
        score.rows, score.within_share, score.within_errors, score.worst_percent, score.worst_errors
    );
    Ok(())
}

#[derive(Default)]
struct Score {
    rows: u32,
    within_share: u32,
    within_errors: u32,
    worst_percent: f64,
    worst_errors: f64,
}

impl Score {
    fn row(&mut self, case: &str, figure: &str, outcome: &Outcome, exact: Option<f64>) {
        let Some(exact) = exact else { return };
        let (mean, error) = match figure {
            "throughput" => {
                let (mean, error) = of_line(outcome, "throughput_per_h");
                (mean / 3600.0, error / 3600.0)
            }
            "W" => of_line(outcome, "lead_time_s"),
            "L" => of_line(outcome, "work_in_process"),
            "lost share" => of_line(outcome, "lost_share"),
            queue => of_queue(outcome, queue.trim_start_matches("queue ").parse().unwrap_or(0)),
        };
        let (percent, errors) = (100.0 * (mean / exact - 1.0), (mean - exact) / error);
        self.rows += 1;
        self.within_share += u32::from(percent.abs() <= 0.5);
        self.within_errors += u32::from(errors.abs() <= 3.0);
        self.worst_percent = self.worst_percent.max(percent.abs());
        self.worst_errors = self.worst_errors.max(errors.abs());
        println!(
            "| {case} | {figure} | {mean:.6} | {error:.6} | {exact:.6} | {percent:+.3} % | {errors:+.2} |"
        );
    }
}

fn of_line(outcome: &Outcome, figure: &str) -> (f64, f64) {
    let table = &outcome.tables["line"];
    let row = table["figure"].as_string::<i32>().iter().position(|name| name == Some(figure)).unwrap_or(0);
    let number = |column: &str| table[column].as_primitive::<Float64Type>().value(row);
    (number("mean"), number("standard_error"))
}

/// Mean level; its standard error from the half-width of the 95 % interval of 20 replications.
fn of_queue(outcome: &Outcome, at: usize) -> (f64, f64) {
    let table = &outcome.tables["buffers"];
    let number = |column: &str| table[column].as_primitive::<Float64Type>().value(at);
    (number("mean_level"), number("mean_level_half_width") / 2.093_024)
}

fn solve(toml: &str, parts: f64, warm_up_s: f64) -> Result<Outcome> {
    let city = Snapshot { tables: line_toml::read_line(toml, "line.toml")? };
    let set = Parameters::from([
        ("parts".to_owned(), json!((parts / REPLICATIONS as f64).round())),
        ("warm_up_s".to_owned(), json!(warm_up_s)),
        ("replications".to_owned(), json!(REPLICATIONS)),
        ("sensitivity".to_owned(), json!(false)),
    ]);
    ProductionLine.run(&city, Horizon { from_us: 0, to_us: 0 }, SEED, &set, &|_, _| true)
}

fn exponential(mean: f64) -> String {
    format!("{{ distribution = 'exponential', mean_s = {mean} }}")
}

fn queue(arrivals: f64, rate: f64, servers: usize, room: Option<usize>) -> String {
    let capacity = room.map_or(String::new(), |room| format!("capacity = {room}\n"));
    format!(
        "[[sources]]\nname = 'arrivals'\noutput = 'queue'\ninterarrival = {}\nwhen_full = 'lost'\n[[buffers]]\n\
         name = 'queue'\n{capacity}[[machines]]\nname = 'server'\ninput = 'queue'\nunits = {servers}\nprocess = {}\n",
        exponential(1.0 / arrivals),
        exponential(1.0 / rate)
    )
}

fn tandem(means: &[f64], capacities: &[usize]) -> String {
    let mut text =
        String::from("[[sources]]\nname = 'raw'\noutput = 'b0'\n[[buffers]]\nname = 'b0'\ncapacity = 1\n");
    for (at, capacity) in capacities.iter().enumerate() {
        let _ = writeln!(text, "[[buffers]]\nname = 'b{}'\ncapacity = {capacity}", at + 1);
    }
    machines(&mut text, means);
    text
}

fn closed(means: &[f64], parts: usize) -> String {
    let mut text = format!("work_in_process_limit = {parts}\n[[sources]]\nname = 'raw'\noutput = 'b0'\n");
    for at in 0..means.len() {
        let _ = writeln!(text, "[[buffers]]\nname = 'b{at}'");
    }
    machines(&mut text, means);
    text
}

fn machines(text: &mut String, means: &[f64]) {
    for (at, mean) in means.iter().enumerate() {
        let _ =
            writeln!(text, "[[machines]]\nname = 'm{at}'\ninput = 'b{at}'\nprocess = {}", exponential(*mean));
        if at + 1 < means.len() {
            let _ = writeln!(text, "output = 'b{}'", at + 1);
        }
    }
}
