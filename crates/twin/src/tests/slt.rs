//! Runs `tests/sql/twins/*.slt` over a small town and a plant; `BLESS=1` writes the answers into the files instead of comparing.

use std::path::{Path, PathBuf};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use twinlake_contracts::Error;
use twinlake_query::{Session, SessionSettings, output};

use super::{City, FORK_US, Reading, models, plant, scenarios};

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
        let options = FormatOptions::default().with_null("NULL");
        let mut rows = Vec::new();
        for batch in &batches {
            let batch = output::readable(batch)?;
            let columns: Vec<ArrayFormatter<'_>> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options))
                .collect::<Result<_, _>>()?;
            let cell = |column: &ArrayFormatter<'_>, row| match column.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".to_owned(),
                text => text.replace('\n', "\\n"),
            };
            rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| cell(c, row)).collect()));
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &'static str {
        "twinlake"
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/sql/twins");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_files() {
    let all = |one: Vec<(String, String)>, other: Vec<(String, String)>| [one, other].concat();
    let city = City::with(all(models(), plant::models()), all(scenarios(), plant::scenarios())).await;
    city.build_town().await;
    city.build_plant().await;
    let vehicle = |vehicle, x: f64, seconds: i64, speed: f64| Reading {
        vehicle,
        ts: Some(FORK_US + seconds * 1_000_000),
        known: Some(FORK_US + (seconds + 2) * 1_000_000),
        sequence: Some(seconds),
        speed,
        position: Some((x, super::LATITUDE + 0.0001)),
        heading: Some(92.0),
        mode: "bus",
    };
    let readings =
        [vehicle("22/1", 24.903, -10, 5.0), vehicle("22/1", 24.904, 10, 7.0), vehicle("22/2", 25.5, 0, 3.0)];
    city.drive(&readings, Some(1)).await;
    for file in files() {
        let mut runner = Runner::new(|| {
            let session = city.engine.session(SessionSettings::default());
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
