//! What stateful transforms share: columns found by name, keys and rows as bytes, event times.
//!
//! Bytes are those of [`arrow::row`]: equal values have equal bytes, and comparing bytes compares values.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use twinlake_contracts::{Batch, Error, Result, format_us, parse_us, suggest, timestamp_type};

use crate::codec::{Reader, Writer};

/// The name that the event time has when the settings do not say another.
pub(super) fn ts() -> String {
    "ts".to_owned()
}

/// The bound on remembered things when the settings do not say another.
pub(super) fn million() -> usize {
    1_000_000
}

/// The place of a column, or an error with the nearest name.
pub(super) fn column(schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let help = suggest(name, names()).map_or_else(
            || format!("columns: {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean '{near}'?"),
        );
        Error::config(format!("there is no column '{name}' in the rows that come in")).with_help(help)
    })
}

/// The place of a column of numbers; `what` says what only numbers have, for example `a range`.
pub(super) fn number_column(schema: &Schema, name: &str, what: &str) -> Result<usize> {
    let at = column(schema, name)?;
    let data_type = schema.field(at).data_type();
    if data_type.is_numeric() {
        return Ok(at);
    }
    Err(Error::config(format!("'{name}' has type {data_type}: only numbers have {what}"))
        .with_help("cast it in a sql transform, for example CAST(speed_mps AS DOUBLE)"))
}

/// The place of the column with the event time.
pub(super) fn time_column(schema: &Schema, name: &str) -> Result<usize> {
    let at = column(schema, name).map_err(|error| {
        error.with_help(format!("time = \"…\" names the column with the event time; it is '{name}' now"))
    })?;
    match schema.field(at).data_type() {
        DataType::Timestamp(..) => Ok(at),
        other => Err(Error::config(format!("'{name}' has type {other}, not a time stamp"))),
    }
}

/// A column name that is free, or an error.
pub(super) fn free_name(schema: &Schema, name: &str, key: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::config(format!("'{key}' is empty")).with_help("give the column a name"));
    }
    match schema.index_of(name) {
        Ok(_) => Err(Error::config(format!("there is a column '{name}' already in the rows that come in"))
            .with_help(format!("choose another name with {key}"))),
        Err(_) => Ok(()),
    }
}

/// The only input of a transform whose result depends on the order of the rows.
pub(super) fn only_input(inputs: &[(String, SchemaRef)], type_name: &str) -> Result<SchemaRef> {
    match inputs {
        [(_, schema)] => Ok(SchemaRef::clone(schema)),
        _ => Err(Error::config(format!("'inputs' of a {type_name} transform names a single step"))
            .with_help("the order of rows decides what comes out, and two streams have no common order")),
    }
}

/// The event times of a batch, in microseconds.
pub(super) fn times(rows: &RecordBatch, at: usize) -> Result<TimestampMicrosecondArray> {
    let times = cast(rows.column(at), &timestamp_type())?;
    Ok(times.as_primitive::<TimestampMicrosecondType>().clone())
}

/// The value of a time array.
pub(super) fn time(times: &TimestampMicrosecondArray, row: usize) -> Option<i64> {
    times.is_valid(row).then(|| times.value(row))
}

/// Some columns of a batch, each row as bytes.
pub(super) struct Bytes {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl Bytes {
    /// The columns at these places.
    pub fn new(schema: &Schema, columns: Vec<usize>) -> Result<Self> {
        let fields = columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        Ok(Self { converter: RowConverter::new(fields)?, columns })
    }

    /// The columns with these names.
    pub fn named(schema: &Schema, names: &[String]) -> Result<Self> {
        Self::new(schema, names.iter().map(|name| column(schema, name)).collect::<Result<_>>()?)
    }

    /// All columns.
    pub fn whole(schema: &Schema) -> Result<Self> {
        Self::new(schema, (0..schema.fields().len()).collect())
    }

    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The rows of a batch.
    pub fn of(&self, rows: &RecordBatch) -> Result<Encoded> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|at| rows.column(*at).clone()).collect();
        self.of_columns(&columns)
    }

    /// The rows of columns that have the same types from somewhere else.
    pub fn of_columns(&self, columns: &[ArrayRef]) -> Result<Encoded> {
        let nulls = columns.iter().filter(|column| column.null_count() > 0).cloned().collect();
        let rows = if columns.is_empty() { None } else { Some(self.converter.convert_columns(columns)?) };
        Ok(Encoded { rows, nulls })
    }

    /// One column with one row, as bytes.
    pub fn encode_column(&self, column: ArrayRef) -> Result<Box<[u8]>> {
        let rows = self.converter.convert_columns(&[column])?;
        Ok(rows.row(0).as_ref().into())
    }

    /// The columns of rows that were bytes.
    pub fn back<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(rows.into_iter().map(|bytes| parser.parse(bytes)))?)
    }

    /// The batch of rows that were bytes, all columns of `schema`.
    pub fn batch(&self, schema: &SchemaRef, rows: &[&[u8]]) -> Result<RecordBatch> {
        let columns = if self.columns.is_empty() { Vec::new() } else { self.back(rows.iter().copied())? };
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)?)
    }
}

/// Rows as bytes.
pub(super) struct Encoded {
    rows: Option<Rows>,
    nulls: Vec<ArrayRef>,
}

impl Encoded {
    /// The bytes of a row; empty when there are no columns.
    pub fn row(&self, at: usize) -> Box<[u8]> {
        self.rows.as_ref().map_or_else(Box::default, |rows| rows.row(at).as_ref().into())
    }

    /// Whether any column is null in a row.
    pub fn has_null(&self, at: usize) -> bool {
        self.nulls.iter().any(|column| column.is_null(at))
    }
}

/// Rows on their way out, one by one, with the messages that made them.
#[derive(Default)]
pub(super) struct Out {
    pub rows: Vec<Box<[u8]>>,
    sequences: Vec<Option<u64>>,
}

impl Out {
    pub fn push(&mut self, row: Box<[u8]>, sequence: Option<u64>) {
        self.rows.push(row);
        self.sequences.push(sequence);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The sequences of all rows, if all have one.
    pub fn sequences(self) -> Option<Vec<u64>> {
        self.sequences.into_iter().collect()
    }

    /// The rows as a batch of `schema`; `bytes` made them.
    pub fn batch(self, bytes: &Bytes, schema: &SchemaRef) -> Result<Batch> {
        let rows: Vec<&[u8]> = self.rows.iter().map(AsRef::as_ref).collect();
        Ok(Batch { rows: bytes.batch(schema, &rows)?, sequences: self.sequences() })
    }
}

/// The sequence of a row of a batch.
pub(super) fn sequence(batch: &Batch, row: usize) -> Option<u64> {
    batch.sequences.as_ref()?.get(row).copied()
}

/// The beginning of a transform's state: what it depends on, and whether it stands for rows that have not ended.
pub(super) fn write_head(out: &mut Writer, version: u64, shape: &str, holds_rows: bool) {
    out.unsigned(version);
    out.bytes(shape.as_bytes());
    out.flag(holds_rows);
}

/// Whether a stored state is one of these settings and columns. A state of others is given up, unless rows would be lost
/// with it.
pub(super) fn read_head(input: &mut Reader<'_>, version: u64, shape: &str) -> Result<bool> {
    if input.is_empty() {
        return Ok(false);
    }
    if input.unsigned()? != version {
        return Err(Error::internal("the state was written by another version"));
    }
    let same = input.text()? == shape;
    if input.flag()? && !same {
        return Err(Error::config("the settings or columns were changed while rows were held back")
            .with_help("put them back, or give the transform another name and lose the rows that it holds"));
    }
    Ok(same)
}

/// A text that differs when the types or names of columns differ: states hold it, so that bytes are never read as
/// something that they are not.
pub(super) fn fingerprint(schema: &Schema) -> String {
    let fields = schema.fields().iter();
    fields.map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

/// What a row is told that comes too late: its time, what became of the place where it belongs, and by when.
pub(super) fn late_detail(time_us: i64, what: &str, watermark_us: i64) -> String {
    format!("{} {what} {}", format_us(time_us), format_us(watermark_us))
}

/// By how many microseconds a row was late that was told so by [`late_detail`].
pub(crate) fn late_by_us(detail: &str) -> Option<i64> {
    let (first, rest) = detail.split_once(' ')?;
    let (_, last) = rest.rsplit_once(' ')?;
    parse_us(last)?.checked_sub(parse_us(first)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_late_row_is_told_says_by_how_much() {
        let detail =
            late_detail(1_539_059_573_000_001, "belongs to a window closed by", 1_539_059_580_250_000);
        assert_eq!(
            detail,
            "2018-10-09T04:32:53.000001Z belongs to a window closed by 2018-10-09T04:33:00.250Z"
        );
        assert_eq!(late_by_us(&detail), Some(7_249_999));
        assert_eq!(late_by_us("an earlier one came after it"), None);
    }
}
