//! `cargo xtask bench reprocess`: electricity bills against DuckDB, and a stream against its reprocessing.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::process::machine;
use crate::run::{cargo, output, root, run};
use crate::setup::target;

const MESSAGES: u64 = 1_000_000;
const DEDUP: &str = "dedup = { by = [\"meter\", \"ts\"], within = \"2h\" }\n";
const PIPELINE: &str = r#"name = "meters"

[sources.meter]
type = "files"
path = "meters.jsonl"
decoder = { type = "json", columns = { meter = { type = "int64", required = true }, ts = { type = "utf8" }, kwh = { type = "float64" } } }

[transforms.reading]
type = "sql"
inputs = ["meter"]
query = "SELECT meter, to_timestamp(ts) AS ts, CAST(kwh AS DECIMAL(12, 3)) AS kwh FROM input"

[transforms.clean]
type = "clean"
inputs = ["reading"]
key = ["meter"]
require = ["meter", "ts"]
dedup = { by = ["meter", "ts"], within = "2h" }

[sinks.reading]
type = "lake"
inputs = ["clean"]
table = "energy.reading"
"#;

/// Meters that send one after the other, each hour; every hundredth message comes twice.
fn messages(file: &Path) -> Result<()> {
    let mut out = BufWriter::new(fs::File::create(file)?);
    for number in 0..MESSAGES {
        let (meter, hour) = (number % 20_000, number / 20_000);
        let line = format!(
            "{{\"meter\":{meter},\"ts\":\"2024-03-{:02}T{:02}:00:00Z\",\"kwh\":{}.{:03}}}\n",
            1 + hour / 24,
            hour % 24,
            number % 3,
            number % 1000
        );
        out.write_all(line.as_bytes())?;
        if number % 100 == 0 {
            out.write_all(line.as_bytes())?;
        }
    }
    Ok(out.flush()?)
}

/// The rows of the table, told apart by their values alone.
const FINGERPRINT: &str = "SELECT count(*), sum(kwh), sum(CAST(kwh * 1000 AS BIGINT) * meter), min(ts), max(ts), \
                           count(DISTINCT _sequence) FROM energy.reading";

fn stream() -> Result<String> {
    run(cargo().args(["build", "--release", "--package", "twinlake-cli"]))?;
    let folder = target().join("bench-reprocess");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    messages(&folder.join("meters.jsonl"))?;
    fs::write(folder.join("meters.toml"), PIPELINE)?;
    // The same without a step that remembers, whose pieces do not depend on each other.
    let plain = folder.join("plain");
    fs::create_dir_all(&plain)?;
    fs::hard_link(folder.join("meters.jsonl"), plain.join("meters.jsonl"))?;
    fs::write(plain.join("meters.toml"), PIPELINE.replace(DEDUP, ""))?;
    let twinlake = |folder: &Path, arguments: &[&str]| -> Result<(f64, String)> {
        let mut command = Command::new(target().join("release/twinlake"));
        command.current_dir(folder).args(arguments).arg("--no-progress");
        let start = Instant::now();
        let told = output(&mut command).with_context(|| format!("failed: {command:?}"))?;
        Ok((start.elapsed().as_secs_f64(), told))
    };
    let mut text = "| a million messages, cleaned | s | messages/s |\n|---|---|---|\n".to_owned();
    let mut line = |what: &str, seconds: f64| -> Result<()> {
        let line = format!("| {what} | {seconds:.1} | {:.0} |\n", MESSAGES as f64 * 1.01 / seconds);
        print!("{line}");
        Ok(text.write_str(&line)?)
    };
    for (folder, kind, more) in [
        (&folder, "", ["reprocess", "meters.toml", "--where", "_sequence % 20 = 0"]),
        (&plain, ", no deduplication", ["reprocess", "meters.toml", "--parallel", "2"]),
    ] {
        let ask =
            || -> Result<String> { Ok(twinlake(folder, &["sql", "--format", "csv", "-c", FINGERPRINT])?.1) };
        line(
            &format!("stream: `twinlake run`{kind}"),
            twinlake(folder, &["run", "meters.toml", "--once"])?.0,
        )?;
        let first = ask()?;
        line(&format!("`twinlake reprocess`{kind}"), twinlake(folder, &["reprocess", "meters.toml"])?.0)?;
        ensure!(ask()? == first, "the reprocessing gave other rows");
        let shown = more[2..].join(" ");
        line(&format!("`twinlake reprocess {shown}`{kind}"), twinlake(folder, &more)?.0)?;
        ensure!(ask()? == first, "the reprocessing with {shown} gave other rows");
    }
    Ok(text)
}

pub fn bench() -> Result<()> {
    let bills = super::bills::bills()?;
    let stream = stream()?;
    let text = format!(
        "# Bills and reprocessing\n\n`cargo xtask bench reprocess` on {}\n\n\
         Electricity bills of a month in exact decimals: time-of-use prices and a three-tier surcharge, rounded half up to the cent (fen)\n\
         once, written as Parquet. The same files and almost the same words (`tests/bench/bills`) for Twinlake and DuckDB 1.5.5, two threads\n\
         and 4 GiB each, the best of three runs. All bills are compared with the peer's.\n\n{bills}\n\
         A million messages of meters as a file of JSON lines (every hundredth comes twice): recorded, decoded, cleaned, committed; then the\n\
         same again from the recorded messages, exchanged in one commit. Counts and sums of the table stay the same.\n\n{stream}",
        machine(&[])
    );
    fs::write(root().join("docs/benchmarks/reprocess.md"), text)?;
    Ok(())
}
