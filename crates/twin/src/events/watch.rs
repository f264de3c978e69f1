//! One rule over all instances of a twin, as a function of what it is shown: no clock, no table.
//!
//! Readings of an instance count in the order of their times; one that is older than what has been judged is late and judged no
//! more. So the same readings raise and clear the same events, however they are cut into batches.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// What a rule says of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) raise: bool,
    pub(crate) clear: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Raised,
    Cleared,
}

/// A step of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) event_id: String,
    pub(crate) id: String,
    pub(crate) change: Change,
    pub(crate) at_us: i64,
}

#[derive(Debug, Default)]
struct Instance {
    /// The time of the newest reading that was judged.
    judged_us: Option<i64>,
    /// When this machine saw it.
    seen_us: i64,
    /// Since when the condition holds without a break.
    holds_since_us: Option<i64>,
    open: Option<String>,
    /// It has ended, and nobody waits for its next reading.
    gone: bool,
}

/// The instances of one rule.
#[derive(Debug)]
pub(crate) struct Watch {
    rule: String,
    for_us: i64,
    silent_us: Option<i64>,
    instances: BTreeMap<String, Instance>,
}

fn microseconds(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

impl Watch {
    pub(crate) fn new(rule: &str, for_s: f64, silent_for_s: Option<f64>) -> Self {
        let silent_us = silent_for_s.map(microseconds);
        Self { rule: rule.to_owned(), for_us: microseconds(for_s), silent_us, instances: BTreeMap::new() }
    }

    /// An event that was open when the last process ended.
    pub(crate) fn reopen(&mut self, id: &str, event_id: &str, seen_us: i64) {
        let instance = self.instances.entry(id.to_owned()).or_default();
        (instance.open, instance.seen_us) = (Some(event_id.to_owned()), seen_us);
    }

    /// The same rule, instance and instant give the same identifier, also after a restart.
    fn event_id(rule: &str, id: &str, at_us: i64) -> String {
        let digest = Sha256::digest(format!("{rule}\n{id}\n{at_us}"));
        let first = digest.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        format!("{first:016x}")
    }

    /// A reading of an instance, taken at `valid_us` and seen at `seen_us`.
    pub(crate) fn reading(
        &mut self,
        id: &str,
        valid_us: i64,
        seen_us: i64,
        verdict: Verdict,
    ) -> Option<Transition> {
        let instance = self.instances.entry(id.to_owned()).or_default();
        if instance.judged_us.is_some_and(|judged| valid_us <= judged) {
            return None;
        }
        instance.judged_us = Some(valid_us);
        instance.gone = false;
        instance.seen_us = instance.seen_us.max(seen_us);
        let step = |event_id: String, change| {
            Some(Transition { event_id, id: id.to_owned(), change, at_us: valid_us })
        };
        if self.silent_us.is_some() {
            return instance.open.take().and_then(|event_id| step(event_id, Change::Cleared));
        }
        instance.holds_since_us = verdict.raise.then(|| instance.holds_since_us.unwrap_or(valid_us));
        if instance.open.is_some() {
            return if verdict.clear && !verdict.raise {
                instance.open.take().and_then(|event_id| step(event_id, Change::Cleared))
            } else {
                None
            };
        }
        let since = instance.holds_since_us?;
        if valid_us.saturating_sub(since) < self.for_us {
            return None;
        }
        let event_id = Self::event_id(&self.rule, id, valid_us);
        instance.open = Some(event_id.clone());
        step(event_id, Change::Raised)
    }

    /// The instance ended at `at_us`: what is open is over. A late end is none.
    pub(crate) fn ended(&mut self, id: &str, at_us: i64) -> Option<Transition> {
        let instance = self.instances.get_mut(id)?;
        if instance.judged_us.is_some_and(|judged| at_us <= judged) {
            return None;
        }
        (instance.judged_us, instance.holds_since_us, instance.gone) = (Some(at_us), None, true);
        let event_id = instance.open.take()?;
        Some(Transition { event_id, id: id.to_owned(), change: Change::Cleared, at_us })
    }

    /// Time has gone on to `now_us`: who has been silent for too long?
    pub(crate) fn tick(&mut self, now_us: i64) -> Vec<Transition> {
        let Some(silent) = self.silent_us else { return Vec::new() };
        let mut raised = Vec::new();
        for (id, instance) in &mut self.instances {
            let at_us = instance.seen_us.saturating_add(silent);
            if instance.open.is_none() && !instance.gone && now_us >= at_us {
                let event_id = Self::event_id(&self.rule, id, at_us);
                instance.open = Some(event_id.clone());
                raised.push(Transition { event_id, id: id.clone(), change: Change::Raised, at_us });
            }
        }
        raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(value: f64) -> Verdict {
        Verdict { raise: value > 80.0, clear: value < 75.0 }
    }

    fn told(steps: impl IntoIterator<Item = Option<Transition>>) -> Vec<(Change, i64)> {
        steps.into_iter().flatten().map(|step| (step.change, step.at_us)).collect()
    }

    #[test]
    fn a_threshold_with_hysteresis_is_raised_once_and_cleared_below_its_gap() {
        let mut watch = Watch::new("hot", 0.0, None);
        let values = [70.0, 81.0, 90.0, 79.0, 82.0, 76.0, 74.0, 60.0, 81.0];
        let steps = values.iter().zip(1..).map(|(value, time)| watch.reading("a", time, time, at(*value)));
        let steps = told(steps.collect::<Vec<_>>());
        assert_eq!(steps, [(Change::Raised, 2), (Change::Cleared, 7), (Change::Raised, 9)]);
    }

    #[test]
    fn it_must_have_held_for_so_long_without_a_break() {
        let mut watch = Watch::new("hot", 10e-6, None);
        let readings = [(0, 90.0), (8, 90.0), (9, 70.0), (12, 90.0), (21, 90.0), (22, 90.0), (40, 90.0)];
        let steps = readings.map(|(time, value)| watch.reading("a", time, time, at(value)));
        assert_eq!(told(steps), [(Change::Raised, 22)]);
    }

    #[test]
    fn silence_is_raised_by_the_clock_and_ended_by_a_reading() {
        let mut watch = Watch::new("lost", 0.0, Some(30e-6));
        let quiet = Verdict { raise: false, clear: false };
        assert_eq!(watch.reading("a", 5, 100, quiet), None);
        assert!(watch.tick(129).is_empty());
        let raised = watch.tick(200);
        assert_eq!((raised.len(), raised[0].at_us), (1, 130));
        assert!(watch.tick(300).is_empty(), "once");
        let cleared = watch.reading("a", 6, 310, quiet).unwrap();
        assert_eq!((cleared.change, &cleared.event_id), (Change::Cleared, &raised[0].event_id));
    }

    #[test]
    fn what_ended_is_over_and_what_was_open_is_known_again() {
        let mut watch = Watch::new("hot", 0.0, None);
        watch.reopen("a", "e1", 0);
        assert_eq!(watch.reading("a", 1, 1, at(90.0)), None, "it is raised already");
        assert_eq!(watch.ended("a", 2).unwrap().event_id, "e1");
        assert_eq!(watch.ended("a", 3), None);
    }

    proptest! {
        /// Late readings change nothing, each instance is alone, and raised and cleared take turns.
        #[test]
        fn events_are_a_function_of_the_newest_readings(
            readings in proptest::collection::vec((0..3_u8, 0..30_i64, 60..100_u8), 0..60),
        ) {
            let mut watch = Watch::new("hot", 0.0, None);
            let mut alone: BTreeMap<u8, Watch> = BTreeMap::new();
            let mut newest: BTreeMap<u8, i64> = BTreeMap::new();
            let mut open: BTreeMap<u8, bool> = BTreeMap::new();
            for (instance, time, value) in readings {
                let verdict = at(f64::from(value));
                let step = watch.reading(&instance.to_string(), time, time, verdict);
                let own = alone.entry(instance).or_insert_with(|| Watch::new("hot", 0.0, None));
                if newest.get(&instance).is_none_or(|known| time > *known) {
                    newest.insert(instance, time);
                    prop_assert_eq!(&own.reading(&instance.to_string(), time, time, verdict), &step);
                } else {
                    prop_assert_eq!(&step, &None);
                }
                if let Some(step) = step {
                    let was = open.insert(instance, step.change == Change::Raised).unwrap_or(false);
                    prop_assert_eq!(was, step.change == Change::Cleared);
                }
            }
        }
    }
}
