//! What is known of tables, as tables: definitions with owners, units, keys and promises; quality rules and their
//! results; lineage of columns; profiles with proposals and personal data; OpenLineage events.
//!
//! Everything ends in SQL: `meta.datasets`, `meta.columns` are computed whenever they are read, `meta.quality`,
//! `meta.lineage`, `meta.definitions` are tables of the lake, with versions like all others.

mod catalog;
mod check;
mod definition;
mod drift;
mod duration;
mod guard;
#[cfg(test)]
mod lake_tests;
mod lineage;
pub mod open_lineage;
pub mod profile;
mod result;
mod rows;
mod rule;
mod trace;
mod views;

pub use catalog::{Catalog, Origin};
pub use definition::{ColumnDefinition, Freshness, TableDefinition, definition_schema};
pub use duration::Seconds;
pub use guard::{Guard, REASON};
pub use lineage::LineageEdge;
pub use profile::{TableProfile, profile};
pub use result::{Judged, QualityResult};
pub use rule::{QualityRule, Reference, RuleKind, Severity, Statistic};
pub use trace::{Direction, Place, Trace, trace};
