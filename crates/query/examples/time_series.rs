//! Readings of 100,000 entities for `cargo xtask bench timeseries`: `generate FOLDER` writes them, `run FOLDER SQL…` times
//! queries over them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Float64Array, Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use twinlake_contracts::timestamp_type;
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, EngineOptions, SessionSettings};

/// 2024-01-01T00:00:00Z.
const START_US: u64 = 1_704_067_200_000_000;
/// Six hours.
const SPAN_US: u64 = 6 * 3_600_000_000;
const ENTITIES: u64 = 100_000;
const READINGS: u64 = 50_000_000;
const EVENTS: u64 = 5_000_000;
const BATCH: u64 = 1 << 16;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["generate", folder] => generate(Path::new(folder)),
        ["run", folder, runs, queries @ ..] => run(Path::new(folder), runs.parse()?, queries).await,
        _ => Err("usage: time_series generate FOLDER | run FOLDER RUNS SQL…".into()),
    }
}

/// Splitmix64 (Steele, Lea and Flood, 2014): the same number gives the same bits.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// In the order of time, as a stream of readings comes in. Each entity is silent in a fifth of its half hours.
fn generate(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let step = SPAN_US as f64 / (READINGS as f64 * 1.25);
    let readings = (0_u64..).filter_map(|number| {
        let entity = mix(number) % ENTITIES;
        let after = (number as f64 * step) as u64;
        let silent = mix((entity << 20) | (after / 1_800_000_000)).is_multiple_of(5);
        let value = (mix(number ^ 0xffff_0000) % 4_000) as f64 / 100.0;
        (!silent).then_some((entity as i32, (START_US + after) as i64, value))
    });
    write(&folder.join("readings.parquet"), readings.take(READINGS as usize), true)?;
    let step = SPAN_US as f64 / EVENTS as f64;
    let events = (0..EVENTS).map(|number| {
        let entity = mix(number.wrapping_mul(31)) % ENTITIES;
        (entity as i32, (START_US + (number as f64 * step) as u64) as i64, 0.0)
    });
    write(&folder.join("events.parquet"), events, false)
}

fn write(path: &Path, mut rows: impl Iterator<Item = (i32, i64, f64)>, values: bool) -> Result<(), Failure> {
    let mut fields =
        vec![Field::new("entity", DataType::Int32, false), Field::new("ts", timestamp_type(), false)];
    if values {
        fields.push(Field::new("value", DataType::Float64, false));
    }
    let schema = Arc::new(Schema::new(fields));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(1 << 20))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties))?;
    loop {
        let (mut entities, mut times, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for (entity, time, value) in rows.by_ref().take(BATCH as usize) {
            entities.push(entity);
            times.push(time);
            numbers.push(value);
        }
        if entities.is_empty() {
            writer.close()?;
            return Ok(());
        }
        let mut columns: Vec<Arc<dyn arrow::array::Array>> = vec![
            Arc::new(Int32Array::from(entities)),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        ];
        if values {
            columns.push(Arc::new(Float64Array::from(numbers)));
        }
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
}

/// Prints for each query the seconds of each run and the values of its one row.
async fn run(folder: &Path, runs: usize, queries: &[&str]) -> Result<(), Failure> {
    let lake = tempfile::tempdir()?;
    let path = lake.path().to_str().ok_or("the folder's name is not UTF-8")?;
    let options = LakeOptions { local_dir: lake.path().to_owned(), ..LakeOptions::default() };
    let lake = Lake::open(path, options).await?;
    let options = EngineOptions { partitions: NonZeroUsize::new(2), ..EngineOptions::default() };
    let session = Engine::with_options(lake, options)?.session(SessionSettings { local_files: true })?;
    for query in queries {
        let query = query.replace("FOLDER", &folder.display().to_string());
        let mut seconds = Vec::new();
        for _ in 0..runs {
            let start = Instant::now();
            let batches = session.collect(&query).await?;
            seconds.push(format!("{:.3}", start.elapsed().as_secs_f64()));
            if query.starts_with("EXPLAIN") {
                println!("{}", arrow::util::pretty::pretty_format_batches(&batches)?);
            }
            let Some(batch) = batches.first() else { continue };
            let values: Vec<String> = batch
                .columns()
                .iter()
                .map(|column| arrow::util::display::array_value_to_string(column, 0))
                .collect::<Result<_, _>>()?;
            if seconds.len() == runs {
                println!("{}|{}", seconds.join(" "), values.join(" "));
            }
        }
    }
    Ok(())
}
