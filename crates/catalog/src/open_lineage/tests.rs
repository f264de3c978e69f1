//! Events against a small server that holds them to the published schema's shape.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value as Json, json};
use twinlake_contracts::TableName;

use super::event::{columns_of, uuid};
use super::{Dataset, EventKind, EventSender, RunEvent};
use crate::lineage::LineageEdge;

/// What `OpenLineage.json` 2-0-2 and the facets' schemas require.
fn problems(event: &Json) -> Vec<String> {
    let mut found = Vec::new();
    let mut need = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let text = |value: &Json| value.as_str().is_some_and(|text| !text.is_empty());
    let is_uri = |value: &Json| value.as_str().is_some_and(|text| url::Url::parse(text).is_ok());
    need(
        event["eventTime"].as_str().is_some_and(|at| twinlake_contracts::parse_us(at).is_some()),
        "eventTime",
    );
    need(
        ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]
            .iter()
            .any(|kind| event["eventType"] == *kind),
        "eventType",
    );
    need(is_uri(&event["producer"]) && is_uri(&event["schemaURL"]), "producer and schemaURL are URIs");
    need(event["schemaURL"].as_str().is_some_and(|url| url.contains("2-0-2")), "version");
    let id = event["run"]["runId"].as_str().unwrap_or_default();
    need(id.split('-').map(str::len).eq([8, 4, 4, 4, 12]), "runId is a UUID");
    need(text(&event["job"]["namespace"]) && text(&event["job"]["name"]), "job");
    let mut facets: Vec<&Json> = Vec::new();
    facets.extend(event["run"]["facets"].as_object().into_iter().flat_map(|own| own.values()));
    facets.extend(event["job"]["facets"].as_object().into_iter().flat_map(|own| own.values()));
    for (list, is_output) in [("inputs", false), ("outputs", true)] {
        need(event[list].is_array(), list);
        for dataset in event[list].as_array().into_iter().flatten() {
            need(text(&dataset["namespace"]) && text(&dataset["name"]), "dataset");
            facets.extend(dataset["facets"].as_object().into_iter().flat_map(|own| own.values()));
            for field in dataset["facets"]["schema"]["fields"].as_array().into_iter().flatten() {
                need(text(&field["name"]), "schema.fields.name");
            }
            let columns = &dataset["facets"]["columnLineage"];
            if columns.is_object() {
                need(columns["fields"].is_object(), "columnLineage.fields");
                let fields = columns["fields"].as_object().into_iter().flat_map(|own| own.values());
                let inputs =
                    fields.flat_map(|field| field["inputFields"].as_array().cloned().unwrap_or_default());
                for input in inputs.chain(columns["dataset"].as_array().cloned().unwrap_or_default()) {
                    need(["namespace", "name", "field"].iter().all(|key| text(&input[key])), "inputFields");
                    for own in input["transformations"].as_array().into_iter().flatten() {
                        need(
                            ["DIRECT", "INDIRECT"].iter().any(|kind| own["type"] == *kind),
                            "transformation",
                        );
                    }
                }
            }
            let statistics = &dataset["outputFacets"]["outputStatistics"];
            if statistics.is_object() {
                need(
                    is_output && statistics["rowCount"].is_u64() && statistics["size"].is_u64(),
                    "outputStatistics",
                );
                facets.push(statistics);
            }
        }
    }
    for own in facets {
        need(is_uri(&own["_producer"]) && is_uri(&own["_schemaURL"]), "facet");
    }
    found
}

#[derive(Clone, Default)]
struct Server {
    taken: Arc<Mutex<Vec<Json>>>,
    refuse_first: Arc<Mutex<u32>>,
    answer: Option<StatusCode>,
}

async fn take(State(server): State<Server>, body: axum::Json<Json>) -> StatusCode {
    {
        let mut left = server.refuse_first.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
    }
    if let Some(answer) = server.answer {
        return answer;
    }
    let wrong = problems(&body.0);
    assert!(wrong.is_empty(), "{wrong:?} in {}", body.0);
    server.taken.lock().unwrap().push(body.0);
    StatusCode::CREATED
}

async fn serve(server: Server) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/api/v1/lineage", post(take)).with_state(server);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn edge(
    input: &str,
    input_column: &str,
    output: &str,
    output_column: Option<&str>,
    dependency: &str,
) -> LineageEdge {
    LineageEdge {
        pipeline: "p".into(),
        step: "s".into(),
        kind: "sql".into(),
        input: input.into(),
        output: output.into(),
        input_column: Some(input_column.into()),
        output_column: output_column.map(str::to_owned),
        dependency: Some(dependency.into()),
        expression: None,
    }
}

fn event(kind: EventKind) -> Json {
    let edges = [
        edge("raw.a", "payload", "p/a", Some("x"), "computed"),
        edge("p/a", "x", "t.b", Some("speed"), "direct"),
        edge("p/a", "x", "t.b", None, "filter"),
        edge("t.stop", "name", "t.b", Some("stop"), "direct"),
    ];
    let table = TableName::parse("t.b").unwrap();
    let schema = Schema::new(vec![Field::new("speed", DataType::Float64, true)]);
    let output = Dataset {
        schema: Some(Arc::new(schema)),
        description: "Readings".into(),
        owner: "mobility".into(),
        columns: columns_of(&edges, "t.b"),
        statistics: (kind == EventKind::Complete).then_some((10, 2048)),
        ..Dataset::table("s3://lake/city/", &table)
    };
    RunEvent {
        kind,
        at_us: 1_700_000_000_000_000,
        run_id: "p-1".into(),
        namespace: "twinlake".into(),
        job: "p".into(),
        processing: "STREAMING",
        job_type: "PIPELINE",
        inputs: vec![
            Dataset::source("mqtt_broker:127.0.0.1:1883", "hfp"),
            Dataset::source("data/map.osm.pbf", "links"),
        ],
        outputs: vec![output],
        error: (kind == EventKind::Fail).then(|| "the disk is full".to_owned()),
    }
    .json("s3://lake/city/")
}

#[test]
fn events_have_the_shape_of_the_specification() {
    for kind in [EventKind::Start, EventKind::Complete, EventKind::Abort, EventKind::Fail] {
        let event = event(kind);
        assert_eq!(problems(&event), Vec::<String>::new(), "{event}");
    }
    let done = event(EventKind::Complete);
    let output = &done["outputs"][0];
    assert_eq!((&output["namespace"], &output["name"]), (&json!("s3://lake"), &json!("city/t/b")));
    assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], 10);
    let columns = &output["facets"]["columnLineage"];
    let speed = &columns["fields"]["speed"]["inputFields"][0];
    assert_eq!((&speed["name"], &speed["field"]), (&json!("city/raw/a"), &json!("payload")));
    assert_eq!(speed["transformations"][0]["subtype"], "TRANSFORMATION");
    assert_eq!(columns["fields"]["stop"]["inputFields"][0]["transformations"][0]["subtype"], "IDENTITY");
    assert_eq!(columns["dataset"][0]["transformations"][0]["subtype"], "FILTER");
    assert_eq!(done["inputs"][0]["namespace"], "mqtt_broker://127.0.0.1:1883");
    assert_eq!(event(EventKind::Fail)["run"]["facets"]["errorMessage"]["message"], "the disk is full");
    assert_eq!(uuid("p-1"), uuid("p-1"));
    // The check itself can fail.
    let mut broken = event(EventKind::Start);
    broken["run"]["runId"] = json!("1");
    broken["job"] = json!({});
    assert_eq!(problems(&broken), ["runId is a UUID", "job"]);
}

#[tokio::test]
async fn events_arrive_also_when_the_other_side_stumbles() {
    let server = Server { refuse_first: Arc::new(Mutex::new(2)), ..Server::default() };
    let sender = EventSender::start(&serve(server.clone()).await, Some("key".into())).unwrap();
    sender.send(event(EventKind::Start));
    sender.send(event(EventKind::Complete));
    sender.close().await;
    assert_eq!((sender.counts().sent, sender.counts().dropped), (2, 0));
    let taken = server.taken.lock().unwrap();
    assert_eq!((&taken[0]["eventType"], &taken[1]["eventType"]), (&json!("START"), &json!("COMPLETE")));
}

#[tokio::test]
async fn a_run_is_never_held_up() {
    // Nobody listens: handing in is done at once, what does not fit into the queue is counted.
    let sender = EventSender::start("http://127.0.0.1:9", None).unwrap();
    let started = std::time::Instant::now();
    (0..1000).for_each(|_| sender.send(event(EventKind::Start)));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(sender.counts().dropped >= 700, "{:?}", sender.counts());
    sender.close().await;
    assert_eq!(sender.counts(), super::SenderCounts { sent: 0, dropped: 1000 });
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again() {
    let server = Server { answer: Some(StatusCode::UNPROCESSABLE_ENTITY), ..Server::default() };
    let sender = EventSender::start(&serve(server).await, None).unwrap();
    sender.send(event(EventKind::Start));
    sender.close().await;
    assert_eq!((sender.counts().sent, sender.counts().dropped), (0, 1));
    assert!(EventSender::start("ftp://x", None).is_err());
    assert!(EventSender::start("nowhere", None).unwrap_err().to_string().contains("help"));
}
