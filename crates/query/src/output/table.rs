//! A result as a table for people.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_schema;
use twinlake_contracts::Result;

/// Writes the table and how many rows it has.
pub(super) fn write(schema: &SchemaRef, rows: &[RecordBatch], writer: &mut impl Write) -> Result<()> {
    let options = FormatOptions::default().with_null("NULL");
    let table = if rows.is_empty() {
        pretty_format_batches_with_schema(schema.clone(), rows)?.to_string()
    } else {
        arrow::util::pretty::pretty_format_batches_with_options(rows, &options)?.to_string()
    };
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    writeln!(writer, "{table}\n({count} {})", if count == 1 { "row" } else { "rows" })?;
    Ok(())
}
