//! `cargo xtask bench twins`: a million twins in memory, read one at a time, by box and over HTTP, while they change; and forks.
//! Peers are Redis with a geographic set and PostGIS, with the same positions. `TWINLAKE_BENCH_TWINS` gives another number of
//! twins, for a try; then nothing is written to `docs/benchmarks`.

mod postgis;
mod redis;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::http_load::Asker;
use super::process::machine;
use super::report::{Case, Report};
use crate::run::{cargo, run};
use crate::setup::target;

const TWINS: u64 = 1_000_000;
const UPDATES: u64 = 2_000_000;
const FORK_ROWS: u64 = 10_000_000;
const OVERRIDES: u64 = 1_000_000;

/// The groups of cases.
const ONE: &str = "one twin by its key";
const BOX: &str = "a box of 1,000 twins";
const UPDATE: &str = "updates";

pub fn bench() -> Result<()> {
    let asked = std::env::var("TWINLAKE_BENCH_TWINS").ok().map(|text| text.parse::<u64>()).transpose();
    let asked = asked.context("TWINLAKE_BENCH_TWINS is not a number")?;
    let count = asked.unwrap_or(TWINS);
    // A try is as small in all.
    let part = |whole: u64| (whole * count / TWINS).max(1_000);
    let (updates, fork_rows, overrides) = (part(UPDATES), part(FORK_ROWS), part(OVERRIDES));
    run(cargo().args(["build", "--release", "--package", "twinlake-service", "--example", "twins_bench"]))?;
    // PostgreSQL runs as a user of its own, who must be able to get there.
    let folder = std::env::temp_dir().join(format!("twinlake-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut report = Report {
        name: "twins",
        title: "Twins in memory",
        machine: machine(&[("redis-server", "--version"), ("postgres", "--version")]),
        about: vec![
            format!(
                "{count} vehicles whose present is kept in memory: one by its key, all in a box that holds about a thousand, \
                 and readings of random vehicles. \"In process\" is a call of the library, \"SQL\" a statement of a session of it, HTTP \
                 `GET /v1/twins/vehicle/KEY` on kept connections from another process. Then forks of a table."
            ),
            "Peers have the same positions. Redis: a hash for each vehicle and a geographic set of all, over TCP; its box gives keys and \
             places, without the state, and its updates are a `HSET` and a `GEOADD` each, 1,000 in a pipeline. PostGIS: a table with a primary key and a \
             GiST index, prepared statements by pgbench over TCP; its updates are statements of 1,000 vehicles with `synchronous_commit` off."
                .to_owned(),
        ],
        cases: Vec::new(),
        notes: Vec::new(),
    };
    let sizes = [count, updates, fork_rows, overrides];
    let result = twinlake(&folder, sizes, &mut report)
        .and_then(|()| redis::bench(&folder, count, &mut report))
        .and_then(|()| postgis::bench(&folder, count, &mut report));
    std::fs::remove_dir_all(&folder).context("the folder of the benchmark stays")?;
    result?;
    report
        .cases
        .sort_by_key(|case| [ONE, BOX, UPDATE].iter().position(|group| *group == case.group).unwrap_or(9));
    if asked.is_some() {
        println!("nothing is written: this was a try with {count} twins");
        return Ok(());
    }
    report.write()
}

/// Runs `twins_bench`, and measures it over HTTP while it waits.
fn twinlake(folder: &Path, sizes: [u64; 4], report: &mut Report) -> Result<()> {
    let mut child = Command::new(target().join("release/examples/twins_bench"))
        .args(sizes.map(|number| number.to_string()))
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("twins_bench does not start")?;
    let lines = BufReader::new(child.stdout.take().context("twins_bench has no output")?).lines();
    for line in lines {
        let line = line?;
        let parts: Vec<&str> = line.split('\t').collect();
        match parts.as_slice() {
            ["note", text] => report.note((*text).to_owned()),
            ["http", port] => {
                for connections in [1, 8] {
                    report.add(http(port.parse()?, sizes[0], connections)?);
                }
                let mut input = child.stdin.take().context("twins_bench has no input")?;
                writeln!(input, "go on")?;
            }
            [group, load, unit, numbers @ ..] if numbers.len() == 4 => {
                let number = |at: usize| numbers[at].parse::<f64>();
                report.add(Case {
                    group: (*group).to_owned(),
                    system: "Twinlake".to_owned(),
                    load: (*load).to_owned(),
                    unit: (*unit).to_owned(),
                    per_second: number(0)?,
                    p50_ms: Some(number(1)?),
                    p99_ms: Some(number(2)?),
                    p999_ms: Some(number(3)?),
                    ..Case::default()
                });
            }
            _ => bail!("twins_bench says: {line}"),
        }
    }
    if !child.wait()?.success() {
        bail!("twins_bench failed");
    }
    Ok(())
}

/// The key of a vehicle, as `twins_bench` names them.
fn key(vehicle: u64) -> String {
    format!("v{vehicle:07}")
}

/// Splitmix64 (Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The p50, p99 and p99.9 of latencies in milliseconds.
fn quantiles(mut latencies: Vec<f64>) -> [Option<f64>; 3] {
    latencies.sort_by(f64::total_cmp);
    let last = latencies.len().saturating_sub(1);
    [0.5, 0.99, 0.999].map(|quantile| latencies.get((quantile * last as f64).round() as usize).copied())
}

/// The states of random vehicles over HTTP, each connection one after the other.
fn http(port: u16, count: u64, connections: u64) -> Result<Case> {
    const READS: u64 = 20_000;
    let start = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|connection| {
            std::thread::spawn(move || -> Result<Vec<f64>> {
                let mut asker = Asker::connect(port)?;
                let mut latencies = Vec::new();
                for number in 0..READS / connections {
                    let key = key(mix(connection << 32 | number) % count);
                    let begun = Instant::now();
                    let told = asker.get(&format!("/v1/twins/vehicle/{key}"))?;
                    latencies.push(begun.elapsed().as_secs_f64() * 1e3);
                    if !told.contains(&key) {
                        bail!("not the state of {key}: {told}");
                    }
                }
                Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??);
    }
    let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
    let [p50_ms, p99_ms, p999_ms] = quantiles(latencies);
    Ok(Case {
        group: ONE.to_owned(),
        system: "Twinlake".to_owned(),
        load: format!("HTTP, {connections} connection{}", if connections == 1 { "" } else { "s" }),
        unit: "reads".to_owned(),
        per_second,
        p50_ms,
        p99_ms,
        p999_ms,
        ..Case::default()
    })
}
