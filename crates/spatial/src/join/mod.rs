//! Joins on how geometries lie to each other, by index instead of pair by pair.
//!
//! `JOIN b ON st_intersects(a.geom, b.geom)` and its like (`WHERE` too) are planned by DataFusion as nested loops. The
//! rule of this module ([`physical_optimizer_rules`]) makes a `SpatialJoinExec` of them when one of these is among the
//! conditions, over one geometry of each side:
//!
//! - a relation: `st_intersects`, `st_contains`, `st_within`, `st_covers`, `st_coveredby`, `st_touches`, `st_crosses`,
//!   `st_overlaps`, `st_equals`, `st_orderingequals`, `st_containsproperly`;
//! - a distance, constant or of one side: `st_dwithin`, `st_dfullywithin`, `st_dwithin_sphere`, `st_dwithin_spheroid`, or
//!   `st_distance(a, b) < d`, `<=`, turned round, and the same with `st_distancesphere` and `st_distancespheroid`;
//! - the nearest: `st_knn(a, b, k)`, `st_knn_sphere(a, b, k)`, and lateral subqueries that sort by the distance and take
//!   the first (`lateral`).
//!
//! Two-sided bounds on time or another number (`a.ts BETWEEN b.ts - i AND b.ts + i`, `abs(a.n - b.n) <= c` of numbers,
//! overlapping periods) become the third axis of the index. All other conditions are checked on each pair
//! that is left, so the result is that of the nested loops, row for row.

mod build;
mod building;
mod condition;
mod distance;
pub(crate) mod exec;
mod extent_filter;
mod filter;
mod grid;
mod keys;
mod lateral;
mod metrics;
mod nearest_spilled;
mod partition;
mod predicate;
mod probe;
mod rows;
mod rule;
mod spilled;
pub(crate) mod st_knn;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod window;

pub(crate) use lateral::LateralNearest;
pub(crate) use rule::physical_optimizer_rules;
