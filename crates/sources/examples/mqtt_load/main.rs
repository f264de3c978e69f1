//! Measures the embedded broker: `broker` starts one with a log that syncs, `load` holds connections and publishes.
//!
//! ```text
//! cargo run --release -p twinlake-sources --example mqtt_load -- broker --listen 127.0.0.1:1884 --log /tmp/stand.log
//! cargo run --release -p twinlake-sources --example mqtt_load -- load --to 127.0.0.1:1884 \
//!     --connections 5000 --rate 25000 --seconds 20 --window 32 --from 127.0.0.2 --server PID
//! ```
//!
//! `broker` also takes `--reuse-port true` and `--state FOLDER`. The load is an open loop: a message is due at its own time whatever the broker does, and its latency counts from
//! then. `load` uses one thread and one source address, so several can run side by side.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool that reports to a terminal and may give up"
)]

mod device;
mod histogram;
mod load;
mod stand;

use std::collections::HashMap;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let mut options = HashMap::new();
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        options.insert(name.trim_start_matches('-').to_owned(), value);
    }
    match mode.as_str() {
        "broker" => stand::run(&options),
        "load" => load::run(&options),
        _ => println!("mqtt_load broker|load; the options are in the first lines of the example"),
    }
}

/// An option as a number or a text.
fn option<T: std::str::FromStr>(options: &HashMap<String, String>, name: &str, default: T) -> T {
    options
        .get(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("--{name} '{text}' cannot be read")))
}
