//! Line protocol over HTTP, into the lake and into InfluxDB 1.x.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Twinlake, at};
use crate::bench::http_load::{Load, Measured, post, run};
use crate::bench::process::{Server, free_port};
use crate::bench::report::{Case, Report};
use crate::setup::find;

const SECONDS: f64 = 15.0;
const CONNECTIONS: usize = 4;
const LINES: usize = 5_000;

pub fn bench(folder: &Path, report: &mut Report) -> Result<()> {
    for fields in [1, 10] {
        let own = Twinlake::start(&folder.join(format!("lines-{fields}")), free_port()?, &[])?;
        let target = "/api/v2/write?bucket=bench&precision=ns";
        let mine = both(report, (&own.server, own.http), target, fields, || {
            own.number("SELECT count(*) AS n FROM bench.sensor")
        })?;
        drop(own);
        let Some((server, http)) = influx(&folder.join(format!("influx-{fields}")))? else {
            report.note("InfluxDB 1.x is not installed (apt-get install influxdb)".to_owned());
            continue;
        };
        post(http, "/query?q=CREATE%20DATABASE%20bench", "text/plain", "")?;
        let count = || {
            let query = "/query?db=bench&q=SELECT%20count(f0)%20FROM%20sensor";
            let told = post(http, query, "text/plain", "")?;
            let number = told.split("\"values\":[[").nth(1).and_then(|rest| rest.split([',', ']']).nth(1));
            Ok(number.and_then(|number| number.parse().ok()).unwrap_or_default())
        };
        let theirs = both(report, (&server, http), "/write?db=bench&precision=ns", fields, count)?;
        report.note(format!(
            "Line protocol, {}: {:.1} times the lines a second of InfluxDB 1.x.",
            words(fields),
            mine / theirs
        ));
    }
    Ok(())
}

fn words(fields: usize) -> String {
    format!("{fields} field{} a line", if fields == 1 { "" } else { "s" })
}

/// As fast as it goes, then at half of that rate. `count` gives the lines that are there: all that were acknowledged.
fn both(
    report: &mut Report,
    (server, port): (&Server, u16),
    target: &str,
    fields: usize,
    count: impl Fn() -> Result<u64>,
) -> Result<f64> {
    let target = target.to_owned();
    let (connections, lines) = (CONNECTIONS, LINES);
    let load = Load { port, target, connections, rate: 0.0, seconds: SECONDS, lines, fields, epoch: 1 };
    let full = measure(report, server, "full", &load)?;
    let there = count()?;
    if there != full.lines {
        bail!("{}: {} lines were acknowledged and {there} are there", server.name, full.lines);
    }
    let rate = full.lines_per_second() / 2.0 / LINES as f64;
    measure(report, server, "half", &Load { rate, epoch: 2, ..load })?;
    Ok(full.lines_per_second())
}

fn measure(report: &mut Report, server: &Server, what: &str, load: &Load) -> Result<Measured> {
    let before = server.cpu_seconds();
    let measured = run(load)?;
    let cpu_us = (server.cpu_seconds() - before) * 1e6 / measured.lines as f64;
    report.add(Case {
        group: format!("line protocol, {}", words(load.fields)),
        system: server.name.to_owned(),
        load: what.to_owned(),
        unit: "lines".to_owned(),
        per_second: measured.lines_per_second(),
        values_per_second: Some(measured.lines_per_second() * load.fields as f64),
        p50_ms: Some(measured.quantile_ms(0.5)),
        p99_ms: Some(measured.quantile_ms(0.99)),
        p999_ms: Some(measured.quantile_ms(0.999)),
        cpu_us: Some(cpu_us),
        peak_mib: Some(server.peak_mib()),
    });
    Ok(measured)
}

fn influx(folder: &Path) -> Result<Option<(Server, u16)>> {
    let Some(program) = find("influxd") else { return Ok(None) };
    let (http, bind) = (free_port()?, free_port()?);
    std::fs::create_dir_all(folder)?;
    let path = |name: &str| folder.join(name).display().to_string();
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
    let file = folder.join("influxdb.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.args(["run", "-config"]).arg(&file);
    Ok(Some((Server::start("InfluxDB 1.x", &mut command, folder, http)?, http)))
}
