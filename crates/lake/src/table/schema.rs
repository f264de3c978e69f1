//! The columns of a table: what Delta can hold, how a writer's columns fit, and how rows are brought into shape.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use twinlake_contracts::{Error, GEOMETRY_COLUMN, Result, TableName, crs_of, is_geometry};

use super::cell::{H3_COLUMN, cell_field, cells, has_cells};
use super::extent;

/// The type in which a table holds values of `given`: unsigned integers become the next wider signed ones, every time
/// stamp becomes microseconds in UTC (one without a zone is taken as UTC), views and large variants become the plain
/// ones. `None` for what a table cannot hold.
pub(super) fn stored_type(given: &DataType) -> Option<DataType> {
    let inner = |field: &FieldRef| -> Option<FieldRef> {
        let stored = stored_type(field.data_type())?;
        Some(Arc::new(Field::new(field.name(), stored, true).with_metadata(field.metadata().clone())))
    };
    Some(match given {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Decimal128(..) => given.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        // A column of NULLs only, for example `NULL AS name`.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => stored_type(values)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let item = stored_type(item.data_type())?;
            DataType::List(Arc::new(Field::new("element", item, true)))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(inner).collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}

/// Whether every value of `from` is a value of `to`; both are stored types.
pub(super) fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, List, Struct};
    match (from, to) {
        _ if from == to => true,
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64)
        | (Int16, Int32 | Int64 | Float32 | Float64)
        | (Int32, Int64 | Float64)
        | (Float32, Float64) => true,
        (Int8 | Int16 | Int32 | Int64, Decimal128(digits, scale)) => {
            let most = match from {
                Int8 => 3,
                Int16 => 5,
                Int32 => 10,
                _ => 19,
            };
            i16::from(*digits) - i16::from(*scale) >= most
        }
        (Decimal128(digits, scale), Decimal128(more, wider)) => {
            wider >= scale && i16::from(*more) - i16::from(*wider) >= i16::from(*digits) - i16::from(*scale)
        }
        (List(a), List(b)) => fits(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && fits(a.data_type(), b.data_type()))
        }
        _ => false,
    }
}

/// The schema in which a table holds rows of a writer's schema: stored types, all nullable (whether a query's result
/// can be null depends on the optimizer's mood), and `_h3` behind a `geom` in longitude and latitude.
pub(super) fn stored_schema(name: &TableName, given: &Schema) -> Result<Schema> {
    let mut fields = Vec::with_capacity(given.fields().len() + 1);
    let mut seen = HashSet::new();
    for field in given.fields() {
        let column = field.name();
        if column.is_empty() || column.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
            return Err(Error::config(format!("'{column}' cannot name a column of table {name}"))
                .with_help("name it with AS, without spaces and without any of , ; { } ( ) ="));
        }
        if extent::is_hidden(&column.to_lowercase()) {
            return Err(Error::config(format!(
                "table {name} keeps '{column}' for the boxes of its geometry"
            ))
            .with_help("give the column another name with AS"));
        }
        if !seen.insert(column.to_lowercase()) {
            return Err(Error::config(format!("table {name} would have two columns '{column}'"))
                .with_help("names of columns must differ by more than upper and lower case"));
        }
        let stored = stored_type(field.data_type()).ok_or_else(|| {
            Error::config(format!(
                "column '{column}' of table {name} is {}: a table cannot hold that",
                field.data_type()
            ))
            .with_help("convert it in SQL, for example with CAST")
        })?;
        fields.push(Field::new(column, stored, true).with_metadata(field.metadata().clone()));
    }
    let places = fields.iter().any(|field| field.name() == GEOMETRY_COLUMN && has_cells(field));
    if places && !seen.contains(H3_COLUMN) {
        fields.push(cell_field());
    }
    Ok(Schema::new(fields))
}

/// The columns of `wanted` that `existing` lacks. Columns that do not fit are one error that names them all with both
/// types.
pub(super) fn missing_columns(name: &TableName, existing: &Schema, wanted: &Schema) -> Result<Vec<Field>> {
    let mut missing = Vec::new();
    let mut wrong = Vec::new();
    for field in wanted.fields() {
        let Some((_, known)) = existing.fields().find(field.name()) else {
            let near = existing.fields().iter().find(|known| known.name().eq_ignore_ascii_case(field.name()));
            match near {
                Some(near) => wrong.push(format!("'{}' is '{}' in the table", field.name(), near.name())),
                None => missing.push(field.as_ref().clone()),
            }
            continue;
        };
        if !fits(field.data_type(), known.data_type()) {
            wrong.push(format!(
                "'{}' is {} in the table and {} here",
                field.name(),
                known.data_type(),
                field.data_type()
            ));
        } else if let (true, true, there, here) =
            (is_geometry(known), is_geometry(field), crs_of(known), crs_of(field))
            && there != here
        {
            let show = |crs: Option<String>| crs.unwrap_or_else(|| "no CRS".to_owned());
            wrong.push(format!(
                "'{}' is in {} in the table and in {} here",
                field.name(),
                show(there),
                show(here)
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(missing);
    }
    Err(Error::config(format!("the columns do not fit table {name}: {}", wrong.join("; ")))
        .with_help(
            "convert the columns, widen those of the table (twinlake table alter), or write to a table with another name",
        ))
}

/// Brings rows into a table's shape: columns by name, missing ones null, `_h3` computed, values cast without loss.
pub(super) fn align(name: &TableName, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.schema_ref() == schema {
        return Ok(rows.clone());
    }
    let given = rows.schema();
    if let Some(unknown) = given.fields().iter().find(|field| schema.fields().find(field.name()).is_none()) {
        return Err(Error::config(format!("table {name} has no column '{}'", unknown.name())));
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match given.fields().find(field.name()) {
            Some((at, known)) => cast(name, rows.column(at), known, field)?,
            None => new_null_array(field.data_type(), rows.num_rows()),
        });
    }
    if given.fields().find(H3_COLUMN).is_none()
        && let (Some((cell, _)), Some((geometry, field))) =
            (schema.fields().find(H3_COLUMN), schema.fields().find(GEOMETRY_COLUMN))
        && has_cells(field)
    {
        columns[cell] = Arc::new(cells(&columns[geometry]));
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(Error::from)
}

fn cast(name: &TableName, column: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    if from.data_type() == to.data_type() {
        return Ok(Arc::clone(column));
    }
    let misfit = || {
        Error::config(format!(
            "the columns do not fit table {name}: '{}' is {} in the table and {} here",
            to.name(),
            to.data_type(),
            from.data_type()
        ))
    };
    if !matches!(from.data_type(), DataType::Null) {
        let stored = stored_type(from.data_type()).ok_or_else(misfit)?;
        if !fits(&stored, to.data_type()) {
            return Err(misfit());
        }
    }
    // Not "safe": a value that does not fit is an error, not a silent null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, to.data_type(), &options).map_err(|error| {
        Error::data("out_of_range", format!("column '{}' of table {name}: {error}", to.name()))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int16Array, StringViewArray, TimestampNanosecondArray, UInt64Array};
    use arrow::datatypes::Int64Type;
    use twinlake_contracts::{CRS84, geometry_field};

    use super::*;

    fn name() -> TableName {
        TableName::parse("a.b").unwrap()
    }

    #[test]
    fn rows_take_the_tables_shape_and_a_value_that_does_not_fit_is_an_error() {
        let given = Schema::new(vec![
            Field::new("t", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
            Field::new("n", DataType::UInt64, false),
            Field::new("s", DataType::Utf8View, false),
        ]);
        let stored = Arc::new(stored_schema(&name(), &given).unwrap());
        let rows = |n: u64| {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampNanosecondArray::from(vec![1_500])),
                Arc::new(UInt64Array::from(vec![n])),
                Arc::new(StringViewArray::from(vec!["x"])),
            ];
            RecordBatch::try_new(Arc::new(given.clone()), columns).unwrap()
        };
        let aligned = align(&name(), &rows(7), &stored).unwrap();
        assert_eq!(aligned.schema(), stored);
        assert_eq!(aligned.column(1).as_primitive::<Int64Type>().value(0), 7);
        let error = align(&name(), &rows(u64::MAX), &stored).unwrap_err();
        assert!(error.to_string().contains("'n'"), "{error}");
        let narrow = Schema::new(vec![Field::new("n", DataType::Int16, true)]);
        let rows = RecordBatch::try_new(Arc::new(narrow), vec![Arc::new(Int16Array::from(vec![3]))]).unwrap();
        let aligned = align(&name(), &rows, &stored).unwrap();
        assert_eq!((aligned.column(0).null_count(), aligned.column(1).null_count()), (1, 0));
    }

    #[test]
    fn a_misfit_names_every_column_with_both_types() {
        let table = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, true),
            geometry_field("geom", CRS84, true),
        ]);
        let wanted = Schema::new(vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("B", DataType::Utf8, true),
            geometry_field("geom", "EPSG:3879", true),
            Field::new("new", DataType::Int32, true),
        ]);
        let error = missing_columns(&name(), &table, &wanted).unwrap_err().to_string();
        for part in ["a.b", "'a' is Int64 in the table and Utf8 here", "'B' is 'b'", "OGC:CRS84", "EPSG:3879"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        let wanted = Schema::new(vec![
            Field::new("a", DataType::Int32, true),
            Field::new("new", DataType::Int32, true),
        ]);
        assert_eq!(missing_columns(&name(), &table, &wanted).unwrap().len(), 1);
    }

    #[test]
    fn only_columns_that_a_table_can_hold() {
        for (column, kind) in [("a b", DataType::Int64), ("x", DataType::Duration(TimeUnit::Second))] {
            assert!(stored_schema(&name(), &Schema::new(vec![Field::new(column, kind, true)])).is_err());
        }
        let twice = vec![Field::new("x", DataType::Int64, true), Field::new("X", DataType::Int64, true)];
        assert!(stored_schema(&name(), &Schema::new(twice)).is_err());
        let projected =
            stored_schema(&name(), &Schema::new(vec![geometry_field("geom", "EPSG:3879", true)])).unwrap();
        assert_eq!(projected.fields().len(), 1, "no cells without longitude and latitude");
    }
}
