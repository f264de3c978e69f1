//! Rows as an Arrow IPC stream (the streaming format, not the file format; uncompressed).
//!
//! Columns keep their names and types; what a table makes of a type is its own matter. A stream that is damaged or cut
//! off is refused as a whole (`invalid_arrow`), and so is one with two columns of one name.

use std::collections::HashSet;
use std::io::Cursor;

use arrow::ipc::reader::StreamReader;
use bytes::Bytes;
use twinlake_contracts::{DecodedBody, Error, Result, RowsFor, TableName, TableRows};

pub(crate) fn decode(table: &TableName, body: &Bytes) -> Result<DecodedBody> {
    let wrong = |error: arrow::error::ArrowError| Error::data("invalid_arrow", error.to_string());
    let reader = StreamReader::try_new(Cursor::new(body.as_ref()), None).map_err(wrong)?;
    let schema = reader.schema();
    let mut names = HashSet::new();
    if let Some(twice) = schema.fields().iter().find(|field| !names.insert(field.name())) {
        let message = format!("the column '{}' is there twice", twice.name());
        return Err(Error::data("duplicate_column", message));
    }
    let mut decoded = DecodedBody::default();
    let mut next: u32 = 1;
    for rows in reader {
        let rows = rows.map_err(wrong)?;
        let end = u32::try_from(rows.num_rows()).ok().and_then(|count| next.checked_add(count));
        let end = end.ok_or_else(|| Error::data("too_large", "a body holds at most 2^32 - 1 rows"))?;
        if next < end {
            let table = RowsFor::Table(table.clone());
            decoded.tables.push(TableRows { table, rows, places: (next..end).collect() });
        }
        next = end;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn stream(batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.into_inner().unwrap()
    }

    fn batch(numbers: &[i32]) -> RecordBatch {
        let words: StringArray = numbers.iter().map(|number| Some(number.to_string())).collect();
        let numbers: ArrayRef = Arc::new(Int32Array::from(numbers.to_vec()));
        RecordBatch::try_from_iter([("n", numbers), ("word", Arc::new(words) as _)]).unwrap()
    }

    #[test]
    fn batches_come_back_with_the_number_of_each_row() {
        let table = TableName::parse("a.b").unwrap();
        let body = stream(&[batch(&[7, 8]), batch(&[]), batch(&[9])]);
        let decoded = decode(&table, &Bytes::from(body.clone())).unwrap();
        let places: Vec<_> = decoded.tables.iter().map(|part| part.places.clone()).collect();
        assert_eq!(places, [vec![1, 2], vec![3]]);
        assert_eq!(decoded.tables[1].rows, batch(&[9]));
        for cut in [0, 3, 40, body.len() / 2] {
            let error = decode(&table, &Bytes::copy_from_slice(&body[..cut])).unwrap_err();
            assert!(error.to_string().starts_with("invalid_arrow"), "{error}");
        }
    }
}
