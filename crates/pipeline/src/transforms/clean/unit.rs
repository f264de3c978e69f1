//! Values in another unit. Row by row: a null stays null, NaN and infinities stay what they are.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, unary};
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result};

use super::units::Unit;
use crate::transforms::rows::number_column;

/// The units of a column, before and after.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitSettings {
    /// The unit of the values that come in, for example `km/h`.
    from: String,
    /// The unit of the values that go out, for example `m/s`; of the same dimension.
    to: String,
    /// The column's new name; `true` puts the new unit's suffix in place of the old one's: `speed_kmh` becomes
    /// `speed_mps`. Default: the name stays.
    rename: Option<Rename>,
}

/// A new name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Rename {
    /// Whether the suffix is changed.
    Suffix(bool),
    /// The name.
    Name(String),
}

/// Brings columns to other units.
pub(super) struct Units {
    columns: Vec<(usize, Unit, Unit)>,
    schema: SchemaRef,
}

impl Units {
    pub fn new(schema: &SchemaRef, settings: &IndexMap<String, UnitSettings>) -> Result<Self> {
        let mut columns = Vec::new();
        let mut fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (name, own) in settings {
            let at = number_column(schema, name, "a unit")?;
            let (from, to) = (Unit::named(&own.from)?, Unit::named(&own.to)?);
            from.check(to)?;
            let renamed = own.renamed(name, from, to)?;
            fields[at] = fields[at].clone().with_data_type(DataType::Float64).with_name(renamed);
            columns.push((at, from, to));
        }
        for (at, field) in fields.iter().enumerate() {
            if fields[..at].iter().any(|other| other.name() == field.name()) {
                let message = format!("there would be two columns '{}'", field.name());
                return Err(Error::config(message).with_help("choose another name with 'rename'"));
            }
        }
        Ok(Self { columns, schema: Arc::new(Schema::new(fields)) })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        for (at, from, to) in &self.columns {
            let values = cast(&columns[*at], &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            let converted: arrow::array::Float64Array = unary(values, |value| from.convert(value, *to));
            columns[*at] = Arc::new(converted) as ArrayRef;
        }
        Ok(RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?)
    }
}

impl UnitSettings {
    fn renamed(&self, name: &str, from: Unit, to: Unit) -> Result<String> {
        match &self.rename {
            None | Some(Rename::Suffix(false)) => Ok(name.to_owned()),
            Some(Rename::Name(name)) if name.is_empty() => {
                Err(Error::config("'rename' is empty").with_help("rename = \"speed_mps\", or true"))
            }
            Some(Rename::Name(name)) => Ok(name.clone()),
            Some(Rename::Suffix(true)) => {
                let stem = name.strip_suffix(from.suffix).filter(|stem| stem.ends_with('_'));
                stem.map(|stem| format!("{stem}{}", to.suffix)).ok_or_else(|| {
                    let message =
                        format!("'{name}' does not end in _{}, the suffix of {}", from.suffix, from.name);
                    Error::config(message).with_help("give the new name: rename = \"speed_mps\"")
                })
            }
        }
    }
}
