//! The states of all groups of a key and a bucket.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, aggregate_expressions, evaluate_many,
};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};
use twinlake_contracts::timestamp_type;

use super::groups::{Groups, Pairs};
use crate::time::keys::Keys;

/// What is grouped and computed, taken from an aggregate of DataFusion.
#[derive(Debug)]
pub(crate) struct Spec {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    key_types: Vec<DataType>,
    bucket: Arc<dyn PhysicalExpr>,
    /// The place of the bucket among the columns of the groups.
    bucket_place: usize,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// Whether rows are readings, not states.
    raw: bool,
    /// The columns of the groups, and of the states or results.
    schema: SchemaRef,
}

impl Spec {
    /// `None` when the aggregate is of a form that this table does not hold.
    pub(crate) fn of(aggregate: &AggregateExec, bucket_place: usize) -> Result<Option<Self>> {
        let group = aggregate.group_expr();
        let plain = group.is_single()
            && aggregate.limit_options().is_none()
            && *aggregate.input_order_mode() == InputOrderMode::Linear
            && aggregate
                .aggr_expr()
                .iter()
                .all(|each| each.groups_accumulator_supported() && each.order_bys().is_empty());
        let input = aggregate.input().schema();
        let mut keys: Vec<_> = group.expr().iter().map(|(expr, _)| Arc::clone(expr)).collect();
        if !plain || bucket_place >= keys.len() {
            return Ok(None);
        }
        let bucket = keys.remove(bucket_place);
        if !matches!(bucket.data_type(&input)?, DataType::Timestamp(..)) {
            return Ok(None);
        }
        let key_types = keys.iter().map(|key| key.data_type(&input)).collect::<Result<Vec<_>>>()?;
        let arguments = aggregate_expressions(aggregate.aggr_expr(), aggregate.mode(), group.expr().len())?;
        let raw = aggregate.mode().input_mode() == AggregateInputMode::Raw;
        Ok(Some(Self {
            keys,
            key_types,
            bucket,
            bucket_place,
            arguments,
            filters: aggregate.filter_expr().to_vec(),
            aggregates: aggregate.aggr_expr().to_vec(),
            raw,
            schema: aggregate.schema(),
        }))
    }

    /// The place of `time_bucket` with a constant width among the groups.
    pub(crate) fn bucket_place(aggregate: &AggregateExec) -> Option<usize> {
        aggregate.group_expr().expr().iter().position(|(expr, _)| {
            expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| {
                call.name() == crate::functions::time_bucket::DEFINITION.name
                    && call.args().first().is_some_and(|width| width.is::<Literal>())
            })
        })
    }

    /// The columns of the keys and of the bucket of a batch.
    fn groups_of(&self, batch: &RecordBatch) -> Result<(Vec<ArrayRef>, TimestampMicrosecondArray)> {
        let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let keys = self.keys.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
        let bucket = evaluate(&self.bucket)?;
        let bucket =
            if *bucket.data_type() == timestamp_type() { bucket } else { cast(&bucket, &timestamp_type())? };
        Ok((keys, bucket.as_primitive::<TimestampMicrosecondType>().clone()))
    }

    fn filters_of(&self, batch: &RecordBatch) -> Result<Vec<Option<ArrayRef>>> {
        let evaluate = |filter: &Option<Arc<dyn PhysicalExpr>>| {
            filter.as_ref().map(|filter| filter.evaluate(batch)?.into_array(batch.num_rows())).transpose()
        };
        self.filters.iter().map(evaluate).collect()
    }

    /// The groups' columns in their places, before those of the aggregates.
    fn with_groups(
        &self,
        mut keys: Vec<ArrayRef>,
        bucket: TimestampMicrosecondArray,
    ) -> Result<Vec<ArrayRef>> {
        let wanted = self.schema.field(self.bucket_place).data_type();
        keys.insert(self.bucket_place, cast(&bucket.with_data_type(timestamp_type()), wanted)?);
        Ok(keys)
    }
}

/// See [the module](self).
pub(crate) struct Table {
    spec: Arc<Spec>,
    groups: Groups,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    numbers: Vec<usize>,
}

impl Table {
    pub(crate) fn new(spec: &Arc<Spec>) -> Result<Self> {
        let accumulators = spec.aggregates.iter().map(|each| each.create_groups_accumulator());
        Ok(Self {
            spec: Arc::clone(spec),
            groups: Groups::new(Keys::new(&spec.key_types)?),
            accumulators: accumulators.collect::<Result<_>>()?,
            numbers: Vec::new(),
        })
    }

    /// Takes the rows of a batch: readings or states.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let (keys, buckets) = self.spec.groups_of(batch)?;
        self.groups.number(&keys, &buckets, &mut self.numbers)?;
        let arguments = evaluate_many(&self.spec.arguments, batch)?;
        let filters = if self.spec.raw { self.spec.filters_of(batch)? } else { vec![None; arguments.len()] };
        for ((accumulator, arguments), filter) in self.accumulators.iter_mut().zip(&arguments).zip(&filters) {
            let filter = filter.as_ref().map(AsArray::as_boolean);
            if self.spec.raw {
                accumulator.update_batch(arguments, &self.numbers, filter, self.groups.len())?;
            } else {
                accumulator.merge_batch(arguments, &self.numbers, self.groups.len())?;
            }
        }
        Ok(())
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Bytes held, about.
    pub(crate) fn size(&self) -> usize {
        let states: usize = self.accumulators.iter().map(|each| each.size()).sum();
        self.groups.size() + states + self.numbers.capacity() * size_of::<usize>()
    }

    /// Each reading of a batch as the states of a group of its own.
    pub(crate) fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let (keys, bucket) = self.spec.groups_of(batch)?;
        let mut columns = self.spec.with_groups(keys, bucket)?;
        let (arguments, filters) =
            (evaluate_many(&self.spec.arguments, batch)?, self.spec.filters_of(batch)?);
        for ((accumulator, arguments), filter) in self.accumulators.iter().zip(&arguments).zip(&filters) {
            let filter = filter.as_ref().map(AsArray::as_boolean);
            columns.extend(accumulator.convert_to_state(arguments, filter)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.schema), columns)?)
    }

    /// The states of all groups, as the input of another table. The table is empty after.
    pub(crate) fn take_states(&mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        let Self { spec, groups, mut accumulators, .. } = std::mem::replace(self, Self::new(&self.spec)?);
        let pairs = groups.into_pairs()?;
        let owners = UInt32Array::from_iter_values(pairs.owners());
        let keys = pairs.keys.iter().map(|key| take(key, &owners, None)).collect::<Result<Vec<_>, _>>()?;
        let mut columns = spec.with_groups(keys, starts(&pairs, 0..pairs.len()))?;
        for accumulator in &mut accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// The results of all groups by key and time, and where each key's begin.
    pub(crate) fn finish(self) -> Result<(RecordBatch, Vec<usize>)> {
        let Self { spec, groups, mut accumulators, .. } = self;
        let pairs = groups.into_pairs()?;
        let (begins, order) = pairs.by_key_and_time();
        let owners = (0..begins.len() as u32).zip(begins.windows(2));
        let owners: UInt32Array = UInt32Array::from_iter_values(
            owners.flat_map(|(key, ends)| std::iter::repeat_n(key, ends[1] - ends[0])),
        );
        let keys = pairs.keys.iter().map(|key| take(key, &owners, None)).collect::<Result<Vec<_>, _>>()?;
        let mut columns =
            spec.with_groups(keys, starts(&pairs, order.iter().map(|group| *group as usize)))?;
        let order = UInt32Array::from(order);
        for accumulator in &mut accumulators {
            columns.push(take(&accumulator.evaluate(EmitTo::All)?, &order, None)?);
        }
        Ok((RecordBatch::try_new(Arc::clone(&spec.schema), columns)?, begins))
    }
}

fn starts(pairs: &Pairs, groups: impl Iterator<Item = usize>) -> TimestampMicrosecondArray {
    groups.map(|group| pairs.start(group)).collect()
}
