//! Rows through the transforms to the sinks, in memory: the part that runs and tests have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use twinlake_contracts::{Batch, Error, Rejects, Result, SqlEngine, Transform};

use crate::codec::{Reader, Writer};
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
    /// What each step named in [`Flow::tap`] gave.
    pub tapped: BTreeMap<String, Vec<Batch>>,
}

/// The transforms of a run with their state.
pub(crate) struct Flow {
    plan: Arc<Plan>,
    transforms: IndexMap<String, Box<dyn Transform>>,
    tap: BTreeSet<String>,
}

impl Flow {
    pub async fn new(plan: &Arc<Plan>, engine: &Arc<dyn SqlEngine>) -> Result<Self> {
        let transforms = plan.instantiate(engine).await?;
        Ok(Self { plan: Arc::clone(plan), transforms, tap: BTreeSet::new() })
    }

    /// Keeps what these sources and transforms give, for tests.
    pub fn tap(&mut self, steps: impl IntoIterator<Item = String>) {
        self.tap.extend(steps);
    }

    /// Sends a source's batch through everything below it.
    pub async fn push(&mut self, source: &str, batch: Batch, output: &mut Output) -> Result<()> {
        let mut waiting: BTreeMap<String, Vec<(usize, Batch)>> = BTreeMap::new();
        self.deliver(source, vec![batch], &mut waiting, output);
        for at in 0..self.transforms.len() {
            let Some((name, transform)) = self.transforms.get_index_mut(at) else { continue };
            let name = name.clone();
            let mut results = Vec::new();
            for (input, batch) in waiting.remove(&name).unwrap_or_default() {
                let sequences = batch.sequences.clone();
                let mut rejects = Rejects::default();
                results.extend(transform.process(input, batch, &mut rejects).await?);
                refuse(&name, rejects, sequences.as_deref(), output);
            }
            self.deliver(&name, results, &mut waiting, output);
        }
        Ok(())
    }

    /// The inputs have ended: everything that was held back goes on.
    pub async fn finish(&mut self, output: &mut Output) -> Result<()> {
        let mut waiting: BTreeMap<String, Vec<(usize, Batch)>> = BTreeMap::new();
        for at in 0..self.transforms.len() {
            let Some((name, transform)) = self.transforms.get_index_mut(at) else { continue };
            let name = name.clone();
            let mut results = Vec::new();
            for (input, batch) in waiting.remove(&name).unwrap_or_default() {
                let sequences = batch.sequences.clone();
                let mut rejects = Rejects::default();
                results.extend(transform.process(input, batch, &mut rejects).await?);
                refuse(&name, rejects, sequences.as_deref(), output);
            }
            let mut rejects = Rejects::default();
            results.extend(transform.finish(&mut rejects).await?);
            refuse(&name, rejects, None, output);
            self.deliver(&name, results, &mut waiting, output);
        }
        Ok(())
    }

    /// Hands what `from` gave to the steps and sinks that read it.
    fn deliver(
        &self,
        from: &str,
        batches: Vec<Batch>,
        waiting: &mut BTreeMap<String, Vec<(usize, Batch)>>,
        output: &mut Output,
    ) {
        let batches: Vec<Batch> = batches.into_iter().filter(|batch| batch.rows.num_rows() > 0).collect();
        if batches.is_empty() {
            return;
        }
        let pipeline = &self.plan.pipeline;
        for (name, node) in &pipeline.transforms {
            if let Some(input) = node.inputs.iter().position(|input| input == from) {
                waiting.entry(name.clone()).or_default().extend(batches.iter().map(|b| (input, b.clone())));
            }
        }
        for (name, node) in &pipeline.sinks {
            if node.inputs.iter().any(|input| input == from) {
                output.sinks.entry(name.clone()).or_default().extend(batches.iter().cloned());
            }
        }
        if self.tap.contains(from) {
            output.tapped.entry(from.to_owned()).or_default().extend(batches);
        }
    }

    /// The state of all transforms.
    pub fn state(&self) -> Result<Vec<u8>> {
        let mut out = Writer::default();
        out.unsigned(self.transforms.len() as u64);
        for (name, transform) in &self.transforms {
            out.bytes(name.as_bytes());
            out.bytes(&transform.state()?);
        }
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
                transform.restore(state).map_err(|error| {
                    Error::internal(format!("the state of the transform '{name}' does not fit: {error}"))
                })?;
            }
        }
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
