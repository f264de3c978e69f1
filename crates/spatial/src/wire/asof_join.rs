//! `ASOF JOIN`.

use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::Operator;
use datafusion::physical_plan::ExecutionPlan;

use super::message::{Asof, missing, number, read_schema, write_schema};
use super::{Read, Write};
use crate::time::asof::exec::{AsofJoinExec, Match};

/// In the order of their numbers in messages.
const OPERATORS: [Operator; 4] = [Operator::GtEq, Operator::Gt, Operator::LtEq, Operator::Lt];

pub(super) fn write(join: &AsofJoinExec, write: Write<'_>) -> Result<Asof> {
    let rule = join.rule();
    let Some(operator) = OPERATORS.iter().position(|known| *known == rule.operator) else {
        return internal_err!("an ASOF JOIN compares times with {}", rule.operator);
    };
    Ok(Asof {
        left_keys: rule.on.iter().map(|(left, _)| write(left)).collect::<Result<_>>()?,
        right_keys: rule.on.iter().map(|(_, right)| write(right)).collect::<Result<_>>()?,
        left_time: Some(write(&rule.left_time)?),
        right_time: Some(write(&rule.right_time)?),
        operator: number(operator)?,
        keeps_left: rule.keeps_left,
        schema: Some(write_schema(&join.schema())?),
    })
}

pub(super) fn read(
    join: &Asof,
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
    read: Read<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let (left_schema, right_schema) = (left.schema(), right.schema());
    let Some(operator) = OPERATORS.get(join.operator as usize) else {
        return internal_err!("an ASOF JOIN compares times in an unknown way");
    };
    let on = join
        .left_keys
        .iter()
        .zip(&join.right_keys)
        .map(|(one, other)| Ok((read(one, &left_schema)?, read(other, &right_schema)?)));
    let rule = Match {
        on: on.collect::<Result<_>>()?,
        left_time: read(join.left_time.as_ref().ok_or_else(|| missing("left time"))?, &left_schema)?,
        operator: *operator,
        right_time: read(join.right_time.as_ref().ok_or_else(|| missing("right time"))?, &right_schema)?,
        keeps_left: join.keeps_left,
    };
    let schema = read_schema(join.schema.as_ref())?;
    Ok(Arc::new(AsofJoinExec::new(Arc::clone(left), Arc::clone(right), rule, schema)))
}
