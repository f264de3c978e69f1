//! Runs the questions of `tests/bench/spatial` over Parquet files and times them.
//!
//! `spatial_bench DATA QUERIES [--results FOLDER] [--runs N] [--explain] [q01 q08 …]`: DATA holds trip.parquet,
//! building.parquet, customer.parquet and zone.parquet, QUERIES the questions. Two partitions, 4 GiB of memory for
//! queries. Each line that it prints is the question, the seconds of each run and the number of rows, by tabs. With
//! `--results` the rows of one more run are written to FOLDER, outside of the time.
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, EngineOptions, Session, SessionSettings};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TABLES: [&str; 4] = ["trip", "building", "customer", "zone"];
const MEMORY_BYTES: usize = 4 << 30;

struct Options {
    data: PathBuf,
    queries: PathBuf,
    results: Option<PathBuf>,
    runs: usize,
    explain: bool,
    only: Vec<String>,
}

fn options() -> Result<Options> {
    let mut arguments = std::env::args().skip(1);
    let mut folders = Vec::new();
    let (mut results, mut runs, mut explain, mut only) = (None, 1, false, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--results" => results = arguments.next().map(PathBuf::from),
            "--runs" => runs = arguments.next().ok_or("how many runs?")?.parse()?,
            "--explain" => explain = true,
            _ if folders.len() < 2 => folders.push(PathBuf::from(argument)),
            _ => only.push(argument),
        }
    }
    let [data, queries] = <[_; 2]>::try_from(folders)
        .map_err(|_| "spatial_bench DATA QUERIES [--results FOLDER] [--runs N] [q01 …]")?;
    Ok(Options { data, queries, results, runs, explain, only })
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let options = options()?;
    let folder = tempfile::tempdir()?;
    let lake = Lake::open(
        folder.path().to_str().ok_or("a path that is not text")?,
        LakeOptions { local_dir: folder.path().to_owned(), ..LakeOptions::default() },
    )
    .await?;
    let bounds = EngineOptions { memory_limit_bytes: Some(MEMORY_BYTES), partitions: NonZeroUsize::new(2) };
    let engine = Engine::with_options(lake, bounds)?;
    let session = engine.session(SessionSettings { local_files: true })?;
    for table in TABLES {
        let file = options.data.join(format!("{table}.parquet"));
        let parquet = datafusion::prelude::ParquetReadOptions::default();
        session.context().register_parquet(table, &file.to_string_lossy(), parquet).await?;
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&options.queries)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !options.only.is_empty() && !options.only.contains(&name) {
            continue;
        }
        let sql = std::fs::read_to_string(&file)?;
        match question(&session, &sql, &name, &options).await {
            Ok((seconds, rows)) => println!("{name}\t{}\t{rows}", seconds.join(" ")),
            Err(error) => println!("{name}\tfails\t{}", error.to_string().replace(['\n', '\t'], " ")),
        }
    }
    Ok(())
}

async fn question(
    session: &Session,
    sql: &str,
    name: &str,
    options: &Options,
) -> Result<(Vec<String>, usize)> {
    if options.explain {
        let told = session.collect(&format!("EXPLAIN ANALYZE {sql}")).await?;
        println!("{}", arrow::util::pretty::pretty_format_batches(&told)?);
    }
    let (mut seconds, mut rows) = (Vec::new(), 0);
    for _ in 0..options.runs {
        let start = Instant::now();
        rows = read(session, sql, None).await?;
        seconds.push(format!("{:.3}", start.elapsed().as_secs_f64()));
    }
    if let Some(folder) = &options.results {
        std::fs::create_dir_all(folder)?;
        rows = read(session, sql, Some(&folder.join(format!("{name}.parquet")))).await?;
    }
    Ok((seconds, rows))
}

/// Reads all rows, and writes them when a file is given.
async fn read(session: &Session, sql: &str, file: Option<&Path>) -> Result<usize> {
    let mut stream = session.execute(sql).await?;
    let mut writer = match file {
        Some(file) => Some(ArrowWriter::try_new(File::create(file)?, stream.schema(), None)?),
        None => None,
    };
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        if let Some(writer) = &mut writer {
            writer.write(&batch)?;
        }
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    Ok(rows)
}
