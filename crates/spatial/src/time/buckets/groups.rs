//! Numbers for pairs of a key and a bucket.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use datafusion::common::{Result, exec_err};

use crate::time::keys::Keys;

/// Marks a pair that was not met, and a bucket that is not set.
const NONE: u32 = u32::MAX;
/// The tables may always have this many places, however few groups there are.
const FREE_PLACES: usize = 1 << 20;
/// And this many for each group; beyond, a hash of the pairs takes less memory.
const PLACES_A_GROUP: usize = 8;

/// Numbers pairs 0, 1, 2 … in the order in which they are met.
pub(crate) struct Groups {
    keys: Keys,
    /// The numbers of the buckets.
    buckets: HashMap<Option<i64>, u32>,
    starts: Vec<Option<i64>>,
    index: Index,
    /// The key and the bucket of each group.
    pairs: Vec<(u32, u32)>,
    numbers: Vec<usize>,
}

enum Index {
    /// For each bucket, the group of each key.
    Dense { tables: Vec<Vec<u32>>, places: usize },
    /// For keys that have few of the buckets.
    Sparse(HashMap<(u32, u32), u32>),
}

impl Groups {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            buckets: HashMap::new(),
            starts: Vec::new(),
            index: Index::Dense { tables: Vec::new(), places: 0 },
            pairs: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Bytes held, about.
    pub(crate) fn size(&self) -> usize {
        let index = match &self.index {
            Index::Dense { places, .. } => places * size_of::<u32>(),
            Index::Sparse(pairs) => pairs.capacity() * (size_of::<((u32, u32), u32)>() + 1),
        };
        self.keys.size()
            + index
            + self.pairs.capacity() * size_of::<(u32, u32)>()
            + self.starts.capacity() * 48
            + self.numbers.capacity() * size_of::<usize>()
    }

    /// Puts the number of each row's pair into `groups`.
    pub(crate) fn number(
        &mut self,
        keys: &[ArrayRef],
        buckets: &TimestampMicrosecondArray,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        let mut numbers = std::mem::take(&mut self.numbers);
        self.keys.number(keys, buckets.len(), &mut numbers)?;
        if self.pairs.len() + numbers.len() >= NONE as usize {
            return exec_err!("more than {NONE} groups of a key and a bucket");
        }
        groups.clear();
        groups.reserve(numbers.len());
        let mut from = 0;
        while from < numbers.len() {
            let start = buckets.is_valid(from).then(|| buckets.value(from));
            let to = (from + 1..numbers.len())
                .find(|row| buckets.is_valid(*row).then(|| buckets.value(*row)) != start)
                .unwrap_or(numbers.len());
            self.number_run(start, &numbers[from..to], groups);
            from = to;
        }
        self.numbers = numbers;
        if let Index::Dense { places, .. } = self.index
            && places > FREE_PLACES + PLACES_A_GROUP * self.pairs.len()
        {
            let pairs = self.pairs.iter().enumerate();
            self.index = Index::Sparse(pairs.map(|(group, pair)| (*pair, group as u32)).collect());
        }
        Ok(())
    }

    /// Neighbours of one bucket.
    fn number_run(&mut self, start: Option<i64>, numbers: &[usize], groups: &mut Vec<usize>) {
        let bucket = *self.buckets.entry(start).or_insert_with(|| {
            self.starts.push(start);
            (self.starts.len() - 1) as u32
        });
        match &mut self.index {
            Index::Dense { tables, places } => {
                if tables.len() <= bucket as usize {
                    tables.resize(bucket as usize + 1, Vec::new());
                }
                let table = &mut tables[bucket as usize];
                let keys = self.keys.len().max(numbers.iter().max().map_or(0, |most| most + 1));
                if table.len() < keys {
                    *places += keys - table.len();
                    table.resize(keys, NONE);
                }
                for &number in numbers {
                    let group = &mut table[number];
                    if *group == NONE {
                        *group = self.pairs.len() as u32;
                        self.pairs.push((number as u32, bucket));
                    }
                    groups.push(*group as usize);
                }
            }
            Index::Sparse(index) => groups.extend(numbers.iter().map(|number| {
                let pair = (*number as u32, bucket);
                let group = *index.entry(pair).or_insert(self.pairs.len() as u32);
                if group as usize == self.pairs.len() {
                    self.pairs.push(pair);
                }
                group as usize
            })),
        }
    }

    /// All pairs as they were met, and the columns of the keys.
    pub(crate) fn into_pairs(self) -> Result<Pairs> {
        let key_count = self.keys.len();
        Ok(Pairs { key_count, keys: self.keys.columns()?, starts: self.starts, each: self.pairs })
    }
}

/// What [`Groups`] has numbered.
pub(crate) struct Pairs {
    key_count: usize,
    /// The columns of the different keys.
    pub(crate) keys: Vec<ArrayRef>,
    starts: Vec<Option<i64>>,
    each: Vec<(u32, u32)>,
}

impl Pairs {
    /// The key of each group.
    pub(crate) fn owners(&self) -> impl ExactSizeIterator<Item = u32> {
        self.each.iter().map(|(key, _)| *key)
    }

    /// The bucket of a group.
    pub(crate) fn start(&self, group: usize) -> Option<i64> {
        self.starts[self.each[group].1 as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.each.len()
    }

    /// The groups by key, and by time within a key, and where each key's begin.
    pub(crate) fn by_key_and_time(&self) -> (Vec<usize>, Vec<u32>) {
        let mut ranks: Vec<u32> = (0..self.starts.len() as u32).collect();
        ranks.sort_unstable_by_key(|bucket| self.starts[*bucket as usize]);
        let mut rank = vec![0; ranks.len()];
        for (place, bucket) in ranks.iter().enumerate() {
            rank[*bucket as usize] = place;
        }
        // Two counting sorts, the later one keeping the order of the one before.
        let in_time = scatter(
            (0..self.each.len()).map(|group| (rank[self.each[group].1 as usize], group as u32)),
            self.starts.len(),
        );
        let by_key = in_time.1.into_iter().map(|group| (self.each[group as usize].0 as usize, group));
        scatter(by_key, self.key_count)
    }
}

/// Sorts values by small numbers, and tells where each number's values begin.
fn scatter(values: impl Iterator<Item = (usize, u32)> + Clone, numbers: usize) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; numbers + 1];
    for (number, _) in values.clone() {
        starts[number + 1] += 1;
    }
    for number in 0..numbers {
        starts[number + 1] += starts[number];
    }
    let mut next = starts.clone();
    let mut sorted = vec![0; starts[numbers]];
    for (number, value) in values {
        sorted[next[number]] = value;
        next[number] += 1;
    }
    (starts, sorted)
}
