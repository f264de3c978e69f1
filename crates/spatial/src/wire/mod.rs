//! The operators of this crate as bytes, so that a part of a plan can run in another process as it does here.
//!
//! Three things make that possible, one function each:
//!
//! - [`separable`] changes a plan where operators count on their partitions being in one process (they tell each other
//!   what they have met), or on something that has no bytes (filters that are filled in while the query runs);
//! - [`encode`] and [`decode`] are the bytes of each operator that is left: protocol buffers, with expressions as
//!   DataFusion writes them;
//! - [`local`] puts operators back that work within one partition and that [`separable`] took out.

mod asof_join;
mod gap_fill;
mod joins;
mod message;

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::{Result, internal_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_proto::protobuf::PhysicalExprNode;
use prost::Message;

use self::message::{Kind, Operator};
use crate::join::exec::SpatialJoinExec;
use crate::time::asof::exec::AsofJoinExec;
use crate::time::asof::streamed::AsofStreamedExec;
use crate::time::buckets::partial::BucketsExec;
use crate::time::buckets::rule::unfinished;
use crate::time::gapfill::exec::GapFillExec;
use crate::time::overlap::exec::OverlapJoinExec;

/// Writes an expression.
pub type Write<'a> = &'a dyn Fn(&Arc<dyn PhysicalExpr>) -> Result<PhysicalExprNode>;
/// Reads an expression over the columns of a schema.
pub type Read<'a> = &'a dyn Fn(&PhysicalExprNode, &Schema) -> Result<Arc<dyn PhysicalExpr>>;

/// The node in the place of one whose partitions cannot be in several processes; `None` when it stays. `partitions` is how
/// many a new exchange makes. An error says what cannot be taken apart at all.
pub fn separable(node: &Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(buckets) = node.downcast_ref::<BucketsExec>() {
        return Ok(Some(Arc::clone(buckets.aggregate())));
    }
    if let Some(filling) = node.downcast_ref::<GapFillExec>() {
        return unfinished(filling);
    }
    if let Some(join) = node.downcast_ref::<AsofStreamedExec>() {
        return Ok(Some(Arc::new(join.separable(partitions)?)));
    }
    if let Some(join) = node.downcast_ref::<SpatialJoinExec>() {
        return Ok(Some(Arc::new(join.separable()?)));
    }
    if let Some(join) = node.downcast_ref::<OverlapJoinExec>() {
        return Ok(Some(Arc::new(join.separable()?)));
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        return joins::nested_loop(join);
    }
    Ok(None)
}

/// The node in the place of one of DataFusion where an operator of this crate does the same within a partition; `None`
/// when it stays.
pub fn local(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if !node.is::<AggregateExec>() {
        return Ok(None);
    }
    Ok(BucketsExec::of(node)?.map(|buckets| Arc::new(buckets) as _))
}

/// The bytes of an operator of this crate, without its children; `None` when it is none that has any.
pub fn encode(node: &dyn ExecutionPlan, write: Write<'_>) -> Result<Option<Vec<u8>>> {
    let kind = if let Some(join) = node.downcast_ref::<SpatialJoinExec>() {
        Kind::SpatialJoin(joins::write_spatial(join, write)?)
    } else if let Some(join) = node.downcast_ref::<OverlapJoinExec>() {
        Kind::OverlapJoin(joins::write_overlap(join, write)?)
    } else if let Some(join) = node.downcast_ref::<AsofJoinExec>() {
        Kind::AsofJoin(asof_join::write(join, write)?)
    } else if let Some(filling) = node.downcast_ref::<GapFillExec>() {
        let Some(written) = gap_fill::write(filling, write)? else { return Ok(None) };
        Kind::GapFill(written)
    } else {
        return Ok(None);
    };
    Ok(Some(Operator { kind: Some(kind) }.encode_to_vec()))
}

/// The operator of these bytes over its children.
pub fn decode(
    bytes: &[u8],
    children: &[Arc<dyn ExecutionPlan>],
    read: Read<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let operator = match Operator::decode(bytes) {
        Ok(operator) => operator,
        Err(error) => return internal_err!("an operator cannot be read: {error}"),
    };
    match (operator.kind, children) {
        (Some(Kind::SpatialJoin(join)), [left, right]) => joins::read_spatial(join, left, right, read),
        (Some(Kind::OverlapJoin(join)), [left, right]) => joins::read_overlap(join, left, right, read),
        (Some(Kind::AsofJoin(join)), [left, right]) => asof_join::read(&join, left, right, read),
        (Some(Kind::GapFill(filling)), [input]) => gap_fill::read(&filling, input, read),
        (Some(_), _) => internal_err!("an operator came with {} inputs", children.len()),
        (None, _) => internal_err!("an operator of an unknown kind"),
    }
}

/// Whether it comes in several partitions.
fn is_split(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.output_partitioning().partition_count() > 1
}

#[cfg(test)]
mod tests;
