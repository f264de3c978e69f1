//! Compaction: many small files become few, their rows clustered in space and time; no row changes.
//!
//! Files are joined per writer, since a file belongs to one, in the order of their least event time (without one, of their
//! writing), so that a joined file covers a short span of time; within it rows lie by H3 cell and time
//! ([`files::write`]). Each join is a commit of its own that says `dataChange = false`: streams that follow the table
//! see no new rows. Other commits may come between: a join starts again when one of its files has gone.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deltalake_core::kernel::{Action, Add};
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::state::DeltaTableState;
use serde::Serialize;
use twinlake_contracts::Result;

use super::change::{Change, Changed};
use super::{LakeTable, files};
use crate::error;

/// When files are joined, and how far.
#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// Files are joined to about this size.
    pub target_bytes: u64,
    /// The most rows of a joined file: what is held in memory at a time.
    pub most_rows: u64,
    /// As many small files of one writer are left alone.
    pub leave_files: usize,
}

impl Default for CompactOptions {
    /// 64 MiB, 4 million rows, one file.
    fn default() -> Self {
        Self { target_bytes: 64 << 20, most_rows: 4_000_000, leave_files: 1 }
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// The table's version after it.
    pub version: u64,
    /// Commits that it took.
    pub commits: u64,
    /// Files that went, and their size.
    pub files_before: u64,
    /// Their size in bytes.
    pub bytes_before: u64,
    /// Files that took their place.
    pub files_after: u64,
    /// Their size in bytes.
    pub bytes_after: u64,
}

/// One join on its way.
struct Join {
    options: CompactOptions,
    /// The files that are joined, and those that take their place.
    made: Option<(Vec<Add>, Vec<Add>)>,
}

#[async_trait]
impl Change for Join {
    fn same_rows(&self) -> bool {
        true
    }

    fn operation(&self) -> DeltaOperation {
        let target_size = i64::try_from(self.options.target_bytes).unwrap_or(i64::MAX);
        DeltaOperation::Optimize { predicate: None, target_size }
    }

    async fn actions(&mut self, table: &LakeTable, state: &DeltaTableState) -> Result<Vec<Action>> {
        let present: Vec<Add> = state.log_data().iter().map(|file| files::entry(&file)).collect();
        if let Some((old, new)) = self.made.take() {
            let still = |add: &Add| present.iter().any(|other| other.path == add.path);
            if old.iter().all(still) {
                self.made = Some((old, new));
            } else {
                table.delete_unused(&new).await;
            }
        }
        if self.made.is_none() {
            let Some((writer, old)) = choose(present, &self.options) else { return Ok(Vec::new()) };
            let mut rows = Vec::new();
            for add in &old {
                rows.extend(table.rows_of(add).await?);
            }
            let (_, schema) = table.committed_state();
            let store = table.log_store.object_store(None);
            let written = files::write(store, state, schema, rows, &writer).await;
            let new = written.map_err(|error| error::delta(&table.system, &error))?;
            self.made = Some((old, new));
        }
        let Some((old, new)) = &self.made else { return Ok(Vec::new()) };
        let added = new.iter().map(|add| Action::Add(Add { data_change: false, ..add.clone() }));
        Ok(old.iter().map(|add| Action::Remove(files::remove(add, false))).chain(added).collect())
    }
}

/// The next files to be joined, with their writer; none when there are few small ones.
fn choose(present: Vec<Add>, options: &CompactOptions) -> Option<(String, Vec<Add>)> {
    let mut by_writer: BTreeMap<String, Vec<Add>> = BTreeMap::new();
    for add in present {
        let bytes = u64::try_from(add.size).unwrap_or_default();
        // Half full is full enough: a file is not joined again and again.
        let small = bytes < options.target_bytes / 2;
        let whole = add.deletion_vector.is_none();
        if let Some(writer) = files::writer_of(&add).filter(|_| small && whole) {
            by_writer.entry(writer.to_owned()).or_default().push(add);
        }
    }
    by_writer.into_iter().find_map(|(writer, mut small)| {
        if small.len() <= options.leave_files.max(1) {
            return None;
        }
        small.sort_by_cached_key(|add| {
            let written_us = add.modification_time.saturating_mul(1000);
            (files::least_time_us(add).unwrap_or(written_us), add.path.clone())
        });
        // From the first on that fits together with its neighbour.
        let fitting = |start: usize| {
            let (mut bytes, mut rows) = (0, 0);
            let fits = small[start..].iter().take_while(|add| {
                bytes += u64::try_from(add.size).unwrap_or_default();
                rows += files::row_count(add).unwrap_or_default();
                bytes <= options.target_bytes && rows <= options.most_rows
            });
            fits.count()
        };
        let (start, count) =
            (0..small.len()).map(|start| (start, fitting(start))).find(|(_, count)| *count >= 2)?;
        Some((writer, small.drain(start..start + count).collect()))
    })
}

impl LakeTable {
    /// Joins small files until none are left to join.
    pub async fn compact(&self, options: CompactOptions) -> Result<Compacted> {
        let mut total = Compacted::default();
        loop {
            let mut join = Join { options, made: None };
            let changed = self.change(&mut join).await;
            let made = join.made.take();
            let bytes = |adds: &[Add]| {
                adds.iter().map(|add| u64::try_from(add.size).unwrap_or_default()).sum::<u64>()
            };
            match changed {
                Ok(Changed::Committed { version, .. }) => {
                    let (old, new) = made.unwrap_or_default();
                    total.version = version;
                    total.commits += 1;
                    total.files_before += old.len() as u64;
                    total.bytes_before += bytes(&old);
                    total.files_after += new.len() as u64;
                    total.bytes_after += bytes(&new);
                }
                Ok(Changed::Nothing { version }) => {
                    total.version = version;
                    return Ok(total);
                }
                // It may have reached storage all the same: what was written stays for a vacuum.
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(path: &str, writer: &str, bytes: i64, least: &str) -> Add {
        Add {
            path: path.to_owned(),
            size: bytes,
            tags: Some([(files::WRITER_TAG.to_owned(), Some(writer.to_owned()))].into()),
            stats: Some(format!(r#"{{"numRecords":10,"minValues":{{"ts":"{least}"}},"maxValues":{{}}}}"#)),
            ..Add::default()
        }
    }

    #[test]
    fn neighbours_in_time_of_one_writer_are_joined_up_to_the_size() {
        let options = CompactOptions { target_bytes: 100, ..CompactOptions::default() };
        let files = vec![
            add("late", "p/a", 30, "2018-10-09T05:00:00.000Z"),
            add("other", "p/b", 10, "2018-10-09T04:00:00.000Z"),
            add("early", "p/a", 40, "2018-10-09T04:00:00.000Z"),
            add("middle", "p/a", 45, "2018-10-09T04:30:00.000Z"),
            add("large", "p/a", 60, "2018-10-09T04:10:00.000Z"),
        ];
        let (writer, chosen) = choose(files.clone(), &options).unwrap();
        let paths: Vec<&str> = chosen.iter().map(|add| add.path.as_str()).collect();
        assert_eq!((writer.as_str(), paths.as_slice()), ("p/a", &["early", "middle"][..]));
        assert!(choose(files, &CompactOptions { leave_files: 3, ..options }).is_none());
        let alone =
            vec![add("one", "p/a", 1, ""), Add { path: "foreign".to_owned(), size: 1, ..Add::default() }];
        assert!(choose(alone, &options).is_none(), "files of others are left alone");
    }
}
