//! A plant and its water: models with relations of every kind, and a few rows of each.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use twinlake_contracts::{INGESTED_AT, SEQUENCE};

use super::City;

/// A pipe leads from a node to a node, with the water; the next pipe begins where it ends.
const PIPE: &str = r#"
name = "pipe"
description = "A water pipe between two nodes."
version = 2
key = "pipe_id"
[map]
table = "plant.pipe"
[properties.pipe_id]
type = "string"
description = "The pipe."
[properties.from_node]
type = "int64"
description = "Where the water comes in."
[properties.to_node]
type = "int64"
description = "Where it goes out."
[properties.length_m]
type = "float64"
unit = "m"
range = [0, 10000]
description = "Its length."
[properties.open]
type = "boolean"
value = true
description = "Whether water may pass."
[relations.flow]
description = "The pipes that the water goes on into."
type = "feeds"
twin = "pipe"
property = "to_node"
other = "from_node"
where = "open"
weight = "length_m"
weight_unit = "m"
"#;

/// Enterprise, site, line and cell are assets, each a part of another (ISA-95's hierarchy of equipment).
const ASSET: &str = r#"
name = "asset"
description = "A site, a line or a cell."
key = "asset_id"
[map]
table = "plant.asset"
[properties.asset_id]
type = "string"
description = "The asset."
[properties.level]
type = "string"
description = "enterprise, site, line or cell."
[properties.parent_id]
type = "string"
description = "The asset that it is a part of."
[relations.parent]
description = "The asset that it is a part of."
type = "part_of"
twin = "asset"
property = "parent_id"
"#;

/// Machines tell of themselves, stand in a cell, and take their water from a pipe.
const MACHINE: &str = r#"
name = "machine"
description = "A machine and its last reading."
key = "machine_id"
[telemetry]
table = "plant.reading"
[freshness]
within_s = 5.0
[lifecycle]
ended_when = "state = 'removed'"
[properties.machine_id]
type = "int64"
description = "The machine."
[properties.cell_id]
type = "string"
description = "The cell that it is a part of."
[properties.pipe_id]
type = "string"
description = "The pipe that it takes its water from."
[properties.state]
type = "string"
description = "running, stopped or removed."
[properties.temperature_c]
type = "float64"
unit = "°C"
range = [-20, 120]
description = "Of its spindle."
[relations.cell]
description = "The cell that it is a part of."
type = "part_of"
twin = "asset"
property = "cell_id"
[relations.water]
description = "The pipe that it takes its water from."
type = "connects"
twin = "pipe"
property = "pipe_id"
"#;

const DRY: &str = r#"
name = "dry"
description = "The main is closed."
[[overrides]]
twin = "pipe"
where = "pipe_id = 'main'"
set = { open = false }
"#;

/// The plant's models.
pub(super) fn models() -> Vec<(String, String)> {
    [("pipe", PIPE), ("asset", ASSET), ("machine", MACHINE)]
        .map(|(name, text)| (format!("{name}.toml"), text.to_owned()))
        .into()
}

/// The plant's scenario.
pub(super) fn scenarios() -> Vec<(String, String)> {
    vec![("dry.toml".into(), DRY.into())]
}

/// One row of `plant.reading`; times are seconds after 2026-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineReading {
    pub(super) machine: i64,
    pub(super) at_s: i64,
    pub(super) known_s: i64,
    pub(super) state: &'static str,
    pub(super) temperature_c: f64,
}

/// 2026-01-01T00:00:00Z.
pub(super) const YEAR_US: i64 = 1_767_225_600_000_000;

pub(super) fn reading(machine: i64, at_s: i64, state: &'static str, temperature_c: f64) -> MachineReading {
    MachineReading { machine, at_s, known_s: at_s + 1, state, temperature_c }
}

/// Rows of `plant.reading`.
pub(super) fn reading_rows(readings: &[MachineReading]) -> RecordBatch {
    let instants = |values: Vec<i64>| {
        let values: Vec<i64> = values.into_iter().map(|second| YEAR_US + second * 1_000_000).collect();
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef
    };
    let each = |text: fn(&MachineReading) -> Option<&'static str>| {
        Arc::new(readings.iter().map(text).collect::<StringArray>()) as ArrayRef
    };
    batch(vec![
        ("machine_id", Arc::new(readings.iter().map(|r| r.machine).collect::<Int64Array>())),
        ("ts", instants(readings.iter().map(|r| r.at_s).collect())),
        ("cell_id", each(|r| Some(if r.machine < 3 { "cell-a" } else { "cell-b" }))),
        ("pipe_id", each(|r| (r.machine == 1).then_some("hall"))),
        ("state", each(|r| Some(r.state))),
        ("temperature_c", Arc::new(readings.iter().map(|r| r.temperature_c).collect::<Float64Array>())),
        (INGESTED_AT, instants(readings.iter().map(|r| r.known_s).collect())),
        (SEQUENCE, Arc::new((0..readings.len() as i64).collect::<Int64Array>())),
    ])
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect()).unwrap()
}

impl City {
    /// An empty plant.
    pub(super) async fn plant() -> Self {
        Self::with(models(), scenarios()).await
    }

    /// The plant's pipes, assets and readings.
    pub(super) async fn build_plant(&self) {
        let text =
            |values: &[Option<&str>]| Arc::new(values.iter().copied().collect::<StringArray>()) as ArrayRef;
        // well → main → {hall, bypass}, bypass → hall's end, and a ring that nothing feeds.
        let pipes: [(&str, i64, i64, f64); 7] = [
            ("well", 1, 2, 100.0),
            ("main", 2, 3, 50.0),
            ("hall", 3, 4, 10.0),
            ("bypass", 3, 5, 2.0),
            ("short", 5, 4, 3.0),
            ("ring-1", 8, 9, 1.0),
            ("ring-2", 9, 8, 1.0),
        ];
        let rows = batch(vec![
            ("pipe_id", text(&pipes.map(|pipe| Some(pipe.0)))),
            ("from_node", Arc::new(Int64Array::from(pipes.map(|pipe| pipe.1).to_vec()))),
            ("to_node", Arc::new(Int64Array::from(pipes.map(|pipe| pipe.2).to_vec()))),
            ("length_m", Arc::new(Float64Array::from(pipes.map(|pipe| pipe.3).to_vec()))),
        ]);
        self.write("plant.pipe", "water/pipes", rows, Some(1)).await;
        let assets = [
            ("works", "enterprise", None),
            ("north", "site", Some("works")),
            ("press", "line", Some("north")),
            ("cell-a", "cell", Some("press")),
            ("cell-b", "cell", Some("press")),
            ("lost", "cell", Some("nowhere")),
        ];
        let rows = batch(vec![
            ("asset_id", text(&assets.map(|asset| Some(asset.0)))),
            ("level", text(&assets.map(|asset| Some(asset.1)))),
            ("parent_id", text(&assets.map(|asset| asset.2))),
        ]);
        self.write("plant.asset", "plant/assets", rows, Some(1)).await;
        let readings = [
            reading(1, 0, "running", 40.0),
            reading(2, 0, "running", 50.0),
            reading(3, 0, "stopped", 20.0),
            reading(1, 10, "running", 44.0),
            reading(2, 10, "removed", 45.0),
            reading(1, 20, "running", 48.0),
        ];
        self.write("plant.reading", "plant/readings", reading_rows(&readings), Some(1)).await;
    }
}
