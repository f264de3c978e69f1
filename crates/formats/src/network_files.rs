//! Readers of the field's own network files, a table each: EPANET, MATPOWER, TNTP, and production lines in TOML.
//!
//! Which tables a file has and what is in them stands at the function that decodes it. The columns of a table are the same
//! for every file of a format, so those of the smallest file are taken before any file is opened.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{BatchIterator, Component, Error, Location, Reader, Result};

use crate::{epanet, line_toml, matpower, tntp};

type Decode = fn(&str, &str) -> Result<BTreeMap<String, RecordBatch>>;

/// Reads a table of a water network in the format of EPANET (`.inp`), in SI units.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EpanetSettings {
    /// Which: `junctions`, `reservoirs`, `tanks`, `pipes`, `pumps`, `valves`, `demands`, `patterns`, `curves`, `controls`,
    /// `rules`, `rule_premises`, `rule_actions`, `sources`, `options` or `vertices`.
    pub table: String,
}

/// Reads a table of an electrical network in the format of MATPOWER (`.m`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatpowerSettings {
    /// Which: `system`, `buses`, `generators` or `branches`.
    pub table: String,
}

/// Reads a table of a road network, or of its trips, in the format of TNTP.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TntpSettings {
    /// Which: `links` or `nodes` of a network, or the `demand` of a file of trips.
    pub table: String,
}

/// Reads a table of a production line in TOML.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductionLineSettings {
    /// Which: `machines`, `buffers`, `sources`, `times`, `products`, `routes`, `pools`, `transports`, `shifts` or `line`.
    pub table: String,
}

impl Component for EpanetSettings {
    const TYPE: &'static str = "epanet";
    type Product = dyn Reader;

    fn build(self) -> Result<Box<dyn Reader>> {
        let smallest = "[JUNCTIONS]\n a 0\n[RESERVOIRS]\n b 1\n[PIPES]\n c b a 1 1 1 0 Open\n[END]";
        TableReader::boxed(&self.table, epanet::read_network, smallest)
    }
}

impl Component for MatpowerSettings {
    const TYPE: &'static str = "matpower";
    type Product = dyn Reader;

    fn build(self) -> Result<Box<dyn Reader>> {
        let smallest = "function mpc = smallest\nmpc.version = '2';\nmpc.baseMVA = 1;\n\
                        mpc.bus = [1 3 0 0 0 0 1 1 0 1 1 1 1];\n\
                        mpc.gen = [1 0 0 0 0 1 1 1 0 0];\n\
                        mpc.branch = [1 1 0 1 0 0 0 0 0 0 1];\n";
        TableReader::boxed(&self.table, matpower::read_case, smallest)
    }
}

impl Component for TntpSettings {
    const TYPE: &'static str = "tntp";
    type Product = dyn Reader;

    fn build(self) -> Result<Box<dyn Reader>> {
        if self.table == "demand" {
            let smallest = "<NUMBER OF ZONES> 1\n<TOTAL OD FLOW> 0\n<END OF METADATA>\nOrigin 1\n";
            return TableReader::boxed(&self.table, read_trips, smallest);
        }
        let smallest = "<NUMBER OF NODES> 2\n<NUMBER OF LINKS> 1\n<END OF METADATA>\n1 2 1 1 1 1 1 1 1 1 ;\n";
        TableReader::boxed(&self.table, tntp::read_network, smallest)
    }
}

fn read_trips(text: &str, file: &str) -> Result<BTreeMap<String, RecordBatch>> {
    Ok(BTreeMap::from([("demand".to_owned(), tntp::read_trips(text, file)?)]))
}

impl Component for ProductionLineSettings {
    const TYPE: &'static str = "production_line";
    type Product = dyn Reader;

    fn build(self) -> Result<Box<dyn Reader>> {
        let smallest = "[[sources]]\nname = 'a'\noutput = 'b'\n[[buffers]]\nname = 'b'\n\
                        [[machines]]\nname = 'c'\ninput = 'b'\n";
        TableReader::boxed(&self.table, line_toml::read_line, smallest)
    }
}

struct TableReader {
    table: String,
    decode: Decode,
    schema: SchemaRef,
}

impl TableReader {
    fn boxed(table: &str, decode: Decode, smallest: &str) -> Result<Box<dyn Reader>> {
        let tables = decode(smallest, "smallest").map_err(Error::internal)?;
        let found = tables.get(table).ok_or_else(|| no_table(table, tables.keys().map(String::as_str)))?;
        Ok(Box::new(Self { table: table.to_owned(), decode, schema: found.schema() }))
    }
}

fn no_table<'a>(table: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known: Vec<&str> = known.collect();
    let help = match twinlake_contracts::suggest(table, known.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("known: {}", known.join(", ")),
    };
    Error::config(format!("such a file has no table '{table}'")).with_help(help)
}

impl Reader for TableReader {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn read(&self, at: &Location) -> Result<BatchIterator> {
        let mut tables = (self.decode)(&read_text(&at.0)?, &at.0.display().to_string())?;
        let rows = tables
            .remove(&self.table)
            .ok_or_else(|| no_table(&self.table, tables.keys().map(String::as_str)))?;
        Ok(Box::new(std::iter::once(Ok(rows))))
    }
}

/// The text of a file; bytes that are not UTF-8, which old files have in names and comments, become U+FFFD.
pub fn read_text(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file)
        .map_err(|error| Error::config(format!("cannot read {}: {error}", file.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All tables that a format has, by its reader's own words.
    fn tables_of(type_name: &str) -> Vec<String> {
        let error = crate::readers().build(type_name, serde_json::json!({ "table": "?" })).err().unwrap();
        let text = error.to_string();
        text.split_once("known: ").unwrap().1.split(", ").map(|name| name.trim().to_owned()).collect()
    }

    fn rows(type_name: &str, table: &str, file: &Path) -> RecordBatch {
        let reader = crate::readers().build(type_name, serde_json::json!({ "table": table })).unwrap();
        let batches: Vec<RecordBatch> =
            reader.read(&Location(file.to_owned())).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(batches[0].schema(), reader.schema(), "{type_name} {table}");
        batches[0].clone()
    }

    #[test]
    fn every_table_of_a_file_has_the_columns_that_are_promised() {
        let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..");
        for (type_name, file, table, count) in [
            ("epanet", root.join("crates/formats/src/epanet/net1.inp"), "pipes", 12),
            ("production_line", root.join("schemas/lines/car-painting.toml"), "machines", 6),
        ] {
            for table in tables_of(type_name) {
                rows(type_name, &table, &file);
            }
            assert_eq!(rows(type_name, table, &file).num_rows(), count);
        }
        for type_name in ["matpower", "tntp"] {
            assert!(tables_of(type_name).len() > 1, "{type_name}");
        }
        let near = crate::readers().build("epanet", serde_json::json!({ "table": "pipe" })).err().unwrap();
        assert!(near.to_string().contains("did you mean 'pipes'?"), "{near}");
    }
}
