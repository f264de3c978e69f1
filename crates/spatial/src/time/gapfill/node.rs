//! The logical plan of filling gaps.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{
    DataType, Field, IntervalMonthDayNanoType, IntervalUnit, Schema, TimestampMicrosecondType,
};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, TableReference, internal_err, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use twinlake_contracts::timestamp_type;

use super::exec::{GapFillExec, PhysicalFill};
use super::grid::Grid;
use super::markers::Marker;

/// A constant that bounds the time, and what is added to it in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bound {
    pub(super) value: Expr,
    pub(super) shift_us: i64,
}

/// A column without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Fill {
    pub(super) kind: Marker,
    /// Over the columns of the input.
    pub(super) value: Expr,
    pub(super) name: String,
}

/// Adds a row for each bucket that a combination of keys lacks, and the filled columns behind the input's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GapFill {
    input: Arc<LogicalPlan>,
    time: Column,
    keys: Vec<Column>,
    width: Expr,
    /// Inclusive; the highest counts.
    lower: Vec<Bound>,
    /// Exclusive; the lowest counts.
    upper: Vec<Bound>,
    fills: Vec<Fill>,
    schema: DFSchemaRef,
}

impl GapFill {
    pub(super) fn try_new(
        input: LogicalPlan,
        time: Column,
        keys: Vec<Column>,
        width: Expr,
        lower: Vec<Bound>,
        upper: Vec<Bound>,
        fills: Vec<Fill>,
    ) -> Result<Self> {
        if !width.column_refs().is_empty() {
            return plan_err!("time_bucket_gapfill: the width must be a constant, not {width}");
        }
        let is_group = |place: usize| {
            let column = Column::from(input.schema().qualified_field(place));
            column == time || keys.contains(&column)
        };
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = input
            .schema()
            .iter()
            .enumerate()
            .map(|(place, (table, field))| {
                let nullable = field.is_nullable() || !is_group(place);
                (table.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
            })
            .collect();
        for fill in &fills {
            let (_, field) = fill.value.to_field(input.schema())?;
            let field = field.as_ref().clone().with_name(&fill.name).with_nullable(true);
            fields.push((None, Arc::new(field)));
        }
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Self { input: Arc::new(input), time, keys, width, lower, upper, fills, schema: Arc::new(schema) })
    }

    /// The operator that computes it.
    pub(crate) fn physical(
        &self,
        input: &Arc<dyn ExecutionPlan>,
        expression: impl Fn(&Expr, &DFSchema) -> Result<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        let constant = |value: &Expr, wanted: &DataType| {
            let value = expression(value, &DFSchema::empty())?.evaluate(&one)?.into_array(1)?;
            Ok::<_, datafusion::common::DataFusionError>(arrow::compute::cast(&value, wanted)?)
        };
        let times = |bounds: &[Bound]| -> Result<Vec<i64>> {
            let mut times = Vec::new();
            for bound in bounds {
                let value = constant(&bound.value, &timestamp_type())?;
                let value = value.as_primitive::<TimestampMicrosecondType>();
                times.extend(value.iter().flatten().map(|time| time.saturating_add(bound.shift_us)));
            }
            Ok(times)
        };
        let width = constant(&self.width, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let Some(width) = width.as_primitive::<IntervalMonthDayNanoType>().iter().next().flatten() else {
            return plan_err!("time_bucket_gapfill: the width must not be null");
        };
        let grid =
            Grid::new(width, times(&self.lower)?.into_iter().max(), times(&self.upper)?.into_iter().min())?;
        let schema = self.input.schema();
        let index = |column: &Column| schema.index_of_column(column);
        let keys = self.keys.iter().map(index).collect::<Result<Vec<_>>>()?;
        let fills = self
            .fills
            .iter()
            .map(|fill| Ok(PhysicalFill { kind: fill.kind, value: expression(&fill.value, schema)? }));
        let fills = fills.collect::<Result<Vec<_>>>()?;
        let output = Arc::clone(self.schema.inner());
        Ok(Arc::new(GapFillExec::new(Arc::clone(input), index(&self.time)?, keys, grid, fills, output)))
    }
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &'static str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let bounds = self.lower.iter().chain(&self.upper).map(|bound| bound.value.clone());
        let fills = self.fills.iter().map(|fill| fill.value.clone());
        std::iter::once(self.width.clone()).chain(bounds).chain(fills).collect()
    }

    /// Whole combinations of keys may be left out below.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let others = self.schema.columns().into_iter().filter(|column| !self.keys.contains(column));
        others.map(|column| column.name).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFill: width={}", self.width)?;
        for (word, bounds) in [("from", &self.lower), ("before", &self.upper)] {
            for bound in bounds {
                write!(f, ", {word} {}", bound.value)?;
                if bound.shift_us != 0 {
                    write!(f, " + {} µs", bound.shift_us)?;
                }
            }
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, expressions: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else {
            return internal_err!("filling gaps has one input");
        };
        let mut rest = expressions.into_iter();
        let mut next = || rest.next().map_or_else(|| internal_err!("filling gaps lacks an expression"), Ok);
        let width = next()?;
        let mut moved = |bounds: &[Bound]| -> Result<Vec<Bound>> {
            bounds.iter().map(|bound| Ok(Bound { value: next()?, shift_us: bound.shift_us })).collect()
        };
        let (lower, upper) = (moved(&self.lower)?, moved(&self.upper)?);
        let fills = self
            .fills
            .iter()
            .map(|fill| Ok(Fill { kind: fill.kind, value: next()?, name: fill.name.clone() }))
            .collect::<Result<Vec<_>>>()?;
        Self::try_new(input, self.time.clone(), self.keys.clone(), width, lower, upper, fills)
    }
}
