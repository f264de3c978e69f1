//! Members of an ensemble that are run by other processes on the same lake.
//!
//! What another process runs lands in the lake as it would from here: the rows of a run under its fingerprint, its record in
//! `meta.runs`. So an order carries no rows, only which member of which scenario, and whoever carries it out twice finds
//! the run there. What is not in the lake cannot be seen there: rows that wait for their commit, and scenarios that live in this
//! process alone. Then members are run here.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use twinlake_contracts::{Error, Result};

use super::Scenario;
use super::execution::{ExecutedRun, Execution, ExecutionStatus, run_member};
use crate::Twins;

/// Other processes that run members of ensembles.
#[async_trait]
pub trait MemberWorkers: Send + Sync + Debug {
    /// How many members they run side by side.
    fn at_once(&self) -> usize;

    /// Has members of a scenario run by [`Twins::run_member`], and gives their runs in no particular order.
    async fn run(&self, scenario: &str, identity: &str, members: &[u32]) -> Result<Vec<ExecutedRun>>;
}

impl Twins {
    /// Has members of ensembles run by other processes from now on.
    pub fn run_members_on(&self, workers: Arc<dyn MemberWorkers>) {
        self.known.executions.run_on(workers);
    }

    /// Runs one member of a scenario for another process. `identity` is what tells its scenario from another one of the same name.
    pub async fn run_member(
        self: &Arc<Self>,
        name: &str,
        identity: &str,
        number: u32,
    ) -> Result<Vec<ExecutedRun>> {
        let mut scenario = self.scenario(name);
        if scenario.as_ref().map_or(true, |scenario| scenario.identity() != identity) {
            // Created since this process looked.
            self.open_scenarios().await?;
            scenario = self.scenario(name);
        }
        let scenario = scenario?;
        if scenario.identity() != identity {
            return Err(Error::config(format!("this process knows another scenario '{name}'"))
                .with_help("created scenarios are read from the lake; is it the same lake?"));
        }
        run_member(Arc::clone(self), scenario, number).await
    }

    /// Lets others run members, as many at a time as they can; gives those that are left when they do not go on.
    pub(crate) async fn run_elsewhere(
        &self,
        workers: &dyn MemberWorkers,
        scenario: &Scenario,
        members: Vec<u32>,
        runs: &mut Vec<ExecutedRun>,
        told: &watch::Sender<Execution>,
    ) -> Vec<u32> {
        if let Err(reason) = self.may_travel(scenario) {
            tracing::warn!("members of '{}' are run here: {reason}", scenario.name);
            return members;
        }
        let identity = scenario.identity();
        for (wave, part) in members.chunks(workers.at_once().max(1)).enumerate() {
            match workers.run(&scenario.name, &identity, part).await {
                Ok(done) => {
                    runs.extend(done);
                    told.send_modify(|execution| {
                        if let ExecutionStatus::Running { members_done, .. } = &mut execution.status {
                            *members_done += part.len() as u32;
                        }
                    });
                }
                Err(error) => {
                    // A member that cannot be run says so here too.
                    tracing::warn!(
                        "other processes do not go on, members that are left are run here: {error}"
                    );
                    return members[wave * workers.at_once().max(1)..].to_vec();
                }
            }
        }
        Vec::new()
    }

    /// Whether other processes see what this one does; the error says what they do not.
    fn may_travel(&self, scenario: &Scenario) -> std::result::Result<(), String> {
        if scenario.source.is_empty() {
            return Err("the scenario is known to this process alone".to_owned());
        }
        // What is recorded of runs and rejects decides nothing.
        let tables = self.lake().tables().into_iter();
        let waiting =
            tables.filter(|table| table.name().schema != "meta").find(|table| table.fresh_bytes() > 0);
        match waiting {
            Some(table) => Err(format!("rows of {} wait for their commit", table.name())),
            None => Ok(()),
        }
    }
}
