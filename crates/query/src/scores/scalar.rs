//! `geh`, `crps` and `crps_fair`: scores of one pair.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The functions.
pub(super) fn all() -> impl Iterator<Item = ScalarUDF> {
    [Kind::Geh, Kind::Crps, Kind::FairCrps].into_iter().map(|kind| {
        ScalarUDF::from(Score { kind, signature: Signature::user_defined(Volatility::Immutable) })
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Geh,
    Crps,
    FairCrps,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Score {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Score {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Geh => "geh",
            Kind::Crps => "crps",
            Kind::FairCrps => "crps_fair",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let number = |kind: &DataType| kind.is_numeric() || kind.is_null();
        let list = || DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        match (self.kind, given) {
            (Kind::Geh, [one, other]) if number(one) && number(other) => Ok(vec![DataType::Float64; 2]),
            (Kind::Geh, _) => plan_err!("geh takes two flows in vehicles an hour: geh(modelled, counted)"),
            (_, [members, observed]) if number(observed) => match members {
                DataType::List(of)
                | DataType::LargeList(of)
                | DataType::FixedSizeList(of, _)
                | DataType::ListView(of)
                    if number(of.data_type()) =>
                {
                    Ok(vec![list(), DataType::Float64])
                }
                DataType::Null => Ok(vec![list(), DataType::Float64]),
                other => plan_err!("{}: the members are a list of numbers, not {other}", self.name()),
            },
            _ => plan_err!(
                "{0} takes a list of members and what was observed: {0}(array_agg(flow), 17.5)",
                self.name()
            ),
        }
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [one, observed] = arrays.as_slice() else { return exec_err!("{} takes two values", self.name()) };
        let observed = observed.as_primitive::<Float64Type>();
        let scores: Float64Array = match self.kind {
            Kind::Geh => {
                let modelled = one.as_primitive::<Float64Type>();
                let pairs = modelled.iter().zip(observed);
                pairs
                    .map(|(modelled, counted)| modelled.zip(counted).map(|(m, c)| geh(m, c)).transpose())
                    .collect::<Result<_>>()?
            }
            kind => {
                let members = one.as_list::<i32>();
                let score = |row: usize| -> Result<Option<f64>> {
                    if members.is_null(row) || observed.is_null(row) {
                        return Ok(None);
                    }
                    let values: ArrayRef = cast(&members.value(row), &DataType::Float64)?;
                    let mut values: Vec<f64> =
                        values.as_primitive::<Float64Type>().iter().flatten().collect();
                    Ok(crps(&mut values, observed.value(row), kind == Kind::FairCrps))
                };
                (0..observed.len()).map(score).collect::<Result<_>>()?
            }
        };
        Ok(ColumnarValue::Array(Arc::new(scores)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        None
    }
}

/// √(2 (m − c)² / (m + c)), G. E. Havers' statistic as the UK's Design Manual for Roads and Bridges (volume 12, section 2) has it, of
/// flows in vehicles an hour: below 5 is a good fit. Two empty roads agree.
fn geh(modelled: f64, counted: f64) -> Result<f64> {
    if modelled < 0.0 || counted < 0.0 {
        return exec_err!("geh: flows are not negative, but {modelled} and {counted} were given");
    }
    if modelled + counted == 0.0 {
        return Ok(0.0);
    }
    Ok((2.0 * (modelled - counted).powi(2) / (modelled + counted)).sqrt())
}

/// E|X − o| − ½ E|X − X′| (Gneiting and Raftery 2007, equation 21), where both expectations are over the members as they are. `fair`
/// divides the second by n (n − 1) in place of n² (Ferro 2014): so ensembles of different sizes can be compared; one member has none.
fn crps(members: &mut [f64], observed: f64, fair: bool) -> Option<f64> {
    let count = members.len() as f64;
    if members.is_empty() || (fair && members.len() == 1) {
        return None;
    }
    members.sort_by(f64::total_cmp);
    let error: f64 = members.iter().map(|member| (member - observed).abs()).sum::<f64>() / count;
    // The sum of |xi - xj| over all ordered pairs, from the sorted values.
    let spread: f64 = (1..)
        .zip(members.iter())
        .map(|(place, member)| (2.0 * f64::from(place) - count - 1.0) * member)
        .sum();
    let pairs = if fair { count * (count - 1.0) } else { count * count };
    Some(error - spread / pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionSettings;
    use crate::testing::{engine, lines};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn scores_of_single_pairs() {
        let (_folder, engine) = engine().await;
        let session = engine.session(SessionSettings::default()).unwrap();
        for (call, expected) in [
            // 2 · 100² / 900, of which the root.
            ("geh(500, 400)", "4.714045207910317"),
            ("geh(0, 0.0)", "0.0"),
            ("geh(50.0, 0)", "10.0"),
            ("geh(NULL, 3)", ""),
            // One member: the absolute error. Two, one of them right: 1/2 - 1/2 · 1/2, and fair 1/2 - 1/2.
            ("crps([2], 5)", "3.0"),
            ("crps_fair([2], 5)", ""),
            ("crps([0, 1], 0)", "0.25"),
            ("crps_fair([0, 1], 0)", "0.0"),
            // Mean error 2, mean of all 9 differences 12/9·... : 2 - 1/2 · 16/9.
            ("crps([1.0, 3.0, 5.0], 6.0) - (3.0 - 8.0 / 9.0)", "0.0"),
            ("crps_fair([1.0, 3.0, 5.0], 6.0) - (3.0 - 4.0 / 3.0)", "0.0"),
            ("crps([1, NULL], 2)", "1.0"),
            ("crps(NULL, 2)", ""),
        ] {
            let answer = session.collect(&format!("SELECT {call}")).await.unwrap();
            assert_eq!(lines(&answer), expected, "{call}");
        }
        let members = "SELECT crps(array_agg(x), 1.0) FROM (VALUES (0.0), (1.0), (2.0), (3.0)) AS t(x)";
        // Mean error (1 + 0 + 1 + 2) / 4, differences 20 / 16: 1 - 0.625.
        assert_eq!(lines(&session.collect(members).await.unwrap()), "0.375");
        for (call, shown) in [
            ("geh(-1, 3)", "flows are not negative"),
            ("geh('a', 3)", "geh takes two flows"),
            ("crps(3, 3)", "a list of numbers"),
            ("crps([3])", "crps takes a list of members"),
        ] {
            let error = session.collect(&format!("SELECT {call}")).await.unwrap_err().to_string();
            assert!(error.contains(shown), "{call}: {error}");
        }
    }

    #[test]
    fn the_score_of_an_ensemble_is_the_area_between_two_steps() {
        // The integral of (F(x) - 1{x ≥ o})² over x (equation 20), computed piece by piece.
        let members = [0.5, 2.0, 2.5, 7.0, -1.0];
        for observed in [-3.0, 0.0, 2.0, 2.2, 9.0] {
            let mut ends: Vec<f64> = members.iter().copied().chain([observed]).collect();
            ends.sort_by(f64::total_cmp);
            let area: f64 = ends
                .windows(2)
                .map(|piece| {
                    let below = members.iter().filter(|member| **member <= piece[0]).count() as f64 / 5.0;
                    let step = if piece[0] >= observed { 1.0 } else { 0.0 };
                    (below - step) * (below - step) * (piece[1] - piece[0])
                })
                .sum();
            let score = crps(&mut members.clone(), observed, false).unwrap();
            assert!((score - area).abs() < 1e-12, "{observed}: {score} {area}");
        }
    }
}
