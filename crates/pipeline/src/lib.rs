//! Pipelines: TOML to a checked plan to a running dataflow, with tests in the pipeline's own language.
//!
//! [`validate`] reads a file and finds every mistake with its place; [`Runner`] runs the plan, exactly-once into the
//! lake; [`run_tests`] runs its `[[tests]]`; [`Pipeline::mermaid`] and [`Pipeline::dot`] draw it; [`lineage`] says which
//! table comes from where; [`pipeline_schema`] is the JSON Schema for editors. [`DirectIngest`] lands what clients hand in
//! without any pipeline.
//!
//! The crate knows neither a query engine nor a lake: SQL goes through [`twinlake_contracts::SqlEngine`], tables through
//! [`twinlake_contracts::TableStore`].

mod cases;
mod cell;
mod codec;
mod components;
mod diagnostics;
mod difference;
mod direct;
mod document;
mod duration;
mod epoch;
mod files;
mod flow;
mod graph;
mod graph_check;
mod held;
mod ingest;
mod lineage;
mod model;
mod normalise;
mod parser;
mod plan;
mod reprocess;
mod retry;
mod runner;
mod schema;
mod stats;
mod targets;
mod transforms;
mod window;
mod wkt;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fakes;
#[cfg(test)]
mod validate_tests;

pub use cases::{Case, CaseInput, CaseMessage, CaseOutput, CaseResult, ExpectedRejects, run_tests};
pub use components::Components;
pub use diagnostics::Diagnostics;
pub use difference::{Difference, StepChange, difference, looks_up};
pub use direct::{DirectIngest, DirectOptions};
pub use duration::parse_duration_us;
pub use lineage::{Edge, column_lineage, lineage};
pub use model::{Pipeline, Settings, SinkNode, SourceKind, SourceNode, TransformNode};
pub use plan::{Plan, load, validate};
pub use reprocess::{
    Advance, Estimate, PieceDone, PieceOrder, PieceWorkers, Reprocess, ReprocessOptions, ReprocessReport,
    run_piece,
};
pub use runner::{RunReport, Runner};
pub use schema::{pipeline_schema, pipeline_schema_text};
pub use stats::{RunnerStats, StatsSnapshot};
pub use transforms::{TransformBuilder, TransformContext};
