//! Joins whose condition is no equality: those of space, those of intervals, and DataFusion's nested loops.

use std::sync::Arc;

use datafusion::common::{JoinType, Result, not_impl_err};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::NestedLoopJoinExec;

use super::message::{
    Join, read_filter, read_join_type, read_projection, write_filter, write_join_type, write_projection,
};
use super::{Read, Write, is_split};
use crate::join::exec::{Parts, SpatialJoinExec};
use crate::time::overlap::exec::{OverlapJoinExec, Parts as OverlapParts};

pub(super) fn write_spatial(join: &SpatialJoinExec, write: Write<'_>) -> Result<Join> {
    let parts = join.parts();
    Ok(Join {
        filter: Some(write_filter(&parts.filter, write)?),
        join_type: write_join_type(parts.join_type)?,
        projection: write_projection(parts.projection.as_deref())?,
        with_distance: parts.with_distance,
        whole: parts.whole,
    })
}

pub(super) fn read_spatial(
    join: Join,
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
    read: Read<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let parts = Parts {
        filter: read_filter(join.filter, read)?,
        join_type: read_join_type(join.join_type)?,
        projection: read_projection(join.projection),
        with_distance: join.with_distance,
        whole: join.whole,
    };
    Ok(Arc::new(SpatialJoinExec::of_parts(Arc::clone(left), Arc::clone(right), parts)?))
}

pub(super) fn write_overlap(join: &OverlapJoinExec, write: Write<'_>) -> Result<Join> {
    let parts = join.parts();
    Ok(Join {
        filter: Some(write_filter(&parts.filter, write)?),
        join_type: write_join_type(parts.join_type)?,
        projection: write_projection(parts.projection.as_deref())?,
        with_distance: false,
        whole: parts.whole,
    })
}

pub(super) fn read_overlap(
    join: Join,
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
    read: Read<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let parts = OverlapParts {
        filter: read_filter(join.filter, read)?,
        join_type: read_join_type(join.join_type)?,
        projection: read_projection(join.projection),
        whole: join.whole,
    };
    Ok(Arc::new(OverlapJoinExec::of_parts(Arc::clone(left), Arc::clone(right), parts)?))
}

/// A nested loop notes for all partitions of its right side together which left rows met something. Where that matters
/// the sides change places, since a right row meets the whole of the left side within its own partition.
pub(super) fn nested_loop(join: &NestedLoopJoinExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let tracks_left = match join.join_type() {
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => true,
        JoinType::Full if is_split(join.right()) => {
            return not_impl_err!("a FULL JOIN without an equality over several partitions");
        }
        _ => false,
    };
    if !tracks_left || !is_split(join.right()) {
        return Ok(None);
    }
    let whole = Arc::new(CoalescePartitionsExec::new(Arc::clone(join.right())));
    let projection = join.projection().as_ref().map(|projection| projection.to_vec());
    let filter = join.filter().cloned();
    let left = Arc::clone(join.left());
    let again = NestedLoopJoinExec::try_new(left, whole, filter, join.join_type(), projection)?;
    again.swap_inputs().map(Some)
}
