//! Tests over a real lake in a temporary folder, asked in SQL as users ask.

mod analyses;
mod couplings;
mod definitions;
mod events;
mod executions;
mod files;
mod forks;
mod hindcasts;
mod kept;
mod laws;
mod plant;
mod points;
mod present;
mod relations;
mod scenarios;
mod simulations;
mod slt;
mod states;
mod views;
mod watching;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use geo::{Point, line_string, polygon};
use tempfile::TempDir;
use twinlake_contracts::{
    CRS84, INGESTED_AT, SEQUENCE, TableName, TableSpec, TableStore as _, WriteMode, geometry_field,
    timestamp_type,
};
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, Session, SessionSettings};
use twinlake_spatial::encode;

use crate::Twins;

/// The fork of the shipped scenarios: 2018-10-09T04:33:00Z.
const FORK_US: i64 = 1_539_059_580_000_000;
/// The latitude of the town.
const LATITUDE: f64 = 60.17;
/// Degrees of longitude between two of its nodes: 400 m.
const STEP: f64 = 0.0072;

/// A scenario that closes the street "Bridge" of [`City::build_town`].
const CLOSED: &str = r#"
name = "closed"
description = "The bridge is closed."
[fork]
at = "2018-10-09T04:33:00Z"
[[overrides]]
twin = "road_segment"
where = "name = 'Bridge'"
set = { closed = true }
"#;

/// A scenario that changes nothing.
const UNCHANGED: &str = r#"
name = "unchanged"
description = "Nothing is different."
[fork]
at = "2018-10-09T04:33:00Z"
"#;

/// A lake with the shipped models over it.
struct City {
    folder: TempDir,
    lake: Arc<Lake>,
    engine: Arc<Engine>,
    twins: Arc<Twins>,
}

/// One row of `traffic.vehicle_position`; times are microseconds since the epoch.
#[derive(Debug, Clone, Default)]
struct Reading {
    vehicle: &'static str,
    ts: Option<i64>,
    known: Option<i64>,
    sequence: Option<i64>,
    speed: f64,
    position: Option<(f64, f64)>,
    heading: Option<f64>,
    mode: &'static str,
}

impl City {
    async fn new() -> Self {
        Self::with(models(), scenarios()).await
    }

    async fn with(models: Vec<(String, String)>, scenarios: Vec<(String, String)>) -> Self {
        let folder = TempDir::new().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
        let engine = Engine::new(lake.clone());
        let twins = Twins::load(&engine, models, scenarios).unwrap();
        Self { folder, lake, engine, twins }
    }

    /// The same lake as another process finds it.
    fn reopened(&self) -> (Arc<Engine>, Arc<Twins>) {
        let engine = Engine::new(self.lake.clone());
        let twins = Twins::load(&engine, models(), scenarios()).unwrap();
        (engine, twins)
    }

    fn session(&self) -> Session {
        self.engine.session(SessionSettings::default()).unwrap()
    }

    async fn rows(&self, sql: &str) -> Vec<RecordBatch> {
        self.session().collect(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The result as the lines of a table, without its frame.
    async fn ask(&self, sql: &str) -> Vec<String> {
        ask(&self.session(), sql).await
    }

    async fn write(&self, table: &str, writer: &str, rows: RecordBatch, commit: Option<u64>) {
        let spec = TableSpec {
            name: TableName::parse(table).unwrap(),
            schema: rows.schema(),
            description: String::new(),
        };
        let open = self.lake.open_table(spec).await.unwrap();
        open.add_fresh(writer, rows).await.unwrap();
        if let Some(upto) = commit {
            open.commit(writer, upto, WriteMode::Append).await.unwrap();
        }
    }

    async fn drive(&self, readings: &[Reading], commit: Option<u64>) {
        self.write("traffic.vehicle_position", "test/vehicles", vehicle_rows(readings), commit).await;
    }

    /// Nodes 1 and 2 joined by the fast street "Bridge", and by "Detour" over 3 and 4, in both directions; a house
    /// at each node.
    async fn build_town(&self) {
        let places: [(i64, f64, f64); 4] = [
            (1, 24.90, LATITUDE),
            (2, 24.90 + STEP, LATITUDE),
            (3, 24.90, 60.174),
            (4, 24.90 + STEP, 60.174),
        ];
        let place =
            |id: i64| places.iter().find(|place| place.0 == id).map(|place| (place.1, place.2)).unwrap();
        let streets =
            [(1, 2, "Bridge", 30.0), (1, 3, "Detour", 40.0), (3, 4, "Detour", 40.0), (4, 2, "Detour", 40.0)];
        let links: Vec<(i64, i64, &str, f64)> = streets
            .into_iter()
            .flat_map(|(a, b, name, time)| [(a, b, name, time), (b, a, name, time)])
            .collect();
        let lines: BinaryArray = links
            .iter()
            .map(|link| {
                let (a, b) = (place(link.0), place(link.1));
                Some(encode(&line_string![(x: a.0, y: a.1), (x: b.0, y: b.1)].into()))
            })
            .collect();
        let all = |value: f64| Arc::new(Float64Array::from(vec![value; links.len()])) as ArrayRef;
        let rows = RecordBatch::try_new(
            Arc::new(Schema::new(vec![
                Field::new("link_id", DataType::Int64, true),
                Field::new("way_id", DataType::Int64, true),
                Field::new("from_node", DataType::Int64, true),
                Field::new("to_node", DataType::Int64, true),
                Field::new("name", DataType::Utf8, true),
                Field::new("highway", DataType::Utf8, true),
                Field::new("lanes", DataType::Float64, true),
                Field::new("speed_kmh", DataType::Float64, true),
                Field::new("length_m", DataType::Float64, true),
                Field::new("free_flow_time_s", DataType::Float64, true),
                Field::new("capacity_vph", DataType::Float64, true),
                geometry_field("geom", CRS84, true),
            ])),
            vec![
                Arc::new((1..=links.len() as i64).collect::<Int64Array>()),
                Arc::new((1..=links.len() as i64).collect::<Int64Array>()),
                Arc::new(links.iter().map(|link| link.0).collect::<Int64Array>()),
                Arc::new(links.iter().map(|link| link.1).collect::<Int64Array>()),
                Arc::new(links.iter().map(|link| Some(link.2)).collect::<StringArray>()),
                Arc::new(links.iter().map(|_| Some("residential")).collect::<StringArray>()),
                all(1.0),
                all(50.0),
                all(400.0),
                Arc::new(links.iter().map(|link| link.3).collect::<Float64Array>()),
                all(1800.0),
                Arc::new(lines),
            ],
        )
        .unwrap();
        self.write("map.road_link", "map/links", rows, Some(1)).await;
        let points: BinaryArray =
            places.iter().map(|place| Some(encode(&Point::new(place.1, place.2).into()))).collect();
        let nodes = RecordBatch::try_new(
            Arc::new(Schema::new(vec![
                Field::new("node_id", DataType::Int64, true),
                geometry_field("geom", CRS84, true),
            ])),
            vec![Arc::new(places.iter().map(|place| place.0).collect::<Int64Array>()), Arc::new(points)],
        )
        .unwrap();
        self.write("map.road_node", "map/nodes", nodes, Some(1)).await;
        let houses: BinaryArray = places
            .iter()
            .map(|(_, x, y)| {
                let (x, y, side) = (*x, *y, 0.0005);
                let house = polygon![(x: x, y: y), (x: x + side, y: y), (x: x + side, y: y + side), (x: x, y: y + side)];
                Some(encode(&house.into()))
            })
            .collect();
        let buildings = RecordBatch::try_new(
            Arc::new(Schema::new(vec![
                Field::new("building_id", DataType::Utf8, true),
                Field::new("levels", DataType::Float64, true),
                Field::new("height_m", DataType::Float64, true),
                geometry_field("geom", CRS84, true),
            ])),
            vec![
                Arc::new(
                    places.iter().map(|place| Some(format!("way/{}", place.0))).collect::<StringArray>(),
                ),
                Arc::new(Float64Array::from(vec![5.0; places.len()])),
                Arc::new(Float64Array::from(vec![None; places.len()])),
                Arc::new(houses),
            ],
        )
        .unwrap();
        self.write("map.building", "map/buildings", buildings, Some(1)).await;
    }
}

fn models() -> Vec<(String, String)> {
    let vehicle = include_str!("../../../../schemas/twins/vehicle.toml");
    let road_segment = include_str!("../../../../schemas/twins/road_segment.toml");
    // A burst main closes roads.
    let water_junction = include_str!("../../../../schemas/twins/water_junction.toml");
    let water_pipe = include_str!("../../../../schemas/twins/water_pipe.toml");
    vec![
        ("vehicle.toml".into(), vehicle.into()),
        ("road_segment.toml".into(), road_segment.into()),
        ("water_junction.toml".into(), water_junction.into()),
        ("water_pipe.toml".into(), water_pipe.into()),
    ]
}

fn scenarios() -> Vec<(String, String)> {
    vec![("closed.toml".into(), CLOSED.into()), ("unchanged.toml".into(), UNCHANGED.into())]
}

async fn ask(session: &Session, sql: &str) -> Vec<String> {
    let batches = session.collect(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|line| {
        line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" | ").trim_end().to_owned()
    })
    .collect()
}

fn vehicle_rows(readings: &[Reading]) -> RecordBatch {
    let instants = |values: Vec<Option<i64>>| {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef
    };
    let none = || Arc::new(Float64Array::from(vec![None; readings.len()])) as ArrayRef;
    let no_text = || Arc::new(StringArray::from(vec![None::<&str>; readings.len()])) as ArrayRef;
    let points: BinaryArray =
        readings.iter().map(|r| r.position.map(|(x, y)| encode(&Point::new(x, y).into()))).collect();
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let columns: Vec<(Field, ArrayRef)> = vec![
        (
            text("vehicle_id"),
            Arc::new(
                readings
                    .iter()
                    .map(|r| (!r.vehicle.is_empty()).then_some(r.vehicle))
                    .collect::<StringArray>(),
            ),
        ),
        (Field::new("ts", timestamp_type(), true), instants(readings.iter().map(|r| r.ts).collect())),
        (geometry_field("geom", CRS84, true), Arc::new(points)),
        (number("speed_mps"), Arc::new(readings.iter().map(|r| r.speed).collect::<Float64Array>())),
        (number("heading_deg"), Arc::new(readings.iter().map(|r| r.heading).collect::<Float64Array>())),
        (number("acceleration_mps2"), none()),
        (number("delay_s"), none()),
        (text("line"), no_text()),
        (text("direction"), no_text()),
        (text("mode"), Arc::new(readings.iter().map(|r| Some(r.mode)).collect::<StringArray>())),
        (text("route"), no_text()),
        (text("event"), no_text()),
        (
            Field::new(INGESTED_AT, timestamp_type(), true),
            instants(readings.iter().map(|r| r.known).collect()),
        ),
        (
            Field::new(SEQUENCE, DataType::Int64, true),
            Arc::new(readings.iter().map(|r| r.sequence).collect::<Int64Array>()),
        ),
    ];
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}
