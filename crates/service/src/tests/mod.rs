//! The doors over a real lake in a temporary folder, asked by real clients.

mod doors;
mod http;
mod postgres;
mod scenarios;
mod webhooks;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use tempfile::TempDir;
use twinlake_contracts::{
    CRS84, INGESTED_AT, TableName, TableSpec, TableStore as _, WriteMode, geometry_field, parse_us,
    timestamp_type,
};
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::Engine;
use twinlake_twin::Twins;

use crate::geometry::tests::point;
use crate::{Running, Service, ServiceSettings};

/// A vehicle, whose keys hold a slash as those of Helsinki do.
const VEHICLE: &str = r#"
name = "vehicle"
description = "A vehicle on the road."
key = "vehicle_id"
[telemetry]
table = "traffic.vehicle_position"
[properties.vehicle_id]
type = "string"
description = "Operator and number."
[properties.speed_mps]
type = "float64"
unit = "m/s"
description = "Speed."
[properties.on_time]
type = "boolean"
description = "Whether it keeps its timetable."
[properties.geom]
type = "geometry"
description = "Where it is."
"#;

/// A scenario over it that forks between the two readings of `22/1095`.
const STANDSTILL: &str = r#"
name = "standstill"
description = "Nothing moves."
[fork]
at = "2018-10-09T04:33:00Z"
[[overrides]]
twin = "vehicle"
set = { speed_mps = 0.0 }
"#;

/// A lake with vehicles and a small town over which traffic can be assigned, and its open doors.
struct Town {
    _folder: TempDir,
    engine: Arc<Engine>,
    twins: Arc<Twins>,
    running: Running,
}

impl Town {
    /// On any free ports.
    async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    async fn open_with(change: impl FnOnce(&mut ServiceSettings)) -> Self {
        let folder = TempDir::new().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
        write(&lake, "traffic.vehicle_position", vehicles()).await;
        for (table, rows) in
            [("map.road_link", links()), ("map.road_node", nodes()), ("map.building", buildings())]
        {
            write(&lake, table, rows).await;
        }
        let engine = Engine::new(lake);
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let models = vec![
            file("vehicle.toml", VEHICLE),
            file("road_segment.toml", include_str!("../../../../schemas/twins/road_segment.toml")),
            file("water_junction.toml", include_str!("../../../../schemas/twins/water_junction.toml")),
            file("water_pipe.toml", include_str!("../../../../schemas/twins/water_pipe.toml")),
        ];
        let twins = Twins::load(&engine, models, vec![file("standstill.toml", STANDSTILL)]).unwrap();
        let mut settings = ServiceSettings {
            http: ([127, 0, 0, 1], 0).into(),
            postgres: ([127, 0, 0, 1], 0).into(),
            ..ServiceSettings::default()
        };
        change(&mut settings);
        let running = Service::start(settings, Arc::clone(&engine), Arc::clone(&twins), None).await.unwrap();
        Self { _folder: folder, engine, twins, running }
    }
}

async fn write(lake: &Arc<Lake>, table: &str, rows: RecordBatch) {
    let name = TableName::parse(table).unwrap();
    let spec = TableSpec { name, schema: rows.schema(), description: String::new() };
    let table = lake.open_table(spec).await.unwrap();
    table.add_fresh("test/rows", rows).await.unwrap();
    table.commit("test/rows", 1, WriteMode::Append).await.unwrap();
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn integers(name: &str, values: Vec<i64>) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Int64, true), Arc::new(Int64Array::from(values)))
}

fn floats(name: &str, values: Vec<Option<f64>>) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Float64, true), Arc::new(Float64Array::from(values)))
}

fn texts(name: &str, values: Vec<&str>) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Utf8, true), Arc::new(StringArray::from(values)))
}

fn instants(name: &str, values: &[&str]) -> (Field, ArrayRef) {
    let values: Vec<Option<i64>> = values.iter().map(|text| Some(parse_us(text).unwrap())).collect();
    (
        Field::new(name, timestamp_type(), true),
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")),
    )
}

fn shapes(values: &[Option<Vec<u8>>]) -> (Field, ArrayRef) {
    let values: BinaryArray = values.iter().map(Option::as_deref).collect();
    (geometry_field("geom", CRS84, true), Arc::new(values))
}

fn vehicles() -> RecordBatch {
    let times = ["2018-10-09T04:32:50Z", "2018-10-09T04:33:10Z", "2018-10-09T04:32:55Z"];
    batch(vec![
        texts("vehicle_id", vec!["22/1095", "22/1095", "40/Hämeentie 1"]),
        instants("ts", &times),
        floats("speed_mps", vec![Some(5.5), Some(7.25), None]),
        (
            Field::new("on_time", DataType::Boolean, true),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])) as ArrayRef,
        ),
        shapes(&[Some(point(24.94, 60.17)), Some(point(24.95, 60.18)), None]),
        instants(INGESTED_AT, &times),
    ])
}

/// Corner points of the town: two streets from 1 to 2, a short one and one over 3 and 4.
const CORNERS: [(i64, f64, f64); 4] =
    [(1, 24.9, 60.17), (2, 24.9072, 60.17), (3, 24.9, 60.174), (4, 24.9072, 60.174)];

fn corner(id: i64) -> (f64, f64) {
    CORNERS.iter().find(|corner| corner.0 == id).map(|corner| (corner.1, corner.2)).unwrap()
}

/// Positions as WKB bytes after the given head.
fn wkb(head: &[u8], positions: &[(f64, f64)]) -> Vec<u8> {
    let mut wkb = head.to_vec();
    wkb.extend((positions.len() as u32).to_le_bytes());
    for (x, y) in positions {
        wkb.extend(x.to_le_bytes());
        wkb.extend(y.to_le_bytes());
    }
    wkb
}

fn links() -> RecordBatch {
    let streets =
        [(1, 2, "Bridge", 30.0), (1, 3, "Detour", 40.0), (3, 4, "Detour", 40.0), (4, 2, "Detour", 40.0)];
    let links: Vec<(i64, i64, &str, f64)> =
        streets.into_iter().flat_map(|(a, b, name, time)| [(a, b, name, time), (b, a, name, time)]).collect();
    let count = links.len();
    let lines: Vec<Option<Vec<u8>>> =
        links.iter().map(|link| Some(wkb(&[1, 2, 0, 0, 0], &[corner(link.0), corner(link.1)]))).collect();
    batch(vec![
        integers("link_id", (1..=count as i64).collect()),
        integers("way_id", (1..=count as i64).collect()),
        integers("from_node", links.iter().map(|link| link.0).collect()),
        integers("to_node", links.iter().map(|link| link.1).collect()),
        texts("name", links.iter().map(|link| link.2).collect()),
        texts("highway", vec!["residential"; count]),
        floats("lanes", vec![Some(1.0); count]),
        floats("speed_kmh", vec![Some(50.0); count]),
        floats("length_m", vec![Some(400.0); count]),
        floats("free_flow_time_s", links.iter().map(|link| Some(link.3)).collect()),
        floats("capacity_vph", vec![Some(1800.0); count]),
        shapes(&lines),
    ])
}

fn nodes() -> RecordBatch {
    let points: Vec<Option<Vec<u8>>> = CORNERS.iter().map(|(_, x, y)| Some(point(*x, *y))).collect();
    batch(vec![integers("node_id", CORNERS.iter().map(|corner| corner.0).collect()), shapes(&points)])
}

fn buildings() -> RecordBatch {
    let side = 0.0005;
    let houses: Vec<Option<Vec<u8>>> = CORNERS
        .iter()
        .map(|(_, x, y)| {
            let ring = [(*x, *y), (x + side, *y), (x + side, y + side), (*x, y + side), (*x, *y)];
            Some(wkb(&[1, 3, 0, 0, 0, 1, 0, 0, 0], &ring))
        })
        .collect();
    batch(vec![
        texts("building_id", vec!["way/1", "way/2", "way/3", "way/4"]),
        floats("levels", vec![Some(5.0); 4]),
        floats("height_m", vec![None; 4]),
        shapes(&houses),
    ])
}
