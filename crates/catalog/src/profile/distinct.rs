//! How many different values there are: exactly for few, estimated for many.

use std::collections::HashSet;

/// Up to here values are counted exactly.
const EXACT: usize = 65_536;
/// The number of registers is two to this power: a standard error of 0.8 %.
const PRECISION: u32 = 14;

/// Counts distinct values by their hashes (Flajolet, Fusy, Gandouet, Meunier 2007: HyperLogLog; linear counting for few).
#[derive(Debug, Clone)]
pub(crate) struct Distinct {
    seen: Option<HashSet<u64>>,
    registers: Vec<u8>,
}

impl Default for Distinct {
    fn default() -> Self {
        Self { seen: Some(HashSet::new()), registers: vec![0; 1 << PRECISION] }
    }
}

impl Distinct {
    /// Takes a value; says whether it is new, as long as they are counted exactly.
    pub(crate) fn add(&mut self, hash: u64) -> bool {
        let at = (hash >> (64 - PRECISION)) as usize;
        let rank = (hash << PRECISION).leading_zeros().min(64 - PRECISION) as u8 + 1;
        self.registers[at] = self.registers[at].max(rank);
        let Some(seen) = &mut self.seen else { return false };
        let new = seen.insert(hash);
        if seen.len() > EXACT {
            self.seen = None;
        }
        new
    }

    /// Whether the count is exact.
    pub(crate) fn is_exact(&self) -> bool {
        self.seen.is_some()
    }

    /// The number of distinct values.
    pub(crate) fn count(&self) -> u64 {
        if let Some(seen) = &self.seen {
            return seen.len() as u64;
        }
        let m = self.registers.len() as f64;
        let alpha = 0.7213 / (1.0 + 1.079 / m);
        let sum: f64 = self.registers.iter().map(|rank| 2f64.powi(-i32::from(*rank))).sum();
        let raw = alpha * m * m / sum;
        let empty = self.registers.iter().map(|rank| usize::from(*rank == 0)).sum::<usize>();
        let estimate = if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::hash_of;

    #[test]
    fn few_are_counted_and_many_estimated() {
        let mut few = Distinct::default();
        for n in 0..1000u64 {
            few.add(hash_of(&(n % 100)));
        }
        assert_eq!((few.count(), few.is_exact()), (100, true));
        let mut many = Distinct::default();
        for n in 0..300_000u64 {
            many.add(hash_of(&n));
        }
        let error = (many.count() as f64 - 300_000.0).abs() / 300_000.0;
        assert!(!many.is_exact() && error < 0.03, "{error}");
    }
}
