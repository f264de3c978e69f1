//! What came into a table since one of its versions, from its log: for those who keep what they have made of a version.
//!
//! A commit that changes data adds files with new rows. One that says `dataChange = false` (compaction) puts the rows of old files
//! into new ones: where any of the old ones had rows that are new since then, the new ones are counted as new as a whole. So rows
//! that were known may be told again, and none that is new is left out. Where rows went, or a commit has been cleaned away,
//! nothing can be told.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::get_actions;
use twinlake_contracts::Result;

use super::follow::AddedFiles;
use super::provider::SnapshotTable;
use super::{LakeTable, files};
use crate::error;

/// So many commits are read; beyond, whoever asks is told to begin anew.
const MOST_COMMITS: u64 = 10_000;

impl LakeTable {
    /// The committed rows, without fresh ones, and the version that they are of.
    pub async fn committed_rows(&self) -> Result<(u64, Arc<dyn TableProvider>)> {
        self.look().await?;
        let readable = self.readable();
        let version = readable.state.version();
        let snapshot = SnapshotTable {
            schema: Arc::clone(&readable.schema),
            version,
            committed: Arc::clone(&readable.committed),
            fresh: Vec::new(),
        };
        Ok((version, Arc::new(snapshot)))
    }

    /// The files with all rows that came after a version, and the version up to which they are told; `None` when rows went since
    /// then, or nobody knows any more.
    pub async fn since(&self, version: u64) -> Result<Option<(u64, AddedFiles)>> {
        self.look().await?;
        let state = self.readable().state.clone();
        let upto = state.version();
        if version > upto || upto - version > MOST_COMMITS {
            return Ok(None);
        }
        let mut new: HashSet<String> = HashSet::new();
        for commit in version + 1..=upto {
            let entry = self.log_store.read_commit_entry(commit).await;
            let Some(entry) = entry.map_err(|error| error::delta(&self.system, &error))? else {
                return Ok(None);
            };
            let actions = get_actions(commit, &entry).map_err(|error| error::delta(&self.system, &error))?;
            let (mut gone, mut moved) = (HashSet::new(), Vec::new());
            for action in actions {
                match action {
                    Action::Remove(remove) if remove.data_change => return Ok(None),
                    Action::Remove(remove) => drop(gone.insert(remove.path)),
                    Action::Add(add) if add.data_change => drop(new.insert(add.path)),
                    Action::Add(add) => moved.push(add.path),
                    _ => {}
                }
            }
            let before = new.len();
            new.retain(|path| !gone.contains(path));
            if new.len() < before {
                new.extend(moved);
            }
        }
        let there = state.log_data();
        let added =
            there.iter().filter(|file| new.contains(file.path().as_ref())).map(|file| files::entry(&file));
        Ok(Some((upto, AddedFiles::new(added.collect()))))
    }
}
