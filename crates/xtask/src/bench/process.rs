//! A server under measurement: started in a folder of its own, ended with the benchmark.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::find;

/// A server; ended when dropped.
pub struct Server {
    child: Child,
    /// The process that does the work, where `child` is only its parent.
    measured: u32,
    /// How it is called in the report.
    pub name: &'static str,
}

impl Server {
    /// Starts it and waits until it listens on `port`.
    pub fn start(name: &'static str, command: &mut Command, folder: &Path, port: u16) -> Result<Self> {
        let log = fs::File::create(folder.join(format!("{name}.log")))?;
        let child = command.current_dir(folder).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.with_context(|| format!("{name} does not start"))?;
        let mut server = Self { measured: child.id(), child, name };
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

    /// The process that is measured.
    pub fn id(&self) -> u32 {
        self.measured
    }

    /// Says which process does the work.
    pub fn measure(&mut self, process: u32) {
        self.measured = process;
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
        self.status_mib("VmHWM:")
    }

    /// The memory that it has, in MiB.
    pub fn memory_mib(&self) -> f64 {
        self.status_mib("VmRSS:")
    }

    fn status_mib(&self, key: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.measured != self.child.id() {
            let _ = Command::new("kill").args(["-INT", &self.measured.to_string()]).status();
            let _ = self.child.wait();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Machine, versions and date in a line; `programs` are peers with the argument that makes them tell their version.
pub fn machine(programs: &[(&str, &str)]) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: f64 =
        memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let said = |program: &str, argument: &str| {
        let path = find(program).or_else(|| server_programs()?.join(program).canonicalize().ok());
        let Some(path) = path else { return format!("{program} not installed") };
        // Some tell their version on one channel and some on the other, and not all call that a success.
        let Ok(told) = Command::new(path).arg(argument).output() else { return format!("{program} unknown") };
        let text = [told.stdout, told.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
    };
    let versions: Vec<String> = [("rustc", "--version"), ("date", "-I")]
        .iter()
        .chain(programs)
        .map(|(program, argument)| said(program, argument))
        .collect();
    format!("{cores} × {model}, {:.0} GiB; {}", memory_kib / 1_048_576.0, versions.join("; "))
}

/// The folder of PostgreSQL's programs: Debian keeps them out of the path.
pub fn server_programs() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<PathBuf> =
        folders.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
    folders.sort();
    folders.into_iter().rev().find(|folder| folder.join("initdb").is_file())
}
