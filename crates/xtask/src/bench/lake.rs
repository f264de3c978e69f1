//! `cargo xtask bench lake`: commits, compaction, pruning; peer DuckDB's `delta_scan` on the same table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::process::machine;
use crate::run::{cargo, output, root, run};
use crate::setup::target;

const PEERS: [&str; 4] =
    ["duckdb==1.5.5", "duckdb-extension-delta==1.5.5", "duckdb-extension-spatial==1.5.5", "pytz==2025.2"];

/// A Python environment with the peer.
fn peers(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("python/bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("python")))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(PEERS))?;
    }
    Ok(python)
}

pub fn bench() -> Result<()> {
    run(cargo().args(["build", "--release", "--package", "twinlake-query", "--example", "lake_bench"]))?;
    let folder = target().join("bench-lake");
    let python = peers(&folder)?;
    let lake = folder.join("lake");
    if lake.exists() {
        fs::remove_dir_all(&lake)?;
    }
    fs::create_dir_all(&lake)?;
    let mut own = Command::new(target().join("release/examples/lake_bench"));
    let told = output(own.arg(&lake)).context("lake_bench ended early")?;
    let figures: BTreeMap<&str, f64> = told
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    let figure =
        |name: &str| figures.get(name).copied().with_context(|| format!("no figure '{name}' in {told}"));
    let mut peer = Command::new(&python);
    peer.arg(root().join("tests/bench/lake_peer.py")).arg(lake.join("bench/position"));
    let said = output(&mut peer).context("the peer ended early")?;
    let theirs: Vec<Vec<f64>> = said
        .lines()
        .map(|line| line.split_whitespace().filter_map(|text| text.parse().ok()).collect())
        .collect();
    let [small, all] = &theirs[..] else { anyhow::bail!("the peer said: {said}") };
    for (name, theirs) in [("after small rows", small), ("after all rows", all)] {
        anyhow::ensure!(figure(name)? == theirs[1], "{name}: {} here, {} there", figure(name)?, theirs[1]);
    }
    let megabytes = |name: &str| figure(name).map(|bytes| bytes / 1e6);
    let text = format!(
        "# Lake\n\n`cargo xtask bench lake` on {}\n\n\
         One table of vehicle positions (text, time, number, point; 50,000 rows a commit, a minute of traffic each), local disk, every\n\
         commit synced. The small query asks for 400 m by 400 m and five minutes; DuckDB 1.5.5 asks the compacted table for the same by\n\
         `delta_scan`, the columns of the boxes and `ST_Intersects`, two threads each. Times of queries are the best of five.\n\n\
         | what | figure |\n|---|---|\n\
         | 200 commits of 50,000 rows | {:.0} rows/s |\n\
         | a commit of 50,000 rows, p50 / p99 | {:.0} / {:.0} ms |\n\
         | a commit of one row, p50 / p99 | {:.1} / {:.1} ms |\n\
         | compaction | {:.0} MB/s, {:.0} rows/s |\n\
         | files, MB before and after | {:.0}, {:.0} → {:.0}, {:.0} |\n\
         | most memory | {:.0} MiB |\n\n\
         | query | rows | before: ms, MB read | after: ms, MB read | DuckDB after: ms |\n|---|---|---|---|---|\n\
         | a small area and time | {:.0} | {:.1}, {:.2} | {:.1}, {:.2} | {:.1} |\n\
         | everything | {:.0} | {:.1}, {:.2} | {:.1}, {:.2} | {:.1} |\n",
        machine(&[]),
        figure("commit rows/s")?,
        figure("commit p50 ms")?,
        figure("commit p99 ms")?,
        figure("commit of one row p50 ms")?,
        figure("commit of one row p99 ms")?,
        figure("compaction MB/s")?,
        figure("compaction rows/s")?,
        figure("before files")?,
        megabytes("before bytes")?,
        figure("after files")?,
        megabytes("after bytes")?,
        figure("peak MiB")?,
        figure("after small rows")?,
        figure("before small ms")?,
        megabytes("before small bytes read")?,
        figure("after small ms")?,
        megabytes("after small bytes read")?,
        small[0],
        figure("after all rows")?,
        figure("before all ms")?,
        megabytes("before all bytes read")?,
        figure("after all ms")?,
        megabytes("after all bytes read")?,
        all[0],
    );
    println!("{text}");
    fs::write(root().join("docs/benchmarks/lake.md"), text)?;
    Ok(())
}
