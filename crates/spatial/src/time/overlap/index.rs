//! Intervals in memory, asked which of them meet another one.
//!
//! Sorted by their starts, with a tree of the latest ends over them: those that begin early enough are a prefix, and the
//! tree leads to the ones among them that end late enough, without looking at the others (an interval tree as in
//! Cormen, Leiserson, Rivest and Stein, "Introduction to Algorithms", 14.3, laid out in an array). An interval whose end
//! lies before its start is as good as any other.

/// Starts and ends by number, none of them null.
#[derive(Debug)]
pub(crate) struct Intervals {
    starts: Vec<i64>,
    rows: Vec<u32>,
    /// The latest end below each node; the leaves, in the order of the starts, are the last half.
    latest: Vec<i64>,
    leaves: usize,
}

impl Intervals {
    /// From `(start, end, row)`.
    pub(crate) fn new(mut intervals: Vec<(i64, i64, u32)>) -> Self {
        intervals.sort_unstable();
        let leaves = intervals.len().next_power_of_two();
        let mut latest = vec![i64::MIN; 2 * leaves];
        for (leaf, (_, end, _)) in intervals.iter().enumerate() {
            latest[leaves + leaf] = *end;
        }
        for node in (1..leaves).rev() {
            latest[node] = latest[2 * node].max(latest[2 * node + 1]);
        }
        let starts = intervals.iter().map(|(start, ..)| *start).collect();
        let rows = intervals.iter().map(|(.., row)| *row).collect();
        Self { starts, rows, latest, leaves }
    }

    /// The rows whose start is at most `start` and whose end is at least `end`.
    pub(crate) fn meeting(&self, start: i64, end: i64, mut found: impl FnMut(u32)) {
        let count = self.starts.partition_point(|own| *own <= start);
        if count > 0 {
            self.descend(1, 0, self.leaves, count, end, &mut found);
        }
    }

    fn descend(
        &self,
        node: usize,
        from: usize,
        width: usize,
        count: usize,
        end: i64,
        found: &mut impl FnMut(u32),
    ) {
        if from >= count || self.latest[node] < end {
            return;
        }
        if width == 1 {
            found(self.rows[from]);
            return;
        }
        self.descend(2 * node, from, width / 2, count, end, found);
        self.descend(2 * node + 1, from + width / 2, width / 2, count, end, found);
    }

    pub(crate) fn size(&self) -> usize {
        (self.starts.capacity() + self.latest.capacity()) * 8 + self.rows.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_looking_at_all_finds(
            intervals in proptest::collection::vec((-20..20_i64, -20..20_i64), 0..50),
            start in -25..25_i64, end in -25..25_i64,
        ) {
            let numbered: Vec<_> = intervals.iter().enumerate().map(|(row, (s, e))| (*s, *e, row as u32)).collect();
            let mut found = Vec::new();
            Intervals::new(numbered.clone()).meeting(start, end, |row| found.push(row));
            found.sort_unstable();
            let expected: Vec<u32> =
                numbered.iter().filter(|(s, e, _)| *s <= start && *e >= end).map(|(.., row)| *row).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
