//! Writes line protocol over HTTP/1.1 and measures.
//!
//! With a rate the load is an open loop: a body is due at its own time whatever the server does, and its latency counts
//! from then (no coordinated omission; Tene 2015). Without one, each connection writes as fast as it is answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What is written where.
#[derive(Clone)]
pub struct Load {
    pub port: u16,
    /// Path and query.
    pub target: String,
    pub connections: usize,
    /// Bodies a second over all connections; 0 is as fast as answered.
    pub rate: f64,
    pub seconds: f64,
    pub lines: usize,
    pub fields: usize,
    /// Sets the time stamps of one load apart from another's.
    pub epoch: u64,
}

/// What was measured.
pub struct Measured {
    pub lines: u64,
    pub seconds: f64,
    /// Sorted, in milliseconds.
    pub latencies_ms: Vec<f64>,
}

impl Measured {
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let last = self.latencies_ms.len().saturating_sub(1);
        self.latencies_ms.get((quantile * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub fn lines_per_second(&self) -> f64 {
        self.lines as f64 / self.seconds
    }
}

/// Runs the load; every body must be answered with 204.
pub fn run(load: &Load) -> Result<Measured> {
    let start = Instant::now();
    let threads: Vec<_> = (0..load.connections)
        .map(|number| {
            let load = load.clone();
            std::thread::spawn(move || connection(&load, number, start))
        })
        .collect();
    let (mut lines, mut latencies_ms) = (0, Vec::new());
    for thread in threads {
        let (own, own_latencies) =
            thread.join().map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??;
        lines += own;
        latencies_ms.extend(own_latencies);
    }
    latencies_ms.sort_by(f64::total_cmp);
    Ok(Measured { lines, seconds: start.elapsed().as_secs_f64(), latencies_ms })
}

fn connection(load: &Load, number: usize, start: Instant) -> Result<(u64, Vec<f64>)> {
    let stream = TcpStream::connect(("127.0.0.1", load.port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let end = start + Duration::from_secs_f64(load.seconds);
    let mut latencies = Vec::new();
    let mut sent = 0_u64;
    loop {
        let serial = sent * load.connections as u64 + number as u64;
        // Made before it is due, so that making it is not part of the latency.
        let body = body(load, serial);
        let due = if load.rate > 0.0 {
            let due = start + Duration::from_secs_f64(serial as f64 / load.rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due
        } else {
            Instant::now()
        };
        if due >= end {
            return Ok((sent * load.lines as u64, latencies));
        }
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            load.target,
            body.len()
        );
        writer.write_all(head.as_bytes())?;
        writer.write_all(&body)?;
        answer(&mut reader)?;
        latencies.push(due.elapsed().as_secs_f64() * 1e3);
        sent += 1;
    }
}

/// Lines of 1,000 devices; no two lines of a load are the same point.
fn body(load: &Load, serial: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(load.lines * (40 + 12 * load.fields));
    for line in 0..load.lines as u64 {
        let point = serial * load.lines as u64 + line;
        let (device, time) = (point % 1000, 1_700_000_000_000_000_000 + (load.epoch << 44) + point * 1000);
        // Writing to a vector does not fail.
        let _ = write!(body, "sensor,device=d{device} ");
        for field in 0..load.fields {
            let comma = if field == 0 { "" } else { "," };
            let _ = write!(body, "{comma}f{field}={}.{}", (point + field as u64) % 500, point % 10);
        }
        let _ = writeln!(body, " {time}");
    }
    body
}

/// The body of an answer that says all is well.
fn answer(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status: u16 = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        chunked |= header.starts_with("transfer-encoding:") && header.ends_with("chunked");
    }
    let mut told = vec![0; length];
    reader.read_exact(&mut told)?;
    while chunked {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).context("no size of a chunk")?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        told.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    let told = String::from_utf8_lossy(&told).into_owned();
    if !matches!(status, 200 | 204) {
        bail!("answered {status}: {told}");
    }
    Ok(told)
}

/// Asks one question after the other on one connection.
pub struct Asker {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Asker {
    pub fn connect(port: u16) -> Result<Self> {
        let writer = TcpStream::connect(("127.0.0.1", port))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(Duration::from_mins(1)))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// Gets an address and gives the answer's body, whose length the answer must tell.
    pub fn get(&mut self, target: &str) -> Result<String> {
        self.writer.write_all(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())?;
        answer(&mut self.reader)
    }

    /// Posts a body and gives the answer's body, whose length the answer must tell.
    pub fn post(&mut self, target: &str, media: &str, body: &str) -> Result<String> {
        let length = body.len();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.writer.write_all(request.as_bytes())?;
        answer(&mut self.reader)
    }
}

/// Posts a body of SQL or a form and gives the answer's body.
pub fn post(port: u16, target: &str, media: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told)
}
