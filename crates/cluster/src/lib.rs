//! When one machine is too small: the same SQL on other machines, by Apache Ballista.
//!
//! The way of a query ([docs/cluster.md](../../../docs/cluster.md)):
//!
//! 1. The session plans it as ever, down to the physical plan: tables are at an exact version with the files of that version,
//!    views and twins are resolved, settings such as `twin.as_of` have had their say ([`Cluster`]).
//! 2. `lower` changes the operators that count on being in one process: scans of Delta tables become scans of their files,
//!    joins that note what they have met on one side take that side whole, and so on.
//! 3. `codec` turns the plan into bytes. What has none makes the query run here, with a notice.
//! 4. The scheduler ([`run_scheduler`]) cuts the plan where rows change their partition and gives the parts to executors
//!    ([`run_executor`]), which read the files from the object store with credentials of their own.
//! 5. The rows come back as an Arrow stream and get the schema that was planned here ([`exec`]).
//!
//! Work that is no query goes the same way ([`Cluster::work`], [`Worker`]).
//!
//! Neither plans nor settings carry credentials. Ballista's protocol knows no authentication: scheduler and executors listen
//! on 127.0.0.1 unless told otherwise.

mod address;
mod codec;
mod columns;
mod described;
mod exec;
mod executor;
mod job;
mod lower;
mod planner;
mod scheduler;
#[cfg(test)]
mod tests;
mod work;

pub use address::Address;
pub use executor::{ExecutorOptions, run_executor};
pub use planner::Cluster;
pub use scheduler::{SchedulerOptions, run_scheduler};
pub use work::Worker;

/// Greatest size of a message between client, scheduler and executors.
const MESSAGE_BYTES: usize = 256 << 20;
/// Greatest size of a plan: rows that wait for their commit travel in it, and once more in each of its parts.
const PLAN_BYTES: usize = 64 << 20;
