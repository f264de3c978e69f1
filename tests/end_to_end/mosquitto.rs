//! The `mqtt` source against a real Mosquitto: killed again and again, and the broker going away, lose nothing.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::kill::{Publisher, pipeline, stored};
use crate::support::{Numbers, Running, free_port, number, wait_until};

const SENT: u64 = 3_000;

/// A Mosquitto that keeps its sessions on disk.
struct Mosquitto {
    child: Child,
    configuration: std::path::PathBuf,
}

impl Mosquitto {
    fn start(folder: &Path, port: u16) -> Self {
        let configuration = folder.join("mosquitto.conf");
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\nmax_inflight_messages 200\nuser root\n",
            folder.display()
        );
        fs::write(&configuration, settings).unwrap();
        let child = Self::spawn(&configuration);
        wait_until("mosquitto", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, configuration }
    }

    fn spawn(configuration: &Path) -> Child {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("mosquitto is not installed: run cargo xtask test");
        Command::new(program)
            .arg("-c")
            .arg(configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Stops it in order, so that its sessions are saved, and starts it again.
    fn restart(&mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        self.child = Self::spawn(&self.configuration);
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
    wait_until("all acknowledged by the broker", || acknowledged.borrow().len() as u64 == SENT);
    stop.send_replace(true);
    wait_until("all stored", || {
        process.assert_alive();
        std::thread::sleep(Duration::from_millis(500));
        folder.path().join("twinlake-data/test/reading").exists()
            && stored(folder.path()).len() as u64 == SENT
    });
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
        folder.join("twinlake-data/test/reading").exists() && !stored(folder).is_empty()
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
