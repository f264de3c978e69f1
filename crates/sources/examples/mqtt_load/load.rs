//! Many devices in one thread.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::device::Device;
use crate::histogram::Histogram;
use crate::option;

pub fn run(options: &HashMap<String, String>) {
    let to: SocketAddr = option(options, "to", "127.0.0.1:1884".parse().unwrap());
    let from: IpAddr = option(options, "from", "127.0.0.1".parse().unwrap());
    let connections: usize = option(options, "connections", 1000);
    let rate: f64 = option(options, "rate", 0.0);
    let seconds: f64 = option(options, "seconds", 10.0);
    let window: usize = option(options, "window", 32);
    let server: u32 = option(options, "server", 0);
    let payload: String = option(options, "payload", "x".repeat(option(options, "bytes", 120)));
    let payload = payload.into_bytes();

    let mut poll = Poll::new().unwrap();
    let before = memory_kib(server);
    let start = Instant::now();
    let mut devices = Vec::with_capacity(connections);
    let mut latencies = Histogram::new();
    let mut room = vec![0; 64 * 1024];
    let mut port = 10_000;
    for number in 0..connections {
        let name = format!("{from}-{number}");
        let mut device = Device::connect(to, from, &mut port, &name).unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut device.stream, Token(number), interest).unwrap();
        device.flush().unwrap();
        devices.push(device);
        if number % 64 == 63 || number + 1 == connections {
            settle(&mut poll, &mut devices, &mut room, &mut latencies);
        }
    }
    println!("{connections} connections in {:.1} s", start.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(2));
    report_memory("idle", server, before, connections);

    if rate > 0.0 {
        let warm = seconds.min(3.0);
        publish(&mut poll, &mut devices, (rate, warm), (window, &payload), &mut room, &mut Histogram::new());
        let own_cpu = cpu_ticks(std::process::id());
        let (start, cpu) = (Instant::now(), cpu_ticks(server));
        let started_us = twinlake_contracts::now_us();
        publish(&mut poll, &mut devices, (rate, seconds), (window, &payload), &mut room, &mut latencies);
        let elapsed = start.elapsed().as_secs_f64();
        println!(
            "{} acknowledged in {elapsed:.1} s: {:.0} messages/s; publish to PUBACK p50 {:.2} p99 {:.2} p99.9 {:.2} max {:.2} ms",
            latencies.total(),
            latencies.total() as f64 / elapsed,
            latencies.quantile_ms(0.5),
            latencies.quantile_ms(0.99),
            latencies.quantile_ms(0.999),
            latencies.quantile_ms(1.0),
        );
        if server > 0 {
            let spent = |process| {
                let before = if process == server { cpu } else { own_cpu };
                (cpu_ticks(process) - before) as f64 * 10_000.0 / latencies.total() as f64
            };
            println!(
                "processor time a message: server {:.1} µs, load {:.1} µs",
                spent(server),
                spent(std::process::id())
            );
        }
        report_memory("after", server, before, connections);
        println!(
            "{}",
            json!({
                "connections": connections,
                "messages": latencies.total(),
                "seconds": elapsed,
                "started_us": started_us,
                "p50_ms": latencies.quantile_ms(0.5),
                "p99_ms": latencies.quantile_ms(0.99),
                "p999_ms": latencies.quantile_ms(0.999),
                "max_ms": latencies.quantile_ms(1.0),
                "server_cpu_s": (cpu_ticks(server) - cpu) as f64 / 100.0,
            })
        );
    } else {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(200));
        }
        for device in &mut devices {
            device.ping();
            device.flush().unwrap();
        }
        let mut events = Events::with_capacity(4096);
        let deadline = Instant::now() + Duration::from_mins(1);
        while devices.iter().any(|device| !device.answered) && Instant::now() < deadline {
            poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            for event in &events {
                let device = &mut devices[event.token().0];
                device.read(0, &mut room, 0, &[], &mut latencies).expect("the connection holds");
                device.flush().unwrap();
            }
        }
        report_memory("held", server, before, connections);
        let held = devices.iter().filter(|device| device.answered).count();
        println!("{}", json!({ "connections": held }));
    }
}

/// Waits until every device has its CONNACK.
fn settle(poll: &mut Poll, devices: &mut [Device], room: &mut [u8], latencies: &mut Histogram) {
    let mut events = Events::with_capacity(1024);
    let deadline = Instant::now() + Duration::from_mins(1);
    while devices.iter().rev().take(64).any(|device| !device.connected) {
        assert!(Instant::now() < deadline, "no CONNACK within a minute");
        poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
        for event in &events {
            let device = &mut devices[event.token().0];
            device.read(0, room, 0, &[], latencies).unwrap();
            device.flush().unwrap();
        }
    }
}

fn publish(
    poll: &mut Poll,
    devices: &mut [Device],
    (rate, seconds): (f64, f64),
    (window, payload): (usize, &[u8]),
    room: &mut [u8],
    latencies: &mut Histogram,
) {
    let total = (rate * seconds) as u64;
    let start = Instant::now();
    let micros = |at: Instant| at.duration_since(start).as_micros() as u64;
    let mut events = Events::with_capacity(4096);
    let mut sent = 0;
    let mut touched: Vec<usize> = Vec::new();
    let deadline = start + Duration::from_secs_f64(seconds + 30.0);
    while latencies.total() < total && Instant::now() < deadline {
        let now = micros(Instant::now());
        while sent < total {
            let due = (sent as f64 * 1e6 / rate) as u64;
            if due > now {
                break;
            }
            // Spread over the devices so that neighbours in time are not neighbours in the table.
            let index = (sent as usize).wrapping_mul(7919) % devices.len();
            devices[index].due(due, window, payload);
            touched.push(index);
            sent += 1;
        }
        for index in touched.drain(..) {
            devices[index].flush().unwrap();
        }
        poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        let now = micros(Instant::now());
        for event in &events {
            let device = &mut devices[event.token().0];
            if event.is_readable() {
                device.read(now, room, window, payload, latencies).expect("the connection holds");
            }
            device.flush().unwrap();
        }
    }
}

/// The processor time of a process in hundredths of a second.
fn cpu_ticks(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum()
}

/// The resident memory of a process in KiB; 0 when it cannot be read.
fn memory_kib(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn report_memory(when: &str, server: u32, before: u64, connections: usize) {
    if server > 0 {
        let now = memory_kib(server);
        println!(
            "{when}: the server holds {now} KiB, {:.2} KiB a connection",
            now.saturating_sub(before) as f64 / connections as f64
        );
    }
}
