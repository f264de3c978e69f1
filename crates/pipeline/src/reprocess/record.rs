//! What a reprocessing has done so far, stored so that another call can go on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use twinlake_contracts::{Error, Result, StagedFile, TableStore};

use super::ReprocessOptions;
use crate::codec::{Reader, Writer};
use crate::plan::Plan;

/// What has been done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    pub run_id: String,
    /// The last message that was completely committed when it began.
    pub cut: u64,
    pub started_us: i64,
    /// How often it was stored.
    steps: u64,
    /// Whether its tables have been changed: there is nothing to go on with.
    finished: bool,
    /// Whether every row is staged.
    pub staged_all: bool,
    /// Staged files by target.
    pub staged: BTreeMap<String, Vec<StagedFile>>,
    /// How many messages were run.
    pub replayed: u64,
    /// In one pass: the last message that was run.
    pub position: Option<u64>,
    /// In pieces: the first messages of those that are done.
    pub pieces: BTreeSet<u64>,
    /// In one pass: the steps' state at `position`.
    #[serde(skip)]
    pub state: Vec<u8>,
}

impl Progress {
    pub fn new(run_id: String, cut: u64, started_us: i64) -> Self {
        Self { run_id, cut, started_us, ..Self::default() }
    }
}

/// The place where it is stored.
pub(super) struct Record {
    store: Arc<dyn TableStore>,
    name: String,
}

impl Record {
    /// The place belongs to the pipeline's text and to what was chosen: another file or another interval is another
    /// reprocessing.
    pub fn new(plan: &Plan, store: &Arc<dyn TableStore>, options: &ReprocessOptions) -> Self {
        let mut hash = Sha256::new();
        hash.update(plan.pipeline.text().as_bytes());
        let ReprocessOptions { from_us, to_us, condition, warm_up_us, stale, piece_messages, parallel: _ } =
            options;
        hash.update(
            format!("{from_us:?} {to_us:?} {condition:?} {warm_up_us:?} {stale} {piece_messages}").as_bytes(),
        );
        let digest =
            hash.finalize().iter().take(8).fold(0, |digest: u64, byte| digest << 8 | u64::from(*byte));
        Self { store: Arc::clone(store), name: format!("{}.reprocess-{digest:016x}", plan.pipeline.name) }
    }

    /// What an earlier call has left unfinished.
    pub async fn read(&self) -> Result<Option<Progress>> {
        let Some((steps, stored)) = self.store.newest_state(&self.name).await? else { return Ok(None) };
        let mut input = Reader::new(&stored);
        let progress: Progress = serde_json::from_slice(input.bytes()?).map_err(|error| {
            Error::internal(format!("the record of an earlier reprocessing is damaged: {error}"))
        })?;
        let state = input.bytes()?.to_vec();
        if progress.finished {
            return Ok(None);
        }
        Ok(Some(Progress { steps, state, ..progress }))
    }

    pub async fn write(&self, progress: &mut Progress) -> Result<()> {
        progress.steps = match progress.steps {
            // An earlier, finished one of the same name may be there.
            0 => self.store.newest_state(&self.name).await?.map_or(1, |(steps, _)| steps + 1),
            steps => steps + 1,
        };
        let mut out = Writer::default();
        out.bytes(&serde_json::to_vec(progress).map_err(Error::internal)?);
        out.bytes(&progress.state);
        self.store.put_state(&self.name, progress.steps, progress.steps, out.finish()).await
    }

    /// Nothing is left to go on with.
    pub async fn finish(&self, progress: &mut Progress) -> Result<()> {
        progress.finished = true;
        let staged = std::mem::take(&mut progress.staged);
        progress.state.clear();
        let written = self.write(progress).await;
        progress.staged = staged;
        written
    }
}
