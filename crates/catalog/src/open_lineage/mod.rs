//! OpenLineage: events of runs, posted to an address (specification 2-0-2, <https://openlineage.io>).
//!
//! The run never waits for it and never fails by it: events go into a bounded queue, a task of its own posts them, tries
//! again a few times, and counts what it had to drop.

mod event;
mod sender;

pub use event::{Dataset, EventKind, RunEvent, columns_of};
pub use sender::{EventSender, SenderCounts};

#[cfg(test)]
mod tests;
