//! Benchmarks by name.

mod bills;
mod cluster;
mod database;
mod http_load;
mod ingest;
mod lake;
mod operators;
mod process;
mod report;
mod reprocess;
mod spatial;
mod timeseries;
mod twins;

use anyhow::{Result, bail};

/// Name, what it measures, the example that runs it (package, example).
const BENCHMARKS: &[(&str, &str, &str, &str)] = &[(
    "line_protocol",
    "the decoder of InfluxDB line protocol on one core",
    "twinlake-formats",
    "line_protocol",
)];

/// Name, what it measures, the function that runs it.
type Program = (&'static str, &'static str, fn() -> Result<()>);

/// Those with peers, which write to `docs/benchmarks`.
const PROGRAMS: &[Program] = &[
    (
        "ingest",
        "line protocol and MQTT into the lake, 100,000 connections; peers InfluxDB 1.x, PostgreSQL, mosquitto where installed",
        ingest::bench,
    ),
    (
        "cluster",
        "the same questions in one process, on one executor and on two: where distribution costs more than it gives",
        cluster::bench,
    ),
    ("lake", "commits, compaction and pruning of a table; peer DuckDB", lake::bench),
    ("reprocess", "electricity bills (peer DuckDB), and a stream against its reprocessing", reprocess::bench),
    ("spatial", "the twelve questions of SpatialBench at scale 1; peers DuckDB and SedonaDB", spatial::bench),
    (
        "timeseries",
        "last value, gap filling and ASOF join over 50 million readings; peers DuckDB and chDB",
        timeseries::bench,
    ),
    (
        "twins",
        "a million twins in memory: point reads, boxes, updates, HTTP, forks; peers Redis and PostGIS where installed",
        twins::bench,
    ),
];

/// Runs one in the release profile, or shows the list.
pub fn bench(name: Option<&str>) -> Result<()> {
    let examples = BENCHMARKS.iter().map(|(name, what, ..)| (*name, *what));
    let list = examples
        .chain(PROGRAMS.iter().map(|(name, what, _)| (*name, *what)))
        .chain(operators::OPERATORS.iter().map(|operator| (operator.name, operator.what)))
        .chain([("simulate", "all five of the simulation operators above")])
        .map(|(name, what)| format!("  {name:18} {what}"))
        .collect::<Vec<_>>()
        .join("\n");
    let Some(name) = name else {
        println!("benchmarks:\n{list}");
        return Ok(());
    };
    if let Some((.., program)) = PROGRAMS.iter().find(|(known, ..)| *known == name) {
        return program();
    }
    if let Some(operator) = operators::OPERATORS.iter().find(|operator| operator.name == name) {
        return operators::bench(operator);
    }
    if name == "simulate" {
        return operators::OPERATORS.iter().try_for_each(operators::bench);
    }
    let Some((_, _, package, example)) = BENCHMARKS.iter().find(|(known, ..)| *known == name) else {
        bail!("unknown benchmark '{name}'; there are:\n{list}");
    };
    crate::run::run(crate::run::cargo().args([
        "run",
        "--release",
        "--package",
        package,
        "--example",
        example,
    ]))
}
