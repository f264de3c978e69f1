//! How a geometry travels: WKB in a binary column with the `geoarrow.wkb` extension and an explicit CRS.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};

/// The default coordinate reference system: longitude, latitude in degrees on WGS 84.
pub const CRS84: &str = "OGC:CRS84";
/// The usual name of a geometry column.
pub const GEOMETRY_COLUMN: &str = "geom";
/// The Arrow extension name of WKB geometry.
pub const WKB_EXTENSION: &str = "geoarrow.wkb";
/// The field metadata key of an Arrow extension name.
pub const EXTENSION_NAME: &str = "ARROW:extension:name";
/// The field metadata key of Arrow extension metadata (JSON with `crs`).
pub const EXTENSION_METADATA: &str = "ARROW:extension:metadata";

/// A WKB geometry field in the CRS given (an authority code such as `OGC:CRS84` or `EPSG:3879`).
pub fn geometry_field(name: &str, crs: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Binary, nullable).with_metadata(HashMap::from([
        (EXTENSION_NAME.to_owned(), WKB_EXTENSION.to_owned()),
        (EXTENSION_METADATA.to_owned(), format!("{{\"crs\":\"{crs}\",\"crs_type\":\"authority_code\"}}")),
    ]))
}

/// Whether a field holds WKB geometry.
pub fn is_geometry(field: &Field) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == WKB_EXTENSION)
}

/// The CRS that a geometry field names; `None` when it names none.
pub fn crs_of(field: &Field) -> Option<String> {
    let metadata = field.metadata().get(EXTENSION_METADATA)?;
    let parsed: serde_json::Value = serde_json::from_str(metadata).ok()?;
    parsed.get("crs")?.as_str().map(str::to_owned)
}
