//! `twinlake sql`: statements from the command line or a prompt.

use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use twinlake_query::{Session, output, parse};

use crate::arguments::{Format, SqlOptions};
use crate::printed::Printed;
use crate::settings::Settings;
use crate::shell::{Line, Prompt};
use crate::town::Town;

/// How long after Ctrl-C calls that cancel work elsewhere may take.
const CANCELLED_WITHIN: Duration = Duration::from_millis(200);

const HELP: &str = "\
Statements end with a semicolon. Times are UTC.
  \\d           tables        \\d NAME   columns of a table
  \\?           this help     \\q        leave (also Ctrl-D)
  SET twin.as_of = '2018-10-09T04:32:53Z';   the city as it was (RESET twin.as_of; to come back)
  SET twin.known_at = '…';                    as it was known then
  SET twin.scenario = 'bridge-closed';        as it would be";

/// Runs the statements of `-c`, of standard input when it is no terminal, or the prompt.
pub async fn run(settings: &Settings, options: &SqlOptions) -> Result<()> {
    let town = Town::open(settings).await?;
    let session = town.session()?;
    if let Some(text) = &options.command {
        return interruptible(script(&session, text, options.format)).await;
    }
    if !std::io::stdin().is_terminal() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return interruptible(script(&session, &text, options.format)).await;
    }
    prompt(&session, options.format).await
}

/// Ctrl-C ends what runs: here by dropping it, on a cluster by cancelling it, which takes a moment.
async fn interruptible(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => {
            tokio::time::sleep(CANCELLED_WITHIN).await;
            bail!("interrupted")
        }
    }
}

/// Runs every statement; the first error ends it.
async fn script(session: &Session, text: &str, format: Format) -> Result<()> {
    for statement in parse(text)? {
        let frame = session.statement(statement).await?;
        show(session, frame, format).await?;
    }
    Ok(())
}

async fn prompt(session: &Session, format: Format) -> Result<()> {
    println!("twinlake {} — \\? for help", env!("CARGO_PKG_VERSION"));
    let mut prompt = Prompt::new(names(session).await?)?;
    loop {
        match tokio::task::block_in_place(|| prompt.next())? {
            Line::End => break,
            Line::Command(command) => match command.trim() {
                "q" => break,
                "?" | "h" | "help" => println!("{HELP}"),
                "d" | "dt" => answer(session, TABLES, format).await,
                other => match other.strip_prefix("d ") {
                    Some(table) => answer(session, &format!("DESCRIBE {}", table.trim()), format).await,
                    None => eprintln!("unknown command \\{other}; \\? lists them"),
                },
            },
            Line::Statement(text) => answer(session, &text, format).await,
        }
    }
    prompt.close();
    Ok(())
}

const TABLES: &str = "SELECT table_schema AS schema, table_name AS name, table_type AS type FROM information_schema.tables \
                      WHERE table_schema <> 'information_schema' ORDER BY 1, 2";

/// Runs one text at the prompt: an error is shown and the prompt goes on.
async fn answer(session: &Session, text: &str, format: Format) {
    let started = Instant::now();
    match interruptible(script(session, text, format)).await {
        Ok(()) => eprintln!("({:.0} ms)", started.elapsed().as_secs_f64() * 1e3),
        Err(error) => eprintln!("error: {error:#}"),
    }
}

async fn show(session: &Session, frame: datafusion::dataframe::DataFrame, format: Format) -> Result<()> {
    let schema = std::sync::Arc::clone(frame.schema().inner());
    let rows = frame.collect().await.map_err(|error| session.error(error))?;
    if schema.fields().is_empty() {
        return Ok(());
    }
    output::write(print_format(format), &schema, &rows, &mut Printed::new())?;
    Ok(())
}

/// The tables, columns and functions that the prompt completes.
async fn names(session: &Session) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for sql in [
        "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema <> 'information_schema'",
        "SELECT DISTINCT column_name FROM information_schema.columns WHERE table_schema <> 'information_schema'",
        "SELECT DISTINCT routine_name || '(' FROM information_schema.routines",
    ] {
        for batch in session.collect(sql).await? {
            let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
            let column = arrow::array::AsArray::as_string::<i32>(&column);
            names.extend(column.iter().flatten().map(str::to_owned));
        }
    }
    Ok(names)
}

/// The query crate's word for a format.
pub fn print_format(format: Format) -> output::Format {
    match format {
        Format::Table => output::Format::Table,
        Format::Csv => output::Format::Csv,
        Format::Json => output::Format::Json,
        Format::Arrow => output::Format::Arrow,
        Format::Parquet => output::Format::Parquet,
    }
}
