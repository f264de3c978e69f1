//! The physical `ASOF JOIN` when the side to be held does not fit into memory: both sides are sorted by key and time, with
//! files, and go past each other once.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array, new_null_array,
};
use arrow::compute::{filter_record_batch, interleave};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::exec::{Match, evaluate};
use crate::time::keys::all_valid;
use crate::time::order::ordinals;
use crate::time::sorted::sorted;

/// What is joined.
pub(super) struct Merge {
    pub(super) rule: Match,
    pub(super) schema: SchemaRef,
    /// Whether the rows come out in the order of the left side.
    pub(super) keeps_order: bool,
    pub(super) context: Arc<TaskContext>,
}

impl Merge {
    /// The joined rows of two sides: the batches that were read already, and the rest.
    pub(super) fn join(
        self,
        left: (Vec<RecordBatch>, SendableRecordBatchStream),
        right: (Vec<RecordBatch>, SendableRecordBatchStream),
    ) -> Result<SendableRecordBatchStream> {
        let (left, right) = (whole(left), whole(right));
        let (left_keys, right_keys): (Vec<_>, Vec<_>) = self.rule.on.iter().cloned().unzip();
        let (left_width, right_width) = (left.schema().fields().len(), right.schema().fields().len());
        let count = left_keys.len();
        let by = |width: usize| (width..=width + count).collect::<Vec<_>>();
        let left = with_keys(left, left_keys, &self.rule.left_time, true)?;
        let right = with_keys(right, right_keys, &self.rule.right_time, false)?;
        let left = sorted(&left.schema(), Vec::new(), left, &by(left_width), &self.context)?;
        let right = sorted(&right.schema(), Vec::new(), right, &by(right_width), &self.context)?;
        let types =
            (left_width..left_width + count).map(|place| left.schema().field(place).data_type().clone());
        let converter = RowConverter::new(types.map(SortField::new).collect())?;
        let mut fields = self.schema.fields().to_vec();
        let number = fields.len();
        fields.push(Arc::new(Field::new("left row", DataType::UInt64, false)));
        let numbered = Arc::new(Schema::new(fields));
        let walk = Walk {
            left,
            right: Right { rows: right, width: right_width, held: Vec::new(), at: 0, ended: false },
            left_width,
            keys: count,
            converter,
            rule: self.rule,
            schema: Arc::clone(&numbered),
            candidate: None,
        };
        let joined = futures::stream::try_unfold(walk, |mut walk| async move {
            Ok(walk.next().await?.map(|batch| (batch, walk)))
        });
        let mut joined: SendableRecordBatchStream =
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&numbered), joined));
        if self.keeps_order {
            joined = sorted(&numbered, Vec::new(), joined, &[number], &self.context)?;
        }
        let schema = Arc::clone(&self.schema);
        let stripped = joined.map(move |batch| {
            let batch = batch?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns()[..number].to_vec();
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema, stripped)))
    }
}

fn whole((held, rest): (Vec<RecordBatch>, SendableRecordBatchStream)) -> SendableRecordBatchStream {
    let schema = rest.schema();
    let all = futures::stream::iter(held.into_iter().map(Ok)).chain(rest);
    Box::pin(RecordBatchStreamAdapter::new(schema, all))
}

/// The rows with their keys, times and, on the left side, their numbers as further columns. Of the right side only rows
/// that may be found.
fn with_keys(
    rows: SendableRecordBatchStream,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    time: &Arc<dyn PhysicalExpr>,
    left: bool,
) -> Result<SendableRecordBatchStream> {
    let given = rows.schema();
    let mut fields = given.fields().to_vec();
    for (place, key) in keys.iter().enumerate() {
        fields.push(Arc::new(Field::new(format!("key {place}"), key.data_type(&given)?, true)));
    }
    fields.push(Arc::new(Field::new("time", DataType::Int64, true)));
    fields.push(Arc::new(Field::new("row", DataType::UInt64, false)));
    let schema = Arc::new(Schema::new(fields));
    let (time, wanted, mut next) = (Arc::clone(time), Arc::clone(&schema), 0_u64);
    let rows = rows.map(move |batch| {
        let batch = batch?;
        let count = batch.num_rows() as u64;
        let mut added = evaluate(keys.iter(), &batch)?;
        let times = ordinals(&time.evaluate(&batch)?.into_array(batch.num_rows())?)?;
        added.push(Arc::new(times));
        let valid = all_valid(&added);
        added.push(Arc::new(UInt64Array::from_iter_values(next..next + count)));
        next += count;
        let columns = batch.columns().iter().cloned().chain(added).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        Ok(match valid {
            Some(valid) if !left => filter_record_batch(&batch, &valid.into_inner().into())?,
            _ => batch,
        })
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(wanted, rows)))
}

/// The right side, read as far as the left side has come.
struct Right {
    rows: SendableRecordBatchStream,
    width: usize,
    /// Batches that are still asked for; the last one is the one being read.
    held: Vec<Side>,
    /// The next row of the last batch.
    at: usize,
    ended: bool,
}

/// A sorted batch.
struct Side {
    batch: RecordBatch,
    keys: Option<Rows>,
    times: Int64Array,
    /// Whether a row of it was found.
    found: bool,
}

impl Side {
    fn new(batch: RecordBatch, width: usize, keys: usize, converter: &RowConverter) -> Result<Self> {
        let columns = &batch.columns()[width..width + keys];
        let rows = if keys == 0 { None } else { Some(converter.convert_columns(columns)?) };
        let times = batch.column(width + keys).as_primitive::<Int64Type>().clone();
        Ok(Self { batch, keys: rows, times, found: false })
    }

    fn key(&self, row: usize) -> &[u8] {
        self.keys.as_ref().map_or(&[], |keys| keys.row(row).data())
    }
}

/// Both sides on their way.
struct Walk {
    left: SendableRecordBatchStream,
    right: Right,
    left_width: usize,
    keys: usize,
    converter: RowConverter,
    rule: Match,
    schema: SchemaRef,
    /// The last right row before the place on the left side: its batch among those held, and its place there.
    candidate: Option<(usize, usize)>,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(batch) = self.left.next().await.transpose()? {
            let left = Side::new(batch, self.left_width, self.keys, &self.converter)?;
            let joined = self.join(&left).await?;
            if joined.num_rows() > 0 {
                return Ok(Some(joined));
            }
        }
        Ok(None)
    }

    async fn join(&mut self, left: &Side) -> Result<RecordBatch> {
        self.forget();
        let earlier = matches!(self.rule.operator, Operator::GtEq | Operator::Gt);
        let mut found = Vec::with_capacity(left.times.len());
        for row in 0..left.times.len() {
            if left.times.is_null(row) {
                found.push(None);
                continue;
            }
            let (key, time) = (left.key(row), left.times.value(row));
            while self.load().await? {
                let (Some(side), at) = (self.right.held.last(), self.right.at) else { break };
                let passed = match side.key(at).cmp(key) {
                    std::cmp::Ordering::Equal => {
                        let right = side.times.value(at);
                        match self.rule.operator {
                            Operator::GtEq | Operator::Lt => right <= time,
                            _ => right < time,
                        }
                    }
                    order => order.is_lt(),
                };
                if !passed {
                    break;
                }
                self.candidate = Some((self.right.held.len() - 1, at));
                self.right.at += 1;
            }
            let place = if earlier { self.candidate } else { self.here() };
            let place = place.filter(|(batch, row)| self.right.held[*batch].key(*row) == key);
            if let Some((batch, _)) = place {
                self.right.held[batch].found = true;
            }
            found.push(place);
        }
        self.assemble(left, &found)
    }

    /// The next right row.
    fn here(&self) -> Option<(usize, usize)> {
        let last = self.right.held.last()?;
        (self.right.at < last.times.len()).then(|| (self.right.held.len() - 1, self.right.at))
    }

    /// Whether there is a next right row, which is read if need be.
    async fn load(&mut self) -> Result<bool> {
        while self.here().is_none() {
            if self.right.ended {
                return Ok(false);
            }
            let Some(batch) = self.right.rows.next().await.transpose()? else {
                self.right.ended = true;
                return Ok(false);
            };
            // A batch that nothing was found in, and that will not be asked again, goes.
            let place = self.right.held.len().saturating_sub(1);
            let candidate = self.candidate.is_some_and(|(batch, _)| batch == place);
            if self.right.held.last().is_some_and(|side| !side.found) && !candidate {
                self.right.held.pop();
            }
            self.right.held.push(Side::new(batch, self.right.width, self.keys, &self.converter)?);
            self.right.at = 0;
        }
        Ok(true)
    }

    /// Lets go of the batches that were found before, but for those that may be found again.
    fn forget(&mut self) {
        let last = self.right.held.len().saturating_sub(1);
        let mut kept = Vec::new();
        for (place, mut side) in std::mem::take(&mut self.right.held).into_iter().enumerate() {
            let candidate = self.candidate.is_some_and(|(batch, _)| batch == place);
            if candidate {
                self.candidate = self.candidate.map(|(_, row)| (kept.len(), row));
            }
            if candidate || place == last {
                side.found = false;
                kept.push(side);
            }
        }
        self.right.held = kept;
    }

    fn assemble(&self, left: &Side, found: &[Option<(usize, usize)>]) -> Result<RecordBatch> {
        let keeps_left = self.rule.keeps_left;
        // The first of the right side's batches is a null.
        let places: Vec<(usize, usize)> = found
            .iter()
            .filter(|place| keeps_left || place.is_some())
            .map(|place| place.map_or((0, 0), |(batch, row)| (batch + 1, row)))
            .collect();
        let number = left.batch.columns().last().cloned();
        let number = number.ok_or_else(|| internal_datafusion_err!("the left side has no row numbers"))?;
        let mut columns: Vec<ArrayRef> = left.batch.columns()[..self.left_width].to_vec();
        columns.push(number);
        if !keeps_left {
            let kept = found.iter().map(|place| Some(place.is_some())).collect();
            let kept = |column: &ArrayRef| arrow::compute::filter(column, &kept);
            columns = columns.iter().map(kept).collect::<Result<_, _>>()?;
        }
        let number = columns.pop();
        for place in 0..self.right.width {
            let null = new_null_array(self.schema.field(self.left_width + place).data_type(), 1);
            let mut arrays: Vec<&dyn Array> = vec![null.as_ref()];
            arrays.extend(self.right.held.iter().map(|side| side.batch.column(place).as_ref()));
            columns.push(interleave(&arrays, &places)?);
        }
        columns.extend(number);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
