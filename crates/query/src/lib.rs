//! One catalog and one SQL session over the lake.
//!
//! [`Engine`] stands over a lake; [`Engine::session`] opens a [`Session`] with settings of its own. A query sees the
//! newest version of every table it names, each as one consistent snapshot of committed and fresh rows. Sessions
//! only read: rows come in through pipelines. Times are UTC.
//!
//! - `SET twin.as_of | twin.known_at | twin.scenario = '…'`, `RESET`, `SHOW`: [`TwinOptions`], read as [`Tense`].
//! - `SELECT * FROM twin_at('road_segment', TIMESTAMP '…', scenario => 'x')`: [`Arguments`] for table functions.
//! - `SELECT * FROM 'trips.parquet'` where [`SessionSettings::local_files`] allows it; geometry of GeoParquet and of
//!   Parquet's own type is known as such.
//! - [`Extension`]s add schemas, tables and table functions to every new session.
//! - [`output`] writes results as a table, CSV, JSON, an Arrow stream or Parquet.
//! - [`Engine::run_on`] hands queries to other processes ([`Remote`]); [`worker_state`], [`separable`] and
//!   [`local_operators`] are what those need.
//! - `rmse`, `mae`, `bias`, `geh`, `crps`, `crps_fair` score what was said against what was observed.
//! - [`Engine`] is also the [`SqlEngine`](twinlake_contracts::SqlEngine) of pipelines: the same functions, no tables
//!   of the lake.

mod aggregates;
mod arguments;
mod catalog;
mod engine;
mod error;
mod files;
mod geo_parquet;
#[cfg(test)]
mod join_pruning_tests;
mod lineage;
mod memory;
mod meta_schemas;
mod micro_batch;
pub mod output;
mod remote;
mod row_wise;
mod scan_pieces;
mod scores;
mod session;
mod settings;
// The runner of golden files is shared with other crates, which know this one by its name.
#[cfg(test)]
extern crate self as twinlake_query;
#[cfg(test)]
mod slt;
mod sort;
mod statement;
#[cfg(test)]
mod testing;
mod timestamps;
mod worker;

pub use arguments::Arguments;
pub use engine::{Engine, EngineOptions, Extension};
pub use error::to_error;
pub use files::{may_read_file, may_read_files};
pub use lineage::column_lineage;
pub use meta_schemas::{definitions_schema, lineage_schema, quality_schema, rejects_schema};
pub use micro_batch::MicroBatches;
pub use remote::Remote;
pub use session::{Session, SessionSettings};
pub use settings::{Tense, TwinOptions};
pub use statement::{parse, prepare_statement};
pub use twinlake_spatial::sql_reference;
pub use twinlake_spatial::time::tokens_with_asof;
pub use worker::{local_operators, separable, worker_state};

/// The name of the one catalog.
pub const CATALOG: &str = "twinlake";
/// The schema of names without a schema.
pub const DEFAULT_SCHEMA: &str = "public";
