//! Filling of gaps.

use std::sync::Arc;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;

use super::message::{Fill, Gaps, missing, number, read_schema, write_schema};
use super::{Read, Write};
use crate::time::gapfill::exec::{GapFillExec, PhysicalFill, Shape};
use crate::time::gapfill::grid::Grid;
use crate::time::gapfill::markers::Marker;

/// `None` when it finishes aggregates itself.
pub(super) fn write(filling: &GapFillExec, write: Write<'_>) -> Result<Option<Gaps>> {
    let Some(shape) = filling.shape() else { return Ok(None) };
    let fill = |fill: &PhysicalFill| {
        Ok(Fill { carried: fill.kind == Marker::Locf, value: Some(write(&fill.value)?) })
    };
    let width = shape.grid.width;
    Ok(Some(Gaps {
        time: number(shape.time)?,
        keys: shape.keys.iter().map(|key| number(*key)).collect::<Result<_>>()?,
        months: width.months,
        days: width.days,
        nanoseconds: width.nanoseconds,
        first: shape.grid.first,
        end: shape.grid.end,
        fills: shape.fills.iter().map(fill).collect::<Result<_>>()?,
        schema: Some(write_schema(&shape.schema)?),
    }))
}

pub(super) fn read(
    gaps: &Gaps,
    input: &Arc<dyn ExecutionPlan>,
    read: Read<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = input.schema();
    let fill = |fill: &Fill| {
        let kind = if fill.carried { Marker::Locf } else { Marker::Interpolate };
        let value = fill.value.as_ref().ok_or_else(|| missing("value to fill"))?;
        Ok(PhysicalFill { kind, value: read(value, &schema)? })
    };
    let width = IntervalMonthDayNano::new(gaps.months, gaps.days, gaps.nanoseconds);
    let shape = Shape {
        time: gaps.time as usize,
        keys: gaps.keys.iter().map(|key| *key as usize).collect(),
        grid: Grid { width, first: gaps.first, end: gaps.end },
        fills: gaps.fills.iter().map(fill).collect::<Result<_>>()?,
        schema: read_schema(gaps.schema.as_ref())?,
    };
    Ok(Arc::new(GapFillExec::of_shape(Arc::clone(input), shape)))
}
