//! Columns of a table renamed, widened and held to constraints, by the command line, by definitions and by `apply`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::kill::pipeline;
use crate::support::{number, rows, succeed, twinlake};

fn write_readings(folder: &Path, ids: impl IntoIterator<Item = i64>) {
    let mut lines = String::new();
    for id in ids {
        let _ = writeln!(lines, "{{\"id\":{id},\"ts\":\"2018-10-09T04:32:{:02}Z\"}}", id.rem_euclid(60));
    }
    fs::write(folder.join("readings.jsonl"), lines).unwrap();
}

#[test]
fn columns_change_under_a_pipeline_and_rows_that_break_a_constraint_are_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("pipes")).unwrap();
    let file = folder.join("pipes/ledger.toml");
    let text = pipeline("type = \"files\"\npath = \"../readings.jsonl\"");
    let text = text.replace("SELECT id,", "SELECT CAST(id AS INT) AS id,");
    fs::write(&file, &text).unwrap();
    write_readings(folder, 1..=10);
    succeed(folder, &["run", "pipes/ledger.toml", "--once", "--no-progress"]);
    let version = number(folder, "SELECT version FROM meta.datasets WHERE name = 'test.reading'");

    let alter =
        |arguments: &[&str]| twinlake(folder, &[&["table", "alter", "test.reading"], arguments].concat());
    for (arguments, part) in [
        (vec!["--rename", "idd=number"], "did you mean 'id'?"),
        (vec!["--widen", "id=text"], "no type that a column can be widened to"),
        (vec!["--widen", "id=smallint"], "not every value of it is Int16"),
        (vec!["--constraint", "few=id < 5"], "rows break it"),
        (vec![], "required"),
    ] {
        let refused = alter(&arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(part), "{arguments:?}: {said}");
    }
    let done =
        alter(&["--rename", "id=number", "--widen", "number=bigint", "--constraint", "small=number < 100"]);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("10 rows in 1 files") && said.contains("'small' holds"), "{said}");
    assert_eq!(number(folder, "SELECT sum(number) FROM test.reading"), 55);
    assert_eq!(number(folder, &format!("SELECT sum(id) FROM test.\"reading@{version}\"")), 55);

    // The pipeline still says 'id': its rows land under the new name, and those that break the constraint are rejects.
    write_readings(folder, (1..=12).chain([100, 101]));
    succeed(folder, &["run", "pipes/ledger.toml", "--once", "--no-progress"]);
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), 12);
    assert_eq!(number(folder, "SELECT max(number) FROM test.reading"), 12);
    let rejects = rows(folder, "SELECT reason, detail FROM meta.rejects ORDER BY detail");
    assert_eq!(rejects.len(), 2, "{rejects:?}");
    assert_eq!(rejects[0]["reason"], json!("quality"));
    assert!(rejects[0]["detail"].as_str().unwrap().contains("constraint:small"), "{rejects:?}");
    assert!(alter(&["--constraint", "past=ts IS NOT NULL"]).status.success());
    let broken = alter(&["--constraint", "few=number < 5"]);
    assert!(!broken.status.success(), "rows that are there break it");

    // Going back brings the rows and the columns of that version.
    succeed(folder, &["table", "restore", "test.reading", "--version", &version.to_string()]);
    assert_eq!(number(folder, "SELECT sum(id) FROM test.reading"), 55);
}

#[test]
fn a_wider_column_of_a_pipeline_is_planned_and_applied() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("pipes")).unwrap();
    let file = folder.join("pipes/ledger.toml");
    let text = pipeline("type = \"files\"\npath = \"../readings.jsonl\"");
    fs::write(&file, text.replace("SELECT id,", "SELECT CAST(id AS INT) AS id,")).unwrap();
    write_readings(folder, 1..=10);
    succeed(folder, &["apply", "pipes"]);
    succeed(folder, &["run", "pipes/ledger.toml", "--once", "--no-progress"]);

    fs::write(&file, text.replace("SELECT id,", "SELECT id * 1000000000000 AS id,")).unwrap();
    let refused = twinlake(folder, &["run", "pipes/ledger.toml", "--once", "--no-progress"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("twinlake table alter"), "{said}");
    let told = succeed(folder, &["plan", "pipes"]);
    assert!(told.contains("widen column id Int64"), "{told}");
    succeed(folder, &["apply", "pipes", "--rebuild"]);
    assert_eq!(number(folder, "SELECT sum(id) FROM test.reading"), 55_000_000_000_000);
    assert!(succeed(folder, &["plan", "pipes"]).starts_with("no changes"));
}
