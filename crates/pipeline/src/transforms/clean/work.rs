//! Rows on their way through the operators of a clean transform, and what the operators say of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch, nullif};
use arrow::datatypes::{DataType, Float64Type};
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Batch, HeldReject, Rejects, Result};

/// What becomes of a row with a value that an operator does not accept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// The row is refused: it becomes a row of `meta.rejects` with the operator's reason.
    #[default]
    Reject,
    /// The value becomes null; the row goes on.
    Null,
    /// The row goes on as it is; `reason:column` is added to its quality column.
    Flag,
}

/// Where a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// Its place in the batch that came in; `None` when it was held back on the way.
    pub index: Option<u32>,
    /// The log sequence of its message.
    pub sequence: Option<u64>,
}

/// Rows with the verdicts of the operator at work; [`Work::apply`] carries them out.
pub(super) struct Work {
    pub rows: RecordBatch,
    pub origins: Vec<Origin>,
    /// The place of the quality column, if an operator flags rows.
    quality: Option<usize>,
    keep: Vec<bool>,
    nulls: BTreeMap<usize, Vec<usize>>,
    flags: Vec<(usize, String)>,
    /// Rejects of rows of the batch that came in.
    pub rejects: Rejects,
    /// Rejects of rows that were held back.
    pub refused: Vec<HeldReject>,
    /// What was held back and let go on the way.
    pub held: Vec<u64>,
    pub released: Vec<u64>,
}

impl Work {
    pub fn new(batch: Batch, quality: Option<usize>) -> Self {
        let sequence = |row: usize| batch.sequences.as_ref().and_then(|own| own.get(row)).copied();
        let count = batch.rows.num_rows();
        let origins = (0..count).map(|row| Origin { index: Some(row as u32), sequence: sequence(row) });
        Self {
            origins: origins.collect(),
            rows: batch.rows,
            quality,
            keep: vec![true; count],
            nulls: BTreeMap::new(),
            flags: Vec::new(),
            rejects: Rejects::default(),
            refused: Vec::new(),
            held: Vec::new(),
            released: Vec::new(),
        }
    }

    /// Takes the place of the rows: others come out of an operator than went in.
    pub fn replace(&mut self, rows: RecordBatch, origins: Vec<Origin>) {
        self.keep = vec![true; rows.num_rows()];
        self.rows = rows;
        self.origins = origins;
    }

    /// Whether the operator at work has not refused the row.
    pub fn keeps(&self, row: usize) -> bool {
        self.keep.get(row).copied().unwrap_or_default()
    }

    /// The numbers of a column, as doubles.
    pub fn numbers(&self, column: usize) -> Result<Float64Array> {
        let numbers = cast(self.rows.column(column), &DataType::Float64)?;
        Ok(numbers.as_primitive::<Float64Type>().clone())
    }

    /// Refuses a row, once.
    pub fn refuse(&mut self, row: usize, reason: &str, detail: String) {
        let (Some(keep), Some(origin)) = (self.keep.get_mut(row), self.origins.get(row)) else { return };
        if !std::mem::replace(keep, false) {
            return;
        }
        match origin.index {
            Some(index) => self.rejects.push(index as usize, reason, detail),
            None => {
                self.refused.push(HeldReject { sequence: origin.sequence, reason: reason.into(), detail });
            }
        }
    }

    /// Does with the value of a row what `action` says.
    pub fn judge(&mut self, row: usize, column: usize, action: Action, reason: &str, detail: String) {
        match action {
            Action::Reject => self.refuse(row, reason, detail),
            Action::Null => self.nulls.entry(column).or_default().push(row),
            Action::Flag => {
                let flag = format!("{reason}:{}", self.rows.schema_ref().field(column).name());
                self.flags.push((row, flag));
            }
        }
    }

    /// Carries out the verdicts of an operator, so that the next one sees what it left.
    pub fn apply(&mut self) -> Result<()> {
        let mut columns = self.rows.columns().to_vec();
        for (column, rows) in std::mem::take(&mut self.nulls) {
            let mut mask = vec![false; self.rows.num_rows()];
            for row in rows {
                mask[row] = true;
            }
            columns[column] = nullif(&columns[column], &BooleanArray::from(mask))?;
        }
        if let Some(at) = self.quality
            && !self.flags.is_empty()
        {
            columns[at] = flagged(&columns[at], std::mem::take(&mut self.flags));
        }
        self.rows = RecordBatch::try_new(self.rows.schema(), columns)?;
        if self.keep.iter().any(|keep| !*keep) {
            let mask = BooleanArray::from(std::mem::take(&mut self.keep));
            self.origins = self
                .origins
                .iter()
                .zip(mask.values())
                .filter(|(_, keep)| *keep)
                .map(|(origin, _)| *origin)
                .collect();
            self.rows = filter_record_batch(&self.rows, &mask)?;
            self.keep = vec![true; self.rows.num_rows()];
        }
        Ok(())
    }

    /// The rows as a batch for the next step.
    pub fn batch(self) -> Batch {
        let sequences = self.origins.iter().map(|origin| origin.sequence).collect();
        Batch { rows: self.rows, sequences }
    }
}

/// The quality column with more flags.
fn flagged(column: &ArrayRef, flags: Vec<(usize, String)>) -> ArrayRef {
    let before = column.as_string::<i32>();
    let mut texts: Vec<Option<String>> =
        (0..before.len()).map(|row| before.is_valid(row).then(|| before.value(row).to_owned())).collect();
    for (row, flag) in flags {
        match &mut texts[row] {
            Some(text) if !text.is_empty() => {
                text.push(',');
                text.push_str(&flag);
            }
            empty => *empty = Some(flag),
        }
    }
    Arc::new(texts.into_iter().collect::<StringArray>())
}
