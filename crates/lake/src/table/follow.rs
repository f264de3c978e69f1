//! Following a table: what it holds now, then each change, in the order in which queries see them.
//!
//! What a follower has put together from the snapshot and the changes that it has taken is what a query sees at that
//! moment: both happen behind the lock that readers take. Rows of this process are told when they become visible, not
//! again when they are committed; rows of other processes when this one notices their version (at the latest when the
//! table is asked). Compaction moves rows and is not told. Where rows go, or columns change, a follower is told to begin
//! anew: it follows again.

use std::collections::HashSet;
use std::sync::{Arc, mpsc};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use deltalake_core::kernel::Add;
use deltalake_core::table::state::DeltaTableState;
use tokio::sync::Notify;
use twinlake_contracts::Result;

use super::provider::SnapshotTable;
use super::{LakeTable, Readable, files};

/// What happened to a table.
#[derive(Debug)]
pub enum TableChange {
    /// Rows came, with the columns that the table had then.
    Rows(RecordBatch),
    /// Rows came in files, by another process: [`LakeTable::read_added`] reads them.
    Files(AddedFiles),
    /// Rows went, or the columns changed: nothing more is told.
    Anew,
}

/// Files that were added.
#[derive(Debug)]
pub struct AddedFiles(Vec<Add>);

impl AddedFiles {
    pub(super) fn new(files: Vec<Add>) -> Self {
        Self(files)
    }

    /// Each file alone, so that what is read at a time is bounded.
    pub fn one_by_one(self) -> impl Iterator<Item = Self> + Send {
        self.0.into_iter().map(|add| Self(vec![add]))
    }
}

/// Told of changes.
pub(super) struct Follower {
    changes: mpsc::Sender<TableChange>,
    woken: Arc<Notify>,
}

/// The table as it is, and what happens to it from then on.
pub struct Following {
    /// The rows at the moment when following began.
    pub snapshot: Arc<dyn TableProvider>,
    /// Those of them that wait for their commit.
    pub fresh: Vec<RecordBatch>,
    changes: mpsc::Receiver<TableChange>,
    woken: Arc<Notify>,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").finish_non_exhaustive()
    }
}

impl Following {
    /// The next change that has happened, without waiting.
    pub fn next(&self) -> Option<TableChange> {
        self.changes.try_recv().ok()
    }

    /// Wakes up when something may have happened.
    pub fn woken(&self) -> Arc<Notify> {
        Arc::clone(&self.woken)
    }
}

fn tell(followers: &mut Vec<Follower>, change: impl Fn() -> TableChange) {
    followers.retain(|follower| {
        let there = follower.changes.send(change()).is_ok();
        follower.woken.notify_one();
        there
    });
}

impl Readable {
    /// Tells of rows that have become visible.
    pub(super) fn tell_rows(&mut self, rows: &RecordBatch) {
        tell(&mut self.followers, || TableChange::Rows(rows.clone()));
    }

    /// Tells that what was told holds no more.
    pub(super) fn tell_anew(&mut self) {
        tell(&mut self.followers, || TableChange::Anew);
        self.followers.clear();
    }

    /// Tells what a new version changes. `known` are files whose rows were told before; `moved` says that the version holds
    /// the same rows as the one before, in other files.
    pub(super) fn tell_version(
        &mut self,
        next: &DeltaTableState,
        columns: &SchemaRef,
        known: &HashSet<String>,
        moved: bool,
    ) {
        if self.followers.is_empty() {
            return;
        }
        let paths = |state: &DeltaTableState| -> HashSet<String> {
            state.log_data().iter().map(|file| file.path().into_owned()).collect()
        };
        let (before, after) = (paths(&self.state), paths(next));
        let anew = !moved && before.iter().any(|path| !after.contains(path));
        if anew || *columns != self.schema {
            self.tell_anew();
            return;
        }
        let is_new = |path: &str| !moved && !before.contains(path) && !known.contains(path);
        let added: Vec<Add> = next
            .log_data()
            .iter()
            .filter(|file| is_new(file.path().as_ref()))
            .map(|file| files::entry(&file))
            .collect();
        if !added.is_empty() {
            tell(&mut self.followers, || TableChange::Files(AddedFiles(added.clone())));
        }
    }
}

impl LakeTable {
    /// Begins to follow the table.
    pub async fn follow(&self) -> Result<Following> {
        {
            let mut side = self.write_side.lock().await;
            self.look_for_news(&mut side).await?;
        }
        let (sender, changes) = mpsc::channel();
        let woken = Arc::new(Notify::new());
        let mut readable = self.readable_mut();
        let shown = readable.fresh.iter().filter(|(writer, _)| !readable.replacers.contains(*writer));
        let fresh: Vec<RecordBatch> = shown.flat_map(|(_, fresh)| fresh.batches.iter().cloned()).collect();
        let snapshot = Arc::new(SnapshotTable {
            schema: Arc::clone(&readable.schema),
            version: readable.state.version(),
            committed: Arc::clone(&readable.committed),
            fresh: fresh.clone(),
        });
        readable.followers.push(Follower { changes: sender, woken: Arc::clone(&woken) });
        Ok(Following { snapshot, fresh, changes, woken })
    }

    /// The rows of files that were added.
    pub async fn read_added(&self, added: &AddedFiles) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for add in &added.0 {
            files::refuse_deletion_vector(&self.system, add)?;
            rows.extend(self.rows_of(add).await?);
        }
        Ok(rows)
    }

    /// Takes over versions that other processes wrote, unless a commit runs; those who follow are told.
    pub async fn look(&self) -> Result<()> {
        if let Some(mut side) = self.write_side_unless_committing().await {
            self.look_for_news(&mut side).await?;
        }
        Ok(())
    }
}
