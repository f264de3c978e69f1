//! `cargo xtask bench timeseries`: 50 million readings of 100,000 entities, asked by Twinlake, DuckDB and chDB
//! (ClickHouse in process): the same Parquet files, two threads each, the answers compared.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::process::machine;
use crate::run::{cargo, output, root, run};
use crate::setup::target;

const RUNS: usize = 3;
const PEERS: [&str; 2] = ["duckdb==1.5.5", "chdb==4.4.0"];
/// The seconds of each run, and the values of the one row.
type Answer = (Vec<f64>, Vec<f64>);
/// What is asked; the peers' words are in `timeseries.py`.
const QUERIES: [(&str, &str); 3] = [
    (
        "last value of each entity",
        "SELECT count(*), sum(v) FROM (SELECT entity, last(value, ts) AS v FROM 'FOLDER/readings.parquet' GROUP BY entity)",
    ),
    (
        "5-minute means of each entity, gaps filled with the last one",
        "SELECT count(*), count(v), sum(v), sum(f) FROM (SELECT entity, time_bucket_gapfill('5 minutes', ts) AS t, \
         avg(value) AS v, locf(avg(value)) AS f FROM 'FOLDER/readings.parquet' \
         WHERE ts >= '2024-01-01T00:00:00Z' AND ts < '2024-01-01T06:00:00Z' GROUP BY 1, 2)",
    ),
    (
        "the reading before each of 5 million events (ASOF JOIN)",
        "SELECT count(*), sum(r.value) FROM 'FOLDER/events.parquet' e \
         ASOF JOIN 'FOLDER/readings.parquet' r ON e.entity = r.entity AND e.ts >= r.ts",
    ),
];

pub fn bench() -> Result<()> {
    run(cargo().args(["build", "--release", "--package", "twinlake-query", "--example", "time_series"]))?;
    let folder = target().join("bench-timeseries");
    let example = target().join("release/examples/time_series");
    if !folder.join("events.parquet").exists() {
        run(Command::new(&example).arg("generate").arg(&folder))?;
    }
    let python = peers(&folder)?;
    let mut own = Command::new(&example);
    own.arg("run").arg(&folder).arg(RUNS.to_string()).args(QUERIES.map(|(_, sql)| sql));
    let script = root().join("crates/xtask/src/bench/timeseries.py");
    let mut systems = vec![("Twinlake", ask(&mut own)?)];
    for (name, engine) in [("DuckDB 1.5.5", "duckdb"), ("chDB 4.4.0", "chdb")] {
        let mut command = Command::new(&python);
        command.arg(&script).arg(engine).arg(&folder).arg(RUNS.to_string());
        systems.push((name, ask(&mut command)?));
    }
    let text = report(&systems)?;
    println!("{text}");
    std::fs::write(root().join("docs/benchmarks/timeseries.md"), text)?;
    Ok(())
}

/// A Python environment with the peers.
fn peers(folder: &Path) -> Result<std::path::PathBuf> {
    let environment = folder.join("python");
    let python = environment.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(PEERS))?;
    }
    Ok(python)
}

/// For each query the seconds of each run, and the answer.
fn ask(command: &mut Command) -> Result<Vec<Answer>> {
    let told = output(command).with_context(|| format!("failed: {command:?}"))?;
    let numbers = |text: &str| -> Result<Vec<f64>> {
        text.split_whitespace()
            .map(|number| number.parse().with_context(|| format!("no number: {number}")))
            .collect()
    };
    told.lines()
        .map(|line| {
            let (seconds, answer) = line.split_once('|').with_context(|| format!("no answer: {line}"))?;
            Ok((numbers(seconds)?, numbers(answer)?))
        })
        .collect()
}

fn report(systems: &[(&str, Vec<Answer>)]) -> Result<String> {
    let mut text = format!("# Time series\n\n`cargo xtask bench timeseries` on {}\n\n", machine(&[]));
    text += "50 million readings of 100,000 entities in six hours, as they come in (sorted by time, each entity silent in a fifth \
             of its half hours), and 5 million events: two Parquet files, read from the page cache. Two threads each; the best of three runs, \
             in seconds; the answers (counts, and sums within a millionth) are compared. \
             The words of each system are in `crates/xtask/src/bench/timeseries.{rs,py}`.\n\n";
    text += "| query |";
    for (name, _) in systems {
        write!(text, " {name} |")?;
    }
    text += "\n|---|";
    text += &"---|".repeat(systems.len());
    text += "\n";
    for (number, (title, _)) in QUERIES.iter().enumerate() {
        write!(text, "| {title} |")?;
        let mut first: Option<&[f64]> = None;
        for (name, answers) in systems {
            let (seconds, answer) =
                answers.get(number).with_context(|| format!("{name} did not answer: {title}"))?;
            let same = |one: &[f64]| {
                one.len() == answer.len()
                    && one.iter().zip(answer).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs().max(1.0))
            };
            if !first.is_none_or(same) {
                bail!("{title}: {name} answers {answer:?}, not {first:?}");
            }
            first.get_or_insert(answer);
            write!(text, " {:.2} |", seconds.iter().copied().fold(f64::INFINITY, f64::min))?;
        }
        text += "\n";
    }
    Ok(text)
}
