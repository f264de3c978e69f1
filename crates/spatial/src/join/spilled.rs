//! Joining cell by cell from disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::common::{DataFusionError, JoinSide, JoinType, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use futures::StreamExt;

use super::build::{BuildSide, index_bytes};
use super::grid::Grid;
use super::partition::{Side, cells, numbers};
use super::probe::{Probe, keep_where};
use super::rows::{Chosen, Rows, assemble};
use super::stream::{Task, give_way, needs_unmatched_right, tracks_left};

/// Both sides on disk, shared by all partitions, each of which takes cell after cell.
pub(super) struct Spilled {
    pub left: Side,
    pub right: Side,
    grid: Arc<Grid>,
    next: AtomicUsize,
    /// Partitions that still join; the last one tells what met nothing.
    joining: AtomicUsize,
    left_met: Bits,
    right_met: Bits,
    pool: Arc<dyn MemoryPool>,
}

impl std::fmt::Debug for Spilled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spilled").field("cells", &self.grid.cells()).finish_non_exhaustive()
    }
}

/// A bit for each row of a side.
pub(super) struct Bits(Vec<AtomicU64>);

impl Bits {
    pub(super) fn new(count: u64) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn set(&self, row: u64) {
        self.0[(row / 64) as usize].fetch_or(1 << (row % 64), Ordering::Relaxed);
    }

    pub(super) fn get(&self, row: u64) -> bool {
        self.0[(row / 64) as usize].load(Ordering::Relaxed) & (1 << (row % 64)) != 0
    }
}

impl Spilled {
    pub(super) fn new(
        left: Side,
        right: Side,
        grid: Arc<Grid>,
        join_type: JoinType,
        partitions: usize,
        pool: Arc<dyn MemoryPool>,
    ) -> Self {
        let left_met = Bits::new(if tracks_left(join_type) { left.rows } else { 0 });
        let right_met = Bits::new(if tracks_right(join_type) { right.rows } else { 0 });
        Self {
            left,
            right,
            grid,
            next: AtomicUsize::new(0),
            joining: AtomicUsize::new(partitions),
            left_met,
            right_met,
            pool,
        }
    }
}

/// Whether it matters at the end which rows of the probe side have met something.
pub(super) fn tracks_right(join_type: JoinType) -> bool {
    needs_unmatched_right(join_type) || join_type == JoinType::RightSemi
}

/// One partition's share of the cells.
pub(super) struct Cells {
    task: Arc<Task>,
    spilled: Arc<Spilled>,
    at: Stage,
    ready: VecDeque<RecordBatch>,
}

enum Stage {
    NextCell,
    /// Rows of the build side that fit, then all of the other file past them.
    Cell(Box<Cell>),
    Last(Remaining),
    Done,
}

/// Rows of a side that come out once, at the end, by whether they have met something.
pub(super) struct Remaining {
    side: JoinSide,
    cell: usize,
    file: usize,
    rows: Option<SendableRecordBatchStream>,
}

struct Cell {
    number: usize,
    build: Reader,
    probe: Option<(Arc<BuildSide>, Reader)>,
}

/// Reads the files of a cell one after the other; a batch may be put back.
struct Reader {
    side: JoinSide,
    cell: usize,
    file: usize,
    rows: Option<SendableRecordBatchStream>,
    back: Option<RecordBatch>,
}

impl Reader {
    fn new(side: JoinSide, cell: usize) -> Self {
        Self { side, cell, file: 0, rows: None, back: None }
    }

    async fn next(&mut self, spilled: &Spilled) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.back.take() {
            return Ok(Some(batch));
        }
        loop {
            if let Some(rows) = &mut self.rows {
                if let Some(batch) = rows.next().await.transpose()? {
                    return Ok(Some(batch));
                }
                self.rows = None;
                self.file += 1;
            }
            let side = if self.side == JoinSide::Left { &spilled.left } else { &spilled.right };
            match side.read(self.cell, self.file)? {
                Some(rows) => self.rows = Some(rows),
                None => return Ok(None),
            }
        }
    }
}

impl Cells {
    pub(super) fn new(task: Arc<Task>, spilled: Arc<Spilled>) -> Self {
        Self { task, spilled, at: Stage::NextCell, ready: VecDeque::new() }
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            match &mut self.at {
                Stage::NextCell => {
                    let number = self.spilled.next.fetch_add(1, Ordering::Relaxed);
                    self.at = if number < self.spilled.grid.cells() {
                        let build = Reader::new(JoinSide::Left, number);
                        Stage::Cell(Box::new(Cell { number, build, probe: None }))
                    } else if self.spilled.joining.fetch_sub(1, Ordering::AcqRel) == 1 {
                        Stage::Last(Remaining::new(JoinSide::Left))
                    } else {
                        Stage::Done
                    };
                }
                Stage::Cell(cell) => {
                    let going = match &mut cell.probe {
                        None => cell.load(&self.task, &self.spilled).await?,
                        Some((build, reader)) => {
                            if let Some(batch) = reader.next(&self.spilled).await? {
                                join(&self.task, &self.spilled, cell.number, build, batch, &mut self.ready)?;
                                give_way().await;
                            } else {
                                cell.probe = None;
                            }
                            true
                        }
                    };
                    if !going {
                        self.at = Stage::NextCell;
                    }
                }
                Stage::Last(_) => self.last().await?,
                Stage::Done => return Ok(None),
            }
        }
    }

    /// What is told of each row at the end: of the build side, then of the other.
    async fn last(&mut self) -> Result<()> {
        let Stage::Last(remaining) = &mut self.at else { return Ok(()) };
        let (join_type, spilled) = (self.task.join_type, &self.spilled);
        let (from, met, wanted, then) = match remaining.side {
            JoinSide::Left => {
                let then = Stage::Last(Remaining::new(JoinSide::Right));
                (&spilled.left, &spilled.left_met, tracks_left(join_type), then)
            }
            _ => (&spilled.right, &spilled.right_met, tracks_right(join_type), Stage::Done),
        };
        if !wanted || !remaining.next(&self.task, from, met, &mut self.ready).await? {
            self.at = then;
        }
        Ok(())
    }
}

impl Remaining {
    pub(super) fn new(side: JoinSide) -> Self {
        Self { side, cell: 0, file: 0, rows: None }
    }

    /// A step on; false at the end.
    pub(super) async fn next(
        &mut self,
        task: &Task,
        from: &Side,
        met: &Bits,
        ready: &mut VecDeque<RecordBatch>,
    ) -> Result<bool> {
        if self.cell == from.files.len() {
            return Ok(false);
        }
        let Some(open) = &mut self.rows else {
            self.rows = from.read(self.cell, self.file)?;
            if self.rows.is_none() {
                (self.cell, self.file) = (self.cell + 1, 0);
            }
            return Ok(true);
        };
        let Some(batch) = open.next().await.transpose()? else {
            self.rows = None;
            self.file += 1;
            return Ok(true);
        };
        let (numbers, first) = numbers(&batch).ok_or_else(lost)?;
        let semi = matches!(task.join_type, JoinType::LeftSemi | JoinType::RightSemi);
        let marks = matches!(task.join_type, JoinType::LeftMark | JoinType::RightMark);
        let chosen: Vec<u32> = (0..batch.num_rows())
            .filter(|row| first.value(*row) && (marks || met.get(numbers.value(*row)) == semi))
            .map(|row| row as u32)
            .collect();
        let mark: BooleanArray =
            chosen.iter().map(|row| Some(met.get(numbers.value(*row as usize)))).collect();
        let rows = Rows::of(batch);
        for (piece, offset) in chosen.chunks(task.batch_size).zip((0..).step_by(task.batch_size)) {
            let piece_numbers = UInt32Array::from(piece.to_vec());
            let own = Chosen { rows: &rows, numbers: Some(&piece_numbers) };
            let other = Chosen { rows: &rows, numbers: None };
            let (left, right) = if self.side == JoinSide::Left { (own, other) } else { (other, own) };
            let mark: ArrayRef = Arc::new(mark.slice(offset, piece.len()));
            let (schema, columns) = (&task.schema, &task.columns);
            ready.push_back(assemble(schema, columns, left, right, Some(&mark), piece.len())?);
        }
        Ok(true)
    }
}

impl Cell {
    /// Indexes as much of the build side as memory allows; false when all of it has been.
    async fn load(&mut self, task: &Task, spilled: &Spilled) -> Result<bool> {
        let reservation = MemoryConsumer::new("SpatialJoinCell").register(&spilled.pool);
        let (mut batches, mut count): (Vec<RecordBatch>, usize) = (Vec::new(), 0);
        while let Some(batch) = self.build.next(spilled).await? {
            let bytes = batch.get_array_memory_size() + index_bytes(batch.num_rows());
            if batches.is_empty() {
                // One batch, of a megabyte or so, whatever the others hold: else there were no way on.
                reservation.grow(bytes);
            } else if reservation.try_grow(bytes).is_err() {
                self.build.back = Some(batch);
                break;
            }
            count += batch.num_rows();
            batches.push(batch);
        }
        if count == 0 {
            return Ok(false);
        }
        let rows = Rows::new(Arc::clone(spilled.left.manager.schema()), batches, false)?;
        let _timer = task.metrics.index_time.timer();
        let build = BuildSide::new(rows, &task.condition, false, 1, reservation)?;
        self.probe = Some((Arc::new(build), Reader::new(JoinSide::Right, self.number)));
        Ok(true)
    }
}

pub(super) fn lost() -> DataFusionError {
    DataFusionError::Internal("the row numbers of a spatial join are lost".to_owned())
}

/// Joins a batch of a cell's other file with the cell's build side.
fn join(
    task: &Task,
    spilled: &Spilled,
    cell: usize,
    build: &BuildSide,
    batch: RecordBatch,
    ready: &mut VecDeque<RecordBatch>,
) -> Result<()> {
    let _timer = task.metrics.join_time.timer();
    let mut probe = Probe::new(&task.condition, batch)?;
    while !probe.is_done() {
        // A pair belongs to the first cell that both are in.
        let keep = |left: u32, key: &super::keys::Key| -> bool {
            let Ok(Some(left)) = build.key(left) else { return true };
            let own = cells(&spilled.grid, &task.condition, JoinSide::Left, &left);
            let other = cells(&spilled.grid, &task.condition, JoinSide::Right, key);
            own.iter().find(|cell| other.binary_search(cell).is_ok()) == Some(&(cell as u32))
        };
        let pairs =
            probe.pairs(build, &task.condition, task.batch_size, &keep, false, &task.metrics.candidates)?;
        let pairs = match &task.condition.rest {
            Some(rest) if !pairs.left.is_empty() => keep_where(pairs, rest, &build.rows, &probe.rows)?,
            _ => pairs,
        };
        task.metrics.matches.add(pairs.left.len());
        if tracks_right(task.join_type) {
            let (rows, _) = probe.rows.batches().first().and_then(numbers).ok_or_else(lost)?;
            pairs.right.iter().for_each(|row| spilled.right_met.set(rows.value(*row as usize)));
        }
        if tracks_left(task.join_type) {
            for row in &pairs.left {
                let (batch, place) = build.rows.place(*row as usize);
                let (rows, _) = numbers(&build.rows.batches()[batch]).ok_or_else(lost)?;
                spilled.left_met.set(rows.value(place));
            }
        }
        if matches!(task.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) {
            for (left, right) in pairs.left.chunks(task.batch_size).zip(pairs.right.chunks(task.batch_size)) {
                let (left, right) = (UInt32Array::from(left.to_vec()), UInt32Array::from(right.to_vec()));
                let left_rows = Chosen { rows: &build.rows, numbers: Some(&left) };
                let right_rows = Chosen { rows: &probe.rows, numbers: Some(&right) };
                ready.push_back(assemble(
                    &task.schema,
                    &task.columns,
                    left_rows,
                    right_rows,
                    None,
                    left.len(),
                )?);
            }
        }
    }
    Ok(())
}
