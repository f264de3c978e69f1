//! The tense of a session: `twin.as_of`, `twin.known_at`, `twin.scenario`.

use std::any::Any;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::{DataFusionError, Result};
use twinlake_contracts::{Error, format_us, parse_us, suggest};

/// The settings below `twin.` of one session. Values are checked when they are set; an empty text or `NOW` clears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TwinOptions {
    /// The instant that twins are seen at, RFC 3339; `None` is now.
    pub as_of: Option<String>,
    /// Only what was known by then counts, RFC 3339; `None` is all that is known.
    pub known_at: Option<String>,
    /// The scenario that twins are seen in; `None` is what really is.
    pub scenario: Option<String>,
}

const KEYS: [(&str, &str); 3] = [
    ("as_of", "The instant that twins are seen at, RFC 3339; none is now"),
    ("known_at", "Only what was known by this instant counts, RFC 3339; none is all that is known"),
    ("scenario", "The scenario that twins are seen in; none is what really is"),
];

impl TwinOptions {
    fn get(&self, key: &str) -> Option<String> {
        match key {
            "as_of" => self.as_of.clone(),
            "known_at" => self.known_at.clone(),
            _ => self.scenario.clone(),
        }
    }
}

impl ConfigExtension for TwinOptions {
    const PREFIX: &'static str = "twin";
}

impl ExtensionOptions for TwinOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let value = value.trim();
        let clears = value.is_empty() || ["now", "none", "null", "default"].contains(&&*value.to_lowercase());
        let instant = || match parse_us(value) {
            _ if clears => Ok(None),
            Some(us) => Ok(Some(format_us(us))),
            None => Err(DataFusionError::Configuration(format!(
                "twin.{key}: '{value}' is not a time stamp; write for example '2018-10-09T04:32:53Z', or NOW"
            ))),
        };
        match key {
            "as_of" => self.as_of = instant()?,
            "known_at" => self.known_at = instant()?,
            "scenario" => self.scenario = (!clears).then(|| value.to_owned()),
            _ => {
                let known = KEYS.map(|(name, _)| name);
                let hint = suggest(key, known).map_or_else(
                    || format!("known: twin.{}", known.join(", twin.")),
                    |near| format!("did you mean 'twin.{near}'?"),
                );
                return Err(DataFusionError::Configuration(format!("unknown setting 'twin.{key}', {hint}")));
            }
        }
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        KEYS.iter()
            .map(|(key, description)| ConfigEntry {
                key: format!("twin.{key}"),
                value: self.get(key),
                description,
            })
            .collect()
    }
}

/// When and in which world a query looks: the settings, checked and in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tense {
    /// The instant seen, in microseconds since the epoch, UTC; `None` is now.
    pub as_of_us: Option<i64>,
    /// Only what was known by then counts, in microseconds since the epoch, UTC; `None` is all.
    pub known_at_us: Option<i64>,
    /// The scenario; `None` is what really is.
    pub scenario: Option<String>,
}

impl Tense {
    /// The tense of a session's configuration; the present where the settings are not there.
    pub fn from(options: &ConfigOptions) -> twinlake_contracts::Result<Self> {
        let Some(twin) = options.extensions.get::<TwinOptions>() else { return Ok(Self::default()) };
        let instant = |key: &str, value: &Option<String>| match value {
            None => Ok(None),
            Some(text) => parse_us(text).map(Some).ok_or_else(|| {
                Error::config(format!("twin.{key}: '{text}' is not a time stamp"))
                    .with_help("write for example '2018-10-09T04:32:53Z'")
            }),
        };
        Ok(Self {
            as_of_us: instant("as_of", &twin.as_of)?,
            known_at_us: instant("known_at", &twin.known_at)?,
            scenario: twin.scenario.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ConfigOptions {
        let mut options = ConfigOptions::new();
        options.extensions.insert(TwinOptions::default());
        options
    }

    #[test]
    fn settings_become_a_tense() {
        let mut options = options();
        assert_eq!(Tense::from(&options).unwrap(), Tense::default());
        options.set("twin.as_of", "2018-10-09 07:32:53+03:00").unwrap();
        options.set("twin.scenario", "bridge-closed").unwrap();
        let tense = Tense::from(&options).unwrap();
        assert_eq!(tense.as_of_us, Some(1_539_059_573_000_000));
        assert_eq!(tense.scenario.as_deref(), Some("bridge-closed"));
        let shown = options.entries().into_iter().find(|entry| entry.key == "twin.as_of").unwrap();
        assert_eq!(shown.value.as_deref(), Some("2018-10-09T04:32:53Z"));
        for clear in ["", "NOW", "now", "none"] {
            options.set("twin.as_of", "2018-10-09").unwrap();
            options.set("twin.as_of", clear).unwrap();
            assert_eq!(Tense::from(&options).unwrap().as_of_us, None, "{clear}");
        }
    }

    #[test]
    fn refuses_wrong_times_and_unknown_names() {
        let mut options = options();
        let wrong = options.set("twin.as_of", "yesterday").unwrap_err().to_string();
        assert!(wrong.contains("'yesterday' is not a time stamp"), "{wrong}");
        let unknown = options.set("twin.asof", "2018-10-09").unwrap_err().to_string();
        assert!(unknown.contains("did you mean 'twin.as_of'?"), "{unknown}");
        assert_eq!(Tense::from(&options).unwrap(), Tense::default());
    }
}
