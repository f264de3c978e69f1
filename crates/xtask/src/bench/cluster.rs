//! `cargo xtask bench cluster`: the same questions in one process, on a cluster with one executor and with two, over tables of
//! three sizes. All run on this machine, so that executors share its cores: what is seen is the cost of cutting a query into
//! parts, not the gain of more machines.
//!
//! With `TWINLAKE_BINARY` it measures that binary, else one built in the release profile.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::process::{Server, free_port, machine};
use crate::run::{cargo, root, run};
use crate::setup::target;

const RUNS: usize = 3;
const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const SLOTS: &str = "1";

/// What is asked; the first shows what starting the program costs.
const QUESTIONS: [(&str, &str); 5] = [
    ("nothing: the start of the client", "SELECT 1 AS one"),
    (
        "an aggregate by 1,000 keys",
        "SELECT count(*), sum(s) FROM (SELECT k, sum(v) AS s FROM bench.reading GROUP BY k)",
    ),
    ("a sort of all rows, the first 10", "SELECT id, v FROM bench.reading ORDER BY v, id LIMIT 10"),
    (
        "points in 200 polygons",
        "SELECT count(*) FROM bench.reading r JOIN (SELECT st_buffer(geom, 0.01) AS zone FROM bench.reading WHERE id < 200) z \
         ON st_intersects(z.zone, r.geom)",
    ),
    (
        "pairs of equal keys, 100 to 1,000 for each row",
        "SELECT count(*), sum(a.id % 7 + b.id % 5) FROM bench.reading a JOIN bench.reading b ON a.id % 1000 = b.k \
         WHERE a.id < 100000 AND b.id < 1000000",
    ),
];

pub fn bench() -> Result<()> {
    let binary = if let Some(binary) = std::env::var_os("TWINLAKE_BINARY") {
        PathBuf::from(binary)
    } else {
        run(cargo().args(["build", "--release", "--package", "twinlake-cli"]))?;
        target().join("release/twinlake")
    };
    let folder = target().join("bench-cluster");
    let mut text =
        format!("{}\n\nBinary: {}. Seconds, the median of {RUNS}.\n\n", machine(&[]), built(&binary));
    text.push_str("| rows | question | here | one executor | two executors |\n|---|---|---|---|---|\n");
    for size in SIZES {
        let lake = folder.join(size.to_string());
        fill(&binary, &lake, size)?;
        let here = ask(&binary, &lake, None)?;
        let one = clustered(&binary, &lake, 1)?;
        let two = clustered(&binary, &lake, 2)?;
        for (place, (question, _)) in QUESTIONS.iter().enumerate() {
            let seconds = [&here, &one, &two].map(|answers| &answers[place]);
            if seconds.iter().any(|(_, answer)| *answer != here[place].1) {
                bail!("the answers to '{question}' differ: {seconds:?}");
            }
            let [a, b, c] = seconds.map(|(seconds, _)| seconds);
            writeln!(text, "| {size} | {question} | {a:.2} | {b:.2} | {c:.2} |")?;
        }
    }
    println!("{text}");
    fs::write(root().join("docs/benchmarks/cluster.md"), format!("# What a cluster costs\n\n{text}"))?;
    Ok(())
}

fn built(binary: &Path) -> &'static str {
    if binary.components().any(|part| part.as_os_str() == "release") {
        "release profile"
    } else {
        "development profile, not optimised"
    }
}

/// A lake with one table of readings, made once.
fn fill(binary: &Path, lake: &Path, size: u64) -> Result<()> {
    if lake.join("done").exists() {
        return Ok(());
    }
    let _ = fs::remove_dir_all(lake);
    fs::create_dir_all(lake)?;
    let mut lines = String::new();
    for id in 0..size {
        let (lon, lat) =
            (24.5 + (id * 7_919 % 10_007) as f64 * 1e-4, 60.0 + (id * 104_729 % 10_009) as f64 * 5e-5);
        writeln!(
            lines,
            "{{\"id\":{id},\"k\":{},\"v\":{},\"lon\":{lon},\"lat\":{lat}}}",
            id % 1_000,
            id * 31 % 9_973
        )?;
    }
    fs::write(lake.join("reading.jsonl"), lines)?;
    let pipeline = "name = \"reading\"\n\n[sources.reading]\ntype = \"files\"\npath = \"reading.jsonl\"\n\
        decoder = { type = \"json\", columns = { id = { type = \"int64\" }, k = { type = \"int64\" }, v = { type = \"float64\" }, \
        lon = { type = \"float64\" }, lat = { type = \"float64\" } } }\n\n[transforms.placed]\ntype = \"sql\"\ninputs = [\"reading\"]\n\
        query = \"SELECT id, k, v, st_point(lon, lat) AS geom FROM input\"\n\n[sinks.out]\ntype = \"lake\"\ninputs = [\"placed\"]\n\
        table = \"bench.reading\"\n";
    fs::write(lake.join("reading.toml"), pipeline)?;
    run(Command::new(binary).current_dir(lake).args(["run", "--once", "--no-progress", "reading.toml"]))?;
    run(Command::new(binary).current_dir(lake).args(["table", "compact", "bench.reading"]))?;
    fs::write(lake.join("done"), "")?;
    Ok(())
}

/// The median of the seconds of each question, and its answer.
fn ask(binary: &Path, lake: &Path, engine: Option<&str>) -> Result<Vec<(f64, String)>> {
    let mut answers = Vec::new();
    for (question, sql) in QUESTIONS {
        let mut seconds = Vec::new();
        let mut answer = String::new();
        for _ in 0..RUNS {
            let mut command = Command::new(binary);
            command.current_dir(lake).args(["sql", "--format", "csv", "-c", sql]);
            if let Some(engine) = engine {
                command.args(["--engine", engine]);
            }
            let begin = Instant::now();
            let output = command.output()?;
            seconds.push(begin.elapsed().as_secs_f64());
            if !output.status.success() {
                bail!("{question}: {}", String::from_utf8_lossy(&output.stderr));
            }
            answer = String::from_utf8(output.stdout)?;
        }
        seconds.sort_by(f64::total_cmp);
        answers.push((seconds[seconds.len() / 2], answer));
    }
    Ok(answers)
}

fn clustered(binary: &Path, lake: &Path, executors: usize) -> Result<Vec<(f64, String)>> {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let scheduling = free_port()?;
    let mut command = Command::new(binary);
    command.args(["scheduler", "--listen", &address(scheduling)]);
    let _scheduler = Server::start("scheduler", &mut command, lake, scheduling)?;
    let mut running = Vec::new();
    for _ in 0..executors {
        let port = free_port()?;
        let mut command = Command::new(binary);
        command.args(["executor", "--scheduler", &address(scheduling), "--slots", SLOTS]);
        command.args(["--listen", &address(port)]);
        running.push(Server::start("executor", &mut command, lake, port)?);
    }
    let engine = format!("ballista://{}?partitions=4", address(scheduling));
    let answers = ask(binary, lake, Some(&engine)).context("on the cluster");
    drop(running);
    answers
}
