//! A folder of pipelines planned and applied: twice the same is once, and what changed is told and rebuilt.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::kill::pipeline;
use crate::support::{Running, free_port, number, succeed, twinlake, wait_until};

fn append(folder: &Path, from: i64, to: i64) {
    let file = folder.join("readings.jsonl");
    let mut lines = fs::read_to_string(&file).unwrap_or_default();
    for id in from..=to {
        let _ = writeln!(lines, "{{\"id\":{id},\"ts\":\"2018-10-09T04:32:{:02}Z\"}}", id % 60);
    }
    fs::write(file, lines).unwrap();
}

#[test]
fn a_folder_is_planned_applied_changed_and_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("pipes")).unwrap();
    let file = folder.join("pipes/ledger.toml");
    append(folder, 1, 100);
    let text = pipeline("type = \"files\"\npath = \"../readings.jsonl\"");
    fs::write(&file, &text).unwrap();

    let first = succeed(folder, &["plan", "pipes"]);
    assert!(first.contains("+ pipeline ledger") && first.contains("+ table test.reading"), "{first}");
    assert!(!folder.join("twinlake-data/test").exists(), "a plan changes nothing");
    assert!(succeed(folder, &["apply", "pipes"]).contains("applied"));
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), 0);
    for command in ["plan", "apply"] {
        assert!(succeed(folder, &[command, "pipes"]).starts_with("no changes"), "{command}");
    }
    assert_eq!(number(folder, "SELECT count(*) FROM meta.pipelines"), 1);

    // What is applied runs.
    let (http, postgres, mqtt) = (free_port(), free_port(), free_port());
    let doors = [("--http", http), ("--postgres", postgres), ("--mqtt", mqtt)];
    let doors: Vec<String> =
        doors.iter().flat_map(|(door, port)| [(*door).to_owned(), format!("127.0.0.1:{port}")]).collect();
    let mut arguments = vec!["serve", "--applied"];
    arguments.extend(doors.iter().map(String::as_str));
    let mut serving = Running::start(folder, &arguments);
    wait_until("the rows", || {
        serving.assert_alive();
        number(folder, "SELECT count(*) FROM test.reading") == 100
    });
    serving.interrupt();

    // Another query: its rows are of the old one until they are rebuilt.
    let changed = text.replace(
        "SELECT id, to_timestamp(ts) AS ts FROM input",
        "SELECT id, to_timestamp(ts) AS ts, id % 10 AS digit FROM input WHERE id % 2 = 0",
    );
    assert_ne!(changed, text);
    fs::write(&file, &changed).unwrap();
    let told = succeed(folder, &["plan", "pipes"]);
    for expected in ["~ pipeline ledger", "~ transforms.numbered", "+ column digit Int64", "must be rebuilt"]
    {
        assert!(told.contains(expected), "'{expected}' is missing in {told}");
    }
    assert!(succeed(folder, &["apply", "pipes"]).contains("to rebuild: twinlake reprocess"));
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), 100);
    assert!(succeed(folder, &["plan", "pipes"]).contains("of an older text"));
    succeed(folder, &["apply", "pipes", "--rebuild"]);
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), 50);
    assert_eq!(number(folder, "SELECT count(digit) FROM test.reading"), 50);
    assert_eq!(number(folder, "SELECT count(*) FROM meta.rejects WHERE reason = 'filtered'"), 50);
    assert!(succeed(folder, &["plan", "pipes"]).starts_with("no changes"));

    // A reprocessing by hand rebuilds as well.
    fs::write(&file, changed.replace("id % 2", "id % 4")).unwrap();
    succeed(folder, &["apply", "pipes"]);
    succeed(folder, &["reprocess", "pipes/ledger.toml", "--no-progress"]);
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), 25);
    assert!(succeed(folder, &["plan", "pipes"]).starts_with("no changes"));

    // What cannot be is refused, by name; nothing of the plan is done.
    fs::write(&file, changed.replace("id % 10 AS digit", "CAST(id AS VARCHAR) AS digit")).unwrap();
    for command in ["plan", "apply"] {
        let refused = twinlake(folder, &[command, "pipes"]);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("digit") && said.contains("Int64"), "{said}");
    }
    fs::write(&file, "name = \"ledger\"\n[sources.reading]\ntype = \"fils\"\n").unwrap();
    let broken = twinlake(folder, &["plan", "pipes"]);
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(!broken.status.success() && said.contains("ledger.toml:3") && said.contains("'files'"), "{said}");

    fs::remove_file(&file).unwrap();
    assert!(succeed(folder, &["plan", "pipes"]).contains("- pipeline ledger"));
    succeed(folder, &["apply", "pipes"]);
    assert!(succeed(folder, &["plan", "pipes"]).starts_with("no changes"));
    assert_eq!(number(folder, "SELECT count(*) FROM test.reading"), 25, "tables stay");
}

/// A pipeline whose rows take a word from a table of another, which takes its own from a third.
#[test]
fn what_looks_up_a_table_is_run_again_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("pipes")).unwrap();
    append(folder, 1, 20);
    let base = pipeline("type = \"files\"\npath = \"../readings.jsonl\"");
    let step = |name: &str, lookup: &str, column: &str| {
        let enrich = format!(
            "[transforms.joined]\ntype = \"enrich\"\ninputs = [\"clean\"]\n\
             table = {{ query = \"SELECT id, {column} FROM {lookup}\", columns = {{ id = \"int64\", {column} = \"int64\" }} }}\n\
             on = {{ id = \"id\" }}\ncolumns = {{ {name} = \"{column}\" }}\n\n[sinks"
        );
        base.replace("name = \"ledger\"", &format!("name = \"{name}\"")).replace("[sinks", &enrich).replace(
            "inputs = [\"clean\"]\ntable = \"test.reading\"",
            &format!("inputs = [\"joined\"]\ntable = \"test.{name}\""),
        )
    };
    // In an order of names that is not the order of dependence.
    fs::write(folder.join("pipes/c.toml"), base.replace("SELECT id,", "SELECT id, id * 10 AS word,"))
        .unwrap();
    fs::write(folder.join("pipes/b.toml"), step("second", "test.reading", "word")).unwrap();
    fs::write(folder.join("pipes/a.toml"), step("first", "test.second", "second")).unwrap();
    for file in ["c", "b", "a"] {
        // The tables that are looked up must be there first.
        succeed(folder, &["run", "--once", "--no-progress", &format!("pipes/{file}.toml")]);
    }
    succeed(folder, &["apply", "pipes"]);
    let sum = |table: &str, column: &str| number(folder, &format!("SELECT sum({column}) FROM test.{table}"));
    assert_eq!(
        (sum("reading", "word"), sum("second", "second"), sum("first", "first")),
        (2_100, 2_100, 2_100)
    );

    let corrected = base.replace("SELECT id,", "SELECT id, id * 100 AS word,");
    fs::write(folder.join("pipes/c.toml"), corrected).unwrap();
    let told = succeed(folder, &["reprocess", "pipes/c.toml", "--downstream", "--no-progress"]);
    let at = |name: &str| told.find(&format!("then: {name}")).unwrap_or_else(|| panic!("{name} in {told}"));
    assert!(at("second") < at("first"), "{told}");
    assert_eq!(
        (sum("reading", "word"), sum("second", "second"), sum("first", "first")),
        (21_000, 21_000, 21_000)
    );
}

const METER: &str = r#"
name = "meter"
description = "A meter and its last reading."
key = "id"
[telemetry]
table = "test.reading"
[properties.id]
type = "int64"
description = "The meter."
[properties.sequence]
type = "int64"
unit = "readings"
column = "_sequence"
description = "The place of its message in the log."
"#;

#[test]
fn a_twin_model_that_means_something_else_needs_a_higher_version() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("pipes")).unwrap();
    fs::create_dir_all(folder.join("schemas/twins")).unwrap();
    // The shipped scenarios are about the shipped models.
    fs::create_dir(folder.join("scenarios")).unwrap();
    append(folder, 1, 40);
    fs::write(folder.join("pipes/ledger.toml"), pipeline("type = \"files\"\npath = \"../readings.jsonl\""))
        .unwrap();
    succeed(folder, &["run", "--once", "--no-progress", "pipes/ledger.toml"]);
    let model = |text: &str| fs::write(folder.join("schemas/twins/meter.toml"), text).unwrap();
    let versions = || number(folder, "SELECT count(*) FROM meta.twin_versions");

    model(METER);
    assert!(succeed(folder, &["plan", "pipes"]).contains("+ twin model meter   version 1"));
    succeed(folder, &["apply", "pipes"]);
    for command in ["plan", "apply"] {
        assert!(succeed(folder, &[command, "pipes"]).starts_with("no changes"), "{command}");
    }
    assert_eq!(versions(), 1);

    // Something more needs no version, and says which rows are without it.
    let more = format!("{METER}[properties.ts]\ntype = \"timestamp\"\ndescription = \"When.\"\n");
    model(&more);
    let told = succeed(folder, &["apply", "pipes"]);
    for expected in
        ["~ twin model meter   version 1", "property ts is new: timestamp", "test.reading: 40 rows"]
    {
        assert!(told.contains(expected), "'{expected}' is missing in {told}");
    }
    assert_eq!(versions(), 2);

    // Another unit and another name are another meaning.
    let other = more
        .replace("unit = \"readings\"", "unit = \"messages\"")
        .replace("[properties.ts]", "[properties.at]\ncolumn = \"ts\"");
    model(&other);
    for command in ["plan", "apply"] {
        let refused = twinlake(folder, &[command, "pipes"]);
        assert_eq!(refused.status.code(), Some(1), "{command}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        for expected in ["unit messages was readings", "property at is the new name of ts", "say version = 2"]
        {
            assert!(said.contains(expected), "'{expected}' is missing in {said}");
        }
    }
    assert_eq!(versions(), 2, "nothing of a refused plan is done");
    model(&other.replace("key = \"id\"", "version = 2\nkey = \"id\""));
    let told = succeed(folder, &["apply", "pipes"]);
    assert!(told.contains("version 1 to 2") && told.contains("! values of _sequence"), "{told}");
    assert!(succeed(folder, &["plan", "pipes"]).starts_with("no changes"));
    assert_eq!(number(folder, "SELECT count(at) FROM twin.meter"), 40, "the past under its new name");
    assert_eq!(number(folder, "SELECT max(version) FROM meta.twin_versions WHERE model = 'meter'"), 2);

    fs::remove_file(folder.join("schemas/twins/meter.toml")).unwrap();
    assert!(succeed(folder, &["plan", "pipes"]).contains("- twin model meter"));
    succeed(folder, &["apply", "pipes"]);
    assert!(succeed(folder, &["plan", "pipes"]).starts_with("no changes"));
}
