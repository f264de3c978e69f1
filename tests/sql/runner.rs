//! Runs the golden files of a folder, `*.slt`. `BLESS=1` writes the answers into the files instead of comparing them.
//!
//! The tests of the crates `query` and `twin` include this file: the one runs `tests/sql`, the other `tests/sql/twins`.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use twinlake_contracts::{Error, Result};
use twinlake_query::{Session, output};

struct Database(Session);

#[async_trait]
impl AsyncDB for Database {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        let frame = self.0.sql(sql).await?;
        let columns = frame.schema().fields().len();
        let batches = frame.collect().await.map_err(|error| self.0.error(error))?;
        if columns == 0 {
            return Ok(DBOutput::StatementComplete(0));
        }
        let mut rows = Vec::new();
        for batch in &batches {
            rows.extend(cells(batch)?);
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &'static str {
        "twinlake"
    }
}

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let batch = output::readable(batch)?;
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<_, _>>()?;
    let cell = |column: &ArrayFormatter<'_>, row| match column.value(row).to_string() {
        empty if empty.is_empty() => "(empty)".to_owned(),
        text => text.replace('\n', "\\n"),
    };
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(column, row)).collect()).collect())
}

/// The golden files of a folder of `tests/sql`, in order of their names.
pub(crate) fn golden_files(folder: &str) -> Vec<PathBuf> {
    let folder =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/sql").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Runs one file; each of its connections is a new session.
pub(crate) async fn run(file: &Path, mut session: impl FnMut() -> Result<Session>) {
    let mut runner = Runner::new(|| {
        let session = session();
        async { session.map(Database) }
    });
    if std::env::var_os("BLESS").is_some() {
        runner
            .update_test_file(
                file,
                " ",
                sqllogictest::default_validator,
                sqllogictest::default_normalizer,
                sqllogictest::default_column_validator,
            )
            .await
            .unwrap();
    } else if let Err(error) = runner.run_file_async(file).await {
        panic!("{}", error.display(false));
    }
}
