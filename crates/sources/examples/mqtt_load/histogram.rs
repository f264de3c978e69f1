//! Latencies in buckets that are at most 3 % wide.

/// Sub-buckets of each power of two.
const PARTS: usize = 32;

/// Counts of microseconds.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; 64 * PARTS], total: 0, longest: 0 }
    }

    pub fn record(&mut self, micros: u64) {
        let index = if micros < PARTS as u64 {
            micros as usize
        } else {
            let power = 63 - micros.leading_zeros() as usize;
            (power - 4) * PARTS + ((micros >> (power - 5)) as usize - PARTS)
        };
        self.counts[index] += 1;
        self.total += 1;
        self.longest = self.longest.max(micros);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The upper edge of the bucket that holds this share of all, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                let micros = if index < PARTS {
                    index as u64
                } else {
                    ((index % PARTS + PARTS + 1) as u64) << (index / PARTS - 1)
                };
                return micros.min(self.longest) as f64 / 1000.0;
            }
        }
        self.longest as f64 / 1000.0
    }
}
