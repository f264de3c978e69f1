//! A server under measurement: started in a folder of its own, ended with the benchmark.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A server; ended when dropped.
pub struct Server {
    child: Child,
    /// How it is called in the report.
    pub name: &'static str,
}

impl Server {
    /// Starts it and waits until it listens on `port`.
    pub fn start(name: &'static str, command: &mut Command, folder: &Path, port: u16) -> Result<Self> {
        let log = fs::File::create(folder.join(format!("{name}.log")))?;
        let child = command.current_dir(folder).stdout(Stdio::null()).stderr(log).spawn();
        let mut server = Self { child: child.with_context(|| format!("{name} does not start"))?, name };
        let deadline = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended ({status}); see {}", folder.display());
            }
            if Instant::now() > deadline {
                bail!("{name} does not listen on port {port}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor seconds used so far (user and system).
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 =
            after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        ticks / 100.0
    }

    /// The most memory that it had, in MiB.
    pub fn peak_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Machine, versions and date in a line.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let said = |program: &str, argument: &str| {
        let text = crate::run::output(Command::new(program).arg(argument)).unwrap_or_default();
        text.lines().next().unwrap_or("not installed").to_owned()
    };
    format!("{cores} × {model}; {}; {}", said("rustc", "--version"), said("date", "-I"))
}
