//! One rule over all instances of a twin, as a function of what it is shown: no clock, no table.
//!
//! Readings of an instance count in the order of their times; one that is older than what has been judged is late and judged no
//! more. So the same readings raise and clear the same events, however they are cut into batches.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::anomaly::{AnomalyRule, Past};
use super::rule::EventRule;
use super::sequence::Progress;

/// What a rule's condition says of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) raise: bool,
    pub(crate) clear: bool,
}

/// What of a reading a rule is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Observed {
    /// Of conditions: what they say.
    Verdict(Verdict),
    /// Of a sequence: bit k says whether the condition of step k holds, and what the condition that clears says, if there is one.
    Steps { holds: u32, clear: Option<bool> },
    /// Of an anomaly: the value of the property, if it has one.
    Value(Option<f64>),
}

impl From<Verdict> for Observed {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// What a rule watches for.
#[derive(Debug, Clone)]
enum Kind {
    Condition,
    Silence { silent_us: i64 },
    Sequence { count: usize, within_us: i64 },
    Anomaly(AnomalyRule),
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
    /// When the last event was raised or cleared.
    changed_us: i64,
    /// It has ended, and nobody waits for its next reading.
    gone: bool,
    progress: Progress,
    past: Past,
}

/// The instances of one rule.
#[derive(Debug)]
pub(crate) struct Watch {
    rule: String,
    for_us: i64,
    kind: Kind,
    instances: BTreeMap<String, Instance>,
}

fn microseconds(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

impl Instance {
    /// What the rule says of a reading that is not late; `None`: nothing.
    fn verdict(&mut self, kind: &Kind, valid_us: i64, observed: Observed) -> Option<Verdict> {
        match (kind, observed) {
            (Kind::Sequence { count, within_us }, Observed::Steps { holds, clear }) => {
                let last = holds & (1 << (count - 1)) != 0;
                let clear = clear.unwrap_or(!last);
                // While the event is open the next sequence is not sought; the reading that clears it may begin it.
                if self.open.is_some() && !clear {
                    return Some(Verdict { raise: false, clear });
                }
                let raise = self.progress.reading(valid_us, holds, *count, *within_us);
                Some(Verdict { raise, clear })
            }
            (Kind::Anomaly(rule), Observed::Value(value)) => {
                let score = rule.beyond(self.past.reading(rule, valid_us, value?)?);
                let raise = score > rule.threshold;
                Some(Verdict { raise, clear: score <= rule.clear_threshold.unwrap_or(rule.threshold) })
            }
            (Kind::Condition, Observed::Verdict(verdict)) => Some(verdict),
            _ => None,
        }
    }
}

impl Watch {
    /// The watch of a rule over no instance yet.
    pub(crate) fn of(rule: &EventRule) -> Self {
        let kind = if let Some(silent_for_s) = rule.silent_for_s {
            Kind::Silence { silent_us: microseconds(silent_for_s) }
        } else if let Some(anomaly) = &rule.anomaly {
            Kind::Anomaly(anomaly.clone())
        } else if rule.steps.is_empty() {
            Kind::Condition
        } else {
            let within_us = microseconds(rule.within_s.unwrap_or(0.0));
            Kind::Sequence { count: rule.steps.len(), within_us }
        };
        let for_us = microseconds(rule.for_s);
        Self { rule: rule.name.clone(), for_us, kind, instances: BTreeMap::new() }
    }

    #[cfg(test)]
    fn new(rule: &str, for_s: f64, silent_for_s: Option<f64>) -> Self {
        let kind = match silent_for_s {
            Some(seconds) => Kind::Silence { silent_us: microseconds(seconds) },
            None => Kind::Condition,
        };
        Self { rule: rule.to_owned(), for_us: microseconds(for_s), kind, instances: BTreeMap::new() }
    }

    /// Whether what it says of a reading depends on readings before, so that it must know them when it begins.
    pub(crate) fn remembers(&self) -> bool {
        match self.kind {
            Kind::Sequence { .. } | Kind::Anomaly(_) => true,
            Kind::Condition => self.for_us > 0,
            Kind::Silence { .. } => false,
        }
    }

    /// Takes over what a watch of the same rule has seen of the past. Where that ends with another event than is known to be open,
    /// the steps are given that lead from one to the other.
    pub(crate) fn settle(&mut self, past: Self) -> Vec<Transition> {
        let mut steps = Vec::new();
        for (id, mut seen) in past.instances {
            let known = self.instances.remove(&id).unwrap_or_default();
            let step = |event_id: &str, change, at_us| Transition {
                event_id: event_id.to_owned(),
                id: id.clone(),
                change,
                at_us,
            };
            match (&known.open, &seen.open) {
                (Some(open), None) => steps.push(step(open, Change::Cleared, seen.changed_us)),
                (None, Some(open)) => steps.push(step(open, Change::Raised, seen.changed_us)),
                (Some(_), Some(_)) => seen.open = known.open,
                (None, None) => {}
            }
            seen.seen_us = seen.seen_us.max(known.seen_us);
            self.instances.insert(id, seen);
        }
        steps
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
        observed: impl Into<Observed>,
    ) -> Option<Transition> {
        let step = self.judge(id, valid_us, seen_us, observed.into())?;
        if let Some(instance) = self.instances.get_mut(id) {
            instance.changed_us = valid_us;
        }
        Some(step)
    }

    fn judge(&mut self, id: &str, valid_us: i64, seen_us: i64, observed: Observed) -> Option<Transition> {
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
        if matches!(self.kind, Kind::Silence { .. }) {
            return instance.open.take().and_then(|event_id| step(event_id, Change::Cleared));
        }
        let verdict = instance.verdict(&self.kind, valid_us, observed)?;
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
        // What comes back begins anew; what was usual of it stays so.
        instance.progress.forget();
        instance.changed_us = at_us;
        let event_id = instance.open.take()?;
        Some(Transition { event_id, id: id.to_owned(), change: Change::Cleared, at_us })
    }

    /// Time has gone on to `now_us`: who has been silent for too long?
    pub(crate) fn tick(&mut self, now_us: i64) -> Vec<Transition> {
        let Kind::Silence { silent_us: silent } = self.kind else { return Vec::new() };
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

    fn rule(text: &str) -> EventRule {
        let text = format!("name = \"r\"\ndescription = \"d\"\ntwin = \"m\"\n{text}");
        EventRule::parse("r.toml", &text).unwrap()
    }

    #[test]
    fn a_sequence_is_raised_at_its_last_step_and_cleared_when_that_no_longer_holds() {
        let mut watch = Watch::of(&rule("steps = [{ when = \"a\" }, { when = \"b\" }]\nwithin_s = 10e-6"));
        let (a, b, none) = (1, 2, 0);
        let readings =
            [(1, a), (4, none), (6, b), (7, b), (8, a), (9, b), (20, b), (21, a), (19, b), (32, b)];
        let steps = readings
            .map(|(time, holds)| watch.reading("x", time, time, Observed::Steps { holds, clear: None }));
        // The reading at 8 clears it and begins the next; 19 is late, and 32 too late after 21.
        assert_eq!(
            told(steps),
            [(Change::Raised, 6), (Change::Cleared, 8), (Change::Raised, 9), (Change::Cleared, 21)]
        );
    }

    #[test]
    fn an_anomaly_has_a_gap_and_what_has_no_value_changes_nothing() {
        let text =
            "anomaly = { property = \"t\", window = 4, min_samples = 4, threshold = 5, clear_threshold = 2 }";
        let mut watch = Watch::of(&rule(text));
        let values = [1.0, 2.0, 1.0, 2.0, 9.0, f64::NAN, 3.4, 1.6, 2.0];
        let steps = values.iter().zip(1..).map(|(value, time)| {
            let value = Some(*value).filter(|value| !value.is_nan());
            watch.reading("x", time, time, Observed::Value(value))
        });
        // 9 among 1, 2, 1, 2: (9 - 1.5) / (0.5 * 1.4826) = 10; 3.4 among 2, 1, 2, 9: 1.4 / (0.5 * 1.4826) = 1.9.
        assert_eq!(told(steps.collect::<Vec<_>>()), [(Change::Raised, 5), (Change::Cleared, 7)]);
    }

    #[test]
    fn what_was_seen_before_goes_on_after_a_restart() {
        let text = "steps = [{ when = \"a\" }, { when = \"b\" }]\nwithin_s = 10e-6";
        let observed = |holds| Observed::Steps { holds, clear: None };
        let mut past = Watch::of(&rule(text));
        assert_eq!(past.reading("begun", 5, 5, observed(1)), None);
        let mut missed =
            vec![past.reading("missed", 5, 5, observed(1)), past.reading("missed", 6, 6, observed(2))];
        let over = [past.reading("over", 5, 5, observed(1)), past.reading("over", 6, 6, observed(2))];
        let open = over[1].clone().unwrap().event_id;
        past.reading("over", 7, 7, observed(0));
        let mut watch = Watch::of(&rule(text));
        watch.reopen("over", &open, 0);
        let steps = watch.settle(past);
        assert_eq!(steps.len(), 2);
        assert_eq!(Some(&steps[0]), missed.pop().flatten().as_ref(), "as if it had been watched");
        assert_eq!((steps[1].change, steps[1].at_us, &steps[1].event_id), (Change::Cleared, 7, &open));
        assert_eq!(told([watch.reading("begun", 9, 9, observed(2))]), [(Change::Raised, 9)]);
        assert_eq!(watch.reading("missed", 6, 9, observed(0)), None, "judged already");
        assert_eq!(told([watch.reading("missed", 8, 9, observed(0))]), [(Change::Cleared, 8)]);
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
