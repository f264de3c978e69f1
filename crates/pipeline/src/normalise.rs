//! Normal types: what a table in the lake can hold. Delta has no unsigned integers, no views, no dictionaries, and
//! time stamps are microseconds UTC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use twinlake_contracts::{Error, Result, timestamp_type};

/// The schema with every column in its normal type and nullable.
pub(crate) fn normal_schema(schema: &Schema) -> Result<SchemaRef> {
    let fields = schema.fields().iter().map(|field| normal_field(field)).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

fn normal_field(field: &Field) -> Result<Field> {
    let data_type = normal_type(field.data_type()).ok_or_else(|| {
        let message =
            format!("the column '{}' has type {}, which no table can hold", field.name(), field.data_type());
        Error::config(message).with_help("cast it in a sql transform, for example to VARCHAR or BIGINT")
    })?;
    Ok(field.clone().with_data_type(data_type).with_nullable(true))
}

/// The normal type of a type; `None` when it has none.
fn normal_type(data_type: &DataType) -> Option<DataType> {
    let inner = |field: &Field| -> Option<Arc<Field>> {
        let own = normal_type(field.data_type())?;
        Some(Arc::new(field.clone().with_data_type(own).with_nullable(true)))
    };
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Decimal128(..) => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Null | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => timestamp_type(),
        DataType::Dictionary(_, values) => normal_type(values)?,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => DataType::List(inner(field)?),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| inner(field)).collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}

/// A value that its column's normal type cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub row: usize,
    pub column: String,
}

/// Brings a batch into `schema` (a [`normal_schema`]); columns are taken by position. A value that does not fit (an
/// unsigned integer above 2⁶³) becomes null in the batch and is named in the second part.
pub(crate) fn normalise(batch: &RecordBatch, schema: &SchemaRef) -> Result<(RecordBatch, Vec<Lost>)> {
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::internal(format!(
            "a step promised {} columns and gave {}",
            schema.fields().len(),
            batch.num_columns()
        )));
    }
    let mut lost = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        if column.data_type() == field.data_type() {
            columns.push(Arc::clone(column));
            continue;
        }
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let cast = cast_with_options(column, field.data_type(), &options).map_err(|error| {
            Error::internal(format!(
                "the column '{}' is not of the type that was promised: {error}",
                field.name()
            ))
        })?;
        if cast.logical_null_count() > column.logical_null_count() {
            let before = column.logical_nulls();
            let is_null = |row| before.as_ref().is_some_and(|nulls| nulls.is_null(row));
            lost.extend(
                (0..cast.len())
                    .filter(|row| cast.is_null(*row) && !is_null(*row))
                    .map(|row| Lost { row, column: field.name().clone() }),
            );
        }
        columns.push(cast);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let normal = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
    Ok((normal, lost))
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, StringViewArray, TimestampNanosecondArray, UInt64Array};
    use arrow::datatypes::{Int32Type, TimeUnit};

    use super::*;

    #[test]
    fn every_common_type_becomes_one_that_delta_has() {
        let dictionary: DictionaryArray<Int32Type> = ["a", "b"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([
            ("count", Arc::new(UInt64Array::from(vec![1, u64::MAX])) as ArrayRef),
            ("text", Arc::new(StringViewArray::from(vec!["x", "y"]))),
            ("word", Arc::new(dictionary)),
            ("ts", Arc::new(TimestampNanosecondArray::from(vec![1_500, 2_999]))),
        ])
        .unwrap();
        let schema = normal_schema(batch.schema_ref()).unwrap();
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(types, [&DataType::Int64, &DataType::Utf8, &DataType::Utf8, &micros]);
        let (normal, lost) = normalise(&batch, &schema).unwrap();
        assert_eq!(lost, [Lost { row: 1, column: "count".into() }]);
        assert_eq!(normal.num_rows(), 2);
    }

    #[test]
    fn a_type_without_a_place_in_a_table_is_an_error() {
        let schema = Schema::new(vec![Field::new("d", DataType::Duration(TimeUnit::Second), true)]);
        assert!(normal_schema(&schema).unwrap_err().to_string().contains("'d'"));
    }
}
