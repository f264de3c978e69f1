//! From a figure of each replication (or batch) to a mean with its confidence interval.

/// A mean with its standard error and the half-width of its confidence interval; both are NaN below two samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Estimate {
    pub(super) mean: f64,
    pub(super) standard_error: f64,
    pub(super) half_width: f64,
}

impl Estimate {
    /// Of independent samples, alike in distribution: Student's interval (Student 1908). Replications are independent;
    /// batches of one long run are nearly so when they are long (batch means: Schmeiser 1982, Operations Research 30,
    /// 10 to 30 batches).
    pub(super) fn of(samples: &[f64], confidence: f64) -> Self {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        if samples.len() < 2 {
            return Self { mean, standard_error: f64::NAN, half_width: f64::NAN };
        }
        let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let standard_error = (variance / count).sqrt();
        Self {
            mean,
            standard_error,
            half_width: student_quantile(confidence, samples.len() - 1) * standard_error,
        }
    }
}

/// The `t` with `P(-t <= T <= t) = confidence`, for `T` of Student's distribution with that many degrees of freedom.
fn student_quantile(confidence: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while central(high, freedom) < confidence && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if central(middle, freedom) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// `P(-t <= T <= t)` (Abramowitz, Stegun 1964, 26.7.3 and 26.7.4).
fn central(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let cosine = angle.cos();
    let series = |first: f64, from: usize| {
        let (mut term, mut sum, mut k) = (first, first, from);
        while k + 2 <= freedom {
            term *= cosine * cosine * (k as f64 - 1.0) / k as f64;
            sum += term;
            k += 2;
        }
        sum
    };
    if freedom % 2 == 1 {
        let tail = if freedom == 1 { 0.0 } else { angle.sin() * series(cosine, 3) };
        (angle + tail) * std::f64::consts::FRAC_2_PI
    } else {
        angle.sin() * series(1.0, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, t) in [(1, 12.706_205), (2, 4.302_653), (3, 3.182_446), (9, 2.262_157), (29, 2.045_230)]
        {
            let found = student_quantile(0.95, freedom);
            assert!((found - t).abs() < 2e-6, "{freedom}: {found}");
        }
    }

    #[test]
    fn mean_and_interval_of_three() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0], 0.95);
        assert_eq!(estimate.mean, 2.0);
        assert!((estimate.standard_error - (1.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!((estimate.half_width - 4.302_653 * estimate.standard_error).abs() < 1e-6);
        assert!(Estimate::of(&[1.0], 0.95).half_width.is_nan());
    }
}
