//! Whole tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::{PersonalKind, Profiler, TableProfile};

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

fn profiled(batches: &[RecordBatch], key: Option<&[String]>) -> TableProfile {
    let mut profiler = Profiler::new(&batches[0].schema());
    for batch in batches {
        profiler.add(batch).unwrap();
    }
    profiler.finish("t", true, key)
}

fn readings() -> RecordBatch {
    let n = 1000i64;
    let texts =
        |of: &dyn Fn(i64) -> String| Arc::new(StringArray::from_iter_values((0..n).map(of))) as ArrayRef;
    table(vec![
        ("station", texts(&|row| format!("S{}", row % 10))),
        ("minute", Arc::new(Int64Array::from_iter_values((0..n).map(|row| row / 10)))),
        ("serial", Arc::new(Int64Array::from_iter_values(0..n))),
        (
            "temp",
            Arc::new((0..n).map(|row| (row % 4 != 0).then_some(row as f64 / 50.0)).collect::<Float64Array>()),
        ),
        ("measured_at", texts(&|row| format!("2026-01-01T00:{:02}:00Z", row % 60))),
        ("lon", Arc::new(Float64Array::from_iter_values((0..n).map(|row| 24.9 + row as f64 * 1e-4)))),
        ("lat", Arc::new(Float64Array::from_iter_values((0..n).map(|row| 60.1 + row as f64 * 1e-4)))),
        ("city", texts(&|row| ["Helsinki", "helsinki ", "Espoo"][row as usize % 3].to_owned())),
    ])
}

#[test]
fn a_table_is_told_and_a_definition_proposed() {
    let rows = readings();
    let found = profiled(&[rows.slice(0, 300), rows.slice(300, 700)], None);
    let column = |name: &str| found.columns.iter().find(|column| column.name == name).unwrap();
    assert_eq!(found.rows, 1000);
    assert_eq!((column("temp").nulls, column("station").distinct), (250, 10));
    assert_eq!(column("temp").proposed_unit.as_ref().unwrap().unit, "°C");
    assert_eq!(column("measured_at").proposed_type.as_deref(), Some("timestamp"));
    assert_eq!(column("station").top[0], ("S0".to_owned(), 100));
    let median = column("serial").quantiles.unwrap()[2];
    assert!((499.0..=500.0).contains(&median), "{median}");
    assert!((column("serial").standard_deviation.unwrap() - 288.819).abs() < 1e-2);
    assert_eq!(column("city").near_duplicates, [["Helsinki", "helsinki "]]);
    let keys: Vec<Vec<String>> = found.keys.iter().map(|key| key.columns.clone()).collect();
    assert!(keys.contains(&vec!["serial".to_owned()]), "{keys:?}");
    assert!(keys.contains(&vec!["station".to_owned(), "minute".to_owned()]), "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains(&"lon".to_owned())), "measures are no keys: {keys:?}");
    assert_eq!(found.crs[0].crs.as_deref(), Some("OGC:CRS84"));
    assert!(found.columns.iter().all(|column| column.personal.is_empty()));
    assert!(found.text().contains("key candidate: station, minute"), "{}", found.text());
    // The same rows in other batches give the same profile.
    let again = profiled(&[rows], None);
    assert_eq!(
        serde_json::to_string(&again.columns).unwrap(),
        serde_json::to_string(&found.columns).unwrap()
    );
}

#[test]
fn rows_that_stand_there_twice_are_counted() {
    let rows = readings();
    let twice = arrow::compute::concat_batches(&rows.schema(), &[rows.clone(), rows.slice(0, 7)]).unwrap();
    let key = ["station".to_owned(), "minute".to_owned()];
    let found = profiled(&[twice], Some(&key));
    assert_eq!((found.duplicate_rows, found.repeated_keys.as_ref().unwrap().1), (7, 0));
    assert!(found.keys.is_empty(), "{:?}", found.keys);
    // The same key with another value.
    let mut columns = rows.slice(0, 5).columns().to_vec();
    columns[3] = Arc::new(Float64Array::from(vec![99.0; 5]));
    let other = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let found = profiled(&[rows, other], Some(&key));
    assert_eq!((found.duplicate_rows, found.repeated_keys.unwrap().1), (0, 5));
}

#[test]
fn homes_are_found_in_the_positions_of_devices() {
    let day_us = 86_400_000_000i64;
    let start = 1_700_000_000_000_000i64 / day_us * day_us;
    let mut rows: Vec<(String, i64, f64, f64)> = Vec::new();
    for device in 0..30 {
        for night in 0..6 {
            rows.push((
                format!("d{device}"),
                start + night * day_us - 3_600_000_000,
                24.9 + f64::from(device) * 0.01,
                60.2,
            ));
            rows.push((format!("d{device}"), start + night * day_us + 36_000_000_000, 24.94, 60.17));
        }
    }
    let batch = table(vec![
        ("device_id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0)))),
        (
            "ts",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1))
                    .with_timezone("UTC"),
            ),
        ),
        ("lon", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ("lat", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.3)))),
    ]);
    let found = profiled(&[batch], None);
    for column in &found.columns {
        let kinds: Vec<PersonalKind> = column.personal.iter().map(|finding| finding.kind).collect();
        let expected = if ["lon", "lat"].contains(&column.name.as_str()) {
            vec![PersonalKind::HomeLocation]
        } else {
            vec![]
        };
        assert_eq!(kinds, expected, "{}", column.name);
    }
}
