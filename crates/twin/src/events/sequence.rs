//! One thing after another: how far an instance has come in the steps of a rule.
//!
//! For each step the latest beginning is kept from which the steps up to it have been seen in order, each in a later reading
//! than the one before. A later beginning leaves more time for the rest, so nothing else needs to be remembered: a sequence that
//! any choice of readings completes in time is found (the argument of dynamic programming over prefixes).

/// The most steps that a rule may have.
pub(crate) const MOST_STEPS: usize = 32;

/// How far an instance has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// For each step but the last, when the first step was seen of the latest way to it, microseconds.
    begun: Vec<Option<i64>>,
}

impl Progress {
    /// A reading at `at_us`, later than all before; bit k of `holds` says whether the condition of step k holds for it. Whether
    /// it completes the sequence of `count` steps within `within_us`; then the search begins anew after it.
    pub(crate) fn reading(&mut self, at_us: i64, holds: u32, count: usize, within_us: i64) -> bool {
        self.begun.resize(count.saturating_sub(1), None);
        let in_time = |begun: Option<i64>| begun.filter(|begun| at_us.saturating_sub(*begun) <= within_us);
        let meets = |step: usize| holds & (1 << step) != 0;
        // From the last step to the first, so that one reading is not two steps.
        for step in (1..count).rev() {
            let Some(begun) = self.begun.get(step - 1).copied().and_then(in_time) else { continue };
            if !meets(step) {
                continue;
            }
            if step + 1 == count {
                self.forget();
                return true;
            }
            if let Some(own) = self.begun.get_mut(step) {
                *own = (*own).max(Some(begun));
            }
        }
        if meets(0)
            && let Some(first) = self.begun.first_mut()
        {
            *first = Some(at_us);
        }
        false
    }

    /// Begins anew.
    pub(crate) fn forget(&mut self) {
        self.begun.fill(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn completed(readings: &[(i64, u32)], count: usize, within: i64) -> Vec<i64> {
        let mut progress = Progress::default();
        let found = readings.iter().filter(|(at, holds)| progress.reading(*at, *holds, count, within));
        found.map(|(at, _)| *at).collect()
    }

    const A: u32 = 1;
    const B: u32 = 2;
    const C: u32 = 4;

    #[test]
    fn steps_come_in_order_each_in_a_reading_of_its_own_and_in_time() {
        assert_eq!(completed(&[(0, A), (5, B)], 2, 10), [5]);
        assert_eq!(completed(&[(0, B), (5, A)], 2, 10), [0; 0]);
        assert_eq!(completed(&[(0, A | B)], 2, 10), [0; 0], "one reading is one step");
        assert_eq!(completed(&[(0, A | B), (1, A | B)], 2, 10), [1]);
        assert_eq!(completed(&[(0, A), (11, B)], 2, 10), [0; 0], "too late");
        assert_eq!(completed(&[(0, A), (8, A), (18, B)], 2, 10), [18], "the later beginning counts");
        assert_eq!(completed(&[(0, A), (3, B), (4, A), (13, C)], 3, 10), [0; 0], "from the first step on");
        assert_eq!(completed(&[(0, A), (3, B), (4, A), (5, B), (13, C)], 3, 10), [13]);
        assert_eq!(completed(&[(0, A), (1, B), (2, B)], 2, 10), [1], "what was used is used up");
    }

    /// Whether some readings, one a step, complete the sequence at the last reading.
    fn any_choice(readings: &[(i64, u32)], count: usize, within: i64) -> bool {
        fn search(readings: &[(i64, u32)], before: usize, step: usize, end: i64, within: i64) -> bool {
            (0..before).rev().any(|at| {
                let (time, holds) = readings[at];
                holds & (1 << step) != 0
                    && end - time <= within
                    && (step == 0 || search(readings, at, step - 1, end, within))
            })
        }
        let Some((end, holds)) = readings.last() else { return false };
        holds & (1 << (count - 1)) != 0
            && (count == 1 || search(readings, readings.len() - 1, count - 2, *end, within))
    }

    proptest! {
        /// The first completion is where any choice of readings first completes the sequence.
        #[test]
        fn nothing_is_missed_and_nothing_is_made_up(
            gaps in proptest::collection::vec((1..6_i64, 0..8_u32), 1..25),
            count in 2..4_usize,
            within in 1..20_i64,
        ) {
            let mut time = 0;
            let readings: Vec<(i64, u32)> = gaps.into_iter().map(|(gap, holds)| { time += gap; (time, holds) }).collect();
            let wanted = (1..=readings.len()).find(|until| any_choice(&readings[..*until], count, within));
            let found = completed(&readings, count, within).first().copied();
            prop_assert_eq!(found, wanted.map(|until| readings[until - 1].0));
        }
    }
}
