//! Scenarios that are kept in the lake: created, replaced, dropped, and forked at the instant of their creation.

use twinlake_contracts::now_us;
use twinlake_query::{Engine, SessionSettings};

use super::{City, FORK_US, Reading, ask, models, scenarios};
use crate::{ScenarioChange, Twins};

const NOW: &str =
    "name = \"frozen\"\ndescription = \"As it is now.\"\n[fork]\nat = \"now\"\nknown_at = \"now\"\n";
const SLOW: &str = "name = \"slow\"\n[[overrides]]\ntwin = \"vehicle\"\nset = { speed_mps = 1.0 }\n";

fn vehicle(ts: i64, speed: f64) -> Reading {
    Reading { vehicle: "a", ts: Some(ts), known: Some(ts), speed, mode: "bus", ..Reading::default() }
}

#[tokio::test]
async fn a_fork_at_now_never_moves() {
    let files = || vec![("frozen.toml".to_owned(), NOW.to_owned())];
    let city = City::with(models(), files()).await;
    city.drive(&[vehicle(FORK_US, 1.0)], Some(1)).await;
    let before = now_us();
    city.twins.open_scenarios().await.unwrap();
    let fork = city.twins.scenario("frozen").unwrap().fork_at_us.unwrap();
    assert!(fork <= before && before - fork < 600_000_000, "{fork} {before}");
    // A process that loads the file later, twice.
    for _ in 0..2 {
        let engine = Engine::new(city.lake.clone());
        let later = Twins::load(&engine, models(), files()).unwrap();
        assert_ne!(later.scenario("frozen").unwrap().fork_at_us, Some(fork));
        later.open_scenarios().await.unwrap();
        let kept = later.scenario("frozen").unwrap();
        assert_eq!((kept.fork_at_us, kept.fork_known_at_us), (Some(fork), Some(fork)));
    }
    assert_eq!(city.ask("SELECT name, change FROM meta.scenario_definitions").await, ["frozen | forked"]);
    // Created ones stay as well; what comes later is not part of them.
    let (created, change) =
        city.twins.create_scenario(Some("also"), &NOW.replace("name = \"frozen\"\n", "")).await.unwrap();
    assert_eq!(change, ScenarioChange::Created);
    let (again, change) =
        city.twins.create_scenario(Some("also"), &NOW.replace("name = \"frozen\"\n", "")).await.unwrap();
    assert_eq!((again.fork_at_us, change), (created.fork_at_us, ScenarioChange::Unchanged));
    let (_engine, twins) = city.reopened();
    twins.open_scenarios().await.unwrap();
    assert_eq!(twins.scenario("also").unwrap().fork_at_us, created.fork_at_us);
    city.drive(&[vehicle(now_us(), 9.0)], Some(2)).await;
    assert_eq!(city.ask("SELECT speed_mps FROM twin.vehicle").await, ["9.0"]);
    for name in ["frozen", "also"] {
        let sql = format!("SELECT speed_mps FROM twin_at('vehicle', NULL, scenario => '{name}')");
        assert_eq!(city.ask(&sql).await, ["1.0"]);
    }
}

#[tokio::test]
async fn created_scenarios_outlive_the_process_and_are_seen_by_others() {
    let city = City::new().await;
    city.drive(&[vehicle(FORK_US, 5.0)], Some(1)).await;
    let speed = "SELECT speed_mps, scenario FROM twin_at('vehicle', NULL, scenario => 'slow')";
    let (_engine, other) = city.reopened();
    // The session of the other process sees it when that process looks.
    let create = format!(
        "SELECT name, change, overrides, runs, members FROM scenario_create('{}')",
        SLOW.replace('\'', "''")
    );
    city.rows(&format!("EXPLAIN {create}")).await;
    assert_eq!(
        city.ask("SELECT count(*) FROM meta.scenarios WHERE name = 'slow'").await,
        ["0"],
        "explained, not made"
    );
    assert_eq!(city.ask(&create).await, ["slow | created | 1 | 0 | 0"]);
    assert_eq!(city.ask(&create).await, ["slow | unchanged | 1 | 0 | 0"]);
    assert_eq!(city.ask(speed).await, ["1.0 | slow"]);
    other.open_scenarios().await.unwrap();
    assert_eq!(other.scenario("slow").unwrap().source, "created");
    let replace = create.replace("speed_mps = 1.0", "speed_mps = 2.0");
    assert_eq!(city.ask(&replace).await, ["slow | replaced | 1 | 0 | 0"]);
    other.open_scenarios().await.unwrap();
    assert_eq!(city.ask(speed).await, ["2.0 | slow"]);
    assert_eq!(other.scenario("slow").unwrap().overrides[0].set["speed_mps"], 2.0);
    let from = "SELECT name, source FROM meta.scenarios ORDER BY 1";
    assert_eq!(
        city.ask(from).await,
        ["closed | closed.toml", "slow | created", "unchanged | unchanged.toml"]
    );
    // What a file says is the file's.
    for sql in
        ["SELECT * FROM scenario_create('', name => 'closed')", "SELECT * FROM scenario_drop('closed')"]
    {
        let error = city.session().collect(sql).await.unwrap_err().to_string();
        assert!(error.contains("closed.toml"), "{error}");
    }
    // In one query it is dropped once, however often the query names it.
    let twice = "WITH d AS (SELECT * FROM scenario_drop('slow')) SELECT a.name, b.change FROM d AS a JOIN d AS b ON a.name = b.name";
    assert_eq!(city.ask(twice).await, ["slow | dropped"]);
    let error = city.session().collect(speed).await.unwrap_err().to_string();
    assert!(error.contains("scenario 'slow' not found"), "{error}");
    other.open_scenarios().await.unwrap();
    assert!(other.scenario("slow").is_err());
    let log = "SELECT change FROM meta.scenario_definitions WHERE name = 'slow' ORDER BY recorded_at";
    assert_eq!(city.ask(log).await, ["created", "created", "dropped"]);
}

#[tokio::test]
async fn json_says_the_same_as_toml() {
    let city = City::new().await;
    city.drive(&[vehicle(FORK_US, 5.0)], Some(1)).await;
    let json = r#"{ "name": "slow", "description": "Slow.", "overrides": [
        { "twin": "vehicle", "rows": [{ "vehicle_id": "a", "speed_mps": 3.5 }] } ] }"#;
    let (scenario, _) = city.twins.create_scenario(None, json).await.unwrap();
    assert_eq!(scenario.overrides.len(), 1);
    assert_eq!(city.ask("SELECT speed_mps FROM twin_at('vehicle', NULL, scenario => 'slow')").await, ["3.5"]);
    for (from, to, shown) in [
        ("\"rows\"", "\"row\"", "did you mean 'rows'?"),
        ("\"twin\": \"vehicle\"", "\"twin\": \"vehicel\"", "did you mean 'vehicle'?"),
        ("3.5 }]", "3.5 ]", "expected `,` or `}`"),
    ] {
        let error =
            city.twins.create_scenario(None, &json.replacen(from, to, 1)).await.unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("scenario:2:"), "{error}");
    }
    let error = city.twins.create_scenario(Some("other"), json).await.unwrap_err().to_string();
    assert!(error.contains("the scenario 'other' calls itself 'slow'"), "{error}");
    // A session opened by whatever door sees the same.
    let session = city.engine.session(SessionSettings::default()).unwrap();
    assert_eq!(ask(&session, "SELECT description FROM meta.scenarios WHERE name = 'slow'").await, ["Slow."]);
    assert!(scenarios().len() > 1);
}
