//! Typed columns of a snapshot table, with errors that name the table, the column and the row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use twinlake_contracts::{Error, Result, suggest};

/// A snapshot table under its role. Integers of any width are read as `i64`, numbers of any kind as `f64`; text is
/// never taken for a number.
pub(crate) struct Table<'a> {
    role: &'a str,
    batch: &'a RecordBatch,
}

impl<'a> Table<'a> {
    pub(crate) fn new(role: &'a str, batch: &'a RecordBatch) -> Self {
        Self { role, batch }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// An integer column without nulls.
    pub(crate) fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let column = self.column(name)?;
        if !column.data_type().is_integer() {
            return Err(self.wrong_type(name, column, "an integer"));
        }
        let whole = in_type(column, &DataType::Int64)?;
        let whole = whole.as_primitive::<Int64Type>();
        if whole.null_count() == 0 {
            return Ok(whole.values().to_vec());
        }
        whole
            .iter()
            .enumerate()
            .map(|(row, value)| {
                value.ok_or_else(|| {
                    Error::config(format!(
                        "row {} of '{}' has no {name}, or one that is out of range",
                        row + 1,
                        self.role
                    ))
                })
            })
            .collect()
    }

    /// A number column; what a null means is for the caller to say.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>> {
        let column = self.column(name)?;
        if !column.data_type().is_numeric() && !matches!(column.data_type(), DataType::Null) {
            return Err(self.wrong_type(name, column, "a number"));
        }
        let numbers = in_type(column, &DataType::Float64)?;
        Ok(numbers.as_primitive::<Float64Type>().iter().collect())
    }

    /// A Boolean column; what a null means is for the caller to say.
    pub(crate) fn flags(&self, name: &str) -> Result<Vec<Option<bool>>> {
        let column = self.column(name)?;
        match column.data_type() {
            DataType::Boolean => Ok(column.as_boolean().iter().collect()),
            DataType::Null => Ok(vec![None; column.len()]),
            _ => Err(self.wrong_type(name, column, "a Boolean")),
        }
    }

    /// A text column; what a null means is for the caller to say.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<Option<String>>> {
        Ok(self.strings(name)?.iter().map(|text| text.map(str::to_owned)).collect())
    }

    /// A text column as it lies there: nothing is copied where it is plain text already.
    pub(crate) fn strings(&self, name: &str) -> Result<StringArray> {
        let column = self.column(name)?;
        match column.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
                Ok(in_type(column, &DataType::Utf8)?.as_string::<i32>().clone())
            }
            _ => Err(self.wrong_type(name, column, "text")),
        }
    }

    fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.batch.column_by_name(name).ok_or_else(|| {
            let schema = self.batch.schema();
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let help = suggest(name, known.iter().copied()).map_or_else(
                || format!("its columns: {}", known.join(", ")),
                |near| format!("it has a column '{near}'"),
            );
            Error::config(format!("the table '{}' has no column '{name}'", self.role)).with_help(help)
        })
    }

    fn wrong_type(&self, name: &str, column: &ArrayRef, wanted: &str) -> Error {
        Error::config(format!(
            "column '{name}' of '{}' is of type {}, but must be {wanted}",
            self.role,
            column.data_type()
        ))
    }
}

/// The column in that type; itself, if it is.
fn in_type(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    if column.data_type() == wanted { Ok(Arc::clone(column)) } else { Ok(cast(column, wanted)?) }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array};

    use super::*;

    #[test]
    fn widens_numbers_and_refuses_what_is_not_one() {
        let batch = RecordBatch::try_from_iter([
            ("from_node", Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef),
            ("toll", Arc::new(Int32Array::from(vec![Some(7), None])) as ArrayRef),
            ("capacity", Arc::new(StringArray::from(vec!["1", "2"])) as ArrayRef),
            ("to_node", Arc::new(Float64Array::from(vec![1.5, 2.0])) as ArrayRef),
        ])
        .unwrap();
        let table = Table::new("links", &batch);
        assert_eq!(table.numbers("toll").unwrap(), [Some(7.0), None]);
        let said = |result: Result<Vec<i64>>| result.unwrap_err().to_string();
        assert!(said(table.integers("from_node")).contains("row 2 of 'links' has no from_node"));
        assert!(said(table.integers("to_node")).contains("must be an integer"));
        assert!(said(table.integers("fromnode")).contains("it has a column 'from_node'"));
        assert!(table.numbers("capacity").unwrap_err().to_string().contains("must be a number"));
        assert!(table.flags("toll").is_err());
    }
}
