//! Relations: typed edges from the instances of a model to those of another, or of the same.
//!
//! An edge comes from one of two places: from positions (the nearest instance within a bound, which also gives the twin two
//! columns), or from equal values (a property of this model that holds the other's key, or any two properties that meet, as the
//! end of a pipe and the start of the next). All edges of all models are one table, `twin.relations` (`edges.rs`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result, TomlFile, suggest};

use crate::model::{PropertyType, TwinModel};

/// How instances of a model relate to instances of another one, or of the same.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// What the relation says.
    pub description: String,
    /// What kind of edge it is.
    #[serde(rename = "type", default)]
    pub kind: RelationType,
    /// The model at the other end. For the nearest instance: bound to a map, with a geometry in `OGC:CRS84`.
    pub twin: String,
    /// An SQL condition over this model's properties; where it does not hold, there is no edge.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// The property of this model whose value is found at the other end. A relation has either this or `nearest_within_m`.
    pub property: Option<String>,
    /// The other model's property with that value; its key, if nothing is said.
    pub other: Option<String>,
    /// What it costs to go along the edge: an SQL expression over this model's properties, a number that is not negative.
    /// Of a nearest instance it is the distance in metres.
    pub weight: Option<String>,
    /// The unit of `weight`.
    #[serde(default)]
    pub weight_unit: String,
    /// How far away, in metres, an instance may be and still be related. Beyond, the columns are null.
    pub nearest_within_m: Option<f64>,
    /// The geometry property of this model whose position is taken; `geom`, if nothing is said.
    pub geometry: Option<String>,
    /// The property with the direction of travel in degrees clockwise from north. Of instances that are equally near
    /// (the two directions of a street), the one that points the same way is taken.
    pub heading: Option<String>,
    /// The new column with the nearest instance's key.
    pub key_column: Option<String>,
    /// The new column with the distance in metres.
    pub distance_column: Option<String>,
    /// The type of the other model's key, filled in when the models are loaded together.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) key_kind: PropertyType,
}

/// The kind of an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RelationType {
    /// This is a part of that: a machine of a line, a floor of a building.
    PartOf,
    /// This is in or at that: a vehicle on a road, a sensor in a room.
    LocatedIn,
    /// What flows through this goes on into that: a pipe into the next, a feeder into a transformer.
    Feeds,
    /// This and that are joined, without a direction.
    Connects,
    /// Anything else.
    #[default]
    RelatesTo,
}

impl RelationType {
    /// Its name in TOML and SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::PartOf => "part_of",
            Self::LocatedIn => "located_in",
            Self::Feeds => "feeds",
            Self::Connects => "connects",
            Self::RelatesTo => "relates_to",
        }
    }
}

/// A relation to the nearest instance, with all that it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nearest<'a> {
    pub(crate) within_m: f64,
    pub(crate) geometry: &'a str,
    pub(crate) heading: Option<&'a str>,
    pub(crate) key_column: &'a str,
    pub(crate) distance_column: &'a str,
}

impl Relation {
    /// The relation as one to the nearest instance, if it is one.
    pub(crate) fn nearest(&self) -> Option<Nearest<'_>> {
        Some(Nearest {
            within_m: self.nearest_within_m?,
            geometry: self.geometry.as_deref().unwrap_or("geom"),
            heading: self.heading.as_deref(),
            key_column: self.key_column.as_deref()?,
            distance_column: self.distance_column.as_deref()?,
        })
    }

    /// Checks the relation `name` against its own model.
    pub(crate) fn check(&self, name: &str, model: &TwinModel, source: &TomlFile) -> Result<()> {
        let header = format!("relations.{name}");
        if self.property.is_some() == self.nearest_within_m.is_some() {
            return Err(source
                .mistake(format!("relation '{name}' leads to nothing, or to two things"), &header)
                .with_help("give either property = \"…\" or nearest_within_m = …"));
        }
        if let Some(property) = &self.property {
            return self.check_by_value(name, property, model, source);
        }
        let Some(nearest) = self.nearest() else {
            return Err(source
                .mistake(format!("relation '{name}' does not name its columns"), &header)
                .with_help("give key_column = \"…\" and distance_column = \"…\""));
        };
        if let Some((given, _)) =
            [("other", &self.other), ("weight", &self.weight)].iter().find(|(_, given)| given.is_some())
        {
            let message = format!("relation '{name}' to the nearest instance takes no '{given}'");
            return Err(source.mistake(message, &header));
        }
        if !(nearest.within_m > 0.0 && nearest.within_m.is_finite()) {
            return Err(source.mistake(
                format!("nearest_within_m of relation '{name}' must be a positive number of metres"),
                "nearest_within_m",
            ));
        }
        let needed = [
            Some((nearest.geometry, PropertyType::Geometry)),
            nearest.heading.map(|heading| (heading, PropertyType::Float64)),
        ];
        for (property, kind) in needed.into_iter().flatten() {
            if model.properties.get(property).is_none_or(|p| p.kind != kind) {
                let message = format!("relation '{name}' needs a {} property '{property}'", kind.name());
                let known = model.properties.iter().filter(|(_, p)| p.kind == kind).map(|(n, _)| n.as_str());
                return Err(helped(source.mistake(message, &header), property, known));
            }
        }
        Ok(())
    }

    fn check_by_value(&self, name: &str, property: &str, model: &TwinModel, source: &TomlFile) -> Result<()> {
        let header = format!("relations.{name}");
        let given = [
            ("geometry", self.geometry.is_some()),
            ("heading", self.heading.is_some()),
            ("key_column", self.key_column.is_some()),
            ("distance_column", self.distance_column.is_some()),
        ];
        if let Some((given, _)) = given.iter().find(|(_, given)| *given) {
            let message = format!("relation '{name}' by a property takes no '{given}'");
            return Err(source.mistake(message, &header));
        }
        match model.properties.get(property) {
            Some(found) if found.kind != PropertyType::Geometry => Ok(()),
            Some(_) => Err(source
                .mistake(format!("relation '{name}' cannot compare the geometries of '{property}'"), &header)
                .with_help("give nearest_within_m for what is near")),
            None => {
                let message = format!("relation '{name}' needs a property '{property}'");
                let known = model.properties.keys().map(String::as_str);
                Err(helped(source.mistake(message, &header), property, known))
            }
        }
    }

    /// Checks a relation by value against the model at its other end: there must be a property of the same type.
    pub(crate) fn check_other(
        &self,
        own: &TwinModel,
        other: &TwinModel,
    ) -> std::result::Result<(), (String, Option<String>)> {
        let Some(property) = self.property.as_ref().and_then(|name| own.properties.get(name)) else {
            return Ok(());
        };
        let name = self.other.as_deref().unwrap_or(&other.key);
        match other.properties.get(name) {
            None => {
                let near = suggest(name, other.properties.keys().map(String::as_str));
                Err((
                    format!("needs a property '{name}' of '{}'", other.name),
                    near.map(|near| format!("did you mean '{near}'?")),
                ))
            }
            Some(found) if found.kind != property.kind => Err((
                format!(
                    "compares a {} with the {} '{name}' of '{}'",
                    property.kind.name(),
                    found.kind.name(),
                    other.name
                ),
                None,
            )),
            Some(_) => Ok(()),
        }
    }
}

fn helped<'a>(failed: Error, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    match suggest(name, known) {
        Some(near) => failed.with_help(format!("did you mean '{near}'?")),
        None => failed,
    }
}
