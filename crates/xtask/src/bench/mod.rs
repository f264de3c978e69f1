//! Benchmarks by name.

mod cluster;
mod http_load;
mod ingest;
mod process;
mod report;
mod spatial;
mod timeseries;

use anyhow::{Result, bail};

/// Name, what it measures, the example that runs it (package, example).
const BENCHMARKS: &[(&str, &str, &str, &str)] = &[
    (
        "simulate",
        "traffic assignment to a relative gap of 1e-10; with TWINLAKE_TESTDATA also on the published networks",
        "twinlake-simulate",
        "traffic_assignment",
    ),
    (
        "line_protocol",
        "the decoder of InfluxDB line protocol on one core",
        "twinlake-formats",
        "line_protocol",
    ),
];

/// Runs one in the release profile, or shows the list.
pub fn bench(name: Option<&str>) -> Result<()> {
    let own = (
        "ingest",
        "line protocol and MQTT into the lake, 100,000 connections; peers InfluxDB 1.x, PostgreSQL, mosquitto where installed",
    );
    let time_series = (
        "timeseries",
        "last value, gap filling and ASOF join over 50 million readings; peers DuckDB and chDB",
    );
    let cluster = (
        "cluster",
        "the same questions in one process, on one executor and on two: where distribution costs more than it gives",
    );
    let spatial = ("spatial", "the twelve questions of SpatialBench at scale 1; peers DuckDB and SedonaDB");
    let examples = BENCHMARKS.iter().map(|(name, what, ..)| (*name, *what));
    let list = examples
        .chain([own, time_series, spatial, cluster])
        .map(|(name, what)| format!("  {name:12} {what}"))
        .collect::<Vec<_>>()
        .join("\n");
    let Some(name) = name else {
        println!("benchmarks:\n{list}");
        return Ok(());
    };
    if name == own.0 {
        return ingest::bench();
    }
    if name == cluster.0 {
        return cluster::bench();
    }
    if name == spatial.0 {
        return spatial::bench();
    }
    if name == time_series.0 {
        return timeseries::bench();
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
