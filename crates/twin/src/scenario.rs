//! Scenarios: the city forked at an instant, with some properties set otherwise.
//!
//! A scenario is one TOML file and costs its overrides, not a copy: they are applied where a twin is read. Up to its
//! fork a scenario is the city as it was; from the fork on, nothing observed later is part of it. A scenario
//! without overrides reads exactly as the city does at the fork.
//!
//! A scenario may also say what is run in it, in which order ([`ScenarioRun`]), with which parameters, how far into the future, and
//! with which variation ([`Ensemble`]). Its members are scenarios of their own, named `<scenario>/<number>`.

mod ensemble;
mod execution;
pub(crate) mod functions;
mod known;
mod run;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::RecordBatch;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Parameters, Place, Result, TomlFile, now_us, parse_us, suggest};

pub use self::ensemble::{Bounds, Choice, Distribution, Ensemble, Lognormal, Normal, Triangular};
pub use self::execution::{ExecutedRun, Execution, ExecutionStatus};
pub(crate) use self::execution::{Pins, pinned};
pub(crate) use self::known::Known;
pub use self::known::ScenarioChange;
pub use self::run::ScenarioRun;
use crate::keyed::Keyed;
use crate::model::{TwinModel, fits};

/// What stands for the instant at which a scenario is created.
const NOW: &str = "now";
/// The longest horizon: a thousand years, which instants in microseconds can hold.
const LONGEST_HORIZON_S: f64 = 1000.0 * 366.0 * 86_400.0;

/// A what-if: the contents of a file in `scenarios`, checked against the twin models.
#[derive(Debug, Clone, Default, Serialize)]
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
    /// How long after the fork the future reaches that operators are asked for, in seconds; `None`: an instant.
    pub horizon_s: Option<f64>,
    /// Operator → parameters of all its runs in the scenario.
    pub parameters: BTreeMap<String, Parameters>,
    /// What is run, in this order.
    pub runs: Vec<ScenarioRun>,
    /// What is varied.
    pub ensemble: Option<Ensemble>,
    /// Where it comes from: the name of its file, `created` over SQL or HTTP, or empty when a program put it here.
    pub source: String,
    /// Whether the fork is the instant of the scenario's creation: then that instant is kept.
    #[serde(skip)]
    pub(crate) forks_now: bool,
    /// Whether that instant is kept in the lake.
    #[serde(skip)]
    pub(crate) kept: bool,
    /// Which member it is; 0 is the scenario as it is written.
    #[serde(skip)]
    pub(crate) member: u32,
    /// What the member drew: operator → parameters.
    #[serde(skip)]
    pub(crate) drawn: BTreeMap<String, Parameters>,
    /// SHA-256 in hex of the text that it was read from.
    #[serde(skip)]
    pub(crate) digest: String,
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
    /// The name: letters, digits, `-` and `_`. A file must say it.
    name: Option<String>,
    /// What is supposed, in a sentence.
    #[serde(default)]
    description: String,
    /// Where it leaves the city as observed. Without it, all that is observed is part of the scenario.
    fork: Option<Fork>,
    /// How long after the fork the future reaches that operators are asked for, in seconds. Without it, an instant.
    horizon_s: Option<f64>,
    /// What is set otherwise, applied in this order.
    #[serde(default)]
    overrides: Vec<Override>,
    /// Operator → parameters of all its runs in the scenario, for example `[parameters.traffic_assignment]`.
    #[serde(default)]
    parameters: BTreeMap<String, Parameters>,
    /// What is run, in this order; each run sees what those before it gave.
    #[serde(default)]
    runs: Vec<ScenarioRun>,
    /// What is varied: the same runs with other seeds and parameters.
    ensemble: Option<Ensemble>,
}

/// The instant of a fork.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fork {
    /// Observations up to this instant (RFC 3339) are part of the scenario. `now`: the instant at which the scenario is created or
    /// its file is first loaded into a lake; it never moves.
    at: String,
    /// Of those, only what was known here at this instant (RFC 3339, or `now`). Without it, all that is known when it is asked.
    known_at: Option<String>,
}

impl Scenario {
    /// A scenario without a fork that sets something otherwise.
    pub fn of_overrides(name: &str, description: &str, overrides: Vec<Override>) -> Self {
        Self { name: name.to_owned(), description: description.to_owned(), overrides, ..Self::default() }
    }

    /// Reads and checks a scenario, from TOML or, if the text begins with `{`, from JSON. `file` is its name in messages. A fork
    /// at `now` is at this instant.
    pub fn parse(file: &str, text: &str, models: &BTreeMap<String, TwinModel>) -> Result<Self> {
        Self::parse_as(None, file, text, models)
    }

    /// As [`Scenario::parse`], under a name that the text need not repeat.
    pub(crate) fn parse_as(
        name: Option<&str>,
        file: &str,
        text: &str,
        models: &BTreeMap<String, TwinModel>,
    ) -> Result<Self> {
        let source = TomlFile::new(file, text);
        let written: ScenarioFile = if is_json(text) { from_json(file, text)? } else { source.parse()? };
        let name = match (written.name, name) {
            (Some(own), Some(name)) if own != name => {
                return Err(source
                    .mistake(format!("the scenario '{name}' calls itself '{own}'"), &own)
                    .with_help("leave its name away, or write the same"));
            }
            (Some(name), _) => name,
            (None, Some(name)) => name.to_owned(),
            (None, None) => {
                return Err(source.mistake("the scenario has no name", "").with_help("add name = \"…\""));
            }
        };
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(sound) {
            return Err(source
                .mistake(format!("'{name}' cannot be the name of a scenario"), &name)
                .with_help("letters, digits, - and _"));
        }
        let now = now_us();
        let instant = |text: &str| {
            if text == NOW {
                return Ok(now);
            }
            parse_us(text).ok_or_else(|| {
                source
                    .mistake(format!("'{text}' is not an instant"), text)
                    .with_help("write it as 2018-10-09T04:33:00Z, or now")
            })
        };
        let fork = written.fork.as_ref();
        let fork_at_us = fork.map(|fork| instant(&fork.at)).transpose()?;
        let known_at = fork.and_then(|fork| fork.known_at.as_deref());
        let fork_known_at_us = known_at.map(instant).transpose()?;
        let forks_now = fork.is_some_and(|fork| fork.at == NOW) || known_at == Some(NOW);
        if let Some(horizon_s) = written.horizon_s {
            if !(horizon_s > 0.0 && horizon_s <= LONGEST_HORIZON_S) {
                return Err(source
                    .mistake(format!("a horizon of {horizon_s} s cannot be"), "horizon_s")
                    .with_help("write seconds after the fork, greater than 0"));
            }
            if fork_at_us.is_none() {
                return Err(source
                    .mistake("a horizon without a fork", "horizon_s")
                    .with_help("say when the future begins: [fork] with at = \"…\""));
            }
        }
        let mut overrides = written.overrides;
        for change in &mut overrides {
            change.check(&source, models)?;
        }
        Ok(Self {
            name,
            description: written.description,
            fork_at_us,
            fork_known_at_us,
            overrides,
            horizon_s: written.horizon_s,
            parameters: written.parameters,
            runs: written.runs,
            ensemble: written.ensemble,
            forks_now,
            digest: known::digest(text),
            ..Self::default()
        })
    }

    /// Whether it is the city as it is, seen from its fork: nothing is set or varied, so what was simulated of the city holds in
    /// it too. What it runs itself is shown before that.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.overrides.is_empty()
            && self.horizon_s.is_none()
            && self.parameters.is_empty()
            && self.ensemble.is_none()
    }

    /// The overrides of one model.
    pub fn overrides_of(&self, twin: &str) -> impl Iterator<Item = &Override> {
        self.overrides.iter().filter(move |change| change.twin == twin)
    }
}

/// Whether a scenario's text is JSON: TOML never begins so.
fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn from_json(file: &str, text: &str) -> Result<ScenarioFile> {
    serde_json::from_str(text).map_err(|error| {
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        let place = Place {
            file: Some(file.into()),
            line: error.line(),
            column: error.column(),
            text: line.to_owned(),
            length: 1,
        };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        let mut words = message.split('`').skip(1).step_by(2);
        let near = match (message.starts_with("unknown "), words.next()) {
            (true, Some(given)) => suggest(given, words).map(str::to_owned),
            _ => None,
        };
        let failed = Error::config(message.clone()).at(place);
        match near {
            Some(near) => failed.with_help(format!("did you mean '{near}'?")),
            None => failed,
        }
    })
}

/// An error with the place of a text of the scenario.
fn placed(source: &TomlFile, error: Error, needle: &str) -> Error {
    match error {
        Error::Config(config) => {
            let failed = source.mistake(config.message, needle);
            match config.help {
                Some(help) => failed.with_help(help),
                None => failed,
            }
        }
        other => source.mistake(other.to_string(), needle),
    }
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
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
            let keyed = keyed.map_err(|error| placed(source, error, &quoted))?;
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
