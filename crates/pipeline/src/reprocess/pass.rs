//! One pass over messages: the same code as in a run, with the rows of chosen messages kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use twinlake_contracts::{Error, Result, SEQUENCE, Sequences, SqlEngine};

use super::messages::Messages;
use crate::flow::Flow;
use crate::plan::Plan;
use crate::window::{END_OF_INPUT, catch_up, process};

/// How many messages are read from the raw tables at a time.
const READ_AT_ONCE: u64 = 65_536;

/// What a stretch of messages gave.
#[derive(Default)]
pub(super) struct Piece {
    /// The rows of chosen messages by sink.
    pub sinks: BTreeMap<String, Vec<RecordBatch>>,
    /// Their rejects.
    pub rejects: Vec<RecordBatch>,
    /// How many messages were run.
    pub messages: u64,
}

/// A pass on its way.
pub(super) struct Pass {
    plan: Arc<Plan>,
    flow: Flow,
    /// The last sequence that was processed.
    position: u64,
}

impl Pass {
    /// Begins with the message `start`.
    pub async fn new(plan: &Arc<Plan>, engine: &Arc<dyn SqlEngine>, start: u64) -> Result<Self> {
        let flow = Flow::new(plan, engine).await?;
        Ok(Self { plan: Arc::clone(plan), flow, position: start.saturating_sub(1) })
    }

    /// The last sequence that was processed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The steps' state.
    pub fn state(&self) -> Result<Vec<u8>> {
        self.flow.state()
    }

    /// From now on rows may come so much later than the steps' settings allow.
    pub fn tolerate(&mut self, more_us: i64) {
        self.flow.tolerate(more_us);
    }

    /// What by the settings would have gone on by now, goes on.
    pub async fn catch_up(
        &mut self,
        messages: &Messages,
        selected: &Sequences,
        piece: &mut Piece,
    ) -> Result<()> {
        let Some(last) = messages.read(self.position.saturating_sub(1), self.position).await?.pop() else {
            return Ok(());
        };
        let processed = catch_up(&self.plan, &mut self.flow, last).await?;
        for (sink, rows) in processed.sinks {
            piece.sinks.entry(sink).or_default().extend(chosen(&rows, selected)?);
        }
        piece.rejects.extend(processed.rejects.map(|rows| chosen(&rows, selected)).transpose()?.flatten());
        Ok(())
    }

    /// Takes back what [`Pass::state`] gave.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.flow.restore(state)
    }

    /// Runs the messages up to `upto`; with a `tail` on until no row of those messages is held back, or the messages end.
    /// Rows of `selected` messages are kept. `tell` learns how many messages were run.
    pub async fn run(
        &mut self,
        messages: &Messages,
        selected: &Sequences,
        upto: u64,
        tail: Option<&Sequences>,
        tell: impl Fn(u64),
    ) -> Result<Piece> {
        let mut piece = Piece::default();
        while self.position < upto {
            let end = self.position.saturating_add(READ_AT_ONCE).min(upto);
            self.stretch(messages, selected, end, &mut piece).await?;
            tell(piece.messages);
        }
        let Some(tail) = tail else { return Ok(piece) };
        let step = self.plan.pipeline.settings.micro_batch_messages as u64;
        while self.flow.held.any(|sequence| tail.contains(sequence)) {
            let before = piece.messages;
            self.stretch(messages, selected, self.position + step, &mut piece).await?;
            if piece.messages == before {
                break; // held back at the cut, as in the run itself
            }
        }
        Ok(piece)
    }

    async fn stretch(
        &mut self,
        messages: &Messages,
        selected: &Sequences,
        end: u64,
        piece: &mut Piece,
    ) -> Result<()> {
        let read = messages.read(self.position, end).await?;
        let most = self.plan.pipeline.settings.micro_batch_messages.max(1);
        let mut rest = read.as_slice();
        while !rest.is_empty() {
            // A window ends with an end of input.
            let until = rest.iter().position(|logged| &*logged.source == END_OF_INPUT);
            let count = until.map_or(rest.len(), |end| end + 1).min(most);
            let (window, later) = rest.split_at(count);
            rest = later;
            piece.messages += window.iter().filter(|logged| &*logged.source != END_OF_INPUT).count() as u64;
            let processed = process(&self.plan, &mut self.flow, window.to_vec()).await?;
            for (sink, rows) in processed.sinks {
                piece.sinks.entry(sink).or_default().extend(chosen(&rows, selected)?);
            }
            if let Some(rows) = processed.rejects {
                piece.rejects.extend(chosen(&rows, selected)?);
            }
        }
        self.position = end;
        Ok(())
    }
}

/// The rows of chosen messages; nothing when there are none.
fn chosen(rows: &RecordBatch, selected: &Sequences) -> Result<Option<RecordBatch>> {
    let sequences = rows
        .column_by_name(SEQUENCE)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| Error::internal("rows on their way to a table have no sequences"))?;
    let keep: BooleanArray = sequences
        .iter()
        .map(|sequence| {
            Some(sequence.and_then(|s| u64::try_from(s).ok()).is_some_and(|s| selected.contains(s)))
        })
        .collect();
    if keep.true_count() == 0 {
        return Ok(None);
    }
    Ok(Some(filter_record_batch(rows, &keep)?))
}
