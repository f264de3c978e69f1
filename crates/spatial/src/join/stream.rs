//! One partition of the join at work: probe batch after batch, then what is left of the build side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::{JoinType, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::joins::utils::ColumnIndex;
use futures::StreamExt;

use super::build::BuildSide;
use super::condition::Condition;
use super::metrics::JoinMetrics;
use super::probe::{Pairs, Probe, keep_where};
use super::rows::{Chosen, Rows, assemble};

/// What a partition needs to know of the plan.
pub(super) struct Task {
    pub condition: Arc<Condition>,
    pub join_type: JoinType,
    /// The fields of the output and where each comes from.
    pub schema: SchemaRef,
    pub columns: Vec<ColumnIndex>,
    pub batch_size: usize,
    pub metrics: JoinMetrics,
}

/// What of the build side comes out when all is probed.
pub(super) fn tracks_left(join_type: JoinType) -> bool {
    matches!(
        join_type,
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
    )
}

/// Whether rows of the probe side that meet nothing come out too.
pub(super) fn needs_unmatched_right(join_type: JoinType) -> bool {
    matches!(join_type, JoinType::Right | JoinType::Full | JoinType::RightAnti | JoinType::RightMark)
}

/// Probes one stream against a build side in memory.
pub(super) struct Joining {
    task: Arc<Task>,
    build: Arc<BuildSide>,
    /// Gone when it has ended.
    input: Option<SendableRecordBatchStream>,
    probe: Option<Probe>,
    ready: VecDeque<RecordBatch>,
    /// The next row of the build side to come out at the end.
    remaining: Option<usize>,
}

/// Lets other tasks of the thread run.
pub(super) async fn give_way() {
    let mut gave_way = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut gave_way, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Joining {
    pub(super) fn new(task: Arc<Task>, build: Arc<BuildSide>, input: SendableRecordBatchStream) -> Self {
        // Nothing to meet, and nothing of the other side asked for: it need not be read.
        let pointless = build.rows.len() == 0 && !needs_unmatched_right(task.join_type);
        Self {
            task,
            build,
            input: (!pointless).then_some(input),
            probe: None,
            ready: VecDeque::new(),
            remaining: None,
        }
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.probe.is_some() {
                self.probe_some()?;
                // Long work gives way between batches.
                give_way().await;
                continue;
            }
            if let Some(input) = &mut self.input {
                if let Some(batch) = input.next().await.transpose()? {
                    let _timer = self.task.metrics.join_time.timer();
                    self.task.metrics.probe_rows.add(batch.num_rows());
                    self.probe = Some(Probe::new(&self.task.condition, batch)?);
                } else {
                    self.input = None;
                    if self.build.done_probing() && tracks_left(self.task.join_type) {
                        self.remaining = Some(0);
                    }
                }
                continue;
            }
            match self.remaining {
                Some(from) if from < self.build.rows.len() => self.emit_build(from)?,
                _ => return Ok(None),
            }
        }
    }

    fn probe_some(&mut self) -> Result<()> {
        let _timer = self.task.metrics.join_time.timer();
        let Some(probe) = &mut self.probe else { return Ok(()) };
        let task = &self.task;
        let from = probe.next;
        let first_only = task.condition.rest.is_none()
            && matches!(task.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
        let only_marks =
            matches!(task.join_type, JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark);
        let build = &self.build;
        let pairs = probe.pairs(
            build,
            &task.condition,
            task.batch_size,
            &|left, _| !(only_marks && build.is_marked(left)),
            first_only,
            &task.metrics.candidates,
        )?;
        let pairs = match &task.condition.rest {
            Some(rest) if !pairs.left.is_empty() => keep_where(pairs, rest, &build.rows, &probe.rows)?,
            _ => pairs,
        };
        task.metrics.matches.add(pairs.left.len());
        let to = probe.next;
        if tracks_left(task.join_type) {
            pairs.left.iter().for_each(|row| build.mark(*row));
        }
        emit_pairs(task, &build.rows, &probe.rows, from..to, pairs, &mut self.ready)?;
        if probe.is_done() {
            self.probe = None;
        }
        Ok(())
    }

    /// Rows of the build side that were left for the end.
    fn emit_build(&mut self, from: usize) -> Result<()> {
        let task = &self.task;
        let to = (from + task.batch_size).min(self.build.rows.len());
        let all = from as u32..to as u32;
        let build = &self.build;
        let chosen: UInt32Array = match task.join_type {
            JoinType::LeftSemi => all.clone().filter(|row| build.is_marked(*row)).collect::<Vec<_>>().into(),
            JoinType::LeftMark => all.clone().collect::<Vec<_>>().into(),
            _ => all.clone().filter(|row| !build.is_marked(*row)).collect::<Vec<_>>().into(),
        };
        let mark = (task.join_type == JoinType::LeftMark).then(|| {
            let mark: BooleanArray = all.map(|row| Some(build.is_marked(row))).collect();
            Arc::new(mark) as ArrayRef
        });
        if !chosen.is_empty() {
            let none = Chosen { rows: &build.rows, numbers: None };
            let left = Chosen { rows: &build.rows, numbers: Some(&chosen) };
            let batch = assemble(&task.schema, &task.columns, left, none, mark.as_ref(), chosen.len())?;
            self.ready.push_back(batch);
        }
        self.remaining = Some(to);
        Ok(())
    }
}

/// Makes the output of some rows of the probe side, which the pairs belong to.
pub(super) fn emit_pairs(
    task: &Task,
    build: &Rows,
    probe: &Rows,
    range: std::ops::Range<usize>,
    pairs: Pairs,
    ready: &mut VecDeque<RecordBatch>,
) -> Result<()> {
    let none = Chosen { rows: build, numbers: None };
    if matches!(task.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) {
        let mut distances = pairs.distances.chunks(task.batch_size);
        for (left, right) in pairs.left.chunks(task.batch_size).zip(pairs.right.chunks(task.batch_size)) {
            let distance = distances.next().map(|far| Arc::new(Float64Array::from(far.to_vec())) as ArrayRef);
            let (left, right) = (UInt32Array::from(left.to_vec()), UInt32Array::from(right.to_vec()));
            ready.push_back(assemble(
                &task.schema,
                &task.columns,
                Chosen { rows: build, numbers: Some(&left) },
                Chosen { rows: probe, numbers: Some(&right) },
                distance.as_ref(),
                left.len(),
            )?);
        }
    }
    let chosen: Vec<u32> = match task.join_type {
        JoinType::Right | JoinType::Full | JoinType::RightAnti => {
            let met = met(range.clone(), &pairs.right);
            range.clone().filter(|row| !met[row - range.start]).map(|row| row as u32).collect()
        }
        JoinType::RightSemi => {
            let mut rows = pairs.right;
            rows.dedup();
            rows
        }
        JoinType::RightMark => {
            let mark: BooleanArray = met(range.clone(), &pairs.right).into();
            if mark.is_empty() {
                return Ok(());
            }
            let mark: ArrayRef = Arc::new(mark);
            let rows: UInt32Array = range.map(|row| row as u32).collect::<Vec<_>>().into();
            let right = Chosen { rows: probe, numbers: Some(&rows) };
            ready.push_back(assemble(&task.schema, &task.columns, none, right, Some(&mark), rows.len())?);
            return Ok(());
        }
        _ => return Ok(()),
    };
    if !chosen.is_empty() {
        let rows = UInt32Array::from(chosen);
        let right = Chosen { rows: probe, numbers: Some(&rows) };
        ready.push_back(assemble(&task.schema, &task.columns, none, right, None, rows.len())?);
    }
    Ok(())
}

/// Which rows of a range are among those of the pairs.
fn met(range: std::ops::Range<usize>, rows: &[u32]) -> Vec<bool> {
    let mut met = vec![false; range.len()];
    for row in rows {
        met[*row as usize - range.start] = true;
    }
    met
}
