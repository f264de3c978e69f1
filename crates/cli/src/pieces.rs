//! Pieces of a reprocessing on a cluster: the orders here, and what an executor does with them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use twinlake_cluster::Cluster;
use twinlake_contracts::{Error, Result, SqlEngine, TableStore};
use twinlake_lake::{Lake, LakeOptions};
use twinlake_pipeline::{PieceDone, PieceOrder, PieceWorkers, Plan, run_piece};
use twinlake_query::Engine;

use crate::jobs::Job;
use crate::pipelines::check_text;

/// What an executor must know to run pieces: no settings of this machine, no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PiecesJob {
    lake: String,
    /// The pipeline's name, with the node's.
    name: String,
    text: String,
    /// Where the file lies; files that it names lie beside it.
    file: PathBuf,
}

/// The executors, for the pieces of one reprocessing.
pub struct Pieces {
    cluster: Cluster,
    job: String,
}

impl Pieces {
    /// An error says why the pieces cannot be run elsewhere.
    pub fn new(cluster: Cluster, lake: &Lake, plan: &Plan, file: &Path) -> std::result::Result<Self, String> {
        let text = plan.pipeline.text();
        if text.contains("${") {
            return Err("its file takes values from the environment, which are not sent".to_owned());
        }
        if plan.is_guarded() {
            return Err(
                "rules of its tables judge its rows on their way, and their counts are kept here".to_owned()
            );
        }
        let file = std::path::absolute(file).map_err(|error| error.to_string())?;
        let name = plan.pipeline.name.clone();
        let job = PiecesJob { lake: lake.location(), name, text: text.to_owned(), file };
        Ok(Self { cluster, job: Job::Pieces(job).text().map_err(|error| error.to_string())? })
    }
}

#[async_trait]
impl PieceWorkers for Pieces {
    fn at_once(&self) -> NonZeroUsize {
        self.cluster.address().partitions
    }

    async fn run(&self, orders: Vec<PieceOrder>) -> Result<Vec<PieceDone>> {
        let orders = orders.iter().map(|order| serde_json::to_string(order).map_err(Error::internal));
        let done = self.cluster.work(&self.job, orders.collect::<Result<_>>()?).await?;
        done.iter().map(|done| serde_json::from_str(done).map_err(Error::internal)).collect()
    }
}

/// A job's lake and plan, opened on an executor.
#[derive(Debug)]
pub struct OpenPieces {
    plan: Arc<Plan>,
    lake: Arc<Lake>,
    engine: Arc<Engine>,
}

impl OpenPieces {
    /// Opens what a job of [`Pieces`] needs.
    pub async fn new(job: PiecesJob) -> Result<Self> {
        let lake = Lake::open(&job.lake, LakeOptions::default()).await?;
        let engine = Engine::new(Arc::clone(&lake));
        let plan = check_text(&job.text, &job.file, &engine, &[]).await;
        let mut plan = plan.map_err(|error| Error::config(format!("{error:#}")))?;
        plan.pipeline.name = job.name;
        Ok(Self { plan: Arc::new(plan), lake, engine })
    }

    /// Carries out one order of that job.
    pub async fn run(&self, order: &str) -> Result<String> {
        let order: PieceOrder = serde_json::from_str(order).map_err(Error::internal)?;
        let store: Arc<dyn TableStore> = Arc::clone(&self.lake) as _;
        let engine: Arc<dyn SqlEngine> = Arc::clone(&self.engine) as _;
        let done = run_piece(&self.plan, &store, &engine, &order).await?;
        serde_json::to_string(&done).map_err(Error::internal)
    }
}
