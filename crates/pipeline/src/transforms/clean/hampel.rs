//! The Hampel identifier: `|x − m| > n_sigma · 1.4826 · MAD`, with the median `m` of the neighbouring values and
//! `MAD = median |xᵢ − m|` (Hampel 1974; Davies & Gather 1993; as a filter of time series: Pearson 2002).
//! `1.4826 = 1 / Φ⁻¹(3/4)` makes the MAD of normally distributed values their standard deviation.

use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result};

use super::work::Action;

/// `1 / Φ⁻¹(3/4)`.
const CONSISTENCY: f64 = 1.4826;
/// The widest window.
const MOST: usize = 10_000;

/// What makes a value a spike.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SpikeSettings {
    /// How many values before this one it is compared with (and with `centred` as many rows after it). Rows of the same
    /// `key`, in the order in which they come.
    pub window: usize,
    /// How many standard deviations, estimated by 1.4826 · MAD, a value may lie from the median (default 3).
    #[serde(default = "three")]
    pub n_sigma: f64,
    /// Deviations up to this are never spikes, in the column's unit (default 0). Without it, after equal values any
    /// change is a spike, since their MAD is 0.
    #[serde(default)]
    pub min_deviation: f64,
    /// With fewer neighbouring values than this a value is not judged (default: `window`).
    pub min_values: Option<usize>,
    /// Compare with the rows after it too: a row is held back until `window` further rows of its `key` have come, or the
    /// input has ended (default false).
    #[serde(default)]
    pub centred: bool,
    /// What becomes of a row with a spike (default `reject`).
    #[serde(default)]
    pub action: Action,
}

fn three() -> f64 {
    3.0
}

impl SpikeSettings {
    pub fn check(&self, column: &str) -> Result<()> {
        if !(2..=MOST).contains(&self.window) {
            return Err(Error::config(format!("'window' of '{column}' is not a number from 2 to {MOST}"))
                .with_help("window = 7 compares with the seven values before"));
        }
        if !(self.n_sigma.is_finite() && self.n_sigma > 0.0) {
            return Err(Error::config(format!("'n_sigma' of '{column}' is not a number above 0"))
                .with_help("n_sigma = 3"));
        }
        if !(self.min_deviation.is_finite() && self.min_deviation >= 0.0) {
            return Err(Error::config(format!("'min_deviation' of '{column}' is not a number from 0 on")));
        }
        let most = if self.centred { 2 * self.window } else { self.window };
        if self.min_values.is_some_and(|least| least < 2 || least > most) {
            return Err(Error::config(format!(
                "'min_values' of '{column}' is not a number from 2 to {most}"
            ))
            .with_help("so many neighbouring values there are at most"));
        }
        Ok(())
    }

    /// Judges `value` among its neighbours; says why it is a spike. The order of `neighbours` is lost.
    pub fn spike(&self, column: &str, value: f64, neighbours: &mut [f64]) -> Option<String> {
        if neighbours.len() < self.min_values.unwrap_or(self.window) {
            return None;
        }
        let middle = median(neighbours)?;
        for neighbour in neighbours.iter_mut() {
            *neighbour = (*neighbour - middle).abs();
        }
        let sigma = CONSISTENCY * median(neighbours)?;
        let deviation = (value - middle).abs();
        (deviation > self.n_sigma * sigma && deviation > self.min_deviation).then(|| {
            format!("{column} = {value} lies {deviation} from the median {middle}, with sigma {sigma}")
        })
    }
}

/// The median of finite values; of an even number the mean of the two in the middle.
fn median(values: &mut [f64]) -> Option<f64> {
    let half = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let upper = *upper;
    if !even {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(lower / 2.0 + upper / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(window: usize) -> SpikeSettings {
        serde_json::from_value(serde_json::json!({ "window": window })).unwrap()
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&mut [f64::MAX, f64::MAX]), Some(f64::MAX), "no overflow");
    }

    #[test]
    fn the_bound_is_three_times_the_scaled_median_deviation() {
        // Median 3, MAD 1: the bound is 3 · 1.4826 = 4.4478.
        let neighbours = || vec![1.0, 2.0, 3.0, 4.0, 5.0];
        let own = settings(5);
        assert_eq!(own.spike("x", 7.4, &mut neighbours()), None);
        assert!(own.spike("x", 7.5, &mut neighbours()).is_some());
        assert!(own.spike("x", -1.5, &mut neighbours()).is_some());
        assert_eq!(own.spike("x", 99.0, &mut [1.0, 2.0]), None, "too few neighbours");
        assert!(own.spike("x", 1.1, &mut [1.0; 5]).is_some(), "the MAD of equal values is 0");
        let wider = SpikeSettings { min_deviation: 0.2, ..settings(5) };
        assert_eq!(wider.spike("x", 1.1, &mut [1.0; 5]), None);
    }
}
