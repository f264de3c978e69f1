//! Rules of events: the contents of files in `schemas/events`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result, TomlFile};

use super::anomaly::AnomalyRule;
use super::sequence::MOST_STEPS;

/// When an event of a twin is raised, and when it is cleared.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// The name: letters, digits, `-` and `_`.
    pub name: String,
    /// What has happened, in a sentence.
    pub description: String,
    /// The twin model that is watched: one with telemetry.
    pub twin: String,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// An SQL condition over the columns of the twin: a reading for which it holds raises the event, a threshold
    /// (`temperature_c > 80`) or a fence (`st_within(geom, st_geomfromtext('POLYGON ((…))'))`). A rule has this, `steps`,
    /// `anomaly` or `silent_for_s`.
    pub raise_when: Option<String>,
    /// An SQL condition: a reading for which it holds clears the event, `temperature_c < 75`. Without it, one for which
    /// `raise_when` (of a sequence: the last step) does not hold does. The gap between both is the hysteresis.
    pub clear_when: Option<String>,
    /// How long, in seconds between readings, `raise_when` must have held before the event is raised.
    #[serde(default)]
    pub for_s: f64,
    /// Raises the event when an instance has not told of itself for so many seconds of this machine's clock; its next
    /// reading clears it.
    pub silent_for_s: Option<f64>,
    /// Conditions that hold one after the other, each for a later reading of the same instance: the reading for which the last
    /// one holds raises the event.
    #[serde(default)]
    pub steps: Vec<SequenceStep>,
    /// From the reading of the first step to that of the last are at most so many seconds.
    pub within_s: Option<f64>,
    /// Raises the event when a property is far from what it used to be for this instance.
    pub anomaly: Option<AnomalyRule>,
    /// How much of the past is read when a process begins, for rules that depend on it: seconds before the newest reading.
    #[serde(default = "month")]
    pub past_s: f64,
    /// Addresses (`http://…`, `https://…`) that each step of the event is posted to, as JSON.
    #[serde(default)]
    pub webhooks: Vec<String>,
}

fn month() -> f64 {
    30.0 * 86_400.0
}

/// One step of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceStep {
    /// An SQL condition over the columns of the twin.
    pub when: String,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    #[default]
    Warning,
    /// Somebody must act.
    Critical,
}

impl Severity {
    /// Its name in TOML and SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl EventRule {
    /// Reads and checks a rule. `file` is its name in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let source = TomlFile::new(file, text);
        let rule: Self = source.parse()?;
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if rule.name.is_empty() || !rule.name.chars().all(sound) {
            let message = format!("'{}' cannot be the name of a rule", rule.name);
            return Err(source.mistake(message, &rule.name).with_help("letters, digits, - and _"));
        }
        rule.check_kind(&source)?;
        for address in &rule.webhooks {
            if !["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
                return Err(source
                    .mistake(format!("'{address}' is no address of a webhook"), address)
                    .with_help("http://host/path or https://host/path"));
            }
        }
        let seconds = [
            ("for_s", Some(rule.for_s), true),
            ("silent_for_s", rule.silent_for_s, false),
            ("within_s", rule.within_s, false),
            ("past_s", Some(rule.past_s), false),
        ];
        for (name, value, may_be_zero) in seconds {
            let Some(value) = value else { continue };
            if !value.is_finite() || value < 0.0 || (value == 0.0 && !may_be_zero) {
                return Err(source.mistake(format!("{name} must be a positive number of seconds"), name));
            }
        }
        Ok(rule)
    }

    /// Whether it says in exactly one way when the event is raised, and nothing that has no part in it.
    fn check_kind(&self, source: &TomlFile) -> Result<()> {
        let mistake = |what: &str, help: &str| -> Error {
            source.mistake(format!("rule '{}' {what}", self.name), &self.name).with_help(help)
        };
        let sequence = !self.steps.is_empty();
        let ways = [self.raise_when.is_some(), self.silent_for_s.is_some(), sequence, self.anomaly.is_some()];
        if ways.iter().filter(|way| **way).count() != 1 {
            return Err(mistake(
                "raises its event never, or in two ways",
                "give one of raise_when = \"SQL\", silent_for_s = …, steps = [{ when = \"SQL\" }, …], anomaly = { property = \"…\" }",
            ));
        }
        if self.silent_for_s.is_some() && (self.clear_when.is_some() || self.for_s != 0.0) {
            return Err(mistake("watches silence, which a reading ends", "leave out clear_when and for_s"));
        }
        if self.within_s.is_some() != sequence {
            return Err(mistake(
                "has steps or within_s, but not both",
                "give both: the steps, and in how many seconds they happen",
            ));
        }
        if sequence && !(2..=MOST_STEPS).contains(&self.steps.len()) {
            return Err(mistake(
                "is no sequence",
                "give from 2 to 32 steps; one condition is raise_when = \"SQL\"",
            ));
        }
        if sequence && self.for_s != 0.0 {
            return Err(mistake("is raised by a reading, which does not last", "leave out for_s"));
        }
        let Some(anomaly) = &self.anomaly else { return Ok(()) };
        if self.clear_when.is_some() {
            return Err(mistake(
                "is cleared by what is usual",
                "leave out clear_when; anomaly.clear_threshold is the gap",
            ));
        }
        match anomaly.mistake() {
            Some((key, what)) => Err(source.mistake(format!("{key} {what}"), key)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: &str =
        "name = \"hot\"\ndescription = \"d\"\ntwin = \"machine\"\nraise_when = \"t > 80\"\nfor_s = 5\n";

    #[test]
    fn mistakes_are_shown_with_their_line_and_the_way_out() {
        assert_eq!(EventRule::parse("hot.toml", HOT).unwrap().severity, Severity::Warning);
        for (from, to, shown) in [
            ("raise_when", "raise_wen", "did you mean 'raise_when'?"),
            ("raise_when = \"t > 80\"", "", "silent_for_s"),
            (
                "raise_when = \"t > 80\"\nfor_s = 5",
                "steps = [{ when = \"t\" }, { when = \"t\" }]",
                "within_s",
            ),
            (
                "raise_when = \"t > 80\"\nfor_s = 5",
                "steps = [{ when = \"t\" }]\nwithin_s = 3",
                "from 2 to 32",
            ),
            (
                "raise_when = \"t > 80\"",
                "steps = [{ when = \"t\" }, { when = \"t\" }]\nwithin_s = 3",
                "leave out for_s",
            ),
            ("raise_when = \"t > 80\"", "anomaly = { property = \"t\", window = 3 }", "window must be"),
            ("for_s = 5", "within_s = 5", "give both"),
            ("for_s = 5", "webhooks = [\"ftp://x\"]", "http://host/path"),
            ("raise_when = \"t > 80\"", "silent_for_s = 5", "leave out clear_when and for_s"),
            ("for_s = 5", "for_s = -5", "for_s must be a positive"),
            ("for_s = 5", "severity = \"bad\"", "bad"),
            ("name = \"hot\"", "name = \"too hot\"", "letters, digits"),
        ] {
            let error = EventRule::parse("hot.toml", &HOT.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(shown) && error.contains("hot.toml"), "{to}: {error}");
        }
    }
}
