//! Electricity bills for `cargo xtask bench reprocess`: `generate FOLDER REGISTER_CUSTOMERS HOURLY_CUSTOMERS` writes readings
//! as Parquet, `run FOLDER OUTPUT QUERY` computes bills into a Parquet file and prints the seconds.
//!
//! Readings are what a head-end system delivers: of each customer three time-of-use registers (peak, flat, valley) at the
//! first and the last instant of the month, in kWh with three decimals; or the consumption of each hour.
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Decimal128Array, Int8Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt as _;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use twinlake_contracts::timestamp_type;
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, EngineOptions, SessionSettings};

/// 2024-03-01T00:00:00+08:00, the first instant of the month of account.
const FROM_US: i64 = 1_709_222_400_000_000;
/// 2024-04-01T00:00:00+08:00.
const TO_US: i64 = 1_711_900_800_000_000;
const HOUR_US: i64 = 3_600_000_000;
const BATCH: usize = 1 << 18;
/// What a query may hold; with the reading of files and the rest of the process less than 4 GiB.
const MEMORY_BYTES: usize = 3 << 30;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["generate", folder, registers, hourly] => {
            generate(Path::new(folder), registers.parse()?, hourly.parse()?)
        }
        ["run", folder, output, query] => run(Path::new(folder), Path::new(output), query).await,
        _ => Err("usage: bills generate FOLDER CUSTOMERS CUSTOMERS | run FOLDER OUTPUT QUERY".into()),
    }
}

/// Splitmix64 (Steele, Lea and Flood, 2014): the same number gives the same bits.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Thousandths of a kWh that a customer uses in a month on a register: most some hundred kWh, a few several thousand.
fn used(customer: u64, register: u64) -> i64 {
    let bits = mix(customer * 8 + register);
    let usual = 20_000 + (bits % 180_000) as i64;
    if bits >> 58 == 0 { usual * 12 } else { usual }
}

struct Out {
    schema: SchemaRef,
    writer: ArrowWriter<File>,
}

impl Out {
    fn create(path: &Path, fields: Vec<Field>) -> Result<Self, Failure> {
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(1 << 20))
            .build();
        let writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties))?;
        Ok(Self { schema, writer })
    }

    fn write(&mut self, columns: Vec<ArrayRef>) -> Result<(), Failure> {
        Ok(self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?)
    }
}

fn decimals(values: Vec<i128>) -> Result<ArrayRef, Failure> {
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(12, 3)?))
}

fn generate(folder: &Path, register_customers: u64, hourly_customers: u64) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let kwh = DataType::Decimal128(12, 3);
    let mut out = Out::create(
        &folder.join("register_reading.parquet"),
        vec![
            Field::new("customer_id", DataType::Int64, false),
            Field::new("register", DataType::Int8, false),
            Field::new("ts", timestamp_type(), false),
            Field::new("reading_kwh", kwh.clone(), false),
        ],
    )?;
    // As they come in: the whole network at one instant, then at the other.
    for (at, end) in [(FROM_US, false), (TO_US, true)] {
        let mut rows =
            (0..register_customers).flat_map(|customer| (1..=3).map(move |register| (customer, register)));
        loop {
            let (mut customers, mut registers, mut readings) = (Vec::new(), Vec::new(), Vec::new());
            for (customer, register) in rows.by_ref().take(BATCH) {
                let before = (mix(customer * 16 + register) % 90_000_000) as i64;
                let reading = if end { before + used(customer, register) } else { before };
                customers.push(customer as i64 + 1);
                registers.push(register as i8);
                readings.push(i128::from(reading));
            }
            if customers.is_empty() {
                break;
            }
            let times = TimestampMicrosecondArray::from_value(at, customers.len()).with_timezone("UTC");
            out.write(vec![
                Arc::new(Int64Array::from(customers)),
                Arc::new(Int8Array::from(registers)),
                Arc::new(times),
                decimals(readings)?,
            ])?;
        }
    }
    out.writer.close()?;

    let mut out = Out::create(
        &folder.join("hourly_reading.parquet"),
        vec![
            Field::new("customer_id", DataType::Int64, false),
            Field::new("ts", timestamp_type(), false),
            Field::new("used_kwh", kwh, false),
        ],
    )?;
    let hours = (TO_US - FROM_US) / HOUR_US;
    let mut rows = (0..hours).flat_map(|hour| (0..hourly_customers).map(move |customer| (hour, customer)));
    loop {
        let (mut customers, mut times, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
        for (hour, customer) in rows.by_ref().take(BATCH) {
            customers.push(customer as i64 + 1);
            times.push(FROM_US + hour * HOUR_US);
            amounts.push(i128::from(mix(customer * 1024 + hour as u64) % 1_500));
        }
        if customers.is_empty() {
            break;
        }
        out.write(vec![
            Arc::new(Int64Array::from(customers)),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            decimals(amounts)?,
        ])?;
    }
    out.writer.close()?;
    Ok(())
}

/// The most memory that this process had.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// Computes bills, writes them, and prints the seconds, how many, and the most memory in MiB.
async fn run(folder: &Path, output: &Path, query: &str) -> Result<(), Failure> {
    let lake = tempfile::tempdir()?;
    let path = lake.path().to_str().ok_or("the folder's name is not UTF-8")?;
    let options = LakeOptions { local_dir: lake.path().to_owned(), ..LakeOptions::default() };
    let lake = Lake::open(path, options).await?;
    let options = EngineOptions { partitions: NonZeroUsize::new(2), memory_limit_bytes: Some(MEMORY_BYTES) };
    let session = Engine::with_options(lake, options)?.session(SessionSettings { local_files: true })?;
    let query = query.replace("FOLDER", &folder.display().to_string());
    let start = Instant::now();
    let mut rows = session.execute(&query).await?;
    let mut writer: Option<ArrowWriter<File>> = None;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += batch.num_rows();
        if writer.is_none() {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
                .build();
            writer = Some(ArrowWriter::try_new(File::create(output)?, batch.schema(), Some(properties))?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch)?;
        }
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    println!("{:.3} {count} {:.0}", start.elapsed().as_secs_f64(), peak_mib());
    Ok(())
}
