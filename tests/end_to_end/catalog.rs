//! `twinlake catalog` and `twinlake check` over the demo's lake; rules that reject and stop; OpenLineage events.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::demo::demo;
use crate::support::{number, rows, succeed, test_data, twinlake};

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let text = succeed(folder, arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

#[test]
fn tables_are_found_and_shown() {
    let folder = demo().0.path();
    let found = json(folder, &["catalog", "search", "speed", "vehicle", "--format", "json"]);
    let names: Vec<&str> =
        found.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"traffic.vehicle_position") && names.contains(&"twin.vehicle"), "{names:?}");
    assert!(!names.contains(&"map.building"), "{names:?}");
    let shown = json(folder, &["catalog", "show", "traffic.vehicle_position", "--format", "json"]);
    assert_eq!(shown["keys"][0], serde_json::json!(["vehicle_id", "ts"]));
    assert_eq!(shown["crs"], "OGC:CRS84");
    let speed =
        shown["columns"].as_array().unwrap().iter().find(|one| one["column_name"] == "speed_mps").unwrap();
    assert_eq!(speed["unit"], "m/s");
    assert!(shown["from"].to_string().contains("mqtt_broker:"), "{}", shown["from"]);
    assert!(shown["to"].to_string().contains("twin.vehicle"), "{}", shown["to"]);
    let runs = shown["runs"].as_array().unwrap();
    assert!(
        runs.iter().any(|run| run["name"] == "helsinki-vehicles" && run["bytes_written"].as_i64() > Some(0)),
        "{runs:?}"
    );
    assert!(succeed(folder, &["catalog", "show", "twin.vehicle"]).contains("delay_s"));
    let slip = twinlake(folder, &["catalog", "show", "traffic.vehicle_positon"]);
    assert!(String::from_utf8_lossy(&slip.stderr).contains("did you mean 'traffic.vehicle_position'?"));
}

#[test]
fn a_twins_columns_lead_down_to_the_raw_messages() {
    let folder = demo().0.path();
    // Which columns of raw messages each column of the twin is made of.
    for (column, ends) in [
        ("speed_mps", vec!["raw.hfp.payload"]),
        ("delay_s", vec!["raw.hfp.payload"]),
        ("vehicle_id", vec!["raw.hfp.origin", "raw.hfp.payload"]),
        ("mode", vec!["raw.hfp.origin"]),
        ("geom", vec!["raw.hfp.payload"]),
        ("known_time", vec!["raw.hfp._ingested_at"]),
    ] {
        let way =
            json(folder, &["catalog", "lineage", &format!("twin.vehicle.{column}"), "--format", "json"]);
        let found: Vec<String> = way["ends"]
            .as_array()
            .unwrap()
            .iter()
            .map(|end| format!("{}.{}", end["dataset"].as_str().unwrap(), end["column"].as_str().unwrap()))
            .collect();
        assert_eq!(found, ends, "{column}");
    }
    // The road that a vehicle is on is looked up by its position, and comes from the map.
    let road = succeed(folder, &["catalog", "lineage", "twin.vehicle.road_segment_id"]);
    for part in [
        "twin.road_segment.road_segment_id",
        "map.road_link.link_id",
        "traffic.vehicle_position.geom",
        "raw.hfp.payload",
        "osm.pbf",
    ] {
        assert!(road.contains(part), "{part} is missing in\n{road}");
    }
    let delay = succeed(folder, &["catalog", "lineage", "twin.vehicle.delay_s"]);
    assert!(delay.contains("helsinki-vehicles/hfp.dl [sql position computed"), "{delay}");
    // And back.
    let down = json(folder, &["catalog", "lineage", "raw.hfp.payload", "--down", "--format", "json"]);
    let ends = down["ends"].as_array().unwrap();
    assert!(
        ends.iter().any(|end| end["dataset"] == "twin.vehicle" && end["column"] == "speed_mps"),
        "{ends:?}"
    );
    let picture = succeed(folder, &["catalog", "lineage", "twin.vehicle", "--format", "mermaid"]);
    assert!(
        picture.starts_with("flowchart LR\n") && picture.contains("traffic.vehicle_position"),
        "{picture}"
    );
    // The same in SQL.
    let sql = "SELECT input, input_column FROM meta.lineage WHERE output = 'twin.vehicle' AND output_column = 'speed_mps'";
    assert_eq!(rows(folder, sql)[0]["input"], "traffic.vehicle_position");
}

#[test]
fn the_demos_rules_hold_and_are_recorded() {
    let folder = demo().0.path();
    let checked = json(folder, &["check", "--format", "json"]);
    let checked = checked.as_array().unwrap();
    assert!(checked.len() >= 10 && checked.iter().all(|rule| rule["passed"] == true), "{checked:?}");
    let judged = "SELECT count(*) FROM meta.quality WHERE checked_by = 'pipeline' AND table_name = 'map.road_link' AND rows_checked = 1534";
    assert_eq!(number(folder, judged), 4);
    assert_eq!(number(folder, "SELECT count(*) FROM meta.runs WHERE who IS NULL OR wall_s IS NULL"), 0);
}

#[test]
fn a_profile_proposes_what_the_definition_says() {
    let folder = demo().0.path();
    let found = json(folder, &["catalog", "profile", "traffic.vehicle_position", "--format", "json"]);
    let column = |name: &str| {
        found["columns"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
    };
    assert_eq!(found["rows"], 2842);
    assert_eq!(column("speed_mps")["proposed_unit"]["unit"], "m/s");
    assert_eq!(column("heading_deg")["proposed_unit"]["unit"], "deg");
    let keys = found["keys"].to_string();
    assert!(keys.contains(r#"["vehicle_id","ts"]"#), "{keys}");
    assert_eq!(found["crs"][0]["crs"], "OGC:CRS84");
    // Public data without persons: no alarm anywhere in the lake.
    for table in ["traffic.vehicle_position", "map.road_link", "map.road_node", "map.building"] {
        let found = json(folder, &["catalog", "profile", table, "--all", "--format", "json"]);
        for column in found["columns"].as_array().unwrap() {
            assert_eq!(column["personal"], serde_json::json!([]), "{table}.{}", column["name"]);
        }
    }
}

/// Larger public data without persons: nothing there may be taken for personal data.
#[test]
fn public_data_raise_no_alarm() {
    let folder = tempfile::tempdir().unwrap();
    for file in [
        "traffic/nyc-taxi/taxis.csv",
        "air/smartcitizen/geodata.csv",
        "trajectory/ais/route14_outbound.csv",
        "traffic/metr-la-graph/graph_sensor_locations.csv",
        "traffic/fremont-bike/BicycleWeather.csv",
    ] {
        let Some(path) = test_data(file) else { return };
        let found = json(folder.path(), &["catalog", "profile", path.to_str().unwrap(), "--format", "json"]);
        for column in found["columns"].as_array().unwrap() {
            assert_eq!(column["personal"], serde_json::json!([]), "{file} {}", column["name"]);
        }
    }
}

const PIPELINE: &str = r#"
name = "plant"
[sources.readings]
type = "files"
path = "readings.csv"
decoder = { type = "csv", message = "line", names = ["id", "value"], columns = { id = "utf8", value = "float64" } }
[sinks.reading]
type = "lake"
inputs = ["readings"]
table = "plant.reading"
"#;

/// A folder with a pipeline, its readings and a definition with one rule.
fn plant(rule: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("schemas/tables")).unwrap();
    fs::write(folder.path().join("plant.toml"), PIPELINE).unwrap();
    fs::write(folder.path().join("readings.csv"), "a,1\nb,200\nc,3\n").unwrap();
    let definition = format!("table = \"plant.reading\"\nowner = \"plant\"\n{rule}");
    fs::write(folder.path().join("schemas/tables/plant.reading.toml"), definition).unwrap();
    folder
}

#[test]
fn a_rule_rejects_rows_and_another_stops_the_pipeline() {
    let range = "[[quality]]\nrule = \"range\"\ncolumn = \"value\"\nmax = 100\n";
    let rejecting = plant(&format!("{range}severity = \"reject\"\n"));
    succeed(rejecting.path(), &["run", "plant.toml", "--once", "--no-progress"]);
    assert_eq!(number(rejecting.path(), "SELECT count(*) FROM plant.reading"), 2);
    let rejects = rows(
        rejecting.path(),
        "SELECT component, reason, detail, encode(payload, 'hex') AS payload FROM meta.rejects",
    );
    assert_eq!(
        (rejects.len(), &rejects[0]["component"], &rejects[0]["reason"]),
        (1, &"reading".into(), &"quality".into())
    );
    assert_eq!(rejects[0]["payload"], "622c323030", "b,200");
    assert_eq!(number(rejecting.path(), "SELECT rows_failed FROM meta.quality"), 1);

    let stopping = plant(&format!("{range}severity = \"stop\"\n"));
    let stopped = twinlake(stopping.path(), &["run", "plant.toml", "--once", "--no-progress"]);
    assert_eq!(stopped.status.code(), Some(1));
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(said.contains("the quality rule 'range:value' stops the pipeline"), "{said}");
    assert_eq!(number(stopping.path(), "SELECT count(*) FROM plant.reading"), 0);
    // The messages are in the log: with the rule mended they land.
    fs::write(stopping.path().join("schemas/tables/plant.reading.toml"), "table = \"plant.reading\"\n")
        .unwrap();
    succeed(stopping.path(), &["run", "plant.toml", "--once", "--no-progress"]);
    assert_eq!(number(stopping.path(), "SELECT count(*) FROM plant.reading"), 3);

    let set = plant("[[quality]]\nrule = \"unique\"\ncolumns = [\"id\"]\nseverity = \"reject\"\n");
    let refused = twinlake(set.path(), &["check"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("cannot reject rows"), "{said}");

    let checked = plant("");
    succeed(checked.path(), &["run", "plant.toml", "--once", "--no-progress"]);
    let rule = format!("table = \"plant.reading\"\n{range}severity = \"stop\"\n");
    fs::write(checked.path().join("schemas/tables/plant.reading.toml"), rule).unwrap();
    let stop = twinlake(checked.path(), &["check", "plant.reading"]);
    assert_eq!(stop.status.code(), Some(1), "{}", String::from_utf8_lossy(&stop.stdout));
}

/// Takes posts on a free port and gives their bodies.
fn listen() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    assert!(line.starts_with("POST /api/v1/lineage "), "{line}");
                    loop {
                        line.clear();
                        reader.read_line(&mut line).unwrap();
                        if let Some((name, value)) = line.split_once(':')
                            && name.eq_ignore_ascii_case("content-length")
                        {
                            length = value.trim().parse().unwrap();
                        }
                        if line.trim().is_empty() {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
                    stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (address, receiver)
}

#[test]
fn runs_tell_open_lineage() {
    let (address, events) = listen();
    let folder = plant("[columns.value]\nunit = \"°C\"\n");
    succeed(folder.path(), &["run", "plant.toml", "--once", "--no-progress", "--lineage-url", &address]);
    let next = || events.recv_timeout(Duration::from_secs(10)).unwrap();
    let (start, complete) = (next(), next());
    assert_eq!((&start["eventType"], &complete["eventType"]), (&"START".into(), &"COMPLETE".into()));
    assert_eq!(start["run"]["runId"], complete["run"]["runId"]);
    let output = &complete["outputs"][0];
    assert!(output["name"].as_str().unwrap().ends_with("/plant/reading"), "{output}");
    assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], 3);
    let value = &output["facets"]["columnLineage"]["fields"]["value"]["inputFields"][0];
    assert_eq!(value["field"], "payload");
    assert_eq!(output["facets"]["ownership"]["owners"][0]["name"], "plant");
    // Nobody listens: the run does not mind.
    let silent = plant("");
    succeed(
        silent.path(),
        &["run", "plant.toml", "--once", "--no-progress", "--lineage-url", "http://127.0.0.1:9"],
    );
    assert_eq!(number(silent.path(), "SELECT count(*) FROM plant.reading"), 3);
}
