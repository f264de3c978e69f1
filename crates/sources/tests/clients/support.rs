//! A broker in this process, other people's programs outside it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use twinlake_contracts::{Checkpoint, Message};
use twinlake_sources::{Broker, BrokerOptions, BrokerSettings};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a missing client is a failure: under `cargo xtask test` nothing is skipped.
fn strict() -> bool {
    std::env::var_os("TWINLAKE_PYTHON").is_some() || std::env::var_os("CI").is_some()
}

/// Says that a test is skipped, or fails it.
pub fn skip(what: &str) {
    assert!(!strict(), "{what} is missing: run cargo xtask test, which installs it");
    println!("skipped: {what} is missing; cargo xtask test installs it");
}

/// The path of a program.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        skip(name);
    }
    found
}

/// A broker with a source that records everything under `record/`, acknowledging as it takes.
pub struct Stand {
    pub runtime: Runtime,
    pub broker: Option<Arc<Broker>>,
    recorded: mpsc::UnboundedReceiver<Message>,
    task: tokio::task::JoinHandle<()>,
}

impl Stand {
    pub fn new(options: BrokerOptions) -> Self {
        Self::on("127.0.0.1:0", options)
    }

    pub fn on(listen: &str, options: BrokerOptions) -> Self {
        let runtime = Runtime::new().expect("runtime");
        let settings = BrokerSettings {
            options,
            claims: vec![vec!["record/#".to_owned()]],
            ..BrokerSettings::new(listen)
        };
        let broker = runtime.block_on(Broker::start(settings)).expect("broker");
        let (out, recorded) = mpsc::unbounded_channel();
        let source = json!({"listen": broker.local_addr().to_string(), "topics": ["record/#"]});
        let mut source = twinlake_sources::registry().build("mqtt_broker", source).expect("source");
        let task = runtime.spawn(async move {
            let mut stream = source.open(&Checkpoint::default()).await.expect("open");
            while let Some(Ok(message)) = stream.next().await {
                let upto = Checkpoint(Some(message.position.clone()));
                if out.send(message).is_err() {
                    return;
                }
                source.acknowledge(&upto).await.expect("acknowledge");
            }
        });
        Self { runtime, broker: Some(broker), recorded, task }
    }

    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("running")
    }

    pub fn port(&self) -> u16 {
        self.broker().local_addr().port()
    }

    /// The next recorded message, as topic and text.
    pub fn recorded(&mut self) -> (String, String) {
        let next = async { tokio::time::timeout(PATIENCE, self.recorded.recv()).await };
        let message = self.runtime.block_on(next).expect("in time").expect("a message");
        (message.origin.to_string(), String::from_utf8_lossy(&message.payload).into_owned())
    }

    /// Nothing more is recorded, a moment long.
    pub fn nothing_more(&mut self) {
        let next = async { tokio::time::timeout(Duration::from_millis(200), self.recorded.recv()).await };
        assert!(self.runtime.block_on(next).is_err(), "a message too many");
    }

    /// Closes the broker.
    pub fn stop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown());
        }
        self.task.abort();
    }

    /// Waits until so many clients are connected.
    pub fn connections(&self, wanted: u64) {
        wait("connections", || self.broker().stats().connections == wanted);
    }
}

/// Waits until something holds.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a program to its end.
pub fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut child = spawn(program, arguments);
    let start = Instant::now();
    while child.0.try_wait().expect("status").is_none() {
        assert!(start.elapsed() < 2 * PATIENCE, "{} {arguments:?} does not end", program.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.output()
}

/// Runs a program that must succeed.
pub fn succeed(program: &Path, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}{}",
        program.display(),
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// A running program, killed when it is dropped.
pub struct Running(pub Child);

/// Starts a program.
pub fn spawn(program: &Path, arguments: &[&str]) -> Running {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Running(child.expect("the program starts"))
}

impl Running {
    /// What it printed, when it has ended by itself.
    pub fn output(mut self) -> Output {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("status") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.stdout.take().expect("stdout").read_to_end(&mut stdout).expect("stdout");
        self.0.stderr.take().expect("stderr").read_to_end(&mut stderr).expect("stderr");
        Output { status, stdout, stderr }
    }

    /// The lines that it printed, when it has ended by itself.
    pub fn lines(self) -> Vec<String> {
        let output = self.output();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
