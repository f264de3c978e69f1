//! `cargo xtask bench spatial`: the twelve questions of SpatialBench at scale 1, peers DuckDB and SedonaDB.
//!
//! All three read the same Parquet files with two threads and 4 GiB, and give the rows one after the other. A question
//! that takes longer than [`PATIENCE`] is given up. Answers are compared row by row.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::machine;
use crate::run::{cargo, output, root, run};
use crate::setup::target;

/// After this a peer's question is given up.
const PATIENCE: Duration = Duration::from_mins(2);
const RUNS: &str = "3";
const PYTHON: &[&str] = &[
    "spatialbench-cli==0.2.0",
    "sedonadb==0.5.0",
    "duckdb==1.5.5",
    "duckdb-extension-spatial==1.5.5",
    "pyarrow==26.0.1",
];
const NODE: &[&str] = &["us-atlas@3.0.1", "world-atlas@2.0.2"];
const PEERS: [(&str, &str); 2] = [("duckdb", "DuckDB 1.5.5"), ("sedonadb", "SedonaDB 0.5.0")];

pub fn bench() -> Result<()> {
    let questions = root().join("tests/bench/spatial");
    let folder = target().join("spatialbench");
    fs::create_dir_all(&folder)?;
    let python = environment(&folder)?;
    let data = tables(&folder, &python, &questions)?;
    run(cargo().args(["build", "--release", "--package", "twinlake-query", "--example", "spatial_bench"]))?;
    let results = folder.join("results");
    fs::create_dir_all(&results)?;

    let mut report = format!(
        "# Spatial\n\n`cargo xtask bench spatial` on {}; SpatialBench at scale 1 (6,000,000 trips, 20,000 buildings; \
         zones: 3,542 polygons of public maps). Two threads and 4 GiB each, the same Parquet files, rows read to the \
         end. Twinlake: the median of {RUNS} runs; a peer: one run in a process of its own, given up after {} s. \
         `answers` says whether the rows are those of the peer, compared one by one.\n\n\
         | question | Twinlake s | DuckDB 1.5.5 s | SedonaDB 0.5.0 s | times as fast as the next | rows | answers |\n\
         |---|---|---|---|---|---|---|\n",
        machine(&[]),
        PATIENCE.as_secs()
    );
    // What the peers do not write in time is compared for a part of the trips.
    let part = ("12, of a fortieth of the trips".to_owned(), "q12part".to_owned());
    let all = (1..=12).map(|number| (number.to_string(), format!("q{number:02}")));
    for (number, question) in all.chain([part]) {
        let (ours, rows) = twinlake(&data, &questions, &results, &question)?;
        let mut cells = Vec::new();
        let (mut best, mut answers) = (f64::INFINITY, Vec::new());
        for (engine, name) in PEERS {
            let theirs = results.join(format!("{question}.{engine}.parquet"));
            let seconds = peer(&python, &questions, engine, &data, &question, &theirs)?;
            if let Ok(seconds) = seconds {
                best = best.min(seconds);
                let ours = results.join(format!("{question}.parquet"));
                let said = output(
                    Command::new(&python)
                        .arg(questions.join("peers.py"))
                        .arg("compare")
                        .args([&ours, &theirs]),
                );
                answers.push(format!("{name}: {}", said.as_deref().unwrap_or("not comparable").trim()));
            }
            cells.push(seconds.map_or_else(|why| why, |seconds| format!("{seconds:.2}")));
        }
        let factor = match ours {
            Some(ours) if best.is_finite() => format!("{:.1}", best / ours),
            _ => String::new(),
        };
        let ours = ours.map_or_else(|| "fails".to_owned(), |seconds| format!("{seconds:.2}"));
        let line = format!(
            "| {number} | {ours} | {} | {factor} | {rows} | {} |",
            cells.join(" | "),
            answers.join("; ")
        );
        println!("{line}");
        writeln!(report, "{line}")?;
    }
    let file = root().join("docs/benchmarks/spatial.md");
    fs::write(&file, report).with_context(|| format!("cannot write {}", file.display()))
}

/// A Python of its own, with the peers.
fn environment(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("python/bin/python");
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("python")))?;
    }
    run(Command::new(&python)
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
        .args(PYTHON))?;
    Ok(python)
}

/// The four tables as Parquet files.
fn tables(folder: &Path, python: &Path, questions: &Path) -> Result<PathBuf> {
    let data = folder.join("data");
    fs::create_dir_all(&data)?;
    if !data.join("trip.parquet").is_file() {
        let generator = python.with_file_name("spatialbench-cli");
        run(Command::new(generator).args(["-s", "1", "-T", "trip,building,customer", "-o"]).arg(&data))?;
    }
    if !data.join("zone.parquet").is_file() {
        let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        run(Command::new("npm").args(npm).arg(folder).args(NODE))?;
        run(Command::new(python)
            .arg(questions.join("zones.py"))
            .args([folder.join("node_modules"), data.join("zone.parquet")]))?;
    }
    Ok(data)
}

/// The median of the seconds, if it answers, and how many rows, or why not.
fn twinlake(data: &Path, questions: &Path, results: &Path, question: &str) -> Result<(Option<f64>, String)> {
    let mut command = Command::new(target().join("release/examples/spatial_bench"));
    command.arg(data).arg(questions).arg("--results").arg(results).args(["--runs", RUNS, question]);
    let told = output(&mut command).with_context(|| format!("spatial_bench ended early at {question}"))?;
    let mut parts = told.trim().split('\t').skip(1);
    let seconds = parts.next().unwrap_or_default();
    let rows = parts.next().unwrap_or_default().to_owned();
    let mut seconds: Vec<f64> = seconds.split(' ').filter_map(|text| text.parse().ok()).collect();
    seconds.sort_by(f64::total_cmp);
    Ok((seconds.get(seconds.len() / 2).copied(), rows))
}

/// The seconds of a peer, or why there are none.
fn peer(
    python: &Path,
    questions: &Path,
    engine: &str,
    data: &Path,
    question: &str,
    result: &Path,
) -> Result<Result<f64, String>> {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(python).arg(questions.join("peers.py"));
    command.arg("run").arg(engine).arg(data).arg(questions.join("peers")).arg(question).arg(result);
    let output = command.output().with_context(|| format!("cannot start {}", python.display()))?;
    let told = String::from_utf8_lossy(&output.stdout);
    if let Some(seconds) = told.split('\t').next().and_then(|text| text.trim().parse::<f64>().ok()) {
        return Ok(Ok(seconds));
    }
    // What `timeout` gives back when the time is over.
    Ok(Err(if output.status.code() == Some(124) {
        format!("> {}", PATIENCE.as_secs())
    } else {
        "fails".to_owned()
    }))
}
