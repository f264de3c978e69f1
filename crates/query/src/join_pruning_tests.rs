//! A join of a few places with a table of the lake reads only the files that they can meet.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use twinlake_contracts::{CRS84, TableName, TableSpec, TableStore, WriteMode, geometry_field};

use crate::SessionSettings;
use crate::testing::{engine, lines};

const FILES: i64 = 10;
const ROWS: i64 = 100;

/// Points at x = n / 100, y = 0: each file holds a degree.
fn rows(file: i64) -> RecordBatch {
    let numbers: Vec<i64> = (file * ROWS..(file + 1) * ROWS).collect();
    let points: Vec<Vec<u8>> = numbers
        .iter()
        .map(|n| {
            let at = serde_json::json!({"type": "Point", "coordinates": [*n as f64 / 100.0, 0.0]});
            twinlake_spatial::encode(&twinlake_spatial::from_geojson(&at).unwrap())
        })
        .collect();
    let schema =
        Schema::new(vec![Field::new("n", DataType::Int64, true), geometry_field("geom", CRS84, true)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(numbers)),
        Arc::new(points.iter().map(|point| Some(point.as_slice())).collect::<BinaryArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_out_of_reach_of_the_other_side_are_not_read() {
    let (_folder, engine) = engine().await;
    let lake = Arc::clone(engine.lake());
    let spec = TableSpec {
        name: TableName::parse("test.points").unwrap(),
        schema: rows(0).schema(),
        description: String::new(),
    };
    let table = lake.open_table(spec).await.unwrap();
    for file in 0..FILES {
        table.add_fresh("w", rows(file)).await.unwrap();
        if file + 1 < FILES {
            table.commit("w", file as u64 + 1, WriteMode::Append).await.unwrap();
        }
    }
    // The last rows are still fresh: in memory, read in any case.
    let session = engine.session(SessionSettings::default()).unwrap();
    let near = "FROM test.points p JOIN (SELECT st_setsrid(st_point(x, 0), 4326) AS geom FROM (VALUES (2.5), (9.99)) AS t(x)) AS b \
                ON st_dwithin(p.geom, b.geom, 0.015)";
    let answer = session.collect(&format!("SELECT n {near} ORDER BY n")).await.unwrap();
    assert_eq!(lines(&answer), "249\n250\n251\n998\n999");
    let told = lines(&session.collect(&format!("EXPLAIN ANALYZE SELECT n {near}")).await.unwrap());
    assert!(told.contains("_geom_xmin") && told.contains("DynamicFilter"), "{told}");
    // Nine files of a row group each, of which one can hold what is near 2.5 and none what is near 9.99.
    assert!(told.contains("row_groups_pruned_statistics=9 total → 1 matched"), "{told}");
    let left = "SELECT count(*) FROM test.points p LEFT JOIN (SELECT st_setsrid(st_point(2.5, 0), 4326) AS geom) AS b \
                ON st_dwithin(p.geom, b.geom, 0.015)";
    assert_eq!(
        lines(&session.collect(left).await.unwrap()),
        "1000",
        "a row that meets nothing comes out all the same"
    );
}
