//! `drift`: a figure of a table, compared with what it was: with the mean of earlier results, or with a stretch of time.

use twinlake_contracts::{Error, Result, TableName};
use twinlake_query::Session;

use crate::result::QualityResult;
use crate::rows::Rows;
use crate::rule::{QualityRule, Reference, Statistic, quoted, quoted_table, text};

/// With how many earlier results a figure is compared when the rule does not say.
const EARLIER_RUNS: usize = 10;
/// By which part a figure may differ when the rule does not say.
const TOLERANCE: f64 = 0.2;
/// How many parts a distribution is cut into.
const PARTS: usize = 10;
/// A part that holds nothing counts as this much, so that its logarithm exists.
const LEAST_PART: f64 = 1e-4;

/// The expression of a figure.
fn figure(statistic: Statistic, column: Option<&str>) -> String {
    let column = column.map(quoted).unwrap_or_default();
    let number = format!("CAST({column} AS DOUBLE)");
    match statistic {
        Statistic::Rows => "CAST(count(*) AS DOUBLE)".to_owned(),
        Statistic::NullFraction => {
            format!("CASE WHEN count(*) = 0 THEN 0 ELSE 1 - CAST(count({column}) AS DOUBLE) / count(*) END")
        }
        Statistic::Distinct => format!("CAST(approx_distinct({column}) AS DOUBLE)"),
        Statistic::Mean | Statistic::Distribution => format!("avg({number})"),
        Statistic::Median => format!("approx_median({number})"),
        Statistic::StandardDeviation => format!("stddev_samp({number})"),
        Statistic::Min => format!("min({number})"),
        Statistic::Max => format!("max({number})"),
    }
}

/// Judges the rule over a table.
pub(crate) async fn judge(session: &Session, table: &TableName, rule: &QualityRule) -> Result<QualityResult> {
    let tolerance = rule.tolerance.unwrap_or(TOLERANCE);
    let relation = quoted_table(table);
    let about = |error: Error| {
        Error::config(format!(
            "the quality rule '{}' of table {table} cannot be judged: {error}",
            rule.label()
        ))
    };
    match &rule.reference {
        Some(reference) if rule.statistic() == Statistic::Distribution => {
            let column = rule.column.as_deref().unwrap_or_default();
            let found = distribution(session, &relation, column, reference).await.map_err(about)?;
            let (index, rows) = found;
            let mut result = QualityResult::new(table, rule, rows, 0);
            result.value = index;
            result.threshold = Some(tolerance);
            result.passed = index.is_none_or(|index| index <= tolerance);
            result.detail = match index {
                None => {
                    "there is nothing to compare: one of the two stretches of time has no values".to_owned()
                }
                Some(index) if !result.passed => {
                    format!("population stability index {index:.3}, allowed is {tolerance}")
                }
                Some(_) => String::new(),
            };
            Ok(result)
        }
        Some(reference) => {
            let what = figure(rule.statistic(), rule.column.as_deref());
            let (within, after) = stretches(reference);
            let sql = |condition: &str| {
                format!("SELECT {what} AS figure, count(*) AS n FROM {relation} WHERE {condition}")
            };
            let then = Rows::one(&session.collect(&sql(&within)).await.map_err(about)?)?;
            let now = Rows::one(&session.collect(&sql(&after)).await.map_err(about)?)?;
            let earlier = then.integer("n").filter(|n| *n > 0).and_then(|_| then.number("figure"));
            let value = now.integer("n").filter(|n| *n > 0).and_then(|_| now.number("figure"));
            Ok(compared(table, rule, now.integer("n").unwrap_or(0), value, earlier, tolerance))
        }
        None => {
            let what = figure(rule.statistic(), rule.column.as_deref());
            let sql = format!("SELECT {what} AS figure, count(*) AS n FROM {relation}");
            let now = Rows::one(&session.collect(&sql).await.map_err(about)?)?;
            let count = rule.earlier_runs.unwrap_or(EARLIER_RUNS);
            // Results that did not hold are no measure for the next ones.
            let earlier = format!(
                "SELECT avg(value) AS figure FROM (SELECT value FROM meta.quality WHERE table_name = {} AND rule = {} \
                 AND passed AND value IS NOT NULL ORDER BY checked_at DESC LIMIT {count}) AS earlier",
                text(&table.to_string()),
                text(&rule.label())
            );
            let earlier = Rows::one(&session.collect(&earlier).await?)?.number("figure");
            Ok(compared(table, rule, now.integer("n").unwrap_or(0), now.number("figure"), earlier, tolerance))
        }
    }
}

/// The conditions of the reference and of what comes after it.
fn stretches(reference: &Reference) -> (String, String) {
    let time = quoted(&reference.time);
    let instant = |when: &str| format!("CAST({} AS TIMESTAMP(6) WITH TIME ZONE)", text(when));
    (
        format!("{time} >= {} AND {time} < {}", instant(&reference.from), instant(&reference.to)),
        format!("{time} >= {}", instant(&reference.to)),
    )
}

fn compared(
    table: &TableName,
    rule: &QualityRule,
    rows: i64,
    value: Option<f64>,
    earlier: Option<f64>,
    tolerance: f64,
) -> QualityResult {
    let mut result = QualityResult::new(table, rule, rows, 0);
    result.value = value;
    result.threshold = earlier;
    let name = rule.statistic().name();
    match (value, earlier) {
        (_, None) => "nothing earlier to compare with".clone_into(&mut result.detail),
        (None, Some(earlier)) => {
            result.passed = false;
            result.detail = format!("{name} has no value, before it was {earlier:.6}");
        }
        (Some(value), Some(earlier)) => {
            let allowed = tolerance * earlier.abs();
            result.passed = (value - earlier).abs() <= allowed.max(f64::EPSILON);
            if !result.passed {
                result.detail =
                    format!("{name} is {value:.6}, before it was {earlier:.6} (± {allowed:.6} allowed)");
            }
        }
    }
    result
}

/// The population stability index of a column after the reference against it, over the reference's deciles, and how many
/// rows came after. Values equal to a cut belong to the part below it.
async fn distribution(
    session: &Session,
    relation: &str,
    column: &str,
    reference: &Reference,
) -> Result<(Option<f64>, i64)> {
    let (within, after) = stretches(reference);
    let number = format!("CAST({} AS DOUBLE)", quoted(column));
    let cuts: Vec<String> = (1..PARTS)
        .map(|part| format!("approx_percentile_cont({number}, {}) AS cut{part}", part as f64 / PARTS as f64))
        .collect();
    let row = Rows::one(
        &session.collect(&format!("SELECT {} FROM {relation} WHERE {within}", cuts.join(", "))).await?,
    )?;
    let mut cuts: Vec<f64> = (1..PARTS).filter_map(|part| row.number(&format!("cut{part}"))).collect();
    cuts.dedup();
    let bounds: Vec<(Option<f64>, Option<f64>)> = (0..=cuts.len())
        .map(|part| (part.checked_sub(1).map(|below| cuts[below]), cuts.get(part).copied()))
        .collect();
    let inside = |(low, high): &(Option<f64>, Option<f64>)| {
        let low = low.map(|low| format!("{number} > {low:e}"));
        let high = high.map(|high| format!("{number} <= {high:e}"));
        let both: Vec<String> = low.into_iter().chain(high).collect();
        if both.is_empty() { format!("{number} IS NOT NULL") } else { both.join(" AND ") }
    };
    let counts: Vec<String> = bounds
        .iter()
        .enumerate()
        .map(|(part, bound)| format!("count(*) FILTER (WHERE {}) AS part{part}", inside(bound)))
        .collect();
    let parts = |row: &crate::rows::Row| -> Vec<f64> {
        (0..bounds.len()).map(|part| row.integer(&format!("part{part}")).unwrap_or(0) as f64).collect()
    };
    let ask = |condition: &str| {
        format!("SELECT count(*) AS n, {} FROM {relation} WHERE {condition}", counts.join(", "))
    };
    let then = Rows::one(&session.collect(&ask(&within)).await?)?;
    let now = Rows::one(&session.collect(&ask(&after)).await?)?;
    Ok((stability(&parts(&then), &parts(&now)), now.integer("n").unwrap_or(0)))
}

/// `Σ (p − q) · ln(p / q)` over the parts; `None` when one of the two is empty.
fn stability(then: &[f64], now: &[f64]) -> Option<f64> {
    let (then_sum, now_sum) = (then.iter().sum::<f64>(), now.iter().sum::<f64>());
    if then_sum == 0.0 || now_sum == 0.0 {
        return None;
    }
    let index = then.iter().zip(now).map(|(then, now)| {
        let p = (now / now_sum).max(LEAST_PART);
        let q = (then / then_sum).max(LEAST_PART);
        (p - q) * (p / q).ln()
    });
    Some(index.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stability_index_is_zero_for_equal_shares_and_grows() {
        assert_eq!(stability(&[10.0, 10.0], &[3.0, 3.0]), Some(0.0));
        // By hand: (0.75 − 0.5) ln 1.5 + (0.25 − 0.5) ln 0.5 = 0.274653.
        let index = stability(&[10.0, 10.0], &[30.0, 10.0]).unwrap();
        assert!((index - 0.274_653).abs() < 1e-6, "{index}");
        assert_eq!(stability(&[0.0], &[1.0]), None);
        assert!(stability(&[10.0, 0.0], &[0.0, 10.0]).unwrap() > 5.0);
    }
}
