//! `cargo xtask bench ingest`: what one machine takes in, load generator included.
//!
//! Line protocol over HTTP into the lake (the answer comes when the lines are on stable storage and SQL sees them) and
//! into InfluxDB 1.x (the answer comes when they are in its write-ahead log, fsync on), by the same load; MQTT QoS 1
//! with one point a message through a pipeline, and the same load on mosquitto (which does not make messages durable).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::http_load::{Load, Measured, post, run};
use super::process::{Server, free_port, machine};
use crate::run::{cargo, output};
use crate::setup::target;

const SECONDS: f64 = 15.0;
const CONNECTIONS: usize = 4;
const LINES: usize = 5_000;

pub fn bench() -> Result<()> {
    crate::run::run(cargo().args(["build", "--release", "--workspace", "--bins", "--examples"]))?;
    let folder = std::env::temp_dir().join(format!("twinlake-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    println!("{}\n", machine());
    println!("| what | lines/s | values/s | p50 ms | p99 ms | p99.9 ms | CPU µs/line | peak MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    let result = line_protocol(&folder).and_then(|()| mqtt(&folder));
    std::fs::remove_dir_all(&folder).context("the folder of the benchmark stays")?;
    result
}

fn twinlake(folder: &Path, extra: &[&str]) -> Result<(Server, u16, u16)> {
    let (http, postgres, mqtt) = (free_port()?, free_port()?, free_port()?);
    let mut command = Command::new(target().join("release/twinlake"));
    command
        .args(["serve", "--http", &at(http), "--postgres", &at(postgres), "--mqtt", &at(mqtt)])
        .args(extra);
    Ok((Server::start("twinlake", &mut command, folder, http)?, http, mqtt))
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn line_protocol(folder: &Path) -> Result<()> {
    for fields in [1, 10] {
        let own = folder.join(format!("lines-{fields}"));
        std::fs::create_dir_all(&own)?;
        let (server, http, _) = twinlake(&own, &[])?;
        let target = "/api/v2/write?bucket=bench&precision=ns";
        let count = |_: &Measured| -> Result<u64> {
            let told = post(http, "/v1/sql", "text/plain", "SELECT count(*) AS n FROM bench.sensor")?;
            let rows = told.split("\"rows\":[[").nth(1).and_then(|rest| rest.split(']').next()?.parse().ok());
            rows.with_context(|| format!("no count in {told}"))
        };
        both(&server, http, target, fields, count)?;
        drop(server);
        match influx(folder)? {
            None => println!("| InfluxDB 1.x is not installed (apt-get install influxdb) | | | | | | | |"),
            Some((server, http)) => {
                post(http, "/query?q=CREATE%20DATABASE%20bench", "text/plain", "")?;
                both(&server, http, "/write?db=bench&precision=ns", fields, |measured| Ok(measured.lines))?;
            }
        }
    }
    Ok(())
}

/// As fast as it goes, then at half of that rate; `count` gives the lines that are there afterwards.
fn both(
    server: &Server,
    port: u16,
    target: &str,
    fields: usize,
    count: impl Fn(&Measured) -> Result<u64>,
) -> Result<()> {
    let target = target.to_owned();
    let load = Load {
        port,
        target,
        connections: CONNECTIONS,
        rate: 0.0,
        seconds: SECONDS,
        lines: LINES,
        fields,
        epoch: 1,
    };
    let full = measure(server, "full load", &load)?;
    let there = count(&full)?;
    if there != full.lines {
        bail!("{}: {} lines were acknowledged and {there} are there", server.name, full.lines);
    }
    let rate = full.lines_per_second() / 2.0 / LINES as f64;
    measure(server, "half load", &Load { rate, epoch: 2, ..load })?;
    Ok(())
}

fn measure(server: &Server, what: &str, load: &Load) -> Result<Measured> {
    let before = server.cpu_seconds();
    let measured = run(load)?;
    let cpu = (server.cpu_seconds() - before) * 1e6 / measured.lines as f64;
    println!(
        "| {}, line protocol, {} field{} a line, {what} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {cpu:.2} | {:.0} |",
        server.name,
        load.fields,
        if load.fields == 1 { "" } else { "s" },
        measured.lines_per_second(),
        measured.lines_per_second() * load.fields as f64,
        measured.quantile_ms(0.5),
        measured.quantile_ms(0.99),
        measured.quantile_ms(0.999),
        server.peak_mib(),
    );
    Ok(measured)
}

fn influx(folder: &Path) -> Result<Option<(Server, u16)>> {
    if output(Command::new("influxd").arg("version")).is_none() {
        return Ok(None);
    }
    let (http, bind) = (free_port()?, free_port()?);
    let own = folder.join(format!("influx-{http}"));
    std::fs::create_dir_all(&own)?;
    let path = |name: &str| own.join(name).display().to_string();
    let config = format!(
        "reporting-disabled = true\nbind-address = \"{}\"\n[meta]\ndir = \"{}\"\n[data]\ndir = \"{}\"\nwal-dir = \"{}\"\n\
         query-log-enabled = false\n[monitor]\nstore-enabled = false\n\
         [http]\nbind-address = \"{}\"\nlog-enabled = false\nmax-body-size = 0\n",
        at(bind),
        path("meta"),
        path("data"),
        path("wal"),
        at(http)
    );
    let file = own.join("influxdb.conf");
    std::fs::write(&file, config)?;
    let server = Server::start(
        "InfluxDB 1.x",
        Command::new("influxd").args(["run", "-config"]).arg(&file),
        &own,
        http,
    )?;
    Ok(Some((server, http)))
}

/// One point a message, QoS 1, through a pipeline into a table.
fn mqtt(folder: &Path) -> Result<()> {
    let own = folder.join("mqtt");
    std::fs::create_dir_all(&own)?;
    let port = free_port()?;
    let pipeline = format!(
        "name = \"points\"\n[sources.device]\ntype = \"mqtt_broker\"\nlisten = \"{}\"\ntopics = [\"load/#\"]\n\
         decoder = {{ type = \"json\", columns = {{ value = {{ type = \"float64\", required = true }} }} }}\n\
         [sinks.point]\ntype = \"lake\"\ninputs = [\"device\"]\ntable = \"bench.point\"\n",
        at(port)
    );
    std::fs::write(own.join("points.toml"), pipeline)?;
    let (server, http, _) = twinlake(&own, &["--pipeline", "points.toml"])?;
    println!("\nMQTT, QoS 1, one point a message:");
    for (rate, connections) in [(60_000, 1000), (30_000, 1000), (30_000, 10_000)] {
        println!("twinlake, {rate}/s asked of {connections} connections:");
        load(port, server.id(), rate, connections)?;
    }
    let told = post(http, "/v1/sql", "text/plain", "SELECT count(*) AS n FROM bench.point")?;
    println!("rows in bench.point: {}", told.rsplit("\"rows\":").next().unwrap_or_default().trim());
    drop(server);
    if output(Command::new(mosquitto()).arg("-h")).is_none() && !mosquitto().exists() {
        println!("mosquitto is not installed");
        return Ok(());
    }
    let port = free_port()?;
    let config = own.join("mosquitto.conf");
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n");
    std::fs::write(&config, text)?;
    let server = Server::start("mosquitto", Command::new(mosquitto()).arg("-c").arg(&config), &own, port)?;
    println!("mosquitto (nothing is made durable), 60000/s asked of 1000 connections:");
    load(port, server.id(), 60_000, 1000)
}

fn mosquitto() -> PathBuf {
    PathBuf::from("/usr/sbin/mosquitto")
}

fn load(port: u16, server: u32, rate: u32, connections: u32) -> Result<()> {
    let (rate, connections) = (rate.to_string(), connections.to_string());
    let mut command = Command::new(target().join("release/examples/mqtt_load"));
    command.args(["load", "--to", &at(port), "--connections", &connections, "--rate", &rate]);
    command.args(["--seconds", "10", "--payload", "{\"value\":21.5}", "--server", &server.to_string()]);
    let status = command.status()?;
    if !status.success() {
        bail!("the load ended with {status}");
    }
    Ok(())
}
