//! Scores: how well what was said agrees with what was observed, over any join of the two.
//!
//! | call | gives |
//! |---|---|
//! | `rmse(predicted, observed)` | root of the mean of (p − o)² |
//! | `mae(predicted, observed)` | mean of \|p − o\| |
//! | `bias(predicted, observed)` | mean of p − o: above 0 where too much was said |
//! | `geh(modelled, counted)` | √(2 (m − c)² / (m + c)) of two flows in vehicles an hour |
//! | `crps(members, observed)` | continuous ranked probability score of an ensemble, in the unit of its values |
//! | `crps_fair(members, observed)` | the same, as if of an ensemble without end |
//!
//! The first three are aggregates: rows where either is null do not count, and no row gives null. The others are functions of a row.

mod aggregate;
mod scalar;

use datafusion::prelude::SessionContext;

/// Adds the scores to a session.
pub(crate) fn register(context: &SessionContext) {
    for score in aggregate::all() {
        context.register_udaf(score);
    }
    for score in scalar::all() {
        context.register_udf(score);
    }
}
