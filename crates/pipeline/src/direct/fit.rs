//! Rows of a body brought into the shape of their table; rows that do not fit are refused one by one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::{Field, Schema};
use twinlake_contracts::{COLUMN_ROLE, ORIGINAL_NAME, Result, TableName};

use super::columns::{coerce, find, role, shown};
use super::names;
use crate::normalise::{normal_schema, normalise};

/// The most columns that a table grows to.
const MOST_COLUMNS: usize = 2_000;

/// Rows in the shape of their table.
#[derive(Debug, Default)]
pub(super) struct Fit {
    /// How many rows fit.
    pub count: usize,
    /// Their columns, under the names that they have in the table; those without any value are left out.
    pub columns: Vec<(Arc<Field>, ArrayRef)>,
    /// The columns among them that the table lacks.
    pub new: Vec<Arc<Field>>,
    /// Rows that do not fit, by their index.
    pub misfits: BTreeMap<usize, Misfit>,
}

/// Why a row does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    pub reason: &'static str,
    pub detail: Arc<str>,
}

/// Fits rows into a table whose columns are `schema` (none: the table is new). A row is refused for its first value
/// that does not fit; a column is new only when a row that fits has a value in it.
pub(super) fn fit(table: &TableName, schema: &Schema, rows: &RecordBatch) -> Result<Fit> {
    let mut work =
        Work { table, schema, misfits: BTreeMap::new(), taken: HashSet::new(), fresh: HashSet::new() };
    let rows = work.normal(rows)?;
    let mut columns: Vec<(Arc<Field>, ArrayRef, bool)> = Vec::with_capacity(rows.num_columns());
    for (field, values) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if values.logical_null_count() == values.len() {
            continue;
        }
        let fitted = match find(schema, field) {
            Some(at) => work.known(at, field, values).map(|(field, values)| (field, values, false)),
            None => work.unknown(field, values).map(|field| (field, Arc::clone(values), true)),
        };
        columns.extend(fitted);
    }
    let mut fit = Fit { count: rows.num_rows() - work.misfits.len(), ..Fit::default() };
    let kept = (!work.misfits.is_empty()).then(|| {
        (0..rows.num_rows()).map(|row| Some(!work.misfits.contains_key(&row))).collect::<BooleanArray>()
    });
    for (field, values, new) in columns {
        let values = match &kept {
            None => values,
            Some(kept) => filter(&values, kept)?,
        };
        if values.logical_null_count() < values.len() {
            if new {
                fit.new.push(Arc::clone(&field));
            }
            fit.columns.push((field, values));
        }
    }
    fit.misfits = work.misfits;
    Ok(fit)
}

struct Work<'a> {
    table: &'a TableName,
    schema: &'a Schema,
    misfits: BTreeMap<usize, Misfit>,
    /// Columns of the table that have their values from this batch already.
    taken: HashSet<usize>,
    /// Names of new columns, in lower case.
    fresh: HashSet<String>,
}

impl Work<'_> {
    fn refuse(&mut self, rows: impl IntoIterator<Item = usize>, reason: &'static str, detail: &str) {
        let detail: Arc<str> = detail.into();
        for row in rows {
            self.misfits.entry(row).or_insert_with(|| Misfit { reason, detail: Arc::clone(&detail) });
        }
    }

    fn refuse_values(&mut self, values: &ArrayRef, reason: &'static str, detail: &str) {
        let nulls = values.logical_nulls();
        let has_value = |row: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
        self.refuse((0..values.len()).filter(has_value), reason, detail);
    }

    /// Brings the rows of a body with types of its own (Arrow) into types that tables have.
    fn normal(&mut self, rows: &RecordBatch) -> Result<RecordBatch> {
        if rows.schema_ref().fields().iter().any(|field| role(field).is_some()) {
            return Ok(rows.clone()); // line protocol: the types are normal
        }
        let mut storable = Vec::with_capacity(rows.num_columns());
        for (at, field) in rows.schema_ref().fields().iter().enumerate() {
            match normal_schema(&Schema::new(vec![Arc::clone(field)])) {
                Ok(_) => storable.push(at),
                Err(error) => self.refuse_values(rows.column(at), "unsupported_type", &error.to_string()),
            }
        }
        let rows = rows.project(&storable)?;
        let schema = normal_schema(rows.schema_ref())?;
        if schema.as_ref() == rows.schema_ref().as_ref() {
            return Ok(rows);
        }
        let (rows, lost) = normalise(&rows, &schema)?;
        for lost in lost {
            let detail = format!("'{}' does not fit into 64 bits with a sign", lost.column);
            self.refuse([lost.row], "out_of_range", &detail);
        }
        Ok(rows)
    }

    /// Values for a column that the table has.
    fn known(&mut self, at: usize, given: &Field, values: &ArrayRef) -> Option<(Arc<Field>, ArrayRef)> {
        let field = &self.schema.fields()[at];
        if !self.taken.insert(at) {
            let detail =
                format!("'{}' is the column '{}', which has a value already", given.name(), field.name());
            self.refuse_values(values, "duplicate_column", &detail);
            return None;
        }
        let strict = role(given).is_some() && given.data_type() != field.data_type();
        let coerced = if strict { None } else { coerce(values, field.data_type()) };
        let conflict = format!(
            "{} '{}' is {} in {} and {} here",
            role(given).unwrap_or("column"),
            given.name(),
            shown(field.data_type()),
            self.table,
            shown(given.data_type()),
        );
        let Some((values, lost)) = coerced else {
            self.refuse_values(values, "type_conflict", &conflict);
            return None;
        };
        self.refuse(lost, "type_conflict", &conflict);
        Some((Arc::clone(field), values))
    }

    /// The field of a column that the table lacks.
    fn unknown(&mut self, given: &Field, values: &ArrayRef) -> Option<Arc<Field>> {
        let own = role(given);
        let known =
            |name: &str| self.schema.fields().iter().any(|field| field.name().eq_ignore_ascii_case(name));
        let name = names::column(given.name(), own, |name| known(name) || self.fresh.contains(name));
        let Some(name) = name else {
            let detail = format!("'{}' would share its column's name with another one", given.name());
            self.refuse_values(values, "name_collision", &detail);
            return None;
        };
        if self.schema.fields().len() + self.fresh.len() >= MOST_COLUMNS {
            let detail = format!("'{}' would be more columns than a table has: {MOST_COLUMNS}", given.name());
            self.refuse_values(values, "too_many_columns", &detail);
            return None;
        }
        self.fresh.insert(name.clone());
        let mut metadata = given.metadata().clone();
        metadata.remove(ORIGINAL_NAME);
        if own.is_some() || name != *given.name() {
            metadata.insert(ORIGINAL_NAME.to_owned(), given.name().clone());
        }
        if own.is_none() {
            metadata.remove(COLUMN_ROLE);
        }
        Some(Arc::new(Field::new(name, given.data_type().clone(), true).with_metadata(metadata)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray, UInt64Array};
    use arrow::datatypes::{DataType, TimeUnit};

    use super::*;

    fn given(name: &str, own: Option<&str>, data_type: DataType) -> Field {
        let metadata = own.map(|own| {
            [(ORIGINAL_NAME.to_owned(), name.to_owned()), (COLUMN_ROLE.to_owned(), own.to_owned())].into()
        });
        Field::new(name, data_type, true).with_metadata(metadata.unwrap_or_default())
    }

    fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    fn table() -> TableName {
        TableName::parse("a.b").unwrap()
    }

    #[test]
    fn a_new_table_has_the_columns_that_have_values() {
        let rows = batch(vec![
            (given("Host", Some("tag"), DataType::Utf8), Arc::new(StringArray::from(vec!["x"]))),
            (given("host", Some("field"), DataType::Int64), Arc::new(Int64Array::from(vec![1]))),
            (given("empty", Some("field"), DataType::Int64), Arc::new(Int64Array::from(vec![None]))),
        ]);
        let fit = fit(&table(), &Schema::empty(), &rows).unwrap();
        assert_eq!((fit.count, fit.new.len(), fit.columns.len()), (1, 2, 2));
        assert_eq!(fit.new[0].name(), "host");
        assert!(fit.new[1].name().starts_with("host_"), "{:?}", fit.new[1]);
        assert_eq!(fit.new[1].metadata()[ORIGINAL_NAME], "host");
    }

    #[test]
    fn rows_with_another_type_are_refused_and_make_no_column() {
        let schema = Schema::new(vec![given("v", Some("field"), DataType::Int64)]);
        let rows = batch(vec![
            (
                given("v", Some("field"), DataType::Float64),
                Arc::new(Float64Array::from(vec![Some(1.0), None])),
            ),
            (given("w", Some("field"), DataType::Int64), Arc::new(Int64Array::from(vec![Some(1), None]))),
            (given("x", Some("field"), DataType::Int64), Arc::new(Int64Array::from(vec![2, 3]))),
        ]);
        let fit = fit(&table(), &schema, &rows).unwrap();
        assert_eq!(fit.count, 1);
        assert_eq!(fit.misfits[&0].reason, "type_conflict");
        assert_eq!(&*fit.misfits[&0].detail, "field 'v' is Int64 in a.b and Float64 here");
        assert_eq!(fit.new.iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(fit.columns[0].1.as_ref(), &Int64Array::from(vec![3]));
    }

    #[test]
    fn rows_of_arrow_are_coerced_value_by_value() {
        let schema = Schema::new(vec![
            Field::new("v", DataType::Int64, true),
            Field::new("wind_speed", DataType::Float64, true)
                .with_metadata([(ORIGINAL_NAME.to_owned(), "Wind Speed".to_owned())].into()),
        ]);
        let rows = batch(vec![
            (given("v", None, DataType::UInt64), Arc::new(UInt64Array::from(vec![1, u64::MAX, 3]))),
            (given("Wind Speed", None, DataType::Int64), Arc::new(Int64Array::from(vec![1, 2, 3]))),
            (
                given("wind_speed", None, DataType::Int64),
                Arc::new(Int64Array::from(vec![None, None, Some(1)])),
            ),
            (
                given("odd", None, DataType::Duration(TimeUnit::Second)),
                arrow::array::new_null_array(&DataType::Duration(TimeUnit::Second), 3),
            ),
        ]);
        let fit = fit(&table(), &schema, &rows).unwrap();
        let reasons: Vec<_> = fit.misfits.iter().map(|(row, misfit)| (*row, misfit.reason)).collect();
        assert_eq!(reasons, [(1, "out_of_range"), (2, "duplicate_column")]);
        assert_eq!(fit.columns[1].1.as_ref(), &Float64Array::from(vec![1.0]));
        assert!(fit.new.is_empty());
    }

    #[test]
    fn a_table_does_not_grow_without_end() {
        let columns = (0..=MOST_COLUMNS).map(|number| {
            let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), (number < 3).then_some(1)]));
            (given(&format!("c{number}"), Some("field"), DataType::Int64), values)
        });
        let fit = fit(&table(), &Schema::empty(), &batch(columns.collect())).unwrap();
        assert_eq!((fit.count, fit.new.len()), (1, 3));
        assert_eq!(fit.misfits[&0].reason, "too_many_columns");
    }
}
