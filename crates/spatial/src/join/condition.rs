//! The whole condition of a join, sorted: what the index serves, the span of time, and what remains.

use datafusion::common::Result;
use datafusion::physical_plan::joins::utils::JoinFilter;

use super::filter::{conjuncts, remaining};
use super::predicate::{Predicate, Test};
use super::window::Window;

/// A condition that has a spatial part.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub predicate: Predicate,
    pub window: Option<Window>,
    /// Checked on each pair that passes the spatial part.
    pub rest: Option<JoinFilter>,
}

impl Condition {
    /// Sorts a condition; `None` when no part of it is one that the index serves.
    pub(super) fn recognise(filter: &JoinFilter) -> Result<Option<Self>> {
        let mut parts = conjuncts(filter.expression());
        let mut best: Option<(usize, Predicate, bool)> = None;
        for (place, part) in parts.iter().enumerate() {
            let Some((predicate, again)) = Predicate::recognise(part, filter) else { continue };
            if best.as_ref().is_none_or(|(_, known, _)| predicate.rank() > known.rank()) {
                best = Some((place, predicate, again));
            }
        }
        let Some((place, predicate, again)) = best else { return Ok(None) };
        if !again {
            parts.remove(place);
        }
        // The nearest are those of all rows, not of those within the window.
        let window = match predicate.test {
            Test::Nearest { .. } => None,
            _ => Window::recognise(&parts, filter),
        };
        Ok(Some(Self { predicate, window, rest: remaining(&parts, filter)? }))
    }
}
