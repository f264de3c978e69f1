//! Planning: which queries travel, and what becomes of the others.

use std::sync::Arc;

use arrow::array::AsArray;
use async_trait::async_trait;
use ballista_core::extension::SessionConfigExt;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use prost::Message;
use twinlake_contracts::Error;
use twinlake_query::{Remote, worker_state};

use crate::address::Address;
use crate::codec::Codec;
use crate::described::describe;
use crate::exec::ClusterExec;
use crate::lower::{lower, reads_files};
use crate::work::{self, WorkExec};
use crate::{MESSAGE_BYTES, PLAN_BYTES};

tokio::task_local! {
    /// Set while a plan is made: a table may plan a query of its own for its scan, which is a part of that plan.
    static PLANNING: ();
}

/// A cluster that an engine's queries run on ([`twinlake_query::Engine::run_on`]).
#[derive(Debug, Clone)]
pub struct Cluster {
    address: Address,
    codec: Arc<Codec>,
}

impl Cluster {
    /// Nothing is asked of the scheduler yet.
    pub fn new(address: Address) -> twinlake_contracts::Result<Self> {
        let state = worker_state(base_config(), Arc::new(RuntimeEnv::default()));
        let state = state.map_err(|error| Error::internal(format!("no functions: {error}")))?;
        Ok(Self { address, codec: Arc::new(Codec::new(&state)) })
    }

    /// The scheduler's address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Has orders of a job carried out by the executors' [`Worker`](crate::Worker), and gives what became of them, in no
    /// particular order.
    pub async fn work(&self, job: &str, orders: Vec<String>) -> twinlake_contracts::Result<Vec<String>> {
        let failed = |error: DataFusionError| twinlake_query::to_error(error, &[]);
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(WorkExec::new(work::orders(orders).map_err(failed)?, job.into(), None));
        let schema = plan.schema();
        let plan = ClusterExec::new(self.address.clone(), Arc::clone(&self.codec), plan, schema);
        let context = SessionContext::new_with_config(base_config()).task_ctx();
        let batches = collect(Arc::new(plan), context).await.map_err(failed)?;
        let texts = batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten());
        Ok(texts.map(str::to_owned).collect())
    }

    /// The plan to run there; `None` when nothing is to be gained, an error when it cannot travel.
    fn send(&self, plan: &Arc<dyn ExecutionPlan>, session: &dyn Session) -> Result<Option<ClusterExec>> {
        if !reads_files(plan)? {
            return Ok(None);
        }
        if session.config_options().optimizer.enable_dynamic_filter_pushdown {
            return plan_err!(
                "this session lets joins filter scans while they run, which does not cross processes"
            );
        }
        let lowered = lower(Arc::clone(plan), self.address.partitions.get())?;
        let message = PhysicalPlanNode::try_from_physical_plan(Arc::clone(&lowered), self.codec.as_ref())?;
        let bytes = message.encoded_len();
        if bytes > PLAN_BYTES {
            return plan_err!(
                "rows in memory (such as those that wait for their commit) make the plan {bytes} bytes large, more than {PLAN_BYTES}"
            );
        }
        // What does not come back as it went does not travel.
        let back = message.try_into_physical_plan(&session.task_ctx(), self.codec.as_ref())?;
        if back.schema().fields().len() != plan.schema().fields().len() {
            return plan_err!("the plan does not come back as it went");
        }
        Ok(Some(ClusterExec::new(self.address.clone(), Arc::clone(&self.codec), lowered, plan.schema())))
    }
}

/// The settings that all parts of a cluster begin with.
pub(crate) fn base_config() -> SessionConfig {
    adapted(SessionConfig::new())
}

fn adapted(config: SessionConfig) -> SessionConfig {
    config
        .upgrade_for_ballista()
        // The plan is made here; the scheduler cuts it and changes nothing.
        .with_ballista_adaptive_query_planner(false)
        .with_ballista_grpc_client_max_message_size(MESSAGE_BYTES)
}

impl Remote for Cluster {
    fn configure(&self, config: SessionConfig) -> SessionConfig {
        adapted(config).with_target_partitions(self.address.partitions.get())
    }

    fn planner(&self, local: Arc<dyn QueryPlanner + Send + Sync>) -> Arc<dyn QueryPlanner + Send + Sync> {
        Arc::new(ClusterPlanner { local, cluster: self.clone() })
    }
}

#[derive(Debug)]
struct ClusterPlanner {
    local: Arc<dyn QueryPlanner + Send + Sync>,
    cluster: Cluster,
}

/// Whether the statement asks for rows; what explains, measures or changes something is done here.
fn asks_for_rows(plan: &LogicalPlan) -> bool {
    !matches!(
        plan,
        LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::DescribeTable(_)
    )
}

#[async_trait]
impl QueryPlanner for ClusterPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !asks_for_rows(plan) {
            return PLANNING.scope((), self.local.create_physical_plan(plan, session)).await;
        }
        let described = describe(plan.clone())?;
        if PLANNING.try_with(|()| ()).is_ok() {
            return self.local.create_physical_plan(&described, session).await;
        }
        let plan = PLANNING.scope((), self.local.create_physical_plan(&described, session)).await?;
        match self.cluster.send(&plan, session) {
            Ok(Some(sent)) => Ok(Arc::new(sent)),
            Ok(None) => Ok(plan),
            Err(reason) => {
                let reason = told(&reason);
                tracing::warn!("this query runs here and not on {}: {reason}", self.cluster.address);
                Ok(plan)
            }
        }
    }
}

/// An error in one line, without what DataFusion says around it.
fn told(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let text = text.lines().next().unwrap_or_default();
    // The plan that could not be written is as long as the query is large.
    let text = text.split(". Plan: ").next().unwrap_or(text);
    match text.split_once("codec failed with [") {
        Some((_, inner)) => inner.trim_end_matches(']').to_owned(),
        None => text.to_owned(),
    }
}
