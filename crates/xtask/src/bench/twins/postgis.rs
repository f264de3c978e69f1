//! PostGIS: a table with a primary key and a GiST index, asked by pgbench, which writes a log of each transaction.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{BOX, ONE, UPDATE, quantiles};
use crate::bench::database::{Database, client, psql};
use crate::bench::process::server_programs;
use crate::bench::report::{Case, Report};

const SECONDS: &str = "10";
const BATCH: u64 = 1_000;

pub fn bench(folder: &Path, count: u64, report: &mut Report) -> Result<()> {
    let Some(Database { server, port }) = Database::start(folder)? else {
        report.note("PostgreSQL is not installed (apt-get install postgresql postgis)".to_owned());
        return Ok(());
    };
    let program = server_programs().map(|folder| folder.join("pgbench")).filter(|path| path.is_file());
    let Some(program) = program else {
        report.note("pgbench is not installed (apt-get install postgresql-contrib)".to_owned());
        return Ok(());
    };
    psql(port, "SELECT 1")?;
    if psql(port, "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgis'")?.trim() != "1" {
        report.note("PostGIS is not installed (apt-get install postgresql-15-postgis-3)".to_owned());
        return Ok(());
    }
    psql(port, "CREATE EXTENSION postgis")?;
    psql(port, "CREATE TABLE positions (vehicle_id text, x float8, y float8, speed_mps float8)")?;
    let input = std::fs::File::open(folder.join("positions.csv"))?;
    let copied = client(port)
        .args(["-c", "COPY positions FROM STDIN (FORMAT csv)"])
        .stdin(Stdio::from(input))
        .status()?;
    if !copied.success() {
        bail!("PostgreSQL does not take the positions");
    }
    for sql in [
        "CREATE TABLE vehicle AS SELECT vehicle_id, speed_mps, 'bus' AS mode, now() AS valid_time, \
         ST_SetSRID(ST_MakePoint(x, y), 4326) AS geom FROM positions",
        "ALTER TABLE vehicle ADD PRIMARY KEY (vehicle_id)",
        "CREATE INDEX ON vehicle USING gist (geom)",
        "VACUUM ANALYZE vehicle",
        "ALTER SYSTEM SET synchronous_commit = off",
        "SELECT pg_reload_conf()",
    ] {
        // Making the index takes longer than the patience of `psql` with a server that starts: an error ends it at once.
        let done = client(port).args(["-c", sql]).stdout(Stdio::null()).status()?;
        if !done.success() {
            bail!("PostgreSQL refuses: {sql}");
        }
    }
    let share = (1000.0 / count as f64).min(1.0).sqrt();
    let (width, height) = (0.8 * share, 0.4 * share);
    let last = count - 1;
    let point = format!(
        "\\set id random(0, {last})\nSELECT * FROM vehicle WHERE vehicle_id = 'v' || lpad(:id::text, 7, '0');\n"
    );
    let area = format!(
        "\\set a random(0, 1000000)\n\\set b random(0, 1000000)\n\
         SELECT * FROM vehicle WHERE geom && ST_MakeEnvelope(24.6 + :a * {0} / 1e6, 60.0 + :b * {1} / 1e6, \
         24.6 + :a * {0} / 1e6 + {width}, 60.0 + :b * {1} / 1e6 + {height}, 4326);\n",
        0.8 - width,
        0.4 - height
    );
    let update = format!(
        "UPDATE vehicle SET speed_mps = random() * 20, valid_time = now(), \
         geom = ST_SetSRID(ST_MakePoint(24.6 + random() * 0.8, 60.0 + random() * 0.4), 4326) \
         FROM (SELECT DISTINCT 'v' || lpad(floor(random() * {count})::bigint::text, 7, '0') AS id FROM generate_series(1, {BATCH})) AS chosen \
         WHERE vehicle_id = chosen.id;\n"
    );
    let cases = [
        (ONE, "reads", point, 1, "TCP, 1 connection, prepared"),
        (BOX, "boxes", area, 1, "TCP, 1 connection, prepared"),
        (UPDATE, "updates", update, BATCH, "TCP, 1,000 a statement"),
    ];
    for (group, unit, script, each, load) in cases {
        let latencies = measure(&program, folder, port, &script)?;
        let busy_s: f64 = latencies.iter().sum::<f64>() / 1e3;
        let per_second = latencies.len() as f64 * each as f64 / busy_s;
        let [p50_ms, p99_ms, p999_ms] = quantiles(latencies);
        report.add(Case {
            group: group.to_owned(),
            system: "PostGIS".to_owned(),
            load: load.to_owned(),
            unit: unit.to_owned(),
            per_second,
            p50_ms,
            p99_ms,
            p999_ms,
            ..Case::default()
        });
    }
    report.note(format!("PostgreSQL's first process had {:.0} MiB at most.", server.peak_mib()));
    Ok(())
}

/// Runs a script for some seconds on one connection; the latency of each transaction in milliseconds.
fn measure(program: &Path, folder: &Path, port: u16, script: &str) -> Result<Vec<f64>> {
    let own = folder.join("pgbench");
    if own.exists() {
        std::fs::remove_dir_all(&own)?;
    }
    std::fs::create_dir_all(&own)?;
    std::fs::write(own.join("script.sql"), script)?;
    let done = Command::new(program)
        .current_dir(&own)
        .args(["-n", "-M", "prepared", "-c", "1", "-T", SECONDS, "-f", "script.sql", "-l"])
        .args([
            "--log-prefix",
            "times",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-U",
            "bench",
            "postgres",
        ])
        .stdout(Stdio::null())
        .status()?;
    if !done.success() {
        bail!("pgbench failed: {script}");
    }
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(&own)? {
        let path = entry?.path();
        let times = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("times"));
        if times {
            for line in std::fs::read_to_string(&path)?.lines() {
                let microseconds = line.split(' ').nth(2).context("an empty line of pgbench")?;
                latencies.push(microseconds.parse::<f64>()? / 1e3);
            }
        }
    }
    Ok(latencies)
}
