//! What a check found: every mistake, not only the first.

use std::fmt;

use twinlake_contracts::{ConfigError, Error};

/// The findings of a check, each with its place in the file.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    /// What must be changed before the pipeline can run.
    pub errors: Vec<Error>,
    /// What is probably not meant.
    pub warnings: Vec<Error>,
}

impl Diagnostics {
    /// Whether nothing has to be changed.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// Adds the findings of a further check.
    pub fn extend(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
    }

    /// One error for callers that want only one: the first, with the rest in its message.
    pub fn into_error(mut self) -> Error {
        match self.errors.len() {
            0 => Error::internal("a check without errors was taken for one with errors"),
            1 => self.errors.remove(0),
            _ => Error::Config(Box::new(ConfigError { message: self.to_string(), place: None, help: None })),
        }
    }

    /// In the order of the file.
    pub(crate) fn sort(&mut self) {
        let line = |error: &Error| match error {
            Error::Config(config) => config.place.as_ref().map_or(0, |place| place.line),
            _ => 0,
        };
        self.errors.sort_by_key(line);
        self.warnings.sort_by_key(line);
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.errors.iter().map(|error| format!("error: {error}"));
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        f.write_str(&errors.chain(warnings).collect::<Vec<_>>().join("\n\n"))
    }
}

impl std::error::Error for Diagnostics {}
