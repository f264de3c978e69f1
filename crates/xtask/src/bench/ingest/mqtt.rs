//! MQTT QoS 1, one point a message: through a pipeline into a table, and through mosquitto.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Twinlake, at, number};
use crate::bench::http_load::Asker;
use crate::bench::process::{Server, free_port};
use crate::bench::report::{Case, Report};
use crate::setup::{find, target};

const SECONDS: u32 = 15;
/// What is asked for at full load.
const MOST: u32 = 80_000;

/// The pipeline of the measurement: every message a row.
pub fn pipeline(port: u16) -> String {
    format!(
        "name = \"points\"\n[sources.device]\ntype = \"mqtt_broker\"\nlisten = \"{}\"\ntopics = [\"load/#\"]\n\
         decoder = {{ type = \"json\", columns = {{ value = {{ type = \"float64\", required = true }} }} }}\n\
         [sinks.point]\ntype = \"lake\"\ninputs = [\"device\"]\ntable = \"bench.point\"\n",
        at(port)
    )
}

pub fn bench(folder: &Path, report: &mut Report) -> Result<()> {
    let own = folder.join("mqtt");
    std::fs::create_dir_all(&own)?;
    let port = free_port()?;
    std::fs::write(own.join("points.toml"), pipeline(port))?;
    let twinlake = Twinlake::start(&own, port, &["--pipeline", "points.toml"])?;
    let (full, _) = load(report, &twinlake.server, port, ("full", MOST, 1000))?;
    all_visible(&twinlake)?;
    let half = (full / 2.0) as u32;
    let asking = Arc::new(AtomicBool::new(true));
    let poller = {
        let (asking, http) = (Arc::clone(&asking), twinlake.http);
        std::thread::spawn(move || ask(http, &asking))
    };
    let (_, told) = load(report, &twinlake.server, port, ("half", half, 1000))?;
    std::thread::sleep(Duration::from_secs(1));
    asking.store(false, Ordering::Release);
    let answers = poller.join().map_err(|_| anyhow::anyhow!("the poller panicked"))??;
    visible(report, &told, half, &answers)?;
    load(report, &twinlake.server, port, ("half", half, 10_000))?;
    all_visible(&twinlake)?;
    drop(twinlake);
    let Some(program) = find("mosquitto") else {
        report.note("mosquitto is not installed".to_owned());
        return Ok(());
    };
    let port = free_port()?;
    let config = own.join("mosquitto.conf");
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n");
    std::fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&config);
    let server = Server::start("mosquitto (not durable)", &mut command, &own, port)?;
    let (full, _) = load(report, &server, port, ("full", MOST, 1000))?;
    load(report, &server, port, ("half", (full / 2.0) as u32, 1000))?;
    Ok(())
}

/// Waits until the rows that SQL counts are no longer more.
fn all_visible(twinlake: &Twinlake) -> Result<()> {
    let count = || twinlake.number("SELECT count(*) AS n FROM bench.point");
    let mut before = count()?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = count()?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with the wall clock of the load")]
/// Asks for the number of rows, one question after the other: when each was answered (microseconds), and the number.
fn ask(port: u16, asking: &AtomicBool) -> Result<Vec<(u64, u64)>> {
    let mut asker = Asker::connect(port)?;
    let mut answers = Vec::new();
    while asking.load(Ordering::Acquire) {
        let told = asker.post("/v1/sql", "text/plain", "SELECT count(*) AS n FROM bench.point")?;
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
        answers.push((now_us, number(&told).with_context(|| format!("no number in {told}"))?));
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(answers)
}

/// The n-th message was due at its time and is visible with the first answer that counts n more than before.
fn visible(report: &mut Report, told: &Value, rate: u32, answers: &[(u64, u64)]) -> Result<()> {
    let messages = told["messages"].as_u64().context("no number of messages")?;
    let started_us = told["started_us"].as_u64().context("no start")?;
    let last = answers.last().context("nothing was asked")?.1;
    let base = last.checked_sub(messages).context("messages are missing")?;
    let mut latencies: Vec<f64> = Vec::with_capacity(messages as usize);
    let mut answers = answers.iter().peekable();
    for number in 0..messages {
        let due_us = started_us + number * 1_000_000 / u64::from(rate);
        while answers.peek().is_some_and(|(_, count)| *count <= base + number) {
            answers.next();
        }
        let (at_us, _) = answers.peek().context("a message never became visible")?;
        latencies.push(at_us.saturating_sub(due_us) as f64 / 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    let quantile = |share: f64| Some(latencies[(share * (latencies.len() - 1) as f64).round() as usize]);
    report.add(Case {
        group: "MQTT QoS 1, publish to SQL".to_owned(),
        system: "Twinlake".to_owned(),
        load: "half, 1000 connections".to_owned(),
        unit: "messages".to_owned(),
        per_second: f64::from(rate),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        ..Case::default()
    });
    Ok(())
}

/// Runs the load generator and gives the rate that was acknowledged, with what it told.
fn load(
    report: &mut Report,
    server: &Server,
    port: u16,
    (what, rate, connections): (&str, u32, u32),
) -> Result<(f64, Value)> {
    let told = generator(port, server.id(), connections, rate, SECONDS, "127.0.0.1")?
        .wait(Instant::now() + Duration::from_mins(3))?;
    let number = |key: &str| told[key].as_f64();
    let messages = number("messages").context("the load tells no messages")?;
    let per_second = messages / number("seconds").context("the load tells no time")?;
    report.add(Case {
        group: "MQTT QoS 1, publish to PUBACK".to_owned(),
        system: server.name.to_owned(),
        load: format!("{what}, {connections} connections"),
        unit: "messages".to_owned(),
        per_second,
        p50_ms: number("p50_ms"),
        p99_ms: number("p99_ms"),
        p999_ms: number("p999_ms"),
        cpu_us: number("server_cpu_s").map(|seconds| seconds * 1e6 / messages),
        peak_mib: Some(server.peak_mib()),
        ..Case::default()
    });
    Ok((per_second, told))
}

/// A load generator that runs.
pub struct Generator(std::process::Child);

impl Generator {
    /// What it told in its last line.
    pub fn wait(mut self, deadline: Instant) -> Result<Value> {
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.0.kill()?;
                bail!("the load does not end");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("the load ended with {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
    }
}

/// Starts a load generator; without a rate it only holds its connections.
pub fn generator(
    port: u16,
    server: u32,
    connections: u32,
    rate: u32,
    seconds: u32,
    from: &str,
) -> Result<Generator> {
    let mut command = Command::new(target().join("release/examples/mqtt_load"));
    command.args(["load", "--to", &at(port), "--from", from, "--payload", "{\"value\":21.5}"]);
    for (name, value) in
        [("--connections", connections), ("--rate", rate), ("--seconds", seconds), ("--server", server)]
    {
        command.args([name, &value.to_string()]);
    }
    Ok(Generator(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
}
