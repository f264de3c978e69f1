//! Results written out: as a table for people, CSV, JSON, an Arrow stream or Parquet.
//!
//! In table, CSV and JSON a geometry (a field that says `geoarrow.wkb`) is written as WKT, a time stamp as RFC 3339
//! (one without a zone is UTC). Arrow and Parquet keep every type and all metadata.

mod readable;
mod table;

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use twinlake_contracts::{Error, Result, suggest};

pub use readable::{readable, readable_schema};

/// How a result is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns between lines, for people.
    #[default]
    Table,
    /// RFC 4180 with a header; null is an empty field, lists and structs are their text.
    Csv,
    /// One JSON array of objects; every object has every column, null included.
    Json,
    /// The Arrow IPC streaming format.
    Arrow,
    /// One Parquet file, Zstandard-compressed.
    Parquet,
}

const FORMATS: [(&str, Format); 5] = [
    ("table", Format::Table),
    ("csv", Format::Csv),
    ("json", Format::Json),
    ("arrow", Format::Arrow),
    ("parquet", Format::Parquet),
];

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        FORMATS.iter().find(|(name, _)| *name == text).map(|(_, format)| *format).ok_or_else(|| {
            let names = FORMATS.map(|(name, _)| name);
            let help = suggest(text, names).map_or_else(
                || format!("known: {}", names.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            Error::config(format!("'{text}' is not an output format")).with_help(help)
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FORMATS.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Writes a whole result. A result without rows still has its header (`[]` in JSON).
pub fn write(format: Format, schema: &SchemaRef, rows: &[RecordBatch], mut writer: impl Write) -> Result<()> {
    match format {
        Format::Table => table::write(&readable_schema(schema), &readable_all(rows)?, &mut writer)?,
        Format::Csv => write_csv(schema, rows, &mut writer)?,
        Format::Json => {
            let mut json = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::JsonArray>(&mut writer);
            for batch in &readable_all(rows)? {
                json.write(batch)?;
            }
            json.finish()?;
            writer.write_all(b"\n")?;
        }
        Format::Arrow => {
            let mut stream = arrow::ipc::writer::StreamWriter::try_new(&mut writer, schema)?;
            for batch in rows {
                stream.write(&retyped(schema, batch)?)?;
            }
            stream.finish()?;
        }
        Format::Parquet => {
            // Built in memory: the footer needs a place that can be sent between threads, the terminal has none.
            let mut file = Vec::new();
            write_parquet(schema, rows, &mut file)?;
            writer.write_all(&file)?;
        }
    }
    writer.flush()?;
    Ok(())
}

fn readable_all(rows: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    rows.iter().map(readable).collect()
}

fn write_csv(schema: &SchemaRef, rows: &[RecordBatch], writer: &mut impl Write) -> Result<()> {
    let mut csv = arrow::csv::WriterBuilder::new().with_header(true).build(writer);
    if rows.is_empty() {
        csv.write(&RecordBatch::new_empty(readable::flat_schema(schema)))?;
    }
    for batch in rows {
        csv.write(&readable::flat(batch)?)?;
    }
    Ok(())
}

fn write_parquet(schema: &SchemaRef, rows: &[RecordBatch], file: &mut Vec<u8>) -> Result<()> {
    let parquet_error = |error| Error::internal(format!("Parquet: {error}"));
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()))
        .build();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))
        .map_err(parquet_error)?;
    for batch in rows {
        parquet.write(&retyped(schema, batch)?).map_err(parquet_error)?;
    }
    parquet.close().map_err(parquet_error)?;
    Ok(())
}

/// The batch under the result's schema: plans differ in metadata and nullability from one batch to the next.
fn retyped(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array as _, BinaryArray, Int64Array, ListArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use twinlake_contracts::{CRS84, geometry_field, timestamp_type};

    fn rows() -> RecordBatch {
        let geometry = serde_json::json!({"type": "Point", "coordinates": [24.94, 60.17]});
        let geometry = twinlake_spatial::encode(&twinlake_spatial::from_geojson(&geometry).unwrap());
        let times = TimestampMicrosecondArray::from(vec![Some(1_539_059_573_500_000), None]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), None]);
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("ts", timestamp_type(), true),
            Field::new("bare", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true),
            geometry_field("geom", CRS84, true),
            Field::new("list", lists.data_type().clone(), true),
            Field::new("bytes", DataType::Binary, true),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int64Array::from(vec![Some(7), None])),
                Arc::new(times.clone().with_timezone("UTC")),
                Arc::new(times),
                Arc::new(BinaryArray::from(vec![Some(geometry.as_slice()), None])),
                Arc::new(lists),
                Arc::new(BinaryArray::from(vec![Some(b"ab".as_slice()), None])),
            ],
        )
        .unwrap()
    }

    fn written(format: Format, rows: &[RecordBatch], schema: &SchemaRef) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(format, schema, rows, &mut bytes).unwrap();
        bytes
    }

    fn text(format: Format) -> String {
        let rows = rows();
        String::from_utf8(written(format, std::slice::from_ref(&rows), &rows.schema())).unwrap()
    }

    #[test]
    fn people_read_wkt_and_rfc_3339() {
        assert_eq!(
            text(Format::Csv),
            "n,ts,bare,geom,list,bytes\n\
             7,2018-10-09T04:32:53.500Z,2018-10-09T04:32:53.500Z,POINT(24.94 60.17),\"[1, 2]\",6162\n\
             ,,,,,\n"
        );
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                {"n": 7, "ts": "2018-10-09T04:32:53.500Z", "bare": "2018-10-09T04:32:53.500Z",
                 "geom": "POINT(24.94 60.17)", "list": [1, 2], "bytes": "6162"},
                {"n": null, "ts": null, "bare": null, "geom": null, "list": null, "bytes": null}
            ])
        );
        let table = text(Format::Table);
        assert!(
            table.contains("POINT(24.94 60.17)") && table.contains("2018-10-09T04:32:53.500Z"),
            "{table}"
        );
        assert!(table.contains("NULL") && table.ends_with("(2 rows)\n"), "{table}");
    }

    #[test]
    fn machines_get_every_type_back() {
        let rows = rows();
        let stream = written(Format::Arrow, std::slice::from_ref(&rows), &rows.schema());
        let read: Vec<RecordBatch> = arrow::ipc::reader::StreamReader::try_new(stream.as_slice(), None)
            .unwrap()
            .map(|batch| batch.unwrap())
            .collect();
        assert_eq!(read, std::slice::from_ref(&rows));
        let mut file = tempfile::tempfile().unwrap();
        write(Format::Parquet, &rows.schema(), std::slice::from_ref(&rows), &mut file).unwrap();
        let read: Vec<RecordBatch> =
            parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1024)
                .unwrap()
                .map(|batch| batch.unwrap())
                .collect();
        assert_eq!(read[0].columns(), rows.columns());
        assert_eq!(read[0].schema().field(3).metadata(), rows.schema().field(3).metadata());
    }

    #[test]
    fn nothing_is_a_header() {
        let schema = rows().schema();
        assert_eq!(written(Format::Json, &[], &schema), b"[]\n");
        assert_eq!(written(Format::Csv, &[], &schema), b"n,ts,bare,geom,list,bytes\n");
        let table = String::from_utf8(written(Format::Table, &[], &schema)).unwrap();
        assert!(table.contains("geom") && table.contains("(0 rows)"), "{table}");
        assert!(!written(Format::Parquet, &[], &schema).is_empty());
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let rows = [rows()];
        for (_, format) in FORMATS {
            assert_eq!(written(format, &rows, &rows[0].schema()), written(format, &rows, &rows[0].schema()));
        }
    }

    #[test]
    fn an_unknown_format_suggests_the_nearest() {
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        let error = "jsn".parse::<Format>().unwrap_err().to_string();
        assert!(error.contains("did you mean 'json'?"), "{error}");
    }
}
