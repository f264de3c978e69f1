//! Making the build side: in memory, or both sides on disk when it does not fit.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, JoinSide, JoinType, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, SpillManager};
use futures::StreamExt;
use futures::future::{BoxFuture, Shared};

use super::build::{BuildSide, index_bytes};
use super::condition::Condition;
use super::extent_filter::ExtentFilter;
use super::grid::Grid;
use super::keys::Keys;
use super::metrics::JoinMetrics;
use super::nearest_spilled::{PartWriter, Searched, Searching};
use super::partition::{Cutter, numbered};
use super::predicate::Test;
use super::rows::Rows;
use super::spilled::{Cells, Spilled, tracks_right};
use super::stream::{Joining, tracks_left};

pub(super) type Outcome = Result<Built, Arc<DataFusionError>>;

/// The build side in memory, or both sides on disk.
#[derive(Debug, Clone)]
pub(super) enum Built {
    Memory(Arc<BuildSide>),
    Disk(Arc<Spilled>),
    /// The build side alone on disk, in parts to be searched for the nearest.
    Parts(Arc<Searched>),
}

/// The build side, made once for all partitions by whoever comes first.
#[derive(Default)]
pub(super) struct OnceBuild(pub(super) Mutex<Option<Shared<BoxFuture<'static, Outcome>>>>);

/// What it takes to make the build side.
pub(super) struct Building {
    pub left: Arc<dyn ExecutionPlan>,
    pub right: Arc<dyn ExecutionPlan>,
    pub context: Arc<TaskContext>,
    pub condition: Arc<Condition>,
    pub join_type: JoinType,
    pub metrics: JoinMetrics,
    /// To be told where the build side lies.
    pub filters: Vec<ExtentFilter>,
}

impl Building {
    /// Reads the build side and indexes it, or cuts both sides onto disk when it does not fit.
    pub(super) async fn build(self) -> Result<Built> {
        let reservation = MemoryConsumer::new("SpatialJoin").register(self.context.memory_pool());
        let mut batches = Vec::new();
        let mut rows = 0;
        let mut input = self.left.execute(0, Arc::clone(&self.context))?;
        let timer = self.metrics.build_time.timer();
        while let Some(batch) = input.next().await.transpose()? {
            rows += batch.num_rows();
            let bytes = batch.get_array_memory_size() + index_bytes(batch.num_rows());
            batches.push(batch);
            match reservation.try_grow(bytes) {
                Ok(()) => {}
                Err(error) if !self.may_spill() => return Err(error),
                Err(_) => {
                    drop(timer);
                    if matches!(self.condition.predicate.test, Test::Nearest { .. }) {
                        return self.spill_parts(batches, input, reservation).await;
                    }
                    return self.spill(batches, input, reservation).await;
                }
            }
        }
        drop(timer);
        let _timer = self.metrics.index_time.timer();
        self.metrics.build_rows.add(rows);
        // For a moment, one batch made of many takes as much again.
        let held = reservation.size();
        let may_copy = reservation.try_grow(held).is_ok();
        let rows = Rows::new(self.left.schema(), batches, may_copy)?;
        if may_copy {
            reservation.shrink(held);
        }
        self.metrics.build_mem_used.set(held);
        let partitions = self.right.output_partitioning().partition_count();
        let tracked = tracks_left(self.join_type);
        let build = BuildSide::new(rows, &self.condition, tracked, partitions, reservation)?;
        let boxes = build.reach(&self.condition);
        self.filters.iter().try_for_each(|filter| filter.fill_in(boxes.as_deref()))?;
        Ok(Built::Memory(Arc::new(build)))
    }

    fn may_spill(&self) -> bool {
        self.context.runtime_env().disk_manager.tmp_files_enabled()
    }

    /// The nearest can be anywhere, so the other side is not cut, and each of its rows is held against all parts.
    async fn spill_parts(
        &self,
        batches: Vec<RecordBatch>,
        mut input: SendableRecordBatchStream,
        reservation: MemoryReservation,
    ) -> Result<Built> {
        // Beside a part lie a block of the other side and what was found for it.
        let part_bytes = reservation.size() / 4;
        let (runtime, metrics) = (self.context.runtime_env(), self.metrics.spill.clone());
        let manager = SpillManager::new(runtime, metrics, numbered(&self.left.schema()));
        let mut parts = PartWriter::new(manager, part_bytes);
        for batch in batches {
            parts.add(&batch)?;
        }
        reservation.free();
        while let Some(batch) = input.next().await.transpose()? {
            reservation.grow(batch.get_array_memory_size());
            parts.add(&batch)?;
            reservation.resize(parts.gathered_bytes());
        }
        drop(input);
        self.filters.iter().try_for_each(|filter| filter.fill_in(None))?;
        let partitions = self.right.output_partitioning().partition_count();
        let searched = parts.finish(self.join_type, partitions, Arc::clone(self.context.memory_pool()))?;
        self.metrics.build_rows.add(usize::try_from(searched.rows()).unwrap_or(usize::MAX));
        Ok(Built::Parts(Arc::new(searched)))
    }

    async fn spill(
        &self,
        batches: Vec<RecordBatch>,
        mut input: SendableRecordBatchStream,
        reservation: MemoryReservation,
    ) -> Result<Built> {
        let mut sample = Vec::new();
        for batch in &batches {
            let keys = Keys::evaluate(&self.condition, JoinSide::Left, batch)?;
            for row in (0..batch.num_rows()).step_by(1 + batches.len()) {
                sample.extend(keys.get(row)?.and_then(|key| key.extent.bounds()));
            }
        }
        let grid = Arc::new(Grid::new(sample));
        reservation.free();
        let cutter = |side, keep_all, schema: SchemaRef| {
            let reservation = MemoryConsumer::new("SpatialJoinCutter").register(self.context.memory_pool());
            let (runtime, metrics) = (self.context.runtime_env(), self.metrics.spill.clone());
            let manager = SpillManager::new(runtime, metrics, numbered(&schema));
            Cutter::new(Arc::clone(&self.condition), Arc::clone(&grid), side, keep_all, manager, reservation)
        };
        let mut left = cutter(JoinSide::Left, tracks_left(self.join_type), self.left.schema());
        for batch in batches {
            left.add(&batch)?;
        }
        while let Some(batch) = input.next().await.transpose()? {
            left.add(&batch)?;
        }
        drop(input);
        let left = left.finish()?;
        self.metrics.build_rows.add(usize::try_from(left.rows).unwrap_or(usize::MAX));
        self.filters.iter().try_for_each(|filter| filter.fill_in(None))?;
        let partitions = self.right.output_partitioning().partition_count();
        let streams: Vec<_> = (0..partitions)
            .map(|partition| self.right.execute(partition, Arc::clone(&self.context)))
            .collect::<Result<_>>()?;
        let mut streams = futures::stream::select_all(streams);
        let mut right = cutter(JoinSide::Right, tracks_right(self.join_type), self.right.schema());
        while let Some(batch) = streams.next().await.transpose()? {
            self.metrics.probe_rows.add(batch.num_rows());
            right.add(&batch)?;
        }
        let right = right.finish()?;
        let pool = Arc::clone(self.context.memory_pool());
        Ok(Built::Disk(Arc::new(Spilled::new(left, right, grid, self.join_type, partitions, pool))))
    }
}

/// The join of one partition, from memory or from disk.
pub(super) enum Work {
    Memory(Box<Joining>),
    Disk(Box<Cells>),
    Parts(Box<Searching>),
}

impl Work {
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Memory(joining) => joining.next().await,
            Self::Disk(cells) => cells.next().await,
            Self::Parts(searching) => searching.next().await,
        }
    }
}
