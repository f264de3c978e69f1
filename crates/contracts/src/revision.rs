//! Rows of past messages exchanged for others: what reprocessing asks of tables.

use serde::{Deserialize, Serialize};

/// A set of log sequences, kept as ascending ranges that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences {
    ranges: Vec<(u64, u64)>,
}

impl Sequences {
    /// Adds a sequence that is not below any that is in the set.
    pub fn push(&mut self, sequence: u64) {
        match self.ranges.last_mut() {
            Some((_, last)) if sequence <= last.saturating_add(1) => *last = (*last).max(sequence),
            _ => self.ranges.push((sequence, sequence)),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The lowest.
    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|(first, _)| *first)
    }

    /// The highest.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|(_, last)| *last)
    }

    /// The ranges, ascending, both ends included.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Those from `first` to `last`.
    #[must_use]
    pub fn within(&self, first: u64, last: u64) -> Self {
        let cut = self.ranges.iter().map(|(start, end)| (*start.max(&first), *end.min(&last)));
        Self { ranges: cut.filter(|(start, end)| start <= end).collect() }
    }

    /// Whether a sequence is in the set.
    pub fn contains(&self, sequence: u64) -> bool {
        self.meets(sequence, sequence)
    }

    /// Whether any sequence from `first` to `last` is in the set.
    pub fn meets(&self, first: u64, last: u64) -> bool {
        let after = self.ranges.partition_point(|(_, end)| *end < first);
        self.ranges.get(after).is_some_and(|(start, _)| *start <= last)
    }
}

impl FromIterator<u64> for Sequences {
    /// The sequences in ascending order.
    fn from_iter<T: IntoIterator<Item = u64>>(sequences: T) -> Self {
        let mut all: Vec<u64> = sequences.into_iter().collect();
        all.sort_unstable();
        let mut set = Self::default();
        for sequence in all {
            set.push(sequence);
        }
        set
    }
}

/// A data file that lies beside a table and belongs to it only when a commit names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// How many rows it has.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// What the table needs to take it over; means nothing to anybody else.
    pub entry: String,
}

/// Rows of one writer that are to take the place of others.
#[derive(Debug, Clone)]
pub struct Revision<'a> {
    /// The writer whose rows are exchanged; those of others stay.
    pub writer: &'a str,
    /// The messages whose rows go.
    pub gone: &'a Sequences,
    /// The rows that come.
    pub come: &'a [StagedFile],
    /// Names the exchange: made twice, it happens once.
    pub key: &'a str,
}

/// What an exchange did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Revised {
    /// The table's version that has the new rows; the present one when nothing changed.
    pub version: u64,
    /// Data files that went or were written anew.
    pub files: u64,
    /// Rows that went.
    pub rows_gone: u64,
    /// Rows that came.
    pub rows_come: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_are_found() {
        let set: Sequences = [3, 1, 2, 7, 9, 8, 20, 7].into_iter().collect();
        assert_eq!(set.ranges(), [(1, 3), (7, 9), (20, 20)]);
        assert_eq!((set.count(), set.first(), set.last()), (7, Some(1), Some(20)));
        let found: Vec<u64> = (0..25).filter(|sequence| set.contains(*sequence)).collect();
        assert_eq!(found, [1, 2, 3, 7, 8, 9, 20]);
        assert!(set.meets(4, 7) && set.meets(0, u64::MAX) && !set.meets(4, 6) && !set.meets(21, 99));
        assert_eq!(set.within(2, 8).ranges(), [(2, 3), (7, 8)]);
        assert!(set.within(4, 6).is_empty());
        assert!(Sequences::default().is_empty() && !Sequences::default().contains(0));
    }
}
