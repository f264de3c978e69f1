//! A piece of a reprocessing as an order: whoever holds the plan and reaches the lake can run it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result, Sequences, SqlEngine, StagedFile, TableSpec, TableStore};

use super::messages::Messages;
use super::pass::{Pass, Piece};
use crate::plan::Plan;
use crate::targets::{REJECTS, raw_key, sink_key};

/// Which messages are run, and of which of them the rows are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceOrder {
    /// Names the piece.
    pub(super) start: u64,
    /// The first message that is run.
    pub(super) begin: u64,
    /// The messages whose rows are kept.
    pub(super) own: Sequences,
    /// The last message of the whole reprocessing.
    pub(super) cut: u64,
    /// Whether rows may be held back beyond the piece's last message.
    pub(super) remembers: bool,
}

/// What became of a piece: its rows lie beside their tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceDone {
    pub(super) start: u64,
    pub(super) messages: u64,
    pub(super) staged: BTreeMap<String, Vec<StagedFile>>,
}

/// Others who run pieces, in other processes.
#[async_trait]
pub trait PieceWorkers: Send + Sync {
    /// How many pieces to order at a time.
    fn at_once(&self) -> NonZeroUsize;

    /// Runs pieces to their end, each once or more often; gives what became of each.
    async fn run(&self, orders: Vec<PieceOrder>) -> Result<Vec<PieceDone>>;
}

/// Runs a piece and stages its rows. The same order gives the same rows, wherever it is run.
pub async fn run_piece(
    plan: &Arc<Plan>,
    store: &Arc<dyn TableStore>,
    engine: &Arc<dyn SqlEngine>,
    order: &PieceOrder,
) -> Result<PieceDone> {
    let messages = Messages::open(&plan.pipeline.name, engine, order.cut).await?;
    let mut pass = Pass::new(plan, engine, order.begin).await?;
    let end = order.own.last().ok_or_else(|| Error::internal("a piece without messages"))?;
    let piece = pass.run(&messages, &order.own, end, order.remembers.then_some(&order.own), |_| {}).await?;
    let messages = piece.messages;
    Ok(PieceDone { start: order.start, messages, staged: stage(plan, store, piece).await? })
}

/// The targets whose rows are exchanged: key, writer, table.
pub(super) fn targets(plan: &Plan) -> Vec<(String, String, TableSpec)> {
    let mut targets = plan.message_tables();
    targets.retain(|(key, ..)| !key.starts_with(&raw_key("")));
    targets
}

/// Stores a piece's rows beside their tables; gives the files by target.
pub(super) async fn stage(
    plan: &Plan,
    store: &Arc<dyn TableStore>,
    piece: Piece,
) -> Result<BTreeMap<String, Vec<StagedFile>>> {
    let mut staged = BTreeMap::new();
    let mut rows =
        piece.sinks.into_iter().map(|(sink, rows)| (sink_key(&sink), rows)).collect::<BTreeMap<_, _>>();
    rows.insert(REJECTS.to_owned(), piece.rejects);
    for (key, writer, spec) in targets(plan) {
        let Some(batches) = rows.remove(&key) else { continue };
        let Some(first) = batches.first() else { continue };
        let all = arrow::compute::concat_batches(&first.schema(), &batches)?;
        if all.num_rows() > 0 {
            let table = store.open_table(spec).await?;
            staged.insert(key, table.stage(&writer, all).await?);
        }
    }
    Ok(staged)
}
