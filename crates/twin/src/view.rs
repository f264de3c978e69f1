//! A tense made exact: what a scenario's fork leaves visible, and whether its overrides hold.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use twinlake_contracts::Error;
use twinlake_query::Tense;

use crate::scenario::Scenario;

/// What a reading of a twin sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// The instant asked for; simulated results up to it are seen. `None`: all.
    pub(crate) as_of_us: Option<i64>,
    /// Observations with a time stamp up to this instant are seen. `None`: all.
    pub(crate) observed_until_us: Option<i64>,
    /// Observations known here at this instant are seen. `None`: all.
    pub(crate) known_until_us: Option<i64>,
    /// The scenario, if the instant asked for is not before its fork.
    pub(crate) scenario: Option<Arc<Scenario>>,
}

impl View {
    /// The view of `tense`, whose scenario has been looked up.
    ///
    /// Before its fork, a scenario is the city as it was. From the fork on, observations end at the fork.
    pub(crate) fn new(tense: &Tense, scenario: Option<Arc<Scenario>>) -> Self {
        let as_of_us = tense.as_of_us;
        let forked = scenario.filter(|scenario| match (scenario.fork_at_us, as_of_us) {
            (Some(fork), Some(as_of)) => as_of >= fork,
            _ => true,
        });
        let earliest = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let fork = forked.as_ref();
        Self {
            as_of_us,
            observed_until_us: earliest(as_of_us, fork.and_then(|scenario| scenario.fork_at_us)),
            known_until_us: earliest(tense.known_at_us, fork.and_then(|scenario| scenario.fork_known_at_us)),
            scenario: forked,
        }
    }

    /// Whether every observation is seen: the present as it is known.
    pub(crate) fn is_present(&self) -> bool {
        self.observed_until_us.is_none() && self.known_until_us.is_none()
    }

    /// The scenario's name.
    pub(crate) fn scenario_name(&self) -> Option<&str> {
        self.scenario.as_ref().map(|scenario| scenario.name.as_str())
    }

    /// Whether the scenario changes nothing, so that what was simulated for the city as it is holds in it too.
    pub(crate) fn is_base(&self) -> bool {
        self.scenario.as_ref().is_none_or(|scenario| scenario.changes_nothing())
    }
}

/// A Twinlake error on its way through the query engine.
pub(crate) fn through(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A query engine's error as one of Twinlake's; one that was ours before comes back as it was.
pub(crate) fn back(error: DataFusionError) -> Error {
    twinlake_query::to_error(error, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(fork_at_us: Option<i64>) -> Arc<Scenario> {
        Arc::new(Scenario {
            name: "s".into(),
            description: String::new(),
            fork_at_us,
            fork_known_at_us: Some(70),
            ..Scenario::default()
        })
    }

    fn tense(as_of_us: Option<i64>) -> Tense {
        Tense { as_of_us, ..Tense::default() }
    }

    #[test]
    fn before_the_fork_a_scenario_is_the_city_as_it_was() {
        let view = View::new(&tense(Some(49)), Some(scenario(Some(50))));
        assert!(view.scenario.is_none());
        assert_eq!((view.observed_until_us, view.known_until_us), (Some(49), None));
    }

    #[test]
    fn from_the_fork_on_observations_end_at_the_fork() {
        for as_of in [Some(50), Some(99), None] {
            let view = View::new(&tense(as_of), Some(scenario(Some(50))));
            assert_eq!(view.scenario_name(), Some("s"));
            assert_eq!((view.observed_until_us, view.known_until_us), (Some(50), Some(70)));
            assert_eq!(view.as_of_us, as_of);
        }
    }

    #[test]
    fn a_scenario_without_a_fork_holds_always() {
        let view = View::new(&tense(Some(7)), Some(scenario(None)));
        assert_eq!((view.scenario_name(), view.observed_until_us), (Some("s"), Some(7)));
    }
}
