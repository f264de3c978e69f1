//! Twin models: what a kind of thing is, and from which tables its state comes.
//!
//! A model is one TOML file. [`TwinModel::parse`] checks all that can be checked without the lake: names, types,
//! bindings and the SQL-free parts of relations and simulations. Tables need not exist yet: a model whose table has
//! no row is a twin without instances, not an error.

use crate::analyses::Analysis;
use crate::relation::Relation;
use crate::views::ModelView;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use twinlake_contracts::{
    CRS84, Error, Parameters, Result, TableName, TomlFile, geometry_field, is_word, suggest, timestamp_type,
};

/// The column, in every twin, that says since when the row's state holds; null for what a map says without a time.
pub const VALID_TIME: &str = "valid_time";
/// The column, in every twin, that says when that became known here; null where the table does not tell.
pub const KNOWN_TIME: &str = "known_time";
/// The column, in every twin, with where the state comes from: `observed`, `forecast` or `simulated`.
pub const ORIGIN: &str = "origin";
/// The column, in every twin, with the scenario that the row owes its state to; null for the city as it is.
pub const SCENARIO: &str = "scenario";

/// The table of the schema `twin` with the edges between instances.
pub(crate) const RELATIONS: &str = "relations";

/// A kind of thing with a state: the contents of a file in `schemas/twins`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwinModel {
    /// The name in SQL (`twin.<name>`) and HTTP: a lower-case word.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// The version of the model, from 1: raised by whoever changes what a property means.
    #[serde(default = "first")]
    pub version: u32,
    /// The property that tells one instance from another.
    pub key: String,
    /// What is known of an instance: the columns of the twin, in this order.
    pub properties: IndexMap<String, Property>,
    /// The table of readings that the state is folded from. A model has either this or `map`.
    pub telemetry: Option<Telemetry>,
    /// The table of a map that is the state itself. A model has either this or `telemetry`.
    pub map: Option<MapBinding>,
    /// How instances relate to instances of other models.
    #[serde(default)]
    pub relations: IndexMap<String, Relation>,
    /// How new a state is promised to be.
    pub freshness: Option<Freshness>,
    /// When an instance is no more.
    pub lifecycle: Option<Lifecycle>,
    /// What a simulation adds to the state.
    pub simulation: Option<SimulationBinding>,
    /// What operators take from the twins when they are asked something that is kept nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analyses: Vec<Analysis>,
    /// Questions over the twins that have a name: `twin.<model>_<view>`.
    #[serde(default)]
    pub views: IndexMap<String, ModelView>,
}

fn first() -> u32 {
    1
}

/// How new a state is promised to be. `meta.twin_models` says it; who needs it compares it with `valid_time`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// An instance that is there tells its state at least so often, in seconds.
    pub within_s: f64,
}

/// When an instance is no more, and when it comes back.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// An SQL condition over the properties: a reading for which it holds is the instance's last. From its time on the
    /// instance is not among the states; a later reading brings it back. A history shows all readings.
    pub ended_when: String,
}

/// One property of a twin.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: PropertyType,
    /// What it means.
    pub description: String,
    /// The unit of its values, for example `m/s`; empty for a pure number or a text.
    #[serde(default)]
    pub unit: String,
    /// The smallest and the largest value that makes sense, in `unit`. Documentation: cleaning is the pipeline's work.
    pub range: Option<[f64; 2]>,
    /// The coordinate reference system of a geometry.
    #[serde(default = "crs84")]
    pub crs: String,
    /// The column of the bound table, if it has another name than the property.
    pub column: Option<String>,
    /// The value, if it comes from no column: the same for every instance until a scenario sets it.
    pub value: Option<serde_json::Value>,
    /// The value, if it follows from other properties: an SQL expression over them. It sees what a scenario set.
    pub sql: Option<String>,
}

fn crs84() -> String {
    CRS84.to_owned()
}

/// The type of a property's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PropertyType {
    /// Text.
    String,
    /// A 64-bit integer.
    #[default]
    Int64,
    /// A 64-bit floating-point number.
    Float64,
    /// True or false.
    Boolean,
    /// An instant, microseconds, UTC.
    Timestamp,
    /// WKB in the property's `crs`.
    Geometry,
}

/// A table of readings: each row tells the state of one instance from its time on.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The lake table.
    pub table: TableName,
    /// Its column with the time of the reading: since when the state holds.
    #[serde(default = "ts")]
    pub time: String,
}

fn ts() -> String {
    "ts".to_owned()
}

/// A table of a map: its rows are the state, without a time of their own.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapBinding {
    /// The lake table.
    pub table: TableName,
}

/// A simulation operator bound to a model: what it takes from the twins and which columns it adds.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulationBinding {
    /// The operator.
    pub operator: String,
    /// The model whose binding says what the operator takes. This one then keeps another output of the same runs, and has
    /// neither inputs nor parameters nor a demand.
    #[serde(rename = "with")]
    pub with_model: Option<String>,
    /// The lake table that its results land in.
    pub table: TableName,
    /// The operator's output that is kept.
    pub output: String,
    /// The column of that output that holds this model's key.
    pub key: String,
    /// The columns that a run adds to the twin.
    pub columns: IndexMap<String, SimulatedColumn>,
    /// The operator's inputs: role → SQL over the twins, run in the tense of the scenario's fork. It may read what other
    /// simulations of that scenario have added to their twins. Its rows are handed over in the order of their columns.
    #[serde(default)]
    pub inputs: IndexMap<String, String>,
    /// Parameters of runs that do not give them.
    #[serde(default)]
    pub parameters: Parameters,
    /// How the operator's demand is made.
    pub demand: Option<DemandBinding>,
}

/// One column that a run adds to a twin.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulatedColumn {
    /// What it means.
    pub description: String,
    /// The unit of its values.
    #[serde(default)]
    pub unit: String,
    /// The type of its values.
    #[serde(rename = "type", default = "number")]
    pub kind: PropertyType,
    /// The column of the operator's output, if it has another name.
    pub column: Option<String>,
}

fn number() -> PropertyType {
    PropertyType::Float64
}

/// A gravity model of demand: see [`crate::demand`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemandBinding {
    /// The operator's input that it makes.
    pub role: String,
    /// SQL giving `node_id` and `geom` of the places where trips start and end.
    pub nodes: String,
    /// SQL giving `from_node`, `to_node` and `travel_time_s` of the links that trips are made over. It is run in the
    /// tense of the fork, but without the scenario: closing a street does not change what people want.
    pub links: String,
    /// SQL giving `geom`, `levels` and `height_m` of buildings.
    pub buildings: String,
}

impl PropertyType {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => timestamp_type(),
            Self::Geometry => DataType::Binary,
        }
    }

    /// Its name in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Geometry => "geometry",
        }
    }
}

impl Property {
    /// The Arrow field of that name; a geometry says its CRS.
    pub fn field(&self, name: &str) -> Field {
        match self.kind {
            PropertyType::Geometry => geometry_field(name, &self.crs, true),
            kind => Field::new(name, kind.data_type(), true),
        }
    }
}

impl SimulationBinding {
    /// The model whose binding says what the operator takes: `model`, which has this binding, or the one that it shares runs with.
    pub(crate) fn owner<'a>(&'a self, model: &'a str) -> &'a str {
        self.with_model.as_deref().unwrap_or(model)
    }

    /// The columns that a run adds, in their order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field> {
        self.columns.iter().map(|(name, column)| Field::new(name, column.kind.data_type(), true))
    }
}

impl TwinModel {
    /// Reads and checks a model. `file` is its name in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let source = TomlFile::new(file, text);
        let model: Self = source.parse()?;
        model.check(&source)?;
        Ok(model)
    }

    /// The bound lake table.
    pub fn table(&self) -> Option<&TableName> {
        self.telemetry.as_ref().map(|t| &t.table).or_else(|| self.map.as_ref().map(|m| &m.table))
    }

    /// The property that is the key.
    pub fn key_property(&self) -> Result<&Property> {
        self.properties
            .get(&self.key)
            .ok_or_else(|| Error::internal(format!("twin model '{}' lost its key", self.name)))
    }

    /// The columns of `twin.<name>`: properties, relations, simulated columns, and the four of every twin.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields()))
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields: Vec<Field> =
            self.properties.iter().map(|(name, property)| property.field(name)).collect();
        for relation in self.relations.values() {
            let Some(nearest) = relation.nearest() else { continue };
            fields.push(Field::new(nearest.key_column, relation.key_kind.data_type(), true));
            fields.push(Field::new(nearest.distance_column, DataType::Float64, true));
        }
        if let Some(simulation) = &self.simulation {
            fields.extend(simulation.fields());
        }
        fields.push(Field::new(VALID_TIME, timestamp_type(), true));
        fields.push(Field::new(KNOWN_TIME, timestamp_type(), true));
        fields.push(Field::new(ORIGIN, DataType::Utf8, true));
        fields.push(Field::new(SCENARIO, DataType::Utf8, true));
        fields
    }

    fn check(&self, source: &TomlFile) -> Result<()> {
        if !is_word(&self.name) || self.name.ends_with("_history") || self.name == RELATIONS {
            return Err(source
                .mistake(format!("'{}' cannot be the name of a twin model", self.name), &self.name)
                .with_help("a lower-case word other than relations that does not end in _history"));
        }
        if self.version == 0 {
            return Err(source.mistake("versions begin with 1".to_owned(), "version"));
        }
        if let Some(freshness) = &self.freshness
            && !(freshness.within_s > 0.0 && freshness.within_s.is_finite())
        {
            let message = "within_s must be a positive number of seconds".to_owned();
            return Err(source.mistake(message, "within_s"));
        }
        if self.lifecycle.is_some() && self.telemetry.is_none() {
            return Err(source
                .mistake("a map has no readings that could be an instance's last".to_owned(), "lifecycle")
                .with_help("leave the row out of the map, or give [telemetry] in place of [map]"));
        }
        if !self.properties.contains_key(&self.key) {
            let known = self.properties.keys().map(String::as_str);
            let failed = source.mistake(format!("the key '{}' is not a property", self.key), &self.key);
            return Err(match suggest(&self.key, known) {
                Some(near) => failed.with_help(format!("did you mean '{near}'?")),
                None => failed.with_help(format!("add [properties.{}]", self.key)),
            });
        }
        if self.telemetry.is_some() == self.map.is_some() {
            return Err(source
                .mistake(format!("twin model '{}' is bound to no table, or to two", self.name), &self.name)
                .with_help("give either [telemetry] (readings with a time) or [map] (a table without)"));
        }
        self.check_properties(source)?;
        for (name, relation) in &self.relations {
            relation.check(name, self, source)?;
        }
        self.check_views(source)?;
        self.check_names(source)
    }

    fn check_properties(&self, source: &TomlFile) -> Result<()> {
        for (name, property) in &self.properties {
            let given = [property.column.is_some(), property.value.is_some(), property.sql.is_some()];
            let header = format!("properties.{name}");
            if given.iter().filter(|given| **given).count() > 1 {
                return Err(source
                    .mistake(format!("property '{name}' has more than one origin"), &header)
                    .with_help("give one of column, value, sql"));
            }
            if *name == self.key && (property.value.is_some() || property.sql.is_some()) {
                return Err(source.mistake(format!("the key '{name}' must come from a column"), &header));
            }
            if name == &self.key && !matches!(property.kind, PropertyType::String | PropertyType::Int64) {
                return Err(source
                    .mistake(format!("the key '{name}' is a {}", property.kind.name()), &header)
                    .with_help("a key is a string or an int64"));
            }
            if let Some([low, high]) = property.range
                && (low.is_nan() || high.is_nan() || low > high)
            {
                return Err(
                    source.mistake(format!("the range of '{name}' is empty: {low} to {high}"), &header)
                );
            }
            if let Some(value) = &property.value
                && !fits(value, property.kind)
            {
                return Err(source.mistake(
                    format!("the value {value} of property '{name}' is not a {}", property.kind.name()),
                    &header,
                ));
            }
        }
        Ok(())
    }

    fn check_names(&self, source: &TomlFile) -> Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        for field in self.fields() {
            if !is_word(field.name()) {
                return Err(source
                    .mistake(format!("'{}' cannot be a column", field.name()), field.name())
                    .with_help("a lower-case word of letters, digits and _"));
            }
            if !seen.insert(field.name().clone()) {
                return Err(source.mistake(
                    format!("twin model '{}' has two columns '{}'", self.name, field.name()),
                    field.name(),
                ));
            }
        }
        Ok(())
    }
}

/// Whether a TOML value can be a value of that type.
pub(crate) fn fits(value: &serde_json::Value, kind: PropertyType) -> bool {
    match kind {
        PropertyType::String => value.is_string(),
        PropertyType::Int64 => value.is_i64(),
        PropertyType::Float64 => value.is_number(),
        PropertyType::Boolean => value.is_boolean(),
        PropertyType::Timestamp => value.as_str().is_some_and(|t| twinlake_contracts::parse_us(t).is_some()),
        PropertyType::Geometry => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VEHICLE: &str = include_str!("../../../schemas/twins/vehicle.toml");
    const ROAD_SEGMENT: &str = include_str!("../../../schemas/twins/road_segment.toml");

    #[test]
    fn the_shipped_models_are_sound() {
        let vehicle = TwinModel::parse("vehicle.toml", VEHICLE).unwrap();
        assert_eq!(vehicle.key, "vehicle_id");
        let schema = vehicle.schema();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert!(names.contains(&"road_segment_id") && names.contains(&"road_distance_m"));
        assert_eq!(names[names.len() - 4..], [VALID_TIME, KNOWN_TIME, ORIGIN, SCENARIO]);
        let road = TwinModel::parse("road_segment.toml", ROAD_SEGMENT).unwrap();
        assert!(road.schema().field_with_name("flow_vph").is_ok());
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(VEHICLE.contains(from), "the shipped model no longer holds '{from}'");
        TwinModel::parse("vehicle.toml", &VEHICLE.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_shown_with_their_line_and_the_way_out() {
        let shown = refused("key = \"vehicle_id\"", "key = \"vehicel_id\"");
        assert!(shown.contains("did you mean 'vehicle_id'?") && shown.contains("vehicle.toml:"), "{shown}");
        let shown = refused("[telemetry]", "[telemetri]");
        assert!(shown.contains("did you mean 'telemetry'?"), "{shown}");
        let shown = refused("geometry = \"geom\"", "geometry = \"goem\"");
        assert!(shown.contains("did you mean 'geom'?"), "{shown}");
        let shown = refused("name = \"vehicle\"", "name = \"Vehicle\"");
        assert!(shown.contains("lower-case word"), "{shown}");
        let shown = refused("key_column = \"road_segment_id\"", "key_column = \"origin\"");
        assert!(shown.contains("two columns 'origin'"), "{shown}");
    }
}
