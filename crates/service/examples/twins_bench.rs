//! Twins in memory under load, for `cargo xtask bench twins`.
//!
//! `twins_bench TWINS UPDATES FORK_ROWS OVERRIDES FOLDER` loads TWINS vehicles into a lake in FOLDER, keeps their present in memory and
//! measures point reads, boxes of about a thousand and updates in this process. Then it opens its doors, says `http`, tab, port, and
//! waits for a line on its standard input: the time to be measured over HTTP. At last it forks tables of FORK_ROWS and a tenth
//! of them with OVERRIDES overrides. The positions are left in `FOLDER/positions.csv` for peers.
//!
//! Prints a case a line: group, load, unit, a second, p50, p99 and p99.9 in milliseconds, separated by tabs; `note`, tab, text.
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use twinlake_contracts::{
    CRS84, INGESTED_AT, SEQUENCE, TableName, TableSpec, TableStore as _, TableWriter, WriteMode,
    geometry_field, timestamp_type,
};
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, SessionSettings};
use twinlake_service::{Service, ServiceSettings};
use twinlake_twin::{Override, Scenario, Twins};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MODELS: [(&str, &str); 2] = [
    (
        "vehicle.toml",
        r#"
name = "vehicle"
description = "A vehicle."
key = "vehicle_id"
[telemetry]
table = "bench.position"
[properties.vehicle_id]
type = "string"
description = "The vehicle."
[properties.geom]
type = "geometry"
description = "Where it is."
[properties.speed_mps]
type = "float64"
unit = "m/s"
description = "Its speed."
[properties.heading_deg]
type = "float64"
description = "Its direction."
[properties.mode]
type = "string"
description = "bus, tram or metro."
"#,
    ),
    (
        "meter.toml",
        r#"
name = "meter"
description = "A meter."
key = "meter_id"
[map]
table = "bench.meter"
[properties.meter_id]
type = "int64"
description = "The meter."
[properties.power_w]
type = "float64"
unit = "W"
description = "What it counts."
"#,
    ),
];

/// 2024-01-01T00:00:00Z.
const START_US: i64 = 1_704_067_200_000_000;
const LOAD_ROWS: u64 = 100_000;
const UPDATE_ROWS: u64 = 5_000;
/// The city: least longitude and latitude, and its sides in degrees.
const CITY: [f64; 4] = [24.6, 60.0, 0.8, 0.4];

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

fn place(number: u64) -> (f64, f64) {
    (CITY[0] + unit(2 * number) * CITY[2], CITY[1] + unit(2 * number + 1) * CITY[3])
}

fn name(vehicle: u64) -> String {
    format!("v{vehicle:07}")
}

/// Readings of vehicles; reading number `serial` is one of its own place and time.
fn readings(vehicles: &[u64], serial: u64) -> Result<RecordBatch, Failure> {
    let serials = || serial..serial + vehicles.len() as u64;
    let mut places = BinaryBuilder::new();
    for number in serials() {
        let (x, y) = place(number);
        let mut wkb = vec![1, 1, 0, 0, 0];
        wkb.extend(x.to_le_bytes());
        wkb.extend(y.to_le_bytes());
        places.append_value(wkb);
    }
    let times = || {
        let times: TimestampMicrosecondArray =
            serials().map(|number| Some(START_US + number as i64)).collect();
        Arc::new(times.with_timezone("UTC")) as ArrayRef
    };
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let columns: Vec<(Field, ArrayRef)> = vec![
        (
            Field::new("vehicle_id", DataType::Utf8, true),
            Arc::new(vehicles.iter().map(|vehicle| Some(name(*vehicle))).collect::<StringArray>()),
        ),
        (Field::new("ts", timestamp_type(), true), times()),
        (geometry_field("geom", CRS84, true), Arc::new(places.finish())),
        (
            number("speed_mps"),
            Arc::new(serials().map(|n| Some(unit(n ^ 1 << 40) * 20.0)).collect::<Float64Array>()),
        ),
        (
            number("heading_deg"),
            Arc::new(serials().map(|n| Some(unit(n ^ 1 << 41) * 360.0)).collect::<Float64Array>()),
        ),
        (
            Field::new("mode", DataType::Utf8, true),
            Arc::new(
                serials().map(|n| Some(["bus", "tram", "metro"][n as usize % 3])).collect::<StringArray>(),
            ),
        ),
        (Field::new(INGESTED_AT, timestamp_type(), true), times()),
        (
            Field::new(SEQUENCE, DataType::Int64, true),
            Arc::new(serials().map(|number| Some(number as i64)).collect::<Int64Array>()),
        ),
    ];
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

async fn table(lake: &Arc<Lake>, name: &str, rows: &RecordBatch) -> Result<Arc<dyn TableWriter>, Failure> {
    let spec = TableSpec { name: TableName::parse(name)?, schema: rows.schema(), description: String::new() };
    Ok(lake.open_table(spec).await?)
}

/// Latencies in milliseconds as a case.
fn case(group: &str, load: &str, unit: &str, per_second: f64, mut latencies: Vec<f64>) {
    latencies.sort_by(f64::total_cmp);
    let quantile = |quantile: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((quantile * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
    };
    println!(
        "{group}\t{load}\t{unit}\t{per_second}\t{}\t{}\t{}",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999)
    );
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn note(text: &str) {
    println!("note\t{text}");
}

struct Town {
    lake: Arc<Lake>,
    engine: Arc<Engine>,
    twins: Arc<Twins>,
    count: u64,
}

impl Town {
    async fn open(folder: &Path, count: u64) -> Result<Self, Failure> {
        let lake = Lake::open(&folder.join("lake").to_string_lossy(), LakeOptions::default()).await?;
        let engine = Engine::new(Arc::clone(&lake));
        let models = MODELS.map(|(file, text)| (file.to_owned(), text.to_owned()));
        let twins = Twins::load(&engine, models.into(), Vec::new())?;
        Ok(Self { lake, engine, twins, count })
    }

    async fn load(&self, folder: &Path) -> Result<(), Failure> {
        let mut text = String::new();
        let first = readings(&[0], 0)?;
        let positions = table(&self.lake, "bench.position", &first).await?;
        let mut from = 0;
        while from < self.count {
            let vehicles: Vec<u64> = (from..(from + LOAD_ROWS).min(self.count)).collect();
            positions.add_fresh("bench/load", readings(&vehicles, from)?).await?;
            from += LOAD_ROWS;
            positions.commit("bench/load", from, WriteMode::Append).await?;
            for vehicle in vehicles {
                let (x, y) = place(vehicle);
                writeln!(text, "{},{x},{y},{}", name(vehicle), unit(vehicle ^ 1 << 40) * 20.0)?;
            }
        }
        std::fs::write(folder.join("positions.csv"), text)?;
        let start = Instant::now();
        self.twins.keep_present()?;
        let first = self.twins.present_of("vehicle", &name(0)).await?;
        if first.is_none_or(|rows| rows.num_rows() != 1) {
            return Err("the first vehicle is not there".into());
        }
        note(&format!(
            "{} twins were in memory {:.1} s after the process began to read them from the lake.",
            self.count,
            ms(start) / 1e3
        ));
        Ok(())
    }

    async fn points(&self) -> Result<(), Failure> {
        let mut latencies = Vec::new();
        let start = Instant::now();
        for number in 0..200_000 {
            let key = name(mix(number) % self.count);
            let begun = Instant::now();
            let found = self.twins.present_of("vehicle", &key).await?;
            latencies.push(ms(begun));
            if found.is_none_or(|rows| rows.num_rows() != 1) {
                return Err(format!("{key} is not there").into());
            }
        }
        case("one twin by its key", "in process", "reads", 2e5 / start.elapsed().as_secs_f64(), latencies);
        let session = self.engine.session(SessionSettings::default())?;
        let (mut latencies, start) = (Vec::new(), Instant::now());
        for number in 0..300 {
            let sql =
                format!("SELECT * FROM twin.vehicle WHERE vehicle_id = '{}'", name(mix(number) % self.count));
            let begun = Instant::now();
            let rows: usize = session.collect(&sql).await?.iter().map(RecordBatch::num_rows).sum();
            latencies.push(ms(begun));
            if rows != 1 {
                return Err(format!("{rows} rows: {sql}").into());
            }
        }
        case(
            "one twin by its key",
            "SQL in process",
            "reads",
            300.0 / start.elapsed().as_secs_f64(),
            latencies,
        );
        Ok(())
    }

    async fn boxes(&self) -> Result<(), Failure> {
        let share = (1000.0 / self.count as f64).min(1.0).sqrt();
        let (width, height) = (CITY[2] * share, CITY[3] * share);
        let corner = |number: u64| {
            let x = CITY[0] + unit(number ^ 1 << 50) * (CITY[2] - width);
            (x, CITY[1] + unit(number ^ 1 << 51) * (CITY[3] - height))
        };
        let (mut latencies, mut found, start) = (Vec::new(), 0, Instant::now());
        for number in 0..2_000 {
            let (x, y) = corner(number);
            let begun = Instant::now();
            let rows = self.twins.present_within("vehicle", [x, y, x + width, y + height]).await?;
            latencies.push(ms(begun));
            found += rows.map_or(0, |rows| rows.num_rows());
        }
        let load = format!("in process, {} twins on average", found / 2_000);
        case("a box of 1,000 twins", &load, "boxes", 2e3 / start.elapsed().as_secs_f64(), latencies);
        let session = self.engine.session(SessionSettings::default())?;
        let (mut latencies, start) = (Vec::new(), Instant::now());
        for number in 0..200 {
            let (x, y) = corner(number);
            let sql = format!(
                "SELECT * FROM twin.vehicle WHERE st_intersects(geom, st_makeenvelope({x}, {y}, {}, {}))",
                x + width,
                y + height
            );
            let begun = Instant::now();
            let theirs: usize = session.collect(&sql).await?.iter().map(RecordBatch::num_rows).sum();
            latencies.push(ms(begun));
            let ours = self.twins.present_within("vehicle", [x, y, x + width, y + height]).await?;
            if ours.is_none_or(|rows| rows.num_rows() != theirs) {
                return Err(format!("SQL finds {theirs} in a box, the memory does not: {sql}").into());
            }
        }
        case(
            "a box of 1,000 twins",
            "SQL in process",
            "boxes",
            200.0 / start.elapsed().as_secs_f64(),
            latencies,
        );
        Ok(())
    }

    /// Readings of random vehicles, 5,000 at a time: from the table's door until a read of the last one shows it.
    async fn updates(&self, updates: u64) -> Result<(), Failure> {
        let first = readings(&[0], 0)?;
        let positions = table(&self.lake, "bench.position", &first).await?;
        let mut batches = Vec::new();
        let mut serial = self.count;
        while serial < self.count + updates {
            let vehicles: Vec<u64> = (0..UPDATE_ROWS).map(|n| mix(serial + n) % self.count).collect();
            batches.push((
                vehicles.last().copied().unwrap_or_default(),
                serial,
                readings(&vehicles, serial)?,
            ));
            serial += UPDATE_ROWS;
        }
        let (mut latencies, count, start) = (Vec::new(), batches.len() as u64 * UPDATE_ROWS, Instant::now());
        for (last, serial, rows) in batches {
            let begun = Instant::now();
            positions.add_fresh("bench/updates", rows).await?;
            let seen = self.twins.present_of("vehicle", &name(last)).await?;
            latencies.push(ms(begun));
            let times = seen.as_ref().and_then(|rows| rows.column_by_name("valid_time"));
            let time = times.and_then(|times| times.as_any().downcast_ref::<TimestampMicrosecondArray>());
            let newest = START_US + (serial + UPDATE_ROWS - 1) as i64;
            if time.is_none_or(|time| time.is_empty() || time.value(0) != newest) {
                return Err("an update is not seen by the next read".into());
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let load = "5,000 at a time, until seen";
        case("updates", load, "updates", count as f64 / seconds, latencies);
        positions.commit("bench/updates", 1, WriteMode::Append).await?;
        Ok(())
    }

    /// Single readings: from the table's door until `twin.vehicle` shows each in SQL.
    async fn freshness(&self, first: u64) -> Result<(), Failure> {
        const READINGS: u64 = 1_000;
        let positions = table(&self.lake, "bench.position", &readings(&[0], 0)?).await?;
        let session = self.engine.session(SessionSettings::default())?;
        let (mut latencies, start) = (Vec::new(), Instant::now());
        for serial in first..first + READINGS {
            let vehicle = mix(serial) % self.count;
            let rows = readings(&[vehicle], serial)?;
            let sql = format!(
                "SELECT vehicle_id FROM twin.vehicle WHERE vehicle_id = '{}' AND valid_time = to_timestamp_micros({})",
                name(vehicle),
                START_US + serial as i64
            );
            let begun = Instant::now();
            positions.add_fresh("bench/freshness", rows).await?;
            while session.collect(&sql).await?.iter().all(|rows| rows.num_rows() == 0) {
                if ms(begun) > 10_000.0 {
                    return Err("a reading is not in twin.vehicle after ten seconds".into());
                }
            }
            latencies.push(ms(begun));
        }
        let per_second = READINGS as f64 / start.elapsed().as_secs_f64();
        case("freshness", "one reading, until SQL shows it", "readings", per_second, latencies);
        positions.commit("bench/freshness", 1, WriteMode::Append).await?;
        Ok(())
    }

    /// A fork of a table of so many rows: what it takes to make, and to read one meter in it and all.
    async fn fork(&self, rows: u64, overrides: u64) -> Result<(), Failure> {
        let batch = |from: u64, to: u64| -> Result<RecordBatch, Failure> {
            let ids: Int64Array = (from..to).map(|id| Some(id as i64)).collect();
            let power: Float64Array = (from..to).map(|id| Some(unit(id) * 1000.0)).collect();
            let columns: [(&str, ArrayRef); 2] = [("meter_id", Arc::new(ids)), ("power_w", Arc::new(power))];
            let columns = columns.into_iter().map(|(name, column)| (name, column, true));
            Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
        };
        let meters = table(&self.lake, "bench.meter", &batch(0, 1)?).await?;
        let mut from = meters.committed("bench/meters").await?.unwrap_or_default();
        while from < rows {
            let to = (from + 500_000).min(rows);
            meters.add_fresh("bench/meters", batch(from, to)?).await?;
            meters.commit("bench/meters", to, WriteMode::Append).await?;
            from = to;
        }
        let step = (rows / overrides).max(1);
        let ids: Int64Array = (0..overrides).map(|n| Some((n * step) as i64)).collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("meter_id", Arc::new(ids)),
            ("power_w", Arc::new(Float64Array::from(vec![-1.0; overrides as usize]))),
        ];
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        let values = RecordBatch::try_from_iter_with_nullable(columns)?;
        let model = self.twins.model("meter")?;
        let (mut latencies, mut bytes) = (Vec::new(), 0);
        for _ in 0..5 {
            let begun = Instant::now();
            let change = Override::of_rows(&model, &values)?;
            bytes = change.bytes();
            let description = "Many meters count something else.";
            self.twins.put_scenario(Scenario::of_overrides("fork", description, vec![change]))?;
            latencies.push(ms(begun));
        }
        let load = format!("{overrides} overrides over {rows} rows");
        let per_second = 1e3 * latencies.len() as f64 / latencies.iter().sum::<f64>();
        case("a fork", &load, "forks", per_second, latencies);
        let session = self.engine.session(SessionSettings::default())?;
        let mut told = Vec::new();
        for scenario in ["", ", scenario => 'fork'"] {
            let sql = format!(
                "SELECT count(*), CAST(sum(CASE WHEN power_w = -1 THEN 1 ELSE 0 END) AS BIGINT) FROM twin_at('meter', NULL{scenario})"
            );
            let begun = Instant::now();
            let found = session.collect(&sql).await?;
            told.push(ms(begun));
            let number = |column: usize| {
                let column = found.first()?.column(column).as_any().downcast_ref::<Int64Array>()?;
                Some(column.value(0) as u64)
            };
            let expected = if scenario.is_empty() { 0 } else { overrides.min(rows) };
            if (number(0), number(1)) != (Some(rows), Some(expected)) {
                return Err(format!("{sql} gives {found:?}").into());
            }
        }
        note(&format!(
            "The fork over {rows} rows holds {:.1} MiB and has written nothing; reading all rows takes {:.0} ms without it and {:.0} ms in it.",
            bytes as f64 / 1_048_576.0,
            told[0],
            told[1]
        ));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |what: &str| -> Result<u64, Failure> {
        let text = arguments.next().ok_or_else(|| format!("give {what}"))?;
        Ok(text.parse()?)
    };
    let (twins, updates) = (number("how many twins")?, number("how many updates")?);
    let (fork_rows, overrides) = (number("how many rows are forked")?, number("how many overrides")?);
    let folder = PathBuf::from(arguments.next().ok_or("give a folder")?);
    let town = Town::open(&folder, twins).await?;
    town.load(&folder).await?;
    town.points().await?;
    town.boxes().await?;
    town.updates(updates).await?;
    // Later than all updates, of which there may be a few more than asked for.
    town.freshness(twins + updates + UPDATE_ROWS).await?;
    let settings = ServiceSettings {
        http: ([127, 0, 0, 1], 0).into(),
        postgres: ([127, 0, 0, 1], 0).into(),
        ..ServiceSettings::default()
    };
    let running = Service::start(settings, Arc::clone(&town.engine), Arc::clone(&town.twins), None).await?;
    println!("http\t{}", running.http_addr().port());
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    running.shutdown().await;
    for rows in [fork_rows / 10, fork_rows] {
        town.fork(rows, overrides).await?;
    }
    Ok(())
}
