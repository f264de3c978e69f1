//! Rows handed in over HTTP: by InfluxDB's own clients, as JSON, as Arrow; and through `kill -9`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::kill::kill_count;
use crate::support::{Numbers, Running, free_port, number, rows, wait_for_port};

fn serve_on(folder: &Path, port: u16) -> Running {
    let (postgres, mqtt) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let http = format!("127.0.0.1:{port}");
    let arguments = ["serve", "--http", &http, "--postgres", &postgres, "--mqtt", &mqtt];
    let mut process = Running::start(folder, &arguments);
    wait_for_port(port, &mut process);
    process
}

fn python(script: &str, arguments: &[&str]) -> String {
    let python = std::env::var("TWINLAKE_PYTHON")
        .expect("TWINLAKE_PYTHON names the Python of the tests: run cargo xtask test");
    let output = Command::new(python).args(["-c", script]).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// Points with tags, all types of fields and both packings, a time stamp of each precision, and a batch with a bad line.
const INFLUX_2: &str = r#"
import sys
from influxdb_client import InfluxDBClient, Point, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
for packed in (False, True):
    client = InfluxDBClient(url=sys.argv[1], token="none", org="city", enable_gzip=packed)
    assert client.ping()
    assert client.health().status == "pass"
    write = client.write_api(write_options=SYNCHRONOUS)
    points = [Point("Air Quality").tag("station", f"Mannerheimintie {n % 7}").field("pm2_5", n / 10)
              .field("count", n).field("ok", n % 2 == 0).field("note", 'a "quoted", text')
              .time(1700000000 + n + (5000 if packed else 0), WritePrecision.S) for n in range(1000)]
    write.write(bucket="city", record=points)
try:
    write.write(bucket="city", record="air_ok value=1 1\nno fields here\nair_ok value=2 2", write_precision=WritePrecision.S)
    raise SystemExit("a bad line was taken")
except ApiException as error:
    assert error.status == 400, error
    assert "line 2" in error.body and "partial write" in error.body, error.body
"#;

const INFLUX_1: &str = r#"
import sys
from influxdb import InfluxDBClient
client = InfluxDBClient(host="127.0.0.1", port=int(sys.argv[1]), database="plant")
assert client.ping()
client.create_database("plant")
assert client.write_points([{"measurement": "press", "tags": {"line": "1"}, "time": 1700000000000 + n,
                             "fields": {"force_kn": 1.5 * n}} for n in range(500)], time_precision="ms")
"#;

#[test]
fn the_clients_of_influxdb_write_and_sql_sees_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut process = serve_on(folder.path(), port);
    python(INFLUX_2, &[&format!("http://127.0.0.1:{port}")]);
    python(INFLUX_1, &[&port.to_string()]);
    let ask = |sql: &str| -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = format!("http://127.0.0.1:{port}/v1/sql");
            let answer = reqwest::Client::new().post(url).json(&json!({ "sql": sql })).send().await.unwrap();
            answer.json::<Value>().await.unwrap()
        })
    };
    let answer = ask("SELECT count(*), count(DISTINCT station), min(ts), max(ts), sum(count), \
         count(*) FILTER (WHERE ok), min(note) FROM city.air_quality");
    assert_eq!(
        answer["rows"][0],
        json!([2000, 7, "2023-11-14T22:13:20Z", "2023-11-14T23:53:19Z", 999_000, 1000, "a \"quoted\", text"]),
        "{answer}"
    );
    assert_eq!(ask("SELECT count(*), max(force_kn) FROM plant.press")["rows"][0], json!([500, 748.5]));
    assert_eq!(ask("SELECT sum(value) FROM city.air_ok")["rows"][0], json!([3.0]));
    process.interrupt();
    let rejects = rows(folder.path(), "SELECT reason, arrow_cast(payload, 'Utf8') AS line FROM meta.rejects");
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["line"], "no fields here");
    assert_eq!(number(folder.path(), "SELECT count(*) FROM city.air_quality"), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_arrow_make_and_widen_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut process = serve_on(folder.path(), port);
    let client = reqwest::Client::new();
    let url = |table: &str| format!("http://127.0.0.1:{port}/v1/ingest/{table}");
    let post = |table: &str, media: &str, body: Vec<u8>, key: Option<&str>| {
        let mut request = client.post(url(table)).header("content-type", media).body(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let first = br#"[{"meter":"m1","ts":"2026-01-01T00:00:00Z","kwh":1.5},{"meter":"m2","ts":"2026-01-01T00:00:00Z","kwh":2}]"#;
    let (status, told) = post("energy.bill", "application/json", first.to_vec(), Some("a")).await;
    assert_eq!((status, &told["rows"], &told["repeated"]), (200, &json!(2), &json!(false)), "{told}");
    let (_, told) = post("energy.bill", "application/json", first.to_vec(), Some("a")).await;
    assert_eq!((&told["rows"], &told["repeated"]), (&json!(2), &json!(true)), "{told}");
    let more = b"{\"meter\":\"m3\",\"kwh\":3,\"tariff\":\"night\"}\n{\"meter\":4,\"kwh\":\"much\"}\n";
    let (status, told) = post("energy.bill", "application/x-ndjson", more.to_vec(), None).await;
    assert_eq!((status, &told["rows"], &told["refused"]), (200, &json!(1), &json!(1)), "{told}");
    assert_eq!(told["parts"][0]["row"], 2, "{told}");

    let arrow = folder.path().join("rows.arrow");
    python(
        "import sys, pyarrow as pa\n\
         batch = pa.record_batch({'meter': ['m%d' % n for n in range(10000)], 'kwh': [n * 0.5 for n in range(10000)]})\n\
         with pa.OSFile(sys.argv[1], 'wb') as file, pa.ipc.new_stream(file, batch.schema) as stream:\n    \
         [stream.write_batch(batch) for _ in range(3)]\n",
        &[arrow.to_str().unwrap()],
    );
    let body = std::fs::read(&arrow).unwrap();
    let media = "application/vnd.apache.arrow.stream";
    let (status, told) = post("energy.bill", media, body.clone(), None).await;
    assert_eq!((status, &told["rows"]), (200, &json!(30_000)), "{told}");
    for (table, media, body, expected) in [
        ("energy.bill", "text/html", b"<p>".to_vec(), 415),
        ("Energy", "application/json", b"[]".to_vec(), 400),
        ("meta.runs", "application/json", b"[{\"a\":1}]".to_vec(), 400),
        ("energy.bill", "application/json", b"[{\"a\":".to_vec(), 400),
        ("energy.bill", media, body[..body.len() / 2].to_vec(), 400),
    ] {
        let (status, told) = post(table, media, body, None).await;
        assert_eq!(status, expected, "{table} {told}");
        assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{told}");
    }
    let too_large = vec![b' '; 33 << 20];
    assert_eq!(post("energy.bill", "application/json", too_large, None).await.0, 413);
    process.interrupt();
    assert_eq!(number(folder.path(), "SELECT count(*) FROM energy.bill"), 30_003);
    assert_eq!(number(folder.path(), "SELECT count(*) FROM energy.bill WHERE tariff = 'night'"), 1);
}

/// Sends bodies of numbered lines, each until it is acknowledged, under a key of its own; gives the numbers acknowledged.
fn send(worker: u64, port: &AtomicU16, done: &AtomicBool) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let mut acknowledged = Vec::new();
        let mut body = 0_u64;
        while !done.load(Ordering::Relaxed) {
            let numbers: Vec<u64> = (0..20).map(|line| worker * 1_000_000_000 + body * 20 + line).collect();
            let lines: Vec<String> = numbers
                .iter()
                .map(|number| {
                    format!("reading,worker=w{worker} id={number}i {}", 1_700_000_000 + number % 1000)
                })
                .collect();
            let key = format!("{worker}-{body}");
            loop {
                let url = format!(
                    "http://127.0.0.1:{}/api/v2/write?bucket=ledger&precision=s",
                    port.load(Ordering::Relaxed)
                );
                let request = client.post(url).header("idempotency-key", &key).body(lines.join("\n"));
                match request.send().await {
                    Ok(answer) if answer.status() == 204 => break,
                    Ok(answer) if ![429, 503].contains(&answer.status().as_u16()) => {
                        panic!("{}: {}", answer.status(), answer.text().await.unwrap_or_default());
                    }
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            acknowledged.extend(numbers);
            body += 1;
        }
        acknowledged
    })
}

#[test]
fn lines_acknowledged_over_http_survive_kill_9_and_none_is_there_twice() {
    let folder = tempfile::tempdir().unwrap();
    let port = Arc::new(AtomicU16::new(free_port()));
    let done = Arc::new(AtomicBool::new(false));
    let mut process = serve_on(folder.path(), port.load(Ordering::Relaxed));
    let senders: Vec<_> = (0..4)
        .map(|worker| {
            let (port, done) = (Arc::clone(&port), Arc::clone(&done));
            std::thread::spawn(move || send(worker, &port, &done))
        })
        .collect();
    let mut chance = Numbers(7);
    let kills = if kill_count() > 100 { 100 } else { 12 };
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(100 + chance.below(900)));
        process.kill();
        let next = free_port();
        process = serve_on(folder.path(), next);
        port.store(next, Ordering::Relaxed);
    }
    std::thread::sleep(Duration::from_millis(500));
    done.store(true, Ordering::Relaxed);
    let acknowledged: BTreeSet<u64> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
    process.interrupt();
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
    let stored: Vec<u64> = rows(folder.path(), "SELECT id FROM ledger.reading")
        .iter()
        .map(|row| row["id"].as_u64().unwrap())
        .collect();
    let distinct: BTreeSet<u64> = stored.iter().copied().collect();
    assert_eq!(stored.len(), distinct.len(), "none is there twice");
    assert_eq!(distinct, acknowledged, "each acknowledged line is there, and no other");
    assert_eq!(number(folder.path(), "SELECT count(*) FROM meta.rejects"), 0);
}
