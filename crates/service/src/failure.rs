//! What can go wrong between a request and its rows, before a door gives it its own form.

use std::error::Error as _;
use std::time::Duration;

use datafusion::error::DataFusionError;
use twinlake_contracts::Error;

/// A query that gave no (more) rows.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error that says who must act.
    Error(Error),
    /// The engine's own error.
    Engine(Box<DataFusionError>),
    /// No row came within this time.
    TimedOut(Duration),
    /// As many queries as are allowed were running, and none ended soon enough.
    Busy,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<DataFusionError> for Failure {
    /// Finds an error of ours that travelled through the engine.
    fn from(error: DataFusionError) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(ours) = cause.downcast_ref::<Error>() {
                return Self::Error(ours.clone());
            }
            source = cause.source();
        }
        if let DataFusionError::External(inner) = &error
            && let Some(ours) = inner.downcast_ref::<Error>()
        {
            return Self::Error(ours.clone());
        }
        Self::Engine(Box::new(error))
    }
}

/// The engine's error without backtrace and without the prefixes that say nothing to the author of the SQL.
pub(crate) fn engine_message(error: &DataFusionError) -> String {
    let root = match error {
        DataFusionError::Collection(errors) => errors.first().unwrap_or(error),
        other => other,
    }
    .find_root();
    let message = root.message();
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    message.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_errors_survive_the_way_through_the_engine() {
        let ours = Error::not_found("twin model", "vehicel", ["vehicle"]);
        let wrapped =
            DataFusionError::External(Box::new(ours)).context("while planning").context("while answering");
        assert!(matches!(Failure::from(wrapped), Failure::Error(Error::NotFound { .. })));
    }

    #[test]
    fn messages_are_without_prefix() {
        let error = DataFusionError::Plan("table 'x' not found".to_owned()).context("planning");
        assert_eq!(engine_message(&error), "table 'x' not found");
    }
}
