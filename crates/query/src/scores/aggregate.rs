//! `rmse`, `mae`, `bias`: means over pairs of what was said and what was observed.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};

#[derive(Debug, Clone, Copy)]
enum Mean {
    /// Of the squares, and the root of it.
    Square,
    /// Of the absolute differences.
    Absolute,
    /// Of the differences.
    Signed,
}

const SCORES: [(&str, Mean); 3] = [("rmse", Mean::Square), ("mae", Mean::Absolute), ("bias", Mean::Signed)];

/// The three aggregates.
pub(super) fn all() -> impl Iterator<Item = AggregateUDF> {
    SCORES.into_iter().map(|(name, mean)| {
        let make = move |arguments: AccumulatorArgs<'_>| -> Result<Box<dyn Accumulator>> {
            if arguments.is_distinct {
                return exec_err!("{name} takes all pairs, not the distinct ones");
            }
            Ok(Box::new(Score { mean, pairs: 0, sum: 0.0 }))
        };
        create_udaf(
            name,
            vec![DataType::Float64, DataType::Float64],
            Arc::new(DataType::Float64),
            Volatility::Immutable,
            Arc::new(make),
            Arc::new(vec![DataType::UInt64, DataType::Float64]),
        )
    })
}

/// Of all pairs so far.
#[derive(Debug)]
struct Score {
    mean: Mean,
    pairs: u64,
    sum: f64,
}

impl Accumulator for Score {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [predicted, observed] = values else { return exec_err!("a score takes two values") };
        let (predicted, observed) =
            (predicted.as_primitive::<Float64Type>(), observed.as_primitive::<Float64Type>());
        for (predicted, observed) in predicted.iter().zip(observed) {
            let (Some(predicted), Some(observed)) = (predicted, observed) else { continue };
            let difference = predicted - observed;
            self.pairs += 1;
            self.sum += match self.mean {
                Mean::Square => difference * difference,
                Mean::Absolute => difference.abs(),
                Mean::Signed => difference,
            };
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [pairs, sums] = states else { return exec_err!("a score has two states") };
        self.pairs += pairs.as_primitive::<UInt64Type>().iter().flatten().sum::<u64>();
        self.sum += sums.as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.pairs.into(), self.sum.into()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.pairs == 0 {
            return Ok(ScalarValue::Float64(None));
        }
        let mean = self.sum / self.pairs as f64;
        Ok(ScalarValue::Float64(Some(if matches!(self.mean, Mean::Square) { mean.sqrt() } else { mean })))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::SessionSettings;
    use crate::testing::{engine, lines};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn means_over_pairs() {
        let (_folder, engine) = engine().await;
        let session = engine.session(SessionSettings::default()).unwrap();
        let scores = "rmse(p, o), mae(p, o), bias(p, o)";
        for (rows, expected) in [
            ("(1.0, 1.0), (2.0, 4.0), (7.0, 6.0), (5.0, 2.0)", "1.8708286933869707|1.5|0.5"),
            ("(1, 4), (4, 8), (NULL, 3), (3, NULL)", "3.5355339059327378|3.5|-3.5"),
            ("(CAST(NULL AS DOUBLE), 1.0)", "||"),
        ] {
            let sql = format!("SELECT {scores} FROM (VALUES {rows}) AS t(p, o)");
            assert_eq!(lines(&session.collect(&sql).await.unwrap()), expected, "{sql}");
        }
        // In groups and over many partitions.
        let grouped = "SELECT g, rmse(p, o), bias(p, o) FROM (SELECT i % 2 AS g, i AS p, i - 3 * (1 - i % 2) AS o \
                       FROM generate_series(0, 99999) AS s(i)) GROUP BY g ORDER BY g";
        assert_eq!(lines(&session.collect(grouped).await.unwrap()), "0|3.0|3.0\n1|0.0|0.0");
    }
}
