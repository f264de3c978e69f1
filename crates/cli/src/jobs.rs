//! Work of the cluster that is no query, on an executor: pieces of a reprocessing, members of an ensemble.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use twinlake_cluster::Worker;
use twinlake_contracts::{Error, Result};

use crate::members::{MembersJob, OpenMembers};
use crate::pieces::{OpenPieces, PiecesJob};

/// What an executor must know to carry out orders: no settings of the client's machine, no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Job {
    /// Pieces of a reprocessing.
    Pieces(PiecesJob),
    /// Members of an ensemble.
    Members(MembersJob),
}

impl Job {
    /// As it travels.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }
}

/// Carries out orders on an executor.
#[derive(Debug)]
pub struct JobWorker {
    /// Where planning has the stack that it needs.
    runtime: Handle,
    /// The job that was last worked on, opened.
    open: Mutex<Option<(String, Open)>>,
}

#[derive(Debug, Clone)]
enum Open {
    Pieces(Arc<OpenPieces>),
    Members(Arc<OpenMembers>),
}

impl JobWorker {
    /// Works on the runtime that it is made on.
    pub fn new() -> Self {
        Self { runtime: Handle::current(), open: Mutex::default() }
    }

    async fn opened(&self, text: &str) -> Result<Open> {
        let mut open = self.open.lock().await;
        if let Some((known, open)) = &*open
            && known == text
        {
            return Ok(open.clone());
        }
        let job: Job = serde_json::from_str(text).map_err(Error::internal)?;
        let opening = self.runtime.spawn(async move {
            Ok::<_, Error>(match job {
                Job::Pieces(job) => Open::Pieces(Arc::new(OpenPieces::new(job).await?)),
                Job::Members(job) => Open::Members(Arc::new(OpenMembers::new(job).await?)),
            })
        });
        let opened = opening.await.map_err(Error::internal)??;
        *open = Some((text.to_owned(), opened.clone()));
        Ok(opened)
    }
}

#[async_trait]
impl Worker for JobWorker {
    async fn run(&self, job: &str, order: &str) -> Result<String> {
        let open = self.opened(job).await?;
        let order = order.to_owned();
        let work = self.runtime.spawn(async move {
            match open {
                Open::Pieces(open) => open.run(&order).await,
                Open::Members(open) => open.run(&order).await,
            }
        });
        work.await.map_err(Error::internal)?
    }
}
