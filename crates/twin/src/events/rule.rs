//! Rules of events: the contents of files in `schemas/events`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Result, TomlFile};

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
    /// (`temperature_c > 80`) or a fence (`st_within(geom, st_geomfromtext('POLYGON ((…))'))`). A rule has either this or
    /// `silent_for_s`.
    pub raise_when: Option<String>,
    /// An SQL condition: a reading for which it holds clears the event, `temperature_c < 75`. Without it, one for which
    /// `raise_when` does not hold does. The gap between both is the hysteresis.
    pub clear_when: Option<String>,
    /// How long, in seconds between readings, `raise_when` must have held before the event is raised.
    #[serde(default)]
    pub for_s: f64,
    /// Raises the event when an instance has not told of itself for so many seconds of this machine's clock; its next
    /// reading clears it.
    pub silent_for_s: Option<f64>,
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
        if rule.raise_when.is_some() == rule.silent_for_s.is_some() {
            return Err(source
                .mistake(format!("rule '{}' raises its event never, or in two ways", rule.name), &rule.name)
                .with_help("give either raise_when = \"SQL\" or silent_for_s = …"));
        }
        if rule.raise_when.is_none() && (rule.clear_when.is_some() || rule.for_s != 0.0) {
            return Err(source
                .mistake(format!("rule '{}' watches silence, which a reading ends", rule.name), &rule.name)
                .with_help("leave out clear_when and for_s"));
        }
        let seconds = [("for_s", Some(rule.for_s), true), ("silent_for_s", rule.silent_for_s, false)];
        for (name, value, may_be_zero) in seconds {
            let Some(value) = value else { continue };
            if !value.is_finite() || value < 0.0 || (value == 0.0 && !may_be_zero) {
                return Err(source.mistake(format!("{name} must be a positive number of seconds"), name));
            }
        }
        Ok(rule)
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
