//! Scheduler and executors as processes: the answers and the reprocessed rows are those of one process, whoever is killed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Running, binary, free_port, rows, succeed, twinlake, wait_for_port, wait_until};

const READINGS: u64 = 60_000;

/// A pipeline whose steps look at one message at a time, so that its messages can be cut into pieces.
const STATELESS: &str = r#"name = "readings"

[settings]
commit_interval_ms = 150

[sources.reading]
type = "files"
path = "readings.jsonl"
decoder = { type = "json", columns = { id = { type = "int64", required = true }, sensor = { type = "utf8" }, ts = { type = "utf8" }, lon = { type = "float64" }, lat = { type = "float64" }, v = { type = "float64" } } }

[transforms.placed]
type = "sql"
inputs = ["reading"]
query = "SELECT id, sensor, to_timestamp(ts) AS ts, v * FACTOR AS v, st_point(lon, lat) AS geom FROM input WHERE v IS NULL OR v < 900"

[sinks.reading]
type = "lake"
inputs = ["placed"]
table = "plant.reading"
"#;

/// Readings of 40 sensors around Helsinki; each thousandth is damaged.
fn readings() -> String {
    (0..READINGS).fold(String::new(), |mut lines, id| {
        if id % 1_000 == 999 {
            lines.push_str("{\"id\": \"none\"}\n");
            return lines;
        }
        let (minute, second) = (id / 60 % 60, id % 60);
        let (hour, sensor) = (id / 3_600, id % 40);
        let (lon, lat) = (24.9 + (id % 211) as f64 * 0.0007, 60.1 + (id % 199) as f64 * 0.0006);
        let v = (id * 7_919 % 1_000) as f64;
        let _ = writeln!(
            lines,
            "{{\"id\":{id},\"sensor\":\"s{sensor}\",\"ts\":\"2018-10-09T{hour:02}:{minute:02}:{second:02}Z\",\
             \"lon\":{lon},\"lat\":{lat},\"v\":{v}}}"
        );
        lines
    })
}

/// A scheduler and two executors on 127.0.0.1.
struct Cluster {
    scheduler: Running,
    executors: Vec<Running>,
    address: String,
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["scheduler", "--listen", &listen, "--executor-timeout", "8"];
        let mut scheduler = Running::start(folder, &arguments);
        wait_for_port(port, &mut scheduler);
        let executors = (0..2).map(|_| Self::executor(folder, &listen)).collect();
        Self { scheduler, executors, address: format!("ballista://{listen}?partitions=6") }
    }

    fn executor(folder: &Path, scheduler: &str) -> Running {
        let port = free_port();
        let (listen, work) = (format!("127.0.0.1:{port}"), format!("work-{port}"));
        let arguments =
            ["executor", "--scheduler", scheduler, "--listen", &listen, "--work-dir", &work, "--slots", "2"];
        let mut executor = Running::start(folder, &arguments);
        wait_for_port(port, &mut executor);
        executor
    }

    /// The rows that the cluster gives; none of the query may run in the client.
    fn rows(&self, folder: &Path, sql: &str) -> Vec<Value> {
        // Small tables are cut, too.
        let sql = format!("SET datafusion.optimizer.repartition_file_min_size = 1000; {sql}");
        let arguments = ["sql", "-v", "--engine", &self.address, "--format", "json", "-c", &sql];
        let output = twinlake(folder, &arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {errors}");
        assert!(errors.contains("a query runs on ballista://"), "{sql}: {errors}");
        assert!(!errors.contains("runs here"), "{sql}: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{sql}: {error}: {text}"))
    }
}

fn sorted(mut rows: Vec<Value>) -> Vec<String> {
    let mut lines: Vec<String> = rows.drain(..).map(|row| row.to_string()).collect();
    lines.sort();
    lines
}

fn ingest(folder: &Path) {
    fs::write(folder.join("readings.jsonl"), readings()).unwrap();
    fs::write(folder.join("readings.toml"), STATELESS.replace("FACTOR", "1")).unwrap();
    succeed(folder, &["run", "--once", "--no-progress", "readings.toml"]);
}

#[test]
fn questions_have_the_same_answers_and_an_executor_may_die() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ingest(folder);
    let mut cluster = Cluster::start(folder);
    let zones = "(SELECT n, st_buffer(st_point(24.9 + n * 0.01, 60.1 + n * 0.008), 0.006) AS zone, s \
                 FROM (SELECT id % 14 AS n, max(sensor) AS s FROM plant.reading GROUP BY 1)) AS z";
    for sql in [
        "SELECT sensor, count(*) AS n, sum(v) AS s, max(ts) AS t FROM plant.reading GROUP BY sensor".to_owned(),
        format!("SELECT z.n, count(*) AS c, sum(r.id) AS s FROM plant.reading r JOIN {zones} ON st_intersects(z.zone, r.geom) GROUP BY 1"),
        format!("SELECT z.n, round(st_distance(st_centroid(z.zone), r.geom) * 1e9) AS d FROM {zones} JOIN plant.reading r ON st_knn(st_centroid(z.zone), r.geom, 2)"),
        "SELECT sensor, time_bucket('1 hour', ts) AS b, avg(v) AS a, last(v, ts) AS l FROM plant.reading GROUP BY 1, 2".to_owned(),
        "SELECT sensor, time_bucket_gapfill('7 minutes', ts) AS b, locf(avg(v)) AS a FROM plant.reading WHERE id % 3 = 0 GROUP BY 1, 2".to_owned(),
        "SELECT count(*) AS n, sum(b.id) AS s FROM plant.reading a ASOF JOIN plant.reading b ON a.sensor = b.sensor AND a.ts > b.ts".to_owned(),
        "SELECT reason, count(*) AS n FROM meta.rejects GROUP BY reason".to_owned(),
    ] {
        let expected = sorted(rows(folder, &sql));
        assert!(!expected.is_empty(), "{sql}");
        assert_eq!(sorted(cluster.rows(folder, &sql)), expected, "{sql}");
    }

    // Long enough to be in the middle when an executor is killed.
    let long = "SELECT a.sensor, count(*) AS n, sum(a.id % 97 + b.id % 89) AS s, max(length(a.sensor || b.sensor)) AS l \
                FROM plant.reading a JOIN plant.reading b ON a.id % 1000 = b.id % 1000 AND a.id + b.id > 500 GROUP BY 1";
    let expected = sorted(rows(folder, long));
    let mut client = Command::new(binary());
    client.current_dir(folder).args(["sql", "--engine", &cluster.address, "--format", "json", "-c", long]);
    client.stdout(fs::File::create(folder.join("answer.json")).unwrap());
    client.stderr(fs::File::create(folder.join("client.txt")).unwrap());
    let mut client = client.spawn().unwrap();
    let works = |executor: &Path| fs::read_dir(executor).is_ok_and(|mut files| files.next().is_some());
    let folders: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("work-"))
        .collect();
    wait_until("work on the executors", || {
        assert!(client.try_wait().unwrap().is_none(), "the query is too short to kill anybody in its middle");
        folders.iter().any(|folder| works(folder))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.try_wait().unwrap().is_none(), "the query is too short to kill anybody in its middle");
    cluster.executors[0].kill();
    // Its parts are run again when it has not been heard of for some seconds; on a busy machine all of it takes a while.
    let deadline = Instant::now() + Duration::from_mins(5);
    let status = loop {
        if let Some(status) = client.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "no answer without the killed one");
        std::thread::sleep(Duration::from_millis(100));
    };
    let told = fs::read_to_string(folder.join("client.txt")).unwrap();
    assert!(status.success(), "{told}");
    let text = fs::read_to_string(folder.join("answer.json")).unwrap();
    assert_eq!(sorted(serde_json::from_str(&text).unwrap()), expected);

    // Whoever is told to go, goes cleanly; then there is nobody, and the error says so.
    cluster.executors[1].interrupt();
    cluster.scheduler.interrupt();
    let gone =
        twinlake(folder, &["sql", "--engine", &cluster.address, "-c", "SELECT sum(id) FROM plant.reading"]);
    let told = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(!gone.status.success() && told.contains("cannot be reached"), "{told}");
    let wrong = twinlake(folder, &["sql", "--engine", "spark://here", "-c", "SELECT 1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("'spark' is not ballista"));
}

#[test]
fn twins_in_every_tense_are_those_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = || format!("127.0.0.1:{}", free_port());
    let (http, postgres, mqtt) = (address(), address(), address());
    let doors = ["--http", &http, "--postgres", &postgres, "--mqtt", &mqtt];
    succeed(folder, &[&["demo", "--once", "--speed", "0", "--no-progress"][..], &doors].concat());
    let cluster = Cluster::start(folder);
    for sql in [
        "SELECT vehicle_id, speed_mps, st_astext(geom) AS at FROM twin.vehicle",
        "SET twin.as_of = '2018-10-09T04:32:53Z'; SELECT count(*) AS n, round(sum(speed_mps) * 1000) AS s FROM twin.vehicle",
        "SELECT vehicle_id, count(*) AS n, min(valid_time) AS t FROM twin.vehicle_history GROUP BY 1",
        "SELECT b.building_id, count(*) AS n FROM map.building b JOIN traffic.vehicle_position v \
         ON st_dwithin_sphere(b.geom, v.geom, 60) GROUP BY 1",
    ] {
        let expected = sorted(rows(folder, sql));
        assert!(!expected.is_empty(), "{sql}");
        assert_eq!(sorted(cluster.rows(folder, sql)), expected, "{sql}");
    }
}

#[test]
fn reprocessed_rows_are_those_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ingest(folder);
    let all = |folder: &Path| {
        let table = |table: &str| sorted(rows(folder, &format!("SELECT * FROM {table}")));
        (table("plant.reading"), table("meta.rejects"))
    };
    // The same past in two lakes, one reprocessed here and one there, with a changed step.
    let other = folder.join("other");
    fs::create_dir(&other).unwrap();
    let copied =
        Command::new("cp").args(["-r", "twinlake-data", "other/"]).current_dir(folder).status().unwrap();
    assert!(copied.success());
    for place in [folder, &other] {
        fs::write(place.join("readings.toml"), STATELESS.replace("FACTOR", "2")).unwrap();
    }
    let arguments = ["reprocess", "readings.toml", "--no-progress", "--json", "--piece", "7000"];
    let here: Value = serde_json::from_str(&succeed(folder, &arguments)).unwrap();
    let mut cluster = Cluster::start(folder);
    let with_engine = [&arguments[..], &["--engine", &cluster.address]].concat();
    let mut client = Running::start(&other, &with_engine);
    std::thread::sleep(Duration::from_millis(900));
    // Killed at whatever moment that is: its pieces are run by the other one, or were done.
    cluster.executors[0].kill();
    client.finish();
    let told = client.errors();
    assert!(!told.contains("run here"), "{told}");
    assert!(all(&other) == all(folder), "the rows differ");
    let sum = "SELECT sum(v) AS s, count(*) AS n FROM plant.reading";
    assert_eq!(rows(&other, sum), rows(folder, sum));
    assert_eq!(here["messages"].as_u64(), Some(READINGS), "{here}");

    // A step that remembers is run in one pass, here, over messages that the cluster reads.
    let remembering = STATELESS.replace("FACTOR", "2").replace(
        "[sinks.reading]\ntype = \"lake\"\ninputs = [\"placed\"]",
        "[transforms.once]\ntype = \"clean\"\ninputs = [\"placed\"]\nkey = [\"id\"]\ndedup = { by = [\"id\"] }\n\n\
         [sinks.reading]\ntype = \"lake\"\ninputs = [\"once\"]",
    );
    fs::write(other.join("readings.toml"), remembering).unwrap();
    succeed(&other, &with_engine);
    assert_eq!(rows(&other, sum), rows(folder, sum));
}

/// Two ways between the same two places, and how many want to get there, which is uncertain.
const WAYS: &str = r#"name = "way"
description = "A way."
key = "way_id"

[map]
table = "net.way"

[properties.way_id]
type = "int64"
description = "Its number."

[properties.capacity_vph]
type = "float64"
unit = "veh/h"
description = "How many get through."

[simulation]
operator = "traffic_assignment"
table = "simulation.way_flow"
output = "links"
key = "link_id"

[simulation.columns.flow_vph]
unit = "veh/h"
description = "How many take it."

[simulation.inputs]
links = """
SELECT way_id AS link_id, CAST(1 AS BIGINT) AS from_node, CAST(2 AS BIGINT) AS to_node, capacity_vph, CAST(1000 AS DOUBLE) AS length_m,
       CAST(60 AS DOUBLE) AS free_flow_time_s, CAST(0.15 AS DOUBLE) AS b, CAST(4 AS DOUBLE) AS power,
       CAST(way_id AS DOUBLE) AS toll, false AS closed
FROM twin.way ORDER BY way_id"""
demand = "SELECT CAST(1 AS BIGINT) AS origin, CAST(2 AS BIGINT) AS destination, CAST(1500 AS DOUBLE) AS flow_vph"
"#;

const UNCERTAIN: &str = r#"name = "uncertain"
description = "Nobody knows what people think of tolls."

[fork]
at = "2018-10-09T04:33:00Z"

[[runs]]
operator = "traffic_assignment"

[ensemble]
members = 7
seed = 3

[ensemble.sample.traffic_assignment]
toll_weight = { uniform = { low = 0.0, high = 0.5 } }
"#;

#[test]
fn members_of_an_ensemble_are_run_by_executors() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(
        folder.join("ways.jsonl"),
        "{\"way_id\":1,\"capacity_vph\":600}\n{\"way_id\":2,\"capacity_vph\":900}\n",
    )
    .unwrap();
    let pipeline = "name = \"ways\"\n[sources.way]\ntype = \"files\"\npath = \"ways.jsonl\"\n\
        decoder = { type = \"json\", columns = { way_id = { type = \"int64\", required = true }, capacity_vph = { type = \"float64\" } } }\n\
        [sinks.way]\ntype = \"lake\"\ninputs = [\"way\"]\ntable = \"net.way\"\n";
    fs::write(folder.join("ways.toml"), pipeline).unwrap();
    fs::create_dir_all(folder.join("schemas/twins")).unwrap();
    fs::create_dir_all(folder.join("scenarios")).unwrap();
    fs::write(folder.join("schemas/twins/way.toml"), WAYS).unwrap();
    fs::write(folder.join("scenarios/uncertain.toml"), UNCERTAIN).unwrap();
    succeed(folder, &["run", "--once", "--no-progress", "ways.toml"]);
    let other = folder.join("other");
    fs::create_dir(&other).unwrap();
    for what in ["twinlake-data", "schemas", "scenarios"] {
        let copied = Command::new("cp").args(["-r", what, "other/"]).current_dir(folder).status().unwrap();
        assert!(copied.success());
    }
    let run = ["scenario", "run", "uncertain", "--format", "json"];
    succeed(folder, &run);
    let cluster = Cluster::start(folder);
    let output = twinlake(&other, &[&run[..], &["-v", "--engine", &cluster.address]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !told.contains("are run here"), "{told}");
    let runs: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(runs.len(), 8, "{runs:?}");
    let members =
        "SELECT member, way_id, flow_vph, run_id FROM scenario_ensemble('uncertain', 'way') ORDER BY 1, 2";
    let here = rows(folder, members);
    assert_eq!(here.len(), 14, "{here:?}");
    assert_eq!(rows(&other, members), here);
    let different =
        "SELECT count(DISTINCT flow_vph) AS n FROM scenario_ensemble('uncertain', 'way') WHERE way_id = 1";
    assert_eq!(rows(folder, different)[0]["n"], 7);
    // Whoever ran them, each was run once.
    assert_eq!(
        rows(
            &other,
            "SELECT count(*) AS n, count(DISTINCT run_id) AS d FROM meta.runs WHERE name = 'traffic_assignment'"
        )[0]["n"],
        8
    );
    // The same again is there already.
    let again: Vec<Value> =
        serde_json::from_str(&succeed(&other, &[&run[..], &["--engine", &cluster.address]].concat()))
            .unwrap();
    assert!(again.iter().all(|run| run["reused"] == true), "{again:?}");
}
