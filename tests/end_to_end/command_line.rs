//! The command line: names, formats and exit codes that outside scripts rely on.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use crate::demo::demo;
use crate::support::{binary, repository, succeed, test_data, twinlake};

#[test]
fn wrong_use_is_exit_code_2_and_failure_1() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(twinlake(folder.path(), &["fly"]).status.code(), Some(2));
    assert_eq!(twinlake(folder.path(), &["run"]).status.code(), Some(2));
    assert_eq!(
        twinlake(folder.path(), &["simulate", "weather", "--network", "x.tntp"]).status.code(),
        Some(2)
    );
    assert_eq!(twinlake(folder.path(), &["sql", "-c", "SELECT nothing"]).status.code(), Some(1));
    assert_eq!(twinlake(folder.path(), &["sql", "-c", "SELECT 1"]).status.code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    // Far more than a pipe holds.
    let many = "SELECT value, repeat('x', 100) AS text FROM generate_series(1, 100000)";
    for format in ["table", "csv", "json"] {
        let mut command = Command::new(binary());
        command.current_dir(folder.path()).args(["sql", "-c", many, "--format", format]);
        let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut begin = [0; 8];
        running.stdout.take().unwrap().read_exact(&mut begin).unwrap();
        let output = running.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), told.as_ref()), (Some(0), ""), "{format}");
    }
}

#[test]
fn the_shipped_pipelines_are_valid_and_pass_their_own_tests() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "helsinki-vehicles",
        "helsinki-map",
        "helsinki-districts",
        "helsinki-networks",
        "factory-map",
        "factory-machines",
    ] {
        let file = repository().join(format!("pipelines/{name}.toml"));
        let file = file.to_str().unwrap();
        succeed(folder.path(), &["validate", file]);
        let told = succeed(folder.path(), &["test", file]);
        assert!(told.contains("passed"), "{told}");
        assert!(succeed(folder.path(), &["graph", file]).contains("flowchart"));
        assert!(succeed(folder.path(), &["graph", "--dot", file]).starts_with("digraph"));
    }
}

#[test]
fn validate_shows_file_line_text_and_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(repository().join("pipelines/helsinki-vehicles.toml")).unwrap();
    let file = folder.path().join("wrong.toml");
    fs::write(&file, text.replace("topics =", "topcis =")).unwrap();
    let line = text.lines().position(|line| line.starts_with("topics =")).unwrap() + 1;
    let output = twinlake(folder.path(), &["validate", "wrong.toml"]);
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for expected in [&format!("wrong.toml:{line}:") as &str, "topcis", "did you mean", "topics"] {
        assert!(told.contains(expected), "'{expected}' is missing in:\n{told}");
    }
}

#[test]
fn sql_prints_every_format_and_reads_a_file_as_a_table() {
    let folder = demo().0.path();
    let sql = "SELECT vehicle_id, ts, geom FROM traffic.vehicle_position ORDER BY vehicle_id, ts LIMIT 5";
    assert!(succeed(folder, &["sql", "-c", sql]).contains("POINT"));
    assert!(succeed(folder, &["sql", "--format", "csv", "-c", sql]).starts_with("vehicle_id,ts,geom\n"));
    assert!(succeed(folder, &["sql", "--format", "json", "-c", sql]).starts_with('['));
    let parquet = twinlake(folder, &["sql", "--format", "parquet", "-c", sql]).stdout;
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let arrow = twinlake(folder, &["sql", "--format", "arrow", "-c", sql]).stdout;
    assert!(arrow.starts_with(&[0xff, 0xff, 0xff, 0xff]));
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("five.parquet"), parquet).unwrap();
    let told = succeed(
        elsewhere.path(),
        &["sql", "--format", "csv", "-c", "SELECT count(*) AS n FROM 'five.parquet'"],
    );
    assert_eq!(told, "n\n5\n");
}

#[test]
fn simulate_reproduces_the_published_optimum_from_the_fields_own_files() {
    let Some(data) = test_data("simulation/traffic_ue") else { return };
    let folder = tempfile::tempdir().unwrap();
    for (city, published) in [("SiouxFalls", 4_231_335.287_107_44), ("Anaheim", 1_286_032.171_096)] {
        let file = |kind: &str| data.join(format!("{city}/{city}_{kind}.tntp")).display().to_string();
        let told = succeed(
            folder.path(),
            &[
                "simulate",
                "traffic_assignment",
                "--network",
                &file("net"),
                "--demand",
                &file("trips"),
                "--set",
                "relative_gap=1e-8",
                "--summary",
                "json",
                "--output",
                "links.csv",
            ],
        );
        let summary: serde_json::Value = serde_json::from_str(&told).unwrap();
        let objective = summary["objective"].as_f64().unwrap();
        assert!((objective / published - 1.0).abs() <= 1e-6, "{city}: {objective} against {published}");
        assert_eq!(summary["converged"], true);
        let links = fs::read_to_string(folder.path().join("links.csv")).unwrap();
        assert!(links.starts_with("link_id,from_node,to_node,flow_vph"), "{links}");
    }
}
