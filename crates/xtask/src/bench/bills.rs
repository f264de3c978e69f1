//! The bills of `cargo xtask bench reprocess`: 10 million customers by registers, 250,000 by hourly readings, computed by
//! Twinlake and DuckDB from the same Parquet files; equal to the cent, with a sample in Python's decimal.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{cargo, output, root, run};
use crate::setup::target;

const RUNS: usize = 3;
const PEERS: [&str; 2] = ["duckdb==1.5.5", "pytz==2025.2"];
/// Name, what it is, customers.
const CASES: [(&str, &str, u64); 2] = [
    ("registers", "registers at both ends of a month, three of each customer (60 million rows)", 10_000_000),
    ("hourly", "hourly readings of a month (186 million rows)", 250_000),
];

/// Seconds of the best run, bills, most memory in MiB.
struct Measured {
    seconds: f64,
    bills: u64,
    peak_mib: f64,
}

fn measured(commands: impl Iterator<Item = Command>) -> Result<Measured> {
    let mut best: Option<Measured> = None;
    for mut command in commands {
        let told = output(&mut command).with_context(|| format!("failed: {command:?}"))?;
        let numbers: Vec<f64> = told.split_whitespace().filter_map(|text| text.parse().ok()).collect();
        let [seconds, bills, peak_mib] = numbers[..] else { anyhow::bail!("no figures: {told}") };
        let peak_mib = best.as_ref().map_or(peak_mib, |best| best.peak_mib.max(peak_mib));
        let seconds = best.as_ref().map_or(seconds, |best| best.seconds.min(seconds));
        best = Some(Measured { seconds, bills: bills as u64, peak_mib });
    }
    best.context("nothing was run")
}

/// A Python environment with the peer.
fn peers(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("python/bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("python")))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(PEERS))?;
    }
    Ok(python)
}

/// Computes the bills; the table and what was found, as Markdown.
pub fn bills() -> Result<String> {
    run(cargo().args(["build", "--release", "--package", "twinlake-query", "--example", "bills"]))?;
    let folder = target().join("bench-bills");
    let example = target().join("release/examples/bills");
    if !folder.join("generated").exists() {
        let customers = CASES.map(|(.., customers)| customers.to_string());
        run(Command::new(&example).arg("generate").arg(&folder).args(customers))?;
        std::fs::write(folder.join("generated"), "")?;
    }
    let python = peers(&folder)?;
    let questions = root().join("tests/bench/bills");
    let script = questions.join("peers.py");
    let mut text =
        "| bills from | Twinlake s | DuckDB s | ratio | bills an hour | Twinlake MiB | DuckDB MiB |\n\
                    |---|---|---|---|---|---|---|\n"
            .to_owned();
    let mut notes = String::new();
    for (case, what, _) in CASES {
        let query = questions.join(format!("{case}.sql"));
        let sql = std::fs::read_to_string(&query)?;
        let (ours, theirs) =
            (folder.join(format!("{case}.ours.parquet")), folder.join(format!("{case}.theirs.parquet")));
        let own = measured((0..RUNS).map(|_| {
            let mut command = Command::new(&example);
            command.arg("run").arg(&folder).arg(&ours).arg(&sql);
            command
        }))?;
        let peer = measured((0..RUNS).map(|_| {
            let mut command = Command::new(&python);
            command.arg(&script).arg("run").arg(&folder).arg(&theirs).arg(&query);
            command
        }))?;
        let line = format!(
            "| {what} | {:.2} | {:.2} | {:.2} | {:.0} million | {:.0} | {:.0} |\n",
            own.seconds,
            peer.seconds,
            own.seconds / peer.seconds,
            own.bills as f64 / own.seconds * 3600.0 / 1e6,
            own.peak_mib,
            peer.peak_mib
        );
        print!("{line}");
        text += &line;
        let mut check = Command::new(&python);
        check.arg(&script).arg("check").arg(&folder).arg(&ours).arg(&theirs).arg(case);
        let told = output(&mut check).context("the bills are not equal")?;
        print!("{told}");
        writeln!(notes, "- {case}: {}", told.trim())?;
    }
    Ok(format!("{text}\n{notes}"))
}
