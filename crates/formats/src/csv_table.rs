//! A small CSV file as one table, for inputs that a person writes: pairs to route, origins, opportunities.
//!
//! A column is `Int64` when all its values are whole numbers, `Float64` when all are numbers, `Boolean` when all are `true` or
//! `false`, else text. A number with a leading zero, such as the identifier 007, is text. An empty value is null.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use twinlake_contracts::{Error, Place, Result};

/// The table in the text; the first line names the columns. An error names file and line.
pub fn read_table(text: &str, file: &str) -> Result<RecordBatch> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let wrong = |line: u64, message: String| {
        let content = text.lines().nth((line as usize).saturating_sub(1)).unwrap_or_default().to_owned();
        let place =
            Place { file: Some(file.into()), line: line as usize, column: 1, text: content, length: 1 };
        Error::config(message).at(place)
    };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header =
        reader.headers().map_err(|error| wrong(1, format!("the header cannot be read: {error}")))?.clone();
    if header.is_empty() || header.iter().any(str::is_empty) {
        return Err(wrong(1, "every column needs a name".to_owned())
            .with_help("the first line names the columns, for example origin,destination"));
    }
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); header.len()];
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            wrong(line, format!("the row cannot be read: {error}"))
        })?;
        for (column, value) in columns.iter_mut().zip(&record) {
            column.push(Some(value.to_owned()).filter(|value| !value.is_empty()));
        }
    }
    let columns = header.iter().zip(columns).map(|(name, values)| (name, typed(values), true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// The values in the narrowest type that holds all of them.
fn typed(values: Vec<Option<String>>) -> ArrayRef {
    if let Some(whole) =
        all(&values, |value| if leads_with_zero(value) { None } else { value.parse::<i64>().ok() })
    {
        return Arc::new(Int64Array::from(whole));
    }
    let number = |value: &str| {
        value.parse::<f64>().ok().filter(|number| number.is_finite() && !leads_with_zero(value))
    };
    if let Some(numbers) = all(&values, number) {
        return Arc::new(Float64Array::from(numbers));
    }
    if let Some(flags) = all(&values, |value| value.parse::<bool>().ok()) {
        return Arc::new(BooleanArray::from(flags));
    }
    Arc::new(StringArray::from(values))
}

/// All values as that type; `None` when one of them is not, or when there is none at all.
fn all<T>(values: &[Option<String>], parse: impl Fn(&str) -> Option<T>) -> Option<Vec<Option<T>>> {
    if values.iter().all(Option::is_none) {
        return None;
    }
    values
        .iter()
        .map(|value| value.as_deref().map(&parse).map_or(Some(None), |parsed| parsed.map(Some)))
        .collect()
}

fn leads_with_zero(value: &str) -> bool {
    let digits = value.trim_start_matches('-').as_bytes();
    matches!(digits, [b'0', b'0'..=b'9', ..])
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn columns_have_the_narrowest_type() {
        let text = "a,b,c,d,e\n1,1.5,007,true,\n-2,,8,false,\n,0.25,\"x, y\",true,\n";
        let table = read_table(text, "t.csv").unwrap();
        let types: Vec<DataType> =
            table.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        let text = DataType::Utf8;
        assert_eq!(types, [DataType::Int64, DataType::Float64, text.clone(), DataType::Boolean, text]);
        assert_eq!(table.num_rows(), 3);
        assert_eq!(table["a"].null_count(), 1);
    }

    #[test]
    fn mistakes_name_the_line() {
        let shown = read_table("a,b\n1,2\n3\n", "t.csv").err().unwrap().to_string();
        assert!(shown.contains("t.csv:3"), "{shown}");
        assert!(
            read_table("a,,c\n", "t.csv").err().unwrap().to_string().contains("every column needs a name")
        );
    }
}
