//! A lake on an object store: a real S3 server (SeaweedFS), kills, several writers of one table, other engines.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::kill::{Publisher, pipeline};
use crate::support::{Numbers, Running, binary, free_port, wait_for_port, wait_until};

const LAKE: &str = "s3://city/lake";
const SENT: u64 = 1_500;

/// SeaweedFS with a bucket `city`.
struct Store {
    child: Child,
    port: u16,
}

/// The Python environment of the tests, which brings the server and other engines.
fn python() -> PathBuf {
    std::env::var_os("TWINLAKE_PYTHON")
        .expect("TWINLAKE_PYTHON names the Python of the tests: run cargo xtask test")
        .into()
}

impl Store {
    fn start(folder: &Path) -> Self {
        let weed = python().with_file_name("weed");
        fs::create_dir(folder.join("objects")).unwrap();
        let identity = r#"{"identities":[{"name":"tests","credentials":[{"accessKey":"key","secretKey":"secret"}],
                          "actions":["Admin","Read","Write","List","Tagging"]}]}"#;
        fs::write(folder.join("s3.json"), identity).unwrap();
        let ports: Vec<u16> = (0..8).map(|_| free_port()).collect();
        let mut arguments: Vec<String> =
            ["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"].map(str::to_owned).to_vec();
        arguments.extend(
            [
                "-dir=objects",
                "-s3.config=s3.json",
                "-master.volumeSizeLimitMB=32",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ]
            .map(str::to_owned),
        );
        let doors = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port"];
        let more = ["filer.port.grpc", "s3.port", "s3.port.grpc"];
        for (door, port) in doors.iter().chain(&more).zip(&ports) {
            arguments.push(format!("-{door}={port}"));
        }
        let log = fs::File::create(folder.join("weed.log")).unwrap();
        let child = Command::new(&weed)
            .current_dir(folder)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: run cargo xtask test", weed.display()));
        let mut store = Self { child, port: ports[6] };
        let mut alive = || {
            if let Some(status) = store.child.try_wait().unwrap() {
                panic!(
                    "weed ended by itself ({status}): {}",
                    fs::read_to_string(folder.join("weed.log")).unwrap()
                );
            }
        };
        wait_until("the S3 server", || {
            alive();
            std::net::TcpStream::connect(("127.0.0.1", ports[6])).is_ok()
        });
        let master = format!("-master=127.0.0.1:{}.{}", ports[0], ports[1]);
        wait_until("the bucket", || {
            alive();
            // It waits for its server without an end.
            let mut shell = Command::new("timeout")
                .arg("15")
                .arg(&weed)
                .args(["shell", &master])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            shell.stdin.take().unwrap().write_all(b"s3.bucket.create -name city\ns3.bucket.list\n").unwrap();
            let told = shell.wait_with_output().unwrap();
            String::from_utf8_lossy(&told.stdout).lines().any(|line| line.trim_start().starts_with("city"))
        });
        store
    }

    fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
    }

    fn twinlake(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(["--lake", LAKE]).args(arguments).envs(self.settings());
        command
    }

    fn succeed(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = self.twinlake(arguments).current_dir(folder).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "twinlake {}: {errors}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    fn number(&self, folder: &Path, sql: &str) -> i64 {
        let text = self.succeed(folder, &["sql", "--format", "json", "-c", sql]);
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        rows[0].as_object().unwrap().values().next().unwrap().as_i64().unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn kills_several_writers_and_other_engines_see_each_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let store = Store::start(folder);
    let port = free_port();
    let source = format!("type = \"mqtt_broker\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"reading/#\"]");
    fs::write(folder.join("ledger.toml"), pipeline(&source)).unwrap();
    let start = || Running::spawn(folder, &mut store.twinlake(&["run", "--no-progress", "ledger.toml"]));
    let (stop, acknowledged) = Publisher::start(port, SENT);
    let mut chance = Numbers(3);
    let mut process = start();
    for _ in 0..4 {
        wait_for_port(port, &mut process);
        std::thread::sleep(Duration::from_millis(chance.below(600)));
        process.kill();
        process = start();
    }
    wait_for_port(port, &mut process);
    while (acknowledged.borrow().len() as u64) < SENT {
        let before = acknowledged.borrow().len();
        wait_until("another acknowledgement", || acknowledged.borrow().len() > before);
    }
    stop.send_replace(true);
    process.interrupt();
    let distinct = "SELECT count(DISTINCT id) FROM test.reading";
    assert_eq!(store.number(folder, distinct), SENT as i64);
    assert_eq!(store.number(folder, "SELECT count(*) FROM test.reading"), SENT as i64);

    // Two processes commit to one table at once: the store's conditional puts let one be first.
    let lines: Vec<String> =
        (0..4_000).map(|id| format!("{{\"id\":{id},\"ts\":\"2018-10-09T04:32:01Z\"}}")).collect();
    fs::write(folder.join("readings.jsonl"), lines.join("\n")).unwrap();
    let text = pipeline("type = \"files\"\npath = \"readings.jsonl\"")
        .replace("test.reading", "test.shared")
        .replace("name = \"ledger\"", "name = \"shared\"")
        .replace("commit_interval_ms = 150", "commit_interval_ms = 1\nmicro_batch_messages = 200");
    fs::write(folder.join("shared.toml"), text).unwrap();
    let writers = ["a", "b"].map(|node| {
        let arguments = ["run", "--once", "--no-progress", "--node", node, "shared.toml"];
        let mut command = store.twinlake(&arguments);
        command.current_dir(folder).stdout(Stdio::null()).spawn().unwrap()
    });
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert_eq!(store.number(folder, "SELECT count(*) FROM test.shared"), 8_000);
    assert!(store.number(folder, "SELECT version FROM meta.datasets WHERE name = 'test.shared'") > 10);

    // Past messages again, files joined, and another engine at the same objects.
    let again = store.succeed(folder, &["reprocess", "ledger.toml", "--no-progress"]);
    assert!(again.contains(&format!("test.reading: {SENT} rows went, {SENT} came")), "{again}");
    store.succeed(folder, &["table", "compact"]);
    assert_eq!(store.number(folder, distinct), SENT as i64);
    let script = "import os, sys\nfrom deltalake import DeltaTable\nimport polars\n\
                  options = {key: value for key, value in os.environ.items() if key.startswith('AWS_')}\n\
                  table = DeltaTable(sys.argv[1], storage_options=options)\n\
                  rows = polars.from_arrow(table.to_pyarrow_table())\n\
                  print(rows['id'].n_unique(), len(rows))\n";
    let output = Command::new(python())
        .args(["-c", script, &format!("{LAKE}/test/reading")])
        .envs(store.settings())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{SENT} {SENT}"));
}
