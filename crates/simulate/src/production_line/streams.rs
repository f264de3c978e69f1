//! Random numbers: one independent stream for each replication, element and purpose.
//!
//! A stream's state is derived from the seed, the replication, the *name* of the element and the purpose, and from
//! nothing else. So a line with another machine, or with another time at one machine, draws the same numbers
//! everywhere else: two lines are compared on common random numbers (Law 2015, Simulation Modeling and Analysis,
//! section 11.2). The generator is xoshiro256++ (Blackman, Vigna 2021), its state filled by splitmix64 (Steele, Lea,
//! Flood 2014).

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    state: [u64; 4],
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Stream {
    /// The stream of that element and purpose in that replication.
    pub(super) fn new(seed: u64, replication: u64, element: &str, purpose: &str) -> Self {
        let mut key = seed;
        let mut state = splitmix(&mut key) ^ replication.wrapping_mul(0xd134_2543_de82_ef95);
        for part in [element, purpose] {
            for byte in part.bytes() {
                state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                state = splitmix(&mut state);
            }
            // The end of a name counts, or 'ab' + 'c' would be 'a' + 'bc'.
            state ^= 0xff;
            state = splitmix(&mut state);
        }
        Self { state: [0; 4].map(|_: u64| splitmix(&mut state)) }
    }

    #[inline]
    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform on the open interval (0, 1): never 0, so that its logarithm is finite.
    #[inline]
    pub(super) fn uniform(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) * (1.0 / (1_u64 << 52) as f64)
    }

    /// Exponential with mean 1.
    #[inline]
    pub(super) fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// Standard normal, by the polar method (Marsaglia, Bray 1964). The second number of a pair is thrown away, so
    /// that a stream has no state but the generator's.
    pub(super) fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_their_key_and_repeat() {
        let first = |seed, replication, element: &str, purpose: &str| {
            Stream::new(seed, replication, element, purpose).next()
        };
        let base = first(1, 0, "press", "process");
        assert_eq!(base, first(1, 0, "press", "process"));
        for other in [
            first(2, 0, "press", "process"),
            first(1, 1, "press", "process"),
            first(1, 0, "presses", "process"),
            first(1, 0, "press", "repair"),
            first(1, 0, "pressp", "rocess"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut stream = Stream::new(7, 3, "a", "b");
        let draws = 1_000_000;
        let mut sums = [0.0; 6];
        for _ in 0..draws {
            for (at, value) in
                [stream.uniform(), stream.exponential(), stream.normal()].into_iter().enumerate()
            {
                sums[2 * at] += value;
                sums[2 * at + 1] += value * value;
            }
        }
        // Mean and mean square, each with its variance over one draw.
        let expected =
            [(0.5, 1.0 / 12.0), (1.0 / 3.0, 4.0 / 45.0), (1.0, 1.0), (2.0, 20.0), (0.0, 1.0), (1.0, 2.0)];
        for (sum, (mean, variance)) in sums.iter().zip(expected) {
            let error = (sum / f64::from(draws) - mean) / (variance / f64::from(draws)).sqrt();
            assert!(error.abs() < 4.0, "{error} standard errors from {mean}");
        }
    }
}
