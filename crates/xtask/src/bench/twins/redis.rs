//! Redis: a hash for each vehicle, and a geographic set of all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{BOX, ONE, UPDATE, key, mix, quantiles};
use crate::bench::process::{Server, free_port};
use crate::bench::report::{Case, Report};
use crate::setup::find;

const PIPELINE: usize = 1_000;

pub fn bench(folder: &Path, count: u64, report: &mut Report) -> Result<()> {
    let Some(program) = find("redis-server") else {
        report.note("Redis is not installed (apt-get install redis-server)".to_owned());
        return Ok(());
    };
    let port = free_port()?;
    let mut command = Command::new(program);
    // Nothing on disk: what is compared is memory.
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let server = Server::start("Redis", &mut command, folder, port)?;
    let mut client = Client::connect(port)?;
    let positions = std::fs::read_to_string(folder.join("positions.csv"))?;
    let rows: Vec<Vec<&str>> = positions.lines().map(|line| line.split(',').collect()).collect();
    for rows in rows.chunks(PIPELINE) {
        client.pipeline(rows.iter().flat_map(|row| commands(row)))?;
    }
    let case = |group: &str, load: &str, unit: &str, latencies: Vec<f64>, per_second: f64| {
        let [p50_ms, p99_ms, p999_ms] = quantiles(latencies);
        let (group, load, unit) = (group.to_owned(), load.to_owned(), unit.to_owned());
        let system = "Redis".to_owned();
        Case { group, system, load, unit, per_second, p50_ms, p99_ms, p999_ms, ..Case::default() }
    };
    let (mut latencies, start) = (Vec::new(), Instant::now());
    for number in 0..20_000 {
        let begun = Instant::now();
        let answers = client.pipeline([vec!["HGETALL".to_owned(), key(mix(number) % count)]])?;
        latencies.push(begun.elapsed().as_secs_f64() * 1e3);
        if answers != 8 {
            bail!("Redis gives {answers} values for a vehicle");
        }
    }
    let per_second = 2e4 / start.elapsed().as_secs_f64();
    report.add(case(ONE, "TCP, 1 connection", "reads", latencies, per_second));

    // As large as the city's thousandth part: 0.8° by 0.4° at 60.2° N are 44.2 km by 44.5 km.
    let share = (1000.0 / count as f64).min(1.0).sqrt();
    let (width, height) = (44.2 * share, 44.5 * share);
    let (mut latencies, mut found, start) = (Vec::new(), 0, Instant::now());
    for number in 0..2_000_u64 {
        let part = |number: u64| (mix(number) >> 11) as f64 / (1_u64 << 53) as f64;
        let x = 24.6 + 0.8 * (share / 2.0 + part(2 * number) * (1.0 - share));
        let y = 60.0 + 0.4 * (share / 2.0 + part(2 * number + 1) * (1.0 - share));
        let begun = Instant::now();
        let words = format!("GEOSEARCH vehicles FROMLONLAT {x} {y} BYBOX {width} {height} km WITHCOORD");
        // A key and two numbers each.
        found += client.pipeline([words.split(' ').map(str::to_owned).collect()])? / 3;
        latencies.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let per_second = 2e3 / start.elapsed().as_secs_f64();
    let load = format!("TCP, keys and places of {} on average", found / 2_000);
    report.add(case(BOX, &load, "boxes", latencies, per_second));

    let (mut latencies, mut updates, start) = (Vec::new(), 0_u64, Instant::now());
    while start.elapsed() < Duration::from_secs(10) {
        let chosen: Vec<Vec<&str>> = (0..PIPELINE as u64)
            .map(|n| {
                let mut row = rows[(mix(updates + n) % count) as usize].clone();
                let place = &rows[(mix(updates + n + (1 << 40)) % count) as usize];
                (row[1], row[2]) = (place[1], place[2]);
                row
            })
            .collect();
        let begun = Instant::now();
        client.pipeline(chosen.iter().flat_map(|row| commands(row)))?;
        latencies.push(begun.elapsed().as_secs_f64() * 1e3);
        updates += PIPELINE as u64;
    }
    let per_second = updates as f64 / start.elapsed().as_secs_f64();
    report.add(Case {
        peak_mib: Some(server.peak_mib()),
        ..case(UPDATE, "TCP, 1,000 in a pipeline", "updates", latencies, per_second)
    });
    Ok(())
}

/// What sets the state of a vehicle.
fn commands(row: &[&str]) -> [Vec<String>; 2] {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let [name, x, y, speed] = row else { return [Vec::new(), Vec::new()] };
    [
        words(&["HSET", name, "x", x, "y", y, "speed_mps", speed, "mode", "bus"]),
        words(&["GEOADD", "vehicles", x, y, name]),
    ]
}

/// A connection in Redis's own protocol.
struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let writer = TcpStream::connect(("127.0.0.1", port))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(Duration::from_mins(1)))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// Sends commands at once and reads all answers; gives how many single values they hold.
    fn pipeline(&mut self, commands: impl IntoIterator<Item = Vec<String>>) -> Result<usize> {
        let (mut text, mut sent) = (Vec::new(), 0);
        for words in commands {
            write!(text, "*{}\r\n", words.len())?;
            for word in &words {
                write!(text, "${}\r\n{word}\r\n", word.len())?;
            }
            sent += 1;
        }
        self.writer.write_all(&text)?;
        let mut values = 0;
        for _ in 0..sent {
            values += self.answer()?;
        }
        Ok(values)
    }

    fn answer(&mut self) -> Result<usize> {
        let (mut left, mut values) = (1, 0);
        while left > 0 {
            left -= 1;
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let line = line.trim_end();
            let (kind, rest) = line.split_at_checked(1).context("Redis says nothing")?;
            match kind {
                "*" => left += rest.parse::<usize>()?,
                "$" => {
                    let mut word = vec![0; rest.parse::<usize>()? + 2];
                    self.reader.read_exact(&mut word)?;
                    values += 1;
                }
                "-" => bail!("Redis says: {rest}"),
                _ => values += 1,
            }
        }
        Ok(values)
    }
}
