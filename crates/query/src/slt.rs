//! Runs `tests/sql/*.slt` against a lake; `BLESS=1` writes the answers into the files instead of comparing them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use twinlake_contracts::{Error, WriteMode};

use crate::testing::{engine, vehicle_table, vehicles};
use crate::{Engine, Session, SessionSettings, output};

struct Database(Session);

#[async_trait]
impl AsyncDB for Database {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
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

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Error> {
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

fn files() -> Vec<PathBuf> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/sql");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Three vehicles committed and one fresh: every file starts from these rows.
async fn town() -> (tempfile::TempDir, Arc<Engine>) {
    let (folder, engine) = engine().await;
    let table = vehicle_table(engine.lake()).await;
    table.add_fresh("test/sink", vehicles(&["22/1", "22/2", "22/3"])).await.unwrap();
    table.commit("test/sink", 3, WriteMode::Append).await.unwrap();
    table.add_fresh("test/sink", vehicles(&["22/4"])).await.unwrap();
    (folder, engine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_files() {
    for file in files() {
        let (_folder, engine) = town().await;
        let mut runner = Runner::new(|| {
            let session = engine.session(SessionSettings { local_files: true });
            async { session.map(Database) }
        });
        if std::env::var_os("BLESS").is_some() {
            runner
                .update_test_file(
                    &file,
                    " ",
                    sqllogictest::default_validator,
                    sqllogictest::default_normalizer,
                    sqllogictest::default_column_validator,
                )
                .await
                .unwrap();
        } else if let Err(error) = runner.run_file_async(&file).await {
            panic!("{}", error.display(false));
        }
    }
}
