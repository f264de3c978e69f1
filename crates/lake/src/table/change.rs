//! Commits that depend on what the table holds: made anew from the newest version until one is first.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use deltalake_core::kernel::Action;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::state::DeltaTableState;
use twinlake_contracts::{Error, Result};

use super::LakeTable;
use super::commit::{Committing, lost_the_race};
use crate::error;

/// How often a change is tried against other writers of the table.
const ATTEMPTS: u32 = 30;

/// What has become of a change.
pub(super) enum Changed {
    /// It is this version, and these are the files that it added.
    Committed { version: u64, added: HashSet<String> },
    /// There was nothing to do.
    Nothing { version: u64 },
}

impl Changed {
    /// The files that the table has got.
    pub(super) fn files(&self) -> HashSet<String> {
        match self {
            Self::Committed { added, .. } => added.clone(),
            Self::Nothing { .. } => HashSet::new(),
        }
    }
}

/// A change of a table that depends on what it holds.
#[async_trait]
pub(super) trait Change: Send {
    /// What the table's history says of it.
    fn operation(&self) -> DeltaOperation;

    /// Whether it moves rows and changes none.
    fn same_rows(&self) -> bool {
        false
    }

    /// What the commit carries beside its actions.
    fn properties(&self) -> CommitProperties {
        CommitProperties::default()
    }

    /// What is to be done to the table as it is; asked again when another commit was first. Nothing is committed when
    /// there is nothing to do.
    async fn actions(&mut self, table: &LakeTable, state: &DeltaTableState) -> Result<Vec<Action>>;
}

impl LakeTable {
    /// Commits a change. While it makes its actions the table can be written by others of this process; only the commit
    /// itself keeps them waiting.
    pub(super) async fn change(&self, change: &mut dyn Change) -> Result<Changed> {
        let failed = |error: &deltalake_core::DeltaTableError| error::delta(&self.system, error);
        for attempt in 1..=ATTEMPTS {
            let state = {
                let mut side = self.write_side.lock().await;
                self.look_for_news(&mut side).await?;
                side.table.snapshot().map_err(|error| failed(&error))?.clone()
            };
            let actions = change.actions(self, &state).await?;
            if actions.is_empty() {
                return Ok(Changed::Nothing { version: state.version() });
            }
            let added = actions.iter().filter_map(|action| match action {
                Action::Add(add) => Some(add.path.clone()),
                _ => None,
            });
            let added: HashSet<String> = added.collect();
            let mut side = self.write_side.lock().await;
            let committing = Committing::start(&self.committing);
            let first = side.in_doubt.is_none() && side.table.version() == Some(state.version());
            if first {
                // The library's own attempts take a compaction for no conflict, which would double the rows it moved.
                let properties =
                    change.properties().with_max_retries(0).with_cleanup_expired_logs(Some(false));
                let commit = CommitBuilder::from(properties)
                    .with_actions(actions)
                    .build(Some(&state), self.log_store.clone(), change.operation())
                    .await;
                match commit {
                    Ok(commit) => {
                        side.table.state = Some(commit.snapshot());
                        side.committed.clear();
                        self.publish(&mut side, None, &HashSet::new(), change.same_rows()).await?;
                        return Ok(Changed::Committed { version: commit.version(), added });
                    }
                    Err(error) if lost_the_race(&error) => {
                        tracing::debug!(table = %self.name, attempt, %error, "another writer was first");
                    }
                    Err(error) => return Err(failed(&error)),
                }
            }
            drop(committing);
            drop(side);
            tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 5)).await;
        }
        Err(Error::transient(
            self.system.clone(),
            format!("other writers were first {ATTEMPTS} times; nothing has been changed"),
        ))
    }
}
