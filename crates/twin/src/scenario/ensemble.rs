//! Ensembles: the same scenario with other seeds and with parameters drawn from distributions.
//!
//! Every draw is a function of the ensemble's seed, the member's number and the name of what is drawn: SHA-256 over them is the
//! source of its uniform numbers, as in counter-based generators (Salmon et al. 2011). No draw depends on another, so a member is
//! the same whatever runs beside it, in whatever order, on however many threads; a further member or another parameter changes
//! none of those that are there.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use twinlake_contracts::ParameterSpec;

/// The most members of one ensemble.
const MOST_MEMBERS: u32 = 100_000;

/// How often a scenario is run beside itself, and what differs.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// How many members, numbered from 1. The scenario as it is written is run beside them, as member 0.
    pub members: u32,
    /// The seed that all draws follow from.
    #[serde(default)]
    pub seed: u64,
    /// Operator → parameter → how it is distributed. What is not named stays as the scenario says; the seeds of the runs differ
    /// in any case.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub sample: IndexMap<String, IndexMap<String, Distribution>>,
}

/// How a parameter is distributed, for example `{ uniform = { low = 0.8, high = 1.2 } }`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Any value of `[low, high)` is as likely as any other.
    Uniform(Bounds),
    /// The normal distribution.
    Normal(Normal),
    /// A value whose natural logarithm has the normal distribution with mean ln(`median`).
    Lognormal(Lognormal),
    /// A density that rises in a line from `low` to `mode` and falls in a line to `high`.
    Triangular(Triangular),
    /// One of some values.
    Choice(Choice),
}

/// Ends of a uniform distribution.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The least value.
    pub low: f64,
    /// The bound above, itself never drawn.
    pub high: f64,
}

/// Parameters of a normal distribution.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Normal {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub standard_deviation: f64,
}

/// Parameters of a lognormal distribution.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lognormal {
    /// The median, greater than 0.
    pub median: f64,
    /// The standard deviation of the natural logarithm.
    pub sigma: f64,
}

/// Parameters of a triangular distribution.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Triangular {
    /// The least value.
    pub low: f64,
    /// The likeliest value.
    pub mode: f64,
    /// The greatest value.
    pub high: f64,
}

/// Values to choose from.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The values.
    pub values: Vec<Value>,
    /// How likely each is, beside the others; equally, if it is not said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
}

impl Ensemble {
    /// What cannot be, if anything.
    pub(crate) fn mistake(&self) -> Option<String> {
        if self.members == 0 || self.members > MOST_MEMBERS {
            return Some(format!("an ensemble has 1 to {MOST_MEMBERS} members, not {}", self.members));
        }
        self.sample.iter().find_map(|(operator, parameters)| {
            parameters.iter().find_map(|(name, distribution)| {
                let mistake = distribution.mistake()?;
                Some(format!("the distribution of '{name}' of {operator}: {mistake}"))
            })
        })
    }

    /// What a member draws: operator → parameter → value. `whole` says which parameters are whole numbers: those are rounded.
    pub(crate) fn draw(
        &self,
        member: u32,
        whole: &dyn Fn(&str, &str) -> bool,
    ) -> BTreeMap<String, BTreeMap<String, Value>> {
        let drawn = self.sample.iter().map(|(operator, parameters)| {
            let drawn = parameters.iter().map(|(name, distribution)| {
                let mut source = Source::new(self.seed, member, &format!("{operator}.{name}"));
                let value = distribution.draw(&mut source);
                let value = match value.as_f64() {
                    Some(number) if whole(operator, name) => json!(number.round() as i64),
                    _ => value,
                };
                (name.clone(), value)
            });
            (operator.clone(), drawn.collect())
        });
        drawn.collect()
    }

    /// The seed of a member's run; `place` counts the runs of the scenario from 1.
    pub(crate) fn run_seed(&self, member: u32, place: u32) -> u64 {
        // 48 bits: an exact number also where all numbers are floating-point ones, as in JSON.
        Source::new(self.seed, member, &format!("run {place}")).bits() >> 16
    }
}

/// Whether a parameter takes whole numbers: its default is one.
pub(crate) fn is_whole(spec: &ParameterSpec) -> bool {
    spec.default.is_i64() || spec.default.is_u64()
}

impl Distribution {
    fn mistake(&self) -> Option<String> {
        let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
        match self {
            Self::Uniform(Bounds { low, high }) if !finite(&[*low, *high]) || low > high => {
                Some(format!("low {low} and high {high} are no interval"))
            }
            Self::Normal(Normal { mean, standard_deviation: sd }) if !finite(&[*mean, *sd]) || *sd < 0.0 => {
                Some(format!("a standard deviation of {sd} about {mean} cannot be"))
            }
            Self::Lognormal(Lognormal { median, sigma })
                if !finite(&[*median, *sigma]) || *median <= 0.0 || *sigma < 0.0 =>
            {
                Some(format!("median {median} must be greater than 0 and sigma {sigma} not negative"))
            }
            Self::Triangular(Triangular { low, mode, high })
                if !finite(&[*low, *mode, *high]) || low > mode || mode > high =>
            {
                Some(format!("low {low}, mode {mode} and high {high} must be in this order"))
            }
            Self::Choice(Choice { values, .. }) if values.is_empty() => {
                Some("no values are given".to_owned())
            }
            Self::Choice(Choice { values, weights }) if !weights.is_empty() => {
                let sound = |weight: &f64| weight.is_finite() && *weight >= 0.0;
                if weights.len() != values.len() {
                    Some(format!("{} values have {} weights", values.len(), weights.len()))
                } else if !weights.iter().all(sound) || weights.iter().sum::<f64>() <= 0.0 {
                    Some("weights are not negative, and one of them is greater than 0".to_owned())
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    fn draw(&self, source: &mut Source) -> Value {
        match self {
            Self::Uniform(Bounds { low, high }) => {
                let drawn = low + (high - low) * source.uniform();
                // Rounding may reach the bound above.
                json!(if drawn < *high { drawn } else { *low })
            }
            Self::Normal(Normal { mean, standard_deviation }) => {
                json!(mean + standard_deviation * source.normal())
            }
            Self::Lognormal(Lognormal { median, sigma }) => json!(median * (sigma * source.normal()).exp()),
            Self::Triangular(Triangular { low, mode, high }) => {
                // The inverse of its distribution function: two parabolas that meet at the mode.
                let (width, at) = (high - low, source.uniform());
                let drawn = if at * width < mode - low {
                    low + (at * width * (mode - low)).sqrt()
                } else {
                    high - ((1.0 - at) * width * (high - mode)).sqrt()
                };
                json!(drawn)
            }
            Self::Choice(Choice { values, weights }) => {
                let weight = |place: usize| weights.get(place).copied().unwrap_or(1.0);
                let total: f64 = (0..values.len()).map(weight).sum();
                let mut left = source.uniform() * total;
                let chosen = (0..values.len()).find(|place| {
                    left -= weight(*place);
                    left < 0.0
                });
                // Rounding may leave a rest behind the last that can be drawn.
                let last = (0..values.len()).rev().find(|place| weight(*place) > 0.0);
                chosen.or(last).map_or(Value::Null, |place| values[place].clone())
            }
        }
    }
}

/// Uniform numbers for one name: SHA-256 of seed, member, name and a count.
struct Source {
    head: String,
    count: u32,
}

impl Source {
    fn new(seed: u64, member: u32, name: &str) -> Self {
        Self { head: format!("twinlake ensemble 1\n{seed}\n{member}\n{name}\n"), count: 0 }
    }

    fn bits(&mut self) -> u64 {
        let digest = Sha256::digest(format!("{}{}", self.head, self.count));
        self.count += 1;
        digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }

    /// Of (0, 1), neither end included.
    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Of the standard normal distribution, by Box and Muller (1958).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensemble(text: &str) -> Ensemble {
        toml::from_str(text).unwrap()
    }

    fn numbers(distribution: &str, count: u32) -> Vec<f64> {
        let ensemble = ensemble(&format!("members = 1\nseed = 3\n[sample.op]\nx = {distribution}\n"));
        assert_eq!(ensemble.mistake(), None);
        let drawn =
            (1..=count).map(|member| ensemble.draw(member, &|_, _| false)["op"]["x"].as_f64().unwrap());
        drawn.collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    fn deviation(values: &[f64]) -> f64 {
        let centre = mean(values);
        (values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn a_draw_depends_on_seed_member_and_name_alone() {
        let one = ensemble("members = 3\nseed = 7\n[sample.op]\na = { uniform = { low = 0, high = 1 } }\n");
        let more = ensemble(
            "members = 9\nseed = 7\n[sample.other]\na = { uniform = { low = 0, high = 1 } }\n\
             [sample.op]\nb = { normal = { mean = 0, standard_deviation = 1 } }\na = { uniform = { low = 0, high = 1 } }\n",
        );
        for member in [3, 1, 2] {
            assert_eq!(
                one.draw(member, &|_, _| false)["op"]["a"],
                more.draw(member, &|_, _| false)["op"]["a"]
            );
        }
        let at =
            |ensemble: &Ensemble, member| ensemble.draw(member, &|_, _| false)["op"]["a"].as_f64().unwrap();
        assert_ne!(at(&one, 1).to_bits(), at(&one, 2).to_bits());
        assert_ne!(at(&Ensemble { seed: 8, ..one.clone() }, 1).to_bits(), at(&one, 1).to_bits());
        assert_ne!(one.run_seed(1, 1), one.run_seed(1, 2));
        assert!(one.run_seed(1, 1) < 1 << 48);
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let values = numbers("{ uniform = { low = 2, high = 4 } }", 4000);
        assert!(values.iter().all(|value| (2.0..4.0).contains(value)));
        assert!((mean(&values) - 3.0).abs() < 0.03, "{}", mean(&values));
        assert!((deviation(&values) - (1.0_f64 / 3.0).sqrt()).abs() < 0.03);
        let values = numbers("{ normal = { mean = 10, standard_deviation = 2 } }", 4000);
        assert!((mean(&values) - 10.0).abs() < 0.1 && (deviation(&values) - 2.0).abs() < 0.1);
        let values = numbers("{ lognormal = { median = 5, sigma = 0.5 } }", 4000);
        let logarithms: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        assert!(
            (mean(&logarithms) - 5.0_f64.ln()).abs() < 0.03 && (deviation(&logarithms) - 0.5).abs() < 0.03
        );
        let values = numbers("{ triangular = { low = 0, mode = 1, high = 5 } }", 4000);
        assert!(values.iter().all(|value| (0.0..=5.0).contains(value)));
        assert!((mean(&values) - 2.0).abs() < 0.06, "{}", mean(&values));
        let values = numbers("{ choice = { values = [1, 2, 7], weights = [1, 0, 3] } }", 4000);
        assert!(values.iter().all(|value| [1.0, 7.0].contains(value)));
        let often = values.iter().filter(|value| **value > 2.0).count() as f64 / 4000.0;
        assert!((often - 0.75).abs() < 0.03, "{often}");
    }

    #[test]
    fn whole_numbers_stay_whole() {
        let ensemble = ensemble("members = 1\n[sample.op]\nn = { uniform = { low = 3, high = 9 } }\n");
        let drawn = ensemble.draw(1, &|operator, name| (operator, name) == ("op", "n"));
        assert!(drawn["op"]["n"].is_i64(), "{drawn:?}");
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        for (distribution, shown) in [
            ("{ uniform = { low = 2, high = 1 } }", "no interval"),
            ("{ normal = { mean = 2, standard_deviation = -1 } }", "standard deviation of -1"),
            ("{ lognormal = { median = 0, sigma = 1 } }", "median 0 must be greater than 0"),
            ("{ triangular = { low = 0, mode = 6, high = 5 } }", "in this order"),
            ("{ choice = { values = [] } }", "no values"),
            ("{ choice = { values = [1], weights = [1, 2] } }", "1 values have 2 weights"),
            ("{ choice = { values = [1], weights = [0] } }", "one of them is greater than 0"),
        ] {
            let ensemble = ensemble(&format!("members = 1\n[sample.op]\nx = {distribution}\n"));
            let mistake = ensemble.mistake().unwrap();
            assert!(mistake.contains("'x' of op") && mistake.contains(shown), "{mistake}");
        }
        assert!(ensemble("members = 0").mistake().unwrap().contains("1 to 100000 members"));
    }
}
