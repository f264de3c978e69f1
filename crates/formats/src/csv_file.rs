//! Reader `csv`: a small table that a person keeps, such as the sites of a plant or the districts of a city.
//!
//! The file is read whole. It is a map, not a stream: a row that cannot be read is an error with its line, never a reject,
//! because a table that lacks a row without a word is worse than one that keeps its last version.

use arrow::datatypes::SchemaRef;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    BatchIterator, Component, Decoder, Error, Location, Message, Position, Reader, Rejects, Result,
};

use crate::columns::Column;
use crate::csv::{CsvMessage, CsvSettings};

/// Reads a file of delimited text whose first record names the fields.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvFileSettings {
    /// The character between fields.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// Texts that mean null, besides the empty one.
    #[serde(default)]
    pub null: Vec<String>,
    /// The columns, in their order: name and type, or name and a table whose `path` is the field's name.
    pub columns: IndexMap<String, Column>,
}

fn comma() -> char {
    ','
}

impl Component for CsvFileSettings {
    const TYPE: &'static str = "csv";
    type Product = dyn Reader;

    fn build(self) -> Result<Box<dyn Reader>> {
        let settings = CsvSettings {
            message: CsvMessage::File,
            header: true,
            names: Vec::new(),
            delimiter: self.delimiter,
            quote: "\"".to_owned(),
            null: self.null,
            columns: self.columns,
            topic: IndexMap::new(),
            origin: None,
        };
        Ok(Box::new(CsvFile(settings.build()?)))
    }
}

struct CsvFile(Box<dyn Decoder>);

impl Reader for CsvFile {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn read(&self, at: &Location) -> Result<BatchIterator> {
        let file = at.0.display();
        let payload =
            std::fs::read(&at.0).map_err(|error| Error::config(format!("cannot read '{file}': {error}")))?;
        let message = Message {
            payload: payload.into(),
            origin: at.0.to_string_lossy().into(),
            position: Position { ordinal: 1, token: String::new() },
            received_at_us: 0,
        };
        let (mut rejects, mut rows_of) = (Rejects::default(), Vec::new());
        let rows = self.0.decode(std::slice::from_ref(&message), &mut rejects, &mut rows_of)?;
        if let Some(first) = rejects.0.first() {
            let others = match rejects.0.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            return Err(Error::config(format!("file '{file}': {}{others}", first.detail)));
        }
        Ok(Box::new(std::iter::once(Ok(rows))))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;
    use serde_json::json;

    use super::*;

    fn read(name: &str, text: &str) -> Result<arrow::array::RecordBatch> {
        let path = std::env::temp_dir().join(format!("twinlake-csv-{}-{name}.csv", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let columns = json!({"site": {"type": "utf8", "required": true}, "area_m2": "float64"});
        let reader = crate::readers().build("csv", json!({"columns": columns, "null": ["-"]})).unwrap();
        let read = reader.read(&Location(path.clone())).map(Iterator::collect::<Result<Vec<_>>>);
        std::fs::remove_file(&path).unwrap();
        Ok(arrow::compute::concat_batches(&reader.schema(), &read??)?)
    }

    #[test]
    fn a_table_is_read_by_the_names_of_its_fields() {
        let rows = read("good", "\u{feff}area_m2,other,site\n12.5,x,\"Dock, north\"\n-,y,Yard\n").unwrap();
        assert_eq!(
            rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["Dock, north", "Yard"]
        );
        let areas = rows.column(1).as_primitive::<Float64Type>();
        assert_eq!((areas.value(0), areas.is_null(1)), (12.5, true));
        assert_eq!(read("empty", "site,area_m2\n").unwrap().num_rows(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_its_place() {
        for (name, text, shown) in [
            ("type", "site,area_m2\nDock,1\nYard,big\n", "line 3"),
            ("missing", "site,area_m2\n,1\n", "no value"),
            ("header", "sites,area_m2\nDock,1\n", "did you mean 'sites'"),
            ("two", "site,area_m2\nDock\nYard\n", "and 1 more"),
        ] {
            let error = read(name, text).unwrap_err().to_string();
            assert!(error.contains(shown) && error.contains("twinlake-csv"), "{name}: {error}");
        }
        let nowhere = crate::readers().build("csv", json!({"columns": {"a": "utf8"}})).unwrap();
        let error = nowhere.read(&Location(PathBuf::from("/nowhere/a.csv"))).err().unwrap();
        assert!(error.to_string().contains("/nowhere/a.csv"), "{error}");
    }
}
