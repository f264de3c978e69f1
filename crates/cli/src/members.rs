//! Members of an ensemble on a cluster: the orders here, and what an executor does with them.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use twinlake_cluster::Cluster;
use twinlake_contracts::{Error, Result};
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::Engine;
use twinlake_twin::{ExecutedRun, MemberWorkers, Twins};

use crate::jobs::Job;

/// Files as name and text.
type Files = Vec<(String, String)>;

/// The lake, and the twins and scenarios that hold there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersJob {
    lake: String,
    models: Files,
    scenarios: Files,
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    scenario: String,
    identity: String,
    member: u32,
}

/// The executors, for members of ensembles.
#[derive(Debug)]
pub struct Members {
    cluster: Cluster,
    job: String,
}

impl Members {
    /// Executors read the lake at `lake`, with these twin models and scenarios.
    pub fn new(cluster: Cluster, lake: String, models: Files, scenarios: Files) -> Result<Self> {
        Ok(Self { cluster, job: Job::Members(MembersJob { lake, models, scenarios }).text()? })
    }
}

#[async_trait]
impl MemberWorkers for Members {
    fn at_once(&self) -> usize {
        self.cluster.address().partitions.get()
    }

    async fn run(&self, scenario: &str, identity: &str, members: &[u32]) -> Result<Vec<ExecutedRun>> {
        let order = |member: &u32| {
            let (scenario, identity) = (scenario.to_owned(), identity.to_owned());
            serde_json::to_string(&Order { scenario, identity, member: *member }).map_err(Error::internal)
        };
        let done = self.cluster.work(&self.job, members.iter().map(order).collect::<Result<_>>()?).await?;
        let mut runs: Vec<ExecutedRun> = Vec::new();
        for done in done {
            runs.extend(serde_json::from_str::<Vec<ExecutedRun>>(&done).map_err(Error::internal)?);
        }
        match members.iter().find(|member| runs.iter().all(|run| run.member != **member)) {
            Some(member) => {
                Err(Error::internal(format!("nothing became of member {member} of '{scenario}'")))
            }
            None => Ok(runs),
        }
    }
}

/// A job's lake and twins, opened on an executor.
pub struct OpenMembers {
    twins: Arc<Twins>,
    /// What the twins ask.
    _engine: Arc<Engine>,
}

impl std::fmt::Debug for OpenMembers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenMembers").finish_non_exhaustive()
    }
}

impl OpenMembers {
    /// Opens what a job of [`Members`] needs.
    pub async fn new(job: MembersJob) -> Result<Self> {
        let lake = Lake::open(&job.lake, LakeOptions::default()).await?;
        let engine = Engine::new(lake);
        let twins = Twins::load(&engine, job.models, job.scenarios)?;
        twins.open_scenarios().await?;
        Ok(Self { twins, _engine: engine })
    }

    /// Carries out one order of that job.
    pub async fn run(&self, order: &str) -> Result<String> {
        let order: Order = serde_json::from_str(order).map_err(Error::internal)?;
        let runs = self.twins.run_member(&order.scenario, &order.identity, order.member).await?;
        serde_json::to_string(&runs).map_err(Error::internal)
    }
}
