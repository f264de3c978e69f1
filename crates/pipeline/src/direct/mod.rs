//! Direct ingest: bodies that clients hand in land durably and are queryable at once, without a pipeline file.
//!
//! The way of one body: decoded where it came in (many at a time; what is no body at all is refused here), appended to
//! the log `direct` (bodies that wait together share an fsync), applied in the order of the log by one worker, answered,
//! and committed with everything else every commit interval. The [`worker`] says why each row lands exactly once.
//!
//! Measurements become tables `<database>.<measurement>`; [`names`] has the rule. A row that does not fit its table, and a
//! line that cannot be read, is a row of `meta.rejects` with its text.
//!
//! Memory is bounded: a body is let in only while all bodies on their way and all rows that wait for their commit are
//! within [`DirectOptions::memory_bytes`]; above that its caller hears [`IntakeError::Busy`].
//!
//! [`IntakeError::Busy`]: twinlake_contracts::IntakeError::Busy

mod append;
mod apply;
mod budget;
mod columns;
mod envelope;
mod fit;
mod intake;
mod keys;
mod names;
mod patience;
mod tables;
mod window;
mod worker;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fake_decoder;
#[cfg(test)]
mod tests;

pub use intake::{DirectIngest, DirectOptions};

/// The name of the log, and the first part of the names of all writers.
const LOG: &str = "direct";
