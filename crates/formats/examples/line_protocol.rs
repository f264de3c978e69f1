//! Benchmark of the decoder of line protocol on one core: short lines, and lines as Telegraf's CPU plugin writes them.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fmt::Write as _;
use std::time::Instant;

use bytes::Bytes;
use twinlake_contracts::{BodyDecoder, BodyFormat, Error, Precision, Result};
use twinlake_formats::Bodies;

const LINES: u64 = 200_000;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let (mut short, mut telegraf) = (String::new(), String::new());
    for number in 0..LINES {
        let (host, hundred) = (number % 1000, number % 100);
        let time = 1_539_059_573_000_000_000 + number * 1_000_000;
        // Writing to a string does not fail.
        let _ = writeln!(short, "cpu,host=server{host:04},region=eu value={hundred}.{} {time}", number % 7);
        let _ = writeln!(
            telegraf,
            "cpu,cpu=cpu{},host=server{host:04} usage_user={hundred}.25,usage_system=1.5,usage_idle=90.125,usage_nice=0,\
             usage_iowait=0.25,usage_irq=0,usage_softirq=0.125,usage_steal=0,usage_guest=0,usage_guest_nice=0 {time}",
            number % 8,
        );
    }
    let format = BodyFormat::LineProtocol { database: "d".to_owned(), precision: Precision::Nanoseconds };
    println!("| lines | million lines/s | million values/s | MB/s |");
    println!("|---|---|---|---|");
    for (name, text, values) in [("short, 1 field", short, 1.0), ("Telegraf cpu, 10 fields", telegraf, 10.0)]
    {
        let body = Bytes::from(text);
        let mut best_s = f64::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let decoded = Bodies.decode(&format, &body, 0)?;
            best_s = best_s.min(start.elapsed().as_secs_f64());
            let rows = decoded.tables.iter().map(|table| table.rows.num_rows() as u64).sum::<u64>();
            if rows != LINES {
                return Err(Error::internal(format!("{rows} rows of {LINES} lines")));
            }
        }
        let millions = LINES as f64 / best_s / 1e6;
        println!(
            "| {name} | {millions:.2} | {:.2} | {:.0} |",
            millions * values,
            body.len() as f64 / best_s / 1e6
        );
    }
    Ok(())
}
