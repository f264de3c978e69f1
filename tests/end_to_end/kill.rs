//! `kill -9` at random moments under load: every acknowledged reading is in the lake, none twice.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::watch;

use crate::support::{Numbers, Running, free_port, number, rows, wait_for_port, wait_until};

/// Enough for the load to outlast the kills.
const SENT_BETWEEN_KILLS: u64 = 600;
const KILLS: u64 = 22;

pub fn kill_count() -> u64 {
    if std::env::var_os("TWINLAKE_LONG").is_some() { 200 } else { KILLS }
}

/// A pipeline whose rows carry the number that was sent; `source` is its `[sources.reading]` table.
pub fn pipeline(source: &str) -> String {
    format!(
        r#"name = "ledger"

[settings]
commit_interval_ms = 150

[sources.reading]
{source}
decoder = {{ type = "json", columns = {{ id = {{ type = "int64", required = true }}, ts = {{ type = "utf8" }} }} }}

[transforms.numbered]
type = "sql"
inputs = ["reading"]
query = "SELECT id, to_timestamp(ts) AS ts FROM input"

[transforms.clean]
type = "clean"
inputs = ["numbered"]
key = ["id"]
require = ["id"]
dedup = {{ by = ["id"] }}

[sinks.reading]
type = "lake"
inputs = ["clean"]
table = "test.reading"
"#
    )
}

#[test]
fn killed_at_random_moments_nothing_acknowledged_is_lost_and_nothing_is_there_twice() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let file = folder.path().join("ledger.toml");
    let source = format!("type = \"mqtt_broker\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"reading/#\"]");
    fs::write(&file, pipeline(&source)).unwrap();

    let sent = SENT_BETWEEN_KILLS * kill_count();
    let (stop, acknowledged) = Publisher::start(port, sent);
    let mut chance = Numbers(20_181_009);
    let start = || Running::start(folder.path(), &["run", "--no-progress", "ledger.toml"]);
    let mut process = start();
    for round in 0..kill_count() {
        wait_for_port(port, &mut process);
        std::thread::sleep(Duration::from_millis(chance.below(400)));
        process.kill();
        println!("kill {}: {} acknowledged", round + 1, acknowledged.borrow().len());
        process = start();
    }
    wait_for_port(port, &mut process);
    assert!((acknowledged.borrow().len() as u64) < sent, "the load did not outlast the kills");
    // However many are left: each minute must bring some.
    while (acknowledged.borrow().len() as u64) < sent {
        let before = acknowledged.borrow().len();
        wait_until("another acknowledgement", || acknowledged.borrow().len() > before);
    }
    stop.send_replace(true);
    process.interrupt();

    let stored = stored(folder.path());
    assert_eq!(stored.len() as u64, sent, "every acknowledged reading is stored");
    assert_eq!(
        number(folder.path(), "SELECT count(*) FROM test.reading"),
        sent as i64,
        "none is there twice"
    );
    // The ledger balances: what reached the log is either a row or a reject, and the rejects are redeliveries.
    let logged = number(folder.path(), "SELECT count(*) FROM raw.reading");
    let rejected = number(folder.path(), "SELECT count(*) FROM meta.rejects WHERE reason = 'duplicate'");
    assert_eq!(logged, sent as i64 + rejected);
    assert_eq!(number(folder.path(), "SELECT count(*) FROM meta.rejects"), rejected);
}

/// The ids in the lake, each once.
pub fn stored(folder: &Path) -> BTreeSet<i64> {
    rows(folder, "SELECT id FROM test.reading").iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

/// The same, and none while the table is yet to be made.
pub fn stored_by_now(folder: &Path) -> BTreeSet<i64> {
    let tables =
        "SELECT 1 FROM information_schema.tables WHERE table_schema = 'test' AND table_name = 'reading'";
    if rows(folder, tables).is_empty() { BTreeSet::new() } else { stored(folder) }
}

/// A device that sends each number with QoS 1 until it is acknowledged, through every loss of the connection.
pub struct Publisher;

type Acknowledged = watch::Receiver<BTreeSet<u64>>;

impl Publisher {
    /// Starts on a thread of its own; the first part stops it, the second shows what has been acknowledged.
    pub fn start(port: u16, count: u64) -> (watch::Sender<bool>, Acknowledged) {
        let (stop, mut stopped) = watch::channel(false);
        let (report, acknowledged) = watch::channel(BTreeSet::new());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                while !*stopped.borrow_and_update() && (report.borrow().len() as u64) < count {
                    tokio::select! {
                        _ = stopped.changed() => {}
                        () = session(port, count, &report) => tokio::time::sleep(Duration::from_millis(30)).await,
                    }
                }
            });
        });
        (stop, acknowledged)
    }
}

/// One connection: sends what is not yet acknowledged, a little every few milliseconds, until it breaks or all is done.
async fn session(port: u16, count: u64, report: &watch::Sender<BTreeSet<u64>>) {
    let mut options = MqttOptions::new("ledger-device", "127.0.0.1", port);
    options.set_clean_start(true).set_keep_alive(Duration::from_secs(10));
    let (client, mut events) = AsyncClient::new(options, 64);
    let missing: Vec<u64> = {
        let done = report.borrow();
        (1..=count).filter(|id| !done.contains(id)).collect()
    };
    let order = missing.clone();
    let sender = tokio::spawn(async move {
        for id in missing {
            let payload = format!(r#"{{"id":{id},"ts":"2018-10-09T04:32:{:02}Z"}}"#, id % 60);
            if client.publish(format!("reading/{}", id % 7), QoS::AtLeastOnce, false, payload).await.is_err()
            {
                return;
            }
            if id % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        std::future::pending::<()>().await;
    });
    // Packet identifiers go out in the order of publishing.
    let mut next = order.into_iter();
    let mut in_flight: HashMap<u16, u64> = HashMap::new();
    while let Ok(event) = events.poll().await {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) if packet != 0 => {
                if let Some(id) = next.next() {
                    in_flight.insert(packet, id);
                }
            }
            Event::Incoming(Packet::PubAck(acknowledgement)) => {
                if let Some(id) = in_flight.remove(&acknowledgement.pkid) {
                    report.send_modify(|done| {
                        done.insert(id);
                    });
                    if report.borrow().len() as u64 == count {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    sender.abort();
}
