//! Far from what it used to be: how unusual a value is among the past values of the same instance.
//!
//! **`median`**: the Hampel identifier (Hampel 1974, The influence curve and its role in robust estimation, J. Am. Stat. Assoc. 69;
//! Davies, Gather 1993, The identification of multiple outliers, J. Am. Stat. Assoc. 88). Over the last `window` values
//! m = median, s = 1.4826 · median |x − m|; the score of the next value is (x − m) / s. Where more than half of the values are
//! equal that s is 0, and 1.2533 · mean |x − m| stands in (Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers).
//!
//! **`ewma`**: exponentially weighted mean and variance (the mean of Roberts 1959, Control chart tests based on geometric moving
//! averages, Technometrics 1; its variance after Finch 2009, Incremental calculation of weighted mean and variance, eq. 143):
//! with d = x − m, m ← m + a·d, v ← (1 − a)(v + a·d²), where a = 1 − 2^(−Δt / halflife), and 1/n while that is more, so that the
//! first readings weigh alike. The score of the next value is (x − m) / √v.
//!
//! A value is judged by the past before it, and then becomes a part of that past, unusual or not: what stays is what is usual after
//! a while. With a `season`, each phase of the period has a past of its own.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The median of |x − m| of normally distributed values times this is their standard deviation.
const MEDIAN_TO_DEVIATION: f64 = 1.4826;
/// The mean of |x − m| of normally distributed values times this is their standard deviation: √(π / 2).
const MEAN_TO_DEVIATION: f64 = 1.253_314_137_315_5;

/// A property that is watched for unusual values, each instance against its own past.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnomalyRule {
    /// A column of the twin with numbers. A null and a value that is no number are not judged.
    pub property: String,
    /// What the usual is.
    #[serde(default)]
    pub method: AnomalyMethod,
    /// The event is raised when the score is beyond this: so many standard deviations from the usual.
    #[serde(default = "usual_threshold")]
    pub threshold: f64,
    /// It is cleared when the score is not beyond this; `threshold`, if nothing is said.
    pub clear_threshold: Option<f64>,
    /// Which side counts.
    #[serde(default)]
    pub direction: Direction,
    /// Of `median`: how many values the past has.
    #[serde(default = "usual_window")]
    pub window: usize,
    /// Of `ewma`: after how many seconds a value has half its weight.
    pub halflife_s: Option<f64>,
    /// Nothing is judged before the past has so many values.
    #[serde(default = "usual_samples")]
    pub min_samples: usize,
    /// A value that is no farther than this from the usual, in the unit of the property, is usual whatever its score.
    #[serde(default)]
    pub min_deviation: f64,
    /// A past of its own for each phase of a period, as for each hour of a day.
    pub season: Option<Season>,
}

fn usual_threshold() -> f64 {
    3.5
}

fn usual_window() -> usize {
    60
}

fn usual_samples() -> usize {
    30
}

/// What the usual is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyMethod {
    /// The median of the last values, and their median deviation from it.
    #[default]
    Median,
    /// Exponentially weighted mean and standard deviation.
    Ewma,
}

/// Which side of the usual is unusual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both.
    #[default]
    Both,
    /// What is more than usual.
    Above,
    /// What is less than usual.
    Below,
}

/// A period and its phases.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Season {
    /// The period in seconds, from 1970-01-01T00:00:00Z: 86400 is a day in UTC.
    pub period_s: f64,
    /// How many phases of equal length it has.
    pub phases: usize,
}

impl AnomalyRule {
    /// What is wrong with the numbers, if something is: the key, and what it must be.
    pub(crate) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.threshold) {
            return Some(("threshold", "must be a positive number"));
        }
        if self.clear_threshold.is_some_and(|clear| !(clear >= 0.0 && clear <= self.threshold)) {
            return Some(("clear_threshold", "must be a number from 0 to the threshold"));
        }
        if !(self.min_deviation >= 0.0 && self.min_deviation.is_finite()) {
            return Some(("min_deviation", "must be a number, not negative"));
        }
        if self.min_samples < 2 {
            return Some(("min_samples", "must be 2 or more"));
        }
        match self.method {
            AnomalyMethod::Median if self.halflife_s.is_some() => {
                return Some(("halflife_s", "is of method = \"ewma\""));
            }
            AnomalyMethod::Median if !(self.min_samples..=10_000).contains(&self.window) => {
                return Some(("window", "must be from min_samples to 10000"));
            }
            AnomalyMethod::Ewma if !self.halflife_s.is_some_and(positive) => {
                return Some(("halflife_s", "must be a positive number of seconds"));
            }
            _ => {}
        }
        let season = self.season?;
        if !positive(season.period_s) || season.period_s < 1e-6 {
            return Some(("period_s", "must be a positive number of seconds"));
        }
        (!(1..=10_000).contains(&season.phases)).then_some(("phases", "must be from 1 to 10000"))
    }

    fn phase(&self, at_us: i64) -> usize {
        let Some(season) = self.season else { return 0 };
        let within = (at_us as f64 / 1e6).rem_euclid(season.period_s) / season.period_s;
        ((within * season.phases as f64) as usize).min(season.phases - 1)
    }

    /// How far beyond the usual a score is, on the side that counts.
    pub(crate) fn beyond(&self, score: f64) -> f64 {
        match self.direction {
            Direction::Both => score.abs(),
            Direction::Above => score,
            Direction::Below => -score,
        }
    }
}

/// The past of one instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Past {
    /// By phase.
    phases: Vec<Usual>,
}

/// The past of one phase.
#[derive(Debug, Clone, Default, PartialEq)]
struct Usual {
    /// Of `median`: the last values.
    values: VecDeque<f64>,
    /// Of `ewma`.
    mean: f64,
    variance: f64,
    count: usize,
    last_us: i64,
}

impl Past {
    /// The score of a value at `at_us`, later than all before, if it can be judged; then it is part of the past.
    pub(crate) fn reading(&mut self, rule: &AnomalyRule, at_us: i64, value: f64) -> Option<f64> {
        if !value.is_finite() {
            return None;
        }
        let phase = rule.phase(at_us);
        if self.phases.len() <= phase {
            self.phases.resize(phase + 1, Usual::default());
        }
        let usual = self.phases.get_mut(phase)?;
        let score = match rule.method {
            AnomalyMethod::Median => usual.by_median(rule, value),
            AnomalyMethod::Ewma => usual.by_ewma(rule, at_us, value),
        };
        usual.last_us = at_us;
        score
    }
}

fn score(rule: &AnomalyRule, value: f64, usual: f64, deviation: f64) -> f64 {
    let from_usual = value - usual;
    if from_usual.abs() <= rule.min_deviation || from_usual == 0.0 {
        return 0.0;
    }
    // Among values that are all equal any other is infinitely unusual.
    if deviation > 0.0 { from_usual / deviation } else { from_usual.signum() * f64::INFINITY }
}

/// The median; of an even number the mean of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if !even {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    f64::midpoint(lower, upper)
}

impl Usual {
    fn by_median(&mut self, rule: &AnomalyRule, value: f64) -> Option<f64> {
        let judged = (self.values.len() >= rule.min_samples).then(|| {
            let mut values: Vec<f64> = self.values.iter().copied().collect();
            let usual = median(&mut values);
            for value in &mut values {
                *value = (*value - usual).abs();
            }
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let spread = median(&mut values) * MEDIAN_TO_DEVIATION;
            let deviation = if spread > 0.0 { spread } else { mean * MEAN_TO_DEVIATION };
            score(rule, value, usual, deviation)
        });
        if self.values.len() >= rule.window {
            self.values.pop_front();
        }
        self.values.push_back(value);
        judged
    }

    fn by_ewma(&mut self, rule: &AnomalyRule, at_us: i64, value: f64) -> Option<f64> {
        let judged = (self.count >= rule.min_samples)
            .then(|| score(rule, value, self.mean, self.variance.max(0.0).sqrt()));
        self.count += 1;
        let elapsed_s = at_us.saturating_sub(self.last_us) as f64 / 1e6;
        let weight = 1.0 - (-elapsed_s / rule.halflife_s.unwrap_or(f64::INFINITY)).exp2();
        let weight = if self.count == 1 { 1.0 } else { weight.max(1.0 / self.count as f64) };
        let from_mean = value - self.mean;
        self.mean += weight * from_mean;
        self.variance = (1.0 - weight) * (self.variance + weight * from_mean * from_mean);
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> AnomalyRule {
        let rule: AnomalyRule = toml::from_str(&format!("property = \"t\"\n{text}")).unwrap();
        assert_eq!(rule.mistake(), None, "{text}");
        rule
    }

    fn scores(rule: &AnomalyRule, values: &[f64]) -> Vec<Option<f64>> {
        let mut past = Past::default();
        values.iter().zip(0..).map(|(value, s)| past.reading(rule, s * 1_000_000, *value)).collect()
    }

    #[test]
    fn the_median_score_is_that_of_the_paper() {
        let rule = rule("window = 5\nmin_samples = 5");
        // Of 1, 2, 3, 4, 100: median 3, deviations 2, 1, 0, 1, 97, their median 1. One outlier moves nothing.
        let judged = scores(&rule, &[1.0, 2.0, 3.0, 4.0, 100.0, 6.0]);
        assert_eq!(judged[..5], [None; 5]);
        assert!((judged[5].unwrap() - 3.0 / 1.4826).abs() < 1e-12);
        // Now 2, 3, 4, 100, 6: median 4, deviations 2, 1, 0, 96, 2.
        let next = scores(&rule, &[1.0, 2.0, 3.0, 4.0, 100.0, 6.0, 0.0])[6].unwrap();
        assert!((next + 4.0 / (2.0 * 1.4826)).abs() < 1e-12);
    }

    #[test]
    fn equal_values_have_a_deviation_too_if_not_all_are() {
        let rule = rule("window = 5\nmin_samples = 5");
        let judged = scores(&rule, &[5.0, 5.0, 5.0, 5.0, 7.0, 6.0])[5].unwrap();
        assert!((judged - 1.0 / (0.4 * 1.253_314_137_315_5)).abs() < 1e-9, "{judged}");
        assert_eq!(scores(&rule, &[5.0, 5.0, 5.0, 5.0, 5.0, 6.0])[5], Some(f64::INFINITY));
        assert_eq!(scores(&rule, &[5.0; 6])[5], Some(0.0));
        let tolerant = AnomalyRule { min_deviation: 1.0, ..rule };
        assert_eq!(scores(&tolerant, &[5.0, 5.0, 5.0, 5.0, 5.0, 6.0])[5], Some(0.0));
    }

    #[test]
    fn an_ewma_begins_as_a_mean_and_forgets_by_its_halflife() {
        let rule = rule("method = \"ewma\"\nhalflife_s = 1\nmin_samples = 2");
        // A reading a second: a = 1/2 from the second on, m = (0 + 2) / 2, v = (1/2)(0 + 2) = 1.
        let judged = scores(&rule, &[0.0, 2.0, 4.0]);
        assert_eq!(judged, [None, None, Some(3.0)]);
        // m = 2.5, v = (1/2)(1 + (1/2) 9) = 2.75.
        let next = scores(&rule, &[0.0, 2.0, 4.0, 2.5 + 2.75_f64.sqrt()])[3].unwrap();
        assert!((next - 1.0).abs() < 1e-12, "{next}");
        // Long ago counts for nothing.
        let mut past = Past::default();
        for (s, value) in [(0, 0.0), (1, 2.0), (100, 50.0), (101, 50.0)] {
            past.reading(&rule, s * 1_000_000, value);
        }
        assert!(past.reading(&rule, 102_000_000, 50.0).unwrap().abs() < 1e-9);
    }

    #[test]
    fn what_is_no_number_is_neither_judged_nor_remembered() {
        for text in ["window = 3\nmin_samples = 3", "method = \"ewma\"\nhalflife_s = 9\nmin_samples = 3"] {
            let rule = rule(text);
            let whole = scores(&rule, &[1.0, 2.0, 3.0, 9.0]);
            let mut past = Past::default();
            let readings = [(0, 1.0), (1, 2.0), (2, 3.0)];
            for (s, value) in readings {
                past.reading(&rule, s * 1_000_000, value);
                for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    assert_eq!(past.reading(&rule, s * 1_000_000 + 1, broken), None);
                }
            }
            assert_eq!(past.reading(&rule, 3_000_000, 9.0), whole[3], "{text}");
        }
    }

    #[test]
    fn a_season_compares_like_with_like() {
        let rule = rule("window = 3\nmin_samples = 3\nseason = { period_s = 2, phases = 2 }");
        // Even seconds are low, odd ones high; a high value on an even second is unusual.
        let values = [1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 2.0, 8.0, 9.0];
        let judged = scores(&rule, &values);
        assert!(judged[..6].iter().all(Option::is_none));
        assert!(judged[6].unwrap().abs() < 1.0 && judged[7].unwrap().abs() < 1.0);
        assert!(judged[8].unwrap() > 3.5);
        let before_1970 = rule.phase(-1);
        assert_eq!(before_1970, 1, "phases go on before 1970");
    }

    #[test]
    fn numbers_that_make_no_sense_are_named() {
        for (text, key) in [
            ("threshold = 0", "threshold"),
            ("clear_threshold = 4", "clear_threshold"),
            ("min_samples = 1", "min_samples"),
            ("window = 10", "window"),
            ("method = \"ewma\"", "halflife_s"),
            ("halflife_s = 3", "halflife_s"),
            ("min_deviation = -1", "min_deviation"),
            ("season = { period_s = 0, phases = 3 }", "period_s"),
            ("season = { period_s = 9, phases = 0 }", "phases"),
        ] {
            let rule: AnomalyRule = toml::from_str(&format!("property = \"t\"\n{text}")).unwrap();
            assert_eq!(rule.mistake().map(|mistake| mistake.0), Some(key), "{text}");
        }
    }

    proptest! {
        /// Another unit gives the same scores.
        #[test]
        fn scores_do_not_know_the_unit(
            values in proptest::collection::vec(-100.0..100.0_f64, 8..40), scale in 0.01..100.0_f64, shift in -50.0..50.0_f64,
        ) {
            for text in ["window = 7\nmin_samples = 4", "method = \"ewma\"\nhalflife_s = 5\nmin_samples = 4"] {
                let rule = rule(text);
                let other: Vec<f64> = values.iter().map(|value| value * scale + shift).collect();
                for (a, b) in scores(&rule, &values).into_iter().zip(scores(&rule, &other)) {
                    match (a, b) {
                        (Some(a), Some(b)) => prop_assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} {b}"),
                        (a, b) => prop_assert_eq!(a, b),
                    }
                }
            }
        }
    }
}
