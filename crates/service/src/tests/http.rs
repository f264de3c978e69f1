//! The HTTP door, asked by an HTTP client.

use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use serde_json::{Value, json};

use super::Town;

fn url(town: &Town, path: &str) -> String {
    format!("http://{}{path}", town.running.http_addr())
}

async fn get(town: &Town, path: &str) -> (u16, Value) {
    let response = reqwest::get(url(town, path)).await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

async fn ask(town: &Town, body: Value) -> (u16, Value) {
    let response = reqwest::Client::new().post(url(town, "/v1/sql")).json(&body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_answers_in_json_with_columns_rows_and_geojson() {
    let town = Town::open().await;
    let sql = "SELECT vehicle_id, ts, speed_mps, on_time, geom FROM traffic.vehicle_position ORDER BY ts";
    let (status, answer) = ask(&town, json!({ "sql": sql })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["columns"],
        json!([
            { "name": "vehicle_id", "type": "Utf8" },
            { "name": "ts", "type": "Timestamp(µs, \"UTC\")" },
            { "name": "speed_mps", "type": "Float64" },
            { "name": "on_time", "type": "Boolean" },
            { "name": "geom", "type": "geometry", "crs": "OGC:CRS84" }
        ])
    );
    assert_eq!(
        answer["rows"],
        json!([
            ["22/1095", "2018-10-09T04:32:50Z", 5.5, true, { "type": "Point", "coordinates": [24.94, 60.17] }],
            ["40/Hämeentie 1", "2018-10-09T04:32:55Z", null, null, null],
            ["22/1095", "2018-10-09T04:33:10Z", 7.25, false, { "type": "Point", "coordinates": [24.95, 60.18] }]
        ])
    );
    assert_eq!(answer["row_count"], 3);
    let empty = ask(&town, json!({ "sql": "SELECT 1 AS a WHERE false" })).await;
    assert_eq!(
        empty,
        (200, json!({ "columns": [{ "name": "a", "type": "Int64" }], "rows": [], "row_count": 0 }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_answers_as_an_arrow_stream_of_many_batches() {
    let town = Town::open().await;
    let response = reqwest::Client::new()
        .post(url(&town, "/v1/sql"))
        .header(ACCEPT, "application/vnd.apache.arrow.stream")
        .header(CONTENT_TYPE, "text/plain")
        .body("SELECT value FROM generate_series(1, 100000)")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.apache.arrow.stream");
    let bytes = response.bytes().await.unwrap();
    let reader = StreamReader::try_new(bytes.as_ref(), None).unwrap();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    assert!(batches.len() > 1);
    let sum: i64 =
        batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).sum();
    assert_eq!(sum, 5_000_050_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_tenses_reach_the_session() {
    let town = Town::open().await;
    let speed = |as_of: Value, scenario: Value| {
        let body = json!({
            "sql": "SELECT speed_mps FROM twin.vehicle WHERE vehicle_id = '22/1095'",
            "as_of": as_of, "scenario": scenario
        });
        let town = &town;
        async move { ask(town, body).await.1["rows"].clone() }
    };
    assert_eq!(speed(Value::Null, Value::Null).await, json!([[7.25]]));
    assert_eq!(speed(json!("2018-10-09T04:32:53Z"), Value::Null).await, json!([[5.5]]));
    assert_eq!(speed(Value::Null, json!("standstill")).await, json!([[0.0]]));
    let both = "SELECT t.speed_mps - n.speed_mps FROM twin.vehicle n JOIN \
                twin_at('vehicle', TIMESTAMP '2018-10-09T04:32:53Z', scenario => 'standstill') t \
                ON t.vehicle_id = n.vehicle_id WHERE n.vehicle_id = '22/1095'";
    assert_eq!(ask(&town, json!({ "sql": both })).await.1["rows"], json!([[-1.75]]));
    let (status, answer) =
        ask(&town, json!({ "sql": "SELECT * FROM twin.vehicle", "as_of": "yesterday" })).await;
    assert_eq!(
        (status, answer["detail"].as_str().unwrap().contains("'yesterday' is not a time stamp")),
        (400, true)
    );
    let (status, answer) =
        ask(&town, json!({ "sql": "SELECT * FROM twin.vehicle", "scenario": "standstil" })).await;
    assert_eq!(status, 404);
    assert_eq!(answer["detail"], "scenario 'standstil' not found, did you mean 'standstill'?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_and_never_writes_nor_opens_files() {
    let town = Town::open().await;
    for sql in [
        "CREATE TABLE a AS SELECT 1",
        "INSERT INTO traffic.vehicle_position (vehicle_id) VALUES ('x')",
        "DROP TABLE traffic.vehicle_position",
        "COPY (SELECT 1) TO '/tmp/twinlake-service-test.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.runtime.memory_limit = '100G'",
        "SELECT * FROM '/etc/passwd'",
    ] {
        let (status, answer) = ask(&town, json!({ "sql": sql })).await;
        assert!((400..500).contains(&status), "{sql}: {answer}");
    }
    let count = ask(&town, json!({ "sql": "SELECT count(*) FROM traffic.vehicle_position" })).await;
    assert_eq!(count.1["rows"], json!([[3]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_problem_documents() {
    let town = Town::open_with(|settings| settings.body_limit_bytes = 1000).await;
    let client = reqwest::Client::new();
    let send = |content_type: &'static str, body: String| {
        let request = client.post(url(&town, "/v1/sql")).header(CONTENT_TYPE, content_type).body(body);
        async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            let status = response.status().as_u16();
            let problem: Value = response.json().await.unwrap();
            assert_eq!(problem["status"], status);
            assert!(problem["type"].as_str().unwrap().starts_with("urn:twinlake:problem:"), "{problem}");
            (status, problem["detail"].as_str().unwrap().to_owned())
        }
    };
    let (status, detail) = send("text/plain", "SELECT * FORM x".to_owned()).await;
    assert_eq!(status, 400, "{detail}");
    let (status, detail) = send("text/plain", "SELECT * FROM traffic.vehicle_positon".to_owned()).await;
    assert_eq!(
        (status, detail.as_str()),
        (404, "table 'traffic.vehicle_positon' not found, did you mean 'traffic.vehicle_position'?")
    );
    assert_eq!(send("application/json", "{\"sql\": 1}".to_owned()).await.0, 400);
    assert_eq!(send("image/png", String::new()).await.0, 415);
    assert_eq!(send("text/plain", format!("SELECT '{}'", "x".repeat(2000))).await.0, 413);
    let (status, problem) = get(&town, "/v1/twin").await;
    assert_eq!(
        (status, &problem["detail"]),
        (404, &json!("address '/v1/twin' not found, did you mean '/v1/twins'?"))
    );
    let (status, problem) = get(&town, "/v1/sql").await;
    assert_eq!((status, &problem["type"]), (405, &json!("urn:twinlake:problem:method-not-allowed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_query_is_ended() {
    let town = Town::open_with(|settings| settings.query_timeout = Duration::from_secs(2)).await;
    let endless = "SELECT count(*) FROM generate_series(1, 20000) a, generate_series(1, 100000000) b \
                   WHERE a.value * b.value % 7 = 3";
    let (status, problem) = ask(&town, json!({ "sql": endless })).await;
    assert_eq!((status, &problem["type"]), (504, &json!("urn:twinlake:problem:timeout")), "{problem}");
    assert_eq!(ask(&town, json!({ "sql": "SELECT 1" })).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fails_on_its_way_is_broken_off() {
    let town = Town::open().await;
    // Some ten megabytes come before the row that cannot be computed: more than the server holds back.
    let sql = "SELECT repeat('x', 100), 10 / (90000 - value) FROM generate_series(1, 100000)";
    let response =
        reqwest::Client::new().post(url(&town, "/v1/sql")).json(&json!({ "sql": sql })).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.is_err(), "a truncated answer must not look complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_are_listed_and_found_by_key() {
    let town = Town::open().await;
    let (status, models) = get(&town, "/v1/twins").await;
    assert_eq!(status, 200);
    let vehicle = models["models"].as_array().unwrap().iter().find(|m| m["name"] == "vehicle").unwrap();
    assert_eq!((&vehicle["key"], &vehicle["address"]), (&json!("vehicle_id"), &json!("/v1/twins/vehicle")));
    let speed = vehicle["columns"].as_array().unwrap().iter().find(|c| c["name"] == "speed_mps").unwrap();
    assert_eq!(
        *speed,
        json!({"name": "speed_mps", "type": "Float64", "unit": "m/s", "description": "Speed."})
    );

    let (status, states) = get(&town, "/v1/twins/vehicle").await;
    assert_eq!(
        (status, &states["row_count"], &states["model"]),
        (200, &json!(2), &json!("vehicle")),
        "{states}"
    );
    assert_eq!(states["rows"][0]["vehicle_id"], "22/1095");
    assert_eq!(states["rows"][0]["origin"], "observed");
    let (_, first) = get(&town, "/v1/twins/vehicle?limit=1&as_of=2018-10-09T04:32:53Z").await;
    assert_eq!((&first["row_count"], &first["as_of"]), (&json!(1), &json!("2018-10-09T04:32:53Z")));
    assert_eq!(first["rows"][0]["speed_mps"], 5.5);

    for path in ["/v1/twins/vehicle/22/1095", "/v1/twins/vehicle/22%2F1095"] {
        let (status, one) = get(&town, path).await;
        assert_eq!((status, &one["key"]), (200, &json!("22/1095")), "{one}");
        assert_eq!(one["state"]["geom"], json!({ "type": "Point", "coordinates": [24.95, 60.18] }));
        assert_eq!(one["state"]["valid_time"], "2018-10-09T04:33:10Z");
    }
    let (status, one) = get(&town, "/v1/twins/vehicle/40%2FH%C3%A4meentie%201").await;
    assert_eq!((status, &one["state"]["speed_mps"]), (200, &Value::Null));
    let (_, one) = get(&town, "/v1/twins/vehicle/22/1095?scenario=standstill").await;
    assert_eq!((&one["state"]["speed_mps"], &one["state"]["origin"]), (&json!(0.0), &json!("simulated")));
    let (status, one) = get(&town, "/v1/twins/road_segment/1").await;
    assert_eq!((status, &one["state"]["name"]), (200, &json!("Bridge")));
}

#[tokio::test(flavor = "multi_thread")]
async fn from_memory_and_from_the_lake_comes_the_same_answer() {
    let town = Town::open().await;
    let paths = [
        "/v1/twins/vehicle/22/1095",
        "/v1/twins/vehicle/40%2FH%C3%A4meentie%201",
        "/v1/twins/vehicle/22/1095?scenario=standstill",
        "/v1/twins/vehicle/22/1095?as_of=2018-10-09T04:32:53Z",
        "/v1/twins/vehicle/22/1096",
        "/v1/twins/road_segment/1",
        "/v1/twins/road_segment/first",
    ];
    let mut before = Vec::new();
    for path in paths {
        before.push(get(&town, path).await);
    }
    town.twins.keep_present().unwrap();
    let (sql, direct) =
        (before[0].1["state"].clone(), town.twins.present_of("vehicle", "22/1095").await.unwrap());
    assert!(direct.is_some_and(|rows| rows.num_rows() == 1), "it is read from memory: {sql}");
    for (path, before) in paths.iter().zip(before) {
        assert_eq!(get(&town, path).await, before, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_streamed_and_acknowledged() {
    let town = Town::open().await;
    let (status, problem) = get(&town, "/v1/events").await;
    assert_eq!(
        (status, problem["help"].as_str().is_some_and(|help| help.contains("schemas/events"))),
        (404, true),
        "{problem}"
    );
    let rule = r#"
name = "fast"
description = "A vehicle is fast."
twin = "vehicle"
raise_when = "speed_mps > 7"
"#;
    let events = town.twins.watch(vec![("fast.toml".to_owned(), rule.to_owned())], "test").await.unwrap();
    while events.open().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut stream = reqwest::get(url(&town, "/v1/events/stream")).await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let (_, open) = get(&town, "/v1/events").await;
    assert_eq!(
        (&open["events"][0]["id"], &open["events"][0]["change"]),
        (&json!("22/1095"), &json!("raised"))
    );
    let event = open["events"][0]["event_id"].as_str().unwrap().to_owned();
    let client = reqwest::Client::new();
    let said = client
        .post(url(&town, &format!("/v1/events/{event}/acknowledge")))
        .json(&json!({ "who": "Aino" }))
        .send()
        .await
        .unwrap();
    assert_eq!(said.status(), 200);
    let mut told = String::new();
    while !told.contains("\n\n") {
        told += &String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap());
    }
    assert!(
        told.contains("event: acknowledged") && told.contains("\"who\":\"Aino\"") && told.contains(&event),
        "{told}"
    );
    let unknown = client.post(url(&town, "/v1/events/none/acknowledge")).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_twins_are_not_found_with_a_suggestion() {
    let town = Town::open().await;
    for (path, status, detail) in [
        ("/v1/twins/vehicel", 404, "twin model 'vehicel' not found, did you mean 'vehicle'?"),
        (
            "/v1/twins/vehicle/22/1096",
            404,
            "twin 'vehicle/22/1096' not found, did you mean 'vehicle/22/1095'?",
        ),
        ("/v1/twins/road_segment/first", 404, "twin 'road_segment/first' not found"),
        ("/v1/twins/vehicle?limit=0", 400, "limit must be from 1 to 1000000"),
        (
            "/v1/twins/vehicle?scenario=standstil",
            404,
            "scenario 'standstil' not found, did you mean 'standstill'?",
        ),
    ] {
        let (found, problem) = get(&town, path).await;
        assert_eq!((found, problem["detail"].as_str().unwrap()), (status, detail), "{path}");
    }
    assert_eq!(get(&town, "/v1/twins/vehicle?asof=x").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_is_asked_for_followed_and_read() {
    let town = Town::open().await;
    let client = reqwest::Client::new();
    let ask_for = |body: Value| {
        let request = client.post(url(&town, "/v1/simulations")).json(&body);
        async move { request.send().await.unwrap() }
    };
    let taken = ask_for(json!({ "operator": "traffic_assignment", "seed": 1 })).await;
    assert_eq!(taken.status(), 202);
    let location = taken.headers()[LOCATION].to_str().unwrap().to_owned();
    let run: Value = taken.json().await.unwrap();
    assert_eq!(location, format!("/v1/simulations/{}", run["run_id"].as_str().unwrap()));
    let mut run = run;
    for _ in 0..600 {
        run = get(&town, &location).await.1;
        if !matches!(run["status"].as_str(), Some("queued" | "running")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(run["summary"]["converged"], true, "{run}");
    let (status, result) = get(&town, run["result"].as_str().unwrap()).await;
    assert_eq!(status, 200, "{result}");
    assert_eq!((&result["row_count"], &run["rows"]), (&json!(8), &json!(8)));
    assert_eq!(result["summary"]["converged"], true);
    let again: Value =
        ask_for(json!({ "operator": "traffic_assignment", "seed": 1 })).await.json().await.unwrap();
    assert_eq!(again["run_id"], run["run_id"], "an equal run is the same run");

    assert_eq!(ask_for(json!({ "operator": "traffic_assignmnt" })).await.status(), 404);
    let unknown = json!({ "operator": "traffic_assignment", "parameters": { "max_iteration": 1 } });
    assert_eq!(ask_for(unknown).await.status(), 400);
    assert_eq!(ask_for(json!({ "operator": "traffic_assignment", "sede": 1 })).await.status(), 400);
    assert_eq!(get(&town, "/v1/simulations/none").await.0, 404);
    assert_eq!(get(&town, "/v1/simulations/none/result").await.0, 404);
    let text = client.post(url(&town, "/v1/simulations")).body("{}").send().await.unwrap();
    assert_eq!(text.status(), 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_metrics_and_pages() {
    let town = Town::open().await;
    assert_eq!(get(&town, "/healthz").await.1["status"], "ok");
    assert_eq!(get(&town, "/readyz").await, (200, json!({ "ready": true, "conditions": {} })));
    town.running.readiness().set("pipelines", false);
    assert_eq!(
        get(&town, "/readyz").await,
        (503, json!({ "ready": false, "conditions": { "pipelines": false } }))
    );
    town.running.readiness().set("pipelines", true);
    assert_eq!(get(&town, "/readyz").await.0, 200);
    town.running.metrics().report("pipeline_rows", "Rows landed", || vec![(Vec::new(), 7.0)]);
    get(&town, "/v1/twins/vehicle/22/1095").await;
    get(&town, "/v1/nothing").await;
    let text = reqwest::get(url(&town, "/metrics")).await.unwrap().text().await.unwrap();
    for line in [
        r#"twinlake_http_requests_total{method="GET",route="/v1/twins/{model}/{*key}",status="200"} 1"#,
        r#"twinlake_http_requests_total{method="GET",route="unknown",status="404"} 1"#,
        r#"twinlake_queries_total{door="http",outcome="ok"} 1"#,
        "twinlake_pipeline_rows 7.0",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }
    let (status, document) = get(&town, "/openapi.json").await;
    assert_eq!((status, document["openapi"].as_str().map(|version| &version[..2])), (200, Some("3.")));
    let page = reqwest::get(url(&town, "/")).await.unwrap().text().await.unwrap();
    assert!(page.contains("/v1/twins") && page.contains(&town.running.postgres_addr().port().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_sends_no_statement() {
    let town =
        Town::open_with(|settings| settings.cors_origins = vec!["https://map.example".to_owned()]).await;
    let own = url(&town, "").trim_end_matches('/').to_owned();
    for (origin, expected) in [
        (None, 200),
        (Some("https://map.example"), 200),
        (Some(own.as_str()), 200),
        (Some("https://other.example"), 403),
        (Some("null"), 403),
    ] {
        let mut request = reqwest::Client::new().post(url(&town, "/v1/sql")).body("SELECT 1 AS one");
        request = request.header("content-type", "text/plain");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), expected, "{origin:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_origins_are_shut_out_unless_named() {
    let from = |town: &Town| {
        let request =
            reqwest::Client::new().get(url(town, "/healthz")).header("origin", "https://map.example");
        async move { request.send().await.unwrap().headers().get("access-control-allow-origin").cloned() }
    };
    assert_eq!(from(&Town::open().await).await, None);
    let open =
        Town::open_with(|settings| settings.cors_origins = vec!["https://map.example".to_owned()]).await;
    assert_eq!(from(&open).await.unwrap(), "https://map.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_says_when_to_come_back() {
    let town = Town::open_with(|settings| settings.concurrent_queries = 1).await;
    let client = super::postgres::connect(&town, "").await;
    client
        .batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT value FROM generate_series(1, 100000)")
        .await
        .unwrap();
    let response = reqwest::Client::new()
        .post(url(&town, "/v1/sql"))
        .json(&json!({ "sql": "SELECT 1" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(RETRY_AFTER));
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ask(&town, json!({ "sql": "SELECT 1" })).await.0, 200);
}
