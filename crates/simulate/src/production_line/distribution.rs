//! How long something takes: distributions on the non-negative numbers, in seconds.

use super::streams::Stream;

/// A distribution with its parameters, valid by construction (see `Times`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Distribution {
    /// Always the same.
    Constant { value: f64 },
    /// Memoryless.
    Exponential { mean: f64 },
    /// Every value from `min` to `max` alike.
    Uniform { min: f64, max: f64 },
    /// Rises from `min` to `mode`, falls to `max`.
    Triangular { min: f64, mode: f64, max: f64 },
    /// The logarithm is normal with mean `location` and standard deviation `scale`.
    LogNormal { location: f64, scale: f64 },
    /// Gamma with that shape and scale; Erlang where the shape is whole.
    Gamma { shape: f64, scale: f64 },
    /// Weibull with that shape and scale.
    Weibull { shape: f64, scale: f64 },
}

impl Distribution {
    /// Log-normal with that mean and standard deviation, both positive.
    pub(super) fn log_normal(mean: f64, deviation: f64) -> Self {
        let variance = (deviation / mean).powi(2).ln_1p();
        Self::LogNormal { location: mean.ln() - 0.5 * variance, scale: variance.sqrt() }
    }

    /// Gamma with that mean and standard deviation, both positive.
    pub(super) fn gamma(mean: f64, deviation: f64) -> Self {
        let shape = (mean / deviation).powi(2);
        Self::Gamma { shape, scale: mean / shape }
    }

    /// Weibull with that mean and shape, both positive.
    pub(super) fn weibull(mean: f64, shape: f64) -> Self {
        Self::Weibull { shape, scale: mean / (ln_gamma(1.0 + 1.0 / shape)).exp() }
    }

    /// Seconds.
    pub(super) fn mean(&self) -> f64 {
        match *self {
            Self::Constant { value } => value,
            Self::Exponential { mean } => mean,
            Self::Uniform { min, max } => 0.5 * (min + max),
            Self::Triangular { min, mode, max } => (min + mode + max) / 3.0,
            Self::LogNormal { location, scale } => (location + 0.5 * scale * scale).exp(),
            Self::Gamma { shape, scale } => shape * scale,
            Self::Weibull { shape, scale } => scale * ln_gamma(1.0 + 1.0 / shape).exp(),
        }
    }

    /// One draw, seconds.
    #[inline]
    pub(super) fn draw(&self, stream: &mut Stream) -> f64 {
        match *self {
            Self::Constant { value } => value,
            Self::Exponential { mean } => mean * stream.exponential(),
            Self::Uniform { min, max } => min + (max - min) * stream.uniform(),
            Self::Triangular { min, mode, max } => {
                let (uniform, width) = (stream.uniform(), max - min);
                if uniform * width < mode - min {
                    min + (uniform * width * (mode - min)).sqrt()
                } else {
                    max - ((1.0 - uniform) * width * (max - mode)).sqrt()
                }
            }
            Self::LogNormal { location, scale } => (location + scale * stream.normal()).exp(),
            Self::Gamma { shape, scale } => scale * standard_gamma(shape, stream),
            Self::Weibull { shape, scale } => scale * stream.exponential().powf(1.0 / shape),
        }
    }
}

/// Gamma with scale 1 by squeeze and rejection (Marsaglia, Tsang 2000, ACM TOMS 26(3)).
fn standard_gamma(shape: f64, stream: &mut Stream) -> f64 {
    if shape < 1.0 {
        let uniform = stream.uniform();
        return standard_gamma(shape + 1.0, stream) * uniform.powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let normal = stream.normal();
        let cube = (1.0 + c * normal).powi(3);
        let uniform = stream.uniform();
        if cube > 0.0 && uniform.ln() < 0.5 * normal * normal + d * (1.0 - cube + cube.ln()) {
            return d * cube;
        }
    }
}

/// The logarithm of the gamma function for positive arguments (Lanczos 1964, g = 7, nine terms).
fn ln_gamma(x: f64) -> f64 {
    const FIRST: f64 = 0.999_999_999_999_809_9;
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // The reflection formula: gamma(x) gamma(1 - x) = pi / sin(pi x).
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = TERMS.iter().enumerate().fold(FIRST, |sum, (at, term)| sum + term / (x + at as f64 + 1.0));
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_gamma_at_known_points() {
        for (x, gamma) in
            [(0.5, std::f64::consts::PI.sqrt()), (1.0, 1.0), (5.0, 24.0), (1.5, 0.886_226_925_452_758)]
        {
            assert!((ln_gamma(x) - f64::ln(gamma)).abs() < 1e-13, "{x}");
        }
    }

    #[test]
    fn draws_have_the_mean_and_deviation_asked_for() {
        let cases = [
            (Distribution::Constant { value: 3.0 }, 3.0, 0.0),
            (Distribution::Exponential { mean: 2.0 }, 2.0, 2.0),
            (Distribution::Uniform { min: 1.0, max: 4.0 }, 2.5, 3.0 / 12_f64.sqrt()),
            (Distribution::Triangular { min: 1.0, mode: 2.0, max: 6.0 }, 3.0, (21.0_f64 / 18.0).sqrt()),
            (Distribution::log_normal(5.0, 2.0), 5.0, 2.0),
            (Distribution::gamma(5.0, 8.0), 5.0, 8.0),
            (Distribution::gamma(5.0, 2.0), 5.0, 2.0),
            (Distribution::weibull(10.0, 2.0), 10.0, 10.0 * (4.0 / std::f64::consts::PI - 1.0).sqrt()),
        ];
        let draws = 400_000;
        for (distribution, mean, deviation) in cases {
            assert!(
                (distribution.mean() - mean).abs() < 1e-12 * mean,
                "{distribution:?}: {}",
                distribution.mean()
            );
            let mut stream = Stream::new(11, 0, "machine", "process");
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..draws {
                let value = distribution.draw(&mut stream);
                assert!(value >= 0.0, "{distribution:?}");
                sum += value;
                squares += (value - mean).powi(2);
            }
            let found = sum / f64::from(draws);
            let standard_error = deviation / f64::from(draws).sqrt();
            assert!((found - mean).abs() <= 4.0 * standard_error + 1e-12, "{distribution:?}: {found}");
            let spread = (squares / f64::from(draws)).sqrt();
            assert!((spread - deviation).abs() <= 0.02 * deviation, "{distribution:?}: {spread}");
        }
    }
}
