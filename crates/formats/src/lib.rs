//! What payloads and GIS files mean: one file a format; pure decoding, no network, no runtime.
//!
//! Payloads of messages go through a [`Decoder`], large bounded files through a [`Reader`]. To add one: a file with a
//! settings struct that implements [`Component`], and one line in [`decoders`] or [`readers`]. Bodies that clients hand in
//! (line protocol, JSON rows, Arrow) go through [`Bodies`].
//!
//! [`Component`]: twinlake_contracts::Component

mod arrow_stream;
mod bodies;
mod columns;
mod csv;
mod csv_file;
pub mod csv_table;
pub mod epanet;
mod geojson;
pub mod gtfs;
mod json;
mod json_rows;
mod line_protocol;
pub mod line_toml;
pub mod matpower;
pub mod network_files;
mod osm_buildings;
mod osm_file;
mod osm_pbf;
mod osm_roads;
mod osm_tags;
mod osm_transit;
mod sheets;
pub mod tntp;
mod values;

pub use bodies::Bodies;
pub use columns::{Column, TopicColumn};
pub use csv::{CsvMessage, CsvSettings};
pub use csv_file::CsvFileSettings;
pub use json::JsonSettings;
pub use network_files::{EpanetSettings, MatpowerSettings, ProductionLineSettings, TntpSettings};
pub use osm_pbf::{OsmLayer, OsmPbfSettings};
pub use values::{EpochUnit, ValueType};

use twinlake_contracts::{Decoder, Reader, Registry};

/// All decoders of message payloads.
pub fn decoders() -> Registry<dyn Decoder> {
    Registry::new("decoder").with::<JsonSettings>().with::<CsvSettings>()
}

/// All readers of files.
pub fn readers() -> Registry<dyn Reader> {
    Registry::new("reader")
        .with::<OsmPbfSettings>()
        .with::<CsvFileSettings>()
        .with::<EpanetSettings>()
        .with::<MatpowerSettings>()
        .with::<TntpSettings>()
        .with::<ProductionLineSettings>()
}

#[cfg(test)]
mod conformance;
