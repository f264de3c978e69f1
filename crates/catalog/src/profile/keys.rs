//! Candidates for keys, and rows that stand there twice, from the hashes of the first rows' values.

use std::collections::HashSet;

use arrow::datatypes::{DataType, SchemaRef};
use serde::Serialize;

use super::column::Column;
use super::mixed;

/// Of how many rows the hashes are kept.
const KEPT_ROWS: usize = 200_000;
/// How many columns are tried in pairs: those with the most different values.
const TRIED: usize = 10;
/// Fewer rows prove nothing.
const ENOUGH_ROWS: u64 = 2;

/// Columns that tell all rows looked at from each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyCandidate {
    /// The columns.
    pub columns: Vec<String>,
    /// Over how many rows that was found.
    pub rows: u64,
}

/// The hashes of the values of the first rows, a list a column.
#[derive(Default)]
pub(crate) struct RowHashes {
    columns: Vec<Vec<u64>>,
    rows: usize,
}

impl RowHashes {
    pub(crate) fn add(&mut self, hashes: &[Vec<u64>], rows: usize) {
        let take = rows.min(KEPT_ROWS - self.rows.min(KEPT_ROWS));
        self.columns.resize(hashes.len().max(self.columns.len()), Vec::new());
        for (own, added) in self.columns.iter_mut().zip(hashes) {
            own.extend_from_slice(&added[..take]);
        }
        self.rows += take;
    }

    /// The hash of some columns of a row; `None` when one of them is null and `nulls` do not count.
    fn row(&self, columns: &[usize], row: usize, nulls: bool) -> Option<u64> {
        let mut hash = 0;
        for column in columns {
            let own = self.columns[*column][row];
            if own == 0 && !nulls {
                return None;
            }
            hash = mixed(hash ^ own).wrapping_add(1);
        }
        Some(hash)
    }

    /// How many rows repeat an earlier one in these columns; a null is a value like others.
    pub(crate) fn duplicates(&self, columns: &[usize]) -> u64 {
        if columns.is_empty() {
            return 0;
        }
        let mut seen = HashSet::with_capacity(self.rows);
        (0..self.rows).filter(|row| !seen.insert(self.row(columns, *row, true))).count() as u64
    }

    fn is_key(&self, columns: &[usize]) -> bool {
        let mut seen = HashSet::with_capacity(self.rows);
        (0..self.rows).all(|row| self.row(columns, row, false).is_some_and(|hash| seen.insert(hash)))
    }

    /// Single columns, then pairs of columns of which none is a key by itself.
    pub(crate) fn keys(
        &self,
        profiles: &[Column],
        schema: &SchemaRef,
        own: &[usize],
        rows: u64,
    ) -> Vec<KeyCandidate> {
        if rows < ENOUGH_ROWS || self.columns.is_empty() {
            return Vec::new();
        }
        let candidate = |columns: &[usize]| KeyCandidate {
            columns: columns.iter().map(|at| profiles[*at].name().to_owned()).collect(),
            rows: self.rows as u64,
        };
        // Measures tell rows apart by chance, and nobody would look one up by them.
        let can_be = |at: &&usize| {
            let kind = schema.field(**at).data_type();
            profiles[**at].nulls() == 0
                && !kind.is_floating()
                && !matches!(
                    kind,
                    DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Boolean
                )
                && profiles[**at].name() != "_h3"
        };
        let usable: Vec<usize> = own.iter().filter(can_be).copied().collect();
        let (single, mut others): (Vec<usize>, Vec<usize>) = usable.into_iter().partition(|at| {
            let count = profiles[*at].distinct();
            (!count.is_exact() || count.count() == rows) && self.is_key(&[*at])
        });
        let mut keys: Vec<KeyCandidate> = single.iter().map(|at| candidate(&[*at])).collect();
        others.sort_by_key(|at| std::cmp::Reverse(profiles[*at].distinct().count()));
        others.truncate(TRIED);
        for (at, first) in others.iter().enumerate() {
            for second in &others[at + 1..] {
                let product = u128::from(profiles[*first].distinct().count())
                    * u128::from(profiles[*second].distinct().count());
                let pair = [*first.min(second), *first.max(second)];
                if product >= u128::from(rows) && self.is_key(&pair) {
                    keys.push(candidate(&pair));
                }
            }
        }
        keys
    }
}
