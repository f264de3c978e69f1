//! The versions of a table: what made them, going back to one, and letting go of what only old ones need.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Action, Add, MetadataExt as _};
use deltalake_core::operations::vacuum::VacuumMode;
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::state::DeltaTableState;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt as _};
use serde::Serialize;
use twinlake_contracts::{Error, Result, format_us};

use super::change::{Change, Changed};
use super::commit::WRITER_KEY;
use super::evolve::{EVOLUTION_TAG, evolution};
use super::{LakeTable, files};
use crate::error;

/// One version of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionRecord {
    /// Its number.
    pub version: u64,
    /// When it was made: microseconds since the epoch, UTC.
    pub at_us: Option<i64>,
    /// What made it, in Delta's words: `WRITE`, `UPDATE`, `OPTIMIZE`, …
    pub operation: String,
    /// Who committed rows, as `pipeline/sink`.
    pub writer: Option<String>,
    /// Its particulars, as JSON.
    pub parameters: String,
}

/// What a vacuum did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Vacuumed {
    /// Files deleted, or that would be.
    pub files: u64,
}

/// The table as an earlier version was.
struct Restore {
    version: u64,
    wanted: Vec<Add>,
    state: DeltaTableState,
}

#[async_trait]
impl Change for Restore {
    fn operation(&self) -> DeltaOperation {
        DeltaOperation::Restore { version: Some(self.version), datetime: None }
    }

    async fn actions(&mut self, table: &LakeTable, state: &DeltaTableState) -> Result<Vec<Action>> {
        let present: Vec<Add> = state.log_data().iter().map(|file| files::entry(&file)).collect();
        let wanted: HashSet<&str> = self.wanted.iter().map(|add| add.path.as_str()).collect();
        let there: HashSet<&str> = present.iter().map(|add| add.path.as_str()).collect();
        let store = table.log_store.object_store(None);
        let mut actions = Vec::new();
        for add in self.wanted.iter().filter(|add| !there.contains(add.path.as_str())) {
            match store.head(&Path::from(add.path.as_str())).await {
                Ok(_) => actions.push(Action::Add(Add { data_change: true, ..add.clone() })),
                Err(StoreError::NotFound { .. }) => {
                    return Err(Error::config(format!(
                        "version {} of {} cannot come back: a vacuum has deleted its files",
                        self.version, table.name
                    ))
                    .with_help("run its pipeline again over the raw messages (twinlake reprocess)"));
                }
                Err(error) => return Err(error::store(&table.system, &error)),
            }
        }
        if evolution(state) != evolution(&self.state) {
            // Its files have the columns that it had.
            let count = (evolution(state) + 1).to_string();
            let metadata = self.state.metadata().clone().add_config_key(EVOLUTION_TAG.to_owned(), count);
            let metadata = metadata.map_err(|error| error::delta(&table.system, &error.into()))?;
            actions.push(Action::Metadata(metadata));
        }
        let gone = present.iter().filter(|add| !wanted.contains(add.path.as_str()));
        actions.extend(gone.map(|add| Action::Remove(files::remove(add, true))));
        Ok(actions)
    }
}

impl LakeTable {
    /// The newest versions first, at most `limit` of them; versions whose commits have been cleaned away are missing.
    pub async fn history(&self, limit: Option<usize>) -> Result<Vec<VersionRecord>> {
        self.provider().await?;
        let mut table = DeltaTable::new(self.log_store.clone());
        table.load().await.map_err(|error| error::delta(&self.system, &error))?;
        let newest = table.version().unwrap_or_default();
        let infos: Vec<_> =
            table.history(limit).try_collect().await.map_err(|error| error::delta(&self.system, &error))?;
        let records = infos.into_iter().enumerate().map(|(age, info)| VersionRecord {
            version: newest.saturating_sub(age as u64),
            at_us: info.timestamp.map(|milliseconds| milliseconds.saturating_mul(1000)),
            operation: info.operation.unwrap_or_default(),
            writer: info.info.get(WRITER_KEY).and_then(|writer| writer.as_str()).map(str::to_owned),
            parameters: info
                .operation_parameters
                .and_then(|parameters| serde_json::to_string(&parameters).ok())
                .unwrap_or_default(),
        });
        Ok(records.collect())
    }

    /// The version that was the newest at an instant (microseconds since the epoch, UTC).
    pub async fn version_at(&self, at_us: i64) -> Result<u64> {
        let at: DateTime<Utc> = DateTime::from_timestamp_micros(at_us)
            .ok_or_else(|| Error::config(format!("{at_us} µs is no time")))?;
        // Times of commits have milliseconds.
        let history = self.history(None).await?;
        let found = history.iter().find(|record| record.at_us.is_some_and(|made_us| made_us <= at_us));
        match found {
            Some(record) => Ok(record.version),
            None => Err(Error::not_found(
                "version",
                format!("of table {} at {}", self.name, format_us(at.timestamp_micros())),
                [],
            )),
        }
    }

    /// Makes the rows of an earlier version the newest again, in a commit of its own. Writers go on where they are: rows
    /// of messages after that version come back only when those are run again. The columns stay as they are, unless some
    /// have been renamed or widened since: then they are again those of that version.
    pub async fn restore(&self, version: u64) -> Result<u64> {
        if version > self.version() {
            self.provider().await?;
        }
        if version > self.version() {
            return Err(Error::not_found("version", format!("{version} of table {}", self.name), []));
        }
        let mut old = DeltaTable::new(self.log_store.clone());
        old.load_version(version).await.map_err(|error| error::delta(&self.system, &error))?;
        let state = old.snapshot().map_err(|error| error::delta(&self.system, &error))?.clone();
        let wanted = state.log_data().iter().map(|file| files::entry(&file)).collect();
        match self.change(&mut Restore { version, wanted, state }).await? {
            Changed::Committed { version, .. } | Changed::Nothing { version } => Ok(version),
        }
    }

    /// Deletes files that no version of the last `keep` needs, and staged ones older than that; versions in `pinned` stay
    /// readable. A dry run only counts.
    pub async fn vacuum(&self, keep: Duration, pinned: &[u64], dry_run: bool) -> Result<Vacuumed> {
        let keep = chrono::Duration::from_std(keep)
            .map_err(|_| Error::config("the time that versions are kept is too long"))?;
        let mut side = self.write_side.lock().await;
        self.look_for_news(&mut side).await?;
        let present: Vec<u64> =
            pinned.iter().copied().filter(|version| Some(*version) <= side.table.version()).collect();
        let mut vacuum = side
            .table
            .clone()
            .vacuum()
            .with_mode(VacuumMode::Full)
            .with_retention_period(keep)
            .with_enforce_retention_duration(false)
            .with_dry_run(dry_run);
        if !present.is_empty() {
            vacuum = vacuum.with_keep_versions(&present);
        }
        let (_, metrics) = vacuum.await.map_err(|error| error::delta(&self.system, &error))?;
        self.look_for_news(&mut side).await?;
        // Named twice: by the table's log and by its folder, with another path.
        let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
        let deleted: HashSet<String> = metrics.files_deleted.iter().map(name).collect();
        Ok(Vacuumed { files: deleted.len() as u64 })
    }
}
