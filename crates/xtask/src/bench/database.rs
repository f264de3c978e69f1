//! PostgreSQL as a peer: a server of its own in a folder, as it comes, ended with the benchmark.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::{Server, free_port, server_programs};
use crate::run::output;

/// A running server, with the user `bench` and the database `postgres`.
pub struct Database {
    pub server: Server,
    pub port: u16,
}

impl Database {
    /// Starts a new server below `folder`; `None` where PostgreSQL is not installed.
    pub fn start(folder: &Path) -> Result<Option<Self>> {
        let Some(programs) = server_programs() else { return Ok(None) };
        let own = folder.join("postgres");
        std::fs::create_dir_all(&own)?;
        let user = server_user();
        if let Some(user) = &user {
            crate::run::run(Command::new("chown").arg(user).arg(&own))?;
            crate::run::run(Command::new("chmod").arg("711").arg(folder))?;
        }
        let data = own.join("data");
        let as_user = |program: &Path| match &user {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let initialised = as_user(&programs.join("initdb"))
            .args(["--auth", "trust", "--username", "bench", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        if !initialised.success() {
            bail!("initdb failed");
        }
        let port = free_port()?;
        let mut command = as_user(&programs.join("postgres"));
        command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""]);
        let mut server = Server::start("PostgreSQL", &mut command, &own, port)?;
        // `runuser` stands between; the server writes its process into its folder.
        let pid = std::fs::read_to_string(data.join("postmaster.pid"))?;
        let pid = pid.lines().next().and_then(|line| line.parse().ok()).context("no process identifier")?;
        server.measure(pid);
        Ok(Some(Self { server, port }))
    }
}

/// `psql` as the user of a [`Database`].
pub fn client(port: u16) -> Command {
    let mut command = Command::new("psql");
    command.args([
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
    ]);
    command.args(["-U", "bench", "postgres"]);
    command
}

/// What one statement answers; waits for a server that has just been started.
pub fn psql(port: u16, sql: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(told) = output(client(port).args(["-c", sql])) {
            return Ok(told);
        }
        if Instant::now() > deadline {
            bail!("PostgreSQL at 127.0.0.1:{port} does not answer: {sql}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The server refuses to run as root: the package's user runs it then.
fn server_user() -> Option<String> {
    let root_user = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    root_user.then(|| "postgres".to_owned())
}
