//! Six nodes on one lake and one port: 100,000 devices that are connected at once.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Twinlake;
use super::mqtt::{generator, pipeline};
use crate::bench::process::free_port;
use crate::bench::report::Report;

const NODES: u32 = 6;
const DEVICES: u32 = 100_000;
/// How long they are held after the last one has connected.
const SECONDS: u32 = 20;

pub fn bench(folder: &Path, report: &mut Report) -> Result<()> {
    let own = folder.join("nodes");
    std::fs::create_dir_all(&own)?;
    let port = free_port()?;
    std::fs::write(own.join("points.toml"), pipeline(port))?;
    std::fs::write(own.join("node.toml"), "[broker]\nreuse_port = true\n")?;
    let nodes = (1..=NODES)
        .map(|number| {
            let node = format!("n{number}");
            Twinlake::start(
                &own,
                port,
                &["--node", &node, "--config", "node.toml", "--pipeline", "points.toml"],
            )
        })
        .collect::<Result<Vec<_>>>()?;
    let memory = || nodes.iter().map(|node| node.server.memory_mib()).sum::<f64>();
    let before = memory();
    let start = Instant::now();
    let generators = (0..NODES)
        .map(|number| {
            let share = DEVICES / NODES + u32::from(number < DEVICES % NODES);
            generator(port, 0, share, 0, SECONDS, &format!("127.0.0.{}", number + 2))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut most = 0.0_f64;
    let mut held = 0;
    let deadline = start + Duration::from_mins(5);
    let watched = std::thread::scope(|scope| -> Result<f64> {
        let waiting = scope.spawn(|| {
            generators.into_iter().map(|generator| generator.wait(deadline)).collect::<Result<Vec<_>>>()
        });
        while !waiting.is_finished() {
            most = most.max(memory());
            std::thread::sleep(Duration::from_millis(500));
        }
        let told = waiting.join().map_err(|_| anyhow::anyhow!("a load's thread panicked"))??;
        held = told.iter().filter_map(|told| told["connections"].as_u64()).sum::<u64>();
        Ok(most)
    })?;
    if held != u64::from(DEVICES) {
        bail!("{held} of {DEVICES} connections answered a ping after {SECONDS} s");
    }
    report.note(format!(
        "{DEVICES} connections over {NODES} nodes on one port and one lake: all answered a ping after being held for {SECONDS} s; \
         the nodes held {watched:.0} MiB in all, {:.1} KiB a connection above the {before:.0} MiB without them; \
         connecting, holding and asking took {:.0} s.",
        (watched - before) * 1024.0 / f64::from(DEVICES),
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}
