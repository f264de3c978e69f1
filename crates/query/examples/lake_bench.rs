//! A table under work, for `cargo xtask bench lake FOLDER`: commits one after the other, compaction, a query of a small area
//! and time before and after it. Prints a figure a line: name, tab, value.
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, AsArray, BinaryBuilder, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_plan::{ExecutionPlan, collect};
use twinlake_contracts::{
    CRS84, TableName, TableSpec, TableWriter as _, WriteMode, geometry_field, timestamp_type,
};
use twinlake_lake::{CompactOptions, Lake, LakeOptions};
use twinlake_query::{Engine, EngineOptions, Session, SessionSettings};

const COMMITS: u64 = 200;
const ROWS: u64 = 50_000;
const VEHICLES: u64 = 5_000;
/// 2024-01-01T00:00:00Z.
const START_US: i64 = 1_704_067_200_000_000;
const COMMIT_SPAN_US: i64 = 60_000_000;
/// About 400 m by 400 m, five minutes.
const QUERY: &str = "SELECT count(*), avg(speed_mps) FROM bench.position WHERE st_intersects(geom, \
                     st_makeenvelope(24.938, 60.168, 24.945, 60.172)) AND ts >= '2024-01-01T01:00:00Z' AND ts < '2024-01-01T01:05:00Z'";
const EVERYTHING: &str = "SELECT count(*), avg(speed_mps) FROM bench.position";
const RUNS: usize = 5;

type Failure = Box<dyn std::error::Error>;

/// Splitmix64 (Steele, Lea and Flood, 2014): the same number gives the same bits.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn unit(number: u64) -> f64 {
    (mix(number) >> 11) as f64 / (1_u64 << 53) as f64
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("vehicle_id", DataType::Utf8, false),
        Field::new("ts", timestamp_type(), false),
        Field::new("speed_mps", DataType::Float64, false),
        geometry_field("geom", CRS84, false),
        Field::new("_sequence", DataType::Int64, true),
    ]))
}

/// Vehicles about a city of 30 km, more of them in its middle.
fn rows(commit: u64) -> Result<RecordBatch, Failure> {
    let numbers = || (commit * ROWS)..((commit + 1) * ROWS);
    let mut places = BinaryBuilder::new();
    for number in numbers() {
        let reach = unit(number * 3).powi(2) * 0.3;
        let angle = unit(number * 3 + 1) * std::f64::consts::TAU;
        let mut point = vec![1, 1, 0, 0, 0];
        point.extend((24.94 + reach * angle.cos()).to_le_bytes());
        point.extend((60.17 + reach * angle.sin() / 2.0).to_le_bytes());
        places.append_value(point);
    }
    let time = |number: u64| {
        START_US
            + commit as i64 * COMMIT_SPAN_US
            + ((number - commit * ROWS) as i64 * COMMIT_SPAN_US) / ROWS as i64
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            numbers()
                .map(|number| Some(format!("vehicle-{}", mix(number) % VEHICLES)))
                .collect::<StringArray>(),
        ),
        Arc::new(TimestampMicrosecondArray::from_iter_values(numbers().map(time)).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter_values(numbers().map(|number| unit(number * 3 + 2) * 20.0))),
        Arc::new(places.finish()),
        Arc::new(Int64Array::from_iter_values(numbers().map(|number| number as i64))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn say(name: &str, value: f64) {
    println!("{name}\t{value}");
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(place - 1).copied().unwrap_or(f64::NAN)
}

/// A counter of the plan's scans.
fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> f64 {
    let own =
        plan.metrics().and_then(|metrics| metrics.sum_by_name(name)).map_or(0, |value| value.as_usize());
    own as f64 + plan.children().into_iter().map(|child| metric(child, name)).sum::<f64>()
}

/// The best seconds of a query; what its scans read; its answer.
async fn ask(session: &Session, label: &str, sql: &str) -> Result<(), Failure> {
    let mut best = f64::INFINITY;
    for number in 0..RUNS {
        let plan = session.sql(sql).await?.create_physical_plan().await?;
        let start = Instant::now();
        let batches = collect(Arc::clone(&plan), session.task_context()).await?;
        best = best.min(start.elapsed().as_secs_f64());
        if number + 1 == RUNS {
            say(&format!("{label} bytes read"), metric(&plan, "bytes_scanned"));
            let counts: Vec<i64> = batches
                .iter()
                .filter_map(|batch| batch.column(0).as_primitive_opt::<arrow::datatypes::Int64Type>())
                .flat_map(|column| (0..column.len()).map(|row| column.value(row)).collect::<Vec<_>>())
                .collect();
            say(&format!("{label} rows"), counts.iter().sum::<i64>() as f64);
        }
    }
    say(&format!("{label} ms"), best * 1e3);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).ok_or("usage: lake_bench FOLDER")?;
    let lake = Lake::open(&folder, LakeOptions::default()).await?;
    let spec =
        TableSpec { name: TableName::parse("bench.position")?, schema: schema(), description: String::new() };
    let table = lake.open_lake_table(spec).await?;
    let mut latencies = Vec::new();
    let begin = Instant::now();
    for commit in 0..COMMITS {
        let rows = rows(commit)?;
        let start = Instant::now();
        table.add_fresh("bench/position", rows).await?;
        table.commit("bench/position", (commit + 1) * ROWS, WriteMode::Append).await?;
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
    }
    say("commit rows/s", (COMMITS * ROWS) as f64 / begin.elapsed().as_secs_f64());
    latencies.sort_by(f64::total_cmp);
    say("commit p50 ms", percentile(&latencies, 0.5));
    say("commit p99 ms", percentile(&latencies, 0.99));
    // A commit of one row: what the table's log and the disk cost.
    let mut small = Vec::new();
    for number in 0..50 {
        let row = rows(COMMITS)?.slice(number, 1);
        let start = Instant::now();
        table.add_fresh("bench/position", row).await?;
        table.commit("bench/position", COMMITS * ROWS + number as u64 + 1, WriteMode::Append).await?;
        small.push(start.elapsed().as_secs_f64() * 1e3);
    }
    small.sort_by(f64::total_cmp);
    say("commit of one row p50 ms", percentile(&small, 0.5));
    say("commit of one row p99 ms", percentile(&small, 0.99));
    let options = EngineOptions { partitions: NonZeroUsize::new(2), ..EngineOptions::default() };
    let session = Engine::with_options(Arc::clone(&lake), options)?.session(SessionSettings::default())?;
    let stats = table.stats();
    say("before files", stats.files as f64);
    say("before bytes", stats.bytes as f64);
    ask(&session, "before small", QUERY).await?;
    ask(&session, "before all", EVERYTHING).await?;
    let start = Instant::now();
    let compacted = table.compact(CompactOptions::default()).await?;
    let seconds = start.elapsed().as_secs_f64();
    say("compaction s", seconds);
    say("compaction MB/s", compacted.bytes_before as f64 / 1e6 / seconds);
    say("compaction rows/s", (COMMITS * ROWS) as f64 / seconds);
    let stats = table.stats();
    say("after files", stats.files as f64);
    say("after bytes", stats.bytes as f64);
    ask(&session, "after small", QUERY).await?;
    ask(&session, "after all", EVERYTHING).await?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    say("peak MiB", peak.unwrap_or(f64::NAN) / 1024.0);
    Ok(())
}
