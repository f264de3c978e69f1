//! Trying again, with growing pauses, what an outside system refused.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use twinlake_contracts::{Result, Retry};

use crate::stats::RunnerStats;

/// Attempts after the run was told to stop: a lake that is away must not keep the program from ending. What is not
/// committed lies in the log.
const ATTEMPTS_AFTER_STOP: u32 = 5;

/// How long the pauses are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(30) }
    }
}

/// Waits until the run is told to stop. A sender that is gone tells nothing.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Calls `action` until it succeeds, fails for good, or fails too often after the run was told to stop.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(
    what: &str,
    pauses: Pauses,
    stats: &RunnerStats,
    stop: &watch::Receiver<bool>,
    mut action: impl FnMut() -> F,
) -> Result<T> {
    let mut pause = pauses.first;
    let mut after_stop = 0;
    loop {
        let error = match action().await {
            Ok(value) => return Ok(value),
            Err(error) if error.retry() == Retry::Never => return Err(error),
            Err(error) => error,
        };
        stats.failed(&error);
        let mut stop = stop.clone();
        if *stop.borrow() {
            after_stop += 1;
            if after_stop >= ATTEMPTS_AFTER_STOP {
                return Err(error);
            }
            pause = pause.min(pauses.first * 4);
        }
        tracing::warn!(%error, pause_ms = pause.as_millis(), "{what} failed; trying again");
        if *stop.borrow() {
            tokio::time::sleep(pause).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stop) => {}
            }
        }
        pause = (pause * 2).min(pauses.longest);
    }
}
