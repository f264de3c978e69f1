//! Reader `osm_pbf`: roads, buildings, stops and lines of an OpenStreetMap extract.
//!
//! The same file gives the same batches: rows are sorted by their identifiers. Geometry is WKB in OGC:CRS84 (longitude,
//! latitude). Lengths are geodesics on WGS 84 (Karney 2013). What the road columns are made from stands in
//! `osm_tags.rs` (classes, lanes, speeds, capacities) and `osm_roads.rs` (how ways become links).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use geo_types::{Geometry, Point};
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    BatchIterator, CRS84, Component, Error, GEOMETRY_COLUMN, Location, Reader, Result, geometry_field,
};
use wkb::writer::{WriteOptions, write_geometry};

use crate::osm_buildings::{self, Building};
use crate::osm_file::{OsmFile, Position};
use crate::osm_roads::{self, RoadLink};
use crate::osm_transit::{self, Stop, TransitLine};

/// What is read from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OsmLayer {
    /// Directed links for cars: `link_id`, `way_id`, `from_node`, `to_node`, `name`, `highway`, `lanes` (in this
    /// direction), `speed_kmh` (the limit), `free_flow_speed_kmh`, `length_m`, `free_flow_time_s`, `capacity_vph`,
    /// `oneway`, `geom` (LineString).
    RoadLinks,
    /// The ends of the links: `node_id`, `geom` (Point).
    RoadNodes,
    /// Buildings: `building_id` (`way/…` or `relation/…`), `name`, `kind`, `levels`, `height_m`, `address`, `geom`
    /// (Polygon or MultiPolygon).
    Buildings,
    /// Stops of public transport: `stop_id` (the node), `code` (the number at the stop), `name`, `mode` (`bus`, `tram`,
    /// `train`, `metro` or `ferry`), `lines` (those that call there, as shown to passengers, separated by `, `), `geom`
    /// (Point).
    Stops,
    /// Lines of public transport: `line_id` (`<mode>/<line>`), `line` (as shown to passengers), `mode`, `name`, `operator`,
    /// `routes` (its directions and variants in the file), `stops` (of the file that it calls at).
    TransitLines,
}

/// Reads a layer of an OpenStreetMap file in PBF (`.osm.pbf`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OsmPbfSettings {
    /// What is read.
    pub layer: OsmLayer,
}

impl Component for OsmPbfSettings {
    const TYPE: &'static str = "osm_pbf";
    type Product = dyn Reader;

    fn build(self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(OsmPbf { layer: self.layer, schema: Arc::new(schema(self.layer)) }))
    }
}

fn schema(layer: OsmLayer) -> Schema {
    use DataType::{Boolean, Float64, Int64, Utf8};
    let geometry = geometry_field(GEOMETRY_COLUMN, CRS84, false);
    let columns: &[(&str, DataType, bool)] = match layer {
        OsmLayer::RoadLinks => &[
            ("link_id", Int64, false),
            ("way_id", Int64, false),
            ("from_node", Int64, false),
            ("to_node", Int64, false),
            ("name", Utf8, true),
            ("highway", Utf8, false),
            ("lanes", Float64, false),
            ("speed_kmh", Float64, false),
            ("free_flow_speed_kmh", Float64, false),
            ("length_m", Float64, false),
            ("free_flow_time_s", Float64, false),
            ("capacity_vph", Float64, false),
            ("oneway", Boolean, false),
        ],
        OsmLayer::RoadNodes => &[("node_id", Int64, false)],
        OsmLayer::Buildings => &[
            ("building_id", Utf8, false),
            ("name", Utf8, true),
            ("kind", Utf8, false),
            ("levels", Float64, true),
            ("height_m", Float64, true),
            ("address", Utf8, true),
        ],
        OsmLayer::Stops => &[
            ("stop_id", Int64, false),
            ("code", Utf8, true),
            ("name", Utf8, true),
            ("mode", Utf8, false),
            ("lines", Utf8, true),
        ],
        OsmLayer::TransitLines => &[
            ("line_id", Utf8, false),
            ("line", Utf8, false),
            ("mode", Utf8, false),
            ("name", Utf8, true),
            ("operator", Utf8, true),
            ("routes", Int64, false),
            ("stops", Int64, false),
        ],
    };
    let fields = columns.iter().map(|(name, kind, nullable)| Field::new(*name, kind.clone(), *nullable));
    // An extract cuts lines at its edge: what is left of one is not its way.
    let geometry = (layer != OsmLayer::TransitLines).then_some(geometry);
    Schema::new(fields.chain(geometry).collect::<Vec<_>>())
}

struct OsmPbf {
    layer: OsmLayer,
    schema: SchemaRef,
}

/// Rows in a batch.
const BATCH: usize = 8192;

impl Reader for OsmPbf {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn read(&self, at: &Location) -> Result<BatchIterator> {
        let file = OsmFile::new(&at.0)?;
        let schema = Arc::clone(&self.schema);
        match self.layer {
            OsmLayer::RoadLinks => {
                let links = osm_roads::read(&file)?.links;
                Ok(batches(links, move |links| link_batch(&schema, links)))
            }
            OsmLayer::RoadNodes => {
                let nodes: Vec<(i64, Position)> = osm_roads::read(&file)?.nodes.into_iter().collect();
                Ok(batches(nodes, move |nodes| node_batch(&schema, nodes)))
            }
            OsmLayer::Buildings => {
                let buildings = catch_unwind(AssertUnwindSafe(|| osm_buildings::read(&file)))
                    .unwrap_or_else(|_| Err(Error::internal("a building's geometry cannot be made")))?;
                Ok(batches(buildings, move |buildings| building_batch(&schema, buildings)))
            }
            OsmLayer::Stops => {
                let stops = osm_transit::read(&file)?.stops;
                Ok(batches(stops, move |stops| stop_batch(&schema, stops)))
            }
            OsmLayer::TransitLines => {
                let lines = osm_transit::read(&file)?.lines;
                Ok(batches(lines, move |lines| line_batch(&schema, lines)))
            }
        }
    }
}

/// Cuts rows into batches that are made one after the other.
fn batches<T: Send + 'static>(
    rows: Vec<T>,
    make: impl Fn(&[T]) -> Result<RecordBatch> + Send + 'static,
) -> BatchIterator {
    let mut start = 0;
    Box::new(std::iter::from_fn(move || {
        let end = (start + BATCH).min(rows.len());
        let part = rows.get(start..end).filter(|part| !part.is_empty())?;
        start = end;
        Some(make(part))
    }))
}

fn geometries(all: impl Iterator<Item = Geometry>) -> Result<ArrayRef> {
    let blobs = all
        .map(|geometry| {
            let mut blob = Vec::new();
            write_geometry(&mut blob, &geometry, &WriteOptions::default())
                .map_err(|error| Error::internal(format!("WKB: {error}")))?;
            Ok(blob)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(BinaryArray::from_iter_values(blobs)))
}

fn whole<T>(rows: &[T], value: impl Fn(&T) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(value)))
}

fn number<T>(rows: &[T], value: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Float64Array>())
}

fn text<'a, T>(rows: &'a [T], value: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<StringArray>())
}

fn link_batch(schema: &SchemaRef, links: &[RoadLink]) -> Result<RecordBatch> {
    let columns = vec![
        whole(links, |link| link.link_id),
        whole(links, |link| link.way_id),
        whole(links, |link| link.from_node),
        whole(links, |link| link.to_node),
        text(links, |link| link.name.as_deref()),
        text(links, |link| Some(&link.highway)),
        number(links, |link| Some(link.lanes)),
        number(links, |link| Some(link.speed_kmh)),
        number(links, |link| Some(link.free_flow_speed_kmh)),
        number(links, |link| Some(link.length_m)),
        number(links, |link| Some(link.free_flow_time_s)),
        number(links, |link| Some(link.capacity_vph)),
        Arc::new(links.iter().map(|link| Some(link.oneway)).collect::<BooleanArray>()) as ArrayRef,
        geometries(links.iter().map(|link| link.line.clone().into()))?,
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn node_batch(schema: &SchemaRef, nodes: &[(i64, Position)]) -> Result<RecordBatch> {
    let points = nodes.iter().map(|(_, position)| Point::new(position.longitude, position.latitude).into());
    let columns = vec![whole(nodes, |(id, _)| *id), geometries(points)?];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn building_batch(schema: &SchemaRef, buildings: &[Building]) -> Result<RecordBatch> {
    let columns = vec![
        text(buildings, |building| Some(&building.id)),
        text(buildings, |building| building.name.as_deref()),
        text(buildings, |building| Some(&building.kind)),
        number(buildings, |building| building.levels),
        number(buildings, |building| building.height_m),
        text(buildings, |building| building.address.as_deref()),
        geometries(buildings.iter().map(|building| building.geometry.clone()))?,
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn stop_batch(schema: &SchemaRef, stops: &[Stop]) -> Result<RecordBatch> {
    let points = stops.iter().map(|stop| Point::new(stop.position.longitude, stop.position.latitude).into());
    let columns = vec![
        whole(stops, |stop| stop.id),
        text(stops, |stop| stop.code.as_deref()),
        text(stops, |stop| stop.name.as_deref()),
        text(stops, |stop| Some(stop.mode)),
        text(stops, |stop| stop.lines.as_deref()),
        geometries(points)?,
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn line_batch(schema: &SchemaRef, lines: &[TransitLine]) -> Result<RecordBatch> {
    let columns = vec![
        text(lines, |line| Some(&line.id)),
        text(lines, |line| Some(&line.line)),
        text(lines, |line| Some(line.mode)),
        text(lines, |line| line.name.as_deref()),
        text(lines, |line| line.operator.as_deref()),
        whole(lines, |line| line.routes),
        whole(lines, |line| line.stops),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::path::{Path, PathBuf};

    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};
    use serde_json::json;

    use super::*;

    fn helsinki() -> PathBuf {
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../pipelines/data/helsinki-centre.osm.pbf")
    }

    fn read(layer: &str, path: &Path) -> Result<RecordBatch> {
        let reader = crate::readers().build("osm_pbf", json!({"layer": layer}))?;
        let batches = reader.read(&Location(path.to_owned()))?.collect::<Result<Vec<_>>>()?;
        assert!(batches.iter().all(|batch| batch.schema() == reader.schema()));
        Ok(arrow::compute::concat_batches(&reader.schema(), &batches)?)
    }

    fn longs(batch: &RecordBatch, name: &str) -> Vec<i64> {
        batch.column_by_name(name).expect(name).as_primitive::<Int64Type>().values().to_vec()
    }

    fn doubles(batch: &RecordBatch, name: &str) -> Vec<f64> {
        batch.column_by_name(name).expect(name).as_primitive::<Float64Type>().values().to_vec()
    }

    #[test]
    fn helsinki_becomes_a_graph_that_holds_together() {
        let links = read("road_links", &helsinki()).expect("links");
        let nodes = read("road_nodes", &helsinki()).expect("nodes");
        assert!(links.num_rows() > 1000, "{} links", links.num_rows());
        let ids = longs(&links, "link_id");
        assert!(ids.is_sorted_by(|a, b| a < b), "sorted and unique");
        let node_ids = longs(&nodes, "node_id");
        assert!(node_ids.is_sorted_by(|a, b| a < b));
        let known: HashSet<i64> = node_ids.into_iter().collect();
        let (from, to) = (longs(&links, "from_node"), longs(&links, "to_node"));
        let used: HashSet<i64> = from.iter().chain(&to).copied().collect();
        assert_eq!(used, known, "the ends of the links are the nodes");
        assert!(from.iter().zip(&to).all(|(from, to)| from != to));
        let oneway = links.column_by_name("oneway").expect("column").as_boolean();
        let by_id: HashMap<i64, usize> = ids.iter().enumerate().map(|(row, id)| (*id, row)).collect();
        for (row, id) in ids.iter().enumerate() {
            let twin = by_id.get(&(id ^ 1));
            assert_eq!(twin.is_none(), oneway.value(row), "a two-way link has its other direction");
            if let Some(twin) = twin {
                assert_eq!((from[row], to[row]), (to[*twin], from[*twin]));
            }
        }
        for (name, least, most) in [
            ("lanes", 0.5, 10.0),
            ("speed_kmh", 5.0, 120.0),
            ("free_flow_speed_kmh", 4.0, 120.0),
            ("length_m", 0.0, 5000.0),
            ("free_flow_time_s", 0.0, 1000.0),
            ("capacity_vph", 100.0, 12_000.0),
        ] {
            for value in doubles(&links, name) {
                assert!((least..=most).contains(&value), "{name} {value}");
            }
        }
        let names = links.column_by_name("name").expect("column").as_string::<i32>();
        assert!(names.iter().flatten().any(|name| name == "Mannerheimintie"));
        let geom = links.column_by_name("geom").expect("column").as_binary::<i32>();
        for blob in geom.iter().flatten().take(100) {
            assert!(wkb::reader::read_wkb(blob).is_ok());
        }
        assert_eq!(read("road_links", &helsinki()).expect("again"), links, "the same file, the same rows");
    }

    #[test]
    fn helsinki_has_buildings_with_names_heights_and_holes() {
        let buildings = read("buildings", &helsinki()).expect("buildings");
        assert!(buildings.num_rows() > 400, "{} buildings", buildings.num_rows());
        let ids: Vec<String> =
            buildings.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "each once");
        assert!(ids.iter().any(|id| id.starts_with("relation/")));
        for name in ["name", "levels", "address"] {
            let column = buildings.column_by_name(name).expect(name);
            assert!(column.null_count() < column.len(), "some have a {name}");
        }
    }

    #[test]
    fn helsinki_has_stops_and_the_lines_that_call_there() {
        let stops = read("stops", &helsinki()).expect("stops");
        let ids = longs(&stops, "stop_id");
        assert!(ids.is_sorted_by(|a, b| a < b), "sorted and unique");
        let column = |name: &str| stops.column_by_name(name).expect(name).as_string::<i32>().clone();
        let (codes, modes, lines) = (column("code"), column("mode"), column("lines"));
        let of_mode = |wanted: &str| modes.iter().flatten().filter(|mode| *mode == wanted).count();
        assert_eq!((of_mode("bus"), of_mode("tram")), (88, 40));
        // The tram stop 0301 at the railway station.
        let station = codes.iter().position(|code| code == Some("0301")).expect("0301");
        assert_eq!((modes.value(station), column("name").value(station)), ("tram", "Rautatieasema (M)"));
        assert!(lines.value(station).split(", ").count() > 1, "{}", lines.value(station));

        let transit = read("transit_lines", &helsinki()).expect("lines");
        let column = |name: &str| transit.column_by_name(name).expect(name).as_string::<i32>().clone();
        let ids: Vec<String> = column("line_id").iter().flatten().map(str::to_owned).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "sorted and unique: {ids:?}");
        for line in lines.value(station).split(", ") {
            assert!(ids.contains(&format!("tram/{line}")), "{line} in {ids:?}");
        }
        assert!(longs(&transit, "routes").iter().all(|count| *count > 0));
        assert!(transit.column_by_name("geom").is_none());
    }

    /// A temporary file with these bytes.
    fn with_bytes<T>(name: &str, bytes: &[u8], run: impl Fn(&Path) -> T) -> T {
        let folder = std::env::temp_dir().join(format!("twinlake-osm-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        let path = folder.join("map.osm.pbf");
        std::fs::write(&path, bytes).expect("write");
        let result = run(&path);
        std::fs::remove_dir_all(&folder).expect("remove");
        result
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_file_and_byte() {
        let bytes = std::fs::read(helsinki()).expect("file");
        let missing = read("road_links", Path::new("/nowhere/map.osm.pbf")).expect_err("missing");
        assert!(matches!(missing, Error::Config(_)), "{missing}");
        for length in [0, 1, 3, 4, 10, 100, 5000, bytes.len() / 2, bytes.len() - 1] {
            let error = with_bytes("cut", &bytes[..length], |path| read("road_links", path));
            let error = error.expect_err("truncated").to_string();
            assert!(error.contains("map.osm.pbf") && error.contains("at byte"), "{length}: {error}");
        }
        let text = with_bytes("text", b"<?xml version='1.0'?><osm></osm>", |path| read("buildings", path));
        assert!(text.is_err());
        let mut trailing = bytes.clone();
        trailing.extend([0, 0]);
        assert!(with_bytes("more", &trailing, |path| read("road_nodes", path)).is_err());
    }

    #[test]
    fn flipped_bytes_never_panic_and_rarely_pass() {
        let bytes = std::fs::read(helsinki()).expect("file");
        let mut passed = 0;
        for round in 0_usize..40 {
            let mut damaged = bytes.clone();
            // Spread over the file, the beginning more than the rest.
            let place = if round < 20 { round * 13 } else { (round * 7_919_123) % bytes.len() };
            damaged[place] ^= 1 << (round % 8);
            passed += usize::from(with_bytes("flip", &damaged, |path| read("road_links", path)).is_ok());
        }
        // What may pass unseen is in header fields that say nothing about the data (its box, its writing program).
        assert!(passed <= 20, "{passed} of 40 passed");
    }
}
