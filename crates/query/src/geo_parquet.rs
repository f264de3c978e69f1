//! Which columns of a Parquet file are geometry, and in which reference system.
//!
//! Three ways to say so are read: the field's own Arrow metadata (as our files and other Arrow writers have it), the
//! `geo` metadata of the file (GeoParquet 1.0 and 1.1, encoding WKB), and Parquet's logical type GEOMETRY. A column that
//! they name arrives with our field metadata. A reference system that has no authority code stays unnamed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::basic::LogicalType;
use parquet::file::metadata::ParquetMetaDataReader;
use serde_json::Value;
use twinlake_contracts::{
    CRS84, EXTENSION_METADATA, EXTENSION_NAME, WKB_EXTENSION, geometry_field, is_geometry,
};

/// The key of GeoParquet's metadata.
const GEO: &str = "geo";

/// The schema with the geometry that the file speaks of; `None` when it speaks of none that is not marked already.
pub(crate) fn schema(given: &SchemaRef, file: Option<&Path>) -> Option<SchemaRef> {
    let mut columns: BTreeMap<String, Option<String>> = BTreeMap::new();
    if let Some(metadata) = file.and_then(footer) {
        columns = metadata;
    }
    if let Some(geo) = given.metadata().get(GEO) {
        columns.extend(geo_columns(geo));
    }
    let marked = |field: &Arc<Field>| match columns.get(field.name()) {
        Some(crs) if is_bytes(field.data_type()) && !is_geometry(field) => {
            Arc::new(mark(field, crs.as_deref()))
        }
        _ => Arc::clone(field),
    };
    let fields: Vec<Arc<Field>> = given.fields().iter().map(marked).collect();
    let changed = fields.iter().zip(given.fields()).any(|(new, old)| !Arc::ptr_eq(new, old));
    changed.then(|| Arc::new(Schema::new_with_metadata(fields, given.metadata().clone())))
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn mark(field: &Field, crs: Option<&str>) -> Field {
    let metadata = match crs {
        Some(crs) => geometry_field(field.name(), crs, true).metadata().clone(),
        None => HashMap::from([
            (EXTENSION_NAME.to_owned(), WKB_EXTENSION.to_owned()),
            (EXTENSION_METADATA.to_owned(), "{}".to_owned()),
        ]),
    };
    field.clone().with_metadata(metadata)
}

/// What the end of a file says: columns of the logical type, and those of GeoParquet's metadata. A file that cannot be
/// read says nothing here; its reading tells why.
fn footer(file: &Path) -> Option<BTreeMap<String, Option<String>>> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(file).ok()?).ok()?;
    let metadata = metadata.file_metadata();
    let mut columns = BTreeMap::new();
    for column in metadata.schema_descr().columns() {
        if let (Some(LogicalType::Geometry(geometry)), [name]) =
            (column.logical_type_ref(), column.path().parts())
        {
            let crs = match &geometry.crs {
                Some(text) => {
                    named(&serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
                }
                None => Some(CRS84.to_owned()),
            };
            columns.insert(name.clone(), crs);
        }
    }
    let pairs = metadata.key_value_metadata().into_iter().flatten();
    for pair in pairs.filter(|pair| pair.key == GEO) {
        columns.extend(geo_columns(pair.value.as_deref().unwrap_or_default()));
    }
    Some(columns)
}

/// Columns and reference systems of GeoParquet's metadata.
fn geo_columns(text: &str) -> BTreeMap<String, Option<String>> {
    let Ok(geo) = serde_json::from_str::<Value>(text) else { return BTreeMap::new() };
    let Some(columns) = geo.get("columns").and_then(Value::as_object) else { return BTreeMap::new() };
    columns
        .iter()
        .filter(|(_, column)| column.get("encoding").and_then(Value::as_str) == Some("WKB"))
        .map(|(name, column)| {
            let crs = match column.get("crs") {
                None => Some(CRS84.to_owned()),
                Some(crs) => named(crs),
            };
            (name.clone(), crs)
        })
        .collect()
}

/// The authority code of a reference system: the identifier of PROJJSON, or a text such as `EPSG:3879` or `srid:3879`.
fn named(crs: &Value) -> Option<String> {
    if let Some(text) = crs.as_str() {
        let (authority, code) = text.split_once(':')?;
        let known = !code.is_empty() && code.chars().all(|letter| letter.is_ascii_alphanumeric());
        return match authority.to_ascii_lowercase().as_str() {
            "srid" if known => Some(format!("EPSG:{code}")),
            "epsg" | "ogc" | "esri" if known => Some(format!("{}:{code}", authority.to_ascii_uppercase())),
            _ => None,
        };
    }
    let id = crs.get("id")?;
    let code = match id.get("code")? {
        Value::String(code) => code.clone(),
        Value::Number(code) => code.to_string(),
        _ => return None,
    };
    Some(format!("{}:{code}", id.get("authority")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Type as PhysicalType;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;

    use super::*;
    use crate::SessionSettings;
    use crate::testing::{engine, lines};

    fn point() -> Vec<u8> {
        [&[1, 1, 0, 0, 0][..], &24.5_f64.to_le_bytes(), &60.0_f64.to_le_bytes()].concat()
    }

    fn geo_parquet(file: &Path, geo: &str) {
        let schema = Arc::new(Schema::new(vec![Field::new("place", DataType::Binary, true)]));
        let column = BinaryArray::from_iter([Some(point()), None]);
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap();
        let metadata = vec![KeyValue::new(GEO.to_owned(), geo.to_owned())];
        let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
        let mut writer = ArrowWriter::try_new(File::create(file).unwrap(), schema, Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }

    fn logical_type(file: &Path, crs: Option<&str>) {
        let column = Type::primitive_type_builder("place", PhysicalType::BYTE_ARRAY)
            .with_repetition(parquet::basic::Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::geometry(crs.map(str::to_owned))))
            .build()
            .unwrap();
        let schema = Type::group_type_builder("schema").with_fields(vec![Arc::new(column)]).build().unwrap();
        let mut writer =
            SerializedFileWriter::new(File::create(file).unwrap(), Arc::new(schema), Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(point())], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[tokio::test]
    async fn geometry_of_other_writers_arrives_with_its_reference_system() {
        let (folder, engine) = engine().await;
        let session = engine.session(SessionSettings { local_files: true }).unwrap();
        let ask = async |file: &Path| {
            let from = file.display();
            let sql = format!("SELECT st_srid(place), st_x(place) FROM '{from}' WHERE st_y(place) > 0");
            lines(&session.collect(&sql).await.unwrap())
        };
        let column = |more: &str| {
            format!(
                r#"{{"version": "1.1.0", "primary_column": "place", "columns": {{"place": {{"encoding": "WKB", "geometry_types": []{more}}}}}}}"#
            )
        };
        for (number, (more, expected)) in [
            ("", "4326|24.5"),
            (r#", "crs": {"type": "ProjectedCRS", "id": {"authority": "EPSG", "code": 3879}}"#, "3879|24.5"),
            (r#", "crs": {"id": {"authority": "OGC", "code": "CRS84"}}"#, "4326|24.5"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = folder.path().join(format!("geo{number}.parquet"));
            geo_parquet(&file, &column(more));
            assert_eq!(ask(&file).await, expected, "{more}");
        }
        for (number, (crs, expected)) in
            [(None, "4326|24.5"), (Some("EPSG:3879"), "3879|24.5"), (Some("srid:3067"), "3067|24.5")]
                .into_iter()
                .enumerate()
        {
            let file = folder.path().join(format!("logical{number}.parquet"));
            logical_type(&file, crs);
            assert_eq!(ask(&file).await, expected, "{crs:?}");
        }
    }

    #[test]
    fn a_reference_system_without_a_code_stays_unnamed() {
        assert_eq!(named(&Value::Null), None);
        assert_eq!(named(&serde_json::json!({"type": "GeographicCRS"})), None);
        assert_eq!(named(&Value::String("projjson:crs".into())), None);
        assert_eq!(geo_columns("no JSON"), BTreeMap::new());
    }
}
