//! What people read: mistakes with file, line, text and a way out; pictures; the result of tests.

use std::path::Path;
use std::sync::Arc;

use insta::assert_snapshot;

use crate::cases::run_tests;
use crate::fakes::{components, engine};
use crate::lineage::lineage;
use crate::plan::{Plan, validate};
use crate::schema::pipeline_schema;

const GOOD: &str = r#"name = "example"

[sources.readings]
type = "fake"
url = "${BROKER:-fake://here}"
decoder = { type = "fake" }

[transforms.positive]
type = "sql"
inputs = ["readings"]
query = """
SELECT *
FROM input
WHERE value > 0
"""

[transforms.clean]
type = "clean"
inputs = ["positive"]
key = ["id"]
require = ["value"]
range = { value = [0, 60] }
dedup = { by = ["id", "ts"], within = "10m" }

[sinks.reading]
type = "lake"
inputs = ["clean"]
table = "plant.reading"
"#;

async fn found(text: &str) -> String {
    let (_, found) = validate(text, Some(Path::new("plant.toml")), &components(), &engine()).await;
    found.to_string()
}

async fn good(text: &str) -> Arc<Plan> {
    let (plan, found) = validate(text, Some(Path::new("plant.toml")), &components(), &engine()).await;
    Arc::new(plan.unwrap_or_else(|| panic!("{found}")))
}

#[tokio::test]
async fn a_good_file_has_no_findings() {
    assert_eq!(found(GOOD).await, "");
}

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let text = r#"nme = "example"
name = "Example"

[sources.readings]
type = "fake"
ulr = "fake://here"
count = "many"
decoder = { type = "fake", rot = "/VP" }

[sources.others]
type = "fakee"
decoder = { type = "fake" }

[sources.third]
type = "fake"
url = "${TWINLAKE_NO_SUCH_VARIABLE}"

[transforms.clean]
type = "clean"
inputs = ["redings"]
reqire = ["value"]

[sinks.reading]
type = "lake"
inputs = ["clean"]
table = "plant reading"

[sinks.raw]
type = "lake"
inputs = ["clean"]
table = "raw.reading"
"#;
    assert_snapshot!(found(text).await);
}

#[tokio::test]
async fn mistakes_in_sql_are_shown_in_the_query() {
    let unknown = found(&GOOD.replace("WHERE value", "WHERE valeu")).await;
    let syntax = found(&GOOD.replace("SELECT *\nFROM", "--\nSELCT *\nFROM")).await;
    let grouped = found(&GOOD.replace("WHERE value > 0", "GROUP BY id")).await;
    assert_snapshot!([unknown, syntax, grouped].join("\n\n"));
}

#[tokio::test]
async fn mistakes_of_clean_are_shown_at_their_words() {
    let column = found(&GOOD.replace("require = [\"value\"]", "require = [\"valu\"]")).await;
    let range = found(&GOOD.replace("[0, 60]", "[60, 0]")).await;
    let kind = found(&GOOD.replace("value = [0, 60]", "id = [0, 60]")).await;
    let within = found(&GOOD.replace("\"10m\"", "\"10 minutes\"")).await;
    let nested = found(&GOOD.replace("within", "witin")).await;
    assert_snapshot!([column, range, kind, within, nested].join("\n\n"));
}

#[tokio::test]
async fn mistakes_in_the_graph() {
    let cycle = found(&GOOD.replace("inputs = [\"readings\"]", "inputs = [\"clean\"]")).await;
    let unused = found(&GOOD.replace("inputs = [\"clean\"]", "inputs = [\"readings\"]")).await;
    let twice = found(&format!(
        "{GOOD}\n[sinks.again]\ntype = \"lake\"\ninputs = [\"positive\"]\ntable = \"plant.reading\"\n"
    ))
    .await;
    let replace = found(&GOOD.replace("table = ", "mode = \"replace\"\ntable = ")).await;
    let syntax = found("name = \"a\"\n[sources\n").await;
    let empty = found("name = \"a\"\n").await;
    let case = found(&format!("{GOOD}\n[[tests]]\nname = \"x\"\ninputs = [{{ source = \"reading\" }}]\noutputs = [{{ from = \"claen\", cout = 1 }}]\n")).await;
    assert_snapshot!([cycle, unused, twice, replace, syntax, empty, case].join("\n\n"));
}

#[tokio::test]
async fn pictures_and_lineage() {
    let plan = good(GOOD).await;
    let edges = lineage(&plan.pipeline);
    let edges: Vec<String> = edges
        .iter()
        .map(|edge| format!("{} ({}): {} -> {}", edge.step, edge.kind, edge.input, edge.output))
        .collect();
    assert_snapshot!([plan.pipeline.mermaid(), plan.pipeline.dot(), edges.join("\n")].join("\n"));
}

#[tokio::test]
async fn tests_in_the_file_pass_and_fail_with_a_difference() {
    let tests = r#"
[[tests]]
name = "readings are cleaned"
inputs = [{ source = "readings", messages = [
  { payload = "a,10,1.5", origin = "topic/1", received_at = "2018-10-09T04:32:53Z" },
  { payload = "a,10,1.5" },
  { payload = "b,10," },
  { payload = "c,10,-1" },
  { payload = "bad" },
  { payload = "d,11,99" },
] }]
outputs = [
  { from = "reading", rows = [{ id = "a", ts = "1970-01-01T00:00:10Z", value = 1.5, _sequence = 1, _ingested_at = "2018-10-09T04:32:53Z" }], rejects = ["duplicate", "missing_value", "filtered", "invalid", "out_of_range"] },
  { from = "positive", count = 4, contains = [{ id = "b", value = { null = true } }], rejects = [] },
  { from = "clean", rejects = { duplicate = 1, missing_value = 1, out_of_range = 1 } },
]

[[tests]]
name = "rows may stand for messages"
inputs = [{ source = "readings", rows = [{ id = "a", ts = 1970-01-01T00:00:10Z, value = 1 }] }]
outputs = [{ from = "clean", count = 1 }]

[[tests]]
name = "this one fails"
inputs = [{ source = "readings", messages = [{ payload = "a,10,1.5" }, { payload = "bad" }] }]
outputs = [
  { from = "clean", rows = [{ id = "b", value = 1.5 }, { id = "c" }], count = 3, rejects = ["duplicate"] },
  { from = "reading", contains = [{ id = "b", value = 1.5 }], rejects = { duplicate = 1 } },
]
"#;
    let plan = good(&format!("{GOOD}{tests}")).await;
    let results = run_tests(&plan, &engine()).await;
    assert!(results[0].passed(), "{}", results[0].failures.join("\n"));
    assert!(results[1].passed(), "{}", results[1].failures.join("\n"));
    assert_snapshot!(results[2].failures.join("\n"));
}

#[tokio::test]
async fn the_schema_knows_every_component_and_key() {
    let schema = pipeline_schema(&components());
    let text = serde_json::to_string_pretty(&schema).unwrap();
    for word in [
        "\"const\": \"fake\"",
        "\"const\": \"sql\"",
        "\"const\": \"clean\"",
        "\"within\"",
        "\"commit_interval_ms\"",
        "\"known_at\"",
        "\"received_at\"",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    // Every reference leads somewhere.
    for part in text.split("\"$ref\": \"").skip(1) {
        let target = part.split('"').next().unwrap().trim_start_matches('#');
        assert!(schema.pointer(target).is_some(), "{target}");
    }
}

#[tokio::test]
async fn what_is_held_back_comes_out_at_the_end_of_a_test() {
    let text = r#"
[transforms.ordered]
type = "late"
inputs = ["clean"]
allowed_lateness = "10s"
order = true

[transforms.minutes]
type = "window"
inputs = ["ordered"]
key = ["id"]
kind = "tumbling"
size = "1m"
aggregates = { rows = { function = "count" }, mean = { function = "mean", column = "value" } }

[sinks.minute]
type = "lake"
inputs = ["minutes"]
table = "plant.minute"

[[tests]]
name = "windows close, the last one at the end"
inputs = [{ source = "readings", messages = [
  { payload = "a,10,1", received_at = "2018-10-09T04:32:53Z" },
  { payload = "a,5,3" },
  { payload = "a,75,5", received_at = "2018-10-09T04:33:53Z" },
  { payload = "a,60,5" },
] }]
outputs = [
  { from = "ordered", rows = [{ value = 3 }, { value = 1 }, { value = 5 }], rejects = ["late"] },
  { from = "minute", rows = [
    { id = "a", window_start = 1970-01-01T00:00:00Z, rows = 2, mean = 2, _ingested_at = "2018-10-09T04:33:53Z" },
    { id = "a", window_start = 1970-01-01T00:01:00Z, rows = 1, mean = 5, _ingested_at = "2018-10-09T04:33:53Z" },
  ] },
]
"#;
    let results = run_tests(&good(&format!("{GOOD}{text}")).await, &engine()).await;
    assert!(results[0].passed(), "{}", results[0].failures.join("\n"));
}

#[tokio::test]
async fn mistakes_of_the_transforms_of_time_are_shown_at_their_words() {
    let settings = r#"
[transforms.ordered]
type = "late"
inputs = ["clean"]

[transforms.spikes]
type = "clean"
inputs = ["clean"]
spike = { value = { window = 1 } }

[transforms.grid]
type = "resample"
inputs = ["clean"]
interval = "1m"
method = "liner"
max_gap = "1h"

[transforms.fences]
type = "geofence"
inputs = ["clean"]
fences = { depot = "POLYGON ((0 0, 1 1))" }
"#;
    let columns = r#"
[transforms.ordered]
type = "late"
inputs = ["clean"]
allowed_lateness = "10s"
key = ["idd"]

[transforms.units]
type = "clean"
inputs = ["clean"]
unit = { value = { from = "kmh", to = "m/s" } }

[transforms.two]
type = "window"
inputs = ["clean", "positive"]
kind = "tumbling"
size = "1m"
aggregates = { rows = { function = "count" } }

[transforms.minutes]
type = "window"
inputs = ["clean"]
kind = "tumbling"
size = "1m"
aggregates = { mean = { function = "mean", column = "valeu" } }

[transforms.named]
type = "enrich"
inputs = ["clean"]
table = { path = "stops.csv", decoder = { type = "fake", rot = "x" } }
on = { id = "id" }
columns = { name = "name" }
"#;
    let mut shown = Vec::new();
    for text in [settings, columns] {
        let all = found(&format!("{GOOD}{text}")).await;
        shown.push(all.split("warning:").next().unwrap_or_default().trim().to_owned());
    }
    assert_snapshot!(shown.join("\n\n"));
}
