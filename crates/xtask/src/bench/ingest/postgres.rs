//! PostgreSQL `COPY` of the rows that the line protocol has: a server of its own, as it comes, fsync on.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bench::database::{Database, client, psql};
use crate::bench::report::{Case, Report};

const SECONDS: f64 = 15.0;
const CONNECTIONS: u64 = 4;
const ROWS: u64 = 5_000;

pub fn bench(folder: &Path, report: &mut Report) -> Result<()> {
    let Some(Database { server, port }) = Database::start(folder)? else {
        report.note("PostgreSQL is not installed (apt-get install postgresql)".to_owned());
        return Ok(());
    };
    for fields in [1, 10] {
        let values: String = (0..fields).fold(String::new(), |mut text, field| {
            let _ = write!(text, ", f{field} float8");
            text
        });
        let table = format!("sensor{fields}");
        psql(port, &format!("CREATE TABLE {table} (ts timestamptz, device text{values})"))?;
        let start = Instant::now();
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let table = table.clone();
                std::thread::spawn(move || connection(port, &table, number, fields))
            })
            .collect();
        let mut rows = 0;
        for thread in threads {
            rows += thread.join().map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??;
        }
        let seconds = start.elapsed().as_secs_f64();
        let there: u64 = psql(port, &format!("SELECT count(*) FROM {table}"))?.trim().parse()?;
        if there != rows {
            bail!("PostgreSQL: {rows} rows were copied and {there} are there");
        }
        report.add(Case {
            group: format!("line protocol, {fields} field{} a line", if fields == 1 { "" } else { "s" }),
            system: server.name.to_owned(),
            load: "full (COPY)".to_owned(),
            unit: "rows".to_owned(),
            per_second: rows as f64 / seconds,
            values_per_second: Some((rows * fields) as f64 / seconds),
            ..Case::default()
        });
    }
    Ok(())
}

/// One `psql` that is fed one `COPY` after the other.
fn connection(port: u16, table: &str, number: u64, fields: u64) -> Result<u64> {
    let mut child = client(port).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().context("psql has no input")?;
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs_f64(SECONDS) {
        let mut text = format!("COPY {table} FROM STDIN;\n");
        for row in 0..ROWS {
            let point = (sent + row) * CONNECTIONS + number;
            // A time as PostgreSQL reads it without a calendar of ours: so many microseconds after an instant.
            let (second, micro) = (point / 1_000_000, point % 1_000_000);
            let (hour, minute) = (second / 3600, second / 60 % 60);
            let _ = write!(
                text,
                "2023-11-14 {hour:02}:{minute:02}:{:02}.{micro:06}+00\td{}",
                second % 60,
                point % 1000
            );
            for field in 0..fields {
                let _ = write!(text, "\t{}.{}", (point + field) % 500, point % 10);
            }
            text.push('\n');
        }
        text += "\\.\n";
        input.write_all(text.as_bytes())?;
        sent += ROWS;
    }
    drop(input);
    if !child.wait()?.success() {
        bail!("psql failed");
    }
    Ok(sent)
}
