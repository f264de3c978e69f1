//! The `mqtt` source against a real Mosquitto: killed again and again, and the broker going away, lose nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::kill::{Publisher, pipeline, stored_by_now};
use crate::support::{Numbers, Running, free_port, number, wait_until};

const SENT: u64 = 3_000;

/// A Mosquitto that keeps its sessions on disk.
struct Mosquitto {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Mosquitto {
    fn start(folder: &Path, port: u16) -> Self {
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\nmax_inflight_messages 200\nuser root\n",
            folder.display()
        );
        fs::write(folder.join("mosquitto.conf"), settings).unwrap();
        let mut broker = Self { child: Self::spawn(folder), folder: folder.to_owned(), port };
        broker.wait_for_listener();
        broker
    }

    fn spawn(folder: &Path) -> Child {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("mosquitto is not installed: run cargo xtask test");
        let log = fs::File::options().create(true).append(true).open(folder.join("mosquitto.log")).unwrap();
        Command::new(program)
            .arg("-c")
            .arg(folder.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait_for_listener(&mut self) {
        wait_until("mosquitto", || {
            self.assert_alive();
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("mosquitto ended by itself ({status}): {}", self.log());
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("mosquitto.log")).unwrap_or_default()
    }

    /// Stops it in order, so that its sessions are saved, and starts it again.
    fn restart(&mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        self.child = Self::spawn(&self.folder);
        self.wait_for_listener();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill_test(protocol: &str) {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut broker = Mosquitto::start(folder.path(), port);
    let source = format!(
        "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\nclient_id = \"twinlake-ledger\"\n\
         topics = [\"reading/#\"]"
    );
    fs::write(folder.path().join("ledger.toml"), pipeline(&source)).unwrap();
    let start = || Running::start(folder.path(), &["run", "--no-progress", "ledger.toml"]);

    // The session must exist before the first message, or the broker has nobody to keep it for.
    let mut process = start();
    subscribe_probe(folder.path(), port);
    let (stop, acknowledged) = Publisher::start(port, SENT);
    let mut chance = Numbers(7);
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(200 + chance.below(700)));
        if round == 3 {
            broker.restart();
        } else {
            process.kill();
            process = start();
        }
    }
    // However slow the machine is: each minute must bring some.
    while (acknowledged.borrow().len() as u64) < SENT {
        let before = acknowledged.borrow().len();
        wait_until("another acknowledgement by the broker", || {
            broker.assert_alive();
            acknowledged.borrow().len() > before
        });
    }
    stop.send_replace(true);
    let mut before = stored_by_now(folder.path()).len();
    while (before as u64) < SENT {
        let mut now = before;
        let deadline = Instant::now() + Duration::from_mins(1);
        while now == before {
            process.assert_alive();
            assert!(
                Instant::now() < deadline,
                "{before} of {SENT} are stored, and a minute brought none; twinlake: {}\nmosquitto: {}",
                process.errors(),
                broker.log()
            );
            std::thread::sleep(Duration::from_millis(500));
            now = stored_by_now(folder.path()).len();
        }
        before = now;
    }
    process.interrupt();
    assert_eq!(
        number(folder.path(), "SELECT count(*) FROM test.reading"),
        SENT as i64,
        "none is there twice"
    );
}

/// Publishes markers until one is seen in the lake: the subscription stands.
fn subscribe_probe(folder: &Path, port: u16) {
    wait_until("the subscription", || {
        let sent = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", "reading/0", "-m"])
            .arg(r#"{"id":1,"ts":"2018-10-09T04:32:01Z"}"#)
            .status()
            .unwrap();
        assert!(sent.success());
        std::thread::sleep(Duration::from_millis(300));
        !stored_by_now(folder).is_empty()
    });
}

#[test]
fn version_5_keeps_its_session_through_kills_and_a_broker_restart() {
    kill_test("5");
}

#[test]
fn version_3_keeps_its_session_through_kills_and_a_broker_restart() {
    kill_test("3.1.1");
}
