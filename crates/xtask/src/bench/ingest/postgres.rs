//! PostgreSQL `COPY` of the rows that the line protocol has: a server of its own, as it comes, fsync on.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::at;
use crate::bench::process::{Server, free_port, server_programs};
use crate::bench::report::{Case, Report};
use crate::run::output;

const SECONDS: f64 = 15.0;
const CONNECTIONS: u64 = 4;
const ROWS: u64 = 5_000;

pub fn bench(folder: &Path, report: &mut Report) -> Result<()> {
    let Some(programs) = server_programs() else {
        report.note("PostgreSQL is not installed (apt-get install postgresql)".to_owned());
        return Ok(());
    };
    let own = folder.join("postgres");
    std::fs::create_dir_all(&own)?;
    let user = server_user();
    if let Some(user) = &user {
        crate::run::run(Command::new("chown").arg(user).arg(&own))?;
        crate::run::run(Command::new("chmod").arg("711").arg(folder))?;
    }
    let data = own.join("data");
    let as_user = |program: &Path| match &user {
        Some(user) => {
            let mut command = Command::new("runuser");
            command.args(["-u", user, "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    let initialised = as_user(&programs.join("initdb"))
        .args(["--auth", "trust", "--username", "bench", "--pgdata"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()?;
    if !initialised.success() {
        bail!("initdb failed");
    }
    let port = free_port()?;
    let mut command = as_user(&programs.join("postgres"));
    command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""]);
    let mut server = Server::start("PostgreSQL", &mut command, &own, port)?;
    // `runuser` stands between; the server writes its process into its folder.
    let pid = std::fs::read_to_string(data.join("postmaster.pid"))?;
    server.measure(pid.lines().next().and_then(|line| line.parse().ok()).context("no process identifier")?);
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

fn client(port: u16) -> Command {
    let mut command = Command::new("psql");
    command.args([
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
    ]);
    command.args(["-U", "bench", "postgres"]);
    command
}

fn psql(port: u16, sql: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(told) = output(client(port).args(["-c", sql])) {
            return Ok(told);
        }
        if Instant::now() > deadline {
            bail!("PostgreSQL at {} does not answer: {sql}", at(port));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The server refuses to run as root: the package's user runs it then.
fn server_user() -> Option<String> {
    let root_user = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    root_user.then(|| "postgres".to_owned())
}
