//! Twin models, their state in three tenses, scenarios and simulation runs.
//!
//! Past, present and future are one relation:
//!
//! - `twin.<model>` is the state of every instance in the tense of the session (`SET twin.as_of`, `twin.known_at`,
//!   `twin.scenario`), `twin.<model>_history` every reading up to it, `twin_at(model, at, …)` the same in a tense of
//!   its own, so that one query may compare two.
//! - A [`Scenario`] forks the city at an instant and costs its overrides.
//! - `simulate(operator, scenario => …)` freezes the city in that tense, runs an operator, lands its rows in the lake
//!   and records the run; from then on the twin shows them in that scenario. An equal run is not computed again.
//! - `simulate(operator, network => 'file', …)` runs an operator on files of its field, as the reader `simulate` of pipelines
//!   ([`SimulateSettings`]) and the command line do.
//! - `simulate(operator, role => 'SELECT …', …)` answers a question over the twins in that tense and keeps nothing ([`Analysis`]).
//! - A scenario may say what is run in it, in which order and variation; [`Twins::run_scenario`] runs it, `scenario_create`,
//!   `scenario_drop`, `scenario_run` and `scenario_ensemble` do so in SQL. `hindcast(…)` scores what would have been said.
//! - `twin_between(model, from, to)` gives every state that held in an interval, and for how long of it.
//! - `twin.relations` holds the edges between all instances; `twin_reach` and `twin_path` follow them.
//! - `scenario_diff(a, b)` tells where two scenarios differ.
//! - `meta.twin_models`, `meta.twin_properties`, `meta.twin_relations`, `meta.scenarios`, `meta.scenario_runs`, `meta.runs` say what
//!   there is.
//!
//! The four columns of every twin row: `valid_time` (since when the state holds; null on a map, which has no time),
//! `known_time` (when that became known here), `origin` (`observed`, `forecast`, `simulated`) and `scenario` (the
//! scenario that the row owes its state to; null where the city as it is says the same).
//!
//! What holds, and where it is kept: the fold and its tie rules in `state.rs`, the fork in `view.rs`, which run is
//! shown in `simulated.rs`, one computation an equal run in `runs.rs`, the demand and its equations in
//! [`demand`].

mod analyses;
mod asked;
mod between;
mod binding;
mod bound;
mod columns;
pub mod demand;
mod diff;
mod edges;
mod effect;
mod events;
mod field_files;
mod functions;
mod graph;
mod hindcast;
mod keyed;
mod lineage;
mod live;
mod meta;
mod migration;
mod model;
mod nearest;
mod point;
mod relation;
mod road_graph;
mod run_job;
mod run_record;
mod runs;
mod scenario;
mod simulate_analysis;
mod simulate_files;
mod simulate_reader;
mod simulated;
mod snapshot;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod twins;
mod view;
mod views;
mod ways;

pub use analyses::Analysis;
pub use events::{
    AnomalyMethod, AnomalyRule, Direction, EventRule, EventStep, Events, Season, SequenceStep, Severity,
};
pub use field_files::{FieldFiles, output_schema, output_shape};
pub use live::PresentBegun;
pub use migration::{ModelChange, Weight, changes as model_changes, refusal as model_refusal};
pub use model::{
    DemandBinding, Freshness, KNOWN_TIME, Lifecycle, MapBinding, ORIGIN, Property, PropertyType, SCENARIO,
    SimulatedColumn, SimulationBinding, Telemetry, TwinModel, VALID_TIME,
};
pub use relation::{Relation, RelationType};
pub use runs::{Run, RunStatus, SimulationRequest, Simulations};
pub use scenario::{
    Bounds, Choice, Distribution, Ensemble, ExecutedRun, Execution, ExecutionStatus, Lognormal,
    MemberWorkers, Normal, Override, Scenario, ScenarioChange, ScenarioFile, ScenarioRun, Triangular,
};
pub use simulate_reader::SimulateSettings;
pub use twins::Twins;
pub use views::{ModelView, ViewColumn};
