//! `cargo xtask bench ingest`: what one machine takes in, load generators included; peers in the same run.

mod connections;
mod lines;
mod mqtt;
mod postgres;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::http_load::post;
use super::process::{Server, free_port, machine};
use super::report::{HEAD, Report};
use crate::run::cargo;
use crate::setup::target;

const ABOUT: [&str; 3] = [
    "Everything runs on this one machine, load generators included. The loads are open loops where a rate is given: what is \
     sent is due at its own time whatever the server does, and its latency counts from then. `full` is as fast as it is \
     answered; `half` is half of that rate.",
    "Line protocol: 4 connections, bodies of 5,000 lines, a new point each. Twinlake answers when the lines are fsynced and every \
     query sees them (checked by counting); InfluxDB 1.x when they are in its write-ahead log (fsync on). PostgreSQL takes the same \
     rows by `COPY`, 4 connections, a transaction for 5,000 rows, fsync on, no index.",
    "MQTT: QoS 1, one point a message, through a pipeline into a table; PUBACK comes after the log's fsync. mosquitto routes the same \
     messages and makes nothing durable. `publish to SQL` is the time from when a message was due to the first answer of \
     `SELECT count(*)`, asked without pause, that counts it.",
];

pub fn bench() -> Result<()> {
    crate::setup::setup()?;
    crate::run::run(cargo().args(["build", "--release", "--workspace", "--bins", "--examples"]))?;
    let folder = std::env::temp_dir().join(format!("twinlake-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut report = Report {
        name: "ingest",
        title: "Ingest",
        machine: machine(&[("influxd", "version"), ("mosquitto", "-h"), ("postgres", "--version")]),
        about: ABOUT.map(str::to_owned).to_vec(),
        cases: Vec::new(),
        notes: Vec::new(),
    };
    println!("{}\n\n{}", report.machine, HEAD.trim_end());
    let result = lines::bench(&folder, &mut report)
        .and_then(|()| postgres::bench(&folder, &mut report))
        .and_then(|()| mqtt::bench(&folder, &mut report))
        .and_then(|()| connections::bench(&folder, &mut report));
    std::fs::remove_dir_all(&folder).context("the folder of the benchmark stays")?;
    result?;
    report.write()
}

/// A running Twinlake.
struct Twinlake {
    server: Server,
    http: u16,
}

impl Twinlake {
    /// Starts one in `folder`, with its MQTT door at `mqtt`.
    fn start(folder: &Path, mqtt: u16, extra: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (http, postgres) = (free_port()?, free_port()?);
        let mut command = Command::new(target().join("release/twinlake"));
        command
            .args(["serve", "--http", &at(http), "--postgres", &at(postgres), "--mqtt", &at(mqtt)])
            .args(extra);
        Ok(Self { server: Server::start("Twinlake", &mut command, folder, http)?, http })
    }

    /// The number that a query gives.
    fn number(&self, sql: &str) -> Result<u64> {
        let told = post(self.http, "/v1/sql", "text/plain", sql)?;
        number(&told).with_context(|| format!("no number in {told}"))
    }
}

/// The first number of the first row of an answer.
fn number(told: &str) -> Option<u64> {
    told.split("\"rows\":[[").nth(1)?.split([',', ']']).next()?.parse().ok()
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
