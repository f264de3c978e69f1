//! What direct ingest tries again, and for how long.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use twinlake_contracts::Result;

use crate::retry::{Pauses, retry};
use crate::stats::RunnerStats;

/// Tries outside calls again with growing pauses; after it was told to stop, a few times only.
#[derive(Clone)]
pub(super) struct Patience {
    pub pauses: Pauses,
    pub stats: Arc<RunnerStats>,
    pub stop: watch::Receiver<bool>,
}

impl Patience {
    pub async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        what: &str,
        action: impl FnMut() -> F,
    ) -> Result<T> {
        retry(what, self.pauses, &self.stats, &self.stop, action).await
    }
}
