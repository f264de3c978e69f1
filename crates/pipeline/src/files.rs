//! Sources that are files: read as a whole, through the transforms, into tables whose rows they replace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tokio::sync::{mpsc, watch};
use twinlake_contracts::{
    Batch, Error, Location, Reader, Result, SqlEngine, TableName, TableSpec, TableStore, WriteMode,
    timestamp_type,
};

use crate::flow::{Flow, Output, Refused};
use crate::model::SourceKind;
use crate::normalise::normalise;
use crate::plan::Plan;
use crate::retry::{Pauses, retry};
use crate::stats::RunnerStats;
use crate::window::{rejects_schema, with_columns};

/// What reading files needs.
pub(crate) struct Files<'a> {
    pub plan: &'a Arc<Plan>,
    pub store: &'a Arc<dyn TableStore>,
    pub engine: &'a Arc<dyn SqlEngine>,
    pub stats: &'a Arc<RunnerStats>,
    pub stop: &'a watch::Receiver<bool>,
    pub pauses: Pauses,
    pub now_us: i64,
}

impl Files<'_> {
    /// Reads all files and replaces the rows of their tables; each table in one commit, and only after everything
    /// above it was read to its end. Returns the versions of the tables.
    ///
    /// A damaged file leaves its tables as they are; the others are replaced, and the first failure is returned with them.
    pub async fn run(&self) -> Result<(BTreeMap<TableName, u64>, Option<Error>)> {
        let mut flow = Flow::new(self.plan, self.engine).await?;
        let mut output = Output::default();
        let mut failure: Option<Error> = None;
        let mut failed: BTreeSet<&str> = BTreeSet::new();
        let mut known_at = BTreeMap::new();
        for (name, source) in &self.plan.pipeline.sources {
            let SourceKind::File { path, reader, known_at_us, .. } = &source.kind else { continue };
            known_at.insert(name.as_str(), known_at_us.unwrap_or(self.now_us));
            if let Err(error) = self.read(name, path, reader, &mut flow, &mut output).await {
                if *self.stop.borrow() {
                    break;
                }
                tracing::error!(source = name, %error, "the file could not be read to its end");
                self.stats.failed(&error);
                failed.insert(name);
                failure.get_or_insert(error);
            }
        }
        let mut versions = BTreeMap::new();
        if *self.stop.borrow() {
            return Ok((versions, None)); // told to stop: the tables stay as they are
        }
        if let Err(error) = flow.finish(None, &mut output).await {
            return Ok((versions, Some(failure.unwrap_or(error))));
        }
        if let Some(guard) = self.plan.guard() {
            let sinks = self.plan.pipeline.sinks.iter().filter_map(|(sink, node)| {
                let rows = output.sinks.get(sink)?.iter().map(|batch| batch.rows.clone()).collect();
                Some((node.table.clone(), rows))
            });
            if let Err(error) = guard.judge_all(&sinks.collect::<Vec<_>>()).await {
                return Ok((versions, Some(failure.unwrap_or(error))));
            }
        }
        for (sink, node) in &self.plan.pipeline.sinks {
            let above = self.plan.pipeline.ancestors(&node.inputs);
            if self.plan.mode(sink) != WriteMode::Replace
                || above.iter().any(|source| failed.contains(source))
            {
                continue;
            }
            let received = above.iter().filter_map(|source| known_at.get(source)).max().copied();
            let batches = output.sinks.remove(sink).unwrap_or_default();
            let spec = &self.plan.tables[sink];
            let batches = batches
                .iter()
                .map(|batch| land(spec, &batch.rows, received.unwrap_or(self.now_us)))
                .collect::<Result<Vec<_>>>()?;
            let rows = batches.iter().map(RecordBatch::num_rows).sum();
            let writer = format!("{}/{sink}", self.plan.pipeline.name);
            versions.insert(spec.name.clone(), self.write(spec, &writer, batches, WriteMode::Replace).await?);
            self.stats.add_rows(sink, rows);
        }
        if !output.refused.is_empty() {
            for refused in &output.refused {
                self.stats.add_reject(&refused.reason);
            }
            let name = TableName { schema: "meta".into(), table: "rejects".into() };
            let spec = TableSpec { name, schema: rejects_schema(), description: String::new() };
            let writer = format!("{}/rejects.files", self.plan.pipeline.name);
            let rows = vec![self.rejects(&output.refused)?];
            self.write(&spec, &writer, rows, WriteMode::Append).await?;
        }
        Ok((versions, failure))
    }

    async fn read(
        &self,
        name: &str,
        path: &Path,
        reader: &Arc<dyn Reader>,
        flow: &mut Flow,
        output: &mut Output,
    ) -> Result<()> {
        let mut batches = read_batches(reader, path);
        while let Some(batch) = batches.recv().await {
            let (rows, lost) = normalise(&batch?, &self.plan.schemas[name])?;
            if let Some(lost) = lost.first() {
                let message = format!("'{}' in {} does not fit into 64 bits", lost.column, path.display());
                return Err(Error::data("out_of_range", message));
            }
            flow.push(name, Batch { rows, sequences: None }, output).await?;
            if *self.stop.borrow() {
                return Err(Error::permanent(path.display().to_string(), "reading was stopped"));
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        spec: &TableSpec,
        writer: &str,
        batches: Vec<RecordBatch>,
        mode: WriteMode,
    ) -> Result<u64> {
        let (pauses, stats, stop) = (self.pauses, self.stats, self.stop);
        let table =
            retry("opening a table", pauses, stats, stop, || self.store.open_table(spec.clone())).await?;
        let before = retry("opening a table", pauses, stats, stop, || table.committed(writer)).await?;
        // Added only now, at once: queries see the old rows or the new ones, hardly ever both.
        for batch in batches {
            retry("adding rows", pauses, stats, stop, || table.add_fresh(writer, batch.clone())).await?;
        }
        let upto = before.unwrap_or(0) + 1;
        retry("committing", pauses, stats, stop, || table.commit(writer, upto, mode)).await
    }

    fn rejects(&self, refused: &[Refused]) -> Result<RecordBatch> {
        let text = |of: &dyn Fn(&Refused) -> Option<String>| -> ArrayRef {
            Arc::new(refused.iter().map(of).collect::<StringArray>())
        };
        let origin = |component: &str| {
            let node = self.plan.pipeline.transforms.get(component);
            let above = node.map(|node| self.plan.pipeline.ancestors(&node.inputs)).unwrap_or_default();
            let source = above.first().and_then(|source| self.plan.pipeline.sources.get(*source))?;
            match &source.kind {
                SourceKind::File { path, .. } => Some(path.display().to_string()),
                SourceKind::Messages { .. } => None,
            }
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::new_null(refused.len())),
            times(refused.len(), self.now_us),
            text(&|_| Some(self.plan.pipeline.name.clone())),
            text(&|refused| Some(refused.component.clone())),
            text(&|refused| Some(refused.reason.to_string())),
            text(&|refused| Some(refused.detail.clone())),
            text(&|refused| origin(&refused.component)),
            Arc::new(BinaryArray::new_null(refused.len())),
        ];
        Ok(RecordBatch::try_new(rejects_schema(), columns)?)
    }
}

/// Reads a file on a thread of its own, a few batches ahead.
pub(crate) fn read_batches(reader: &Arc<dyn Reader>, path: &Path) -> mpsc::Receiver<Result<RecordBatch>> {
    let (sender, receiver) = mpsc::channel(4);
    let (reader, location) = (Arc::clone(reader), Location(path.to_owned()));
    tokio::task::spawn_blocking(move || match reader.read(&location) {
        Ok(batches) => {
            for batch in batches {
                let failed = batch.is_err();
                if sender.blocking_send(batch).is_err() || failed {
                    break;
                }
            }
        }
        Err(error) => drop(sender.blocking_send(Err(error))),
    });
    receiver
}

fn times(rows: usize, us: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(us, rows).with_data_type(timestamp_type()))
}

/// A file's rows with the two columns that every fed table has.
fn land(spec: &TableSpec, rows: &RecordBatch, received_us: i64) -> Result<RecordBatch> {
    let count = rows.num_rows();
    with_columns(&spec.schema, rows, Int64Array::new_null(count), times(count, received_us))
}
