//! Rows through the transforms to the sinks, in memory: the part that runs and tests have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use indexmap::IndexMap;
use twinlake_contracts::{
    Batch, Error, Rejects, Result, RowGuard, Settlement, SqlEngine, TableName, Transform,
};

use crate::codec::{Reader, Writer};
use crate::held::Held;
use crate::plan::Plan;

/// A row or message that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The source or transform that refused it.
    pub component: String,
    pub reason: Arc<str>,
    pub detail: String,
    /// The log sequence of its message; `None` for a file's row.
    pub sequence: Option<u64>,
}

/// What came out of a push.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The batches that reached each sink.
    pub sinks: BTreeMap<String, Vec<Batch>>,
    pub refused: Vec<Refused>,
    /// The messages of rows that went into something larger.
    pub absorbed: BTreeSet<u64>,
    /// What each step named in [`Flow::tap`] gave.
    pub tapped: BTreeMap<String, Vec<Batch>>,
}

/// Batches on their way to transforms, by name, with the number of the input.
type Waiting = BTreeMap<String, Vec<(usize, Batch)>>;

/// The transforms of a run with their state.
pub(crate) struct Flow {
    plan: Arc<Plan>,
    transforms: IndexMap<String, Box<dyn Transform>>,
    tap: BTreeSet<String>,
    /// The messages of rows that the transforms hold back.
    pub held: Held,
}

impl Flow {
    pub async fn new(plan: &Arc<Plan>, engine: &Arc<dyn SqlEngine>) -> Result<Self> {
        let transforms = plan.instantiate(engine).await?;
        let plan = Arc::clone(plan);
        Ok(Self { plan, transforms, tap: BTreeSet::new(), held: Held::default() })
    }

    /// Keeps what these sources and transforms give, for tests.
    pub fn tap(&mut self, steps: impl IntoIterator<Item = String>) {
        self.tap.extend(steps);
    }

    /// Sends a source's batch through everything below it.
    pub async fn push(&mut self, source: &str, batch: Batch, output: &mut Output) -> Result<()> {
        let mut waiting = Waiting::new();
        self.deliver(source, vec![batch], &mut waiting, output).await?;
        for at in 0..self.transforms.len() {
            let Some((name, results)) = self.step(at, &mut waiting, output).await? else { continue };
            self.deliver(&name, results, &mut waiting, output).await?;
        }
        Ok(())
    }

    /// The inputs have ended: everything that was held back goes on. Rows of no single message get the log sequence of
    /// the end itself, if it has one.
    pub async fn finish(&mut self, sequence: Option<u64>, output: &mut Output) -> Result<()> {
        self.let_go(true, sequence, output).await
    }

    /// From now on rows may come so much later than the steps' settings allow.
    pub fn tolerate(&mut self, more_us: i64) {
        self.transforms.values_mut().for_each(|transform| transform.tolerate(more_us));
    }

    /// After [`Flow::tolerate`]: what by the settings would have gone on by now goes on. Rows of no single message get
    /// this sequence.
    pub async fn catch_up(&mut self, sequence: u64, output: &mut Output) -> Result<()> {
        self.let_go(false, Some(sequence), output).await
    }

    /// What is held back goes on: everything, or what the settings would have let go.
    async fn let_go(&mut self, everything: bool, sequence: Option<u64>, output: &mut Output) -> Result<()> {
        let mut waiting = Waiting::new();
        for at in 0..self.transforms.len() {
            let Some((name, mut results)) = self.step(at, &mut waiting, output).await? else { continue };
            let Some(transform) = self.transforms.get_mut(&name) else { continue };
            let mut rejects = Rejects::default();
            results.extend(if everything {
                transform.finish(&mut rejects).await?
            } else {
                transform.catch_up().await?
            });
            let settlement = transform.settle();
            refuse(&name, rejects, None, output);
            self.settle(&name, settlement, output);
            if let Some(sequence) = sequence {
                for batch in results.iter_mut().filter(|batch| batch.sequences.is_none()) {
                    batch.sequences = Some(vec![sequence; batch.rows.num_rows()]);
                }
            }
            self.deliver(&name, results, &mut waiting, output).await?;
        }
        Ok(())
    }

    /// Gives a transform what waits for it.
    async fn step(
        &mut self,
        at: usize,
        waiting: &mut Waiting,
        output: &mut Output,
    ) -> Result<Option<(String, Vec<Batch>)>> {
        let Some((name, transform)) = self.transforms.get_index_mut(at) else { return Ok(None) };
        let name = name.clone();
        let mut results = Vec::new();
        let mut settlements = Vec::new();
        for (input, batch) in waiting.remove(&name).unwrap_or_default() {
            let sequences = batch.sequences.clone();
            let mut rejects = Rejects::default();
            results.extend(transform.process(input, batch, &mut rejects).await?);
            settlements.push(transform.settle());
            refuse(&name, rejects, sequences.as_deref(), output);
        }
        for settlement in settlements {
            self.settle(&name, settlement, output);
        }
        Ok(Some((name, results)))
    }

    /// Takes over what a transform says of rows that it held back or absorbed.
    fn settle(&mut self, component: &str, settlement: Settlement, output: &mut Output) {
        self.held.settle(&settlement);
        output.absorbed.extend(settlement.absorbed);
        output.refused.extend(settlement.refused.into_iter().map(|reject| Refused {
            component: component.to_owned(),
            reason: reject.reason,
            detail: reject.detail,
            sequence: reject.sequence,
        }));
    }

    /// Whether the end of the input would bring out more rows.
    pub fn holds_rows(&self) -> bool {
        self.transforms.values().any(|transform| transform.holds_rows())
    }

    /// Whether any step's rows depend on rows before them.
    pub fn remembers(&self) -> bool {
        self.transforms.values().any(|transform| transform.remembers())
    }

    /// Hands what `from` gave to the steps and sinks that read it.
    async fn deliver(
        &mut self,
        from: &str,
        batches: Vec<Batch>,
        waiting: &mut Waiting,
        output: &mut Output,
    ) -> Result<()> {
        let batches: Vec<Batch> = batches.into_iter().filter(|batch| batch.rows.num_rows() > 0).collect();
        if batches.is_empty() {
            return Ok(());
        }
        let plan = Arc::clone(&self.plan);
        let pipeline = &plan.pipeline;
        for (name, node) in &pipeline.transforms {
            if let Some(input) = node.inputs.iter().position(|input| input == from) {
                waiting.entry(name.clone()).or_default().extend(batches.iter().map(|b| (input, b.clone())));
            }
        }
        for (name, node) in &pipeline.sinks {
            if node.inputs.iter().any(|input| input == from) {
                for batch in &batches {
                    let guard = plan.guard();
                    let batch = judged(guard, name, &node.table, batch, output).await?;
                    output.sinks.entry(name.clone()).or_default().extend(batch);
                }
            }
        }
        if self.tap.contains(from) {
            output.tapped.entry(from.to_owned()).or_default().extend(batches);
        }
        Ok(())
    }

    /// The state of all transforms, and the messages whose rows they hold back.
    pub fn state(&self) -> Result<Vec<u8>> {
        let mut out = Writer::default();
        out.unsigned(self.transforms.len() as u64);
        for (name, transform) in &self.transforms {
            out.bytes(name.as_bytes());
            out.bytes(&transform.state()?);
        }
        self.held.write(&mut out);
        Ok(out.finish())
    }

    /// Takes back what [`Flow::state`] gave. A transform that is new in the file starts without a state; the state of
    /// one that is gone is passed over.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut input = Reader::new(state);
        for _ in 0..input.unsigned()? {
            let name = String::from_utf8_lossy(input.bytes()?).into_owned();
            let state = input.bytes()?;
            if let Some(transform) = self.transforms.get_mut(&name) {
                transform.restore(state).map_err(|error| match error {
                    Error::Config(config) => {
                        let error = Error::config(format!("the transform '{name}': {}", config.message));
                        config.help.into_iter().fold(error, Error::with_help)
                    }
                    other => {
                        Error::internal(format!("the state of the transform '{name}' does not fit: {other}"))
                    }
                })?;
            }
        }
        self.held = Held::read(&mut input)?;
        Ok(())
    }
}

/// Names the component and the message of each reject.
fn refuse(component: &str, rejects: Rejects, sequences: Option<&[u64]>, output: &mut Output) {
    output.refused.extend(rejects.0.into_iter().map(|reject| Refused {
        component: component.to_owned(),
        reason: reject.reason,
        detail: reject.detail,
        sequence: sequences.and_then(|sequences| sequences.get(reject.index as usize).copied()),
    }));
}

/// The rows that a table's rules let through; the others are refused by the sink.
async fn judged(
    guard: Option<&Arc<dyn RowGuard>>,
    sink: &str,
    table: &TableName,
    batch: &Batch,
    output: &mut Output,
) -> Result<Option<Batch>> {
    let Some(guard) = guard else { return Ok(Some(batch.clone())) };
    let rejects = guard.judge(table, &batch.rows).await?.rejects;
    if rejects.0.is_empty() {
        return Ok(Some(batch.clone()));
    }
    let mut keep = vec![true; batch.rows.num_rows()];
    for reject in &rejects.0 {
        if let Some(keep) = keep.get_mut(reject.index as usize) {
            *keep = false;
        }
    }
    refuse(sink, rejects, batch.sequences.as_deref(), output);
    let sequences = batch.sequences.as_ref().map(|sequences| {
        sequences.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(sequence, _)| *sequence).collect()
    });
    let rows = filter_record_batch(&batch.rows, &BooleanArray::from(keep))?;
    Ok((rows.num_rows() > 0).then_some(Batch { rows, sequences }))
}
