//! Time series: aggregates over time, gap filling, joins by time.

pub(crate) mod abs;
mod aggregate;
pub(crate) mod asof;
pub(crate) mod buckets;
mod counter;
mod first_last;
pub(crate) mod gapfill;
mod keys;
mod order;
pub(crate) mod overlap;
pub(crate) mod percentile;
mod planner;
mod series;
mod sketch;
mod sorted;
mod time_weighted_average;

use datafusion::logical_expr::AggregateUDF;

use aggregate::Aggregate;
pub use asof::{mark as mark_asof_joins, tokens as tokens_with_asof};
pub use planner::configure;

/// One line an aggregate.
static AGGREGATES: &[&Aggregate] = &[
    &counter::DELTA,
    &counter::INCREASE,
    &counter::RATE,
    &first_last::FIRST,
    &first_last::LAST,
    &percentile::MERGE,
    &percentile::SKETCH,
    &time_weighted_average::TIME_WEIGHTED_AVERAGE,
];

/// All aggregates, in the order of the list.
pub fn aggregates() -> Vec<AggregateUDF> {
    AGGREGATES.iter().copied().map(Aggregate::udaf).collect()
}
