//! Lineage of columns as transforms tell it: the arrows from the columns of their inputs to those that come out.

use arrow::datatypes::Schema;
use twinlake_contracts::{ColumnEdge, Dependency};

/// Every column that comes out under its own name is handed on; `others` name what is not.
pub(super) fn handed_on(input: &str, schema: &Schema, out: &Schema, but: &[&str]) -> Vec<ColumnEdge> {
    let there = |name: &str| schema.column_with_name(name).is_some() && !but.contains(&name);
    out.fields()
        .iter()
        .filter(|field| there(field.name()))
        .map(|field| ColumnEdge::direct(field.name(), input, field.name()))
        .collect()
}

/// A column that is made of columns of the same row.
pub(super) fn computed<'a>(
    output: &str,
    input: &str,
    columns: impl IntoIterator<Item = &'a str>,
    expression: &str,
) -> Vec<ColumnEdge> {
    let edge = |column| {
        ColumnEdge::new(Some(output), input, column, Dependency::Computed, Some(expression.to_owned()))
    };
    columns.into_iter().map(edge).collect()
}

/// Columns that decide over rows, each once.
pub(super) fn decides<'a>(
    input: &str,
    columns: impl IntoIterator<Item = &'a str>,
    dependency: Dependency,
    expression: &str,
) -> Vec<ColumnEdge> {
    let mut seen = Vec::new();
    for column in columns {
        if !seen.contains(&column) {
            seen.push(column);
        }
    }
    seen.into_iter()
        .map(|column| ColumnEdge::new(None, input, column, dependency, Some(expression.to_owned())))
        .collect()
}
