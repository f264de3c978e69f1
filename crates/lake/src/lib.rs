//! The lake: durable log, fresh rows, Delta tables on an object store, and the meta tables.
//!
//! What holds, and where it is kept:
//!
//! - A message that [`MessageLog::append`](twinlake_contracts::MessageLog::append) took is on stable storage and is
//!   read back byte for byte until it is released: `log/`.
//! - Rows and the log sequence that they stand for enter a table in one Delta commit; the same sequence a second time
//!   changes nothing: `table/commit.rs`.
//! - A query sees each row exactly once, fresh or committed, also while a commit runs: `table/mod.rs`.
//! - Every object of a local lake (data file, Delta commit, state) is on stable storage before the call that wrote it
//!   returns: `durable.rs`. On an object store the store itself promises this.
//!
//! Layout of a lake: `<schema>/<table>/` Delta tables, `_state/<pipeline>/<sequence>` operator states,
//! `_log/<pipeline>/` durable logs (always on a local disk).

mod cache;
mod cost;
mod durable;
mod error;
mod lake;
mod log;
mod meta;
mod state;
mod storage;
mod stores;
mod table;
mod upkeep;

pub use cache::{CacheOptions, CacheStats};
pub use cost::{CpuMeter, set_who, who};
pub use lake::Lake;
pub use log::{DurableLog, LogOptions};
pub use meta::{RunCost, RunObserver, RunRecord, datasets_schema, runs_schema};
pub use storage::LakeOptions;
pub use stores::object_stores;
pub use table::{
    AddedFiles, CompactOptions, Compacted, Evolution, Evolved, Expired, Following, H3_COLUMN, LakeTable,
    TableChange, TableStats, Vacuumed, VersionRecord, extent_of, wider_type,
};
pub use upkeep::{Retention, UpkeepOptions, Upkept};
