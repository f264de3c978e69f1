//! Scenarios: the city forked at an instant, with some properties set otherwise.
//!
//! A scenario is one TOML file and costs its overrides, not a copy: they are applied where a twin is read. Up to its
//! fork a scenario is the city as it was; from the fork on, nothing observed later is part of it. A scenario
//! without overrides reads exactly as the city does at the fork.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result, TomlFile, parse_us, suggest};

use crate::keyed::Keyed;
use crate::model::{TwinModel, fits};

/// A what-if: the contents of a file in `scenarios`, checked against the twin models.
#[derive(Debug, Clone, Serialize)]
pub struct Scenario {
    /// The name in `SET twin.scenario`, SQL functions and HTTP.
    pub name: String,
    /// What is supposed, in a sentence.
    pub description: String,
    /// Where it leaves the city as observed; `None`: nowhere, all that is observed is part of it.
    pub fork_at_us: Option<i64>,
    /// What was known at the fork; `None`: all that is known now about the time before it.
    pub fork_known_at_us: Option<i64>,
    /// What is set otherwise, applied in this order.
    pub overrides: Vec<Override>,
}

/// Some instances of a twin, and what is set for them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The twin model.
    pub twin: String,
    /// An SQL condition over its properties: which instances. Without it, all.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Properties and their new values.
    #[serde(default)]
    pub set: IndexMap<String, serde_json::Value>,
    /// Properties and SQL expressions over the old values, for example `capacity_vph = "capacity_vph / 2"`.
    #[serde(default)]
    pub compute: IndexMap<String, String>,
    /// Single instances by key, with what is set for each: `{ road_segment_id = 17, closed = true }`. In place of `where`,
    /// `set` and `compute`. Read into an index when the scenario is loaded.
    #[serde(default, skip_serializing)]
    rows: Vec<IndexMap<String, serde_json::Value>>,
    /// How many instances are overridden by key.
    #[serde(default, skip_deserializing, skip_serializing_if = "is_zero")]
    #[schemars(skip)]
    row_count: usize,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) keyed: Option<Arc<Keyed>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The scenario file as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// The name: letters, digits, `-` and `_`.
    name: String,
    /// What is supposed, in a sentence.
    description: String,
    /// Where it leaves the city as observed. Without it, all that is observed is part of the scenario.
    fork: Option<Fork>,
    /// What is set otherwise, applied in this order.
    #[serde(default)]
    overrides: Vec<Override>,
}

/// The instant of a fork.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fork {
    /// Observations up to this instant (RFC 3339) are part of the scenario.
    at: String,
    /// Of those, only what was known here at this instant (RFC 3339). Without it, all that is known now.
    known_at: Option<String>,
}

impl Scenario {
    /// Reads and checks a scenario. `file` is its name in messages.
    pub fn parse(file: &str, text: &str, models: &BTreeMap<String, TwinModel>) -> Result<Self> {
        let source = TomlFile::new(file, text);
        let written: ScenarioFile = source.parse()?;
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if written.name.is_empty() || !written.name.chars().all(sound) {
            return Err(source
                .mistake(format!("'{}' cannot be the name of a scenario", written.name), &written.name)
                .with_help("letters, digits, - and _"));
        }
        let instant = |text: &str| {
            parse_us(text).ok_or_else(|| {
                source
                    .mistake(format!("'{text}' is not an instant"), text)
                    .with_help("write it as 2018-10-09T04:33:00Z")
            })
        };
        let fork_at_us = written.fork.as_ref().map(|fork| instant(&fork.at)).transpose()?;
        let known_at = written.fork.as_ref().and_then(|fork| fork.known_at.as_deref());
        let fork_known_at_us = known_at.map(instant).transpose()?;
        let mut overrides = written.overrides;
        for change in &mut overrides {
            change.check(&source, models)?;
        }
        Ok(Self {
            name: written.name,
            description: written.description,
            fork_at_us,
            fork_known_at_us,
            overrides,
        })
    }

    /// The overrides of one model.
    pub fn overrides_of(&self, twin: &str) -> impl Iterator<Item = &Override> {
        self.overrides.iter().filter(move |change| change.twin == twin)
    }
}

impl Override {
    /// Overrides of single instances of a model: a batch with its key and some of its properties, under their names. A null
    /// leaves the property as it is. An instance that is there twice, an unknown column or a value of another type is an error.
    pub fn of_rows(model: &TwinModel, rows: &RecordBatch) -> Result<Self> {
        let keyed = Arc::new(Keyed::new(model, rows)?);
        Ok(Self {
            twin: model.name.clone(),
            condition: None,
            set: IndexMap::new(),
            compute: IndexMap::new(),
            rows: Vec::new(),
            row_count: keyed.len(),
            keyed: Some(keyed),
        })
    }

    /// About how many bytes of memory it takes, besides its text.
    pub fn bytes(&self) -> usize {
        self.keyed.as_ref().map_or(0, |keyed| keyed.bytes())
    }

    fn check(&mut self, source: &TomlFile, models: &BTreeMap<String, TwinModel>) -> Result<()> {
        let quoted = format!("\"{}\"", self.twin);
        let model = models.get(&self.twin).ok_or_else(|| {
            let failed = source.mistake(format!("there is no twin model '{}'", self.twin), &quoted);
            helped(failed, &self.twin, models.keys().map(String::as_str))
        })?;
        let by_condition = self.condition.is_some() || !self.set.is_empty() || !self.compute.is_empty();
        if !self.rows.is_empty() {
            if by_condition {
                return Err(source
                    .mistake(format!("an override of '{}' has both rows and a condition", self.twin), &quoted)
                    .with_help("give rows an [[overrides]] of their own"));
            }
            let keyed = Keyed::parse(model, &self.rows);
            let keyed = keyed.map_err(|error| source.mistake(error.to_string(), &quoted))?;
            self.rows = Vec::new();
            self.row_count = keyed.len();
            self.keyed = Some(Arc::new(keyed));
            return Ok(());
        }
        if self.set.is_empty() && self.compute.is_empty() {
            return Err(source
                .mistake(format!("an override of '{}' sets nothing", self.twin), &quoted)
                .with_help(
                    "give set = { property = value }, compute = { property = \"SQL\" } or rows = [{ key = value, property = value }]",
                ));
        }
        for name in self.set.keys().chain(self.compute.keys()) {
            if !model.properties.contains_key(name) {
                let failed =
                    source.mistake(format!("twin model '{}' has no property '{name}'", self.twin), name);
                return Err(helped(failed, name, model.properties.keys().map(String::as_str)));
            }
            if *name == model.key {
                return Err(source.mistake(format!("the key '{name}' cannot be set by a scenario"), name));
            }
            if self.set.contains_key(name) && self.compute.contains_key(name) {
                return Err(source.mistake(format!("'{name}' is both set and computed"), name));
            }
        }
        for (name, value) in &self.set {
            let kind = model.properties[name].kind;
            if !fits(value, kind) {
                return Err(source.mistake(format!("{value} is not a {} for '{name}'", kind.name()), name));
            }
        }
        Ok(())
    }
}

fn helped<'a>(failed: Error, name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Error {
    match suggest(name, known.clone()) {
        Some(near) => failed.with_help(format!("did you mean '{near}'?")),
        None => failed.with_help(format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: &str = include_str!("../../../scenarios/bridge-closed.toml");

    fn models() -> BTreeMap<String, TwinModel> {
        let text = include_str!("../../../schemas/twins/road_segment.toml");
        let model = TwinModel::parse("road_segment.toml", text).unwrap();
        BTreeMap::from([(model.name.clone(), model)])
    }

    #[test]
    fn the_shipped_scenarios_are_sound() {
        let scenario = Scenario::parse("bridge-closed.toml", CLOSED, &models()).unwrap();
        assert_eq!(scenario.name, "bridge-closed");
        assert_eq!(scenario.fork_at_us, parse_us("2018-10-09T04:33:00Z"));
        assert_eq!(scenario.overrides_of("road_segment").count(), 1);
        let text = include_str!("../../../scenarios/kaivokatu-closed.toml");
        Scenario::parse("kaivokatu-closed.toml", text, &models()).unwrap();
    }

    #[test]
    fn mistakes_are_shown_with_their_line_and_the_way_out() {
        let refused = |from: &str, to: &str| {
            assert!(CLOSED.contains(from), "the shipped scenario no longer holds '{from}'");
            Scenario::parse("x.toml", &CLOSED.replacen(from, to, 1), &models()).unwrap_err().to_string()
        };
        let shown = refused("\"road_segment\"", "\"road_segmant\"");
        assert!(shown.contains("did you mean 'road_segment'?") && shown.contains("x.toml:"), "{shown}");
        let shown = refused("closed = true", "closd = true");
        assert!(shown.contains("did you mean 'closed'?"), "{shown}");
        let shown = refused("closed = true", "closed = 1");
        assert!(shown.contains("1 is not a boolean for 'closed'"), "{shown}");
        let shown = refused("2018-10-09T04:33:00Z", "yesterday");
        assert!(shown.contains("'yesterday' is not an instant"), "{shown}");
        let shown = refused("[[overrides]]", "[[override]]");
        assert!(shown.contains("did you mean 'overrides'?"), "{shown}");
    }
}
