//! The search for the nearest when the side that is searched does not fit into memory.
//!
//! That side goes to disk in parts that fit. The other side is taken in blocks of rows; each block is held against part
//! after part, and the nearest found so far are kept of each of its rows. One partition at a time has a part in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use datafusion::common::{JoinSide, JoinType, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::SpillManager;
use futures::StreamExt;

use super::build::{BuildSide, index_bytes};
use super::partition::{Side, numbers};
use super::predicate::Test;
use super::probe::{Pairs, Probe, keep_where};
use super::rows::Rows;
use super::spilled::{Bits, Remaining, lost};
use super::stream::{Task, emit_pairs, give_way, tracks_left};

/// The side that is searched, on disk in parts, shared by all partitions of the other side.
pub(super) struct Searched {
    side: Side,
    /// What a part takes in memory, as a block may.
    part_bytes: usize,
    /// What a row takes in memory.
    row_bytes: usize,
    met: Bits,
    /// Partitions that still search; the last one tells what met nothing.
    searching: AtomicUsize,
    /// Held by the partition that has a part in memory.
    turn: futures::lock::Mutex<()>,
    pool: Arc<dyn MemoryPool>,
}

impl std::fmt::Debug for Searched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Searched").field("parts", &self.side.files.len()).finish_non_exhaustive()
    }
}

impl Searched {
    pub(super) fn rows(&self) -> u64 {
        self.side.rows
    }
}

/// Writes the side that is searched, part after part, as it comes.
pub(super) struct PartWriter {
    side: Side,
    part_bytes: usize,
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    bytes: usize,
}

impl PartWriter {
    /// For parts of so many bytes; `manager` writes the columns of the side and the two that tell its rows apart
    /// ([`super::partition::numbered`]).
    pub(super) fn new(manager: SpillManager, part_bytes: usize) -> Self {
        let side = Side { manager, files: Vec::new(), rows: 0 };
        Self { side, part_bytes, gathered: Vec::new(), gathered_bytes: 0, bytes: 0 }
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let count = batch.num_rows();
        if count == 0 {
            return Ok(());
        }
        let bytes = batch.get_array_memory_size() + index_bytes(count);
        if self.gathered_bytes + bytes > self.part_bytes {
            self.write()?;
        }
        let from = self.side.rows;
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(UInt64Array::from_iter_values(from..from + count as u64)) as ArrayRef);
        columns.push(Arc::new(BooleanArray::from(vec![true; count])));
        self.gathered.push(RecordBatch::try_new(Arc::clone(self.side.manager.schema()), columns)?);
        self.side.rows += count as u64;
        self.gathered_bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// What waits to be written.
    pub(super) fn gathered_bytes(&self) -> usize {
        self.gathered_bytes
    }

    fn write(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let file = self.side.manager.spill_record_batch_and_finish(&batches, "a side that is searched")?;
        self.side.files.extend(file.map(|file| vec![file]));
        Ok(())
    }

    pub(super) fn finish(
        mut self,
        join_type: JoinType,
        partitions: usize,
        pool: Arc<dyn MemoryPool>,
    ) -> Result<Searched> {
        self.write()?;
        let rows = self.side.rows;
        Ok(Searched {
            part_bytes: self.part_bytes,
            row_bytes: self.bytes / usize::try_from(rows).unwrap_or(usize::MAX).max(1) + 1,
            met: Bits::new(if tracks_left(join_type) { rows } else { 0 }),
            searching: AtomicUsize::new(partitions),
            turn: futures::lock::Mutex::new(()),
            side: self.side,
            pool,
        })
    }
}

/// Rows of the other side with the nearest found so far.
struct Asking {
    batch: RecordBatch,
    /// The rows that `pairs` speaks of.
    found: RecordBatch,
    pairs: Pairs,
}

/// One partition's search.
pub(super) struct Searching {
    task: Arc<Task>,
    searched: Arc<Searched>,
    /// Gone when it has ended.
    input: Option<SendableRecordBatchStream>,
    /// What is left of a batch that filled a block.
    back: Option<RecordBatch>,
    /// Whether all rows of the input have been searched for.
    done: bool,
    remaining: Option<Remaining>,
    ready: VecDeque<RecordBatch>,
    reservation: MemoryReservation,
}

impl Searching {
    pub(super) fn new(task: Arc<Task>, searched: Arc<Searched>, input: SendableRecordBatchStream) -> Self {
        let reservation = MemoryConsumer::new("SpatialJoinBlock").register(&searched.pool);
        let (input, ready) = (Some(input), VecDeque::new());
        Self { task, searched, input, back: None, done: false, remaining: None, ready, reservation }
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if let Some(remaining) = &mut self.remaining {
                let searched = &self.searched;
                if remaining.next(&self.task, &searched.side, &searched.met, &mut self.ready).await? {
                    continue;
                }
                self.remaining = None;
            }
            if self.done {
                return Ok(None);
            }
            let block = self.block().await?;
            if block.is_empty() {
                self.done = true;
                let last = self.searched.searching.fetch_sub(1, Ordering::AcqRel) == 1;
                if last && tracks_left(self.task.join_type) {
                    self.remaining = Some(Remaining::new(JoinSide::Left));
                }
                continue;
            }
            self.search(block).await?;
            self.reservation.free();
        }
    }

    /// How many of the nearest are asked for.
    fn count(&self) -> usize {
        match self.task.condition.predicate.test {
            Test::Nearest { count, .. } => count,
            _ => 0,
        }
    }

    /// As many rows as may have their nearest in memory beside a part; none at the end.
    async fn block(&mut self) -> Result<Vec<Asking>> {
        let nearest_bytes = self.count().saturating_mul(self.searched.row_bytes).max(1);
        let mut room = (self.searched.part_bytes / nearest_bytes).max(1);
        let mut block = Vec::new();
        let mut bytes = 0;
        while room > 0 && (block.is_empty() || bytes < self.searched.part_bytes) {
            let batch = match (self.back.take(), &mut self.input) {
                (Some(batch), _) => batch,
                (None, Some(input)) => {
                    let Some(batch) = input.next().await.transpose()? else {
                        self.input = None;
                        break;
                    };
                    self.task.metrics.probe_rows.add(batch.num_rows());
                    batch
                }
                (None, None) => break,
            };
            let now = batch.num_rows().min(room);
            if now < batch.num_rows() {
                self.back = Some(batch.slice(now, batch.num_rows() - now));
            }
            if now == 0 {
                continue;
            }
            bytes += batch.get_array_memory_size() * now / batch.num_rows();
            room -= now;
            block.push(Asking {
                batch: batch.slice(0, now),
                found: RecordBatch::new_empty(Arc::clone(self.searched.side.manager.schema())),
                pairs: Pairs::default(),
            });
        }
        // A block is at least one row, whatever the others hold: else there were no way on.
        self.reservation.grow(bytes);
        Ok(block)
    }

    async fn search(&mut self, mut block: Vec<Asking>) -> Result<()> {
        let (task, searched) = (Arc::clone(&self.task), Arc::clone(&self.searched));
        let turn = searched.turn.lock().await;
        let count = self.count();
        let found = MemoryConsumer::new("SpatialJoinNearest").register(&searched.pool);
        for part in 0..searched.side.files.len() {
            let Some(build) = load(&task, &searched, part).await? else { continue };
            let mut bytes = 0;
            for asking in &mut block {
                let timer = task.metrics.join_time.timer();
                asking.look(&task, &build, count)?;
                drop(timer);
                bytes += asking.found.get_array_memory_size();
                // A block was cut so that this fits; only what one row asks for may be too much.
                if bytes <= searched.part_bytes {
                    found.resize(bytes.max(found.size()));
                } else {
                    found.try_resize(bytes.max(found.size()))?;
                }
                give_way().await;
            }
        }
        drop(turn);
        for asking in block {
            let nearest = Rows::of(asking.found);
            let probe = Rows::of(asking.batch);
            let pairs = match &task.condition.rest {
                Some(rest) if !asking.pairs.left.is_empty() => {
                    keep_where(asking.pairs, rest, &nearest, &probe)?
                }
                _ => asking.pairs,
            };
            task.metrics.matches.add(pairs.left.len());
            if tracks_left(task.join_type) {
                let own = nearest.batches().first().and_then(numbers).ok_or_else(lost)?.0;
                pairs.left.iter().for_each(|row| searched.met.set(own.value(*row as usize)));
            }
            emit_pairs(&task, &nearest, &probe, 0..probe.len(), pairs, &mut self.ready)?;
        }
        Ok(())
    }
}

/// A part, indexed; `None` when it is empty.
async fn load(task: &Task, searched: &Searched, part: usize) -> Result<Option<BuildSide>> {
    let reservation = MemoryConsumer::new("SpatialJoinPart").register(&searched.pool);
    let mut batches: Vec<RecordBatch> = Vec::new();
    let Some(mut rows) = searched.side.read(part, 0)? else { return Ok(None) };
    while let Some(batch) = rows.next().await.transpose()? {
        // It was cut so that it fits; what others took since must not end the search.
        reservation.grow(batch.get_array_memory_size() + index_bytes(batch.num_rows()));
        batches.push(batch);
    }
    let rows = Rows::new(Arc::clone(searched.side.manager.schema()), batches, false)?;
    let _timer = task.metrics.index_time.timer();
    Ok(Some(BuildSide::new(rows, &task.condition, false, 1, reservation)?))
}

impl Asking {
    /// Takes over what is nearer in a part than what was found before.
    fn look(&mut self, task: &Task, build: &BuildSide, count: usize) -> Result<()> {
        let mut probe = Probe::new(&task.condition, self.batch.clone())?;
        let new =
            probe.pairs(build, &task.condition, usize::MAX, &|_, _| true, false, &task.metrics.candidates)?;
        let before = self.found.num_rows() as u32;
        let mut chosen: Vec<u32> = Vec::new();
        let mut pairs = Pairs::default();
        let (mut old_at, mut new_at) = (0, 0);
        let mut near: Vec<(Option<f64>, u32)> = Vec::new();
        for row in 0..self.batch.num_rows() as u32 {
            near.clear();
            take(&self.pairs, &mut old_at, row, 0, &mut near);
            take(&new, &mut new_at, row, before, &mut near);
            // Those without a distance come last; what was found first stays first.
            near.sort_by(|a, b| match (a.0, b.0) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                (a, b) => a.is_none().cmp(&b.is_none()),
            });
            for (distance, place) in near.iter().take(count) {
                pairs.left.push(chosen.len() as u32);
                pairs.right.push(row);
                pairs.distances.push(*distance);
                chosen.push(*place);
            }
        }
        let mut batches = vec![self.found.clone()];
        batches.extend_from_slice(build.rows.batches());
        let all = Rows::new(self.found.schema(), batches, false)?;
        self.found = all.chosen(&UInt32Array::from(chosen))?;
        self.pairs = pairs;
        Ok(())
    }
}

/// The pairs of a row, which come in the order of rows.
fn take(pairs: &Pairs, at: &mut usize, row: u32, offset: u32, into: &mut Vec<(Option<f64>, u32)>) {
    while pairs.right.get(*at) == Some(&row) {
        into.push((pairs.distances[*at], pairs.left[*at] + offset));
        *at += 1;
    }
}
