//! The service over the demo's lake: HTTP, psql and a PostgreSQL driver give the same answers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::demo::demo;
use crate::support::{Running, free_port, number, wait_for_port};

struct Served {
    _process: Running,
    http: String,
    postgres: u16,
}

/// Serves a copy of the demo's lake, so that tests do not meet.
fn serve(folder: &Path) -> Served {
    let copied =
        Command::new("cp").arg("-r").arg(demo().0.path().join("twinlake-data")).arg(folder).status().unwrap();
    assert!(copied.success());
    let (http, postgres, mqtt) = (free_port(), free_port(), free_port());
    let address = |port: u16| format!("127.0.0.1:{port}");
    let arguments =
        ["serve", "--http", &address(http), "--postgres", &address(postgres), "--mqtt", &address(mqtt)];
    let mut process = Running::start(folder, &arguments);
    wait_for_port(http, &mut process);
    wait_for_port(postgres, &mut process);
    Served { _process: process, http: format!("http://127.0.0.1:{http}"), postgres }
}

fn psql(port: u16, sql: &str) -> String {
    let output = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "twinlake", "-d", "twinlake"])
        .args(["-v", "ON_ERROR_STOP=1", "-X", "-A", "-t", "-F", "|", "-c", sql])
        .output()
        .expect("psql is not installed: run cargo xtask test");
    assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn psql_shows_what_tables_and_columns_are() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let column = psql(
        served.postgres,
        "SELECT pg_catalog.col_description(a.attrelid, a.attnum) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c \
         ON c.oid = a.attrelid WHERE c.relname = 'vehicle_position' AND a.attname = 'speed_mps'",
    );
    assert_eq!(column.trim(), "Speed over ground. [m/s]");
    let table = psql(
        served.postgres,
        "SELECT pg_catalog.obj_description(oid, 'pg_class') FROM pg_catalog.pg_class WHERE relname = 'road_node'",
    );
    assert!(table.contains("The ends of the road links"), "{table}");
}

#[test]
fn psql_runs_the_three_tenses() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let ask = |sql: &str| psql(served.postgres, sql);
    let last = |text: String| text.trim().lines().last().unwrap_or_default().to_owned();

    let now: i64 = last(ask("SELECT count(*) FROM twin.vehicle")).parse().unwrap();
    assert!(now > 1000, "{now}");
    assert!(ask("SELECT vehicle_id, speed_mps, st_astext(geom) FROM twin.vehicle LIMIT 3").contains("POINT"));
    let then = last(ask("SET twin.as_of = '2018-10-09T04:32:53Z'; SELECT count(*) FROM twin.vehicle"));
    assert!((1..now).contains(&then.parse::<i64>().unwrap()), "{then} of {now}");
    let known = last(ask("SET twin.known_at = '2018-10-09T04:32:53.5Z'; SELECT count(*) FROM twin.vehicle"));
    assert!((1..now).contains(&known.parse::<i64>().unwrap()), "{known} of {now}");
    let everything =
        last(ask("SET twin.known_at = '2018-10-09T04:33:00Z'; SELECT count(*) FROM twin.vehicle"));
    assert_eq!(everything.parse::<i64>().unwrap(), now);
    let would_be =
        last(ask("SET twin.scenario = 'bridge-closed'; SET twin.as_of = '2018-10-09T05:30:00Z'; \
         SELECT count(*), count(flow_vph) FROM twin.road_segment WHERE origin = 'simulated'"));
    let (all, with_flow) = would_be.split_once('|').unwrap();
    assert!(all.parse::<i64>().unwrap() > 1000 && all == with_flow, "{would_be}");
    let two_tenses = last(ask(
        "SELECT count(*) FROM twin_at('road_segment', TIMESTAMP '2018-10-09 05:30:00', scenario => 'bridge-closed')",
    ));
    assert_eq!(two_tenses, all);
    assert!(
        !ask("SELECT * FROM simulate('traffic_assignment', scenario => 'bridge-closed', seed => 1) LIMIT 2")
            .is_empty()
    );
    assert!(ask("SELECT name, status FROM meta.runs").contains("traffic_assignment|succeeded"));
    assert!(ask("SELECT input, output FROM meta.lineage").contains("traffic.vehicle_position"));
    assert!(ask("SELECT reason, count(*) FROM meta.rejects GROUP BY 1").contains("missing_value|87"));
    assert!(ask("SELECT name, rows FROM meta.datasets").contains("traffic.vehicle_position|2842"));
    ask("\\dt");
}

#[tokio::test]
async fn a_driver_keeps_its_own_tense() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let connect = || async {
        let settings = format!("host=127.0.0.1 port={} user=twinlake dbname=twinlake", served.postgres);
        let (client, connection) = tokio_postgres::connect(&settings, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let (past, present) = (connect().await, connect().await);
    past.batch_execute("SET twin.as_of = '2018-10-09T04:32:52Z'").await.unwrap();
    let sql = "SELECT count(*) FROM twin.vehicle";
    let then: i64 = past.query_one(sql, &[]).await.unwrap().get(0);
    let now: i64 = present.query_one(sql, &[]).await.unwrap().get(0);
    assert!(then < now, "{then} < {now}");
    let line: i64 = present
        .query_one("SELECT count(*) FROM twin.vehicle WHERE line = $1", &[&"57"])
        .await
        .unwrap()
        .get(0);
    assert!(line > 0);
    let error = present.query_one("SELECT * FROM twin.vehicel", &[]).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("vehicle"), "{error:?}");
    let refused = present.batch_execute("DROP TABLE traffic.vehicle_position").await.unwrap_err();
    assert!(refused.as_db_error().is_some(), "{refused:?}");
}

#[tokio::test]
async fn http_answers_sql_twins_and_simulations() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let http = reqwest::Client::new();
    let get = |path: String| {
        let request = http.get(format!("{}{path}", served.http));
        async move { request.send().await.unwrap() }
    };
    assert_eq!(get("/healthz".into()).await.status(), 200);
    assert_eq!(get("/readyz".into()).await.status(), 200);

    let answer: Value = http
        .post(format!("{}/v1/sql", served.http))
        .json(&json!({"sql": "SELECT count(*) AS n FROM twin.vehicle", "as_of": "2018-10-09T04:32:53Z"}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let expected =
        number(folder.path(), "SELECT count(*) FROM twin_at('vehicle', TIMESTAMP '2018-10-09T04:32:53Z')");
    assert!(answer.to_string().contains(&expected.to_string()), "{answer} against {expected}");

    let arrow = http
        .post(format!("{}/v1/sql", served.http))
        .header("accept", "application/vnd.apache.arrow.stream")
        .json(&json!({"sql": "SELECT vehicle_id FROM twin.vehicle"}))
        .send()
        .await
        .unwrap();
    assert_eq!(arrow.status(), 200);
    assert!(arrow.bytes().await.unwrap().starts_with(&[0xff, 0xff, 0xff, 0xff]));

    let one = get("/v1/twins/vehicle/18%2F640?as_of=2018-10-09T04:32:53Z".into()).await;
    assert_eq!(one.status(), 200);
    assert!(one.text().await.unwrap().contains("18/640"));
    assert_eq!(get("/v1/twins/vehicle/none".into()).await.status(), 404);
    let unknown = get("/v1/twins/vehicel".into()).await;
    assert_eq!(unknown.status(), 404);
    assert!(unknown.text().await.unwrap().contains("vehicle"));

    let submitted = http
        .post(format!("{}/v1/simulations", served.http))
        .json(&json!({"operator": "traffic_assignment", "scenario": "bridge-closed"}))
        .send()
        .await
        .unwrap();
    assert_eq!(submitted.status(), 202);
    let run = submitted.json::<Value>().await.unwrap()["run_id"].as_str().unwrap().to_owned();
    for attempt in 0.. {
        let status: Value = get(format!("/v1/simulations/{run}")).await.json().await.unwrap();
        if status["status"] == "succeeded" {
            break;
        }
        assert!(attempt < 600 && status["status"] != "failed", "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let result = get(format!("/v1/simulations/{run}/result")).await;
    assert_eq!(result.status(), 200);
    assert!(result.text().await.unwrap().contains("flow_vph"));

    assert!(get("/metrics".into()).await.text().await.unwrap().contains("# TYPE"));
    let api: Value = get("/openapi.json".into()).await.json().await.unwrap();
    assert!(api["paths"]["/v1/sql"]["post"].is_object(), "{api}");
}
