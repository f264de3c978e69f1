//! One error type: who must act, where, and whether trying again can help.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error, sorted by who must act on it. Each is handled exactly once.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The author of a file or a command line must change it; trying again cannot help.
    #[error("{0}")]
    Config(Box<ConfigError>),
    /// One payload or row is at fault: it becomes a row of `meta.rejects`, the stream goes on.
    #[error("{reason}: {message}")]
    Data {
        /// A short, stable code in snake case, for example `invalid_json`.
        reason: Arc<str>,
        /// What is wrong, for a person.
        message: String,
    },
    /// A system outside this process failed: a broker, an object store, a disk.
    #[error("{system}: {message}")]
    External {
        /// Which system, with its address.
        system: String,
        /// What it said.
        message: String,
        /// Whether trying again can help.
        retry: Retry,
    },
    /// The request names something that does not exist.
    #[error("{what} '{name}' not found{hint}")]
    NotFound {
        /// What kind of thing: `table`, `twin model`, `run`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// Empty, or a suggestion starting with a space or comma.
        hint: String,
    },
    /// A promise inside Twinlake was broken: a defect to report.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Whether the caller gains from trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call will fail the same way.
    Never,
    /// Try again after a growing pause.
    Backoff,
}

/// Where in a file an error is. Lines and columns count from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The file, if the text came from one.
    pub file: Option<PathBuf>,
    /// The line, from 1; 0 when unknown.
    pub line: usize,
    /// The column, from 1; 0 when unknown.
    pub column: usize,
    /// The text of that line.
    pub text: String,
    /// How many characters from `column` are at fault (at least 1 when the column is known).
    pub length: usize,
}

/// A mistake in configuration, with its place and the way out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What to do instead.
    pub help: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(place) = &self.place {
            let file = place.file.as_ref().map_or_else(|| "<input>".to_owned(), |p| p.display().to_string());
            if place.line > 0 {
                let number = place.line.to_string();
                let pad = " ".repeat(number.len());
                write!(f, "\n{pad}--> {file}:{number}:{}", place.column.max(1))?;
                write!(f, "\n{pad} |\n{number} | {}", place.text)?;
                if place.column > 0 {
                    let caret = "^".repeat(place.length.max(1));
                    write!(f, "\n{pad} | {}{caret}", " ".repeat(place.column - 1))?;
                }
            } else {
                write!(f, "\n --> {file}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl Error {
    /// A configuration error without a place; whoever knows the file adds it with [`Error::at`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config(Box::new(ConfigError { message: message.into(), place: None, help: None }))
    }

    /// A row or payload error: `reason` is a stable snake-case code.
    pub fn data(reason: &str, message: impl Into<String>) -> Self {
        Self::Data { reason: reason.into(), message: message.into() }
    }

    /// An outside failure that may pass.
    pub fn transient(system: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::External { system: system.into(), message: message.to_string(), retry: Retry::Backoff }
    }

    /// An outside failure that will not pass by itself.
    pub fn permanent(system: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::External { system: system.into(), message: message.to_string(), retry: Retry::Never }
    }

    /// A broken promise inside Twinlake.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::Internal(message.to_string())
    }

    /// Something that does not exist, with the nearest existing name as a suggestion.
    pub fn not_found<'a>(
        what: &'static str,
        name: impl Into<String>,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let name = name.into();
        let hint = suggest(&name, known).map_or_else(String::new, |near| format!(", did you mean '{near}'?"));
        Self::NotFound { what, name, hint }
    }

    /// Adds the way out to a configuration error; other errors pass unchanged.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        if let Self::Config(config) = &mut self {
            config.help = Some(help.into());
        }
        self
    }

    /// Adds the place to a configuration error that has none; other errors pass unchanged.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        if let Self::Config(config) = &mut self
            && config.place.is_none()
        {
            config.place = Some(place);
        }
        self
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::External { retry, .. } => *retry,
            _ => Retry::Never,
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Internal(format!("arrow: {error}"))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::External { system: "file system".into(), message: error.to_string(), retry: Retry::Backoff }
    }
}

/// The known name nearest to `name`, if it is near enough to be a slip of the keyboard.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_a_near_name_only() {
        assert_eq!(suggest("topcis", ["topics", "url"]), Some("topics"));
        assert_eq!(suggest("zebra", ["topics", "url"]), None);
    }

    #[test]
    fn shows_file_line_text_and_help() {
        let place =
            Place { file: Some("a.toml".into()), line: 3, column: 2, text: " topcis = 1".into(), length: 6 };
        let shown =
            Error::config("unknown key 'topcis'").at(place).with_help("did you mean 'topics'?").to_string();
        assert_eq!(
            shown,
            "unknown key 'topcis'\n --> a.toml:3:2\n  |\n3 |  topcis = 1\n  |  ^^^^^^\n  help: did you mean 'topics'?"
        );
    }
}
