//! Bounded inputs and bad ones: a replayed folder, a truncated map, malformed messages, a full disk.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::kill::{kill_count, pipeline};
use crate::support::{Numbers, Running, number, repository, rows, succeed, twinlake, wait_until};

/// Readings 1 to `count`, one a line.
fn readings(count: i64) -> String {
    (1..=count).fold(String::new(), |mut lines, id| {
        let _ = writeln!(lines, "{{\"id\":{id},\"ts\":\"2018-10-09T04:32:{:02}Z\"}}", id % 60);
        lines
    })
}

#[test]
fn a_file_killed_while_it_is_read_lands_each_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let count = 40_000;
    let lines = readings(count);
    fs::write(folder.path().join("readings.jsonl"), lines).unwrap();
    let text = pipeline("type = \"files\"\npath = \"readings.jsonl\"");
    fs::write(folder.path().join("ledger.toml"), text).unwrap();
    let mut chance = Numbers(99);
    for _ in 0..kill_count() / 4 {
        let mut process = Running::start(folder.path(), &["run", "--once", "--no-progress", "ledger.toml"]);
        std::thread::sleep(std::time::Duration::from_millis(150 + chance.below(500)));
        process.kill();
    }
    succeed(folder.path(), &["run", "--once", "--no-progress", "ledger.toml"]);
    assert_eq!(number(folder.path(), "SELECT count(*) FROM test.reading"), count);
    assert_eq!(number(folder.path(), "SELECT count(DISTINCT id) FROM test.reading"), count);
    assert_eq!(number(folder.path(), "SELECT count(*) FROM meta.rejects"), 0);
    assert_eq!(number(folder.path(), "SELECT count(*) FROM raw.reading"), count);
}

#[test]
fn bad_messages_are_rejects_with_their_payload_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"id\":1,\"ts\":\"2018-10-09T04:32:01Z\"}\n{\"id\":2,\"ts\":\n{\"id\":\"three\",\"ts\":\"2018-10-09T04:32:03Z\"}\n\
                 {\"ts\":\"2018-10-09T04:32:04Z\"}\n{\"id\":5,\"ts\":\"2018-10-09T04:32:05Z\"}\n";
    fs::write(folder.path().join("readings.jsonl"), lines).unwrap();
    fs::write(folder.path().join("ledger.toml"), pipeline("type = \"files\"\npath = \"readings.jsonl\""))
        .unwrap();
    succeed(folder.path(), &["run", "--once", "--no-progress", "ledger.toml"]);
    assert_eq!(number(folder.path(), "SELECT count(*) FROM test.reading"), 2);
    let rejects = rows(
        folder.path(),
        "SELECT reason, CAST(payload AS VARCHAR) AS payload FROM meta.rejects ORDER BY _sequence",
    );
    let reasons: Vec<&str> = rejects.iter().map(|reject| reject["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["invalid_json", "wrong_type", "missing_value"], "{rejects:?}");
    assert_eq!(rejects[0]["payload"], "{\"id\":2,\"ts\":");
}

#[test]
fn a_truncated_map_is_a_clear_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pipelines = folder.path().join("pipelines");
    fs::create_dir_all(pipelines.join("data")).unwrap();
    fs::copy(repository().join("pipelines/helsinki-map.toml"), pipelines.join("helsinki-map.toml")).unwrap();
    let whole = fs::read(repository().join("pipelines/data/helsinki-centre.osm.pbf")).unwrap();
    let map = pipelines.join("data/helsinki-centre.osm.pbf");
    fs::write(&map, &whole).unwrap();
    succeed(folder.path(), &["run", "--once", "--no-progress", "pipelines/helsinki-map.toml"]);
    let links = number(folder.path(), "SELECT count(*) FROM map.road_link");
    for cut in [whole.len() / 2, whole.len() - 3, 10] {
        fs::write(&map, &whole[..cut]).unwrap();
        let output =
            twinlake(folder.path(), &["run", "--once", "--no-progress", "pipelines/helsinki-map.toml"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("helsinki-centre.osm.pbf"), "{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
    assert_eq!(number(folder.path(), "SELECT count(*) FROM map.road_link"), links);
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("small");
    fs::create_dir(&lake).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(&lake).status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "on CI the disk must be mountable");
        println!("skipped: mounting a small disk needs root");
        return;
    }
    let _mount = Mount(&lake);
    let ballast = lake.join("ballast");
    fs::write(&ballast, vec![7_u8; 11_400_000]).unwrap();
    let count = 20_000;
    let lines = readings(count);
    fs::write(folder.path().join("readings.jsonl"), lines).unwrap();
    fs::write(folder.path().join("ledger.toml"), pipeline("type = \"files\"\npath = \"readings.jsonl\""))
        .unwrap();
    let mut process = Running::start(
        folder.path(),
        &["run", "--no-progress", "--lake", lake.to_str().unwrap(), "ledger.toml"],
    );
    wait_until("the disk to be full", || {
        process.assert_alive();
        process.errors().contains("No space left") || process.errors().contains("disk")
    });
    fs::remove_file(&ballast).unwrap();
    wait_until("all rows", || {
        process.assert_alive();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let asked = twinlake(
            folder.path(),
            &[
                "sql",
                "--lake",
                lake.to_str().unwrap(),
                "--format",
                "csv",
                "-c",
                "SELECT count(*) AS n FROM test.reading",
            ],
        );
        String::from_utf8_lossy(&asked.stdout) == format!("n\n{count}\n")
    });
    process.interrupt();
}

struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Stations with their areas land in the lake; a second pipeline takes names and fences from those tables.
#[test]
fn rows_are_enriched_and_fenced_by_tables_of_the_lake() {
    let folder = tempfile::tempdir().unwrap();
    let stations = "{\"station\":\"k\",\"name\":\"Kallio\",\"area\":\"POLYGON((0 0,1 0,1 1,0 1,0 0))\"}\n\
                    {\"station\":\"p\",\"name\":\"Pasila\",\"area\":\"POLYGON((2 0,3 0,3 1,2 1,2 0))\"}\n";
    fs::write(folder.path().join("stations.jsonl"), stations).unwrap();
    let readings = "{\"station\":\"k\",\"ts\":\"2018-10-09T04:32:01Z\",\"x\":0.5}\n\
                    {\"station\":\"p\",\"ts\":\"2018-10-09T04:32:02Z\",\"x\":1.5}\n\
                    {\"station\":\"q\",\"ts\":\"2018-10-09T04:32:03Z\",\"x\":2.5}\n";
    fs::write(folder.path().join("readings.jsonl"), readings).unwrap();
    let stations = r#"name = "stations"
[sources.station]
type = "files"
path = "stations.jsonl"
decoder = { type = "json", columns = { station = "utf8", name = "utf8", area = "utf8" } }
[sinks.station]
type = "lake"
inputs = ["station"]
table = "city.station"
"#;
    let readings = r#"name = "readings"
[sources.reading]
type = "files"
path = "readings.jsonl"
decoder = { type = "json", columns = { station = "utf8", ts = "timestamp", x = "float64" } }
[transforms.named]
type = "enrich"
inputs = ["reading"]
table = { query = "SELECT station, name FROM city.station", columns = { station = "utf8", name = "utf8" } }
on = { station = "station" }
columns = { station_name = "name" }
[transforms.placed]
type = "sql"
inputs = ["named"]
query = "SELECT station, station_name, ts, st_point(x, 0.5) AS geom FROM input"
[transforms.fenced]
type = "geofence"
inputs = ["placed"]
table = { table = { query = "SELECT name, area FROM city.station", columns = { name = "utf8", area = "utf8" } }, name = "name", geometry = "area" }
[sinks.reading]
type = "lake"
inputs = ["fenced"]
table = "city.reading"
"#;
    fs::write(folder.path().join("stations.toml"), stations).unwrap();
    fs::write(folder.path().join("readings.toml"), readings).unwrap();
    succeed(folder.path(), &["run", "--once", "--no-progress", "stations.toml"]);
    succeed(folder.path(), &["run", "--once", "--no-progress", "readings.toml"]);
    let landed = rows(folder.path(), "SELECT station, station_name, fence FROM city.reading ORDER BY ts");
    let expected = serde_json::json!([
        {"station": "k", "station_name": "Kallio", "fence": "Kallio"},
        {"station": "p", "station_name": "Pasila", "fence": null},
        {"station": "q", "station_name": null, "fence": "Pasila"},
    ]);
    assert_eq!(serde_json::Value::Array(landed), expected);
}
