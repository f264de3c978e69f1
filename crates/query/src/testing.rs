//! A lake with a few rows, for the tests of this crate.

use std::sync::Arc;

use arrow::array::{BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use twinlake_contracts::{
    CRS84, TableName, TableSpec, TableStore, TableWriter, geometry_field, timestamp_type,
};
use twinlake_lake::{Lake, LakeOptions};

use crate::Engine;

/// An engine over an empty lake; the folder goes when it is dropped.
pub(crate) async fn engine() -> (tempfile::TempDir, Arc<Engine>) {
    let folder = tempfile::tempdir().unwrap();
    let options = LakeOptions { local_dir: folder.path().to_owned(), ..LakeOptions::default() };
    let lake = Lake::open(folder.path().to_str().unwrap(), options).await.unwrap();
    (folder, Engine::new(lake))
}

/// Creates `traffic.vehicle_position` with the writer that the rows of [`vehicles`] go to.
pub(crate) async fn vehicle_table(lake: &Lake) -> Arc<dyn TableWriter> {
    let spec = TableSpec {
        name: TableName::parse("traffic.vehicle_position").unwrap(),
        schema: vehicles(&[]).schema(),
        description: "Where vehicles were".to_owned(),
    };
    lake.open_table(spec).await.unwrap()
}

/// One row a vehicle: name, time, a point in Helsinki.
pub(crate) fn vehicles(names: &[&str]) -> RecordBatch {
    let point = |row: usize| {
        let at = serde_json::json!({"type": "Point", "coordinates": [f64::from(2494 + row as u32) / 100.0, 60.17]});
        twinlake_spatial::encode(&twinlake_spatial::from_geojson(&at).unwrap())
    };
    let schema = Schema::new(vec![
        Field::new("vehicle_id", DataType::Utf8, true),
        Field::new("ts", timestamp_type(), true),
        Field::new("line", DataType::Int64, true),
        geometry_field("geom", CRS84, true),
    ]);
    let points: Vec<Vec<u8>> = (0..names.len()).map(point).collect();
    let times: TimestampMicrosecondArray =
        (0..names.len() as i64).map(|row| Some(1_539_059_573_000_000 + row * 1_000_000)).collect();
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(names.iter().map(|name| Some(*name)).collect::<StringArray>()),
            Arc::new(times.with_timezone("UTC")),
            Arc::new((0..names.len() as i64).map(|row| Some(550 + row)).collect::<Int64Array>()),
            Arc::new(points.iter().map(|point| Some(point.as_slice())).collect::<BinaryArray>()),
        ],
    )
    .unwrap()
}

/// Rows as lines, columns joined by `|`, null as nothing.
pub(crate) fn lines(batches: &[RecordBatch]) -> String {
    let options = FormatOptions::default();
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(cells.join("|"));
        }
    }
    lines.join("\n")
}
