//! Scenarios over HTTP, and the same answers in SQL.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde_json::{Value, json};

use super::Town;

const DEMAND: &str = r#"
description = "Twice as many want to travel."
[fork]
at = "2018-10-09T04:33:00Z"
[[overrides]]
twin = "road_segment"
rows = [{ road_segment_id = 1, closed = true }]
[[runs]]
operator = "traffic_assignment"
parameters = { demand_trips_vph = 200.0 }
[ensemble]
members = 2
"#;

fn url(town: &Town, path: &str) -> String {
    format!("http://{}{path}", town.running.http_addr())
}

async fn send(town: &Town, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value, Option<String>) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let request = reqwest::Client::new().request(method, url(town, path)).header(CONTENT_TYPE, kind);
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let location = answer.headers().get(LOCATION).map(|at| at.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null), location)
}

async fn sql(town: &Town, sql: &str) -> Value {
    let body = json!({ "sql": sql }).to_string();
    let (status, answer, _) = send(town, "POST", "/v1/sql", "application/json", &body).await;
    assert_eq!(status, 200, "{sql}: {answer}");
    answer["rows"].clone()
}

const TOML: &str = "application/toml";
const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_is_created_run_and_dropped_and_sql_says_the_same() {
    let town = Town::open().await;
    let at = "/v1/scenarios/rush";
    let (status, made, _) = send(&town, "PUT", at, TOML, DEMAND).await;
    assert_eq!(
        (status, &made["source"], &made["execution_id"]),
        (201, &json!("created"), &Value::Null),
        "{made}"
    );
    assert_eq!(send(&town, "PUT", at, TOML, DEMAND).await.0, 200, "the same again");
    let (_, shown, _) = send(&town, "GET", at, JSON, "").await;
    assert_eq!(shown, made);
    let (_, list, _) = send(&town, "GET", "/v1/scenarios", JSON, "").await;
    let names: Vec<&Value> = list["scenarios"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["rush", "standstill"]);
    // What HTTP says of it, SQL says.
    let told = sql(&town, "SELECT name, description, fork_at, overrides, runs, ensemble, source FROM meta.scenarios WHERE name = 'rush'").await;
    let read = |cell: &Value| serde_json::from_str::<Value>(cell.as_str().unwrap()).unwrap();
    let row = &told[0];
    assert_eq!((&row[0], &row[1], &row[2]), (&shown["name"], &shown["description"], &shown["fork_at"]));
    assert_eq!(
        (read(&row[3]), read(&row[4]), read(&row[5])),
        (shown["overrides"].clone(), shown["runs"].clone(), shown["ensemble"].clone())
    );
    assert_eq!(row[6], shown["source"]);

    let (status, _, _) = send(&town, "POST", &format!("{at}/runs"), "text/plain", "").await;
    assert_eq!(status, 415, "not from another origin");
    let (status, begun, location) = send(&town, "POST", &format!("{at}/runs"), JSON, "{}").await;
    assert_eq!(status, 202, "{begun}");
    let location = location.unwrap();
    assert_eq!(location, format!("{at}/runs/{}", begun["execution_id"].as_str().unwrap()));
    let mut execution = begun;
    for _ in 0..600 {
        execution = send(&town, "GET", &location, JSON, "").await.1;
        if execution["status"] != "running" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(execution["status"], "succeeded", "{execution}");
    let runs = execution["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    let (status, run, _) = send(&town, "GET", runs[2]["address"].as_str().unwrap(), JSON, "").await;
    assert_eq!((status, &run["scenario"], &run["summary"]["member"]), (200, &json!("rush/2"), &json!(2)));
    // Run in SQL, it is answered from the tables that the run over HTTP wrote.
    let again =
        sql(&town, "SELECT member, place, operator, model, run_id, reused FROM scenario_run('rush')").await;
    let expected: Vec<Value> = runs
        .iter()
        .map(|run| json!([run["member"], run["place"], run["operator"], run["model"], run["run_id"], true]))
        .collect();
    assert_eq!(again, Value::Array(expected));
    let state = |scenario: &str| format!("/v1/twins/road_segment?scenario={scenario}&limit=8");
    let (_, http, _) = send(&town, "GET", &state("rush/2"), JSON, "").await;
    let flows = sql(&town, "SELECT flow_vph FROM scenario_ensemble('rush', 'road_segment') WHERE member = 2 ORDER BY road_segment_id").await;
    let shown: Vec<Value> =
        http["rows"].as_array().unwrap().iter().map(|row| json!([row["flow_vph"]])).collect();
    assert_eq!(Value::Array(shown), flows);
    assert_eq!(sql(&town, "SELECT * FROM scenario_create('', name => 'made')").await[0][1], "created");
    assert_eq!(
        send(&town, "GET", "/v1/scenarios/made", JSON, "").await.0,
        200,
        "made in SQL, seen over HTTP"
    );

    assert_eq!(send(&town, "DELETE", at, JSON, "").await.0, 204);
    assert_eq!(send(&town, "GET", at, JSON, "").await.0, 404);
    assert_eq!(sql(&town, "SELECT count(*) FROM meta.scenarios WHERE name = 'rush'").await, json!([[0]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_a_problem_with_its_place() {
    let town = Town::open().await;
    let json = r#"{ "overrides": [
        { "twin": "vehicle", "set": { "speed_mps": 1.0 } } ] }"#;
    assert_eq!(send(&town, "PUT", "/v1/scenarios/slow", JSON, json).await.0, 201);
    for (kind, body, line, shown, help) in [
        (
            TOML,
            DEMAND.replace("road_segment_id", "road_segment"),
            6,
            "no property 'road_segment'",
            "did you mean",
        ),
        (
            TOML,
            DEMAND.replace("[[overrides]]", "[[override]]"),
            5,
            "unknown field",
            "did you mean 'overrides'?",
        ),
        (
            JSON,
            json.replace("speed_mps", "sped_mps"),
            2,
            "no property 'sped_mps'",
            "did you mean 'speed_mps'?",
        ),
        (JSON, json.replace("\"set\"", "\"sets\""), 2, "unknown field", "did you mean 'set'?"),
    ] {
        let (status, problem, _) = send(&town, "PUT", "/v1/scenarios/wrong", kind, &body).await;
        assert_eq!((status, &problem["line"]), (400, &json!(line)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(shown), "{problem}");
        assert!(problem["help"].as_str().unwrap().contains(help), "{problem}");
    }
    for (method, path, kind, body, status, shown) in [
        ("PUT", "/v1/scenarios/a%20b", TOML, "", 400, "cannot be the name"),
        ("PUT", "/v1/scenarios/other", TOML, "name = \"own\"", 400, "calls itself 'own'"),
        ("PUT", "/v1/scenarios/x", "image/png", "", 415, "image/png"),
        ("PUT", "/v1/scenarios/standstill", TOML, "", 400, "standstill.toml"),
        ("DELETE", "/v1/scenarios/standstill", TOML, "", 400, "was not created"),
        ("DELETE", "/v1/scenarios/none", TOML, "", 404, "'none' not found"),
        ("POST", "/v1/scenarios/standstill/runs", JSON, "", 400, "of no operator"),
        ("POST", "/v1/scenarios/standstil/runs", JSON, "", 404, "did you mean 'standstill'?"),
        ("GET", "/v1/scenarios/standstill/runs/none", JSON, "", 404, "execution 'none' not found"),
    ] {
        let (found, problem, _) = send(&town, method, path, kind, body).await;
        assert_eq!(found, status, "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(shown), "{method} {path}: {problem}");
    }
}
