//! A sketch of many numbers that gives quantiles within a relative error and merges without loss.
//!
//! DDSketch (Masson, Rim and Lee: "DDSketch: A fast and fully-mergeable quantile sketch with relative-error
//! guarantees", VLDB 2019): a value `x > 0` is counted in the bucket `⌈log_γ x⌉` with `γ = (1 + α) / (1 − α)`, and a
//! bucket `i` stands for `2 γ^i / (γ + 1)`, which is no further than the share `α` from anything in it. Negative
//! values have buckets of their own, zero a counter. No bucket is ever collapsed: with `α` = 1 % the whole range of a
//! float takes 71,000 buckets, real data a few hundred.

use std::collections::BTreeMap;

/// The relative error when nothing is said.
pub(crate) const DEFAULT_ERROR: f64 = 0.01;
/// What the encoding begins with: two letters and its version.
const HEAD: [u8; 3] = *b"DD\x01";

/// Counts by bucket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sketch {
    error: f64,
    log_gamma: f64,
    zero: u64,
    positive: BTreeMap<i32, u64>,
    negative: BTreeMap<i32, u64>,
}

impl Sketch {
    /// An empty sketch; `None` when the relative error is not between 0.0001 and 0.5.
    pub(crate) fn new(error: f64) -> Option<Self> {
        let log_gamma = ((1.0 + error) / (1.0 - error)).ln();
        (0.0001..=0.5).contains(&error).then(|| Self {
            error,
            log_gamma,
            zero: 0,
            positive: BTreeMap::new(),
            negative: BTreeMap::new(),
        })
    }

    /// Counts a value; what is not finite does not count.
    pub(crate) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let size = value.abs();
        if size < f64::MIN_POSITIVE {
            self.zero += 1;
            return;
        }
        let bucket = (size.ln() / self.log_gamma).ceil() as i32;
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        *side.entry(bucket).or_default() += 1;
    }

    /// Counts what another sketch counted. `false`, and nothing done, when its error is another one.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        if self.error.to_bits() != other.error.to_bits() {
            return false;
        }
        self.zero += other.zero;
        for (bucket, count) in &other.positive {
            *self.positive.entry(*bucket).or_default() += count;
        }
        for (bucket, count) in &other.negative {
            *self.negative.entry(*bucket).or_default() += count;
        }
        true
    }

    /// How many values were counted.
    pub(crate) fn count(&self) -> u64 {
        self.zero + self.positive.values().sum::<u64>() + self.negative.values().sum::<u64>()
    }

    /// The value below which the share `quantile` (0 to 1) of the values lie, of rank `quantile (n − 1)`; `None` when
    /// there is none.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (quantile * (count - 1) as f64) as u64;
        let middle = |bucket: i32| {
            let gamma = self.log_gamma.exp();
            (self.log_gamma * f64::from(bucket)).exp() * 2.0 / (gamma + 1.0)
        };
        let mut below = 0;
        for (bucket, count) in self.negative.iter().rev() {
            below += count;
            if below > rank {
                return Some(-middle(*bucket));
            }
        }
        below += self.zero;
        if below > rank {
            return Some(0.0);
        }
        for (bucket, count) in &self.positive {
            below += count;
            if below > rank {
                return Some(middle(*bucket));
            }
        }
        None
    }

    /// Bytes of memory, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + (self.positive.len() + self.negative.len()) * 24
    }

    /// The same sketch gives the same bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        bytes.extend(self.error.to_le_bytes());
        put(&mut bytes, self.zero);
        for side in [&self.positive, &self.negative] {
            put(&mut bytes, side.len() as u64);
            let mut before = 0;
            for (bucket, count) in side {
                let step = i64::from(*bucket) - before;
                before = i64::from(*bucket);
                // Zigzag: small steps of either sign are small numbers.
                put(&mut bytes, ((step << 1) ^ (step >> 63)).cast_unsigned());
                put(&mut bytes, *count);
            }
        }
        bytes
    }

    /// Reads what [`Sketch::encode`] wrote; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes.strip_prefix(&HEAD)?;
        let (error, after) = rest.split_first_chunk::<8>()?;
        *rest = after;
        let mut sketch = Self::new(f64::from_le_bytes(*error))?;
        sketch.zero = get(rest)?;
        for side in [&mut sketch.positive, &mut sketch.negative] {
            let mut before = 0_i64;
            for _ in 0..get(rest)? {
                let step = get(rest)?;
                before = before.checked_add((step >> 1).cast_signed() ^ -(step & 1).cast_signed())?;
                side.insert(i32::try_from(before).ok()?, get(rest)?);
            }
        }
        rest.is_empty().then_some(sketch)
    }
}

/// LEB128: seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn get(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64], error: f64) -> Sketch {
        let mut sketch = Sketch::new(error).unwrap();
        for value in values {
            sketch.add(*value);
        }
        sketch
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![-1e3..1e3_f64, Just(0.0), 1e-9..1e9_f64, Just(1e-300), Just(-1e300)]
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_error(
            mut values in proptest::collection::vec(value(), 1..200), share in 0.0..=1.0_f64,
        ) {
            let found = of(&values, 0.01).quantile(share).unwrap();
            values.sort_by(f64::total_cmp);
            let exact = values[(share * (values.len() - 1) as f64) as usize];
            prop_assert!((found - exact).abs() <= exact.abs() * 0.010_001, "{} for {}", found, exact);
        }

        #[test]
        fn a_merge_is_the_sketch_of_the_union_and_bytes_read_back(
            left in proptest::collection::vec(value(), 0..100), right in proptest::collection::vec(value(), 0..100),
        ) {
            let mut merged = of(&left, 0.02);
            prop_assert!(merged.merge(&of(&right, 0.02)));
            let union = of(&[left, right].concat(), 0.02);
            prop_assert_eq!(&merged, &union);
            prop_assert_eq!(Sketch::decode(&merged.encode()), Some(union));
        }

        #[test]
        fn damage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            Sketch::decode(&bytes);
            Sketch::decode(&[&HEAD[..], &0.01_f64.to_le_bytes(), &bytes].concat());
        }
    }

    #[test]
    fn edges() {
        assert_eq!(of(&[], 0.01).quantile(0.5), None);
        assert_eq!(of(&[f64::NAN, f64::INFINITY], 0.01).count(), 0);
        assert_eq!(of(&[0.0, -0.0], 0.01).quantile(1.0), Some(0.0));
        assert!(Sketch::new(0.0).is_none() && Sketch::new(f64::NAN).is_none());
        assert!(!of(&[], 0.01).merge(&of(&[], 0.02)));
    }
}
