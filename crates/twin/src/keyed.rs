//! Overrides of single instances by key: as many as there are, in the memory that they take.
//!
//! A `where` costs an expression for every row that is read; values for a million instances would be a million of them. Here they are
//! one Arrow batch with an index of its keys, and reading a row costs one look-up, however many overrides there are. So a fork
//! costs its overrides, whatever the size of the table that it leaves.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray, UInt32Builder, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use indexmap::IndexMap;
use twinlake_contracts::{Error, suggest};

use crate::model::{TwinModel, fits};
use crate::state::constant_value;
use crate::view::through;

/// The field of a look-up that is true where there is an override.
pub(crate) const HIT: &str = "__hit";

/// Values of some properties for some instances. A null leaves the property as it is.
#[derive(Debug)]
pub(crate) struct Keyed {
    index: Index,
    /// A column a property.
    values: RecordBatch,
}

#[derive(Debug)]
enum Index {
    Text(HashMap<Box<str>, u32, ahash::RandomState>),
    Number(HashMap<i64, u32, ahash::RandomState>),
}

impl Index {
    fn new(keys: &ArrayRef, key: &str) -> twinlake_contracts::Result<Self> {
        let twice = |shown: &dyn std::fmt::Display| {
            Error::config(format!("{shown} is overridden twice in one list of rows"))
                .with_help("give each instance one row with all that is set for it")
        };
        if keys.null_count() > 0 {
            return Err(Error::config(format!("an overriding row has no '{key}'"))
                .with_help("each row names the instance that it is for"));
        }
        let mut index = match keys.data_type() {
            DataType::Int64 => {
                Self::Number(HashMap::with_capacity_and_hasher(keys.len(), ahash::RandomState::new()))
            }
            _ => Self::Text(HashMap::with_capacity_and_hasher(keys.len(), ahash::RandomState::new())),
        };
        for row in 0..keys.len() {
            match &mut index {
                Self::Number(map) => {
                    let key = keys.as_primitive::<Int64Type>().value(row);
                    if map.insert(key, row as u32).is_some() {
                        return Err(twice(&key));
                    }
                }
                Self::Text(map) => {
                    let key = keys.as_string::<i32>().value(row);
                    if map.insert(key.into(), row as u32).is_some() {
                        return Err(twice(&format!("'{key}'")));
                    }
                }
            }
        }
        Ok(index)
    }

    /// The row of each key; null where there is none.
    fn rows(&self, keys: &ArrayRef) -> Option<UInt32Builder> {
        let mut rows = UInt32Builder::with_capacity(keys.len());
        match self {
            Self::Number(map) => {
                for key in keys.as_primitive_opt::<Int64Type>()? {
                    rows.append_option(key.and_then(|key| map.get(&key)).copied());
                }
            }
            Self::Text(map) => {
                for key in keys.as_string_opt::<i32>()? {
                    rows.append_option(key.and_then(|key| map.get(key)).copied());
                }
            }
        }
        Some(rows)
    }

    fn len(&self) -> usize {
        match self {
            Self::Number(map) => map.len(),
            Self::Text(map) => map.len(),
        }
    }
}

impl Keyed {
    /// From a batch with the model's key and some of its properties, under their names; other columns are an error.
    pub(crate) fn new(model: &TwinModel, rows: &RecordBatch) -> twinlake_contracts::Result<Self> {
        let cast = |column: &ArrayRef, kind: &DataType, name: &str| {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(column, kind, &strict)
                .map_err(|error| Error::config(format!("the overriding values of '{name}': {error}")))
        };
        let keys = rows.column_by_name(&model.key).ok_or_else(|| {
            Error::config(format!("overriding rows of twin model '{}' have no '{}'", model.name, model.key))
        })?;
        let keys = cast(keys, &model.key_property()?.kind.data_type(), &model.key)?;
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
            let name = field.name();
            if *name == model.key {
                continue;
            }
            let property = property(model, name)?;
            columns.push(cast(column, &property.kind.data_type(), name)?);
            fields.push(property.field(name));
        }
        if columns.is_empty() {
            return Err(Error::config(format!("overriding rows of twin model '{}' set nothing", model.name)));
        }
        let values = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?;
        Ok(Self { index: Index::new(&keys, &model.key)?, values })
    }

    /// From rows as a scenario file has them.
    pub(crate) fn parse(
        model: &TwinModel,
        rows: &[IndexMap<String, serde_json::Value>],
    ) -> twinlake_contracts::Result<Self> {
        let mut names: Vec<&str> = rows.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
        for name in names {
            let property = match model.properties.get(name) {
                Some(key) if name == model.key => key,
                _ => property(model, name)?,
            };
            let kind = property.kind.data_type();
            let none = new_null_array(&kind, 1);
            let cells: Vec<ArrayRef> = rows
                .iter()
                .map(|row| match row.get(name) {
                    None => Ok(Arc::clone(&none)),
                    Some(value) if fits(value, property.kind) => {
                        let value = constant_value(value, property).and_then(|value| value.to_array());
                        value.map_err(crate::view::back)
                    }
                    Some(value) => {
                        Err(Error::config(format!("{value} is not a {} for '{name}'", property.kind.name())))
                    }
                })
                .collect::<twinlake_contracts::Result<_>>()?;
            let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
            columns.push((name, concat(&cells)?));
        }
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        Self::new(model, &RecordBatch::try_from_iter_with_nullable(columns)?)
    }

    /// How many instances.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        let slots = match &self.index {
            Index::Number(map) => map.capacity() * 16,
            Index::Text(map) => map.capacity() * 24 + map.keys().map(|key| key.len()).sum::<usize>(),
        };
        self.values.get_array_memory_size() + slots
    }

    /// The properties that are set.
    pub(crate) fn properties(&self) -> impl Iterator<Item = String> {
        let schema = self.values.schema();
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        names.into_iter()
    }

    fn fields(&self) -> Fields {
        let own = self.values.schema();
        let hit = Arc::new(Field::new(HIT, DataType::Boolean, true));
        own.fields().iter().cloned().chain([hit]).collect::<Vec<FieldRef>>().into()
    }

    fn look_up(&self, keys: &ArrayRef) -> Result<StructArray> {
        let Some(mut rows) = self.index.rows(keys) else {
            return exec_err!("overrides by key are looked up by {}", keys.data_type());
        };
        let rows = rows.finish();
        let mut columns: Vec<ArrayRef> = self
            .values
            .columns()
            .iter()
            .map(|column| take(column, &rows, None))
            .collect::<std::result::Result<_, _>>()?;
        let hit: BooleanArray = (0..rows.len()).map(|row| Some(rows.is_valid(row))).collect();
        columns.push(Arc::new(hit));
        Ok(StructArray::try_new(self.fields(), columns, None)?)
    }
}

fn property<'a>(model: &'a TwinModel, name: &str) -> twinlake_contracts::Result<&'a crate::model::Property> {
    if name == model.key {
        return Err(Error::config(format!("the key '{name}' cannot be set by a scenario")));
    }
    model.properties.get(name).ok_or_else(|| {
        let failed = Error::config(format!("twin model '{}' has no property '{name}'", model.name));
        match suggest(name, model.properties.keys().map(String::as_str)) {
            Some(near) => failed.with_help(format!("did you mean '{near}'?")),
            None => failed,
        }
    })
}

/// `overrides(key)`: a struct of the values for that key, null where there are none, and whether there are any.
#[derive(Debug)]
pub(crate) struct KeyedFunction {
    keyed: Arc<Keyed>,
    signature: Signature,
}

impl KeyedFunction {
    pub(crate) fn new(keyed: Arc<Keyed>) -> Self {
        let kind = match keyed.index {
            Index::Number(_) => DataType::Int64,
            Index::Text(_) => DataType::Utf8,
        };
        let signature = Signature::new(TypeSignature::Exact(vec![kind]), Volatility::Immutable);
        Self { keyed, signature }
    }
}

impl PartialEq for KeyedFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keyed, &other.keyed)
    }
}

impl Eq for KeyedFunction {}

impl Hash for KeyedFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.keyed).hash(state);
    }
}

impl ScalarUDFImpl for KeyedFunction {
    fn name(&self) -> &'static str {
        "overrides"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.keyed.fields()))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [keys] = arguments.args.as_slice() else {
            return Err(through(Error::internal("overrides are looked up by one key")));
        };
        let keys = keys.clone().into_array(arguments.number_rows)?;
        Ok(ColumnarValue::Array(Arc::new(self.keyed.look_up(&keys)?)))
    }
}
