//! The order of rows by short keys: eight bytes of each decide most comparisons.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::physical_expr::LexOrdering;

/// A row: the bytes of its key that decide first, its batch, and its place there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    prefix: u64,
    pub batch: u32,
    pub row: u32,
}

impl Item {
    /// A row of the only batch.
    pub(super) fn first_batch(row: usize) -> Self {
        Self { prefix: 0, batch: 0, row: row as u32 }
    }
}

/// The keys of all rows, in arrow's row format, whose bytes compare as the rows do.
#[derive(Debug)]
pub(super) struct Keys {
    ordering: LexOrdering,
    converter: RowConverter,
    batches: Vec<Rows>,
    /// How many leading bytes all keys share.
    shared: usize,
    count: usize,
}

impl Keys {
    pub(super) fn new(ordering: &LexOrdering, schema: &arrow::datatypes::Schema) -> Result<Self> {
        let fields = ordering
            .iter()
            .map(|sort| Ok(SortField::new_with_options(sort.expr.data_type(schema)?, sort.options)))
            .collect::<Result<_>>()?;
        Ok(Self {
            ordering: ordering.clone(),
            converter: RowConverter::new(fields)?,
            batches: Vec::new(),
            shared: usize::MAX,
            count: 0,
        })
    }

    /// Adds the keys of a batch; gives the bytes that they and the items of [`Keys::sorted`] take.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<usize> {
        let columns: Vec<ArrayRef> = self
            .ordering
            .iter()
            .map(|sort| sort.expr.evaluate(batch)?.into_array(batch.num_rows()))
            .collect::<Result<_>>()?;
        let rows = self.converter.convert_columns(&columns)?;
        if let Some(first) = self.batches.first().unwrap_or(&rows).iter().next() {
            let first = first.as_ref();
            for row in &rows {
                let same = first.iter().zip(row.as_ref()).take_while(|(a, b)| a == b).count();
                self.shared = self.shared.min(same);
            }
        }
        let bytes = rows.size() + rows.num_rows() * size_of::<Item>();
        self.count += rows.num_rows();
        self.batches.push(rows);
        Ok(bytes)
    }

    /// Whether there may be more rows or batches than an item can number.
    pub(super) fn is_full(&self) -> bool {
        self.count > u32::MAX as usize
    }

    /// All rows in order; equal ones as they came.
    pub(super) fn sorted(&self) -> Vec<Item> {
        let mut items = Vec::with_capacity(self.count);
        for (batch, rows) in self.batches.iter().enumerate() {
            items.extend(rows.iter().enumerate().map(|(row, key)| Item {
                prefix: prefix(key.as_ref(), self.shared),
                batch: batch as u32,
                row: row as u32,
            }));
        }
        items.sort_unstable_by_key(|item| item.prefix);
        let key = |item: &Item| self.batches[item.batch as usize].row(item.row as usize);
        for equal in items.chunk_by_mut(|a, b| a.prefix == b.prefix) {
            if equal.len() > 1 {
                equal.sort_unstable_by(|a, b| {
                    key(a).cmp(&key(b)).then_with(|| (a.batch, a.row).cmp(&(b.batch, b.row)))
                });
            }
        }
        items
    }
}

/// Eight bytes of a key after those that all share; a shorter key goes on with zeros, which no longer one precedes.
fn prefix(key: &[u8], shared: usize) -> u64 {
    let rest = key.get(shared..).unwrap_or_default();
    let mut bytes = [0; 8];
    let length = rest.len().min(8);
    bytes[..length].copy_from_slice(&rest[..length]);
    u64::from_be_bytes(bytes)
}

/// Whether the keys of an ordering have a row format.
pub(super) fn supports(ordering: &LexOrdering, schema: &arrow::datatypes::Schema) -> bool {
    let fields: Option<Vec<SortField>> = ordering
        .iter()
        .map(|sort| Some(SortField::new_with_options(sort.expr.data_type(schema).ok()?, sort.options)))
        .collect();
    fields.is_some_and(|fields| RowConverter::supports_fields(&fields))
}
